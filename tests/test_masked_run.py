"""One pass for two maps: land cover with its clouds masked, over blocks that are read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from geoseg_cli.bundle import Bundle
from geoseg_cli.catalog import legends
from geoseg_cli.engines.fake_engine import FakeEngine, IdentityEngine
from geoseg_cli.errors import UsageError
from geoseg_cli.job import PredictOptions, open_masked_job
from geoseg_cli.predict import CloudModel, predict_scene
from geoseg_cli.results.verify import verify_map
from tests.fakes.bundles import STEP, fake_bundle
from tests.test_predict import read

FloatArray = npt.NDArray[np.float32]

LAND_VALUES = (10, 30, 80)
DN_PER_CLASS = int(STEP * 10_000)


def land_bundle(**fields: Any) -> Bundle:
    legend = legends()["esa-worldcover"].subset(LAND_VALUES)
    return fake_bundle(legend=legend, task="land-cover", **fields)


def land_logits(pixels: FloatArray) -> FloatArray:
    """Class k where red is k, as the identity engine says, with the red number's place in the legend."""
    numbers = np.rint(pixels[:, 0]).astype(int)
    return (np.arange(3)[None, :, None, None] == (numbers % 3)[:, None]).astype(np.float32)


class Scene:
    """Two bands: red tells land and clouds by its number, near infrared has holes of its own."""

    def __init__(self, path: Path, height: int, width: int, seed: int = 0, **profile: Any) -> None:
        rng = np.random.default_rng(seed)
        self.numbers, self.path = rng.integers(0, 4, (height, width)), path
        self.valid = rng.random((height, width)) > 0.1
        pixels = np.where(self.valid, self.numbers * DN_PER_CLASS, 65_535).astype(np.uint16)
        grid = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 499_980, 0, -10, 4_900_020)}
        shape = {"height": height, "width": width, "count": 1, "dtype": "uint16", "nodata": 65_535}
        with rasterio.open(path, "w", driver="GTiff", **shape, **grid, **profile) as file:
            file.write(pixels, 1)
            file.set_band_description(1, "red")
            file.scales = (1e-4,)

    def expected(self, hidden_as: str) -> npt.NDArray[np.uint8]:
        land = np.asarray(LAND_VALUES)[self.numbers % 3]
        hidden = np.full_like(land, 255) if hidden_as == "nodata" else self.numbers
        labels = np.where(self.numbers == 0, land, hidden)
        return np.where(self.valid, labels, 255).astype(np.uint8)


def clouds(hidden_as: Any, **fields: Any) -> CloudModel:
    return CloudModel(fake_bundle(**fields), IdentityEngine(4), hidden_as)


@pytest.mark.parametrize("hidden_as", ["nodata", "class"])
@pytest.mark.parametrize("tiling", [(64, 16), (32, 8), (128, 0)])
def test_the_map_is_that_of_the_land_hidden_below_that_of_the_clouds(
    tmp_path: Path, hidden_as: str, tiling: tuple[int, int]
) -> None:
    scene = Scene(tmp_path / "scene.tif", 150, 130)
    tile, overlap = tiling
    # The two bundles cut the scene differently.
    mask = clouds(hidden_as, tile_px=tile, overlap_px=overlap)
    report = predict_scene(
        scene.path, tmp_path / "map.tif", land_bundle(), FakeEngine(3, land_logits), PredictOptions(), clouds=mask
    )
    expected = scene.expected(hidden_as)
    np.testing.assert_array_equal(read(tmp_path / "map.tif")[0], expected)
    counts = {area.value: area.pixels for area in report.areas}
    assert counts == {value: int((expected == value).sum()) for value in counts}
    assert set(counts) == {*LAND_VALUES, *((1, 2, 3) if hidden_as == "class" else ())}
    assert report.to_json()["clouds"]["hidden_as"] == hidden_as
    assert verify_map(tmp_path / "map.tif").is_intact
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.tags()["GEOSEG_CLOUD_MODEL"] == "fake-bundle"
        assert made.tags()["GEOSEG_CLOUDS_AS"] == hidden_as


