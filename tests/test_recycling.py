"""Memory that is used again: never while anybody looks at it, and no more of it than was in use."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.recycling import LARGE_BYTES, MOST_WASTE, Recycler

LARGE = LARGE_BYTES // 4
"""Numbers of float32 in the smallest array that is kept."""


def address(array: npt.NDArray[Any]) -> int:
    return int(array.ctypes.data)


def test_memory_of_a_freed_array_is_given_out_again() -> None:
    recycler = Recycler()
    with recycler.run():
        first = recycler.empty((2, LARGE), np.float32)
        place = address(first)
        del first
        assert address(recycler.empty((LARGE, 2), np.float32)) == place


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "f4", "f8"])
def test_arrays_are_of_the_shape_and_type_that_was_asked_for(dtype: str) -> None:
    recycler = Recycler()
    with recycler.run():
        array = recycler.empty((3, LARGE_BYTES), dtype)
        array[...] = 7
    assert array.shape == (3, LARGE_BYTES)
    assert array.dtype == np.dtype(dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert (array == 7).all()


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[1:],
        lambda array: array.reshape(-1)[::2],
        lambda array: array.view(np.uint8),
        lambda array: np.flip(array.T),
        lambda array: np.require(array, np.float32, ["C", "W"]),
        lambda array: memoryview(array),
    ],
    ids=["part", "strided", "other type", "turned", "required", "buffer"],
)
def test_memory_is_not_given_out_while_a_view_of_it_lives(view: Any) -> None:
    recycler = Recycler()
    with recycler.run():
        array = recycler.empty((2, LARGE), np.float32)
        array[...] = np.arange(LARGE)
        seen = view(array)
        before = np.array(seen)
        del array
        gc.collect()
        recycler.empty((2, LARGE), np.float32)[...] = -1
        np.testing.assert_array_equal(np.asarray(seen), before)


def test_a_tensor_keeps_the_memory_that_it_looks_at() -> None:
    torch = pytest.importorskip("torch")
    recycler = Recycler()
    with recycler.run():
        tensor = torch.from_numpy(recycler.empty((LARGE,), np.float32)).fill_(1)
        recycler.empty((LARGE,), np.float32)[...] = 2
        assert bool((tensor == 1).all())


def test_small_arrays_and_those_outside_of_a_run_are_numpys_own() -> None:
    recycler = Recycler()
    assert recycler.empty((LARGE,), np.float32).flags.owndata
    with recycler.run():
        assert recycler.empty((LARGE - 1,), np.float32).flags.owndata
        assert not recycler.empty((LARGE,), np.float32).flags.owndata


def test_nothing_is_kept_after_the_last_run_not_even_what_is_freed_later() -> None:
    recycler = Recycler()
    with recycler.run():
        with recycler.run():
            array = recycler.empty((LARGE,), np.float32)
            recycler.empty((LARGE,), np.float32)
        assert recycler.free_bytes == LARGE_BYTES
    assert recycler.free_bytes == 0
    del array
    assert recycler.free_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([1, 1.2, 1.5, 2, 3.7])), min_size=1, max_size=40))
def test_no_more_is_held_than_was_in_use_at_once(steps: list[tuple[int, float]]) -> None:
    recycler, held, most = Recycler(), {}, 0
    with recycler.run():
        for place, times in steps:
            held.pop(place, None)
            held[place] = recycler.empty((int(LARGE_BYTES * times),), np.uint8)
            in_use = sum(array.nbytes for array in held.values())
            most = max(most, in_use)
            assert in_use + recycler.free_bytes <= MOST_WASTE * most


def test_threads_never_get_the_same_memory() -> None:
    recycler, torn = Recycler(), []

    def work(number: int) -> None:
        for _ in range(300):
            array = recycler.empty((LARGE_BYTES + number % 3,), np.uint8)
            array[::4096] = number
            if (array[::4096] != number).any():
                torn.append(number)

    with recycler.run():
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not torn
