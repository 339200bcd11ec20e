"""Outlines with fewer points, in which neighbours still fit without gap or overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import shapely

from geoseg_cli.errors import UsageError
from geoseg_cli.memory import free_memory_bytes
from geoseg_cli.results.outlines import Outlines

BYTES_PER_POINT = 200
"""Memory that simplifying takes per point of the outlines: 170 were measured, see docs/polygons.md."""
FREE_SHARE = 0.7
"""Part of the free memory that simplifying may plan with."""


@dataclass(frozen=True, slots=True)
class Simplification:
    """How outlines are simplified.

    Attributes:
        tolerance_m: Details smaller than a square of this side go.
        row_m, col_m: Height and width of a pixel in metres.
    """

    tolerance_m: float
    row_m: float
    col_m: float

    def applied(self, traced: Iterable[Outlines]) -> Iterator[Outlines]:
        """Simplify all outlines, which takes all of them at once: every line has a polygon on both sides.

        Raises:
            UsageError: They do not fit into the free memory.
        """
        gathered, points = [], 0
        for outlines in traced:
            gathered.append(outlines)
            points += int(shapely.get_num_coordinates(outlines.polygons).sum())
            _refuse_excess(points)
        if not gathered:
            return
        scale = np.array([self.col_m, self.row_m])
        polygons = shapely.transform(np.concatenate([one.polygons for one in gathered]), lambda xy: xy * scale)
        numbers = [one.components for one in gathered]
        gathered.clear()
        polygons = shapely.coverage_simplify(polygons, self.tolerance_m)
        stops = np.cumsum([len(part) for part in numbers])
        for part, thin in zip(numbers, np.split(polygons, stops[:-1]), strict=True):
            yield Outlines(part, shapely.transform(thin, lambda xy: xy / scale))


def _refuse_excess(points: int) -> None:
    free, needed = free_memory_bytes(), points * BYTES_PER_POINT
    if free is not None and needed > FREE_SHARE * free:
        raise UsageError(
            f"--simplify needs all outlines at once: so far {points:,} points, about {needed / 2**30:.1f} GiB of"
            f" memory, and {free / 2**30:.1f} GiB are free",
            "give --min-area or fewer --classes, or leave out --simplify",
        )
