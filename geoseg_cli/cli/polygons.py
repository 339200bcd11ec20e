"""``geoseg polygons``: a finished class map as polygons."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg_cli.cli import options as o
from geoseg_cli.cli.console import Messages
from geoseg_cli.cli.logs import LogFile, LogFormat
from geoseg_cli.cli.request import put
from geoseg_cli.errors import UsageError
from geoseg_cli.printable import counted

if TYPE_CHECKING:
    from geoseg_cli.results.polygons import PolygonReport

Map = Annotated[
    Path, typer.Argument(readable=False, metavar="MAP", help="A class map that geoseg wrote.", show_default=False)
]
Out = Annotated[
    Path,
    typer.Option(
        "-o", "--output", metavar="OUT.gpkg|.fgb|.geojson|.parquet", help="The vector file.", show_default=False
    ),
]
Simplify = Annotated[
    float | None,
    typer.Option(
        "--simplify",
        metavar="METRES",
        show_default=False,
        help="Leave out details smaller than a square of this side; neighbours still fit. Needs memory for all outlines"
        " at once.",
    ),
]
MinArea = Annotated[
    float | None,
    typer.Option(
        "--min-area",
        metavar="HECTARES",
        show_default=False,
        help="Let smaller polygons become part of their largest neighbour.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes", metavar="NAME|VALUE,...", help="Write these classes only; all if not given.", show_default=False
    ),
]
Confidence = Annotated[
    Path | None,
    typer.Option(
        "--confidence",
        metavar="FILE",
        show_default=False,
        help="Confidence that was written with the map: adds its mean over each polygon, mean_prob.",
    ),
]
LegendName = Annotated[
    str | None,
    typer.Option(
        "--legend", metavar="NAME", help="Legend of a map that does not tell its classes itself.", show_default=False
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON report instead of the output path.")]


def command(
    map: Map,
    output: Out,
    simplify: Simplify = None,
    min_area: MinArea = None,
    classes: Classes = None,
    confidence: Confidence = None,
    legend: LegendName = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
    log_file: LogFile = None,
    log_format: LogFormat = "json",
    quiet: o.Quiet = False,
) -> None:
    """Turn a class map into polygons: one for each connected part of a class.

    Pixels belong together where they share an edge. No polygon is cut where
    tiles or blocks end. Attributes are value, name, title, pixels and area_ha,
    the area of the pixels on the ground. Standard output carries the path of
    the file and nothing else.
    """
    from geoseg_cli.results.polygon_options import PolygonOptions
    from geoseg_cli.results.polygons import write_polygons

    if classes is not None and not classes.strip(", "):
        raise UsageError("--classes is empty", "give a value, or leave the option out")
    words = tuple(classes.strip(", ").split(",")) if classes else None
    options = PolygonOptions(simplify, min_area, words, confidence, legend, overwrite)
    report = write_polygons(map, output, options)
    _tell(Messages(quiet, 0), report)
    put(json_format.dumps(report.to_json()) + "\n" if json else f"{output}\n")


def _tell(messages: Messages, report: PolygonReport) -> None:
    messages.note(f"{counted(report.polygons, 'polygon')} with {counted(report.points, 'point')}")
    for one in report.classes:
        if one.polygons:
            hectares = "" if one.hectares is None else f", {one.hectares:,.2f} ha"
            size = f"{counted(one.pixels, 'pixel')}{hectares}"
            messages.note(f"  {one.value} {one.title}: {counted(one.polygons, 'polygon')}, {size}")
    if report.merged:
        messages.note(f"{counted(report.merged, 'part was', 'parts were')} too small and became part of a neighbour")
