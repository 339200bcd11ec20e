"""The most frequent class of a pixel, its ties, and the count of what was seen."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.composite.votes import MOST_MAPS, Votes, ranks_of
from tests.composite.stacks import Observation, Pixels, counted_by_hand

CLASSES = (10, 20, 30, 100)


def counted(stack: list[Observation], least: int = 1, votes: Votes | None = None) -> tuple[Pixels, Pixels]:
    pixels = stack[0].labels.size
    votes = votes or Votes(CLASSES, pixels)
    votes.begin(pixels)
    moments = [None if one.day is None else f"2024-03-{one.day:02}" for one in stack]
    for rank, one in sorted(zip(ranks_of(moments), stack, strict=True), key=lambda pair: pair[0]):
        votes.add(one.labels.ravel(), rank, None if one.confidence is None else one.confidence.ravel())
    labels, counts = votes.result(least, 255, 254)
    return labels.reshape(stack[0].labels.shape), counts.reshape(stack[0].labels.shape)


@st.composite
def stacks(draw: st.DrawFn) -> list[Observation]:
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    is_weighed = draw(st.booleans())

    def plane(values: st.SearchStrategy[int]) -> Pixels:
        size = shape[0] * shape[1]
        return np.array(draw(st.lists(values, min_size=size, max_size=size)), np.uint8).reshape(shape)

    return [
        Observation(
            plane(st.sampled_from([*CLASSES, 255, 1])),
            draw(st.none() | st.integers(1, 4)),
            plane(st.sampled_from([0, 1, 2, 250, 255])) if is_weighed else None,
        )
        for _ in range(draw(st.integers(1, 7)))
    ]


@given(stacks(), st.integers(1, 4))
def test_every_pixel_has_the_class_and_the_count_that_loops_over_pixels_find(stack: list[Observation], n: int) -> None:
    labels, counts = counted(stack, n)
    assert (labels.tolist(), counts.tolist()) == counted_by_hand(stack, CLASSES, n)


@given(stacks(), st.randoms(use_true_random=False))
def test_the_order_of_the_maps_changes_nothing(stack: list[Observation], shuffler: random.Random) -> None:
    shuffled = list(stack)
    shuffler.shuffle(shuffled)
    for one, other in zip(counted(stack), counted(shuffled), strict=True):
        np.testing.assert_array_equal(one, other)


@given(stacks(), stacks())
def test_a_window_remembers_nothing_of_the_one_before(one: list[Observation], other: list[Observation]) -> None:
    votes = Votes(CLASSES, 16)
    counted(one, votes=votes)
    for again, alone in zip(counted(other, votes=votes), counted(other), strict=True):
        np.testing.assert_array_equal(again, alone)


def test_the_largest_sums_that_are_allowed_do_not_run_into_each_other() -> None:
    """All votes of one class but one, each with the greatest weight: set as sums, not added one by one."""
    votes = Votes((1, 2), 1)
    votes.begin(1)
    votes.add(np.array([2], np.uint8), 1, np.array([250], np.uint8))
    votes.add(np.array([1], np.uint8), MOST_MAPS, np.array([250], np.uint8))
    votes._scores[0] *= np.uint64(MOST_MAPS - 1)
    labels, counts = votes.result(1, 255, 254)
    assert (labels[0], counts[0]) == (1, 254)
    assert int(votes._scores[0]) << 18 < 2**64


@pytest.mark.parametrize(("days", "expected"), [((3, 9), 20), ((9, 3), 10), ((3, 3), 10), ((None, 1), 20)])
def test_of_equally_frequent_classes_the_last_seen_wins_then_the_smaller(
    days: tuple[int | None, int], expected: int
) -> None:
    stack = [Observation(np.array([[value]], np.uint8), day) for value, day in zip((10, 20), days, strict=True)]
    assert counted(stack)[0][0, 0] == expected
