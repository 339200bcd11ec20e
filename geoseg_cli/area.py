"""Areas of interest: which pixels of a scene get an answer.

An area is a rectangle of pixels, as here, or of polygons (:mod:`geoseg_cli.aoi`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine

from geoseg_cli.grid import Grid, Window
from geoseg_cli.rows import Rows, only_where

BoolArray = npt.NDArray[np.bool_]


class Area(Protocol):
    """A part of a grid."""

    @property
    def window(self) -> Window:
        """A window that holds all of it."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know."""

    def mask(self, window: Window) -> BoolArray:
        """(H, W) bool, which pixels of a window belong to it; the same for a pixel in whatever window."""

    def touches(self, window: Window) -> bool:
        """Whether a pixel of the window can belong to it; never False where one does."""


@dataclass(frozen=True, slots=True)
class WindowArea:
    """A rectangle of whole pixels."""

    window: Window
    warnings: tuple[str, ...] = ()

    def mask(self, window: Window) -> BoolArray:
        """(H, W) bool, which pixels of ``window`` lie in the rectangle."""
        inside = np.zeros((window.height, window.width), np.bool_)
        common = self.window.intersection(window)
        row, col = common.row - window.row, common.col - window.col
        inside[row : row + common.height, col : col + common.width] = True
        return inside

    def touches(self, window: Window) -> bool:
        """Whether at least one pixel lies in both."""
        return self.window.touches(window)


def only_inside(finished: Iterator[Rows], area: Area, nodata: int) -> Iterator[Rows]:
    """Rows with nodata outside an area.

    Args:
        finished: Rows on the area's grid, at its full width.
        area: What is kept.
        nodata: Label of pixels without an answer.
    """
    for rows in finished:
        valid = rows.valid & area.mask(Window(rows.row, 0, *rows.labels.shape))
        labels = np.where(valid, rows.labels, rows.labels.dtype.type(nodata))
        confidence, probabilities, seams = (
            only_where(valid, values) for values in (rows.confidence, rows.probabilities, rows.seams)
        )
        yield Rows(rows.row, labels, confidence, probabilities, valid, seams)


def cropped(finished: Iterator[Rows], window: Window) -> Iterator[Rows]:
    """Only the pixels of a window, their rows counted from its first one."""
    for rows in finished:
        start = max(rows.row, window.row)
        stop = min(rows.row + rows.labels.shape[0], window.row_stop)
        if start < stop:
            part = (..., slice(start - rows.row, stop - rows.row), window.cols)
            confidence, probabilities, seams = (
                None if values is None else values[part] for values in (rows.confidence, rows.probabilities, rows.seams)
            )
            yield Rows(start - window.row, rows.labels[part], confidence, probabilities, rows.valid[part], seams)


def cropped_grid(grid: Grid, window: Window) -> Grid:
    """The grid of a window's pixels; they stay where they are."""
    return Grid(grid.crs, grid.transform @ Affine.translation(window.col, window.row), window.height, window.width)
