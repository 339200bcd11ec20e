"""What is not finite, too large, or one class too many becomes nodata or an error, and never another class."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg_cli.bundle import Bundle
from geoseg_cli.catalog import LandClass, Legend, legends
from geoseg_cli.engines.fake_engine import FakeEngine, IdentityEngine
from geoseg_cli.engines.finite import recompute_not_finite
from geoseg_cli.errors import EngineError, ModelError
from geoseg_cli.grid import Grid
from geoseg_cli.job import PredictOptions
from geoseg_cli.predict import predict_scene
from geoseg_cli.results.maps import PROBABILITY_STEPS, _pixels
from geoseg_cli.results.raster import RasterSpec, WorkRaster
from geoseg_cli.rows import Rows
from geoseg_cli.scenes import SceneOptions
from tests.conftest import write_scene
from tests.fakes.bundles import STEP, card_fields, fake_bundle

LARGEST = float(np.finfo(np.float32).max)
NOT_FINITE = (np.nan, np.inf, -np.inf)
REFLECTANCE = PredictOptions(tile_px=32, overlap_px=8, scene=SceneOptions(radiometry="reflectance"))


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def legend_of(count: int, nodata: int = 255) -> Legend:
    values = [value for value in range(count + 1) if value != nodata][:count]
    rows = (LandClass(value, f"class_{value}", f"Class {value}", f"#{value:06x}") for value in values)
    return Legend("numbered", tuple(rows), nodata)


class FineEngine(FakeEngine):
    """Logits 1 for class k where the reflectance is k / 256, 0 for the others; reflectance 1.9 is inside any clip."""

    def __init__(self, classes: int) -> None:
        one_hot = IdentityEngine(classes).function
        super().__init__(classes, lambda pixels: one_hot(pixels[:, :1] * np.float32(256 * STEP)))


FINE = 1 / (256 * STEP)
"""What codes are multiplied with for a FineEngine, and :func:`scene_of`."""


def scene_of(path: Path, codes: npt.NDArray[Any], dtype: str = "float32") -> Path:
    """A scene in which a pixel of reflectance k x STEP reaches the engine as k."""
    return write_scene(path, (codes * STEP).astype(dtype)[None], bands=("red",))


def read(path: Path) -> npt.NDArray[Any]:
    with rasterio.open(path) as file:
        pixels: npt.NDArray[Any] = file.read()
    return pixels


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.sampled_from(["float32", "float64"]), st.integers(0, 10_000),
    st.floats(0, 1),
)  # fmt: skip
def test_nan_and_infinite_inputs_become_nodata_and_never_reach_the_network(
    height: int, width: int, dtype: str, seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    codes, broken = rng.integers(0, 4, (height, width)), rng.random((height, width)) < share
    pixels = np.where(broken, rng.choice(NOT_FINITE, (height, width)), codes)
    engine = IdentityEngine(4)
    one_hot, seen = engine.function, []
    engine.function = lambda batch: seen.append(bool(np.isfinite(batch).all())) or one_hot(batch)  # type: ignore[func-returns-value]
    with tempfile.TemporaryDirectory() as name:
        scene = scene_of(Path(name) / "scene.tif", pixels, dtype)
        report = predict_scene(scene, Path(name) / "map.tif", fake_bundle(), engine, REFLECTANCE)
        labels = read(Path(name) / "map.tif")[0]
    np.testing.assert_array_equal(labels, np.where(broken, 255, codes))
    assert all(seen)
    assert (report.not_finite, report.valid_pixels) == (0, int((~broken).sum()))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.sampled_from(NOT_FINITE))
def test_a_few_logits_that_are_not_finite_cost_their_pixels_and_no_others(seed: int, lost: int, value: float) -> None:
    """Fewer than 0.1 % of 10 000 pixels, in one tile."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (100, 100))
    marked = rng.choice(codes.size, lost, replace=False)
    codes.flat[marked] = 9  # no class: stands for pixels that the network breaks down on
    one_hot = FineEngine(4).function

    def breaks_down(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        logits = one_hot(pixels)
        logits[:, :1][np.rint(pixels[:, :1] * 256 * STEP) == 9] = value
        return logits

    with tempfile.TemporaryDirectory() as name:
        scene = scene_of(Path(name) / "scene.tif", codes * FINE)
        options = PredictOptions(tile_px=104, overlap_px=0, scene=SceneOptions(radiometry="reflectance"))
        report = predict_scene(
            scene, Path(name) / "map.tif", fake_bundle(tile_px=128), FakeEngine(4, breaks_down), options
        )
        labels = read(Path(name) / "map.tif")[0]
    np.testing.assert_array_equal(labels, np.where(codes == 9, 255, codes))
    assert report.not_finite == lost


def test_more_logits_that_are_not_finite_are_an_error_and_leave_no_map(folder: Path) -> None:
    scene = scene_of(folder / "scene.tif", np.zeros((100, 100)))
    engine = FakeEngine(4, lambda pixels: np.where(pixels[:, :1] * 0 + np.arange(4)[:, None, None] == 2, np.nan, 0.0))
    engine.function = lambda pixels, run=engine.function: run(pixels).astype(np.float32)
    with pytest.raises(EngineError, match="non-finite numbers for"):
        predict_scene(scene, folder / "map.tif", fake_bundle(), engine, REFLECTANCE)
    assert [path.name for path in folder.iterdir()] == ["scene.tif"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1e4, 65_504.0, 1e30, LARGEST]))
