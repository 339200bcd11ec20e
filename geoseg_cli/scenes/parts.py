"""Files that a stack is made of: which pixels of theirs a window of the stack needs, and how they become its pixels.

Coarser bands are repeated, finer ones averaged: a pixel's value never depends on the window that is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geoseg_cli.errors import GridError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.scenes.raster_file import Nodata, RasterFile

BoolArray = npt.NDArray[np.bool_]

_TOLERANCE_PX = 1e-3
_MOST_DRIFT_PX = 0.01
"""By how much pixels that nest may be off at the far end of the scene; coordinates are rounded to far less."""


@dataclass(frozen=True, slots=True)
class Validity:
    """What the user says about pixels that mean nothing; see ``SceneOptions``.

    Attributes:
        nodata: The number that means nothing; ``"auto"`` for what layers and files say.
        combine: ``all`` bands must mean something, or ``any`` of them.
        keeps_saturated: Whether the largest number of an integer type means something.
    """

    nodata: Nodata = "auto"
    combine: Literal["all", "any"] = "all"
    keeps_saturated: bool = True


@dataclass(frozen=True, slots=True)
class Part:
    """Bands of the stack that one file holds.

    Attributes:
        file: The open file.
        numbers: Band numbers in the file, from 1.
        places: Where these bands stand in the stack, from 0; empty for a quality band.
        enlarge: Rows of the stack per row of the file; 1 where the file is finer.
        shrink: Rows of the file per row of the stack; 1 where the file is coarser.
        mask: What the product itself says of this file's pixels.
    """

    file: RasterFile
    numbers: tuple[int, ...]
    places: tuple[int, ...]
    enlarge: int = 1
    shrink: int = 1
    mask: MaskPart | None = None

    def window(self, window: Window) -> Window:
        """Pixels of the file that a window of the stack needs."""
        row, col = (start * self.shrink // self.enlarge for start in (window.row, window.col))
        stop = [-(-end * self.shrink // self.enlarge) for end in (window.row_stop, window.col_stop)]
        return Window(row, col, stop[0] - row, stop[1] - col)

    def rows(self, rows: int) -> int:
        """Most rows of the file that ``rows`` successive rows of the stack touch."""
        return rows * self.shrink if self.enlarge == 1 else (rows - 2) // self.enlarge + 2 if rows > 1 else 1

    def columns(self, columns: int) -> int:
        """Columns of the stack that so many columns of the file are, rounded up."""
        return -(-columns * self.enlarge // self.shrink)

    def fit(self, pixels: npt.NDArray[Any], window: Window, is_mask: bool = False) -> npt.NDArray[Any]:
        """Bring (..., h, w) of the file to the (..., H, W) of a window of the stack."""
        if self.shrink > 1:
            blocks = pixels.reshape(*pixels.shape[:-2], window.height, self.shrink, window.width, self.shrink)
            return np.asarray(blocks.all(axis=(-3, -1)) if is_mask else _averaged(blocks))
        if self.enlarge > 1:
            row, col = window.row % self.enlarge, window.col % self.enlarge
            large = pixels.repeat(self.enlarge, axis=-2).repeat(self.enlarge, axis=-1)
            return large[..., row : row + window.height, col : col + window.width]
        return pixels

    def read(self, window: Window, rules: Validity) -> tuple[npt.NDArray[Any], BoolArray]:
        """(p, H, W) numbers of this file's bands and (H, W) validity in a window of the stack.

        Where any valid band is enough, the numbers are float32 with NaN for those that mean nothing.
        """
        where = self.window(window)
        if rules.combine == "all":
            pixels, valid = self.file.read(self.numbers, where, rules.keeps_saturated)
            self._mask_out(valid, where, rules)
            return self.fit(pixels, window), self.fit(valid, window, is_mask=True)
        pixels, each = self.file.read_each(self.numbers, where, rules.keeps_saturated)
        self._mask_out(each, where, rules)
        fitted = self.fit(np.where(each, pixels, np.float32(np.nan)).astype(np.float32), window)
        return fitted, np.isfinite(fitted).any(axis=0)

    def _mask_out(self, valid: BoolArray, where: Window, rules: Validity) -> None:
        """Make ``valid`` (..., h, w) of a window of the file False where the product's mask calls pixels lost."""
        if self.mask is not None:
            valid &= self.mask.kept(where, rules)

    def dtype(self, rules: Validity) -> np.dtype[Any]:
        """Of the numbers that :meth:`read` gives."""
        is_computed = rules.combine == "any" or self.shrink > 1
        return np.dtype(np.float32) if is_computed else self.file.dtype_of(self.numbers)

    def read_into(self, pixels: npt.NDArray[Any], window: Window, rules: Validity) -> BoolArray:
        """Fill this file's places of the stack's (P, H, W); returns (H, W) validity."""
        first, last = self.places[0], self.places[-1]
        is_as_stored = self.enlarge == self.shrink == 1 and rules.combine == "all"
        if is_as_stored and last - first + 1 == len(self.places) and pixels.dtype == self.dtype(rules):
            target = pixels[first : last + 1]
            valid = self.file.read(self.numbers, window, rules.keeps_saturated, target)[1]
            self._mask_out(valid, window, rules)
            return valid
        pixels[list(self.places)], valid = self.read(window, rules)
        return valid

    def read_small(self, window: Window, shape: tuple[int, int], rules: Validity) -> tuple[npt.NDArray[Any], BoolArray]:
        """(p, height, width) numbers and (height, width) validity in a smaller picture of a window, by the nearest."""
        where = self.window(window)
        out = np.empty((len(self.numbers), *shape), self.file.dtype_of(self.numbers))
        pixels, valid = self.file.read(self.numbers, where, rules.keeps_saturated, out)
        if self.mask is not None:
            valid &= self.mask.kept_small(where, shape, rules)
        return pixels, valid

    def bytes_in_cache(self, rows: int) -> int:
        """Bytes that GDAL's block cache needs for ``rows`` successive rows of the stack."""
        own = self.rows(rows)
        if self.mask is None:
            return self.file.bytes_in_cache(self.numbers, own)
        mask = self.mask.part
        return self.file.bytes_in_cache(self.numbers, own) + mask.file.bytes_in_cache(mask.numbers, mask.rows(own))

    def limit_threads(self, count: int) -> None:
        """Let this part's files decode with at most ``count`` threads."""
        self.file.limit_threads(count)
        if self.mask is not None:
            self.mask.part.file.limit_threads(count)

    def working_bytes(self, rules: Validity) -> int:
        """Bytes per pixel of the stack that reading takes beside what the stack keeps, rounded up."""
        marks = len(self.mask.numbers(rules)) + 1 if self.mask is not None else 0
        is_as_stored = self.enlarge == self.shrink == 1 and rules.combine == "all"
        numbers = 0 if is_as_stored else len(self.numbers) * (self.dtype(rules).itemsize + 4 * (rules.combine == "any"))
        return 1 + marks + numbers * self.shrink**2


