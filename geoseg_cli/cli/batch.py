"""``geoseg batch``: what became of runs over many scenes."""

from __future__ import annotations

import json as json_format
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg_cli.cli.help_texts import PlainCommand, PlainGroup
from geoseg_cli.cli.request import SOME_FAILED_EXIT_CODE, put
from geoseg_cli.printable import counted, printable

if TYPE_CHECKING:
    from geoseg_cli.batch.status import SceneState

app = typer.Typer(
    help="See what became of runs over many scenes.", cls=PlainGroup, no_args_is_help=True, add_completion=False
)

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder that the run wrote to: that of --out-dir, or of the scenes.")
]
Hashes = Annotated[bool, typer.Option("--recheck", help="Compare the content of every map with its hash.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per scene instead of lines.")]


@app.callback()
def group() -> None:
    """See what became of runs over many scenes."""


@app.command("status", cls=PlainCommand)
def status(folder: Folder, recheck: Hashes = False, json: Json = False) -> None:
    """Tell which maps of DIR are done, failed, running, interrupted, missing or changed.

    Exit code 0 if all are done, 1 if not.
    """
    from geoseg_cli.batch.status import read_status

    states = read_status(folder, recheck)
    if json:
        put("".join(json_format.dumps(one.to_json()) + "\n" for one in states))
    else:
        put("".join(_line(one) for one in states if one.state != "done"))
        counts = Counter(one.state for one in states)
        told = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        put(f"{counted(len(states), 'scene')}: {told}\n")
    if any(one.state != "done" for one in states):
        sys.exit(SOME_FAILED_EXIT_CODE)


def _line(one: SceneState) -> str:
    last = one.last
    text = f"{one.state}: {last.scene} -> {last.output}"
    if one.state == "failed":
        text += f" (code {last.error.get('exit_code')}): {last.error.get('message')} -> {last.error.get('hint')}"
    if one.state == "running":
        text += f": process {last.process} on {last.host}"
    return printable(text) + "\n"
