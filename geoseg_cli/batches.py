"""Windows to normalised batches; reading runs ahead of the engine.

A row of tiles is read from left to right in pieces of whole columns of blocks, so that its first tiles need not wait
for its last; where a scene's blocks go across all of it, a piece does too. Rows that two rows of tiles share are read
once and carried over, so every pixel is read exactly once whatever the overlap.

numpy normalises a few rows of a tile at a time, which stay in the processor's caches, into their place in the batch.
Another device gets the stored numbers as they are, each of them once, and normalises whole pieces as they come: few
large steps, and tiles are cut from what is there already. Normalising treats every pixel for itself, so a tile has the
same numbers either way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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

    @property
    def column_step(self) -> int | None:
        """Windows that begin and end at multiples of so many columns decode no block twice; None for whole rows."""
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
class Piece:
    """Columns of one row of tiles, as they were read: the rows that were carried over, then the others.

    To copy both into one array would cost time, and memory.

    Attributes:
        window: Where it lies in the scene.
        pixels: Stored numbers (P,h,w) of successive rows, or the network's input (C,h,w) where a device made it.
        valid: Validity (h,w) of the same rows; always numpy's, as it decides which tiles are made at all.
    """

    window: Window
    pixels: tuple[Array, ...]
    valid: tuple[BoolArray, ...]

    def cut(self, cols: slice) -> Piece:
        """The part that lies in some columns of the scene: views."""
        first, stop = max(cols.start, self.window.col), min(cols.stop, self.window.col_stop)
        own = slice(first - self.window.col, stop - self.window.col)
        window = Window(self.window.row, first, self.window.height, stop - first)
        pixels, valid = (tuple([rows[..., own] for rows in held]) for held in (self.pixels, self.valid))
        return Piece(window, pixels, valid)

    def strips(self, most_px: int) -> Iterator[tuple[Window, Array, BoolArray]]:
        """Rows of it, of so many pixels where they fit, from top to bottom: where they lie, pixels and validity."""
        row, step = self.window.row, max(1, most_px // self.window.width)
        for pixels, valid in zip(self.pixels, self.valid, strict=True):
            for start in range(0, len(valid), step):
                part = slice(start, min(start + step, len(valid)))
                where = Window(row + start, self.window.col, part.stop - start, self.window.width)
                yield where, pixels[..., part, :], valid[part]
            row += len(valid)

    def last_rows(self, count: int, arrays: Arrays) -> Piece:
        """A copy of its last rows: a view would hold on to all rows above."""
        window = Window(self.window.row_stop - count, self.window.col, count, self.window.width)
        return Piece(window, (_last_rows(self.pixels, count, arrays),), (_last_rows(self.valid, count, NUMPY),))


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
        draft = self._draft(next_size())
        for tile, pieces in self._tiles(keep or self.source.grid.window, first_row):
            self._add(draft, tile, [piece.cut(tile.window.cols) for piece in pieces])
            if draft.is_full:
                yield draft.taken()
                draft = self._draft(next_size())
        if draft.tiles:
            yield draft.taken()

    def _draft(self, size: int) -> _Draft:
        """Room for as many tiles; for all of them where there are fewer."""
        height, width = self.orientation.shape(self.plan.tile_height, self.plan.tile_width)
        return _Draft(min(size, len(self.plan)), (self.spec.channels, height, width), self.arrays)

    def _tiles(self, keep: Part, first_row: int) -> Iterator[tuple[Tile, Sequence[Piece]]]:
        """The tiles that are wanted, each with the pieces that it lies in; the next piece is read meanwhile."""
        plan, right = self.plan, self.source.grid.width
        rows = [
            [tile for col in range(len(plan.cols.starts)) if keep.touches((tile := plan[row, col]).window)]
            for row in range(first_row, len(plan.rows.starts))
        ]
        rows = [tiles for tiles in rows if tiles]
        with closing(_one_ahead(self._pieces([tiles[0].window for tiles in rows]))) as coming:
            for tiles in rows:
                held: deque[Piece] = deque()
                stop = 0
                for tile in tiles:
                    while held and held[0].window.col_stop <= tile.window.col:
                        held.popleft()
                    while stop < tile.window.col_stop:
                        piece = next(coming)
                        stop = piece.window.col_stop
                        if stop > tile.window.col:
                            held.append(piece)
                    yield tile, held
                while stop < right:  # the row below is carried on from all of this one
                    stop = next(coming).window.col_stop

    def _pieces(self, rows: Sequence[Window]) -> Iterator[Piece]:
        """All pieces of rows of tiles, which come from top to bottom."""
        columns = self._columns()
        above: list[Piece | None] = [None] * len(columns)
        for number, row in enumerate(rows):
            below = rows[number + 1].row if number + 1 < len(rows) else row.row_stop
            for place, (col, width) in enumerate(columns):
                piece = self._read(above[place], Window(row.row, col, row.height, width))
                carried = max(0, row.row_stop - below)
                above[place] = piece.last_rows(carried, self.arrays) if carried else None
                yield piece

    def _columns(self) -> list[tuple[int, int]]:
        """First column and width of the pieces of a row; the first one is as wide as a tile needs, to begin early."""
        width = self.source.grid.width
        first, side = piece_width(self.source, self.plan, tiles=1), piece_width(self.source, self.plan)
        return [(0, first), *((col, min(side, width - col)) for col in range(first, width, side))]

    def _add(self, draft: _Draft, tile: Tile, pieces: Sequence[Piece]) -> None:
        """Make the network's input of a tile in a batch; nothing where none of its pixels is valid."""
        orientation, window = self.orientation, tile.window
        pixels, valid = draft.next_place
        orientation.turn_back(valid, window)[...] = _whole([piece.valid for piece in pieces], NUMPY)
        if not valid.any():
            return
        height, width = orientation.shape(window.height, window.width)
        if self.arrays.are_numpys:
            self._normalise_into(orientation.turn_back(pixels, window), window, pieces)
        else:
            whole = _whole([piece.pixels for piece in pieces], self.arrays)
            pixels[:, :height, :width] = orientation.turn(whole, self.arrays)
        # Mirrored, not constant: the network must not see an edge where the scene ends.
        _mirror_into(pixels, height, width, self.arrays)
        draft.tiles.append(tile)

    def _normalise_into(self, stored: Array, window: Window, pieces: Sequence[Piece]) -> None:
        """Fill (C,H,W) of a window in the file's order; in strips that stay in the processor's caches."""
        for piece in pieces:
            for part, pixels, valid in piece.strips(self.arrays.piece_px):
                rows = slice(part.row - window.row, part.row_stop - window.row)
                cols = slice(part.col - window.col, part.col_stop - window.col)
                self._normalised(pixels, valid, stored[:, rows, cols])

    def _read(self, above: Piece | None, window: Window) -> Piece:
        """Read the rows of a window that were not carried over."""
        carried = above.window.height if above else 0
        fresh = self.source.read(Window(window.row + carried, window.col, window.height - carried, window.width))
        pixels, valid = (above.pixels, above.valid) if above else ((), ())
        return Piece(window, (*pixels, self._brought(fresh)), (*valid, fresh.valid))

    def _brought(self, fresh: Pixels) -> Array:
        """Stored numbers as they are on a CPU; elsewhere the network's input, made while the device does other work."""
        if self.arrays.are_numpys:
            return self.arrays.put(fresh.pixels)
        with self.arrays.beside():
            return self.arrays.hand_over(self._normalised(self.arrays.put(fresh.pixels), fresh.valid))

    def _normalised(self, pixels: Array, valid: BoolArray, out: Array | None = None) -> Array:
        """(P,H,W) stored numbers become the network's input (C,H,W)."""
        reflectance = self.source.to_reflectance(pixels, self.arrays)
        return self.spec.apply(reflectance, valid, self.source.present, self.arrays, out)