@dataclass(frozen=True, slots=True)
class MaskPart:
    """Bands of a file that tell, each by any number but 0, which pixels of another file are lost.

    Attributes:
        part: Where they are stored, on the grid of that other file.
        lost: Band numbers, from 1, of what is lost in any case.
        saturated: Band numbers of what is lost where saturated numbers are.
        reason: What decides, as a part of a sentence.
    """

    part: Part
    lost: tuple[int, ...]
    saturated: tuple[int, ...]
    reason: str

    def numbers(self, rules: Validity) -> tuple[int, ...]:
        """Band numbers that count."""
        return self.lost if rules.keeps_saturated else (*self.lost, *self.saturated)

    def kept(self, window: Window, rules: Validity) -> BoolArray:
        """(H, W) bool of a window of the other file: what none of the bands calls lost."""
        marks = self.part.file.read(self.numbers(rules), self.part.window(window))[0]
        return np.asarray(self.part.fit((marks == 0).all(axis=0), window, is_mask=True))

    def kept_small(self, window: Window, shape: tuple[int, int], rules: Validity) -> BoolArray:
        """As :meth:`kept` in a smaller picture of (height, width) pixels, by the nearest numbers."""
        numbers = self.numbers(rules)
        out = np.empty((len(numbers), *shape), self.part.file.dtype_of(numbers))
        return np.asarray((self.part.file.read(numbers, self.part.window(window), out=out)[0] == 0).all(axis=0))


