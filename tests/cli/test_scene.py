"""``geoseg scene info``: what is told of a scene, and that a run decides the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoseg_cli.scenes import SceneOptions
from geoseg_cli.scenes.describe import describe_scene
from tests.cli.conftest import Run
from tests.conftest import MakeScene, write_scene
from tests.scenes.product_fixtures import make_landsat
from tests.scenes.safe_fixtures import ALL_MINUS_1000, Text, native_images, write_safe
from tests.test_predict import random_scene

Info = Callable[..., Any]
DN = [(1e-4, 0.0)]


def numbers(bands: int = 2, height: int = 30, width: int = 40) -> Any:
    return np.random.default_rng(1).integers(300, 6000, (bands, height, width), dtype=np.uint16)


@pytest.fixture
def only_fake(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake bundle, which needs red and can use nir, is the only one that came with geoseg."""
    import geoseg_cli.bundle

    monkeypatch.setattr(geoseg_cli.bundle, "bundle_folders", lambda: [model])


@pytest.fixture
def info(run: Run, only_fake: None) -> Info:
    """The JSON of a scene that can be read."""

    def of(*arguments: object) -> Any:
        done = run("scene", "info", *arguments, "--json")
        assert (done.code, done.err) == (0, "")
        return json.loads(done.out)

    return of


def test_a_geotiff_is_told_band_by_band(info: Info, make_scene: MakeScene) -> None:
    scene = make_scene(numbers(), bands=["B04", "B8A"], tags=DN * 2, nodata=0)
    found = info(scene)
    assert (found["scene"], found["layout"]) == (str(scene), "GeoTIFF")
    assert (found["size_px"], found["crs"], found["gsd_m"]) == ([30, 40], "EPSG:32631", [10, 10])
    assert found["bands"] == [
        {
            "index": 1, "name": "B04", "band": "red",
            "sensors": {"sentinel-2": {"common_names": ["red"], "wavelength_nm": 664.6}},
        },
        {
            "index": 2, "name": "B8A", "band": "nir08",
            "sensors": {"sentinel-2": {"common_names": ["nir08"], "wavelength_nm": 864.7}},
        },
    ]  # fmt: skip
    assert found["bands_refused"] is None
    assert (found["radiometry"]["rung"], found["radiometry"]["scale"]) == ("tags", [1e-4, 1e-4])
    assert found["nodata"] == "nodata tag 0"
    assert found["bundles"] == [
        {
            "bundle": "fake-bundle", "task": "cloud", "runs": True, "absent_bands": ["nir"], "filled_bands": [],
            "resampled_gsd_m": None, "refused": None, "warnings": [],
        }
    ]  # fmt: skip


def test_the_text_says_the_same_on_stdout(run: Run, only_fake: None, make_scene: MakeScene) -> None:
    done = run("scene", "info", make_scene(numbers(), bands=["B04", "B08"], tags=DN * 2, nodata=0))
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "  grid: 30 x 40 px, EPSG:32631, pixels of 10 x 10 m, as stored" in lines
    assert "    1 B04: red, 664.6 nm (sentinel-2)" in lines
    assert "  radiometry: 0.0001 x number +0, as the scale and offset tags of the bands say [tags]" in lines
    assert "  valid: 100.0% of a sample of 1,200 of 1,200 pixels" in lines
    assert "  fake-bundle (cloud) can run" in lines


def test_bands_without_names_are_told_with_the_remedy_and_their_numbers_are_decided(
    info: Info, run: Run, make_scene: MakeScene
) -> None:
    scene = make_scene(numbers(), tags=DN * 2)
    found = info(scene)
    assert [(band["name"], band["band"], band["sensors"]) for band in found["bands"]] == [(None, None, {})] * 2
    assert "no band has a name" in found["bands_refused"]["message"]
    assert "--bands" in found["bands_refused"]["hint"]
    assert "--sensor" in found["bands_refused"]["hint"]
    assert found["radiometry"]["rung"] == "tags"
    assert found["bundles"][0]["runs"] is False
    named = info(scene, "--bands", "-,B04")
    assert (named["bands_refused"], named["bands"][1]["band"], named["bundles"][0]["runs"]) == (None, "red", True)
    assert run("scene", "info", scene, "--bands", "red").code == 65
    assert run("scene", "info", scene, "--bands", "red,purple").code == 65


def test_a_sensor_names_the_bands_of_a_file_that_has_as_many(info: Info, run: Run, make_scene: MakeScene) -> None:
    found = info(make_scene(numbers(13), tags=DN * 13), "--sensor", "sentinel-2")
    assert found["sensor"] == "sentinel-2"
    assert [band["band"] for band in found["bands"]][:5] == ["coastal", "blue", "green", "red", "rededge071"]
    refused = run("scene", "info", make_scene(numbers(4), tags=DN * 4), "--sensor", "sentinel-2")
    assert refused.code == 65
    assert "4 bands" in refused.err


