"""``geoseg areas``: what the classes of a finished map cover, corrected for its errors where these are known."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg_cli.cli.area_tables import adjusted_table, mapped_table
from geoseg_cli.cli.map_options import Accuracy, accuracy_of
from geoseg_cli.cli.polygons import LegendName, Map
from geoseg_cli.cli.request import put
from geoseg_cli.errors import InputError

if TYPE_CHECKING:
    from geoseg_cli.results.class_map import ClassMap
    from geoseg_cli.results.sample_counts import SampleCounts

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def command(map: Map, accuracy: Accuracy = None, legend: LegendName = None, json: AsJson = False) -> None:
    """Print what each class of a map covers: pixels, share and hectares on the ground."""
    from geoseg_cli.results.adjusted_areas import adjusted_areas
    from geoseg_cli.results.areas import ClassCounts, class_areas
    from geoseg_cli.results.class_map import ClassMap

    opened = ClassMap.open(map, legend)
    samples = _samples(accuracy, opened)
    counts = ClassCounts(opened.raster.grid, opened.legend.dtype)
    for row, labels in opened.strips():
        counts.add(row, labels)
    areas = class_areas(counts, opened.legend)
    adjusted = adjusted_areas(areas, samples) if samples else None
    if json:
        fields = {"classes": [asdict(one) for one in areas], "adjusted": adjusted.to_json() if adjusted else None}
        put(json_format.dumps(fields, allow_nan=False) + "\n")
    else:
        put(mapped_table(areas) + ("\n" + adjusted_table(adjusted) if adjusted else ""))


def _samples(given: Path | None, opened: ClassMap) -> SampleCounts | None:
    """The table that ``--accuracy`` means; a card is that of the bundle which made the map.

    Raises:
        InputError: The map does not say which bundle made it, or it was another one than that of this name.
    """
    from geoseg_cli.bundle import find_bundle
    from geoseg_cli.results.sample_counts import SampleCounts

    accuracy, tags = accuracy_of(given), opened.raster.tags
    if accuracy is None:
        return None
    if isinstance(accuracy, Path):
        return SampleCounts.read(accuracy, opened.legend)
    remedy = "give a table: --accuracy FILE.csv"
    if "GEOSEG_MODEL" not in tags:
        raise InputError(f"{opened.raster.path} does not say which bundle made it", remedy)
    bundle = find_bundle(tags["GEOSEG_MODEL"])
    if f"1220{tags.get('GEOSEG_MODEL_SHA256')}" not in {asset.checksum for asset in bundle.card.assets.values()}:
        raise InputError(f"{opened.raster.path} was made by other weights than those of {bundle.name}", remedy)
    return SampleCounts.of_card(bundle, opened.legend)