def piece_width(source: Source, plan: TilePlan, tiles: int = 2) -> int:
    """Columns that are read together: at least those of so many tiles, in whole blocks, or all there are."""
    step, width = source.column_step, source.grid.width
    return width if step is None else min(width, -(-tiles * plan.tile_width // step) * step)


def _one_ahead(pieces: Iterator[Piece]) -> Generator[Piece, None, None]:
    """The same, each read in a thread while the one before it is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="geoseg-read") as reader:
        coming = reader.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = reader.submit(next, pieces, None)
            yield piece


def _last_rows(pieces: tuple[Array, ...], count: int, arrays: Arrays) -> Array:
    """A copy (..., count, W) of the last rows of pieces (..., h, W): a view would hold on to all rows above."""
    last = pieces[-1] if pieces[-1].shape[-2] >= count else arrays.join(pieces, -2)
    return arrays.copy(last[..., -count:, :])


def _whole(pieces: Sequence[tuple[Array, ...]], arrays: Arrays) -> Array:
    """(..., H, W) of neighbours, each of them successive rows (..., h, w)."""
    return arrays.join([arrays.join(rows, -2) for rows in pieces], -1)


def _mirror_into(pixels: Array, height: int, width: int, arrays: Arrays) -> None:
    """Fill what lies below ``height`` and right of ``width`` of (C,H,W) with what lies before it, mirrored."""
    below, right = pixels.shape[-2] - height, pixels.shape[-1] - width
    if below:
        rows = arrays.put(np.pad(np.arange(height), (0, below), mode="symmetric")[height:])
        pixels[:, height:, :width] = pixels[:, rows, :width]
    if right:
        cols = arrays.put(np.pad(np.arange(width), (0, right), mode="symmetric")[width:])
        pixels[:, :, width:] = pixels[:, :, cols]


class _Draft:
    """A batch that is being filled, tile by tile.

    Args:
        size: Tiles that it has room for.
        shape: (C, T, T) of a tile's input.
        arrays: What its pixels are.

    Attributes:
        tiles: Those that it holds; whoever has filled the next place adds one.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], arrays: Arrays) -> None:
        self._pixels = arrays.empty((size, *shape))
        self._valid = np.zeros((size, *shape[1:]), np.bool_)
        self.tiles: list[Tile] = []

    @property
    def is_full(self) -> bool:
        """Whether no place is left."""
        return len(self.tiles) == len(self._valid)

    @property
    def next_place(self) -> tuple[Array, BoolArray]:
        """(C, T, T) of any content and (T, T) validity, to be filled; False where nobody fills it."""
        return self._pixels[len(self.tiles)], self._valid[len(self.tiles)]

    def taken(self) -> Batch:
        """The batch of the tiles that it holds."""
        count = len(self.tiles)
        return Batch(self._pixels[:count], self._valid[:count], tuple(self.tiles))