def test_names_that_several_sensors_use_are_told_with_each_meaning(info: Info, make_scene: MakeScene) -> None:
    scene = make_scene(numbers(), bands=["B4", "B5"], tags=DN * 2)
    found = info(scene)
    assert found["bands"][0]["band"] is None
    meanings = {name: one["common_names"][0] for name, one in found["bands"][0]["sensors"].items()}
    assert meanings == {"sentinel-2": "red", "landsat-8": "red", "landsat-5": "nir08"}
    assert "--sensor landsat-5" in found["bands_refused"]["hint"]
    decided = info(scene, "--sensor", "landsat-5")
    assert [band["band"] for band in decided["bands"]] == ["nir08", "swir16"]
    assert decided["bands_refused"] is None


def test_bands_that_are_clear_count_though_others_are_not(info: Info, make_scene: MakeScene) -> None:
    found = info(make_scene(numbers(3), bands=["green", "B4", None], tags=DN * 3))
    assert [band["band"] for band in found["bands"]] == ["green", None, None]
    assert found["bands_refused"] is not None
    assert found["radiometry"]["rung"] == "tags"


def test_two_bands_of_one_name_are_told(info: Info, make_scene: MakeScene) -> None:
    found = info(make_scene(numbers(), bands=["red", "red"], tags=DN * 2))
    assert "both called red" in found["bands_refused"]["message"]
    assert found["bundles"][0]["runs"] is False


def test_numbers_of_unknown_meaning_are_told_with_the_remedy(info: Info, run: Run, make_scene: MakeScene) -> None:
    scene = make_scene(numbers(), bands=["red", "nir"])
    found = info(scene)
    assert found["radiometry"] is None
    assert "--radiometry dn-1000" in found["radiometry_refused"]["hint"]
    assert "--radiometry" in found["bundles"][0]["refused"]["hint"]
    assert "radiometry not decided: nothing says" in run("scene", "info", scene).out
    decided = info(scene, "--radiometry", "dn-1000")
    assert decided["radiometry"]["offset"] == [-0.1, -0.1]
    assert decided["bundles"][0]["runs"] is True


def test_a_bundle_runs_when_its_own_bands_mean_something(info: Info, make_scene: MakeScene) -> None:
    """Scale tags on some bands only are refused, unless the model leaves the others alone."""
    found = info(make_scene(numbers(3), bands=["red", "nir", "swir22"], tags=[*DN * 2, (1.0, 0.0)]))
    assert found["radiometry"] is None
    assert found["bundles"][0]["runs"] is True


def test_a_missing_band_is_told_and_can_be_filled(info: Info, make_scene: MakeScene) -> None:
    scene = make_scene(numbers(1), bands=["nir"], tags=DN)
    assert "missing band red" in info(scene)["bundles"][0]["refused"]["message"]
    filled = info(scene, "--fill", "red=0.1")["bundles"][0]
    assert (filled["runs"], filled["filled_bands"], filled["absent_bands"]) == (True, ["red"], [])


@pytest.mark.parametrize(
    ("arguments", "runs", "shown_m"),
    [
        ([], False, None),
        (["--gsd", "10"], True, 10),
        (["--gsd", "native"], False, None),
        (["--gsd", "60"], False, None),
    ],
)
def test_pixels_far_from_the_model_s_are_told(
    info: Info, make_scene: MakeScene, arguments: list[str], runs: bool, shown_m: float | None
) -> None:
    scene = make_scene(numbers(), bands=["red", "nir"], tags=DN * 2, transform=Affine(60, 0, 5e5, 0, -60, 4e6))
    fit = info(scene, *arguments)["bundles"][0]
    assert (fit["runs"], fit["resampled_gsd_m"]) == (runs, shown_m)
    assert runs or "60 x 60 m" in fit["refused"]["message"] or "--gsd 60" in fit["refused"]["message"]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 600), width=st.integers(1, 600), options=st.sampled_from(["all", "any"]), seed=st.integers(0)
)
def test_the_sample_counts_each_pixel_once_and_all_of_a_small_scene(
    tmp_path: Path, height: int, width: int, options: Any, seed: int
) -> None:
    pixels = np.random.default_rng(seed % 2**32).integers(0, 3, (2, height, width), dtype=np.uint16)
    path = write_scene(tmp_path / "s.tif", pixels, bands=["red", "nir"], tags=DN * 2, nodata=0)
    sample = describe_scene(path, SceneOptions(valid=options)).sample
    assert sample.pixels == min(height, 512) * min(width, 512)
    if sample.pixels == height * width:
        combine = np.all if options == "all" else np.any
        assert sample.valid == combine(pixels != 0, axis=0).sum()


