"""Shows the network every scene with north up, however it is stored.

A scene can be stored south-up, mirrored from east to west, turned by a quarter or a half, or any of these together:
eight ways. Tiles are turned just before the network and its answer is turned back just after it. So reading and
writing stay in the order of the file, no raster is ever held or written twice, and memory is the same for all eight
ways. The tiles themselves are cut where those of the same scene stored north-up would be cut.

Answers are those of the north-up scene, pixel by pixel. Where four tiles overlap their sum is made in another order,
so a probability may differ by the rounding of float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from geoseg_cli.arrays import NUMPY, Array, Arrays
from geoseg_cli.grid import Grid, Window
from geoseg_cli.tiles import Axis, TilePlan

_SLANT = 1e-9
"""Share of a pixel's side by which an axis may lean and still count as parallel to the map's."""

_MIRRORED = "the model sees it mirrored"
"""End of the warning about south-up files, which turning makes untrue."""


class _MirroredAxis(Axis):
    """An axis counted from its other end; a pixel midway between two tiles stays with the tile it belonged to."""

    def _seam(self, index: int) -> int:
        return -(-(self.starts[index] + self.tile + self.starts[index + 1]) // 2)


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored pixels become north-up ones: first swap rows and columns, then flip.

    Attributes:
        swap: Rows of the north-up scene are columns of the file.
        flip_rows: Rows of the north-up scene run the other way.
        flip_cols: Columns of the north-up scene run the other way.
    """

    swap: bool = False
    flip_rows: bool = False
    flip_cols: bool = False

    @classmethod
    def of(cls, grid: Grid) -> Orientation:
        """What turns a grid's pixels north-up.

        Grids without a CRS do not say where north is, and grids turned by anything but a multiple of 90 degrees cannot
        be shown north-up without resampling: both are taken as stored.
        """
        t = grid.transform
        if grid.crs is None:
            return cls()
        if _is_zero(t.b, t.a) and _is_zero(t.d, t.e):
            return cls(flip_rows=t.e > 0, flip_cols=t.a < 0)
        if _is_zero(t.a, t.b) and _is_zero(t.e, t.d):
            return cls(swap=True, flip_rows=t.d > 0, flip_cols=t.b < 0)
        return cls()

    @property
    def is_turned(self) -> bool:
        """Whether the file is stored in another way than the network sees it."""
        return self.swap or self.flip_rows or self.flip_cols

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of stored pixels (``height``, ``width``) once they are north-up; also the way back."""
        return (width, height) if self.swap else (height, width)

    def turn(self, stored: Array, arrays: Arrays = NUMPY) -> Array:
        """Turn (..., H, W) of the file north-up; of numpy's arrays a view of the same memory."""
        return self._flip(stored.swapaxes(-2, -1) if self.swap else stored, arrays)

    def turn_back(self, shown: Array, window: Window, arrays: Arrays = NUMPY) -> Array:
        """Turn the answer for a tile back into the file's order.

        Args:
            shown: (..., T, T) north-up, perhaps padded below and on the right.
            window: The tile in the file.
            arrays: What ``shown`` is one of.

        Returns:
            (..., H, W) of the window, of numpy's arrays a view of the same memory.
        """
        height, width = self.shape(window.height, window.width)
        flipped = self._flip(shown[..., :height, :width], arrays)
        return flipped.swapaxes(-2, -1) if self.swap else flipped

    def plan(self, height: int, width: int, tile_px: int, overlap_px: int, multiple: int = 1) -> TilePlan:
        """Plan tiles over stored pixels, where :meth:`TilePlan.cover` cuts the same scene stored north-up.

        Args:
            height, width: Size of the file in pixels.
            tile_px, overlap_px, multiple: As for :meth:`TilePlan.cover`.

        Raises:
            UsageError: ``tile_px`` or ``overlap_px`` cannot be used.
        """
        shown = TilePlan.cover(*self.shape(height, width), tile_px, overlap_px, multiple)
        rows = _mirrored(shown.rows) if self.flip_rows else shown.rows
        cols = _mirrored(shown.cols) if self.flip_cols else shown.cols
        return TilePlan(cols, rows) if self.swap else TilePlan(rows, cols)

    def still_true(self, warnings: tuple[str, ...]) -> tuple[str, ...]:
        """The warnings of a file without the one that the network sees it mirrored."""
        return tuple(text for text in warnings if not (self.is_turned and text.endswith(_MIRRORED)))

    def __str__(self) -> str:
        if not self.is_turned:
            return "as stored"
        steps = {
            "rows and columns swapped": self.swap,
            "rows flipped": self.flip_rows,
            "columns flipped": self.flip_cols,
        }
        return f"north-up for the model: {', '.join(step for step, is_done in steps.items() if is_done)}"

    def _flip(self, pixels: Array, arrays: Arrays) -> Array:
        flipped = ((-2, self.flip_rows), (-1, self.flip_cols))
        return arrays.flip(pixels, [axis for axis, is_flipped in flipped if is_flipped])


AS_STORED = Orientation()
"""Turns nothing."""


def _is_zero(slant: float, side: float) -> bool:
    return abs(slant) <= _SLANT * abs(side)


def _mirrored(axis: Axis) -> Axis:
    starts = tuple(axis.size - axis.tile - start for start in reversed(axis.starts))
    return _MirroredAxis(axis.size, axis.tile, axis.overlap, starts)
