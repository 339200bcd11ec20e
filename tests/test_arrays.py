"""One code for two array modules: tensors hold what numpy's arrays hold."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
import torch

from geoseg_cli.arrays import NUMPY, Arrays

TORCH = Arrays(torch)
BOTH = pytest.mark.parametrize("arrays", [NUMPY, TORCH], ids=["numpy", "torch"])
NUMBERS = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)


@BOTH
@pytest.mark.parametrize(
    "numbers",
    [
        NUMBERS,
        NUMBERS[:, ::-1, ::-1],
        NUMBERS.swapaxes(1, 2),
        NUMBERS[..., 1:3],
        NUMBERS.astype(">u2"),
        NUMBERS > 5,
        NUMBERS[:1, :1, :1][:, ::-1, ::-1],
    ],
    ids=["plain", "turned", "swapped", "cut", "big-endian", "bool", "one turned"],
)
def test_what_is_put_comes_back(arrays: Arrays, numbers: npt.NDArray[np.generic]) -> None:
    fetched = arrays.fetch(arrays.put(numbers))
    np.testing.assert_array_equal(fetched, numbers)
    assert fetched.dtype == numbers.dtype.newbyteorder("=") or arrays is NUMPY


def test_pixels_that_may_not_be_written_become_a_tensor_without_a_warning() -> None:
    numbers = NUMBERS.copy()
    numbers.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TORCH.put(numbers)[0, 0, 0] = 7
    assert numbers[0, 0, 0] == 0


@BOTH
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"]
)
def test_any_number_becomes_the_float32_that_is_nearest_to_it(arrays: Arrays, dtype: str) -> None:
    is_float = dtype.startswith("float")
    limits = np.finfo(dtype) if is_float else np.iinfo(dtype)
    numbers = np.array([limits.min, 0, 1, 100, limits.max // 3, limits.max], dtype)
    with np.errstate(over="ignore"):
        found, right = arrays.fetch(arrays.as_float32(arrays.put(numbers))), numbers.astype(np.float32)
    assert found.dtype == np.float32
    assert found.tobytes() == right.tobytes()


@BOTH
def test_a_copy_shares_no_memory(arrays: Arrays) -> None:
    held = arrays.put(NUMBERS.astype(np.float32))
    copied = arrays.copy(held[:, 1:])
    held[...] = 0
    np.testing.assert_array_equal(arrays.fetch(copied), NUMBERS[:, 1:])


@BOTH
def test_blanks_are_zero_whatever_was_there(arrays: Arrays) -> None:
    numbers = np.array([[np.nan, 1], [np.inf, 2]], np.float32)
    held = arrays.put(np.stack([numbers, numbers]))
    arrays.blank(held[1], arrays.put(np.array([[True, False], [True, True]])))
    np.testing.assert_array_equal(arrays.fetch(held), [numbers, [[0, 1], [0, 0]]])


@BOTH
@pytest.mark.parametrize("axes", [(), (-1,), (-2, -1), (0, 2)])
def test_axes_are_turned_round(arrays: Arrays, axes: tuple[int, ...]) -> None:
    turned = arrays.flip(arrays.put(NUMBERS.astype(np.int32)), axes)
    np.testing.assert_array_equal(arrays.fetch(turned), np.flip(NUMBERS, axes))


@BOTH
def test_parts_are_joined_and_one_alone_is_not_copied(arrays: Arrays) -> None:
    parts = [arrays.put(NUMBERS.astype(np.float32)[:, row : row + 1]) for row in range(3)]
    np.testing.assert_array_equal(arrays.fetch(arrays.join(parts, -2)), NUMBERS)
    assert arrays.join(parts[:1], -2) is parts[0]


def test_numbers_are_side_by_side_once_compact() -> None:
    swapped = NUMBERS.astype(np.float32).swapaxes(1, 2)
    assert NUMPY.compact(swapped).flags.c_contiguous
    assert TORCH.compact(TORCH.put(NUMBERS.astype(np.float32)).swapaxes(1, 2)).is_contiguous()
    np.testing.assert_array_equal(NUMPY.compact(swapped), swapped)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "bool"])
def test_a_device_gets_the_numbers_from_pinned_memory_and_gives_them_back(dtype: str) -> None:
    arrays = Arrays(torch, "cuda:0")
    numbers = np.arange(3 * 700 * 900).reshape(3, 700, 900).astype(dtype)
    there = arrays.put(numbers[:, ::-1])
    assert there.device == torch.device("cuda:0")
    np.testing.assert_array_equal(arrays.fetch(there), numbers[:, ::-1])


@pytest.mark.gpu
def test_what_a_device_made_beside_its_work_is_whole_and_stays_whole() -> None:
    """Much is made and dropped again while slow work that uses it is still to be done."""
    arrays = Arrays(torch, "cuda:0")
    slow, sums = torch.ones(4096, 4096, device="cuda:0"), []
    for number in range(40):
        slow = slow @ slow / 4096
        with arrays.beside():
            made = arrays.hand_over(arrays.put(np.full((64, 1024, 16), number, np.float32)) + 1)
        sums.append(made.mean() + 0 * slow[0, 0])
        del made
    assert [float(one) for one in sums] == pytest.approx([number + 1 for number in range(40)])


def test_beside_is_nothing_where_there_is_no_device() -> None:
    for arrays in (Arrays(), Arrays(torch, "cpu")):
        with arrays.beside():
            numbers = arrays.hand_over(arrays.put(np.arange(5)))
        assert numbers.tolist() == [0, 1, 2, 3, 4]
