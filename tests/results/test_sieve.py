"""Components and what happens to small ones, against scipy's labelling and plain loops."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from geoseg_cli.errors import StorageError, UsageError
from geoseg_cli.results import components as components_module
from geoseg_cli.results.components import LabelSource, component_strips, connected, find_components
from geoseg_cli.results.sieve import drop_small_objects, sieve

Labels = npt.NDArray[np.uint8]
NODATA = 255


def source_of(labels: Labels, strip_px: int) -> LabelSource:
    def strips() -> Iterator[tuple[int, Labels]]:
        for row in range(0, len(labels), strip_px):
            yield row, labels[row : row + strip_px]

    return strips


def assembled(source: LabelSource) -> Labels:
    strips = list(source())
    assert [row for row, _ in strips] == list(np.cumsum([0, *(len(part) for _, part in strips)])[:-1])
    return np.concatenate([part for _, part in strips])


@st.composite
def maps(draw: st.DrawFn) -> tuple[Labels, int]:
    """A small map with patches, and a strip height."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    patch = draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.array(draw(st.sampled_from([(0, 1), (1, 2, 255), (0, 10, 20, 255), (255,)])), np.uint8)
    coarse = np.random.default_rng(seed).choice(values, (height // patch + 1, width // patch + 1))
    labels = np.kron(coarse, np.ones((patch, patch), np.uint8)).astype(np.uint8)[:height, :width]
    if draw(st.booleans()):
        # Mostly one class, so that holes hold several others.
        labels[np.random.default_rng(seed + 1).random(labels.shape) < 0.6] = values[0]
    return labels, draw(st.integers(1, height))


def plain_components(labels: Labels) -> npt.NDArray[np.int64]:
    """Components numbered by their first pixels, from scipy's labelling of each class."""
    found = np.full(labels.shape, -1, np.int64)
    count = 0
    for value in np.unique(labels[labels != NODATA]):
        parts, number = ndimage.label(labels == value)
        found[parts > 0] = parts[parts > 0] - 1 + count
        count += number
    order: dict[int, int] = {}
    for one in found.ravel():
        if one >= 0:
            order.setdefault(int(one), len(order))
    return np.array([order.get(int(one), -1) for one in found.ravel()]).reshape(labels.shape)


def plain_sieve(labels: Labels, least: int, row_sizes: npt.NDArray[np.int64] | None = None) -> Labels:
    """The rule of ``merge_small``, one component at a time; pixels count 1 unless their rows say otherwise."""
    labels = labels.copy()
    weights = np.ones(len(labels), np.int64) if row_sizes is None else row_sizes
    while True:
        parts = plain_components(labels)
        sizes = {int(k): int(((parts == k).sum(axis=1) * weights).sum()) for k in np.unique(parts[parts >= 0])}
        touching: dict[int, set[int]] = {k: set() for k in sizes}
        for one, other in ((parts[1:], parts[:-1]), (parts[:, 1:], parts[:, :-1])):
            for a, b in zip(one.ravel(), other.ravel(), strict=True):
                if a != b and a >= 0 and b >= 0:
                    touching[int(a)].add(int(b))
                    touching[int(b)].add(int(a))
        rank = {k: (-sizes[k], k) for k in sizes}
        goal = {k: min(touching[k], key=rank.__getitem__) for k in sizes if sizes[k] < least and touching[k]}
        if not goal:
            return labels
        ends = {}
        for k in goal:
            seen = [k]
            while seen[-1] in goal and goal[seen[-1]] not in seen:
                seen.append(goal[seen[-1]])
            last = seen[-1]
            ends[k] = min(last, goal[last], key=rank.__getitem__) if last in goal else last
        old = {k: int(labels[parts == k][0]) for k in sizes}
        for k, end in ends.items():
            labels[parts == k] = old[end]


@given(maps())
def test_components_are_those_of_scipy_in_the_order_of_their_first_pixels(case: tuple[Labels, int]) -> None:
    labels, strip_px = case
    source = source_of(labels, strip_px)
    weights = np.arange(1, len(labels) + 1) ** 2
    components = find_components(source, NODATA, weights)
    numbers = np.concatenate([part for _, _, part in component_strips(source, NODATA, components)])
    expected = plain_components(labels)
    assert np.array_equal(numbers, expected)
    for k in range(expected.max() + 1):
        mine = expected == k
        assert components.values[k] == labels[mine][0]
        assert components.pixels[k] == mine.sum()
        assert components.sizes[k] == (mine.sum(axis=1) * weights).sum()
        assert components.last_rows[k] == np.flatnonzero(mine.any(axis=1))[-1]
    assert len(components.values) == expected.max() + 1


@given(maps())
def test_neighbours_are_all_pairs_that_share_an_edge(case: tuple[Labels, int]) -> None:
    labels, strip_px = case
    components = find_components(source_of(labels, strip_px), NODATA, np.ones(len(labels), np.int64), labels.size + 1)
    parts = plain_components(labels)
    expected = {
        (min(a, b), max(a, b))
        for one, other in ((parts[1:], parts[:-1]), (parts[:, 1:], parts[:, :-1]))
        for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)
        if a != b and min(a, b) >= 0
    }
    assert [tuple(pair) for pair in components.neighbours.tolist()] == sorted(expected)


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_connected_finds_the_lowest_node_of_each_part(count: int, edges: list[tuple[int, int]]) -> None:
    edges = [(a % count, b % count) for a, b in edges]
    reach = np.eye(count, dtype=bool)
    for a, b in edges:
        reach[a, b] = reach[b, a] = True
    for _ in range(count):
        reach = reach @ reach
    one, other = (np.array([edge[k] for edge in edges], np.int64) for k in (0, 1))
    assert np.array_equal(connected(count, one, other), reach.argmax(axis=1))


@given(maps(), st.integers(0, 12))
def test_the_sieve_follows_its_rule_whatever_the_strips(case: tuple[Labels, int], least: int) -> None:
    labels, strip_px = case
    found = assembled(sieve(source_of(labels, strip_px), len(labels), NODATA, least))
    assert np.array_equal(found, plain_sieve(labels, least))


@given(maps(), st.integers(2, 12))
def test_after_the_sieve_small_components_touch_nothing_but_nodata(case: tuple[Labels, int], least: int) -> None:
    labels, strip_px = case
    found = assembled(sieve(source_of(labels, strip_px), len(labels), NODATA, least))
    assert np.array_equal(found == NODATA, labels == NODATA)
    parts = plain_components(found)
    for k in range(parts.max() + 1):
        mine = parts == k
        around = ndimage.binary_dilation(mine) & ~mine
        assert mine.sum() >= least or (found[around] == NODATA).all()


def test_a_component_that_winds_through_many_strips_is_one() -> None:
    labels = np.zeros((41, 41), np.uint8)
    labels[::2] = 1
    labels[1::4, -1] = 1
    labels[3::4, 0] = 1
    components = find_components(source_of(labels, 1), NODATA, np.ones(41, np.int64))
    assert components.pixels.max() == (labels == 1).sum()


@given(maps(), st.integers(0, 12))
def test_small_objects_are_counted_over_all_their_classes(case: tuple[Labels, int], least: int) -> None:
    labels, strip_px = case
    classes, clear = (1, 10, 20), 0
    found = assembled(drop_small_objects(source_of(labels, strip_px), len(labels), NODATA, classes, least, clear))
    parts, _ = ndimage.label(np.isin(labels, classes))
    sizes = np.bincount(parts.ravel())
    expected = np.where((parts > 0) & (sizes[parts] < least), clear, labels)
    assert np.array_equal(found, expected)


def test_a_map_that_changes_between_the_passes_is_noticed() -> None:
    calm, noisy = np.zeros((8, 8), np.uint8), np.indices((8, 8)).sum(axis=0).astype(np.uint8) % 2
    components = find_components(source_of(calm, 3), NODATA, np.ones(8, np.int64))
    with pytest.raises(StorageError, match="changed"):
        list(component_strips(source_of(noisy, 3), NODATA, components))
    components = find_components(source_of(noisy, 3), NODATA, np.ones(8, np.int64))
    with pytest.raises(StorageError, match="changed"):
        list(component_strips(source_of(calm, 3), NODATA, components))


@pytest.mark.parametrize("below", [0, 5])
def test_more_parts_than_memory_holds_are_refused(monkeypatch: pytest.MonkeyPatch, below: int) -> None:
    noisy = np.indices((8, 8)).sum(axis=0).astype(np.uint8) % 2
    monkeypatch.setattr(components_module, "free_memory_bytes", lambda: 10_000)
    with pytest.raises(UsageError, match="too many parts"):
        find_components(source_of(noisy, 3), NODATA, np.ones(8, np.int64), below)
    monkeypatch.setattr(components_module, "free_memory_bytes", lambda: None)
    assert len(find_components(source_of(noisy, 3), NODATA, np.ones(8, np.int64), below).values) == 64
