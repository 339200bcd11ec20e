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
        metavar="FILE.csv|.json",
        show_default=False,
        help="Counts of sampled places by map class and true class: adds error-adjusted areas with 95 % intervals. A"
        " report of geoseg evaluate --json is taken too.",
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
