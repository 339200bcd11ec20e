"""Options for many scenes, as annotated types."""

from __future__ import annotations

from typing import Annotated

import typer

MANY = "Many scenes"

NameTemplate = Annotated[
    str | None,
    typer.Option(
        "--name-template",
        metavar="TEXT",
        rich_help_panel=MANY,
        show_default="{stem}_landcover.tif or {stem}_cloudmask.tif",
        help="Names of the maps, with {stem}, {task}, {model}, {parent} and {date} in it; slashes make folders.",
    ),
]
Pattern = Annotated[
    list[str] | None,
    typer.Option(
        "--pattern",
        metavar="GLOB",
        rich_help_panel=MANY,
        show_default=False,
        help="Which scenes of folders count, such as '*_SR.tif' or '2023/*'; may be repeated.",
    ),
]
SkipExisting = Annotated[
    bool,
    typer.Option(
        "--skip-existing",
        rich_help_panel=MANY,
        help="Keep maps that no journal knows where geoseg verify accepts them and they name the same scene and model.",
    ),
]
FailFast = Annotated[
    bool, typer.Option("--fail-fast", rich_help_panel=MANY, help="Begin no further scene after one failed.")
]
Retries = Annotated[
    int,
    typer.Option(
        "--retries",
        metavar="N",
        min=0,
        rich_help_panel=MANY,
        help="Further tries for what may pass: a network, an output that another run holds.",
    ),
]
