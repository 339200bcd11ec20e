"""Logits of overlapping tiles to finished rows: labels and, where asked for, confidence, probabilities and dissent.

A pixel that only one tile answers takes the first of its largest logits. Only pixels that tiles share are summed up,
in narrow bands along the tiles' edges. The mosaic holds one tile height of rows: once no later tile touches a row it is
released and forgotten, so memory is O(width x tile height) whatever the height of the scene.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.arrays import NUMPY, Array, Arrays
from geoseg_cli.catalog import Legend
from geoseg_cli.grid import Window
from geoseg_cli.mosaic.planes import (
    NARROW,
    WIDE,
    CodeType,
    Piece,
    Workbench,
    add_votes,
    dissent,
    divide_by_total,
    drop_non_finite,
    exponentials,
    first_maximum,
    mark_unanswered,
    maximum,
    pieces,
    weighted_softmax,
)
from geoseg_cli.mosaic.seams import Blend, Part, Seams
from geoseg_cli.rows import Extra, LabelArray, Rows
from geoseg_cli.tiles import Tile, TilePlan

__all__ = ["Blend", "Mosaic"]

BoolArray = npt.NDArray[np.bool_]


class Mosaic:
    """Blends tiles in the plan's order.

    Softmax probabilities of each tile are averaged with strictly positive weights that fall towards the tile's inner
    edges (``hann``, ``linear``), or each pixel is taken from the tile whose middle is nearest (``trim``). Sums are
    float32 and made in the plan's order, so the result does not depend on how tiles travelled in batches.

    Attributes:
        not_finite: Valid pixels of tiles whose logits were not finite, counted where the tile has a weight. They are
            nodata in the result unless another tile answers them.
        shared, disputed: Pixels that several tiles answered, and those of them that these tiles gave different classes;
            counted where ``seams`` are among the extras.
    """

    def __init__(
        self,
        plan: TilePlan,
        legend: Legend,
        blend: Blend,
        temperature: float = 1.0,
        extras: Collection[Extra] = (),
        arrays: Arrays = NUMPY,
    ) -> None:
        """Prepare an empty mosaic.

        Args:
            plan: The tiles that will come; those that never come leave nodata.
            legend: What output channel k means.
            blend: How overlaps are merged.
            temperature: Probabilities are softmax(logits / temperature).
            extras: What rows carry beside labels.
            arrays: What computes, and where.
        """
        self._plan, self._temperature, self._arrays, self._xp = plan, temperature, arrays, arrays.module
        self._type, self._codes, self._labels_of = _codes(legend)
        self._seams = Seams(plan.rows, blend), Seams(plan.cols, blend)
        self._weights = tuple([arrays.put(weights) for weights in seams.weights] for seams in self._seams)
        classes, height, width = len(legend.classes), min(plan.tile_height, plan.rows.size), plan.cols.size
        rows, cols = self._seams
        # Sums of rows that tiles above each other share, and in the other rows of columns that neighbours share.
        shapes = (classes, rows.most_shared, width), (classes, rows.most_own, cols.shared_before(cols.size))
        self._sums = _two(arrays, shapes, "float32")
        self._best = arrays.full((height, width), self._type.no_answer, self._type.dtype)
        self._confidence = arrays.full((height, width), 0, "float32") if "confidence" in extras else None
        self._probabilities = arrays.full((classes, height, width), 0, "float32") if "probabilities" in extras else None
        self._bench = Workbench(arrays, classes, self._type)
        # How many tiles named each class, where tiles share pixels.
        self._votes = _two(arrays, shapes, "uint8") if "seams" in extras else None
        self._dissent = arrays.full((height, width), 0, "float32") if "seams" in extras else None
        self._row = 0
        self.not_finite = self.shared = self.disputed = 0

    def begin_at(self, row: int) -> None:
        """Leave out the rows before this one, as if they had been released: before the first tile is added."""
        self._row = row

    def add(self, tile: Tile, logits: Array, valid: BoolArray) -> Iterator[Rows]:
        """Blend a tile in; yields the rows that no later tile touches, perhaps only once a later one comes.

        Args:
            tile: The tile, at or after all tiles that came before it.
            logits: (K, T, T) float32, of the mosaic's arrays or numpy's.
            valid: (T, T) bool of numpy, pixels that the scene has a value for.
        """
        yield from self._release(tile.window.row)
        known = None if valid[: tile.window.height, : tile.window.width].all() else self._arrays.put(valid)
        rows, cols = self._seams
        for down, across in _regions(rows.parts[tile.row_index], cols.parts[tile.col_index]):
            for window in pieces(_window(down, across), self._arrays.piece_px):
                place = _within(window, tile.window)
                piece = self._bench.load(logits[(slice(None), *place)], None if known is None else known[place])
                if down.is_shared or across.is_shared:
                    self._sum_up(piece, tile, window, down.is_shared)
                else:
                    self._settle(piece, window)
        below = tile.row_index + 1
        if tile.col_index == len(self._plan.cols.starts) - 1 and below < len(self._plan.rows.starts):
            # At once: rows that are not written yet are lost to a kill.
            yield from self._release(self._plan.rows.starts[below])

    def finish(self) -> Iterator[Rows]:
        """Yield all rows that are left, down to the scene's last one."""
        yield from self._release(self._plan.rows.size)

    def _sum_up(self, piece: Piece, tile: Tile, window: Window, is_row_shared: bool) -> None:
        """Add the weighted probabilities of a piece that several tiles answer."""
        if self._votes is None:
            maximum(self._xp, piece)
            self.not_finite += drop_non_finite(self._xp, piece)
        else:
            first_maximum(self._xp, piece, self._codes)
            self.not_finite += drop_non_finite(self._xp, piece)
            add_votes(piece, self._codes, self._shared_planes(self._votes, window, is_row_shared))
        rows, cols = _within(window, tile.window)
        weights = self._weights[0][tile.row_index][rows], self._weights[1][tile.col_index][cols]
        weighted_softmax(self._xp, piece, self._temperature, *weights)
        sums = self._shared_planes(self._sums, window, is_row_shared)
        self._xp.add(sums, piece.planes, out=sums)

    def _settle(self, piece: Piece, window: Window) -> None:
        """Keep the answer to a piece that only one tile gives."""
        first_maximum(self._xp, piece, self._codes)
        self.not_finite += drop_non_finite(self._xp, piece)
        if piece.valid is not None:
            self._xp.logical_not(piece.valid, out=piece.flags)
            mark_unanswered(self._xp, piece, self._type.no_answer)
        if self._has_extras:
            exponentials(self._xp, piece, self._temperature)
            piece.top[...] = 1
        self._keep(piece, window)

    def _settle_sums(self, count: int) -> None:
        """Keep the answers to what was summed up in the first ``count`` rows that are held."""
        rows, cols = self._seams
        for down, across in _regions(rows.between(self._row, self._row + count), cols.between(0, cols.size)):
            if not (down.is_shared or across.is_shared):
                continue
            for window in pieces(_window(down, across), self._arrays.piece_px):
                piece = self._bench.load(self._shared_planes(self._sums, window, down.is_shared))
                first_maximum(self._xp, piece, self._codes)
                self._xp.less_equal(piece.top, 0, out=piece.flags)
                mark_unanswered(self._xp, piece, self._type.no_answer)
                if self._has_extras:
                    self._xp.sum(piece.planes, 0, out=piece.total)
                self._keep(piece, window)
                if self._votes is not None and self._dissent is not None:
                    votes = self._shared_planes(self._votes, window, down.is_shared)
                    self._judge(piece, window, votes, self._dissent)

    def _judge(self, piece: Piece, window: Window, votes: Array, held: Array) -> None:
        """Keep how many of the tiles that answered a piece named other classes than it got."""
        shares, counts = dissent(self._xp, piece.best, self._codes, votes)
        held[window.row - self._row : window.row_stop - self._row, window.cols] = shares
        shared, disputed = counts.reshape(2, -1).sum(1).tolist()
        self.shared, self.disputed = self.shared + shared, self.disputed + disputed

    @property
    def _has_extras(self) -> bool:
        return self._confidence is not None or self._probabilities is not None

    def _keep(self, piece: Piece, window: Window) -> None:
        place = slice(window.row - self._row, window.row_stop - self._row), window.cols
        self._best[place] = piece.best
        if self._has_extras:
            divide_by_total(self._xp, piece, self._probabilities is not None)
        if self._confidence is not None:
            self._confidence[place] = piece.top
        if self._probabilities is not None:
            self._probabilities[(slice(None), *place)] = piece.planes

    def _shared_planes(self, held: tuple[Array, Array], window: Window, is_row_shared: bool) -> Array:
        """(K, H, W) view of what is held of a window whose rows, or else whose columns, tiles share."""
        rows, cols = self._seams
        if is_row_shared:
            row = rows.shared_before(window.row) - rows.shared_before(self._row)
            return held[0][:, row : row + window.height, window.cols]
        row, col = rows.own_before(window.row) - rows.own_before(self._row), cols.shared_before(window.col)
        return held[1][:, row : row + window.height, col : col + window.width]

    def _release(self, stop: int) -> Iterator[Rows]:
        while self._row < stop:
            count = min(stop - self._row, len(self._best))
            self._settle_sums(count)
            yield self._rows(count)
            self._forget(count)
            self._row += count

    def _rows(self, count: int) -> Rows:
        best = self._arrays.fetch(self._best[:count])
        confidence, probabilities, seams = (
            None if held is None else self._arrays.fetch(held[..., :count, :])
            for held in (self._confidence, self._probabilities, self._dissent)
        )
        labels = best if self._labels_of is None else np.take(self._labels_of, best)
        return Rows(self._row, labels, confidence, probabilities, best != self._type.no_answer, seams)

    def _forget(self, count: int) -> None:
        """Move all that is held up by ``count`` rows of the scene."""
        rows = self._seams[0]
        shared = rows.shared_before(self._row + count) - rows.shared_before(self._row)
        for held in (self._sums, self._votes):
            if held is not None:
                _move_up(held[0], shared, 0)
                _move_up(held[1], count - shared, 0)
        self._best = self._renewed(self._best, count, self._type.no_answer, self._type.dtype)
        if self._confidence is not None:
            self._confidence = self._renewed(self._confidence, count, 0, "float32")
        if self._probabilities is not None:
            self._probabilities = self._renewed(self._probabilities, count, 0, "float32")
        if self._dissent is not None:
            self._dissent = self._renewed(self._dissent, count, 0, "float32")

    def _renewed(self, held: Array, count: int, empty: int, dtype: str) -> Array:
        """A new array without the first ``count`` of the rows of (..., H, W), which now belong to who took them."""
        renewed = self._arrays.full(held.shape, empty, dtype)
        renewed[..., : held.shape[-2] - count, :] = held[..., count:, :]
        return renewed


