"""``geoseg preview``: a map as a picture with legend, scale bar and north arrow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geoseg_cli.cli import options as o
from geoseg_cli.cli.console import Messages, tame
from geoseg_cli.cli.logs import LogFile, LogFormat
from geoseg_cli.cli.request import put
from geoseg_cli.errors import GeosegError

LEAST_PX, MOST_PX = 16, 8192

Map = Annotated[
    Path, typer.Argument(readable=False, metavar="MAP", help="A class map that geoseg wrote.", show_default=False)
]
Scene = Annotated[
    Path | None,
    typer.Argument(readable=False, metavar="SCENE", help="What it was made from, drawn beside it.", show_default=False),
]
Out = Annotated[Path, typer.Option("-o", "--output", metavar="OUT.png", help="The picture.", show_default=False)]
Size = Annotated[
    int, typer.Option("--size", metavar="PX", min=LEAST_PX, max=MOST_PX, help="Longest side of the map in the picture.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]


def command(
    map: Map,
    output: Out,
    scene: Scene = None,
    size: Size = 1024,
    bands: o.Bands = None,
    nodata: o.Nodata = "auto",
    sensor: o.SensorName = None,
    allow_network: o.AllowNetwork = False,
    allow_driver: o.AllowDriver = None,
    max_pixels: o.MaxPixels = None,
    overwrite: Overwrite = False,
    log_file: LogFile = None,
    log_format: LogFormat = "json",
    quiet: o.Quiet = False,
) -> None:
    """Draw MAP in the colours of its classes, and SCENE beside it in true colour.

    North is up. Large maps are read through their overviews. The scene shows its
    own red, green and blue, stretched between the 2 % and 98 % of their numbers.
    """
    options = o.scene_options({**locals(), "radiometry": "auto"})
    from geoseg_cli.map_views import ViewOptions, preview_map

    try:
        warnings = preview_map(map, scene, output, ViewOptions(size, overwrite, scene=options))
    except GeosegError as error:
        tame(error)
        raise
    for warning in warnings:
        Messages(quiet, 0).note(f"warning: {warning}")
    put(f"{output}\n")
