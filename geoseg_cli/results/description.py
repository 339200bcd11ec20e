"""What a class map says of itself: one value from which its sidecars and its catalogue entry are made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from geoseg_cli.catalog import LandClass, Legend, usual_nodata
from geoseg_cli.grid import Grid
from geoseg_cli.results.areas import ClassArea

CLASSES_TAG, LEGEND_TAG, PIXELS_TAG = "GEOSEG_CLASSES", "GEOSEG_LEGEND", "GEOSEG_PIXELS_SHA256"
ACQUIRED_TAG = "GEOSEG_ACQUIRED"
CLEANING_TAG, FORMAT_TAG = "GEOSEG_CLEANING", "GEOSEG_FORMAT"
"""What was done to the finished map, as JSON; what the file is, where it is no COG. Absent otherwise."""

COMPOSITE_TAG, COUNTS_TAG = "GEOSEG_COMPOSITE", "GEOSEG_COUNTS_SHA256"
"""Of a map that was made from maps: how, as JSON; the hash of its second band, clear observations."""
FIRST_TAG, LAST_TAG = "GEOSEG_ACQUIRED_FIRST", "GEOSEG_ACQUIRED_LAST"
"""When the first and the last of its scenes were taken, where all maps tell."""

CLOUD_CLASSES = frozenset(
    {"cloud", "thick_cloud", "thin_cloud", "cloud_medium_probability", "cloud_high_probability", "thin_cirrus"}
)
"""Classes whose pixels count as cloudy, the last three being those of Sentinel-2's scene classification; a shadow is
ground that is dark."""


def legend_tags(legend: Legend) -> dict[str, str]:
    """The tags that say what a map's values mean."""
    return {LEGEND_TAG: legend.name, CLASSES_TAG: json.dumps(legend.stac_classes())}


@dataclass(frozen=True, slots=True)
class MapDescription:
    """A finished class map, apart from its pixels.

    Attributes:
        name: File name, without folders.
        grid: Where its pixels lie.
        legend: Its classes.
        band: Description of its band.
        tags: Its tags, the hash of its pixels included.
        areas: What each class covers, in the legend's order.
    """

    name: str
    grid: Grid
    legend: Legend
    band: str
    tags: Mapping[str, str]
    areas: tuple[ClassArea, ...]

    @property
    def valid_pixels(self) -> int:
        """Pixels with an answer."""
        return sum(area.pixels for area in self.areas)

    @property
    def has_hectares(self) -> bool:
        """Whether the grid tells how large the classes are on the ground."""
        return all(area.hectares is not None for area in self.areas)

    @property
    def written(self) -> datetime:
        """When the map was made, UTC."""
        return datetime.strptime(self.tags["TIFFTAG_DATETIME"], "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)

    @property
    def acquired(self) -> datetime | None:
        """When the scene was taken, as its metadata state; None where they do not."""
        stated = self.tags.get(ACQUIRED_TAG)
        return datetime.fromisoformat(stated) if stated else None

    @property
    def acquired_between(self) -> tuple[datetime, datetime] | None:
        """When the first and the last scene of a composite were taken; None where that is not known."""
        first, last = self.tags.get(FIRST_TAG), self.tags.get(LAST_TAG)
        return (datetime.fromisoformat(first), datetime.fromisoformat(last)) if first and last else None

    @property
    def cloud_percent(self) -> float | None:
        """Share of the valid pixels that are cloud, thin or thick, 0 to 100.

        None for a legend without clouds, and for a map without a valid pixel.
        """
        cloudy = [area.pixels for area in self.areas if area.name in CLOUD_CLASSES]
        if not cloudy or not self.valid_pixels:
            return None
        return 100 * sum(cloudy) / self.valid_pixels


def legend_from_tags(tags: Mapping[str, str], nodata: int | None = None) -> Legend | None:
    """The legend that a map's tags hold; None where they hold none.

    Args:
        tags: Default-domain metadata of the map.
        nodata: Value of its pixels without an answer; None for the usual one of its classes.

    Raises:
        ModelError: Class values repeat or do not fit.
    """
    try:
        rows: Any = json.loads(tags[CLASSES_TAG])
        classes = tuple(
            LandClass(int(row["value"]), str(row["name"]), str(row["title"]), f"#{row['color_hint']}") for row in rows
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if not classes:
        return None
    return Legend(
        tags.get(LEGEND_TAG, ""), classes, usual_nodata(c.value for c in classes) if nodata is None else nodata
    )