def _codes(legend: Legend) -> tuple[CodeType, Sequence[int], LabelArray | None]:
    """What codes are, rising ones of the classes, and the label of each code: None where codes are labels."""
    kind = NARROW if len(legend.values) <= NARROW.no_answer else WIDE
    is_narrow = kind is NARROW and legend.dtype == kind.dtype
    if is_narrow and legend.nodata == kind.no_answer and list(legend.values) == sorted(legend.values):
        return kind, legend.values, None
    labels: LabelArray = np.full(kind.no_answer + 1, legend.nodata, legend.dtype)
    labels[: len(legend.values)] = legend.values
    return kind, range(len(legend.values)), labels


def _two(arrays: Arrays, shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: str) -> tuple[Array, Array]:
    return arrays.full(shapes[0], 0, dtype), arrays.full(shapes[1], 0, dtype)


def _regions(rows: Sequence[Part], cols: Sequence[Part]) -> Iterator[tuple[Part, Part]]:
    """Pairs of rows and columns that are treated alike; where rows are shared it does not matter which columns are."""
    for down in rows:
        for across in [Part(cols[0].first, cols[-1].stop, True)] if down.is_shared else cols:
            yield down, across


def _window(rows: Part, cols: Part) -> Window:
    return Window(rows.first, cols.first, rows.stop - rows.first, cols.stop - cols.first)


def _within(window: Window, tile: Window) -> tuple[slice, slice]:
    """Rows and columns of a window in an array that begins where the tile does."""
    row, col = window.row - tile.row, window.col - tile.col
    return slice(row, row + window.height), slice(col, col + window.width)


def _move_up(held: Any, count: int, empty: int) -> None:
    """Drop the first ``count`` of the H rows of (K, H, W) and leave empty ones at the end."""
    kept = held.shape[-2] - count
    # In blocks that do not overlap their new place: torch does not copy what overlaps, and numpy takes memory for it,
    # for planes together even where it only cannot see that they do not.
    for plane in held if count else ():
        for start in range(0, kept, count):
            stop = min(start + count, kept)
            plane[start:stop] = plane[start + count : stop + count]
    held[..., kept:, :] = empty
