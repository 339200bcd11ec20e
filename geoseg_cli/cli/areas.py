"""``geoseg areas``: what the classes of a finished map cover, corrected for its errors where these are known."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg_cli.cli.polygons import LegendName, Map
from geoseg_cli.cli.request import put

if TYPE_CHECKING:
    from geoseg_cli.results.adjusted_areas import AdjustedAreas
    from geoseg_cli.results.areas import ClassArea

Accuracy = Annotated[
    Path | None,
    typer.Option(
        "--accuracy",
        metavar="FILE.csv|.json",
        show_default=False,
        help="Counts of sampled places by map class and true class: adds error-adjusted areas with 95 % intervals. A"
        " report of geoseg evaluate --json is taken too.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def command(map: Map, accuracy: Accuracy = None, legend: LegendName = None, json: AsJson = False) -> None:
    """Print what each class of a map covers: pixels, share and hectares on the ground."""
    from geoseg_cli.results.adjusted_areas import adjusted_areas
    from geoseg_cli.results.areas import ClassCounts, class_areas
    from geoseg_cli.results.class_map import ClassMap
    from geoseg_cli.results.sample_counts import SampleCounts

    opened = ClassMap.open(map, legend)
    samples = SampleCounts.read(accuracy, opened.legend) if accuracy else None
    counts = ClassCounts(opened.raster.grid)
    for row, labels in opened.strips():
        counts.add(row, labels)
    areas = class_areas(counts, opened.legend)
    adjusted = adjusted_areas(areas, samples) if samples else None
    if json:
        fields = {"classes": [asdict(one) for one in areas], "adjusted": adjusted.to_json() if adjusted else None}
        put(json_format.dumps(fields, allow_nan=False) + "\n")
    else:
        put(_mapped(areas) + ("\n" + _adjusted(adjusted) if adjusted else ""))


def _mapped(areas: Sequence[ClassArea]) -> str:
    rows = [
        (str(one.value), one.title, f"{one.pixels:,}", f"{one.share:.1%}", _hectares(one.hectares)) for one in areas
    ]
    return _table(("value", "class", "pixels", "share", "hectares"), rows)


def _adjusted(adjusted: AdjustedAreas) -> str:
    rows = [
        (
            str(one.value),
            one.title,
            f"{one.samples:,}",
            _hectares(one.mapped_ha),
            _hectares(one.adjusted_ha),
            f"{_hectares(one.low_ha)} to {_hectares(one.high_ha)}",
            _share(one.users_accuracy, one.users_accuracy_95),
            _share(one.producers_accuracy, one.producers_accuracy_95),
        )
        for one in adjusted.classes
    ]
    header = ("value", "class", "places", "mapped ha", "adjusted ha", "95 % interval", "user's", "producer's")
    overall = _share(adjusted.overall_accuracy, adjusted.overall_accuracy_95)
    return f"{_table(header, rows)}Overall accuracy {overall}. {adjusted.note}\n"


def _hectares(hectares: float | None) -> str:
    return "-" if hectares is None else f"{hectares:,.2f}"


def _share(share: float | None, margin: float | None) -> str:
    if share is None:
        return "-"
    return f"{share:.1%}" if margin is None else f"{share:.1%} +- {margin:.1%}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, classes to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if column == 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)
