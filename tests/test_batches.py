"""Windows to batches: every pixel read once, tiles in order, nothing predicted where nothing is valid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.arrays import Array, Arrays
from geoseg_cli.batches import Cutter
from geoseg_cli.bundle import InputSpec
from geoseg_cli.grid import Window
from geoseg_cli.orientation import Orientation
from geoseg_cli.tiles import TilePlan
from tests.fakes import ONE_BAND, MemoryScene


def scene_of(height: int, width: int, seed: int = 0, invalid: float = 0.0, step: int | None = None) -> MemoryScene:
    rng = np.random.default_rng(seed)
    pixels = rng.random((1, height, width), np.float32)
    return MemoryScene(pixels, rng.random((height, width)) >= invalid, column_step=step)


STEPS = st.sampled_from([None, 1, 7, 16, 64, 100])


@given(st.integers(1, 90), st.integers(1, 200), st.integers(0, 16), st.integers(1, 7), STEPS)
def test_tiles_hold_the_scenes_pixels_in_the_plans_order(
    height: int, width: int, overlap: int, size: int, step: int | None
) -> None:
    scene = scene_of(height, width, step=step)
    plan = TilePlan.cover(height, width, 32, overlap, 4)
    seen = []
    for batch in Cutter(scene, plan, ONE_BAND).batches(size):
        assert 1 <= len(batch.tiles) <= size
        for tile, pixels, valid in zip(batch.tiles, batch.pixels, batch.valid, strict=True):
            window = tile.window
            expected = scene.pixels[:, window.rows, window.cols]
            np.testing.assert_array_equal(pixels[:, : window.height, : window.width], expected)
            assert valid[: window.height, : window.width].all()
            assert valid.sum() == window.height * window.width
            seen.append(tile.index)
    assert seen == list(range(len(plan)))


@given(st.integers(1, 200), st.integers(0, 16))
def test_every_row_is_read_exactly_once_whatever_the_overlap(height: int, overlap: int) -> None:
    scene = scene_of(height, 40)
    list(Cutter(scene, TilePlan.cover(height, 40, 32, overlap, 4), ONE_BAND).batches(3))
    rows = [row for window in scene.windows for row in range(window.row, window.row_stop)]
    assert rows == list(range(height))
    assert all((window.col, window.width) == (0, 40) for window in scene.windows)


@given(st.integers(1, 100), st.integers(1, 300), st.integers(0, 16), STEPS)
def test_every_pixel_is_read_exactly_once_in_pieces_of_whole_blocks(
    height: int, width: int, overlap: int, step: int | None
) -> None:
    scene = scene_of(height, width, step=step)
    list(Cutter(scene, TilePlan.cover(height, width, 32, overlap, 4), ONE_BAND).batches(3))
    times = np.zeros((height, width), int)
    for window in scene.windows:
        times[window.rows, window.cols] += 1
        assert step is None or window.col % step == 0
        assert window.width >= min(64 if window.col else 32, width - window.col)
    assert (times == 1).all()


def test_the_first_tiles_do_not_wait_for_the_last_of_their_row() -> None:
    scene = scene_of(32, 640, step=32)
    batches = Cutter(scene, TilePlan.cover(32, 640, 32, 0), ONE_BAND).batches(1)
    assert next(batches).tiles[0].index == 0
    assert max(window.col_stop for window in scene.windows) <= 96
    batches.close()


def test_only_the_columns_of_wanted_tiles_are_waited_for_but_rows_below_are_whole() -> None:
    scene = scene_of(96, 640, step=32)
    plan = TilePlan.cover(96, 640, 32, 16, 4)
    wanted = Window(40, 20, 30, 40)
    made = list(Cutter(scene, plan, ONE_BAND).batches(1, keep=wanted))
    assert made
    for batch in made:
        window = batch.tiles[0].window
        np.testing.assert_array_equal(batch.pixels[0], scene.pixels[:, window.rows, window.cols])
    assert {batch.tiles[0].index for batch in made} == {tile.index for tile in plan if wanted.touches(tile.window)}


@pytest.mark.parametrize("col", [0, 1230])
def test_pieces_that_no_wanted_tile_lies_in_are_not_held(col: int) -> None:
    scene, held = scene_of(64, 1280, step=32), []

    class Counting(Cutter):
        def _tiles(self, keep: Any, first_row: int) -> Any:
            for tile, pieces in super()._tiles(keep, first_row):
                held.append(sum(piece.window.width for piece in pieces))
                yield tile, pieces

    plan = TilePlan.cover(64, 1280, 32, 0)
    assert list(Counting(scene, plan, ONE_BAND).batches(1, keep=Window(0, col, 64, 40)))
    assert max(held) <= 2 * 64


def test_tiles_without_a_valid_pixel_are_left_out() -> None:
    scene = scene_of(64, 64)
    scene.valid[:32, :32] = False
    tiles = [
        tile.index
        for batch in Cutter(scene, TilePlan.cover(64, 64, 32, 0), ONE_BAND).batches(2)
        for tile in batch.tiles
    ]
    assert tiles == [1, 2, 3]


def test_only_tiles_that_touch_the_window_to_keep_are_made() -> None:
    scene = scene_of(96, 96)
    plan = TilePlan.cover(96, 96, 32, 0)
    made = Cutter(scene, plan, ONE_BAND).batches(4, keep=Window(40, 40, 10, 10))
    assert [tile.index for batch in made for tile in batch.tiles] == [4]
    assert [(window.row, window.height) for window in scene.windows] == [(32, 32)]


def test_invalid_pixels_reach_the_network_as_zero() -> None:
    scene = scene_of(32, 32, invalid=0.5)
    (batch,) = Cutter(scene, TilePlan.cover(32, 32, 32, 0), ONE_BAND).batches(1)
    assert (batch.pixels[0, 0][~scene.valid] == 0).all()
    np.testing.assert_array_equal(batch.valid[0], scene.valid)


def test_a_short_scene_is_mirrored_into_the_padding_which_stays_invalid() -> None:
    scene = scene_of(3, 5)
    (batch,) = Cutter(scene, TilePlan.cover(3, 5, 32, 0, 8), ONE_BAND).batches(1)
    assert batch.pixels.shape == (1, 1, 8, 8)
    np.testing.assert_array_equal(batch.pixels[0, 0, 3:6, :5], scene.pixels[0, ::-1])
    assert batch.valid.sum() == 15


@dataclass(frozen=True, slots=True)
class Watched(Arrays):
    """A CPU's tensors that stand for a device's, and what was put among them."""

    module: Any = torch
    seen: list[npt.NDArray[Any]] = field(default_factory=list)

    def put(self, array: Array) -> Array:
        if isinstance(array, np.ndarray):
            self.seen.append(array)
        return Arrays.put(self, array)


TWO_BANDS = InputSpec(("red", "nir", "swir16"), ("nir", "swir16"), (0.1, 0.2, 0.3), (0.5, 0.25, 0.125))


@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(0, 16), st.integers(1, 7),
    st.sampled_from([0.0, 0.3]), st.tuples(st.booleans(), st.booleans(), st.booleans()), st.integers(0, 99), STEPS,
)  # fmt: skip
def test_a_device_gets_every_stored_number_once_and_makes_the_same_tiles(
    height: int, width: int, overlap: int, size: int, invalid: float, way: tuple[bool, bool, bool], seed: int,
    step: int | None,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 15_000, (2, height, width)).astype(np.uint16)
    scene = MemoryScene(pixels, rng.random((height, width)) >= invalid, (True, False, True), 1e-4, column_step=step)
    orientation, arrays = Orientation(*way), Watched()
    plan = orientation.plan(height, width, 32, overlap, 4)
    right = list(Cutter(scene, plan, TWO_BANDS, orientation).batches(size))
    made = list(Cutter(scene, plan, TWO_BANDS, orientation, arrays).batches(size))
    assert [batch.tiles for batch in made] == [batch.tiles for batch in right]
    for one, other in zip(made, right, strict=True):
        assert arrays.fetch(one.pixels).tobytes() == other.pixels.tobytes()
        assert one.valid.tobytes() == other.valid.tobytes()
    sent = [numbers for numbers in arrays.seen if numbers.dtype == np.uint16]
    windows = scene.windows[-len(sent) :]
    assert sum(numbers[0].size for numbers in sent) == height * width
    for numbers, window in zip(sent, windows, strict=True):
        np.testing.assert_array_equal(numbers, pixels[:, window.rows, window.cols])
    assert not [numbers for numbers in arrays.seen if numbers.dtype.kind == "f"]


def test_an_error_of_the_reader_surfaces() -> None:
    class Broken(MemoryScene):
        def read(self, window: Window) -> None:  # type: ignore[override]
            raise OSError("block 7")

    broken = Broken(np.zeros((1, 8, 8)), np.ones((8, 8), bool))
    with pytest.raises(OSError, match="block 7"):
        list(Cutter(broken, TilePlan.cover(8, 8, 8, 0), ONE_BAND).batches(1))
