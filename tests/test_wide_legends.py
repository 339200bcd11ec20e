"""Legends that uint8 cannot hold: maps of uint16 through everything that makes and reads them.

The oracle of whatever looks at neighbours is the same map with few classes: values that are replaced by larger ones in
the same order change nothing but the values.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import tifffile
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geoseg_cli.arrays import NUMPY, Arrays
from geoseg_cli.bundle import Bundle
from geoseg_cli.catalog import LandClass, Legend, legends
from geoseg_cli.composite.run import compose
from geoseg_cli.engines import EngineOptions, choose_engine
from geoseg_cli.engines.fake_engine import FakeEngine, IdentityEngine
from geoseg_cli.errors import InputError, StorageError, UsageError
from geoseg_cli.evaluate import CompareOptions, compare_map
from geoseg_cli.evaluate import against_map as against_map_module
from geoseg_cli.evaluate.classes import MapClasses
from geoseg_cli.grid import Grid
from geoseg_cli.job import PredictOptions
from geoseg_cli.mosaic import Mosaic
from geoseg_cli.predict import predict_scene
from geoseg_cli.results.areas import ClassCounts
from geoseg_cli.results.clean_map import Cleaning
from geoseg_cli.results.cog import write_cog
from geoseg_cli.results.data_array import open_result
from geoseg_cli.results.map_file import opened_map, read_map
from geoseg_cli.results.picture import read_picture
from geoseg_cli.results.polygons import write_polygons
from geoseg_cli.results.raster import RasterSpec, WorkRaster
from geoseg_cli.results.report_page import PageMap, _view_facts
from geoseg_cli.results.verify import verify_map
from geoseg_cli.tiles import TilePlan
from tests.conftest import write_scene
from tests.engines.pixelwise import CHANNELS, Pixelwise, draw_pixels, write_pixelwise_bundle
from tests.fakes.bundles import STEP, card_fields, fake_bundle
from tests.results.published import publish_map
from tests.test_numbers import FINE, FineEngine, scene_of

NODATA = 65_535
UTM = Grid(CRS.from_epsg(32631), Affine(10, 0, 500_000, 0, -10, 5_000_000), 0, 0)
Labels = npt.NDArray[np.uint16]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def legend_of(values: list[int], nodata: int = NODATA) -> Legend:
    rows = (LandClass(value, f"class_{value}", f"Class {value}", f"#{value:06X}") for value in values)
    return Legend("numbered", tuple(rows), nodata)


def drawn_legend(seed: int, count: int, is_sorted: bool, nodata: int = NODATA) -> Legend:
    """Any values up to 65534, the largest one among them."""
    rng = np.random.default_rng(seed)
    pool = np.setdiff1d(np.arange(NODATA - 1), [nodata])
    values = [*rng.choice(pool, count - 1, replace=False).tolist(), NODATA - 1]
    return legend_of(sorted(values) if is_sorted else values, nodata)


def patches(seed: int, shape: tuple[int, int], count: int, side: int = 4) -> npt.NDArray[np.int_]:
    """Codes 0 to ``count`` - 1 in squares with a tenth of noise, and -1 in a tenth of the pixels."""
    rng = np.random.default_rng(seed)
    height, width = shape
    coarse = rng.integers(0, count, (height // side + 1, width // side + 1))
    codes = np.kron(coarse, np.ones((side, side), int))[:height, :width]
    codes = np.where(rng.random(shape) < 0.1, rng.integers(0, count, shape), codes)
    return np.where(rng.random(shape) < 0.1, -1, codes)


def labels_of(codes: npt.NDArray[np.int_], legend: Legend) -> npt.NDArray[Any]:
    return np.where(codes < 0, legend.nodata, np.array(legend.values)[codes]).astype(legend.dtype)


def publish(path: Path, labels: npt.NDArray[Any], legend: Legend, **more: Any) -> Path:
    return publish_map(path, labels, Grid(UTM.crs, UTM.transform, *labels.shape), legend, **more)


def read(path: Path) -> npt.NDArray[Any]:
    with rasterio.open(path) as file:
        pixels: npt.NDArray[Any] = file.read(1)
    return pixels


TILINGS = st.tuples(
    st.integers(256, 400), st.integers(1, 70), st.integers(1, 90), st.sampled_from([32, 40, 64]), st.integers(0, 12),
    st.sampled_from(["hann", "linear", "trim"]), st.booleans(), st.sampled_from([NODATA, 255, 0]), st.integers(0, 9999),
)  # fmt: skip


def every_class_comes_back_as_its_value(
    count: int, height: int, width: int, tile_px: int, overlap_px: int, blend: Any, is_sorted: bool, nodata: int,
    seed: int,
) -> None:  # fmt: skip
    legend = drawn_legend(seed, count, is_sorted, nodata)
    codes = patches(seed, (height, width), count)
    expected = labels_of(codes, legend)
    with tempfile.TemporaryDirectory() as name:
        folder, fields = Path(name), card_fields(legend)
        if nodata != NODATA:
            fields["properties"]["mlm:hyperparameters"]["geoseg"]["output_nodata"] = nodata
        (folder / "item.json").write_text(json.dumps(fields))
        scene = scene_of(folder / "scene.tif", np.where(codes < 0, np.nan, codes) * FINE)
        options = PredictOptions(tile_px=tile_px, overlap_px=overlap_px, blend=blend)
        options = replace(options, scene=replace(options.scene, radiometry="reflectance"))
        report = predict_scene(scene, folder / "map.tif", Bundle.open(folder), FineEngine(count), options)
        found = read(folder / "map.tif")
        with rasterio.open(folder / "map.tif") as file:
            assert (file.dtypes, file.nodata) == (("uint16",), nodata)
        assert verify_map(folder / "map.tif").problems == {}
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint16
    pixels = {area.value: area.pixels for area in report.areas}
    assert pixels == {value: int((expected == value).sum()) for value in legend.values}


@settings(max_examples=4, deadline=None)
@given(TILINGS)
def test_every_class_of_a_large_legend_comes_back_as_its_value_however_it_is_tiled(
    case: tuple[Any, ...],
) -> None:
    every_class_comes_back_as_its_value(*case)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(TILINGS)
def test_every_class_of_many_large_legends_comes_back_as_its_value(case: tuple[Any, ...]) -> None:
    every_class_comes_back_as_its_value(*case)


def test_a_card_with_values_above_254_means_65535_without_an_answer_unless_it_says_otherwise() -> None:
    assert fake_bundle(legend=legend_of([1, 254])).legend.nodata == 255
    assert fake_bundle(legend=legend_of([1, 254])).legend.dtype == "uint8"
    for values in ([1, 255], [1, 65_534], list(range(256))):
        legend = fake_bundle(legend=legend_of(values)).legend
        assert (legend.nodata, legend.dtype) == (65_535, "uint16")


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([3, 255, 256, 300]), st.integers(0, 999), st.sampled_from(["hann", "trim"]), st.booleans())
def test_torch_stitches_large_legends_to_the_labels_of_numpy(count: int, seed: int, blend: Any, wide: bool) -> None:
    plan = TilePlan.cover(20, 28, 16, 4)
    rng = np.random.default_rng(seed)
    legend = drawn_legend(seed, count, False) if wide or count > 255 else legend_of(list(range(count)), 255)
    tiles = [(tile, rng.normal(size=(count, 16, 16)).astype(np.float32), rng.random((16, 16)) > 0.1) for tile in plan]
    made = []
    for arrays in (NUMPY, Arrays(torch)):
        mosaic = Mosaic(plan, legend, blend, extras=("seams",), arrays=arrays)
        rows = [row for tile in tiles for row in mosaic.add(*tile)] + list(mosaic.finish())
        made.append(np.concatenate([row.labels for row in rows]))
        assert made[-1].dtype == legend.dtype
    np.testing.assert_array_equal(*made)


@pytest.mark.usefixtures("torch_knows_pixelwise_too")
@pytest.mark.parametrize("name", ["onnx", "openvino", "torch"])
def test_every_engine_answers_with_300_classes(folder: Path, name: str) -> None:
    rng = np.random.default_rng(1)
    network = Pixelwise(*(rng.standard_normal(shape, dtype=np.float32) for shape in ((300, CHANNELS), (300,))))
    bundle = write_pixelwise_bundle(folder / "bundle", network, drawn_legend(2, 300, True))
    pixels = draw_pixels(1, CHANNELS, 64, 64)
    engine, _ = choose_engine(bundle, options=EngineOptions(engine=name))
    logits = np.asarray(engine.run(pixels))
    engine.close()
    np.testing.assert_allclose(logits, network.answer(pixels), atol=1e-4)


@pytest.fixture
def torch_knows_pixelwise_too(monkeypatch: pytest.MonkeyPatch) -> None:
    create = lambda name, bands, classes, **config: torch.nn.Conv2d(bands, classes, 1)  # noqa: E731
    monkeypatch.setattr("geoseg_cli.engines.torch_engine.create_network", create)


@pytest.mark.parametrize("form", ["cog", "gtiff"])
def test_other_readers_find_the_same_pixels_and_nodata(folder: Path, form: str) -> None:
    legend = drawn_legend(3, 300, True)
    expected = labels_of(patches(3, (530, 600), 300), legend)
    path = publish(folder / "map.tif", expected, legend, format=form)
    np.testing.assert_array_equal(read(path), expected)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        np.testing.assert_array_equal(page.asarray(), expected)
        assert page.tags["GDAL_NODATA"].value.strip("\0 ") == "65535"
        assert page.photometric == tifffile.PHOTOMETRIC.MINISBLACK
    item = json.loads((folder / "map.json").read_text())
    band = item["assets"]["labels"]["bands"][0]
    assert (band["data_type"], band["nodata"]) == ("uint16", 65_535)
    stated = item["assets"]["labels"]["classification:classes"]
    assert [row["value"] for row in stated] == list(legend.values)
    assert [row["color_hint"] for row in stated] == [cls.color[1:] for cls in legend.classes]


@pytest.mark.skipif(shutil.which("gdal_translate") is None, reason="needs GDAL's command line")
def test_gdals_command_line_finds_the_same_pixels_and_nodata(folder: Path) -> None:
    legend = drawn_legend(4, 300, True)
    expected = labels_of(patches(4, (530, 600), 300), legend)
    path, raw = publish(folder / "map.tif", expected, legend), folder / "map.img"
    subprocess.run(["gdal_translate", "-q", "-of", "ENVI", str(path), str(raw)], check=True)
    np.testing.assert_array_equal(np.fromfile(raw, np.uint16), expected.ravel())
    told = json.loads(subprocess.run(["gdalinfo", "-json", str(path)], capture_output=True, check=True).stdout)
    assert [(band["type"], band["noDataValue"]) for band in told["bands"]] == [("UInt16", 65_535)]


@pytest.mark.parametrize("method", ["NEAREST", "MODE"])
def test_overviews_of_even_blocks_hold_exactly_their_values(folder: Path, method: Any) -> None:
    legend = drawn_legend(5, 400, True)
    codes = np.random.default_rng(5).integers(-1, 400, (276, 152))
    labels = np.kron(labels_of(codes, legend), np.ones((4, 4), np.uint16))
    spec = RasterSpec(
        Grid(UTM.crs, UTM.transform, *labels.shape), nodata=NODATA, overview_resampling=method, dtype="uint16"
    )
    with WorkRaster(folder / "work.tif", spec) as work:
        work.write(0, labels[None])
    write_cog(work, folder / "map.tif")
    for level, step in enumerate((2, 4)):
        with rasterio.open(folder / "map.tif", overview_level=level) as overview:
            np.testing.assert_array_equal(overview.read(1), labels[::step, ::step])


def test_rows_that_a_killed_run_left_are_read_back_from_their_places(folder: Path) -> None:
    labels = labels_of(patches(6, (700, 1100), 300), drawn_legend(6, 300, True))
    spec = RasterSpec(Grid(UTM.crs, UTM.transform, *labels.shape), nodata=NODATA, dtype="uint16")
    first = WorkRaster(folder / "work.tif", spec)
    first.write(0, labels[None, :600])
    first.abandon()
    again = WorkRaster(folder / "work.tif", spec, again=True)
    np.testing.assert_array_equal(again.stored(0, 600)[0], labels[:600])
    again.restore(0, again.stored(0, 600))
    again.write(600, labels[None, 600:])
    again.close()
    np.testing.assert_array_equal(np.concatenate([strip for _, strip in again.strips()]), labels)
    with pytest.raises(StorageError, match="another shape or type"):
        WorkRaster(folder / "work.tif", replace(spec, dtype="uint8", nodata=255), again=True)


@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 999))
def test_areas_of_wide_values_are_those_of_the_same_map_in_uint8(height: int, width: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 200, (height, width))
    narrow, wide = (ClassCounts(Grid(UTM.crs, UTM.transform, height, width), kind) for kind in ("uint8", "uint16"))
    narrow.add(0, codes.astype(np.uint8))
    for row in range(0, height, 7):
        wide.add(row, (codes[row : row + 7] * 300).astype(np.uint16))
    np.testing.assert_array_equal(wide.pixels[: 300 * 256 : 300][:200], narrow.pixels[:200])
    assert wide.pixels.sum() == codes.size
    assert wide.area_m2 is not None
    assert narrow.area_m2 is not None
    np.testing.assert_allclose(wide.area_m2[: 300 * 256 : 300][:200], narrow.area_m2[:200], rtol=1e-12)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 999), st.sampled_from([{"majority_px": 5}, {"sieve_px": 6}, {"majority_px": 3, "sieve_px": 9}]))
def test_cleaning_a_wide_map_is_cleaning_it_in_uint8(seed: int, steps: dict[str, int]) -> None:
    codes, cleaning = patches(seed, (60, 50), 9), Cleaning(**steps)
    few = legend_of(list(range(9)), 255)
    many = drawn_legend(seed, 9, True)
    with tempfile.TemporaryDirectory() as name:
        made = [
            read(publish(Path(name) / f"{legend.dtype}.tif", labels_of(codes, legend), legend, cleaning=cleaning))
            for legend in (few, many)
        ]
    assert (made[0] != labels_of(codes, few)).any()
    np.testing.assert_array_equal(made[1], labels_of(np.where(made[0] == 255, -1, made[0].astype(int)), many))


def test_clouds_of_wide_values_grow_and_vanish_as_in_uint8(folder: Path) -> None:
    few = legends()["cloudsen12"]
    many = Legend(few.name, tuple(replace(cls, value=cls.value * 20_000) for cls in few.classes), NODATA)
    codes = patches(8, (60, 50), 4)
    cleaning = Cleaning(min_object_px=6, dilate_px=2)
    made = [
        read(publish(folder / f"{legend.dtype}.tif", labels_of(codes, legend), legend, cleaning=cleaning))
        for legend in (few, many)
    ]
    assert (made[0] != labels_of(codes, few)).any()
    np.testing.assert_array_equal(made[1], np.where(made[0] == 255, NODATA, made[0] * 20_000.0))


def test_a_pixel_that_was_changed_afterwards_is_found(folder: Path) -> None:
    legend = drawn_legend(9, 300, True)
    path = publish(folder / "map.tif", labels_of(patches(9, (60, 50), 300), legend), legend)
    assert verify_map(path).is_intact
    missing = next(value for value in range(NODATA) if value not in legend.values)
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.write(np.full((1, 1), missing, np.uint16), 1, window=rasterio.windows.Window(3, 4, 1, 1))
    assert f"values [{missing}] are no classes" in " ".join(verify_map(path).problems["pixels"])


def test_pictures_and_pages_show_the_colour_of_every_value(folder: Path) -> None:
    legend = drawn_legend(19, 300, True)
    labels = labels_of(patches(19, (60, 50), 300), legend)
    path = publish(folder / "map.tif", labels, legend)
    rgb = {cls.value: (*cls.rgb, 255) for cls in legend.classes} | {NODATA: (0, 0, 0, 0)}
    picture = read_picture(path, 100)
    assert picture.colors().tolist() == [[list(rgb[value]) for value in row] for row in labels.tolist()]
    with opened_map(path) as file:
        facts = _view_facts(PageMap(read_map(path, file)[0], picture, None))
    shown = np.frombuffer(zlib.decompress(base64.b64decode(facts["labels"])), "<u2")
    np.testing.assert_array_equal(shown.reshape(labels.shape), labels)


def test_an_opened_map_says_its_values_in_its_own_type(folder: Path) -> None:
    legend = drawn_legend(10, 300, True)
    labels = labels_of(patches(10, (60, 50), 300), legend)
    array = open_result(publish(folder / "map.tif", labels, legend))
    np.testing.assert_array_equal(array.values, labels)
    assert array.dtype == array.attrs["flag_values"].dtype == array.attrs["_FillValue"].dtype == np.uint16
    assert array.attrs["flag_values"].tolist() == list(legend.values)
    assert array.attrs["_FillValue"] == NODATA


@pytest.mark.parametrize("count", [253, 254, 300])
def test_a_wide_map_and_a_reference_agree_as_often_as_their_pixels(folder: Path, count: int) -> None:
    legend = drawn_legend(11, count, False)
    called, truth = (patches(seed, (90, 80), count) for seed in (11, 12))
    truth = np.where(np.random.default_rng(13).random(truth.shape) < 0.7, called, truth)
    maps = [publish(folder / f"{k}.tif", labels_of(codes, legend), legend) for k, codes in enumerate((called, truth))]
    report = compare_map(*maps, CompareOptions(block_px=40))
    both = (called >= 0) & (truth >= 0)
    expected = np.zeros((count, count), int)
    np.add.at(expected, (truth[both], called[both]), 1)
    np.testing.assert_array_equal(report.confusion.counts, expected)
    assert report.unanswered == int(((truth >= 0) & (called < 0)).sum())
    assert report.figures["overall_accuracy"] == pytest.approx(np.trace(expected) / expected.sum())
    same = compare_map(maps[0], maps[0], CompareOptions(block_px=40))
    assert same.figures["mean_boundary_f1"] == 1


def test_stated_legends_may_hold_255_only_beside_larger_values() -> None:
    wide = MapClasses.stated("255=a,300=b,65534=c")
    assert (wide.legend.nodata, wide.numbers) == (65_535, {255: 0, 300: 1, 65_534: 2})
    for text, most in (("255=a", 254), ("254=a,255=b", 254), ("300=a,65535=b", 65_534)):
        with pytest.raises(UsageError, match=f"is no value from 0 to {most}"):
            MapClasses.stated(text)


def test_a_value_that_a_wide_reference_does_not_tell_is_refused(folder: Path) -> None:
    legend = legend_of(list(range(1000, 1300)))
    labels = labels_of(patches(14, (40, 40), 300), legend)
    path, reference = publish(folder / "map.tif", labels, legend), folder / "reference.tif"
    strange = labels.copy()
    strange[0, 0] = 255  # what labels of uint8 store where nothing is known
    with rasterio.open(path) as file, rasterio.open(reference, "w", **{**file.profile, "driver": "GTiff"}) as copy:
        copy.write(strange, 1)
    with pytest.raises(InputError, match="255  1 px"):
        compare_map(path, reference, CompareOptions(block_px=40))


def test_counts_that_the_memory_does_not_hold_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    legend = drawn_legend(15, 300, True)
    path = publish(folder / "map.tif", labels_of(patches(15, (60, 60), 300), legend), legend)
    monkeypatch.setattr(against_map_module, "free_memory_bytes", lambda: 2**20)
    with pytest.raises(UsageError, match="300 classes in 9 parts") as caught:
        compare_map(path, path, CompareOptions(block_px=20))
    assert "--block" in caught.value.hint


def test_polygons_of_a_wide_map_cover_the_pixels_of_each_class(folder: Path) -> None:
    legend = drawn_legend(16, 300, True)
    labels = labels_of(patches(16, (60, 50), 300), legend)
    report = write_polygons(publish(folder / "map.tif", labels, legend), folder / "out.gpkg")
    assert {one.value: one.pixels for one in report.classes} == {
        value: int((labels == value).sum()) for value in legend.values
    }
    assert report.polygons > 100


def test_a_composite_of_wide_maps_is_refused_with_the_reason(folder: Path) -> None:
    legend = drawn_legend(17, 300, True)
    for day in (1, 2):
        publish(folder / f"s{day}_map.tif", labels_of(patches(day, (20, 20), 300), legend), legend)
    with pytest.raises(InputError, match="holds classes as uint16") as caught:
        compose([folder], folder / "composite.tif")
    assert "255 classes" in caught.value.hint


def test_a_run_with_300_classes_takes_no_more_than_is_planned(folder: Path) -> None:
    noise = np.random.default_rng(1).normal(size=(300, 64, 64)).astype(np.float32)
    engine = FakeEngine(300, lambda pixels: np.repeat(noise[None], len(pixels), 0))
    scene = write_scene(folder / "scene.tif", np.full((1, 150, 1200), STEP, np.float32), bands=("red",))
    options = PredictOptions(sidecars=False, overwrite=True, batch=1)
    options = replace(options, scene=replace(options.scene, radiometry="reflectance"))
    small = write_scene(folder / "small.tif", np.full((1, 64, 64), STEP, np.float32), bands=("red",))
    bundle = fake_bundle(legend=drawn_legend(18, 300, True))
    predict_scene(small, folder / "map.tif", bundle, engine, options)  # what is loaded once
    tracemalloc.start()
    report = predict_scene(scene, folder / "map.tif", bundle, engine, options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    planned = report.memory[0].to_json()["parts_bytes"]
    assert peak <= sum(planned.values()) - planned["network"] - planned["block cache"]


def test_the_identity_engine_names_256_classes(folder: Path) -> None:
    """The smallest legend that uint8 cannot hold, by the engine of the other tests."""
    legend = legend_of(list(range(256)))
    one_hot = IdentityEngine(256).function(np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16))
    mosaic = Mosaic(plan := TilePlan.cover(16, 16, 16, 0), legend, "hann")
    tiles = [row for tile in plan for row in mosaic.add(tile, one_hot[0], np.ones((16, 16), bool))]
    labels = np.concatenate([row.labels for row in [*tiles, *mosaic.finish()]])
    np.testing.assert_array_equal(labels, np.arange(256).reshape(16, 16))