def test_logits_as_large_as_float32_holds_choose_the_right_class_with_confidence_one(seed: int, size: float) -> None:
    codes = np.random.default_rng(seed).integers(0, 4, (50, 70))
    one_hot = IdentityEngine(4).function
    engine = FakeEngine(4, lambda pixels: ((one_hot(pixels) * 2 - 1) * np.float32(size)).astype(np.float32))
    with tempfile.TemporaryDirectory() as name:
        scene, out = scene_of(Path(name) / "scene.tif", codes), Path(name) / "map.tif"
        options = PredictOptions(
            tile_px=32, overlap_px=8, scene=SceneOptions(radiometry="reflectance"),
            confidence=out.with_name("confidence.tif"), probabilities=out.with_name("probabilities.tif"),
        )  # fmt: skip
        predict_scene(scene, out, fake_bundle(), engine, options)
        np.testing.assert_array_equal(read(out)[0], codes)
        assert (read(out.with_name("confidence.tif")) == PROBABILITY_STEPS).all()
        expected = (codes == np.arange(4)[:, None, None]) * PROBABILITY_STEPS
        np.testing.assert_array_equal(read(out.with_name("probabilities.tif")), expected)


@given(st.integers(1, 6), st.integers(0, 10_000), st.data())
def test_tiles_that_fp16_makes_infinite_are_those_of_fp32_and_others_stay(tiles: int, seed: int, data: Any) -> None:
    """fp16 ends at 65 504; what is larger is infinite there and exact in fp32."""
    rng = np.random.default_rng(seed)
    overflows = np.array(data.draw(st.lists(st.booleans(), min_size=tiles, max_size=tiles)))
    pixels = rng.uniform(1, 100, (tiles, 1, 3, 5)).astype(np.float32)
    pixels[overflows, 0, 1, 2] = 66_000
    asked: list[int] = []

    def fp32(tile: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        asked.append(len(tile))
        return np.concatenate([tile, -tile], 1)

    with np.errstate(over="ignore"):
        half = np.concatenate([pixels, -pixels], 1).astype(np.float16).astype(np.float32)
    logits = half.copy()
    recompute_not_finite(logits, pixels, fp32)
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(logits[overflows], np.concatenate([pixels, -pixels], 1)[overflows])
    np.testing.assert_array_equal(logits[~overflows], half[~overflows])
    assert asked == [1] * int(overflows.sum())


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "int32", "int64", "float32", "float64", "bool"])
def test_a_raster_takes_no_numbers_that_would_have_to_be_converted(folder: Path, dtype: str) -> None:
    spec = RasterSpec(Grid(None, Affine.identity(), 4, 5))
    with WorkRaster(folder / "work.tif", spec) as work:
        with pytest.raises(ValueError, match="not uint8"):
            work.write(0, np.ones((1, 4, 5), dtype))  # type: ignore[arg-type]
        work.write(0, np.full((1, 4, 5), 254, np.uint8))
    assert (read(folder / "work.tif") == 254).all()


