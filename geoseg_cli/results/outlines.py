"""Outlines of the components of a map as polygons in whole pixels, traced strip by strip and never cut.

The border between two components is made of straight segments between corners: points where the border turns, or
where three or more components meet. Both sides get the same segments, so their outlines fit without gap or overlap.
Each component keeps its segments until its last row has passed; then they are linked to rings. Memory is O(strip +
segments of components that go on). Axes: H rows, W columns, E segments with one component to their right as one looks
at the map, R rings. A point is a number: line x (W + 1) + column, both counted from 0 at the upper left corner.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from geoseg_cli.results.components import NONE, Numbers, PieceArray

BoolArray = npt.NDArray[np.bool_]
GeometryArray = npt.NDArray[Any]

MAX_SEGMENTS_AT_ONCE = 2_000_000
"""Segments that are linked in one go, unless one component alone has more; about 150 bytes each meanwhile."""


@dataclass(frozen=True, slots=True)
class Outlines:
    """Polygons of finished components.

    Attributes:
        components: (N,) int64, rising.
        polygons: (N,) shapely polygons in pixels: x is the column, y the row, both from the upper left corner.
    """

    components: Numbers
    polygons: GeometryArray


@dataclass(frozen=True, slots=True)
class _Segments:
    """Directed parts of borders: the component that owns one lies to its right as one looks at the map.

    Attributes:
        owner: (E,) int32.
        start, end: (E,) int64 points.
    """

    owner: PieceArray
    start: Numbers
    end: Numbers

    def of(self, chosen: BoolArray) -> _Segments:
        return _Segments(self.owner[chosen], self.start[chosen], self.end[chosen])

    @classmethod
    def both_sides(cls, sides: tuple[PieceArray, PieceArray], points: tuple[Numbers, Numbers]) -> _Segments:
        """Once in its direction for the component on the right, and once back for that on the left."""
        right, left = sides
        first, last = points
        owner = np.concatenate([right, left])
        both = cls(owner, np.concatenate([first, last]), np.concatenate([last, first]))
        return both.of(owner != NONE)

    @classmethod
    def joined(cls, parts: list[_Segments]) -> _Segments:
        columns = ([getattr(part, name) for part in parts] for name in ("owner", "start", "end"))
        return cls(*map(np.concatenate, columns))


class OutlineTracer:
    """Takes rows of component numbers and gives the outline of each component after its last row.

    Args:
        width: Columns of the map.
        last_rows: (C,) int64, last row of each component.
        keep_corners_of_others: Whether outlines have points on straight lines where two other components meet. Their
            neighbours have corners there; what moves points needs them on both sides.
    """

    def __init__(self, width: int, last_rows: Numbers, keep_corners_of_others: bool = False) -> None:
        self._stride = width + 1
        self._last_rows = last_rows
        self._keep_corners_of_others = keep_corners_of_others
        self._above: PieceArray = np.full(width, NONE, np.int32)
        self._open_from: Numbers = np.zeros(width + 1, np.int64)
        self._pending: list[_Segments] = []
        self._row = 0

    def add(self, components: PieceArray) -> Iterator[Outlines]:
        """Take the next rows, (h, W) int32; -1 has no outline."""
        height = len(components)
        padded = np.full((height + 1, self._stride + 1), NONE, np.int32)
        padded[0, 1:-1], padded[1:, 1:-1] = self._above, components
        self._pending += self._segments(padded)
        self._above = components[-1].copy()
        self._row += height
        yield from self._finished()

    def finish(self) -> Iterator[Outlines]:
        """Outlines of all components that reach the last row."""
        yield from self.add(np.full((1, self._stride - 1), NONE, np.int32))

    def _segments(self, padded: PieceArray) -> list[_Segments]:
        """Segments that end on the lines above each row of ``padded`` but the first."""
        upright = padded[:, :-1] != padded[:, 1:]
        level = np.zeros((len(padded) - 1, self._stride + 1), bool)
        level[:, 1:-1] = padded[:-1, 1:-1] != padded[1:, 1:-1]
        up, down, west, east = upright[:-1], upright[1:], level[:, :-1], level[:, 1:]
        corner = (up | down) & (west | east) | (up != down) | (west != east)
        return [self._level(padded, corner & west, corner & east), self._upright(padded, corner, upright)]

    def _level(self, padded: PieceArray, ends: BoolArray, begins: BoolArray) -> _Segments:
        """Segments along a line: to the right for the component below, to the left for the one above."""
        lines, cols = np.nonzero(begins)
        sides = padded[lines + 1, cols + 1], padded[lines, cols + 1]
        first = (lines + self._row) * self._stride + cols
        lines, cols = np.nonzero(ends)
        return _Segments.both_sides(sides, (first, (lines + self._row) * self._stride + cols))

    def _upright(self, padded: PieceArray, corner: BoolArray, upright: BoolArray) -> _Segments:
        """Segments from line to line: up for the component on the right, down for the one on the left."""
        cols, lines = np.nonzero(np.ascontiguousarray((corner & upright[1:]).T))
        begun = np.flatnonzero(upright[0])
        begin_cols = np.concatenate([begun, cols])
        begin_lines = np.concatenate([self._open_from[begun], lines + self._row])
        order = np.argsort(begin_cols, kind="stable")  # those that were open come first in their column
        begin_cols, begin_lines = begin_cols[order], begin_lines[order]
        is_last = np.append(begin_cols[1:] != begin_cols[:-1], True)[: len(begin_cols)]
        goes_on = is_last & upright[-1][begin_cols]
        self._open_from[begin_cols[goes_on]] = begin_lines[goes_on]
        cols, lines = np.nonzero(np.ascontiguousarray((corner & upright[:-1]).T))
        sides = padded[lines, cols + 1], padded[lines, cols]
        bottom = (lines + self._row) * self._stride + cols
        return _Segments.both_sides(sides, (bottom, begin_lines[~goes_on] * self._stride + cols))

    def _finished(self) -> Iterator[Outlines]:
        segments = _Segments.joined(self._pending)
        is_done = self._last_rows[segments.owner] + 1 < self._row
        self._pending = [segments.of(~is_done)]
        done = segments.of(is_done)
        del segments
        owners, number, counts = np.unique(done.owner, return_inverse=True, return_counts=True)
        batch = np.cumsum(counts) // MAX_SEGMENTS_AT_ONCE
        for index in np.unique(batch):
            part = done if batch[0] == batch[-1] else done.of(batch[number] == index)
            polygons = _polygons(part, self._stride, self._keep_corners_of_others)
            yield Outlines(owners[batch == index].astype(np.int64), polygons)


def _polygons(segments: _Segments, stride: int, keep_straight: bool) -> GeometryArray:
    """One polygon for each owner, in rising order of owners."""
    order, ring = _in_rings(_following(segments, stride))
    points, owner = segments.start[order], segments.owner[order]
    if not keep_straight:
        upright = _is_upright(segments, stride)[order]
        turns = upright != upright[_one_before(ring)]
        points, owner, ring = points[turns], owner[turns], ring[turns]
    return _assembled(np.stack([points % stride, points // stride], axis=1), ring, owner)


def _is_upright(segments: _Segments, stride: int) -> BoolArray:
    upright: BoolArray = (segments.end - segments.start) % stride == 0
    return upright


def _following(segments: _Segments, stride: int) -> Numbers:
    """(E,) index of the segment of the same owner that begins where each one ends.

    Where two corners of a component touch in a point, two segments end and two begin: then the outline turns left, so
    that what lies between the two corners is a hole of its own, or outside. Every ring then meets a point once.
    """
    forward, upright = segments.end > segments.start, _is_upright(segments, stride)
    points = int(max(segments.start.max(), segments.end.max())) + 1
    owner = np.unique(segments.owner, return_inverse=True)[1].astype(np.int64) * points
    # down meets right, up meets left; left meets down, right meets up.
    arriving = 2 * (owner + segments.end) + np.where(upright, ~forward, forward)
    leaving = 2 * (owner + segments.start) + ~forward
    following = np.empty(len(forward), np.int64)
    following[np.argsort(arriving)] = np.argsort(leaving)
    return following


def _in_rings(following: Numbers) -> tuple[Numbers, Numbers]:
    """The order of segments along their rings, and (E,) int64 the number of each one's ring in that order, rising."""
    head, further = np.arange(len(following)), following
    while True:
        lower = np.minimum(head, head[further])
        if np.array_equal(lower, head):
            break
        head, further = lower, further[further]
    is_last = head[following] == following
    to_go, further = (~is_last).astype(np.int64), np.where(is_last, np.arange(len(following)), following)
    while True:
        # Distances double in each round, as pointers do.
        more = to_go[further]
        if not more.any():
            break
        to_go, further = to_go + more, further[further]
    begins = np.flatnonzero(head == np.arange(len(head)))
    lengths = to_go[begins] + 1
    offset = np.zeros(len(head), np.int64)
    offset[begins] = np.cumsum(lengths) - lengths
    place = offset[head] + to_go[head] - to_go
    order = np.empty(len(head), np.int64)
    order[place] = np.arange(len(head))
    return order, np.repeat(np.arange(len(begins)), lengths)


def _one_before(ring: Numbers) -> Numbers:
    """(E,) index of the element before each one in its ring; ``ring`` are the rising numbers of their rings."""
    before = np.arange(-1, len(ring) - 1)
    starts = _starts(ring)
    before[starts] = np.append(starts[1:], len(ring)) - 1
    return before


def _starts(ring: Numbers) -> Numbers:
    return np.flatnonzero(np.append(True, ring[1:] != ring[:-1]))


def _assembled(xy: Numbers, ring: Numbers, owner: PieceArray) -> GeometryArray:
    """Polygons from rings: that which runs clockwise on the map is the outer one of its owner, all others are holes."""
    starts = _starts(ring)
    after = np.empty(len(xy), np.int64)
    after[_one_before(ring)] = np.arange(len(xy))
    doubled_area = np.add.reduceat(xy[:, 0] * xy[after, 1] - xy[after, 0] * xy[:, 1], starts)
    rings = shapely.linearrings(xy.astype(np.float64), indices=ring)
    order = np.lexsort((doubled_area < 0, owner[starts]))
    number = np.unique(owner[starts], return_inverse=True)[1]
    polygons: GeometryArray = shapely.polygons(rings[order], indices=number[order])
    return polygons
