"""Options of ``classify`` and ``cloudmask`` that say what becomes of the finished map, and what their texts mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from geoseg_cli.cli.options import WRITING
from geoseg_cli.errors import UsageError

if TYPE_CHECKING:
    from geoseg_cli.catalog import Legend, LegendMapping
    from geoseg_cli.results.clean_map import Cleaning
    from geoseg_cli.results.sample_counts import Accuracy as AccuracyTable

CLEANING = "Cleaning the map"

SCHEMAS = {"cloudsen12": "cloudsen12", "binary": "cloud-binary", "valid": "cloud-valid", "scl": "sentinel-2-scl"}
"""What ``--schema`` says -> the legend that is meant."""

Schema = Annotated[
    Literal["cloudsen12", "binary", "valid", "scl"] | None,
    typer.Option(
        "--schema",
        rich_help_panel=CLEANING,
        show_default=False,
        help="Classes of the mask: clear, thick and thin cloud, shadow (cloudsen12); cloud or clear (binary); usable or"
        " not (valid); Sentinel-2's scene classification (scl). The bundle's own if not given.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="P",
        rich_help_panel=CLEANING,
        show_default=False,
        help="Cloud is where the probabilities of thick and thin cloud sum to P or more; the most probable class if not"
        " given.",
    ),
]
MinSize = Annotated[
    int | None,
    typer.Option(
        "--min-size",
        metavar="PX",
        rich_help_panel=CLEANING,
        show_default=False,
        help="Clouds of fewer pixels become clear.",
    ),
]
Dilate = Annotated[
    int | None,
    typer.Option(
        "--dilate",
        metavar="PX",
        rich_help_panel=CLEANING,
        show_default=False,
        help="Clouds grow by this many pixels, shadow included.",
    ),
]
TargetLegend = Annotated[
    str | None,
    typer.Option(
        "--legend",
        metavar="NAME",
        rich_help_panel=CLEANING,
        show_default=False,
        help="Classes of the map: esa-worldcover, aras400k or dynamic-world, where the bundle's can be turned into"
        " them; what is lost is told. The bundle's own if not given.",
    ),
]
Majority = Annotated[
    int | None,
    typer.Option(
        "--majority",
        metavar="PX",
        rich_help_panel=CLEANING,
        show_default=False,
        help="Each pixel takes the most frequent class of the window of this odd side around it.",
    ),
]
Sieve = Annotated[
    int | None,
    typer.Option(
        "--sieve",
        metavar="PX",
        rich_help_panel=CLEANING,
        show_default=False,
        help="Connected parts of fewer pixels take the class of the largest part that they touch.",
    ),
]
Accuracy = Annotated[
    Path | None,
    typer.Option(
        "--accuracy",
        metavar="FILE.csv|.json|card",
        show_default=False,
        help="Counts of sampled places by map class and true class: adds error-adjusted areas with 95 % intervals. A"
        " report of geoseg evaluate --json is taken too; card takes the counts in the bundle's card, which are of other"
        " places.",
    ),
]
Polygons = Annotated[
    Path | None,
    typer.Option(
        "--polygons",
        metavar="OUT.gpkg|.fgb|.geojson|.parquet",
        rich_help_panel=WRITING,
        show_default=False,
        help="Also write the finished map as polygons, as geoseg polygons does; with --confidence, with its mean.",
    ),
]
Simplify = Annotated[
    float | None,
    typer.Option(
        "--simplify",
        metavar="METRES",
        rich_help_panel=WRITING,
        show_default=False,
        help="With --polygons: leave out details smaller than a square of this side; neighbours still fit.",
    ),
]
MinArea = Annotated[
    float | None,
    typer.Option(
        "--min-area",
        metavar="HECTARES",
        rich_help_panel=WRITING,
        show_default=False,
        help="With --polygons: smaller polygons become part of their largest neighbour.",
    ),
]
FormatName = Annotated[
    Literal["cog", "gtiff"],
    typer.Option(
        "--format",
        rich_help_panel=WRITING,
        help="Cloud Optimized GeoTIFF, or plain tiled GeoTIFF with overviews inside.",
    ),
]


def accuracy_of(given: Path | None) -> AccuracyTable | None:
    """The table that ``--accuracy`` names; a file of that name must be called by its folder too."""
    from geoseg_cli.results.sample_counts import FROM_CARD

    return FROM_CARD if given == Path(FROM_CARD) else given


def cleaning_of(given: dict[str, Any], legend: Legend | None) -> Cleaning:
    """What is to be done to the map as a command's parameters say.

    Args:
        given: Parameters by name; a command has those that fit its maps.
        legend: Classes of the bundle; None where it is not known yet, and no mapping is looked for.

    Raises:
        UsageError: The legend cannot be turned into the wanted one.
    """
    from geoseg_cli.results.clean_map import Cleaning
    from geoseg_cli.results.description import CLOUD_CLASSES

    cleaning = Cleaning(
        min_object_px=given.get("min_size"),
        dilate_px=given.get("dilate"),
        majority_px=given.get("majority"),
        sieve_px=given.get("sieve"),
    )
    if legend is None:
        return cleaning
    clouds = tuple(one.name for one in legend.classes if one.name in CLOUD_CLASSES)
    return replace(cleaning, mapping=_mapping(given, legend), objects=clouds)


def _mapping(given: dict[str, Any], legend: Legend) -> LegendMapping | None:
    from geoseg_cli.catalog import find_mapping, legends

    wanted = SCHEMAS[given["schema"]] if given.get("schema") else given.get("legend")
    if wanted is None or wanted == legend.name:
        return None
    if wanted not in legends():
        raise UsageError(f"there is no legend {wanted!r}", f"use one of {', '.join(legends())}")
    return find_mapping(legend.name, wanted)
