"""Options for many scenes, as annotated types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geoseg_cli.cli.options import MODEL

MANY = "Many scenes"
CLUSTER = "Clusters"

NameTemplate = Annotated[
    str | None,
    typer.Option(
        "--name-template",
        metavar="TEMPLATE",
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
        help="Further tries for what may pass, such as a network.",
    ),
]
Wait = Annotated[
    int,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        rich_help_panel=MANY,
        help="How long, after all other scenes, to wait for one that another run is making.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        rich_help_panel=MANY,
        help="Processes that each load the model and take scenes one by one; CUDA devices go round among them.",
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        "--threads",
        metavar="N",
        min=0,
        rich_help_panel=MODEL,
        help="Processor threads of the engine, of each worker; 0: all cores, divided among --workers.",
    ),
]
ShardText = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N|auto",
        rich_help_panel=MANY,
        show_default=False,
        help="Run the I-th of N parts of the scenes; auto: as a job array of SLURM, AWS Batch or Kubernetes says.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="local|ADDRESS|slurm:FILE",
        rich_help_panel=CLUSTER,
        show_default=False,
        help="Run on Dask: tcp://HOST:PORT, tls://HOST:PORT, file://FILE.json, or workers that SLURM starts.",
    ),
]
Resources = Annotated[
    str | None,
    typer.Option(
        "--resources",
        metavar="NAME=N",
        rich_help_panel=CLUSTER,
        show_default=False,
        help="What a Dask worker must offer, and a scene takes of it, such as GPU=1.",
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option("--tls-ca", metavar="FILE", rich_help_panel=CLUSTER, show_default=False, help="Authority of tls://."),
]
TlsCert = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="FILE", rich_help_panel=CLUSTER, show_default=False, help="Our certificate."),
]
TlsKey = Annotated[
    Path | None,
    typer.Option("--tls-key", metavar="FILE", rich_help_panel=CLUSTER, show_default=False, help="Its private key."),
]
