"""``geoseg report``: maps as one page to look at in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geoseg_cli.cli import options as o
from geoseg_cli.cli.console import Messages, tame
from geoseg_cli.cli.logs import LogFile, LogFormat
from geoseg_cli.cli.request import put
from geoseg_cli.errors import GeosegError, UsageError
from geoseg_cli.printable import printable

LEAST_PX, MOST_PX = 16, 4096

Maps = Annotated[
    list[Path],
    typer.Argument(readable=False, metavar="MAP", help="Class maps that geoseg wrote.", show_default=False),
]
Out = Annotated[Path, typer.Option("-o", "--output", metavar="OUT.html", help="The page.", show_default=False)]
Scenes = Annotated[
    Path | None,
    typer.Option(
        "--scenes",
        metavar="FOLDER",
        show_default=False,
        help="Where the scenes are; if not given, where the maps' STAC items say, or beside the maps.",
    ),
]
Size = Annotated[
    int, typer.Option("--size", metavar="PX", min=LEAST_PX, max=MOST_PX, help="Longest side of each map on the page.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]


def command(
    maps: Maps,
    output: Out,
    scenes: Scenes = None,
    size: Size = 1600,
    bands: o.Bands = None,
    nodata: o.Nodata = "auto",
    sensor: o.SensorName = None,
    overwrite: Overwrite = False,
    log_file: LogFile = None,
    log_format: LogFormat = "json",
    quiet: o.Quiet = False,
) -> None:
    """Write one HTML page of the MAPs: it needs no network and no other file.

    Each map can be moved and zoomed, swiped against its scene, and its classes
    switched on and off; areas and provenance stand beside it. Several maps get a
    table. The page holds what the maps' own tags, sidecars and pixels say. A
    scene that is not found, or cannot be read, is told on the page.
    """
    options = o.scene_options({**locals(), "radiometry": "auto"})
    if scenes is not None and not scenes.is_dir():
        raise UsageError(f"--scenes {printable(str(scenes))} is no folder", "name the folder that holds the scenes")
    from geoseg_cli.map_views import ViewOptions, write_report

    try:
        notes = write_report(maps, output, ViewOptions(size, overwrite, scenes, options))
    except GeosegError as error:
        tame(error)
        raise
    messages = Messages(quiet, 0)
    for path, note in notes:
        messages.note(f"{path}: {note}")
    put(f"{output}\n")
