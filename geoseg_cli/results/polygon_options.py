"""What is asked of polygons that are made of a map; what makes them is :mod:`geoseg_cli.results.polygons`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PolygonOptions:
    """How polygons are made.

    Attributes:
        simplify_m: Tolerance of the simplification in metres; details smaller than a square of this side go. None
            keeps the pixels' edges.
        min_area_ha: Smaller polygons become part of their largest neighbour; see ``sieve.merge_small``. None keeps all.
        classes: Names or values of the classes to write; None for all.
        confidence: Raster of the same grid with the confidence of each pixel, for the attribute ``mean_prob``.
        legend: Name of the legend for a map that does not tell its classes.
        overwrite: Whether the output may be replaced.
    """

    simplify_m: float | None = None
    min_area_ha: float | None = None
    classes: tuple[str, ...] | None = None
    confidence: Path | None = None
    legend: str | None = None
    overwrite: bool = False