def bytes_asked() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what a process reads")
def test_a_block_that_both_maps_need_is_decoded_once(tmp_path: Path) -> None:
    path = tmp_path / "noise.tif"
    noise = np.random.default_rng(0).integers(1, 60_000, (1024, 1024), np.uint16)
    grid = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 499_980, 0, -10, 4_900_020)}
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    shape = {"height": 1024, "width": 1024, "count": 1, "dtype": "uint16"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **grid, **blocks) as file:
        file.write(noise, 1)
        file.set_band_description(1, "red")
        file.scales = (1e-4,)
    stored, start = path.stat().st_size, bytes_asked()
    options = PredictOptions(sidecars=False)
    engine = FakeEngine(3, land_logits)
    predict_scene(path, tmp_path / "map.tif", land_bundle(), engine, options, clouds=clouds("nodata"))
    both = bytes_asked() - start
    start = bytes_asked()
    predict_scene(path, tmp_path / "alone.tif", land_bundle(), engine, options)
    alone = bytes_asked() - start
    # What both read beside the scene's blocks: the outputs again, and the second opening's sample.
    assert both - alone < 0.25 * stored


@pytest.mark.parametrize("raster", ["probabilities", "entropy", "seams"])
def test_the_classes_of_clouds_have_no_probabilities_of_land(tmp_path: Path, raster: str) -> None:
    scene = Scene(tmp_path / "scene.tif", 40, 40)
    options = PredictOptions(**{raster: tmp_path / "p.tif"})
    with (
        pytest.raises(UsageError, match=f"--{raster} (are those|is that) of land cover"),
        open_masked_job(scene.path, land_bundle(), fake_bundle(), "class", options),
    ):
        pass


def test_confidence_below_clouds_is_that_of_the_clouds_where_they_are_classes(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "scene.tif", 40, 40)
    for hidden_as in ("nodata", "class"):
        options = PredictOptions(confidence=tmp_path / "c.tif", overwrite=True)
        predict_scene(
            scene.path, tmp_path / "map.tif", land_bundle(), FakeEngine(3, land_logits), options,
            clouds=clouds(hidden_as),
        )  # fmt: skip
        labels, confidence = read(tmp_path / "map.tif")[0], read(tmp_path / "c.tif")[0]
        assert ((confidence == 255) == (labels == 255)).all()
        # Softmax of one 1 among three and among four classes, in steps of 1/250.
        sure = {3: round(250 * np.e / (np.e + 2)), 4: round(250 * np.e / (np.e + 3))}
        assert set(confidence[np.isin(labels, LAND_VALUES)]) == {sure[3]}
        assert set(confidence[np.isin(labels, (1, 2, 3))]) == ({sure[4]} if hidden_as == "class" else set())


def test_entropy_is_that_of_the_land_and_hidden_pixels_have_none(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "scene.tif", 40, 40)
    predict_scene(
        scene.path, tmp_path / "map.tif", land_bundle(), FakeEngine(3, land_logits),
        PredictOptions(entropy=tmp_path / "e.tif"), clouds=clouds("nodata"),
    )  # fmt: skip
    labels, entropy = read(tmp_path / "map.tif")[0], read(tmp_path / "e.tif")[0]
    shares = np.exp([1.0, 0, 0]) / np.exp([1.0, 0, 0]).sum()
    assert (labels == 255).any()
    assert ((entropy == 255) == (labels == 255)).all()
    assert set(entropy[labels != 255]) == {round(-250 * (shares * np.log(shares)).sum() / np.log(3))}


def test_seams_are_those_of_the_land_and_hidden_pixels_have_none(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "scene.tif", 40, 112)
    options = PredictOptions(seams=tmp_path / "s.tif", batch=1, overwrite=True)

    def run(mask: CloudModel | None) -> Any:
        calls = iter(range(9))

        def own_class(pixels: FloatArray) -> FloatArray:
            answer = np.zeros((1, 3, *pixels.shape[2:]), np.float32)
            answer[:, next(calls)] = 40
            return answer

        engine = FakeEngine(3, own_class)
        return predict_scene(scene.path, tmp_path / "map.tif", land_bundle(), engine, options, clouds=mask).seams

    alone = run(None)
    bare = read(tmp_path / "s.tif")[0]
    masked = run(clouds("nodata", tile_px=32, overlap_px=8))
    labels, seams = read(tmp_path / "map.tif")[0], read(tmp_path / "s.tif")[0]
    assert alone.disputed > 0
    assert masked == alone
    assert 0 < (labels == 255).mean() < 1
    np.testing.assert_array_equal(seams, np.where(labels == 255, 255, bare))