def test_a_safe_folder_is_told_on_the_grid_of_its_finest_bands(info: Info, tmp_path: Path) -> None:
    images = native_images("L2A", np.random.default_rng(0), add=1000)
    found = info(write_safe(tmp_path, Text(adds=ALL_MINUS_1000), images))
    assert (found["layout"], found["sensor"]) == ("Sentinel-2 L2A SAFE folder", "sentinel-2")
    assert (found["size_px"], found["gsd_m"]) == ([120, 120], [10, 10])
    assert len(found["bands"]) == 12
    assert (found["radiometry"]["rung"], set(found["radiometry"]["offset"])) == ("metadata", {-0.1})
    assert found["bundles"][0]["runs"] is True


def test_a_landsat_folder_is_told_with_the_sensor_s_own_bands(info: Info, tmp_path: Path) -> None:
    found = info(make_landsat(tmp_path / "scene", "LANDSAT_5", "TM").folder)
    assert found["sensor"] == "landsat-5"
    assert [(band["name"], band["band"]) for band in found["bands"]][2:4] == [("SR_B3", "red"), ("SR_B4", "nir08")]


@pytest.mark.parametrize("name", ["tags", "baseline", "float"])
def test_a_run_decides_as_info_tells(info: Info, run: Run, tmp_path: Path, model: Path, name: str) -> None:
    pixels, tags, folder = numbers(), [], tmp_path
    if name == "tags":
        tags = [(1e-4, -0.1)] * 2
    elif name == "baseline":
        folder = tmp_path / "S2A_MSIL2A_20230625T104621_N0509_R051_T31UFS_20230625T150000.copy"
        folder.mkdir()
    else:
        pixels = (pixels / 10_000).astype(np.float32)
    scene = write_scene(
        folder / "s.tif", pixels, bands=["red", "nir"], tags=tags, nodata=0, transform=Affine(30, 0, 0, 0, 30, 0)
    )
    told = info(scene)
    plan = json.loads(run("cloudmask", scene, "--model", model, "--dry-run", "--json").out)
    assert told["radiometry"]["rung"] == name
    assert told["radiometry"]["reason"] == plan["radiometry"]["reason"]
    for key in ("size_px", "crs", "gsd_m", "orientation", "nodata"):
        assert told[key] == plan[key], key
    assert told["bundles"][0]["resampled_gsd_m"] == plan["resampled_gsd_m"][0] == 10
    assert set(told["warnings"]) <= set(plan["warnings"])


@pytest.mark.parametrize(("kind", "code"), [("missing", 66), ("text", 65), ("folder", 65), ("cut", 74), ("points", 65)])
def test_a_scene_that_cannot_be_read_ends_with_the_error_s_code(run: Run, tmp_path: Path, kind: str, code: int) -> None:
    scene = tmp_path / f"{kind}.tif"
    if kind == "text":
        scene.write_text("no raster")
    elif kind == "folder":
        scene.mkdir()
    elif kind != "missing":
        random_scene(scene, 300, 300)
    if kind == "cut":
        scene.write_bytes(scene.read_bytes()[:9000])
    if kind == "points":
        with rasterio.open(scene, "w", driver="GTiff", dtype="uint16", count=1, height=4, width=4) as file:
            file.gcps = ([rasterio.control.GroundControlPoint(0, 0, 1, 1)], rasterio.crs.CRS.from_epsg(4326))
    done = run("scene", "info", scene)
    assert (done.code, done.out) == (code, "")
    assert "\n  -> " in done.err


def test_a_name_out_of_a_file_cannot_steer_the_terminal(run: Run, only_fake: None, make_scene: MakeScene) -> None:
    done = run("scene", "info", make_scene(numbers(), bands=["red", "\x1b[31mnir"], tags=DN * 2))
    assert done.code == 0
    assert "\x1b" not in done.out


def test_a_scene_without_crs_has_no_pixel_size(info: Info, make_scene: MakeScene) -> None:
    found = info(make_scene(numbers(), bands=["red", "nir"], tags=DN * 2, crs=None))
    assert (found["crs"], found["gsd_m"]) == (None, None)
    assert any("no CRS" in warning for warning in found["warnings"])


def test_the_bundles_that_came_with_geoseg_are_tried(run: Run, make_scene: MakeScene) -> None:
    bands = ["B02", "B03", "B04", "B08"]
    found = json.loads(run("scene", "info", make_scene(numbers(4), bands=bands, tags=DN * 4), "--json").out)
    fits = {fit["bundle"]: fit for fit in found["bundles"]}
    assert {"cloud-mscloudcam", "landcover-lale"} <= set(fits)
    assert fits["landcover-lale"]["absent_bands"] == [
        "rededge071", "rededge075", "rededge078", "swir16", "swir22",
    ]  # fmt: skip


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom geoseg_cli.cli import main\nsys.argv = ['geoseg', 'scene', 'info', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sorted({'torch', 'rasterio', 'numpy', 'pyproj'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].strip() == "LOADED"
