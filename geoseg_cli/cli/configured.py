"""Values of options that variables and files of configuration give, before a command runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

File = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        show_default=False,
        help="Configuration to use in the place of the nearest geoseg.toml; /dev/null for none.",
    ),
]

_HELP = {"-h", "--help"}


def apply(ctx: typer.Context, named: Path | None) -> None:
    """Give the command that is about to run its values; flags go before them.

    Args:
        ctx: Of the tool itself, whose ``obj`` are the words that it was called with.
        named: The file of ``--config``.

    Raises:
        ConfigError: A file or variable says something that cannot be used.
    """
    from geoseg_cli.cli.config_layers import default_map, project_file, read_files, user_file

    name = ctx.invoked_subcommand
    # Help must be there for whoever has to repair a file.
    if name is None or name == "config" or _HELP & set(ctx.obj or ()):
        return
    project = project_file(named, os.environ, Path.cwd())
    if not (project or user_file().is_file() or any(key.startswith("GEOSEG_") for key in os.environ)):
        return
    group: Any = ctx.command
    group.load_all()
    files = read_files(group, project)
    ctx.default_map = default_map(ctx.command, files, os.environ, name)
