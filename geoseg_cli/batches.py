"""Windows to normalised batches; reading runs one strip of tiles ahead of the engine.

A strip is one row of tiles, read at the full width of the scene: rows that two strips share are read once and
carried over, so every pixel is read exactly once whatever the overlap.

numpy normalises tile by tile, which stays in the processor's caches. Another device gets the stored numbers as they
are, each of them once, and normalises the rows of a strip as they come: few large steps, and tiles are cut from what
is there already. Normalising treats every pixel for itself, so a tile has the same numbers either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from geoseg_cli.arrays import NUMPY, Array, Arrays
from geoseg_cli.bundle import InputSpec
from geoseg_cli.grid import Grid, Window
from geoseg_cli.orientation import AS_STORED, Orientation
from geoseg_cli.tiles import Tile, TilePlan

BoolArray = npt.NDArray[np.bool_]


class Pixels(Protocol):
    """Pixels of a window: ``pixels`` (P,H,W) in the file's own type, ``valid`` (H,W) bool."""

    @property
    def pixels(self) -> npt.NDArray[Any]:
        """(P, H, W) stored numbers of the present bands."""
        ...

    @property
    def valid(self) -> BoolArray:
        """(H, W) bool, False where any used band has no value."""
        ...


class Source(Protocol):
    """What batches need of a scene; ``scenes.Scene`` is one."""

    @property
    def grid(self) -> Grid:
        """Where the pixels lie."""
        ...

    @property
    def present(self) -> tuple[bool, ...]:
        """One flag per band of the input contract."""
        ...

    def read(self, window: Window) -> Pixels:
        """Read a window."""
        ...

    def to_reflectance(self, pixels: Array, arrays: Arrays = NUMPY, /) -> Array:
        """Turn stored numbers (P,H,W) of ``arrays`` into reflectance float32."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Tiles that go through the engine together.

    Attributes:
        pixels: (N, C, T, T) float32 of the engine's arrays, the network's input, turned as the network sees it.
        valid: (N, T, T) bool of numpy, turned alike, False where the scene has no value and in the padding.
        tiles: The N tiles, in the plan's order.
    """

    pixels: Array
    valid: BoolArray
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """One row of tiles at the scene's full width, in the pieces in which its rows were read.

    To copy them into one array would cost time, and the memory of a second strip.

    Attributes:
        row: Its first row in the scene.
        pixels: Stored numbers (P,h,W) of successive rows, or the network's input (C,h,W) where a device made it.
        valid: Validity (h,W) of the same rows; always numpy's, as it decides which tiles are made at all.
    """

    row: int
    pixels: tuple[Array, ...]
    valid: tuple[BoolArray, ...]

    @property
    def row_stop(self) -> int:
        """One past its last row in the scene."""
        return self.row + sum(len(piece) for piece in self.valid)


