"""``geoseg areas``: what the classes of a finished map cover, corrected for its errors where these are known."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from typing import Annotated

import typer

from geoseg_cli.cli.area_tables import adjusted_table, mapped_table
from geoseg_cli.cli.map_options import Accuracy
from geoseg_cli.cli.polygons import LegendName, Map
from geoseg_cli.cli.request import put

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
        put(mapped_table(areas) + ("\n" + adjusted_table(adjusted) if adjusted else ""))
