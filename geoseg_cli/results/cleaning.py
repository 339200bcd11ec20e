"""Filters of a class map that look at a pixel's surroundings, strip by strip, exact whatever the strips are.

Each takes a source of strips and gives one; so do those of ``sieve``. They can be put one behind the other. Memory is
O(strip + window). Axes: H rows, W columns, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import Legend
from geoseg_cli.errors import UsageError
from geoseg_cli.results.components import LabelSource, Strip
from geoseg_cli.rows import LabelArray, Rows, is_one_of

Counts = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]

MAX_WINDOW_PX = 255
"""Widest window of the majority filter; its counts fit int32 many times over, its rows must fit memory."""
MAX_DILATION_PX = 254
"""Farthest dilation; distances are kept as uint8."""


def majority(source: LabelSource, nodata: int, classes: Sequence[int], window_px: int) -> LabelSource:
    """Give every pixel the class that is most frequent in the square window around it.

    Pixels without a class do not count and stay as they are; beyond the map's edge there is nothing. Of equally
    frequent classes a pixel keeps its own if it is among them, and gets the lowest value if not.

    Args:
        source: The map.
        nodata: Label of pixels without a class.
        classes: Labels that the map can hold.
        window_px: Side of the window, odd.

    Raises:
        UsageError: The window has no middle pixel, or is too wide.
    """
    if not (1 <= window_px <= MAX_WINDOW_PX and window_px % 2):
        raise UsageError(
            f"a majority window of {window_px} px cannot be used", f"use an odd number from 1 to {MAX_WINDOW_PX}"
        )
    reach = window_px // 2
    values = sorted(set(classes) - {nodata})

    def cleaned() -> Iterator[Strip]:
        for row, labels in _with_surroundings(source(), reach, nodata):
            yield row, _most_frequent(labels, values, reach, nodata)

    return cleaned


def dilate(source: LabelSource, nodata: int, classes: Sequence[int], px: int) -> LabelSource:
    """Let classes grow into their surroundings: every other pixel whose centre is within ``px`` of theirs joins them.

    The distance is Euclidean, between centres of pixels. Only pixels of other classes change: neither those without a
    class nor those of ``classes`` themselves. Where several classes are near enough the first of ``classes`` wins.

    Args:
        source: The map.
        nodata: Label of pixels without a class.
        classes: Labels that grow, the most important first.
        px: How far, in pixels.

    Raises:
        UsageError: The distance is negative or too large.
    """
    if not 0 <= px <= MAX_DILATION_PX:
        raise UsageError(f"a dilation of {px} px cannot be used", f"use a number from 0 to {MAX_DILATION_PX}")
    fixed = [nodata, *classes]

    def cleaned() -> Iterator[Strip]:
        for row, labels in _with_surroundings(source(), px, nodata):
            inner = labels[px : len(labels) - px]
            result, free = inner.copy(), ~is_one_of(inner, fixed)
            for value in classes:
                near = _within(labels == value, px) & free
                result[near] = value
                free &= ~near
            yield row, result

    return cleaned


def recode(source: LabelSource, table: Mapping[int, int], nodata: int) -> LabelSource:
    """Replace every label by another one.

    Args:
        source: The map.
        table: Label to label, both up to 255; others become ``nodata``, as ``nodata`` itself does.
        nodata: Label of pixels without a class.
    """
    lookup = np.full(256, nodata, np.uint8)
    for old, new in table.items():
        lookup[old] = new
    lookup[nodata] = nodata

    def cleaned() -> Iterator[Strip]:
        for row, labels in source():
            yield row, lookup[labels]

    return cleaned


def thresholded(finished: Iterator[Rows], legend: Legend, classes: Sequence[int], threshold: float) -> Iterator[Rows]:
    """Decide between two groups of classes by their summed probability, then for a class within the group.

    A pixel belongs to ``classes`` where their probabilities sum to ``threshold`` or more, and gets the most probable
    of them; elsewhere the most probable of all other classes, of equal ones the first. The confidence becomes the
    probability of the class that was chosen.

    Args:
        finished: Rows with the probabilities of all classes.
        legend: What each probability belongs to.
        classes: Labels of the group, such as thick and thin cloud.
        threshold: Above 0, up to 1.

    Raises:
        UsageError: The threshold is no such number, or the group is empty or everything.
    """
    inside = np.isin(legend.values, list(classes))
    if not 0 < threshold <= 1:
        raise UsageError(f"a threshold of {threshold:g} cannot be used", "use a probability above 0, up to 1")
    if inside.all() or not inside.any():
        raise UsageError(
            f"a threshold needs classes on both sides; {legend.name} has {', '.join(map(str, legend.values))}",
            "name some of its classes, but not all",
        )
    return (_decided(rows, legend, inside, threshold) for rows in finished)


def _decided(rows: Rows, legend: Legend, inside: BoolArray, threshold: float) -> Rows:
    assert rows.probabilities is not None, "rows without probabilities cannot be thresholded"
    # The tolerance is that of float32 sums: 0.3 + 0.2 must reach 0.5.
    is_in = rows.probabilities[inside].sum(axis=0) >= np.float32(threshold - 1e-6)
    candidates = [np.flatnonzero(inside), np.flatnonzero(~inside)]
    chosen = [group[rows.probabilities[group].argmax(axis=0)] for group in candidates]
    index = np.where(is_in, *chosen)
    labels: LabelArray = np.asarray(legend.values, legend.dtype)[index]
    confidence = np.take_along_axis(rows.probabilities, index[None], axis=0)[0]
    return replace(
        rows,
        labels=np.where(rows.valid, labels, labels.dtype.type(legend.nodata)),
        confidence=np.where(rows.valid, confidence, np.float32(0)),
    )


def _with_surroundings(strips: Iterator[Strip], reach: int, nodata: int) -> Iterator[Strip]:
    """Strips with ``reach`` more rows above and below, ``nodata`` beyond the map; the row is the middle part's."""
    held: LabelArray | None = None
    row = 0
    for _, labels in strips:
        if held is None:
            held = np.full((reach, labels.shape[1]), nodata, labels.dtype)
        held = np.concatenate([held, labels])
        ready = len(held) - 2 * reach
        if ready > 0:
            yield row, held
            held, row = held[ready:], row + ready
    if held is not None:
        held = np.concatenate([held, np.full((reach, held.shape[1]), nodata, held.dtype)])
        if len(held) > 2 * reach:
            yield row, held