class Part(Protocol):
    """A part of the scene; a window is one."""

    def touches(self, other: Window, /) -> bool:
        """Whether a pixel of the window belongs to it."""
        ...


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts a scene into normalised batches.

    Attributes:
        source: The scene.
        plan: Tiles over the scene's grid.
        spec: How pixels are normalised.
        orientation: How tiles are turned before the network sees them.
        arrays: What normalises and cuts, and where; the batches' pixels are such arrays.
    """

    source: Source
    plan: TilePlan
    spec: InputSpec
    orientation: Orientation = AS_STORED
    arrays: Arrays = NUMPY

    def batches(self, size: int | Callable[[], int], keep: Part | None = None, first_row: int = 0) -> Iterator[Batch]:
        """Cut the tiles in the plan's order.

        Args:
            size: Tiles in a batch, or what tells it for the next one; the last one may hold fewer.
            keep: Only tiles that touch this part are made; all of them when None.
            first_row: Rows of tiles before this one are left out.

        Yields:
            Batches. Tiles without a valid pixel are left out: there is nothing to predict in them.
        """
        next_size = size if callable(size) else lambda: size
        pending: list[tuple[Tile, Array, BoolArray]] = []
        wanted = next_size()
        for strip, tiles in self._strips(keep or self.source.grid.window, first_row):
            for tile in tiles:
                made = self._tile_input(strip, tile)
                if made is not None:
                    pending.append((tile, *made))
                if len(pending) == wanted:
                    yield _stack(pending, self.arrays)
                    pending, wanted = [], next_size()
        if pending:
            yield _stack(pending, self.arrays)

    def _strips(self, keep: Part, first_row: int) -> Iterator[tuple[Strip, list[Tile]]]:
        """Strips with those of their tiles that are wanted; the next one is read meanwhile."""
        plan = self.plan
        rows = [
            [tile for col in range(len(plan.cols.starts)) if keep.touches((tile := plan[row, col]).window)]
            for row in range(first_row, len(plan.rows.starts))
        ]
        rows = [tiles for tiles in rows if tiles]
        with ThreadPoolExecutor(1, thread_name_prefix="geoseg-read") as reader:
            strip: Strip | None = None
            ahead = reader.submit(self._read_strip, strip, rows[0][0].window) if rows else None
            for index, tiles in enumerate(rows):
                assert ahead is not None
                strip = ahead.result()
                if index + 1 < len(rows):
                    ahead = reader.submit(self._read_strip, strip, rows[index + 1][0].window)
                yield strip, tiles

    def _tile_input(self, strip: Strip, tile: Tile) -> tuple[Array, BoolArray] | None:
        """The network's input (C,T,T) of a tile and its validity (T,T); None where nothing is valid."""
        cols, arrays, orientation = tile.window.cols, self.arrays, self.orientation
        valid = orientation.turn(_columns(strip.valid, cols, NUMPY))
        if not valid.any():
            return None
        shown, pixels = valid, orientation.turn(_columns(strip.pixels, cols, arrays), arrays)
        height, width = orientation.shape(self.plan.tile_height, self.plan.tile_width)
        below, right = height - valid.shape[0], width - valid.shape[1]
        if below or right:
            # Mirrored, not constant: the network must not see an edge where the scene ends.
            pixels, shown = _mirrored(pixels, below, right, arrays), _mirrored(valid, below, right, NUMPY)
            valid = np.pad(valid, ((0, below), (0, right)))
        return self._normalised(pixels, shown) if arrays.are_numpys else pixels, valid

    def _read_strip(self, last: Strip | None, window: Window) -> Strip:
        """Read the rows of a window that the last strip does not hold yet."""
        carried = max(0, last.row_stop - window.row) if last else 0
        width = self.source.grid.width
        fresh = self.source.read(Window(window.row + carried, 0, window.height - carried, width))
        pixels, valid = [self._brought(fresh)], [fresh.valid]
        if last is not None and carried:
            pixels.insert(0, _last_rows(last.pixels, carried, self.arrays))
            valid.insert(0, _last_rows(last.valid, carried, NUMPY))
        return Strip(window.row, tuple(pixels), tuple(valid))

    def _brought(self, fresh: Pixels) -> Array:
        """Stored numbers as they are on a CPU; elsewhere the network's input, made while the device does other work."""
        if self.arrays.are_numpys:
            return self.arrays.put(fresh.pixels)
        with self.arrays.beside():
            return self.arrays.hand_over(self._normalised(self.arrays.put(fresh.pixels), fresh.valid))

    def _normalised(self, pixels: Array, valid: BoolArray) -> Array:
        """(P,H,W) stored numbers become the network's input (C,H,W)."""
        reflectance = self.source.to_reflectance(pixels, self.arrays)
        return self.spec.apply(reflectance, valid, self.source.present, self.arrays)


def _last_rows(pieces: tuple[Array, ...], count: int, arrays: Arrays) -> Array:
    """A copy (..., count, W) of the last rows of pieces (..., h, W): a view would hold on to all rows above."""
    last = pieces[-1] if pieces[-1].shape[-2] >= count else arrays.join(pieces, -2)
    return arrays.copy(last[..., -count:, :])


def _columns(pieces: tuple[Array, ...], cols: slice, arrays: Arrays) -> Array:
    """Columns (..., H, w) of all pieces (..., h, W)."""
    return arrays.join([piece[..., cols] for piece in pieces], -2)


def _mirrored(shown: Array, below: int, right: int, arrays: Arrays) -> Array:
    """(..., H, W) with ``below`` rows and ``right`` columns more, mirrored at its edges."""
    rows, cols = (
        arrays.put(np.pad(np.arange(side), (0, more), mode="symmetric"))
        for side, more in zip(shown.shape[-2:], (below, right), strict=True)
    )
    return shown[..., rows[:, None], cols]


def _stack(pending: list[tuple[Tile, Array, BoolArray]], arrays: Arrays) -> Batch:
    tiles, pixels, valid = zip(*pending, strict=True)
    # On a CPU every tile is a batch of its own: there is nothing to copy together.
    together = pixels[0][None] if len(pixels) == 1 else arrays.module.stack(pixels)
    return Batch(together, np.stack(valid), tiles)
