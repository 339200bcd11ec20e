"""``geoseg composite``: many maps of one place become one."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg_cli.cli import options as o
from geoseg_cli.cli import to_stdout
from geoseg_cli.cli.area_tables import mapped_table
from geoseg_cli.cli.console import Messages
from geoseg_cli.cli.request import SOME_FAILED_EXIT_CODE, _creation_options, _source_date, put, refuse_no_name
from geoseg_cli.errors import UsageError
from geoseg_cli.printable import counted

if TYPE_CHECKING:
    from geoseg_cli.composite.find import Stack
    from geoseg_cli.composite.run import CompositeReport

Maps = Annotated[
    list[Path],
    typer.Argument(
        readable=False,
        metavar="MAP|FOLDER",
        show_default=False,
        help="Class maps of one grid that geoseg wrote, and folders that hold some, at any depth.",
    ),
]
Out = Annotated[Path, typer.Option("-o", "--output", metavar="OUT.tif", help="The composite.", show_default=False)]
Pattern = Annotated[
    str, typer.Option("--pattern", metavar="GLOB", help="Which files of folders are maps, such as '*_landcover.tif'.")
]
ConfidenceSuffix = Annotated[
    str | None,
    typer.Option(
        "--confidence-suffix",
        metavar="SUFFIX",
        show_default=False,
        help="Weigh each vote with the confidence that was written with its map: with _confidence that of"
        " A_landcover.tif is A_landcover_confidence.tif or A_confidence.tif. Without it all votes weigh the same.",
    ),
]
Clouds = Annotated[
    str | None,
    typer.Option(
        "--clouds",
        metavar="SUFFIX|FOLDER",
        show_default=False,
        help="Cloud masks for maps that are not masked: what their names end with, such as _cloudmask, or a folder"
        " with a mask of each map's scene.",
    ),
]
MinCount = Annotated[
    int, typer.Option("--min-count", min=1, metavar="N", help="Pixels seen clearly less often become nodata.")
]
MaxMemory = Annotated[
    str, typer.Option("--max-memory", metavar="auto|SIZE", help="For counting: 64M, 2G, ...; auto is 256M.")
]
Co = Annotated[
    list[str] | None,
    typer.Option(
        "--co",
        metavar="NAME=VALUE",
        rich_help_panel=o.WRITING,
        show_default=False,
        help="Creation option of GDAL's driver COG; may be repeated.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON report instead of the output path.")]


def command(
    maps: Maps,
    output: Out,
    pattern: Pattern = "*.tif",
    confidence_suffix: ConfidenceSuffix = None,
    clouds: Clouds = None,
    min_count: MinCount = 1,
    max_memory: MaxMemory = "auto",
    no_sidecar: o.NoSidecar = False,
    co: Co = None,
    overwrite: o.Overwrite = False,
    json: AsJson = False,
    quiet: o.Quiet = False,
) -> None:
    """Write the most frequent class of each pixel over many maps, and how often it was seen clearly.

    Nodata and classes of clouds and their shadows do not count; of cloud masks
    every class does. Where classes are equally frequent the one seen most
    recently wins. The second band of OUT is the number of clear observations.
    A damaged file in a folder is named and left out, and the exit code is 1.
    Standard output carries the path of the composite and nothing else.
    """
    from geoseg_cli.composite.run import DEFAULT_MEMORY_BYTES, CompositeOptions, compose

    refuse_no_name("--output", output)
    if output in to_stdout.NAMES:
        raise UsageError("a composite does not go to standard output", "name a file with -o")
    options = CompositeOptions(
        pattern=pattern,
        confidence_suffix=confidence_suffix,
        clouds=clouds,
        min_count=min_count,
        max_memory_bytes=o.read_size(max_memory) or DEFAULT_MEMORY_BYTES,
        sidecars=not no_sidecar,
        creation_options=_creation_options(co or ()),
        overwrite=overwrite,
        written_at=_source_date(),
    )
    messages = Messages(quiet, 0)
    with messages.progress(output.name) as progress:
        report = compose(maps, output, options, progress, lambda stack: _announce(messages, stack))
    _tell(messages, report)
    put(json_format.dumps(report.to_json(), allow_nan=False) + "\n" if json else f"{output}\n")
    if report.stack.failed:
        sys.exit(SOME_FAILED_EXIT_CODE)


def _announce(messages: Messages, stack: Stack) -> None:
    grid, maps = stack.grid, stack.maps
    for path, error in stack.failed:
        messages.failure(path, error)
    messages.note(f"{counted(len(maps), 'map')} of {grid.height} x {grid.width} px, legend {stack.counted.name}")
    if stack.skipped:
        messages.note(f"  {counted(stack.skipped, 'other file')} in the folders: no class map to count")
    undated = sum(one.acquired is None for one in maps)
    if undated:
        messages.note(f"  {counted(undated, 'map')} without the time when the scene was taken: counted as the oldest")
    repeated = len(maps) - len({(one.pixels_sha256, one.acquired, one.scene) for one in maps})
    if repeated:
        repeating = counted(repeated, "map repeats", "maps repeat")
        messages.note(f"  warning: {repeating} another one, which counts each time")


def _tell(messages: Messages, report: CompositeReport) -> None:
    messages.note(mapped_table(report.areas).rstrip())
    messages.note(f"never seen clearly: {counted(report.never_seen, 'pixel')}")
    if report.options.min_count > 1:
        messages.note(f"seen less than {report.options.min_count} times: {counted(report.too_rarely, 'pixel')}")
    if failed := len(report.stack.failed):
        of_all = counted(failed + len(report.stack.maps), "map")
        messages.note(f"{failed} of {of_all} failed; the composite is made of the others")
