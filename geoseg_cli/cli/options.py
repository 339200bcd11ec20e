"""Options that several commands share, as annotated types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from geoseg_cli.version import __version__

READING, MODEL, WRITING = "Reading the scene", "Model and engine", "Writing the map"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"geoseg {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
]
Scenes = Annotated[
    list[Path], typer.Argument(readable=False, metavar="SCENE", help="GeoTIFF scenes.", show_default=False)
]
ScenesOrFolders = Annotated[
    list[Path],
    typer.Argument(
        readable=False, metavar="SCENE|FOLDER", help="GeoTIFF scenes, or folders of them.", show_default=False
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Output file, for one scene.", rich_help_panel=WRITING, show_default=False),
]
OutDir = Annotated[
    Path | None,
    typer.Option(
        "--out-dir",
        help="Folder for the outputs; beside each scene if not given.",
        rich_help_panel=WRITING,
        show_default=False,
    ),
]
Probabilities = Annotated[
    Path | None,
    typer.Option(
        "--probabilities",
        metavar="OUT",
        rich_help_panel=WRITING,
        show_default=False,
        help="Also write the probability of every class (uint8, value / 250); see --confidence.",
    ),
]
Confidence = Annotated[
    Path | None,
    typer.Option(
        "--confidence",
        metavar="OUT",
        rich_help_panel=WRITING,
        show_default=False,
        help="Also write the probability of the chosen class (uint8, value / 250). It tells the share of right pixels"
        " only where the bundle's card has a calibration, and on data like those: geoseg models show.",
    ),
]
CreationOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--co",
        metavar="NAME=VALUE",
        rich_help_panel=WRITING,
        show_default=False,
        help="Creation option of GDAL's COG driver; may be repeated.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.", rich_help_panel=WRITING)]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|FOLDER",
        rich_help_panel=MODEL,
        show_default=False,
        help="Bundle to run; see `geoseg models list`.",
    ),
]
EngineName = Annotated[
    Literal["auto", "torch", "onnx"],
    typer.Option("--engine", help="What runs the network.", rich_help_panel=MODEL),
]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda[:N]", help="Where it runs.", rich_help_panel=MODEL)
]
Precision = Annotated[
    Literal["auto", "fp32", "fp16", "bf16"],
    typer.Option("--precision", help="Arithmetic of the network.", rich_help_panel=MODEL),
]
TilePx = Annotated[
    int | None,
    typer.Option(
        "--tile",
        metavar="PX",
        min=1,
        help="Side of a tile; the bundle's if not given.",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
OverlapPx = Annotated[
    int | None,
    typer.Option(
        "--overlap",
        metavar="PX",
        min=0,
        rich_help_panel=MODEL,
        show_default=False,
        help="Pixels that neighbouring tiles share at least; the bundle's if not given.",
    ),
]
BlendName = Annotated[
    Literal["hann", "linear", "trim"],
    typer.Option("--blend", help="How overlaps are merged.", rich_help_panel=MODEL),
]
BatchSize = Annotated[
    str,
    typer.Option(
        "--batch",
        metavar="N|auto",
        help="Tiles that travel together; never changes the map.",
        rich_help_panel=MODEL,
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(
        "--bands",
        metavar="NAME,NAME,...",
        rich_help_panel=READING,
        show_default=False,
        help="Names of the file's bands in file order (red, B04, ...; - skips one); decides over the file's own.",
    ),
]
RadiometryName = Annotated[
    Literal["auto", "reflectance", "dn", "dn-1000"],
    typer.Option(
        "--radiometry",
        rich_help_panel=READING,
        help="What the numbers mean: reflectance 0..1, dn / 10000, or (dn - 1000) / 10000.",
    ),
]
Nodata = Annotated[
    str,
    typer.Option("--nodata", metavar="auto|none|nan|NUMBER", help="Value of missing pixels.", rich_help_panel=READING),
]
Bounds = Annotated[
    str | None,
    typer.Option(
        "--bounds",
        metavar='"L B R T"',
        rich_help_panel=READING,
        show_default=False,
        help="Only this rectangle in the scene's CRS; outside becomes nodata.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON report per scene instead of the output path.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No messages and no progress; errors still show.")]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        help="Say more; -vv shows the traceback of an internal error.",
        show_default=False,
    ),
]
