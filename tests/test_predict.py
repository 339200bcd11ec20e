"""The whole path, from a GeoTIFF to a COG, with an engine whose answer is known."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rio_cogeo import cog_validate

from geoseg_cli.catalog import legends
from geoseg_cli.engines.fake_engine import FakeEngine, IdentityEngine
from geoseg_cli.errors import EngineError, GeosegError, OutputError, StorageError, UsageError
from geoseg_cli.job import PredictOptions
from geoseg_cli.predict import predict_scene
from geoseg_cli.results import vector_file
from geoseg_cli.results.clean_map import Cleaning
from geoseg_cli.results.polygon_options import PolygonOptions
from geoseg_cli.results.polygons import write_polygons
from geoseg_cli.results.verify import verify_map
from geoseg_cli.scenes import SceneOptions
from tests.fakes.bundles import STEP, fake_bundle

DN_PER_CLASS = int(STEP * 10_000)
NODATA_DN = 65_535
UTM = Affine(10, 0, 499_980, 0, -10, 4_900_020)


def write_scene(path: Path, labels: npt.NDArray[np.int_], valid: npt.NDArray[np.bool_], **profile: Any) -> Path:
    """A one-band uint16 scene whose digital numbers mean the labels."""
    pixels = np.where(valid, labels * DN_PER_CLASS, NODATA_DN).astype(np.uint16)
    settings_of_file = {"crs": "EPSG:32631", "transform": UTM, "nodata": NODATA_DN} | profile
    height, width = labels.shape
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=1, height=height, width=width, **settings_of_file
    ) as file:
        file.write(pixels, 1)
        file.set_band_description(1, "red")
        file.scales = (1e-4,)
    return path


def random_scene(path: Path, height: int, width: int, seed: int = 0, **profile: Any) -> npt.NDArray[np.int_]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (height, width))
    valid = rng.random((height, width)) > 0.3
    write_scene(path, labels, valid, **profile)
    return np.where(valid, labels, 255)


class SlowCalls(IdentityEngine):
    """Every call takes its time, whatever it holds."""

    def run(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        time.sleep(0.01)
        return super().run(pixels)


def read(path: Path) -> npt.NDArray[Any]:
    with rasterio.open(path) as file:
        return file.read()


@pytest.fixture
def workdir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(1, 200),
    st.sampled_from([32, 64, 96]),
    st.integers(0, 16),
    st.sampled_from(["hann", "linear", "trim"]),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_an_engine_that_returns_its_input_gives_back_the_scene(
    height: int, width: int, tile: int, overlap: int, blend: Any, batch: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene, output = Path(folder) / "scene.tif", Path(folder) / "map.tif"
        expected = random_scene(scene, height, width, seed)
        options = PredictOptions(tile_px=tile, overlap_px=overlap, blend=blend, batch=batch)
        predict_scene(scene, output, fake_bundle(), IdentityEngine(4), options)
        np.testing.assert_array_equal(read(output)[0], expected)


@pytest.mark.parametrize(("tta", "views"), [("none", 1), ("flip", 4), ("d4", 8)])
def test_augmentation_asks_the_engine_for_every_view_and_is_tagged(workdir: Path, tta: Any, views: int) -> None:
    scene, output = workdir / "scene.tif", workdir / "map.tif"
    expected = random_scene(scene, 70, 50)
    engine = IdentityEngine(4)
    report = predict_scene(scene, output, fake_bundle(), engine, PredictOptions(tile_px=32, overlap_px=8, tta=tta))
    np.testing.assert_array_equal(read(output)[0], expected)
    assert sum(engine.batches) == views * report.tiles_run
    with rasterio.open(output) as made:
        assert made.tags()["GEOSEG_TTA"] == tta
    assert report.to_json()["tta"] == tta


@pytest.mark.parametrize(
    "transform",
    [
        UTM,
        Affine(10, 0, 499_980, 0, 10, 4_800_000),
        Affine.translation(5e5, 4e6) @ Affine.rotation(30) @ Affine.scale(10, -10),
    ],
    ids=["north-up", "south-up", "rotated"],
)
def test_the_output_grid_is_the_input_grid(workdir: Path, transform: Affine) -> None:
    scene, output = workdir / "scene.tif", workdir / "map.tif"
    expected = random_scene(scene, 70, 50, transform=transform)
    predict_scene(scene, output, fake_bundle(), IdentityEngine(4))
    with rasterio.open(scene) as source, rasterio.open(output) as made:
        assert (made.crs, made.transform, made.shape) == (source.crs, source.transform, source.shape)
        row, col = 12, 34
        x, y = source.xy(row, col)
        assert next(made.sample([(x, y)]))[0] == expected[row, col]


def test_labels_do_not_depend_on_batch_or_read_ahead(workdir: Path) -> None:
    scene = workdir / "scene.tif"
    random_scene(scene, 300, 210)
    noise = np.random.default_rng(1).normal(size=(4, 64, 64)).astype(np.float32)

    def run(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return pixels[:, :1] * 0.3 + noise

    made = []
    for batch in (1, 3, 16):
        engine = FakeEngine(4, run)
        output = workdir / f"map{batch}.tif"
        options = PredictOptions(batch=batch, written_at=datetime(2026, 1, 1, tzinfo=UTC))
        predict_scene(scene, output, fake_bundle(), engine, options)
        assert max(engine.batches) == batch
        made.append(output.read_bytes())
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize(
    ("device", "tried", "found"), [("cpu", [1, 1, 1, 1, 1], 1), ("cuda:0", [1, 1, 1, 2, 2, 4, 4, 8, 8], 8)]
)
def test_a_long_run_finds_the_size_of_its_batches_and_the_next_one_uses_it(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, device: str, tried: list[int], found: int
) -> None:
    """Every call costs time whatever it holds, so larger batches are faster; the map is that of single tiles."""
    monkeypatch.setattr("geoseg_cli.batch_size.user_cache_path", lambda name: workdir / "cache")
    random_scene(workdir / "scene.tif", 400, 400)
    maps, sizes = [], []
    for batch in (1, None, None):
        engine = SlowCalls(4)
        engine.device = device
        options = PredictOptions(tile_px=32, overlap_px=0, batch=batch, overwrite=True)
        predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), engine, options)
        maps.append(read(workdir / "map.tif"))
        sizes.append(engine.batches)
    assert set(sizes[0]) == {1}
    assert sizes[1][: len(tried)] == tried
    assert set(sizes[2][:-1]) == {found}
    assert all(np.array_equal(maps[0], other) for other in maps[1:])


@pytest.mark.parametrize(
    ("device", "side", "batch", "sizes"),
    [
        ("cpu", 192, None, [1, *[3] * 11, 2]),  # 36 tiles; two cores idle for one are 1/16 of 32
        ("cpu", 160, None, [*[3] * 8, 1]),  # 25 tiles
        ("cpu", 192, 3, [3] * 12),
    ],
)
def test_a_cpu_begins_a_large_scene_with_one_tile_and_keeps_to_a_batch_that_was_asked_for(
    workdir: Path, device: str, side: int, batch: int | None, sizes: list[int]
) -> None:
    scene = workdir / "scene.tif"
    write_scene(scene, np.ones((side, side), np.int_), np.ones((side, side), np.bool_))
    engine = IdentityEngine(4)
    engine.device, engine.batch_tiles = device, 3
    predict_scene(
        scene, workdir / "map.tif", fake_bundle(), engine, PredictOptions(tile_px=32, overlap_px=0, batch=batch)
    )
    assert engine.batches == sizes


def test_an_all_nodata_scene_runs_no_engine_and_gives_all_nodata(workdir: Path) -> None:
    scene, output = workdir / "scene.tif", workdir / "map.tif"
    write_scene(scene, np.zeros((100, 90), int), np.zeros((100, 90), bool))
    engine = IdentityEngine(4)
    report = predict_scene(scene, output, fake_bundle(), engine)
    assert engine.batches == []
    assert (report.tiles_run, report.valid_pixels) == (0, 0)
    assert (read(output) == 255).all()


def test_a_scene_taller_than_many_tiles_with_nodata_rows_between_keeps_its_rows(workdir: Path) -> None:
    scene, output = workdir / "scene.tif", workdir / "map.tif"
    labels = np.random.default_rng(5).integers(0, 4, (1500, 20))
    valid = np.zeros((1500, 20), bool)
    valid[:10] = valid[1490:] = True
    write_scene(scene, labels, valid)
    predict_scene(scene, output, fake_bundle(), IdentityEngine(4))
    np.testing.assert_array_equal(read(output)[0], np.where(valid, labels, 255))


def test_the_result_is_a_valid_cog_with_palette_names_and_provenance(workdir: Path) -> None:
    scene, output = workdir / "scene.tif", workdir / "map.tif"
    expected = random_scene(scene, 1100, 1030)
    predict_scene(scene, output, fake_bundle(), IdentityEngine(4))
    valid, errors, warnings = cog_validate(output, strict=True, quiet=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(output) as made:
        assert (made.dtypes, made.nodata, made.descriptions) == (("uint8",), 255, ("cloud_mask",))
        assert made.overviews(1)
        assert made.colormap(1)[1][:3] == (220, 220, 220)
        tags = made.tags()
        assert json.loads(tags["GEOSEG_CLASSES"])[3]["name"] == "cloud_shadow"
        assert tags["GEOSEG_MODEL"] == "fake-bundle"
        assert tags["GEOSEG_INPUT"] == "scene.tif"
        assert "tags" in tags["GEOSEG_RADIOMETRY"]
        assert str(workdir) not in json.dumps(tags)
        import hashlib

        assert tags["GEOSEG_PIXELS_SHA256"] == hashlib.sha256(expected.astype(np.uint8).tobytes()).hexdigest()
    with rasterio.open(output, overview_level=0) as overview:
        assert set(np.unique(overview.read())) <= {0, 1, 2, 3, 255}


def test_probabilities_and_confidence_are_scaled_and_masked(workdir: Path) -> None:
    scene = workdir / "scene.tif"
    expected = random_scene(scene, 60, 60)
    options = PredictOptions(probabilities=workdir / "p.tif", confidence=workdir / "c.tif")
    report = predict_scene(scene, workdir / "map.tif", fake_bundle(), IdentityEngine(4), options)
    assert set(report.outputs) == {"labels", "probabilities", "confidence"}
    top, rest = np.e / (np.e + 3), 1 / (np.e + 3)
    valid = expected != 255
    with rasterio.open(workdir / "p.tif") as file:
        stored = file.read()
        assert file.descriptions == ("prob_clear", "prob_thick_cloud", "prob_thin_cloud", "prob_cloud_shadow")
        assert file.scales == (1 / 250,) * 4
    for k in range(4):
        wanted = np.where(expected == k, round(top * 250), round(rest * 250))
        np.testing.assert_array_equal(stored[k], np.where(valid, wanted, 255))
    np.testing.assert_array_equal(read(workdir / "c.tif")[0], np.where(valid, round(top * 250), 255))


def test_entropy_is_that_of_the_softmax_and_needs_no_probabilities_beside_it(workdir: Path) -> None:
    expected = random_scene(workdir / "scene.tif", 50, 60)
    logits = 2 * np.random.default_rng(3).normal(size=(4, 64, 64))
    options = PredictOptions(entropy=workdir / "e.tif")
    engine = FakeEngine(4, lambda pixels: np.repeat(logits[None], len(pixels), 0).astype(np.float32)[..., :56, :64])
    report = predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), engine, options)
    assert (set(report.outputs), report.tiles_run) == ({"labels", "entropy"}, 1)
    with rasterio.open(workdir / "e.tif") as file:
        stored = file.read(1)
        assert (file.descriptions, file.scales, file.nodata) == (("entropy",), (1 / 250,), 255)
        assert file.tags()["GEOSEG_ENTROPY"] == "-sum(p ln p) / ln 4"
    shares = np.exp(logits[:, :50, :60]) / np.exp(logits[:, :50, :60]).sum(axis=0)
    steps = -250 * (shares * np.log(shares)).sum(axis=0) / np.log(4)
    valid = expected != 255
    assert (stored[~valid] == 255).all()
    assert np.abs(stored - steps)[valid].max() <= 0.5 + 1e-3
    assert read(workdir / "map.tif").shape == (1, 50, 60)
    assert verify_map(workdir / "map.tif").is_intact
    with pytest.raises(GeosegError, match="no class map"):
        verify_map(workdir / "e.tif")


def test_entropy_is_that_of_the_blend_where_tiles_that_are_certain_disagree(workdir: Path) -> None:
    write_scene(workdir / "scene.tif", np.zeros((40, 112), int), np.ones((40, 112), bool))
    calls = iter(range(9))

    def certain(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        answer = np.zeros((1, 4, *pixels.shape[2:]), np.float32)
        answer[:, next(calls)] = 40
        return answer

    options = PredictOptions(entropy=workdir / "e.tif", probabilities=workdir / "p.tif", batch=1)
    engine = FakeEngine(4, certain)
    report = predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), engine, options)
    assert report.tiles_run == 2
    stored, (first, second, *others) = read(workdir / "e.tif")[0], read(workdir / "p.tif") / 250
    is_shared = (first > 0) & (second > 0)
    assert not np.any(others)
    assert is_shared[0].sum() >= 12
    assert (stored[~is_shared] <= 5).all()
    undecided = np.abs(first - 0.5) < 0.05
    # Two classes of four, equally probable: ln 2 / ln 4.
    assert undecided.any()
    assert (np.abs(stored[undecided].astype(int) - 125) <= 2).all()


@pytest.mark.parametrize("blend", ["hann", "linear"])
def test_seams_say_where_tiles_named_another_class_and_how_often(workdir: Path, blend: Any) -> None:
    valid = np.ones((40, 112), bool)
    valid[3:9, 50:60] = False
    write_scene(workdir / "scene.tif", np.zeros((40, 112), int), valid)
    calls = iter(range(9))

    def certain(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        answer = np.zeros((1, 4, *pixels.shape[2:]), np.float32)
        answer[:, next(calls)] = 40
        return answer

    options = PredictOptions(seams=workdir / "s.tif", batch=1, blend=blend)
    report = predict_scene(
        workdir / "scene.tif", workdir / "map.tif", fake_bundle(), FakeEngine(4, certain), options
    )  # fmt: skip
    # Two tiles of 64 columns: 48 to 63 lie in both, and each tile names a class of its own there.
    expected = np.zeros((40, 112))
    expected[:, 48:64] = 125
    expected[~valid] = 255
    with rasterio.open(workdir / "s.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected)
        assert (file.descriptions, file.scales, file.nodata) == (("seams",), (1 / 250,), 255)
        assert "another class" in file.tags()["GEOSEG_SEAMS"]
    shared = 40 * 16 - 6 * 10
    assert report.to_json()["seams"] == {"shared": shared, "disputed": shared, "share": 1.0}
    assert report.to_json()["outputs"]["seams"] == str(workdir / "s.tif")
    assert json.loads((workdir / "map.json").read_text())["assets"]["seams"]["href"] == "./s.tif"


def test_a_scene_of_one_tile_has_no_seams_and_nobody_counts_unasked(workdir: Path) -> None:
    expected = random_scene(workdir / "scene.tif", 50, 60)
    scene, out, engine = workdir / "scene.tif", workdir / "map.tif", IdentityEngine(4)
    options = PredictOptions(seams=workdir / "s.tif", overwrite=True)
    report = predict_scene(scene, out, fake_bundle(), engine, options)
    assert report.to_json()["seams"] == {"shared": 0, "disputed": 0, "share": None}
    np.testing.assert_array_equal(read(workdir / "s.tif")[0], np.where(expected == 255, 255, 0))
    plain = predict_scene(scene, out, fake_bundle(), engine, PredictOptions(overwrite=True))
    assert plain.to_json()["seams"] is None


def test_seams_of_tiles_that_share_nothing_are_refused_before_anything_runs(workdir: Path) -> None:
    random_scene(workdir / "scene.tif", 50, 60)
    engine = IdentityEngine(4)
    with pytest.raises(UsageError, match="--seams with --blend trim"):
        predict_scene(
            workdir / "scene.tif", workdir / "map.tif", fake_bundle(), engine,
            PredictOptions(seams=workdir / "s.tif", blend="trim"),
        )  # fmt: skip
    assert not engine.batches
    assert sorted(path.name for path in workdir.iterdir()) == ["scene.tif"]


def test_overviews_of_entropy_are_means(workdir: Path) -> None:
    """Nearest neighbour would leave one of the two values of the stripes."""
    write_scene(workdir / "scene.tif", np.tile(np.arange(2), (520, 520)), np.ones((520, 1040), bool))

    def striped(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        sure = np.zeros((len(pixels), 4, *pixels.shape[2:]), np.float32)
        sure[:, 0] = 40 * pixels[:, 0]
        return sure

    predict_scene(
        workdir / "scene.tif", workdir / "map.tif", fake_bundle(), FakeEngine(4, striped),
        PredictOptions(entropy=workdir / "e.tif"),
    )  # fmt: skip
    assert set(np.unique(read(workdir / "e.tif"))) == {0, 250}
    with rasterio.open(workdir / "e.tif", overview_level=0) as overview:
        assert set(np.unique(overview.read())) == {125}


@pytest.mark.parametrize("gsd", ["native", 20.0])
def test_labels_do_not_depend_on_what_else_is_written(workdir: Path, gsd: Any) -> None:
    random_scene(workdir / "scene.tif", 300, 300)
    noise = np.random.default_rng(1).normal(size=(4, 64, 64)).astype(np.float32)
    left, top = UTM @ (100, 50)
    plain = PredictOptions(gsd=gsd, bounds=(left, top - 1500, left + 900, top), crop=True)
    rasters = {name: workdir / f"{name}.tif" for name in ("probabilities", "confidence", "entropy", "seams")}
    both = replace(plain, **rasters)
    for name, options in (("plain", plain), ("both", both)):
        engine = FakeEngine(4, lambda pixels: pixels[:, :1] * 0.3 + noise)
        predict_scene(workdir / "scene.tif", workdir / f"{name}.tif", fake_bundle(), engine, options)
    np.testing.assert_array_equal(read(workdir / "plain.tif"), read(workdir / "both.tif"))
    assert read(workdir / "plain.tif").shape == (1, 150, 90)


def test_only_bounds_are_predicted_and_the_rest_is_nodata(workdir: Path) -> None:
    scene, output = workdir / "scene.tif", workdir / "map.tif"
    expected = random_scene(scene, 300, 300)
    left, top = UTM @ (100, 50)
    options = PredictOptions(bounds=(left, top - 400, left + 300, top))
    engine = IdentityEngine(4)
    report = predict_scene(scene, output, fake_bundle(), engine, options)
    inside = np.zeros((300, 300), bool)
    inside[50:90, 100:130] = True
    np.testing.assert_array_equal(read(output)[0], np.where(inside, expected, 255))
    assert 0 < report.tiles_run < 12


def test_bounds_outside_the_scene_are_refused(workdir: Path) -> None:
    random_scene(workdir / "scene.tif", 30, 30)
    with pytest.raises(UsageError, match="miss"):
        predict_scene(
            workdir / "scene.tif",
            workdir / "map.tif",
            fake_bundle(),
            IdentityEngine(4),
            PredictOptions(bounds=(0.0, 0.0, 1.0, 1.0)),
        )


def test_areas_in_the_report_are_those_of_the_map(workdir: Path) -> None:
    expected = random_scene(workdir / "scene.tif", 200, 100)
    report = predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), IdentityEngine(4))
    for area in report.areas:
        assert area.pixels == (expected == area.value).sum()
        # A UTM pixel of 100 square metres covers 0.1 % more or less on the ellipsoid.
        assert area.hectares == pytest.approx(area.pixels * 0.01, rel=2e-3)
    assert json.dumps(report.to_json())


def test_legend_values_are_written_not_channel_numbers(workdir: Path) -> None:
    expected = random_scene(workdir / "scene.tif", 40, 40)
    bundle = fake_bundle(legend=legends()["esa-worldcover"].subset([80, 10, 50, 30]), task="land-cover")
    predict_scene(workdir / "scene.tif", workdir / "map.tif", bundle, IdentityEngine(4))
    values = np.array([80, 10, 50, 30, *[0] * 251, 255])
    np.testing.assert_array_equal(read(workdir / "map.tif")[0], values[expected])


@pytest.mark.parametrize(
    ("name", "stated"),
    [("HLS.S30.T10TEM.2024060T190911.v2.0.B04.tif", "2024-02-29T19:09:11Z"), ("scene_20240229.tif", None)],
)
def test_the_time_of_the_scene_stands_in_tags_and_item_where_its_name_states_it(
    workdir: Path, name: str, stated: str | None
) -> None:
    random_scene(workdir / name, 20, 30)
    predict_scene(workdir / name, workdir / "map.tif", fake_bundle(), IdentityEngine(4))
    with rasterio.open(workdir / "map.tif") as made:
        assert made.tags().get("GEOSEG_ACQUIRED") == stated
    assert json.loads((workdir / "map.json").read_text())["properties"]["datetime"] == stated


def test_every_raster_of_a_run_stands_in_its_item_and_the_map_is_as_it_says(workdir: Path) -> None:
    random_scene(workdir / "scene.tif", 70, 60)
    rasters = {"probabilities": workdir / "p.tif", "confidence": workdir / "c.tif", "entropy": workdir / "e.tif"}
    options = PredictOptions(**rasters)
    report = predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), IdentityEngine(4), options)
    item = json.loads(report.sidecars["item"].read_text())
    assert {key: asset["href"] for key, asset in item["assets"].items()} == {
        "labels": "./map.tif", "probabilities": "./p.tif", "confidence": "./c.tif", "entropy": "./e.tif",
    }  # fmt: skip
    assert [band["name"] for band in item["assets"]["probabilities"]["bands"]] == [
        "prob_clear", "prob_thick_cloud", "prob_thin_cloud", "prob_cloud_shadow",
    ]  # fmt: skip
    assert item["links"][0]["href"] == "./scene.tif"
    assert [row["count"] for row in item["assets"]["labels"]["classification:classes"]] == [
        area.pixels for area in report.areas
    ]
    assert verify_map(workdir / "map.tif").is_intact


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("trouble", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(143)])
def test_whatever_goes_wrong_leaves_an_old_output_as_it_was_and_nothing_else(
    workdir: Path, trouble: BaseException
) -> None:
    scene, output = workdir / "scene.tif", workdir / "map.tif"
    random_scene(scene, 200, 200)
    output.write_bytes(b"the old map")

    def fail(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        raise trouble

    with pytest.raises(type(trouble)):
        predict_scene(scene, output, fake_bundle(), FakeEngine(4, fail), PredictOptions(overwrite=True))
    assert left_in(workdir) == {"scene.tif", "map.tif"}
    assert output.read_bytes() == b"the old map"


def test_an_existing_output_is_refused_before_anything_is_computed(workdir: Path) -> None:
    scene, output = workdir / "scene.tif", workdir / "map.tif"
    random_scene(scene, 50, 50)
    output.write_bytes(b"the old map")
    engine = IdentityEngine(4)
    with pytest.raises(OutputError) as caught:
        predict_scene(scene, output, fake_bundle(), engine)
    assert "--overwrite" in caught.value.hint
    assert engine.batches == []
    assert output.read_bytes() == b"the old map"


def test_a_truncated_scene_leaves_no_output(workdir: Path) -> None:
    scene = workdir / "scene.tif"
    random_scene(scene, 600, 600, compress="deflate")
    scene.write_bytes(scene.read_bytes()[: scene.stat().st_size // 2])
    with pytest.raises(StorageError):
        predict_scene(scene, workdir / "map.tif", fake_bundle(), IdentityEngine(4))
    assert left_in(workdir) == {"scene.tif"}


def test_a_scene_that_changes_during_the_run_is_refused(workdir: Path) -> None:
    scene = workdir / "scene.tif"
    random_scene(scene, 100, 100)

    def touch(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        import os

        os.utime(scene, ns=(1, 1))
        return np.zeros((len(pixels), 4, *pixels.shape[2:]), np.float32)

    with pytest.raises(StorageError, match="changed"):
        predict_scene(scene, workdir / "map.tif", fake_bundle(), FakeEngine(4, touch))
    assert left_in(workdir) == {"scene.tif"}


def test_a_network_that_gives_nan_everywhere_is_refused(workdir: Path) -> None:
    random_scene(workdir / "scene.tif", 50, 50)
    broken = FakeEngine(4, lambda pixels: np.full((len(pixels), 4, *pixels.shape[2:]), np.nan, np.float32))
    with pytest.raises(EngineError, match="non-finite"):
        predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), broken)
    assert left_in(workdir) == {"scene.tif"}


def test_an_absent_optional_band_is_declared_to_the_network(workdir: Path) -> None:
    random_scene(workdir / "scene.tif", 16, 16)
    seen = []

    def look(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        seen.append(pixels)
        return np.zeros((len(pixels), 4, *pixels.shape[2:]), np.float32)

    predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), FakeEngine(4, look))
    (pixels,) = seen
    assert pixels.shape[1] == 3
    assert (pixels[:, 1:] == 0).all()


def test_named_bands_in_another_order_give_the_same_map(workdir: Path) -> None:
    rng = np.random.default_rng(0)
    bands = {name: rng.integers(0, 8000, (40, 40), dtype=np.uint16) for name in ("B04", "B08", "B11")}

    def look(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.concatenate([pixels[:, :2], pixels[:, :2].sum(1, keepdims=True), -pixels[:, :1]], axis=1)

    maps = []
    for order in (["B04", "B08", "B11"], ["B11", "B08", "B04"]):
        scene = workdir / "_".join(order)
        with rasterio.open(
            scene, "w", driver="GTiff", dtype="uint16", count=3, height=40, width=40, crs="EPSG:32631", transform=UTM
        ) as file:
            for index, name in enumerate(order, start=1):
                file.write(bands[name], index)
                file.set_band_description(index, name)
        options = PredictOptions(scene=SceneOptions(radiometry="dn"))
        predict_scene(scene, scene.with_suffix(".map.tif"), fake_bundle(), FakeEngine(4, look), options)
        maps.append(read(scene.with_suffix(".map.tif")))
    np.testing.assert_array_equal(maps[0], maps[1])
    assert len(np.unique(maps[0])) > 1


def test_creation_options_reach_the_file_and_unknown_ones_are_refused(workdir: Path) -> None:
    random_scene(workdir / "scene.tif", 600, 600)
    options = PredictOptions(creation_options={"COMPRESS": "ZSTD"})
    predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), IdentityEngine(4), options)
    with rasterio.open(workdir / "map.tif") as made:
        assert made.compression.name == "zstd"
    with pytest.raises(GeosegError, match="COMPRES"):
        predict_scene(
            workdir / "scene.tif",
            workdir / "other.tif",
            fake_bundle(),
            IdentityEngine(4),
            replace(options, creation_options={"COMPRES": "ZSTD"}),
        )
    assert left_in(workdir) == {"scene.tif", "map.tif", "map.tif.aux.xml", "map.qml", "map.json"}


def vectors(path: Path) -> tuple[list[bytes], dict[str, list[Any]]]:
    meta, _, geometry, data = pytest.importorskip("pyogrio").raw.read(path)
    return list(geometry), {name: list(values) for name, values in zip(meta["fields"], data, strict=True)}


@pytest.mark.parametrize("wanted", [PolygonOptions(), PolygonOptions(simplify_m=25, min_area_ha=0.05)])
def test_polygons_of_a_run_are_those_of_its_finished_map(workdir: Path, wanted: PolygonOptions) -> None:
    random_scene(workdir / "scene.tif", 90, 110)
    out, beside = workdir / "map.gpkg", workdir / "beside.gpkg"
    options = PredictOptions(polygons=out, polygon_options=wanted, cleaning=Cleaning(min_object_px=4, dilate_px=1))
    report = predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), IdentityEngine(4), options)
    alone = write_polygons(workdir / "map.tif", beside, wanted)
    assert vectors(out) == vectors(beside)
    told = report.to_json()
    assert told["outputs"]["polygons"] == told["polygons"]["output"] == str(out)
    assert told["polygons"] == alone.to_json() | {"output": str(out)}
    assert json.loads((workdir / "map.json").read_text())["assets"]["polygons"] == {
        "href": "./map.gpkg", "type": "application/geopackage+sqlite3", "roles": ["data"],
        "file:size": out.stat().st_size,
        "file:checksum": "1220" + hashlib.sha256(out.read_bytes()).hexdigest(),
    }  # fmt: skip
    assert verify_map(workdir / "map.tif").is_intact


def test_polygons_of_a_run_have_the_mean_of_its_confidence(workdir: Path) -> None:
    write_scene(workdir / "scene.tif", np.tile(np.arange(4), (40, 15)), np.ones((40, 60), bool))
    options = PredictOptions(polygons=workdir / "p.fgb", confidence=workdir / "c.tif")
    predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), IdentityEngine(4), options)
    _, columns = vectors(workdir / "p.fgb")
    assert len(columns["mean_prob"]) == 60
    assert columns["mean_prob"] == pytest.approx([round(250 * np.e / (np.e + 3)) / 250] * 60)


def test_a_map_of_nothing_has_a_file_of_no_polygons(workdir: Path) -> None:
    write_scene(workdir / "scene.tif", np.zeros((40, 60), int), np.zeros((40, 60), bool))
    for ending in (".gpkg", ".fgb", ".geojson", ".parquet"):
        options = PredictOptions(polygons=workdir / f"p{ending}", overwrite=True)
        report = predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), IdentityEngine(4), options)
        assert report.polygons is not None
        assert report.polygons.polygons == 0
        assert (workdir / f"p{ending}").is_file()
    assert vectors(workdir / "p.gpkg")[0] == []


@pytest.mark.parametrize(
    ("name", "wanted", "words"),
    [
        ("p.shp", PolygonOptions(), "none of"),
        ("p.gpkg", PolygonOptions(simplify_m=-1), "--simplify"),
        ("p.gpkg", PolygonOptions(min_area_ha=0), "--min-area"),
    ],
)
def test_polygons_that_cannot_be_written_are_refused_before_anything_runs(
    workdir: Path, name: str, wanted: PolygonOptions, words: str
) -> None:
    random_scene(workdir / "scene.tif", 40, 40)
    engine = IdentityEngine(4)
    options = PredictOptions(polygons=workdir / name, polygon_options=wanted)
    with pytest.raises(UsageError, match=words):
        predict_scene(workdir / "scene.tif", workdir / "map.tif", fake_bundle(), engine, options)
    assert not engine.batches
    assert [path.name for path in workdir.iterdir()] == ["scene.tif"]


def test_a_map_and_its_polygons_appear_together_or_not_at_all(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_scene(workdir / "scene.tif", 40, 40)

    def full(*_: object) -> None:
        raise StorageError("the disk is full", "make room")

    monkeypatch.setattr(vector_file.VectorWriter, "finish", full)
    with pytest.raises(StorageError):
        predict_scene(
            workdir / "scene.tif", workdir / "map.tif", fake_bundle(), IdentityEngine(4),
            PredictOptions(polygons=workdir / "p.gpkg"),
        )  # fmt: skip
    assert [path.name for path in workdir.iterdir()] == ["scene.tif"]
