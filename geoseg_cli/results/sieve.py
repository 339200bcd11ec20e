"""Small components of a class map take over the class around them; whole components, exact whatever the strips are.

Two passes over the map: the first finds the components and who touches whom, the second writes. Memory is O(strip +
components).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from geoseg_cli.results.components import (
    Components,
    LabelSource,
    Numbers,
    Strip,
    component_strips,
    connected,
    find_components,
    pointed_at,
)
from geoseg_cli.rows import is_one_of

BoolArray = npt.NDArray[np.bool_]


def sieve(source: LabelSource, height: int, nodata: int, min_px: int) -> LabelSource:
    """Let components of fewer than ``min_px`` pixels take the class of their largest neighbour.

    See ``merge_small`` for the rule. Pixels without a class stay so.

    Args:
        source: The map.
        height: Its rows.
        nodata: Label of pixels without a class.
        min_px: Components from this size on stay as they are.

    Returns:
        The cleaned map; each call makes two passes over the source.
    """

    def cleaned() -> Iterator[Strip]:
        components = find_components(source, nodata, np.ones(height, np.int64), min_px)
        merged = merge_small(components, min_px)
        values = np.append(merged.values, merged.values.dtype.type(nodata))  # NONE finds the last one
        for row, _, numbers in component_strips(source, nodata, merged):
            yield row, values[numbers]

    return cleaned


def merge_small(components: Components, least: int) -> Components:
    """Merge components that are too small into their largest neighbours.

    In each round every component smaller than ``least`` points to the largest component that it touches, of equal
    ones to that whose first pixel comes first; all that point to one another become one component with the class of
    the largest. Rounds go on until no small component touches another one; those amid pixels without a class stay.

    Args:
        components: With the neighbours of all components smaller than ``least``.
        least: Smallest size that stays, in the unit of ``Components.sizes``.
    """
    while True:
        small = components.sizes < least
        one, other = components.neighbours.T
        has_small = small[one] | small[other]
        one, other = one[has_small], other[has_small]
        if not len(one):
            return components
        head = pointed_at(_largest_neighbours(components, small, one, other))
        values = components.values[head]
        alike = values[one] == values[other]
        number = np.arange(len(head))
        ends = np.concatenate([number, one[alike]]), np.concatenate([head, other[alike]])
        components = components.joined(connected(len(head), *ends), values)


def drop_small_objects(
    source: LabelSource, height: int, nodata: int, classes: Iterable[int], min_px: int, replacement: int
) -> LabelSource:
    """Replace objects of fewer than ``min_px`` pixels.

    An object is a connected part of all pixels of some classes together, such as thick and thin cloud.

    Args:
        source: The map.
        height: Its rows.
        nodata: Label of pixels without a class; they stay so and belong to no object.
        classes: Labels that objects consist of.
        min_px: Objects from this size on stay as they are.
        replacement: Label that smaller ones get, such as that of clear ground.

    Returns:
        The cleaned map; each call makes two passes over the source.
    """
    of_objects = [value for value in classes if value != nodata]

    def objects() -> Iterator[Strip]:
        for row, labels in source():
            yield row, is_one_of(labels, of_objects).view(np.uint8)

    def cleaned() -> Iterator[Strip]:
        components = find_components(objects, 0, np.ones(height, np.int64))
        is_small = np.append(components.sizes < min_px, False)
        for (row, _, numbers), (_, labels) in zip(component_strips(objects, 0, components), source(), strict=True):
            yield row, np.where(is_small[numbers], labels.dtype.type(replacement), labels)

    return cleaned


def _largest_neighbours(components: Components, small: BoolArray, one: Numbers, other: Numbers) -> Numbers:
    """(C,) where each component goes: small ones to their largest neighbour, all others to themselves."""
    size = components.sizes
    origin, target = np.concatenate([one, other]), np.concatenate([other, one])
    chosen = np.lexsort((-target, size[target], origin))  # the last of each origin is the best
    origin, target = origin[chosen], target[chosen]
    last = np.flatnonzero(np.append(origin[1:] != origin[:-1], True))
    goal = np.arange(len(size))
    goal[origin[last]] = np.where(small[origin[last]], target[last], origin[last])
    # Two small ones may point to each other: the larger one stays, of equal ones the first.
    back = goal[goal] == np.arange(len(size))
    stays = back & ((size > size[goal]) | ((size == size[goal]) & (np.arange(len(size)) <= goal)))
    return np.where(stays, np.arange(len(size)), goal)
