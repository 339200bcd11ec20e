"""One ground stored in eight ways: the network sees the same, and every pixel of the map says the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg_cli.arrays import Arrays
from geoseg_cli.engines.fake_engine import FakeEngine, IdentityEngine
from geoseg_cli.grid import Grid, Window
from geoseg_cli.job import PredictOptions
from geoseg_cli.mosaic import Blend
from geoseg_cli.orientation import AS_STORED, Orientation
from geoseg_cli.predict import predict_scene
from geoseg_cli.tiles import TilePlan
from tests.fakes.bundles import STEP, fake_bundle

UTM = CRS.from_epsg(32631)
NORTH_UP = Affine(10, 0, 499_980, 0, -10, 4_900_020)
WAYS = [(swap, rows, cols) for swap in (False, True) for rows in (False, True) for cols in (False, True)]


@pytest.mark.parametrize("way", WAYS)
def test_tensors_are_turned_and_turned_back_as_arrays_are(way: tuple[bool, bool, bool]) -> None:
    orientation, arrays = Orientation(*way), Arrays(torch)
    stored = np.random.default_rng(0).random((2, 5, 7), np.float32)
    shown = orientation.turn(arrays.put(stored), arrays)
    np.testing.assert_array_equal(arrays.fetch(shown), orientation.turn(stored))
    window = Window(3, 4, 4, 6)
    height, width = orientation.shape(window.height, window.width)
    padded = np.zeros((2, 8, 8), np.float32)
    padded[:, :height, :width] = orientation.turn(stored[:, :4, :6])
    back = orientation.turn_back(arrays.put(padded), window, arrays)
    np.testing.assert_array_equal(arrays.fetch(back), stored[:, :4, :6])


def store(pixels: npt.NDArray[Any], way: tuple[bool, bool, bool]) -> tuple[npt.NDArray[Any], Affine]:
    """North-up (H, W) in another way: flip stored rows or columns, then swap them; with the transform that fits."""
    swap, flip_rows, flip_cols = way
    height, width = pixels.shape
    transform = NORTH_UP
    if flip_rows:
        pixels, transform = pixels[::-1], transform @ Affine(1, 0, 0, 0, -1, height)
    if flip_cols:
        pixels, transform = pixels[:, ::-1], transform @ Affine(-1, 0, width, 0, 1, 0)
    if swap:
        pixels, transform = pixels.T, transform @ Affine(0, 1, 0, 1, 0, 0)
    return pixels, transform


def write(path: Path, numbers: npt.NDArray[Any], transform: Affine) -> Path:
    """A scene whose pixel k reaches the engine as k; 255 is nodata."""
    pixels = np.where(numbers == 255, 65_535, numbers * int(STEP * 10_000)).astype(np.uint16)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint16",
        count=1,
        height=pixels.shape[0],
        width=pixels.shape[1],
        crs=UTM,
        transform=transform,
        nodata=65_535,
    ) as file:
        file.write(pixels, 1)
        file.set_band_description(1, "red")
        file.scales = (1e-4,)
    return path


def lopsided_engine() -> FakeEngine:
    """An engine whose answer changes with the direction in which it looks and with the place in the tile."""

    def look(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        red = pixels[:, 0]
        above, left = np.roll(red, 1, axis=1), np.roll(red, 2, axis=2)
        place = np.sin(np.arange(red.shape[1])[:, None] * 0.7 + np.arange(red.shape[2]) * 0.31 + 0 * red)
        # Odd factors: two classes that tie could be told apart by the rounding of float32 alone.
        logits = [1.013 * red - 0.971 * above, 1.037 * left - red, above * 0.517 - left + place, 0.219 + 0.1 * place]
        return np.stack(logits, axis=1).astype(np.float32)

    return FakeEngine(4, look)


def numbers_of(height: int, width: int, seed: int) -> npt.NDArray[np.int_]:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((height, width)) > 0.2, rng.integers(0, 4, (height, width)), 255)


def predicted(folder: Path, numbers: npt.NDArray[Any], way: tuple[bool, bool, bool], options: PredictOptions) -> Path:
    stored, transform = store(numbers, way)
    scene, made = folder / f"scene{WAYS.index(way)}.tif", folder / f"map{WAYS.index(way)}.tif"
    predict_scene(write(scene, stored, transform), made, fake_bundle(), lopsided_engine(), options)
    return made


def values_at(path: Path, places: list[tuple[float, float]]) -> npt.NDArray[np.int_]:
    with rasterio.open(path) as file:
        return np.array([int(value[0]) for value in file.sample(places)])


@settings(max_examples=12)
@given(
    st.integers(1, 120),
    st.integers(1, 120),
    st.sampled_from([0, 5, 16]),
    st.sampled_from(["hann", "linear", "trim"]),
    st.sampled_from(WAYS[1:]),
    st.integers(0, 99),
)
def test_a_scene_stored_in_another_way_gives_the_north_up_map_in_that_way(
    height: int, width: int, overlap: int, blend: Blend, way: tuple[bool, bool, bool], seed: int
) -> None:
    numbers = numbers_of(height, width, seed)
    options = PredictOptions(tile_px=32, overlap_px=overlap, blend=blend)
    with tempfile.TemporaryDirectory() as folder:
        twin = predicted(Path(folder), numbers, WAYS[0], options)
        made = predicted(Path(folder), numbers, way, options)
        with rasterio.open(twin) as north_up, rasterio.open(made) as turned:
            expected, transform = store(north_up.read(1), way)
            np.testing.assert_array_equal(turned.read(1), expected)
            assert turned.transform == transform


@pytest.mark.parametrize("way", WAYS[1:])
def test_every_place_on_the_ground_has_the_same_class_and_confidence(tmp_path: Path, way: Any) -> None:
    numbers = numbers_of(40, 45, 1)
    confidence = {one: tmp_path / f"confidence{WAYS.index(one)}.tif" for one in (WAYS[0], way)}
    maps = [
        predicted(tmp_path, numbers, one, PredictOptions(tile_px=32, overlap_px=8, confidence=path))
        for one, path in confidence.items()
    ]
    places = [NORTH_UP @ (col + 0.5, row + 0.5) for row, col in np.ndindex(numbers.shape)]
    north_up, turned = (values_at(path, places) for path in maps)
    np.testing.assert_array_equal(turned, north_up)
    sure, turned_sure = (values_at(path, places) for path in confidence.values())
    assert np.abs(sure - turned_sure).max() <= 1  # one step of 1/250, where float32 sums round otherwise


@pytest.mark.parametrize("way", WAYS)
def test_the_network_sees_the_tiles_of_the_north_up_scene(tmp_path: Path, way: Any) -> None:
    seen: list[bytes] = []

    def look(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        seen.extend(tile.tobytes() for tile in pixels)
        return np.zeros((len(pixels), 4, *pixels.shape[2:]), np.float32)

    numbers = np.random.default_rng(0).integers(0, 4, (75, 53))
    options = PredictOptions(tile_px=32, overlap_px=8)
    for one in (WAYS[0], way):
        stored, transform = store(numbers, one)
        scene = write(tmp_path / "scene.tif", stored, transform)
        name = f"map{WAYS.index(one)}.tif"
        predict_scene(
            scene,
            tmp_path / name,
            fake_bundle(),
            FakeEngine(4, look),
            PredictOptions(tile_px=options.tile_px, overlap_px=options.overlap_px, overwrite=True),
        )
    half = len(seen) // 2
    assert half == 6
    assert sorted(seen[:half]) == sorted(seen[half:])


@pytest.mark.parametrize("way", WAYS)
def test_turning_shows_north_up_and_turning_back_undoes_it(way: Any) -> None:
    north_up = np.arange(15).reshape(3, 5)
    stored, transform = store(north_up, way)
    orientation = Orientation.of(Grid(UTM, transform, *stored.shape))
    assert orientation.is_turned == (way != WAYS[0])
    np.testing.assert_array_equal(orientation.turn(stored), north_up)
    assert orientation.shape(*stored.shape) == (3, 5)
    padded = np.full((2, 8, 8), -1)
    padded[:, :3, :5] = north_up
    np.testing.assert_array_equal(
        orientation.turn_back(padded, Window(7, 9, *stored.shape)), np.broadcast_to(stored, (2, *stored.shape))
    )


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, NORTH_UP @ Affine.rotation(30)),
        (UTM, NORTH_UP @ Affine.scale(1, -1) @ Affine.rotation(3)),
        (UTM, NORTH_UP @ Affine.shear(10, 0)),
        (None, Affine.identity()),
    ],
    ids=["rotated", "mirrored and rotated", "sheared", "no CRS"],
)
def test_grids_without_a_whole_turn_to_north_stay_as_stored(crs: Any, transform: Affine) -> None:
    assert Orientation.of(Grid(crs, transform, 4, 5)) == AS_STORED


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([32, 64]),
    st.integers(0, 16),
    st.sampled_from(WAYS),
)
def test_tiles_and_their_cores_are_cut_where_those_of_the_north_up_scene_are(
    height: int, width: int, tile: int, overlap: int, way: tuple[bool, bool, bool]
) -> None:
    stored, transform = store(np.zeros((height, width), np.uint8), way)
    orientation = Orientation.of(Grid(UTM, transform, *stored.shape))
    plan = orientation.plan(stored.shape[0], stored.shape[1], tile, overlap, 8)
    wanted = TilePlan.cover(height, width, tile, overlap, 8)
    assert orientation.shape(plan.tile_height, plan.tile_width) == (wanted.tile_height, wanted.tile_width)
    assert [one.index for one in plan] == list(range(len(wanted)))

    def corners(cut: TilePlan, grid_transform: Affine) -> set[tuple[tuple[float, float], tuple[float, float]]]:
        found = set()
        for one in cut:
            for window in (one.window, cut.core(one)):
                ends = [(window.col, window.row), (window.col_stop, window.row_stop)]
                (x0, y0), (x1, y1) = (grid_transform @ end for end in ends)
                found.add(((min(x0, x1), max(x0, x1)), (min(y0, y1), max(y0, y1))))
        return found

    assert corners(plan, transform) == corners(wanted, NORTH_UP)


def test_a_south_up_scene_is_not_called_mirrored_and_the_map_says_how_it_was_turned(tmp_path: Path) -> None:
    stored, transform = store(numbers_of(40, 40, 2), (False, True, False))
    scene = write(tmp_path / "scene.tif", stored, transform)
    report = predict_scene(scene, tmp_path / "map.tif", fake_bundle(), IdentityEngine(4))
    assert not any("mirrored" in text for text in report.decisions["warnings"])
    assert report.decisions["orientation"] == "north-up for the model: rows flipped"
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.tags()["GEOSEG_ORIENTATION"] == "north-up for the model: rows flipped"
        np.testing.assert_array_equal(made.read(1), stored)


def test_a_mirrored_scene_that_is_not_turned_keeps_its_warning() -> None:
    warning = ("the scene is stored upside down (south-up): the model sees it mirrored",)
    assert AS_STORED.still_true(warning) == warning
    assert Orientation(flip_rows=True).still_true(warning) == ()


def test_turned_and_resampled_scenes_keep_their_own_pixels(tmp_path: Path) -> None:
    numbers = numbers_of(20, 26, 4).repeat(2, axis=0).repeat(2, axis=1)
    stored, transform = store(numbers, (True, False, True))
    fine = transform @ Affine.scale(0.5)
    scene = write(tmp_path / "scene.tif", stored, fine)
    predict_scene(scene, tmp_path / "map.tif", fake_bundle(), IdentityEngine(4))
    with rasterio.open(tmp_path / "map.tif") as made:
        np.testing.assert_array_equal(made.read(1), stored)
        assert made.transform == fine
