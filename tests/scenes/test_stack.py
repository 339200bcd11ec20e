"""Stacks: bands of many files and pixel sizes, the same in every window as in the whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg_cli.errors import GridError, InputError, InputMissingError, StorageError
from geoseg_cli.grid import Window
from geoseg_cli.scenes.parts import Validity
from geoseg_cli.scenes.product import Layer, Product, Quality
from geoseg_cli.scenes.stack import Stack, open_stack
from tests.conftest import TEN_METRES, write_scene

HEIGHT, WIDTH = 36, 48
"""Of the 10 m bands; both are multiples of 60 m."""


def scaled(size_m: int) -> Any:
    return TEN_METRES @ Affine.scale(size_m / 10)


def numbers(size_m: int, count: int = 1, seed: int = 0) -> np.ndarray[Any, Any]:
    shape = (count, HEIGHT * 10 // size_m, WIDTH * 10 // size_m)
    return np.random.default_rng(size_m + seed).integers(1, 60000, shape, dtype=np.uint16)


def product(*layers: Layer, quality: Quality | None = None) -> Product:
    return Product("test", Path("/scene"), layers, quality=quality)


def write(folder: Path, name: str, pixels: np.ndarray[Any, Any], size_m: int = 10, **profile: Any) -> str:
    profile = {"transform": scaled(size_m), **profile}
    return str(write_scene(folder / f"{name}.tif", pixels, **profile))


def ours(pixels: np.ndarray[Any, Any], size_m: int, grid_m: int) -> np.ndarray[Any, Any]:
    """A band of one pixel size on a grid of another: repeated, or averaged block by block in float64."""
    if size_m >= grid_m:
        times = size_m // grid_m
        return np.repeat(np.repeat(pixels, times, axis=-2), times, axis=-1)
    side = grid_m // size_m
    high, wide = (length // side for length in pixels.shape[-2:])
    total = np.zeros((*pixels.shape[:-2], high, wide))
    for row in range(side):
        for col in range(side):
            total += pixels[..., row::side, col::side]
    return total / side**2


@dataclass
class Mixed:
    """A stack of 10, 20 and 60 m bands on one of their grids, and the whole that it should give."""

    stack: Stack
    whole: np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: Any) -> Iterator[dict[int, Mixed]]:
    """By the pixel size of the grid."""
    folder = tmp_path_factory.mktemp("mixed")
    sizes = (60, 10, 20)
    layers = [Layer("", write(folder, f"b{size}", numbers(size), size, compress="deflate")) for size in sizes]
    made = {}
    for grid_m in sizes:
        stack = open_stack(product(*layers), (1, 2, 3), grid_m)
        made[grid_m] = Mixed(stack, np.concatenate([ours(numbers(size), size, grid_m) for size in sizes]))
    yield made
    for one in made.values():
        one.stack.close()


@st.composite
def windows(draw: st.DrawFn, height: int, width: int) -> Window:
    row, col = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return Window(row, col, draw(st.integers(1, height - row)), draw(st.integers(1, width - col)))


@pytest.mark.parametrize("grid_m", [10, 20, 60])
@given(data=st.data())
@settings(max_examples=60)
def test_every_window_is_a_part_of_the_whole(mixed: dict[int, Mixed], grid_m: int, data: Any) -> None:
    one = mixed[grid_m]
    window = data.draw(windows(one.stack.grid.height, one.stack.grid.width))
    pixels, valid = one.stack.read(window)
    np.testing.assert_allclose(pixels, one.whole[:, window.rows, window.cols], rtol=1e-6)
    assert valid.all()
    assert valid.shape == (window.height, window.width)


def test_repeated_numbers_are_exact_and_keep_their_type(mixed: dict[int, Mixed]) -> None:
    pixels, _ = mixed[10].stack.read(mixed[10].stack.grid.window)
    np.testing.assert_array_equal(pixels, mixed[10].whole)
    assert pixels.dtype == np.uint16


@pytest.mark.parametrize("grid_m", [10, 20, 60])
def test_the_band_nearest_to_the_model_gives_the_grid(mixed: dict[int, Mixed], grid_m: int) -> None:
    assert mixed[grid_m].stack.grid.transform == scaled(grid_m)


def test_many_threads_read_the_right_windows(mixed: dict[int, Mixed]) -> None:
    one = mixed[20]
    asked = [Window(row, col, 3, 5) for row in range(0, 15, 2) for col in range(0, 19, 3)] * 3
    with ThreadPoolExecutor(8) as pool:
        for window, (pixels, _) in zip(asked, pool.map(one.stack.read, asked), strict=True):
            np.testing.assert_allclose(pixels, one.whole[:, window.rows, window.cols], rtol=1e-6)


@given(order=st.permutations(range(1, 6)), split=st.integers(0, 5))
@settings(max_examples=30)
def test_bands_come_in_the_order_that_was_asked_for(tmp_path_factory: Any, order: Sequence[int], split: int) -> None:
    pixels = numbers(10, 5)
    folder = tmp_path_factory.mktemp("order")
    files = [write(folder, "one", pixels), write(folder, "two", pixels)]
    layers = [Layer("", files[number > split], number=number) for number in range(1, 6)]
    stack = open_stack(product(*layers), order, 10.0)
    try:
        found, _ = stack.read(Window(3, 4, 9, 7))
    finally:
        stack.close()
        shutil.rmtree(folder)
    np.testing.assert_array_equal(found, pixels[[number - 1 for number in order], 3:12, 4:11])


def test_bands_of_different_types_become_float32(tmp_path: Path) -> None:
    whole, real = numbers(10), numbers(10, seed=1).astype(np.float32) / 7
    layers = [Layer("", write(tmp_path, "whole", whole)), Layer("", write(tmp_path, "real", real))]
    stack = open_stack(product(*layers), (2, 1), 10.0)
    pixels, _ = stack.read(stack.grid.window)
    stack.close()
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, [real[0], whole[0].astype(np.float32)])
    assert stack.dtypes == ("float32", "uint16")


def test_each_band_keeps_its_own_scale(tmp_path: Path) -> None:
    one = write(tmp_path, "one", numbers(10, 2), tags=[(2.0, 3.0), (4.0, 5.0)])
    two = write(tmp_path, "two", numbers(20), 20, tags=[(6.0, 7.0)])
    layers = [Layer("", one, number=1), Layer("", two), Layer("", one, number=2)]
    stack = open_stack(product(*layers), (3, 2, 1), 10.0)
    stack.close()
    assert (stack.scales, stack.offsets) == ((4.0, 6.0, 2.0), (5.0, 7.0, 3.0))


def with_holes(folder: Path) -> list[Layer]:
    """A 10 m band whose number 7 means nothing at one pixel, and a 20 m band with a hole that covers four."""
    fine, coarse = numbers(10), numbers(20)
    fine[0, 5, 6] = coarse[0, 1, 2] = 7
    return [
        Layer("", write(folder, "fine", fine, nodata=7)),
        Layer("", write(folder, "coarse", coarse, 20, nodata=7)),
    ]


@pytest.mark.parametrize(("combine", "lost"), [("all", {(5, 6), (2, 4), (2, 5), (3, 4), (3, 5)}), ("any", set())])
def test_a_pixel_counts_where_all_bands_or_any_band_means_something(tmp_path: Path, combine: Any, lost: Any) -> None:
    stack = open_stack(product(*with_holes(tmp_path)), (1, 2), 10.0, Validity(combine=combine))
    pixels, valid = stack.read(stack.grid.window)
    stack.close()
    assert {tuple(place) for place in np.argwhere(~valid).tolist()} == lost
    if combine == "any":
        missing = {tuple(place) for place in np.argwhere(np.isnan(pixels)).tolist()}
        assert missing == {(0, 5, 6), (1, 2, 4), (1, 2, 5), (1, 3, 4), (1, 3, 5)}


def test_an_average_with_a_missing_part_means_nothing(tmp_path: Path) -> None:
    stack = open_stack(product(*with_holes(tmp_path)), (1, 2), 20.0)
    _, valid = stack.read(stack.grid.window)
    stack.close()
    assert {tuple(place) for place in np.argwhere(~valid).tolist()} == {(2, 3), (1, 2)}


@pytest.mark.parametrize(("keeps", "lost"), [(True, []), (False, [[4, 4]])])
def test_saturated_numbers_count_unless_they_are_not_wanted(tmp_path: Path, keeps: bool, lost: Any) -> None:
    pixels = numbers(10)
    pixels[0, 4, 4] = 65535
    layer = Layer("", write(tmp_path, "one", pixels))
    stack = open_stack(product(layer), (1,), 10.0, Validity(keeps_saturated=keeps))
    assert np.argwhere(~stack.read(stack.grid.window)[1]).tolist() == lost
    stack.close()


@given(bits=st.integers(0, 255), values=st.lists(st.integers(0, 255), max_size=4))
@settings(max_examples=40)
def test_quality_bits_and_values_tell_lost_pixels(tmp_path_factory: Any, bits: int, values: list[int]) -> None:
    folder = tmp_path_factory.mktemp("quality")
    states = np.arange(18 * 24, dtype=np.uint16).reshape(1, 18, 24).astype(np.uint8)
    layer = Layer("", write(folder, "one", numbers(10)))
    quality = Quality(Layer("QA", write(folder, "qa", states, 20), nodata=None), tuple(values), bits, "bits of QA")
    stack = open_stack(product(layer, quality=quality), (1,), 10.0)
    window = Window(3, 5, 21, 30)
    _, valid = stack.read(window)
    stack.close()
    shutil.rmtree(folder)
    is_lost = np.array([[any(s == v for v in values) or s & bits != 0 for s in row] for row in states[0].tolist()])
    expected = ~np.repeat(np.repeat(is_lost, 2, 0), 2, 1)[window.rows, window.cols]
    np.testing.assert_array_equal(valid, expected)
    assert "bits of QA" in stack.nodata_reason


@pytest.mark.parametrize(
    "change",
    [
        {"transform": scaled(20) @ Affine.translation(0.25, 0)},
        {"transform": scaled(20) @ Affine.translation(0, 1)},
        {"transform": TEN_METRES @ Affine.scale(1.5)},
        {"transform": TEN_METRES @ Affine.scale(2, 3)},
        {"transform": TEN_METRES @ Affine.scale(2, -2)},
        {"transform": scaled(20) @ Affine.rotation(1)},
        {"transform": TEN_METRES @ Affine.scale(2.002)},
        {"crs": "EPSG:32632"},
    ],
)
def test_bands_that_do_not_nest_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    layers = [
        Layer("", write(tmp_path, "fine", numbers(10))),
        Layer("", write(tmp_path, "odd", numbers(20), 20, **change)),
    ]
    with pytest.raises(GridError, match=r"odd\.tif does not lie on the grid of the other bands") as refusal:
        open_stack(product(*layers), (1, 2), 10.0)
    assert "gdalwarp" in refusal.value.hint


def test_a_coarse_band_that_ends_before_the_grid_is_refused(tmp_path: Path) -> None:
    layers = [
        Layer("", write(tmp_path, "fine", numbers(10))),
        Layer("", write(tmp_path, "short", numbers(20)[:, :-1], 20)),
    ]
    with pytest.raises(GridError, match="short"):
        open_stack(product(*layers), (1, 2), 10.0)


def test_a_coarse_band_may_reach_beyond_the_grid(tmp_path: Path) -> None:
    fine, coarse = numbers(10)[:, :-1, :-1], numbers(20)
    layers = [Layer("", write(tmp_path, "fine", fine)), Layer("", write(tmp_path, "coarse", coarse, 20))]
    stack = open_stack(product(*layers), (1, 2), 10.0)
    pixels, _ = stack.read(stack.grid.window)
    stack.close()
    np.testing.assert_array_equal(pixels, [fine[0], ours(coarse, 20, 10)[0, :-1, :-1]])


def test_files_that_are_not_wanted_are_never_opened(tmp_path: Path) -> None:
    layers = [Layer("", write(tmp_path, "one", numbers(10))), Layer("", str(tmp_path / "missing.tif"))]
    open_stack(product(*layers), (1,), 10.0).close()
    with pytest.raises(InputMissingError):
        open_stack(product(*layers), (1, 2), 10.0)


def test_a_damaged_file_among_many_is_named(tmp_path: Path) -> None:
    pixels = np.tile(numbers(10), (1, 8, 8))
    layers = [Layer("", write(tmp_path, name, pixels, compress="deflate")) for name in ("good", "bad")]
    bad = tmp_path / "bad.tif"
    stack = open_stack(product(*layers), (1, 2), 10.0)
    whole = bad.read_bytes()
    bad.write_bytes(bytes(len(whole)))
    with pytest.raises(StorageError, match=r"bad\.tif"):
        stack.read(stack.grid.window)
    stack.close()


def test_the_sample_holds_valid_numbers_alone(tmp_path: Path) -> None:
    pixels = np.full((1, HEIGHT, WIDTH), 7, np.uint16)
    pixels[0, :4] = 9
    stack = open_stack(product(Layer("", write(tmp_path, "one", pixels, nodata=7))), (1,), 10.0)
    found = stack.sample()
    stack.close()
    assert found.size
    assert set(found.ravel().tolist()) == {9}


def test_a_lost_number_takes_no_part_in_the_average_of_a_finer_band(tmp_path: Path) -> None:
    fine = numbers(10).astype(np.float32)
    fine[0, 0, 1] = fine[0, 2:4, 2:4] = np.nan
    layers = [Layer("", write(tmp_path, "coarse", numbers(20), 20)), Layer("", write(tmp_path, "fine", fine, 10))]
    with closing(open_stack(product(*layers), (1, 2), 20, Validity(combine="any"))) as stack:
        pixels, valid = stack.read(stack.grid.window)
    assert valid.all()
    right = ours(np.nan_to_num(fine), 10, 20)[0]
    assert pixels[1, 0, 0] == np.float32(right[0, 0] * 4 / 3)
    assert np.isnan(pixels[1, 1, 1])
    right[0, 0], right[1, 1] = pixels[1, 0, 0], np.nan
    np.testing.assert_allclose(pixels[1], right, rtol=1e-6)


def test_metadata_that_list_more_bands_than_a_file_has_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "one", numbers(10))
    with pytest.raises(InputError, match=r"lists band 2 of one\.tif, which has 1"):
        open_stack(product(Layer("", path), Layer("", path, number=2)), (1, 2), 10)


def test_a_quality_band_of_floats_is_refused(tmp_path: Path) -> None:
    quality = Quality(Layer("QA", write(tmp_path, "qa", numbers(10).astype(np.float32)), nodata=None), (), 1, "fill")
    with pytest.raises(InputError, match="holds float32 numbers"):
        open_stack(product(Layer("", write(tmp_path, "a", numbers(10))), quality=quality), (1,), 10)
