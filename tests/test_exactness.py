"""The whole path gives back what went in: any size, tile, overlap, window, type of number and nodata value."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg_cli.engines.fake_engine import IdentityEngine
from geoseg_cli.grid import Window
from geoseg_cli.job import PredictOptions
from geoseg_cli.predict import predict_scene
from geoseg_cli.scenes import SceneOptions
from tests.conftest import write_scene
from tests.fakes.bundles import STEP, fake_bundle
from tests.test_predict import UTM

CASES = 1000
STORED = st.sampled_from([
    ("uint16", 65_535), ("uint16", 60_000), ("int16", -9_999), ("int32", -9_999), ("uint32", 2**32 - 1),
    ("float32", float("nan")), ("float32", -9_999.0), ("float64", float("nan")),
])  # fmt: skip
SIDES = st.integers(1, 150)


@st.composite
def windows(draw: Any, sides: tuple[int, int]) -> Window | None:
    """A part of the scene, or None for all of it."""
    if draw(st.booleans()):
        return None
    starts = [draw(st.integers(0, side - 1)) for side in sides]
    sizes = [draw(st.integers(1, side - start)) for side, start in zip(sides, starts, strict=True)]
    return Window(*starts, *sizes)


def write(path: Path, labels: Any, valid: Any, dtype: str, nodata: float) -> None:
    is_float = dtype.startswith("float")
    numbers = np.where(valid, labels * (STEP if is_float else STEP * 10_000), nodata).astype(dtype)
    write_scene(path, numbers[None], ["red"], nodata=nodata, transform=UTM)


def check(data: Any) -> None:
    """One random case."""
    sides = data.draw(SIDES), data.draw(SIDES)
    dtype, nodata = data.draw(STORED)
    window = data.draw(windows(sides))
    tile, overlap = data.draw(st.sampled_from([32, 48, 96])), data.draw(st.integers(0, 15))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    labels, valid = rng.integers(0, 4, sides), rng.random(sides) > 0.3
    expected, transform, more = np.where(valid, labels, 255), UTM, {}
    if window is not None:
        # A little inside the window's outline: what it merely touches is not meant.
        left, top = UTM @ (window.col + 0.1, window.row + 0.1)
        right, bottom = UTM @ (window.col_stop - 0.1, window.row_stop - 0.1)
        more = {"bounds": (left, bottom, right, top), "crop": True}
        expected, transform = expected[window.rows, window.cols], UTM @ UTM.translation(window.col, window.row)
    radiometry = "reflectance" if dtype.startswith("float") else "dn"
    meaning = SceneOptions(radiometry=radiometry)
    options = PredictOptions(tile, overlap_px=overlap, scene=meaning, sidecars=False, **more)
    with tempfile.TemporaryDirectory() as folder:
        scene, output = Path(folder) / "scene.tif", Path(folder) / "map.tif"
        write(scene, labels, valid, dtype, nodata)
        predict_scene(scene, output, fake_bundle(), IdentityEngine(4), options)
        with rasterio.open(output) as file:
            np.testing.assert_array_equal(file.read(1), expected)
            assert file.transform == transform


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_what_goes_in_comes_out(data: Any) -> None:
    check(data)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=CASES, deadline=None)
@given(st.data())
def test_what_goes_in_comes_out_a_thousand_times(data: Any) -> None:
    check(data)
