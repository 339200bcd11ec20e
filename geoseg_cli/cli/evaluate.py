"""``geoseg evaluate``: a finished map against a reference, or a bundle against labelled images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from geoseg_cli.cli import options as o
from geoseg_cli.cli.logs import LogFile, LogFormat
from geoseg_cli.errors import InputMissingError, UsageError

WHAT, MAP, RESULT = "What is evaluated", "A map and its reference", "The result"

_FOR_MAPS = ("legend", "mapping", "attribute", "ignore_unknown", "tolerance", "block", "csv", "png")
_FOR_BOTH = ("subject", "truth", "json", "ignore", "overwrite", "log_file", "log_format", "quiet", "verbose")

Subject = Annotated[
    str,
    typer.Argument(
        metavar="MAP|BUNDLE",
        help="A file: the class map to compare. Anything else: name of a bundle, or its folder.",
        show_default=False,
    ),
]
Truth = Annotated[
    Path,
    typer.Argument(
        readable=False,
        metavar="REFERENCE|FOLDER",
        help="For a map a class raster on any grid, or points and polygons (.geojson, .gpkg). For a bundle a folder:"
        " images/X.tif with labels/X.tif, or X.tif with X_label.tif; also in subfolders, one per place.",
        show_default=False,
    ),
]
LegendText = Annotated[
    str | None,
    typer.Option(
        "--legend",
        metavar="NAME|VALUE=CLASS,...",
        help="What the map's values mean, if its tags do not tell: a known legend, or pairs. Values with the same CLASS"
        " are compared as one.",
        rich_help_panel=MAP,
        show_default=False,
    ),
]
MappingText = Annotated[
    str | None,
    typer.Option(
        "--map",
        metavar="VALUE=CLASS,...|FILE",
        help="Which class of the map, by value or name, each value of the reference is. FILE: .csv with the columns"
        " reference and map, or .toml. If not given: the names in the reference, or else the map's own values.",
        rich_help_panel=MAP,
        show_default=False,
    ),
]
Attribute = Annotated[
    str,
    typer.Option(
        "--attribute", metavar="NAME", help="Attribute of points and polygons with their class.", rich_help_panel=MAP
    ),
]
IgnoreUnknown = Annotated[
    bool,
    typer.Option(
        "--ignore-unknown",
        help="Leave out reference values that are mapped to no class, and count them, instead of refusing.",
        rich_help_panel=MAP,
    ),
]
Tolerance = Annotated[
    int,
    typer.Option(
        "--tolerance", metavar="PX", help="Pixels that boundaries may lie apart, for boundary F1.", rich_help_panel=MAP
    ),
]
Block = Annotated[
    int,
    typer.Option(
        "--block",
        metavar="PX",
        help="Side in pixels of the blocks that intervals draw; points and polygons are drawn themselves.",
        rich_help_panel=MAP,
    ),
]
CsvFile = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        metavar="FILE",
        help="Write the confusion matrix of a map as CSV, rows the reference, columns the map.",
        rich_help_panel=RESULT,
        show_default=False,
    ),
]
PngFile = Annotated[
    Path | None,
    typer.Option(
        "--png",
        metavar="FILE",
        help="Draw the confusion matrix of a map.",
        rich_help_panel=RESULT,
        show_default=False,
    ),
]
JsonFile = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE|-",
        help="Write all figures as JSON to FILE, or with - to standard output in the place of the tables. Unlike in the"
        " other commands it needs one of them.",
        rich_help_panel=RESULT,
        show_default=False,
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html|.svg",
        help="Write a page, or the reliability diagram alone.",
        rich_help_panel=RESULT,
        show_default=False,
    ),
]
Per = Annotated[
    Literal["place", "sensor", "bands"] | None,
    typer.Option(
        "--per",
        help="Print this table, also where all images are alike; sensors and band sets are printed where they differ.",
        rich_help_panel=RESULT,
        show_default=False,
    ),
]
FitTemperature = Annotated[
    bool,
    typer.Option(
        "--fit-temperature",
        help="Instead of reporting, fit the temperature of the confidence to FOLDER and write it into the bundle's"
        " card. Never on the data whose figures you report.",
        rich_help_panel=RESULT,
    ),
]
DropBands = Annotated[
    str | None,
    typer.Option(
        "--drop-bands",
        metavar="NAME,NAME,...",
        help="Common names of bands to leave out, as if no scene had them.",
        rich_help_panel=WHAT,
        show_default=False,
    ),
]
BandsOnly = Annotated[
    str | None,
    typer.Option(
        "--bands-only",
        metavar="NAME,NAME,...",
        help="Common names of the only bands to use.",
        rich_help_panel=WHAT,
        show_default=False,
    ),
]
Ignore = Annotated[
    str | None,
    typer.Option(
        "--ignore",
        metavar="VALUE,VALUE,...",
        help="Label values that mean that nothing is known, beside 255 and the label's nodata.",
        rich_help_panel=WHAT,
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=RESULT)]
Threads = Annotated[
    int,
    typer.Option("--threads", metavar="N", min=0, help="Processor threads; 0 is all cores.", rich_help_panel=o.MODEL),
]


def command(
    context: typer.Context,
    subject: Subject,
    truth: Truth,
    legend: LegendText = None,
    mapping: MappingText = None,
    attribute: Attribute = "class",
    ignore_unknown: IgnoreUnknown = False,
    tolerance: Tolerance = 2,
    block: Block = 128,
    csv: CsvFile = None,
    png: PngFile = None,
    json: JsonFile = None,
    report: Page = None,
    per: Per = None,
    fit_temperature: FitTemperature = False,
    drop_bands: DropBands = None,
    bands_only: BandsOnly = None,
    ignore: Ignore = None,
    engine: o.EngineName = "auto",
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    threads: Threads = 0,
    tile: o.TilePx = None,
    overlap: o.OverlapPx = None,
    blend: o.BlendName = "hann",
    batch: o.BatchSize = "auto",
    bands: o.Bands = None,
    radiometry: o.RadiometryName = "auto",
    nodata: o.Nodata = "auto",
    sensor: o.SensorName = None,
    overwrite: Overwrite = False,
    log_file: LogFile = None,
    log_format: LogFormat = "json",
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Compare a finished map with a reference, or a bundle's maps with labels.

    MAP REFERENCE: accuracy, kappa, IoU and F1 per class, boundary F1, with
    intervals by blocks of the map, or by the points and polygons of the
    reference. Pixels without a class on either side are counted and do not
    enter.

    BUNDLE FOLDER: the same of the maps that a bundle makes of labelled images,
    run as in classify and cloudmask, and how far its confidence can be
    trusted, with intervals by place.

    Standard output carries the tables, or the JSON with --json -.
    """
    _run(context, {name: value for name, value in locals().items() if name != "context"})


def _run(context: typer.Context, given: dict[str, Any]) -> None:
    """Carry out the one or the other, as the first argument says."""
    subject = given["subject"]
    if os.path.isfile(subject):
        from geoseg_cli.cli.evaluate_map import evaluate_map

        _refuse_foreign(context, f"for a bundle, but {subject} is a file", keep=(*_FOR_MAPS, *_FOR_BOTH))
        evaluate_map(given)
        return
    from geoseg_cli.cli.evaluate_bundle import evaluate_bundle

    if Path(subject).suffix.lower() in (".tif", ".tiff") and not os.path.exists(subject):
        raise InputMissingError(f"there is no map {subject}", "check the path; a bundle is named without a suffix")
    foreign = [name for name in given if name not in _FOR_MAPS]
    _refuse_foreign(context, f"for a map, but {subject} is no file", keep=foreign)
    evaluate_bundle(given)


def _refuse_foreign(context: typer.Context, why: str, keep: Sequence[str]) -> None:
    """Refuse options of the other use, which would change nothing."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name not in keep and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{parameter.opts[0]} is {why}", "leave it out, or check the first argument")
