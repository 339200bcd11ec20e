"""``geoseg verify``: is a map, with what lies beside it, still as geoseg wrote it?"""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg_cli.cli.console import tame
from geoseg_cli.cli.request import SOME_FAILED_EXIT_CODE, put
from geoseg_cli.errors import GeosegError, StorageError
from geoseg_cli.printable import printable

if TYPE_CHECKING:
    from geoseg_cli.results.verify import Verdict

Maps = Annotated[list[Path], typer.Argument(metavar="MAP", help="Maps that geoseg wrote.", show_default=False)]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing of maps that are intact.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per map instead of lines.")]


def command(maps: Maps, json: Json = False, quiet: Quiet = False) -> None:
    """Check maps of geoseg and what lies beside them; exit code 0 if all are as they were written.

    Looked at are the file's structure, its colour table against its tags,
    the hash of its pixels, the values in its overviews, and whether
    attribute table, QGIS style and STAC item say the same as the map.
    Sidecars that are not there are no mistake.

    Rasters of probabilities, confidence, entropy and seams have no hash of
    their own: structure, tags, scale and values are looked at. The map's
    STAC item knows the checksum of the whole file.

    Codes for a single map: 65 it is no raster of geoseg, 66 there is no
    such file, 74 it is damaged or a check failed. 1 where some of several
    maps failed.
    """
    errors = [error for path in maps if (error := _verify(path, json, quiet)) is not None]
    if errors and len(maps) == 1:
        raise errors[0]
    if errors:
        print(f"{len(errors)} of {len(maps)} maps failed", file=sys.stderr)
        sys.exit(SOME_FAILED_EXIT_CODE)


def _verify(path: Path, as_json: bool, is_quiet: bool) -> GeosegError | None:
    """Check a map and tell the result; what is wrong, or None."""
    from geoseg_cli.results.verify_raster import verify_file

    try:
        verdict = verify_file(path)
    except GeosegError as error:
        tame(error)
        fields = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        put(json_format.dumps({"map": str(path), "error": fields}) + "\n" if as_json else f"{_name(path)}: failed\n")
        if not as_json:
            put(f"  {printable(error.message)}\n")
        return error
    if not (is_quiet and verdict.is_intact):
        put(json_format.dumps(verdict.to_json()) + "\n" if as_json else _lines(verdict))
    if verdict.is_intact:
        return None
    return StorageError(
        f"{path}: {len(verdict.problems)} of {len(verdict.checks)} checks failed: {', '.join(verdict.problems)}",
        "make the map again, or take the one that was not changed",
    )


def _lines(verdict: Verdict) -> str:
    absent = f"; not there: {', '.join(verdict.absent)}" if verdict.absent else ""
    plain = "; a plain GeoTIFF" if verdict.format == "gtiff" else ""
    if verdict.is_intact:
        other = "" if verdict.kind == "labels" else f"; {verdict.kind}, without a hash of its own"
        return f"{_name(verdict.path)}: intact, {len(verdict.checks)} checks{plain}{other}{printable(absent)}\n"
    lines = [f"{_name(verdict.path)}: failed{plain}{absent}"]
    lines += [f"  {check}: {text}" for check, texts in verdict.problems.items() for text in texts]
    return "\n".join(map(printable, lines)) + "\n"


def _name(path: Path) -> str:
    return printable(str(path))