def _most_frequent(labels: LabelArray, values: Sequence[int], reach: int, nodata: int) -> LabelArray:
    """(h + 2 reach, W) labels -> (h, W) most frequent one of each window."""
    inner = labels[reach : len(labels) - reach]
    best, most = inner.copy(), np.zeros(inner.shape, np.int32)
    own = np.zeros(inner.shape, np.int32)
    for value in values:
        count = _in_window(labels == value, reach)
        np.copyto(own, count, where=inner == value)
        more = count > most
        np.copyto(best, best.dtype.type(value), where=more)
        np.copyto(most, count, where=more)
    np.copyto(best, inner, where=(own == most) | (inner == nodata))
    return best


def _in_window(mask: BoolArray, reach: int) -> Counts:
    """(h + 2 reach, W) -> (h, W) int32, pixels of the mask in the square window around each pixel."""
    return _summed_over(_summed_over(np.pad(mask, ((0, 0), (reach, reach))), reach).T, reach).T


def _summed_over(values: npt.NDArray[np.generic], reach: int) -> Counts:
    """(n, m + 2 reach) -> (n, m) int32 sums of 2 reach + 1 neighbours along the last axis."""
    sums = np.cumsum(values, axis=1, dtype=np.int32)
    window = sums[:, 2 * reach :].copy()
    window[:, 1:] -= sums[:, : -2 * reach - 1]
    return window


def _within(mask: BoolArray, px: int) -> BoolArray:
    """(h + 2 px, W) -> (h, W) bool, where the mask has a pixel within a Euclidean distance of ``px``."""
    height = len(mask) - 2 * px
    near = np.zeros((height, mask.shape[1]), bool)
    if not mask.any():
        return near
    sideways = _sideways(mask, px)
    for down in range(-px, px + 1):
        near |= sideways[px + down : px + down + height] <= math.isqrt(px * px - down * down)
    return near


def _sideways(mask: BoolArray, px: int) -> npt.NDArray[np.uint8]:
    """(h, W) uint8 distance to the nearest pixel of the mask in the same row; ``px`` + 1 for all that are farther."""
    cols = np.arange(mask.shape[1], dtype=np.int32)
    far = np.int32(px + 1)
    left = np.maximum.accumulate(np.where(mask, cols, -far), axis=1)
    distance = np.minimum(cols - left, far)
    right = np.minimum.accumulate(np.where(mask, cols, cols[-1] + far)[:, ::-1], axis=1)[:, ::-1]
    return np.minimum(distance, right - cols).astype(np.uint8)
