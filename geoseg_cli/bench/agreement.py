"""How far two maps of one scene agree, over all pixels and near the seams of tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import Legend
from geoseg_cli.grid import Grid, Window
from geoseg_cli.labels import LabelFile
from geoseg_cli.metrics import Confusion, confusion
from geoseg_cli.scenes.raster_file import open_geotiff

SEAM_BAND_PX = 16
"""Pixels on either side of a seam that count as near it."""

COMMON_SHARE = 0.01
"""Share of the reference's pixels from which a class has an IoU that is told."""

_STRIP_ROWS = 512

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Seams:
    """Where a run passes from one tile to the next.

    Attributes:
        rows, cols: Rows and columns of the map that begin the core of another tile.
    """

    rows: tuple[int, ...] = ()
    cols: tuple[int, ...] = ()

    def near(self, window: Window) -> BoolArray:
        """(H, W) bool: pixels of a window within :data:`SEAM_BAND_PX` of a seam."""
        rows = _near(np.arange(window.row, window.row_stop), self.rows)
        return rows[:, None] | _near(np.arange(window.col, window.col_stop), self.cols)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a map has in common with a reference.

    Attributes:
        pixels: Pixels to which the reference gives a class.
        share: Share of them with the same class in the map; None without any.
        seam_pixels, seam_share: The same near the map's seams.
        lowest_iou: Lowest intersection over union of a class with at least 1 % of the pixels; None without one.
        lowest_class: Title of that class.
    """

    pixels: int
    share: float | None
    seam_pixels: int = 0
    seam_share: float | None = None
    lowest_iou: float | None = None
    lowest_class: str | None = None


def compare_maps(reference: Path, judged: Path, legend: Legend, seams: Seams | None = None) -> Agreement:
    """Compare two label maps on one grid, strip by strip.

    Args:
        reference: Map that counts as right.
        judged: The other one.
        legend: What the values mean.
        seams: Of the tiles of ``judged``.

    Raises:
        GeosegError: A map cannot be read, or the two do not lie on one grid.
    """
    seams = seams or Seams()
    with closing(open_geotiff(reference)) as file:
        grid = file.grid
    table, near = Confusion.empty(legend.values), Confusion.empty(legend.values)
    with LabelFile(reference, grid, legend.values) as right, LabelFile(judged, grid, legend.values) as other:
        for window in _strips(grid):
            truth, found, is_near = right.read(window), other.read(window), seams.near(window)
            table += confusion(truth, found, legend.values, right.unknown)
            near += confusion(truth[is_near], found[is_near], legend.values, right.unknown)
    lowest = _lowest_iou(table, legend)
    return Agreement(table.pixels, _share(table), near.pixels, _share(near), *lowest)


def _near(places: npt.NDArray[np.int_], seams: Sequence[int]) -> BoolArray:
    near = np.zeros(places.shape, np.bool_)
    for seam in seams:
        # A seam at s lies between the pixels s - 1 and s.
        near |= (places >= seam - SEAM_BAND_PX) & (places < seam + SEAM_BAND_PX)
    return near


def _strips(grid: Grid) -> Iterator[Window]:
    for row in range(0, grid.height, _STRIP_ROWS):
        yield Window(row, 0, min(_STRIP_ROWS, grid.height - row), grid.width)


def _share(table: Confusion) -> float | None:
    return table.overall_accuracy if table.pixels else None


def _lowest_iou(table: Confusion, legend: Legend) -> tuple[float | None, str | None]:
    # A class that only the map has is no class of the reference and counts in the others' IoU.
    common = [k for k, count in enumerate(table.truth) if count and count >= COMMON_SHARE * table.pixels]
    if not common:
        return None, None
    worst = min(common, key=lambda k: float(table.iou[k]))
    return float(table.iou[worst]), legend.classes[worst].title
