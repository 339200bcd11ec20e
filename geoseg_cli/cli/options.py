"""Options that several commands share, as annotated types, and what their texts mean."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from geoseg_cli.errors import UsageError
from geoseg_cli.version import __version__

if TYPE_CHECKING:
    from geoseg_cli.scenes import SceneOptions

READING, MODEL, WRITING = "Reading the scene", "Model and engine", "Writing the map"


def bundle_names(incomplete: str) -> list[str]:
    """Shipped bundles whose names begin so, for completion in a shell: reads names of folders alone."""
    from geoseg_cli.shipped import bundle_folders

    return [folder.name for folder in bundle_folders() if folder.name.startswith(incomplete)]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"geoseg {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
]
_A_SCENE = (
    "a GeoTIFF or JPEG 2000 file, a product folder (Sentinel-2 SAFE, Landsat, HLS, single-band files), a zipped SAFE,"
    " an MTD or MTL file, single-band files listed as A_B03.tif,A_B04.tif, a STAC item, or an address"
    " (https://..., s3://...) with --allow-network"
)
Scenes = Annotated[
    list[Path],
    typer.Argument(
        readable=False,
        metavar="SCENE|FOLDER|-",
        help=f"Each is {_A_SCENE}; or a folder, pattern or catalogue of scenes; or - for a list on standard input.",
        show_default=False,
    ),
]
OneScene = Annotated[
    Path, typer.Argument(readable=False, metavar="SCENE", help=f"It is {_A_SCENE}.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="OUT.tif",
        help="Output file, for one scene; - or /vsistdout/ for standard output.",
        rich_help_panel=WRITING,
        show_default=False,
    ),
]
OutDir = Annotated[
    Path | None,
    typer.Option(
        "--out-dir",
        metavar="FOLDER",
        help="Folder for the outputs; if not given, beside each scene, and here for addresses.",
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
Entropy = Annotated[
    Path | None,
    typer.Option(
        "--entropy",
        metavar="OUT",
        rich_help_panel=WRITING,
        show_default=False,
        help="Also write how undecided the network is: the entropy of the probabilities, 0 for one certain class to 1"
        " for all equally probable (uint8, value / 250).",
    ),
]
SeamsRaster = Annotated[
    Path | None,
    typer.Option(
        "--seams",
        metavar="OUT",
        rich_help_panel=WRITING,
        show_default=False,
        help="Also write where overlapping tiles disagreed: the share of a pixel's tiles that named another class than"
        " their blend did (uint8, value / 250), 0 where one tile answered. The report says how often they did.",
    ),
]
CreationOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--co",
        metavar="NAME=VALUE",
        rich_help_panel=WRITING,
        show_default=False,
        help="Creation option of GDAL's driver COG, or GTiff with --format gtiff; may be repeated.",
    ),
]
NoSidecar = Annotated[
    bool,
    typer.Option(
        "--no-sidecar",
        rich_help_panel=WRITING,
        help="Write the map alone, without attribute table (.aux.xml), QGIS style (.qml) and STAC item (.json).",
    ),
]
NoResume = Annotated[
    bool,
    typer.Option(
        "--no-resume",
        rich_help_panel=WRITING,
        help="Start at the first row, also where the same command was killed or interrupted, and keep nothing to go on"
        " with.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.", rich_help_panel=WRITING)]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|FOLDER",
        autocompletion=bundle_names,
        rich_help_panel=MODEL,
        show_default=False,
        help="Bundle to run; see `geoseg models list`.",
    ),
]
Trust = Annotated[
    str | None,
    typer.Option(
        "--trust",
        metavar="SHA256",
        rich_help_panel=MODEL,
        show_default=False,
        help="Run a bundle whose weights are a program (.pt2) and have this hash. It can do all that you can do.",
    ),
]
EngineName = Annotated[
    Literal["auto", "torch", "onnx", "openvino", "tensorrt"],
    typer.Option("--engine", help="What runs the network; auto: the fastest that is there.", rich_help_panel=MODEL),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda[:N[,M]]",
        help="Where it runs; cuda:0,1 shares a scene out among GPUs.",
        rich_help_panel=MODEL,
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "fp16", "bf16", "int8"],
    typer.Option(
        "--precision",
        help="Arithmetic of the network. auto: fp16 on CUDA; on a CPU fp32, or bf16 or int8 where that gives the same"
        " classes. int8 needs a graph in the bundle, which geoseg export makes.",
        rich_help_panel=MODEL,
    ),
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
Tta = Annotated[
    Literal["none", "flip", "d4"],
    typer.Option(
        "--tta",
        help="Test-time augmentation: average over four (flip) or eight (d4) views of each tile, at as many times the"
        " work.",
        rich_help_panel=MODEL,
    ),
]
BatchSize = Annotated[
    str,
    typer.Option(
        "--batch",
        metavar="N|auto",
        help="Tiles that travel together; auto is the engine's own number on a CPU, and on CUDA the fastest of a long"
        " run, which is remembered. Never changes the map.",
        rich_help_panel=MODEL,
    ),
]
MaskClouds = Annotated[
    bool,
    typer.Option(
        "--mask-clouds",
        help="Also run a cloud bundle over the same blocks, and hide what lies below clouds and shadows.",
        rich_help_panel=MODEL,
    ),
]
CloudsAs = Annotated[
    Literal["nodata", "class"],
    typer.Option("--clouds-as", help="What hidden pixels become with --mask-clouds.", rich_help_panel=MODEL),
]
CloudModelName = Annotated[
    str | None,
    typer.Option(
        "--cloud-model",
        metavar="NAME|FOLDER",
        autocompletion=bundle_names,
        rich_help_panel=MODEL,
        show_default=False,
        help="Bundle that finds the clouds; that of `geoseg cloudmask` if not given.",
    ),
]
MaxMemory = Annotated[
    str,
    typer.Option(
        "--max-memory",
        metavar="auto|SIZE",
        rich_help_panel=MODEL,
        help="What the run may take beside the network itself: 800M, 2G, ...; auto is half of what is free.",
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
        help="Only this rectangle in the scene's CRS, or in --bounds-crs; outside becomes nodata.",
    ),
]
BoundsCrs = Annotated[
    str | None,
    typer.Option(
        "--bounds-crs",
        metavar="CRS",
        rich_help_panel=READING,
        show_default=False,
        help="What --bounds are in, such as EPSG:4326 (longitude first).",
    ),
]
AreaFile = Annotated[
    Path | None,
    typer.Option(
        "--area",
        "--aoi",
        metavar="FILE",
        rich_help_panel=READING,
        show_default=False,
        help="Only inside these polygons (.geojson or .gpkg, any CRS); outside becomes nodata.",
    ),
]
Crop = Annotated[
    bool, typer.Option("--crop", help="Outputs end where --area or --bounds end.", rich_help_panel=READING)
]
GsdName = Annotated[
    str,
    typer.Option(
        "--gsd",
        metavar="auto|native|METRES",
        rich_help_panel=READING,
        help="Pixel size that the model sees. auto: the model's, if the scene's differs by more than 25 %. The map has"
        " the scene's pixels in any case.",
    ),
]
SensorName = Annotated[
    str | None,
    typer.Option(
        "--sensor",
        metavar="NAME",
        rich_help_panel=READING,
        show_default=False,
        help="Whose band names these are; names the bands of a file without names: sentinel-2, landsat-8, landsat-5,"
        " hls-l30, hls-s30, planetscope-4 or planetscope-8.",
    ),
]
Fill = Annotated[
    list[str] | None,
    typer.Option(
        "--fill",
        metavar="BAND=VALUE",
        rich_help_panel=READING,
        show_default=False,
        help="Reflectance (1.0 is white) to take for a band that the scene lacks; may be repeated.",
    ),
]
Valid = Annotated[
    Literal["all", "any"],
    typer.Option("--valid", rich_help_panel=READING, help="Pixels count where all used bands have a value, or any."),
]
Saturated = Annotated[
    Literal["keep", "nodata"],
    typer.Option(
        "--saturated", rich_help_panel=READING, help="Whether the largest number of an integer type is a value."
    ),
]
AllowNetwork = Annotated[
    bool,
    typer.Option("--allow-network", rich_help_panel=READING, help="Read addresses and the assets of STAC items there."),
]
AllowDriver = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-driver",
        metavar="VRT",
        rich_help_panel=READING,
        show_default=False,
        help="Open a GDAL virtual raster. It makes GDAL read other files: only for those that you made.",
    ),
]
RequireCrs = Annotated[
    bool,
    typer.Option(
        "--require-crs",
        rich_help_panel=READING,
        help="Refuse a scene without a coordinate reference system instead of mapping it without one.",
    ),
]
Sandbox = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help="Run in a process with limits on memory, time and files and, where the system allows, without network.",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        metavar="N",
        min=1,
        rich_help_panel=READING,
        show_default=False,
        help="Largest rows x columns of a file to open. If not given, files are refused that declare more than 64 GiB"
        " of numbers, or more than 4000 times their own size.",
    ),
]
UseSidecars = Annotated[
    bool,
    typer.Option(
        "--sidecars",
        rich_help_panel=READING,
        help="Let .aux.xml and world files (.tfw) beside a GeoTIFF or JPEG 2000 file say what it lacks itself.",
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

_FILL_RANGE = (-0.2, 2.0)
"""Reflectance that --fill takes; a digital number such as 1200 lies far outside."""


def read_nodata(text: str) -> float | Literal["auto"] | None:
    """The number that means nothing as ``--nodata`` says."""
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--nodata {text!r} is no number", "use auto, none, nan or a number") from error


def read_gsd(text: str) -> float | Literal["auto", "native"]:
    """The pixel size that the model sees as ``--gsd`` says: metres, or how to choose them."""
    if text in ("auto", "native"):
        return "auto" if text == "auto" else "native"
    metres = _finite(text)
    if metres is None or metres <= 0:
        raise UsageError(f"--gsd {text!r} is no pixel size", "use auto, native, or metres above 0, such as --gsd 10")
    return metres


def read_size(text: str, option: str = "--max-memory") -> int | None:
    """Bytes as an option such as ``--max-memory`` says; None for auto."""
    if text == "auto":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = float(match[1]) * 1024.0 ** " KMGT".index(match[2].upper() or " ") if match else 0.0
    if not 1 <= size < 2**63:
        raise UsageError(f"{option} {text!r} is no size", "use auto, or a number of bytes such as 800M or 2G")
    return int(size)


def read_fill(items: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Bands and the reflectance to take for them as the ``--fill`` options say."""
    filled: dict[str, float] = {}
    for item in items:
        name, _, text = item.partition("=")
        name, value = name.strip().casefold(), _finite(text)
        if not name or value is None:
            raise UsageError(f"--fill {item!r} is not BAND=VALUE", "for example --fill swir22=0.1")
        low, high = _FILL_RANGE
        if not low <= value <= high:
            raise UsageError(
                f"--fill {item}: {value:g} is no reflectance from {low:g} to {high:g}",
                "1.0 is white: divide digital numbers by 10000",
            )
        if name in filled:
            raise UsageError(f"--fill names {name} twice", "give one value for each band")
        filled[name] = value
    return tuple(filled.items())