def _averaged(blocks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(..., H, W) averages of (..., H, n, W, n); NaN takes no part, and is what a block of nothing else becomes."""
    average = np.asarray(blocks.mean(axis=(-3, -1), dtype=np.float32))
    holes = np.isnan(average)
    if holes.any():
        numbers = np.moveaxis(blocks, -3, -2)[holes].reshape(np.count_nonzero(holes), -1)
        known = ~np.isnan(numbers)
        total = np.where(known, numbers, 0).sum(axis=1, dtype=np.float32)
        average[holes] = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
    return average


def nearest_grid(grids: Sequence[Grid], gsd_m: float) -> Grid:
    """The grid whose pixels are nearest to ``gsd_m``; of two the finer, without a CRS the one with most pixels."""

    def distance(grid: Grid) -> tuple[float, int]:
        steps = grid.gsd_m()
        size = 1.0 if steps is None else max(max(step, gsd_m) / min(step, gsd_m) for step in steps)
        return round(size, 3), -grid.height * grid.width

    return min(grids, key=distance)


def nested(part: Part, grid: Grid, where: str) -> Part:
    """The part with its ratio to the grid.

    Args:
        part: As its file has it.
        grid: Of the stack.
        where: What the error message calls the product.

    Raises:
        GridError: Its pixels do not nest with those of the grid.
    """
    own = part.file.grid
    if own == grid:
        return part
    for enlarge, shrink in _ratios(own, grid):
        scaled = grid.transform @ grid.transform.scale(enlarge / shrink)
        near = [abs(a - b) for a, b in zip(own.transform, scaled, strict=True)]
        step = max(abs(own.transform.a), abs(own.transform.b), abs(own.transform.e))
        # A difference of the pixels' sides adds up over all of them.
        drift = max(near[0], near[1], near[3], near[4]) * max(own.height, own.width)
        is_near = max(near[2], near[5]) <= 0.5 * step * _TOLERANCE_PX and drift <= step * _MOST_DRIFT_PX
        covers = all(
            ours * enlarge >= theirs * shrink for ours, theirs in ((own.height, grid.height), (own.width, grid.width))
        )
        if own.crs == grid.crs and is_near and covers:
            return replace(part, enlarge=enlarge, shrink=shrink)
    raise GridError(
        f"{where}: {part.file.path.name} does not lie on the grid of the other bands: {_grid_words(own)},"
        f" they have {_grid_words(grid)}",
        "bring all bands to one grid: gdalwarp -te LEFT BOTTOM RIGHT TOP -tr X Y FILE",
    )


def _ratios(own: Grid, grid: Grid) -> Iterator[tuple[int, int]]:
    """How many rows of the grid a row of a file may be, as (enlarge, shrink)."""
    if not grid.height or not own.height:
        return
    size = abs(own.transform.determinant / grid.transform.determinant) ** 0.5
    yield (max(1, round(size)), 1) if size >= 1 else (1, max(1, round(1 / size)))


def _grid_words(grid: Grid) -> str:
    code = grid.crs.to_string() if grid.crs else "no CRS"
    step = abs(grid.transform.a) or abs(grid.transform.b)
    return (
        f"{grid.height} x {grid.width} px of {step:g} from ({grid.transform.c:g}, {grid.transform.f:g}) in {code[:40]}"
    )
