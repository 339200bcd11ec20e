"""``geoseg config``: which values options have without flags, and where they come from."""

from __future__ import annotations

import json as json_format
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from geoseg_cli.cli.help_texts import PlainCommand, PlainGroup
from geoseg_cli.cli.request import put
from geoseg_cli.errors import UsageError

app = typer.Typer(
    help="Show the configuration and where each value comes from.",
    cls=PlainGroup,
    no_args_is_help=True,
    add_completion=False,
)

Command = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[COMMAND [FLAG]...]",
        show_default=False,
        help="A command, such as classify or scene info, and flags as they would follow it; every command if not"
        " given, with what is set.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

UNSET, FLAG = "default", "flag"


@app.command("show", cls=PlainCommand, context_settings={"ignore_unknown_options": True})
def show(ctx: typer.Context, command: Command = None, json: AsJson = False) -> None:
    """Print options with their values, and where each comes from: a flag, a variable, a file, or the default."""
    from geoseg_cli.cli.config_layers import leaves, project_file, read_files

    root: Any = ctx.find_root()
    root.command.load_all()
    project = project_file(root.params["config_file"], os.environ, Path.cwd())
    files = read_files(root.command, project)
    words, flags = _split(root.command, command or [])
    chosen = [(name, one) for name, one in leaves(root.command) if name[: len(words)] == words]
    rows = [row for name, one in chosen for row in _rows(root.command, name, one, files, flags)]
    if not words:
        rows = [row for row in rows if row["source"] != UNSET]
    if json:
        put(json_format.dumps({"files": [str(file.path) for file in files], "options": rows}) + "\n")
        return
    put(_lines(rows) if rows else "nothing is set: every option has its default\n")


@app.command("path", cls=PlainCommand)
def path(ctx: typer.Context) -> None:
    """Print the files that are read, the one that decides first, and the one of the user even if it is not there."""
    from geoseg_cli.cli.config_layers import project_file, user_file

    project = project_file(ctx.find_root().params["config_file"], os.environ, Path.cwd())
    user = user_file()
    put("".join(f"{one}\n" for one in (project, user) if one is not None))


def _split(root: Any, given: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Names of a command, and what follows them."""
    words, place = 0, root
    while words < len(given) and given[words] in getattr(place, "commands", {}):
        place = place.commands[given[words]]
        words += 1
    if given and not words:
        raise UsageError(f"there is no command {given[0]!r}", "see geoseg --help")
    if words < len(given) and hasattr(place, "commands"):
        raise UsageError(f"geoseg {' '.join(given[:words])} has no command {given[words]!r}", "see its --help")
    return tuple(given[:words]), list(given[words:])


def _rows(
    root: Any, words: tuple[str, ...], command: Any, files: Sequence[Any], flags: Sequence[str]
) -> list[dict[str, Any]]:
    from geoseg_cli.cli.config_layers import options_of, settings_of

    settings = settings_of(root, words, command, files, os.environ)
    context = command.make_context(
        words[-1], list(flags), resilient_parsing=True,
        default_map={name: one.value for name, one in settings.items()},
    )  # fmt: skip
    rows: dict[str, dict[str, Any]] = {}
    for key, param in options_of(command).items():
        origin = context.get_parameter_source(param.name)
        is_flag = origin is not None and origin.name == "COMMANDLINE"
        setting = settings.get(param.name)
        source = FLAG if is_flag else setting.source if setting else UNSET
        value = context.params.get(param.name) if is_flag or setting else param.default
        rows.setdefault(
            param.name, {"command": " ".join(words), "option": key, "value": _plain(value), "source": source}
        )
    return list(rows.values())


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    from geoseg_cli.printable import printable

    cells = [(row["command"], f"--{row['option']}", _shown(row["value"]), row["source"]) for row in rows]
    table = [("command", "option", "value", "from"), *(tuple(printable(cell) for cell in row) for row in cells)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)
    return "".join(f"{line}\n" for line in lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "-" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