def read_sensor(text: str | None) -> str | None:
    """A sensor as ``--sensor`` names it, checked."""
    from geoseg_cli.catalog import sensors

    if text is not None and text.strip().casefold() not in sensors():
        raise UsageError(f"--sensor {text!r} is unknown", f"use one of {', '.join(sensors())}")
    return None if text is None else text.strip().casefold()


def scene_options(given: dict[str, Any], drop: tuple[str, ...] = ()) -> SceneOptions:
    """The library's options for reading a scene that say what a command's parameters say.

    Args:
        given: Parameters by name; a command need not have those that only some scenes need.
        drop: Optional bands to leave out.

    Raises:
        UsageError: A value cannot be understood.
    """
    from geoseg_cli.scenes import SceneOptions
    from geoseg_cli.scenes.layouts import check_drivers

    return SceneOptions(
        bands=tuple(name.strip() for name in given["bands"].split(",")) if given["bands"] else None,
        radiometry=given["radiometry"],
        nodata=read_nodata(given["nodata"]),
        drop=drop,
        fill=read_fill(given.get("fill") or ()),
        sensor=read_sensor(given.get("sensor")),
        valid=given.get("valid", "all"),
        saturated=given.get("saturated", "keep") == "keep",
        max_pixels=given.get("max_pixels"),
        sidecars=given.get("sidecars", False),
        allow_network=given.get("allow_network", False),
        drivers=check_drivers(tuple(given.get("allow_driver") or ())),
        require_crs=given.get("require_crs", False),
    )


def _finite(text: str) -> float | None:
    """A finite number, or None where the text is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