@pytest.mark.parametrize("kind", ["probabilities", "confidence"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.01, 1.01, 1.5, 300.0])
def test_a_share_that_would_wrap_around_in_uint8_is_never_stored(kind: Any, value: float) -> None:
    shares = np.full((2, 3, 4), 0.5, np.float32)
    shares[1, 2, 3] = value
    rows = Rows(0, np.zeros((3, 4), np.uint8), shares[1], shares, np.ones((3, 4), bool))
    with pytest.raises(ValueError, match="no shares of 1"):
        _pixels(kind, rows)


@given(st.integers(2, 20), st.integers(0, 10_000), st.sampled_from(["probabilities", "confidence", "entropy"]))
def test_shares_are_stored_to_the_nearest_step_and_only_pixels_without_an_answer_as_nodata(
    classes: int, seed: int, kind: Any
) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(classes, 0.1), (6, 7)).astype(np.float32).transpose(2, 0, 1)
    valid = rng.random((6, 7)) > 0.2
    shares *= valid
    stored = _pixels(kind, Rows(0, np.zeros((6, 7), np.uint8), shares.max(0), shares, valid))
    assert (stored[:, ~valid] == 255).all()
    assert (stored[:, valid] <= PROBABILITY_STEPS).all()
    exact = shares.astype(np.float64)
    if kind == "entropy":
        terms = np.where(exact > 0, exact * np.log(np.where(exact > 0, exact, 1)), 0)
        exact = -terms.sum(0, keepdims=True) / np.log(classes)
    expected = {"probabilities": exact, "confidence": exact.max(0, keepdims=True), "entropy": exact}[kind]
    assert (np.abs(stored - expected * PROBABILITY_STEPS)[:, valid] <= 0.5 + 1e-3).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 255), st.sampled_from([255, 0, 7]), st.integers(0, 10_000))
def test_as_many_classes_as_uint8_holds_keep_their_values(count: int, nodata: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    legend = legend_of(count, nodata)
    codes = rng.integers(0, count, (40, 50))
    codes[rng.random(codes.shape) < 0.1] = count - 1
    with tempfile.TemporaryDirectory() as name:
        fields = card_fields(legend)
        fields["properties"]["mlm:hyperparameters"]["geoseg"]["output_nodata"] = nodata
        (Path(name) / "item.json").write_text(json.dumps(fields))
        bundle = Bundle.open(Path(name))
        pixels = np.where(rng.random(codes.shape) < 0.1, np.nan, codes)
        scene = scene_of(Path(name) / "scene.tif", pixels * FINE)
        predict_scene(scene, Path(name) / "map.tif", bundle, FineEngine(count), REFLECTANCE)
        labels = read(Path(name) / "map.tif")[0]
    expected = np.where(np.isnan(pixels), nodata, np.array(legend.values)[codes])
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(st.integers(65_536, 66_000))
def test_more_classes_than_uint16_holds_are_refused_when_the_bundle_is_opened(count: int) -> None:
    fields = card_fields(legends()["cloudsen12"])
    rows = [{"value": i, "name": f"c{i}", "title": f"c {i}", "color_hint": "010203"} for i in range(count)]
    output = fields["properties"]["mlm:output"][0]
    output["classification:classes"] = rows
    output["result"]["shape"][1] = count
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "item.json").write_text(json.dumps(fields))
        with pytest.raises(ModelError, match="repeat" if count == 65_536 else "at most 65535 classes") as caught:
            Bundle.open(Path(name))
    assert caught.value.exit_code == 78
    assert caught.value.hint
    assert str(count) in caught.value.message or count == 65_536
    assert len(caught.value.message) < 1000


@given(st.lists(st.integers(-300, 70_000), min_size=1, max_size=5, unique=True), st.integers(-5, 70_000))
def test_a_legend_has_no_value_and_no_nodata_that_its_type_would_wrap(values: list[int], nodata: int) -> None:
    classes = tuple(LandClass(value, f"c{k}", f"c {k}", "#010203") for k, value in enumerate(values))
    fits = all(0 <= value <= 65_535 for value in (*values, nodata)) and nodata not in values
    if fits:
        legend = Legend("any", classes, nodata)
        stored = np.array([*legend.values, legend.nodata], legend.dtype)
        assert stored.tolist() == [*values, nodata]
        assert legend.dtype == ("uint8" if max(*values, nodata) < 256 else "uint16")
        return
    with pytest.raises(ModelError):
        Legend("any", classes, nodata)
