"""Connected parts of a class map, found strip by strip and joined exactly.

Pixels are neighbours where they share an edge. Every strip is cut into pieces on its own; pieces that meet at the
line between two strips are joined afterwards, so the answer does not depend on where the strips end. Components are
numbered in the order of their first pixels, row by row. Memory is O(strip + pieces). Axes: H rows, W columns, P
pieces, C components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoseg_cli.errors import StorageError, UsageError
from geoseg_cli.memory import free_memory_bytes
from geoseg_cli.rows import LabelArray

Strip = tuple[int, LabelArray]
"""First row of the map, and (h, W) labels from there on."""
LabelSource = Callable[[], Iterator[Strip]]
"""Gives the strips of a map from top to bottom, the same ones at every call; each call is one more pass."""

Numbers = npt.NDArray[np.int64]
PieceArray = npt.NDArray[np.int32]

BYTES_PER_PIECE, BYTES_PER_PIECE_WITH_NEIGHBOURS = 200, 400
"""Memory that a map takes for each of its pieces: 170 and 370 were measured on noise, see docs/polygons.md."""
FREE_SHARE = 0.7
"""Part of the free memory that may be planned with."""

NONE = -1
"""Number of the component that pixels without a class belong to."""


@dataclass(frozen=True, slots=True)
class Components:
    """The connected parts of a map.

    Attributes:
        of_piece: (P,) int32, component of each piece.
        values: (C,) label of each component.
        sizes: (C,) int64, its summed pixel sizes.
        pixels: (C,) int64, its pixels.
        last_rows: (C,) int64, its last row.
        neighbours: (M, 2) int64 components that share an edge, each pair once and lower number first; only pairs with
            at least one that may be smaller than was asked for.
    """

    of_piece: PieceArray
    values: LabelArray
    sizes: Numbers
    pixels: Numbers
    last_rows: Numbers
    neighbours: Numbers

    def joined(self, group: Numbers, values: LabelArray) -> Components:
        """Components that are put together.

        Args:
            group: (C,) number of the lowest component of each one's group.
            values: (C,) labels that they get, equal within a group.
        """
        heads, number = np.unique(group, return_inverse=True)
        pairs = unique_pairs(number[self.neighbours[:, 0]], number[self.neighbours[:, 1]])
        last_rows = np.zeros(len(heads), np.int64)
        np.maximum.at(last_rows, number, self.last_rows)
        return Components(
            number.astype(np.int32)[self.of_piece],
            values[heads],
            summed(number, self.sizes, len(heads)),
            summed(number, self.pixels, len(heads)),
            last_rows,
            pairs,
        )


def find_components(source: LabelSource, nodata: int, row_sizes: Numbers, below: int = 0) -> Components:
    """Find the connected parts of a map in one pass.

    Args:
        source: The map.
        nodata: Label of pixels that belong to no component.
        row_sizes: (H,) int64, what a pixel of each row counts for in ``Components.sizes``.
        below: Neighbours are wanted of components with a smaller size than this.

    Raises:
        UsageError: The map has more parts than fit into the free memory.
    """
    found = _Found(row_sizes, below)
    for row, labels in source():
        found.add(row, _Runs(labels, nodata))
    return found.components()


def component_strips(
    source: LabelSource, nodata: int, components: Components
) -> Iterator[tuple[int, LabelArray, PieceArray]]:
    """Go over the map again and tell the component of every pixel.

    Yields:
        First row, (h, W) labels, and (h, W) int32 components, -1 where the map has no class.

    Raises:
        StorageError: The map is another one than in the first pass.
    """
    first, count = 0, len(components.of_piece)
    for row, labels in source():
        runs = _Runs(labels, nodata)
        if first + runs.count > count:
            break
        known = np.append(components.of_piece[first : first + runs.count], np.int32(NONE))  # NONE finds the last one
        yield row, labels, known[runs.piece][runs.image]
        first += runs.count
    else:
        if first == count:
            return
    raise StorageError("the map changed while it was read", "run again when nothing else writes to it")


def connected(count: int, one: Numbers, other: Numbers) -> Numbers:
    """Lowest node that each of ``count`` nodes is connected with.

    Args:
        count: Number of nodes.
        one, other: (E,) int64, the two ends of each edge.

    Returns:
        (count,) int64.
    """
    root = np.arange(count)
    while len(one):
        ends = root[one], root[other]
        one, other = np.minimum(*ends), np.maximum(*ends)
        apart = one != other
        one, other = one[apart], other[apart]
        np.minimum.at(root, other, one)
        root = pointed_at(root)
    return root


def pointed_at(pointer: Numbers) -> Numbers:
    """Where pointers lead in the end, (N,) int64 -> (N,) int64; the only cycles are nodes that point to themselves."""
    while True:
        further = pointer[pointer]
        if np.array_equal(further, pointer):
            return pointer
        pointer = further


def unique_pairs(one: Numbers, other: Numbers) -> Numbers:
    """(M, 2) int64 of the pairs of different numbers, each once, the lower one first."""
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other).astype(np.int64)
    apart = low != high
    low, high = low[apart], high[apart]
    base = int(high.max(initial=0)) + 1
    keys = np.unique(low * base + high)
    return np.stack([keys // base, keys % base], axis=1)


def summed(place: npt.NDArray[np.integer], amounts: Numbers, count: int) -> Numbers:
    """(count,) int64 sums of the amounts at each place, exact beyond 2^53 unlike ``bincount``."""
    sums = np.zeros(count, np.int64)
    np.add.at(sums, place, amounts)
    return sums


class _Runs:
    """Runs of equal pixels in the rows of one strip, and the connected pieces that they make up.

    Attributes:
        labels: (h, W).
        image: (h, W) int32, number of each pixel's run; runs are counted from 0, row by row.
        values: (R,) label of each run.
        piece: (R,) int32, its piece, counted from 0 in the order of first pixels; -1 where there is no class.
        count: Number of pieces.
    """

    def __init__(self, labels: LabelArray, nodata: int) -> None:
        begins = np.ones(labels.shape, bool)
        np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
        self.labels = labels
        self._starts: Numbers = np.flatnonzero(begins).astype(np.int64, copy=False)
        self.values: LabelArray = labels.ravel()[self._starts]
        self.image: PieceArray = np.cumsum(begins, dtype=np.int32).reshape(labels.shape)
        self.image -= 1
        # Two runs that touch from row to row do so where one of them begins.
        meets = begins[1:] | begins[:-1]
        self._above, self._below = (side[meets].astype(np.int64) for side in (self.image[:-1], self.image[1:]))
        same = self.values[self._above] == self.values[self._below]
        root = connected(len(self._starts), self._above[same], self._below[same])
        known = self.values != nodata
        self._heads = np.flatnonzero((root == np.arange(len(root))) & known)
        number = np.full(len(root), NONE, np.int32)
        number[self._heads] = np.arange(len(self._heads), dtype=np.int32)
        self.piece: PieceArray = np.where(known, number[root], np.int32(NONE))
        self.count = len(self._heads)

    @property
    def piece_values(self) -> LabelArray:
        """(count,) label of each piece."""
        values: LabelArray = self.values[self._heads]
        return values

    def measures(self, row: int, row_sizes: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """(count,) int64 summed sizes, pixels and last row of each piece of a strip that begins at ``row``."""
        height, width = self.labels.shape
        known = self.piece != NONE
        lengths = np.diff(self._starts, append=height * width)[known]
        rows, place = self._starts[known] // width + row, self.piece[known]
        last_rows = np.zeros(self.count, np.int64)
        np.maximum.at(last_rows, place, rows)
        return summed(place, lengths * row_sizes[rows], self.count), summed(place, lengths, self.count), last_rows

    def neighbours(self) -> Numbers:
        """(M, 2) int64 pairs of pieces that share an edge."""
        right = np.flatnonzero(self._starts % self.labels.shape[1])
        one = self.piece[np.concatenate([right - 1, self._above])]
        other = self.piece[np.concatenate([right, self._below])]
        known = (one != NONE) & (other != NONE)
        return unique_pairs(one[known], other[known])

    def line(self, index: int, first: int) -> tuple[Numbers, LabelArray]:
        """(W,) int64 pieces, counted on from ``first``, and (W,) labels of one row."""
        pieces = self.piece[self.image[index]].astype(np.int64)
        return np.where(pieces == NONE, NONE, pieces + first), self.labels[index].copy()


class _Found:
    """What the first pass gathers about pieces, strip by strip."""

    def __init__(self, row_sizes: Numbers, below: int) -> None:
        self._row_sizes, self._below = row_sizes, below
        self._count = 0
        self._values: list[LabelArray] = []
        self._measures: list[tuple[Numbers, Numbers, Numbers]] = []
        self._joints: list[Numbers] = []
        self._pairs: list[Numbers] = []
        self._last: tuple[Numbers, LabelArray] | None = None

    def add(self, row: int, runs: _Runs) -> None:
        measures = runs.measures(row, self._row_sizes)
        if self._below:
            pairs = runs.neighbours()
            may_be_small = (measures[0] < self._below)[pairs].any(axis=1)
            self._pairs.append(pairs[may_be_small] + self._count)
        if self._last is not None:
            self._join(self._last, runs.line(0, self._count))
        self._last = runs.line(-1, self._count)
        self._values.append(runs.piece_values)
        self._measures.append(measures)
        self._count += runs.count
        self._refuse_excess()

    def _refuse_excess(self) -> None:
        free = free_memory_bytes()
        needed = self._count * (BYTES_PER_PIECE_WITH_NEIGHBOURS if self._below else BYTES_PER_PIECE)
        if free is not None and needed > FREE_SHARE * free:
            raise UsageError(
                f"the map falls into too many parts for the memory: {self._count:,} so far, about"
                f" {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free",
                "smooth it with a majority filter first, or work on a part of it",
            )

    def _join(self, above: tuple[Numbers, LabelArray], below: tuple[Numbers, LabelArray]) -> None:
        known = (above[0] != NONE) & (below[0] != NONE)
        same = known & (above[1] == below[1])
        self._joints.append(unique_pairs(above[0][same], below[0][same]))
        if self._below:
            self._pairs.append(unique_pairs(above[0][known & ~same], below[0][known & ~same]))

    def components(self) -> Components:
        no_pairs = np.empty((0, 2), np.int64)
        sizes, pixels, last_rows = (np.concatenate(column) for column in zip(*self._measures, strict=True))
        values, pairs = np.concatenate(self._values), np.concatenate([*self._pairs, no_pairs])
        joints = np.concatenate([*self._joints, no_pairs])
        pieces = Components(np.arange(self._count, dtype=np.int32), values, sizes, pixels, last_rows, pairs)
        return pieces.joined(connected(self._count, joints[:, 0], joints[:, 1]), values)
