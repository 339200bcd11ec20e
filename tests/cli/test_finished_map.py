"""Options of ``classify`` and ``cloudmask`` that say what becomes of the map: where they are, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoseg_cli.catalog import legends
from geoseg_cli.engines.fake_engine import IdentityEngine
from tests.cli.conftest import Run
from tests.fakes.bundles import card_fields
from tests.test_finished_map import cleaned_plainly, patches
from tests.test_predict import read, write_scene


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    folder.mkdir()
    numbers, valid = patches(70, 60, 4)
    return write_scene(folder / "scene.tif", numbers.astype(int), valid)


@pytest.fixture
def land_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Path:
    """A bundle of land cover, and an engine with as many classes."""
    import geoseg_cli.engines

    monkeypatch.setattr(geoseg_cli.engines, "choose_engine", lambda bundle, options: (IdentityEngine(11), "fake"))
    folder = tmp_path / "land"
    folder.mkdir()
    (folder / "item.json").write_text(json.dumps(card_fields(legends()["esa-worldcover"], "land-cover")))
    return folder


def test_a_cloud_mask_with_every_option_is_what_plain_arrays_give(run: Run, scene: Path, model: Path) -> None:
    out = scene.with_name("mask.tif")
    done = run(
        "cloudmask", scene, "--model", model, "-o", out, "--schema", "scl", "--min-size", 30, "--dilate", 2, "--json"
    )  # fmt: skip
    assert done.code == 0, done.err
    from geoseg_cli.results.clean_map import Cleaning

    numbers, valid = patches(70, 60, 4)
    raw = np.where(valid, numbers, 255).astype(np.uint8)
    expected = cleaned_plainly(raw, Cleaning(30, 2), {0: 7, 1: 9, 2: 10, 3: 3})
    np.testing.assert_array_equal(read(out)[0], expected)
    report = json.loads(done.out)
    assert report["legend"] == "sentinel-2-scl"
    assert list(report["cleaning"]) == ["min_object_px", "dilate_px", "legend"]
    for loss in report["cleaning"]["legend"]["losses"]:
        assert done.err.count(loss) == 1
        assert done.out.count(json.dumps(loss)) == 1
    assert "clouds of fewer than 30 px become clear; clouds grow by 2 px; classes become those of sentinel" in done.err


def test_land_cover_with_every_option(run: Run, scene: Path, land_model: Path) -> None:
    done = run(
        "classify", scene, "--model", land_model, "--legend", "aras400k", "--majority", 3, "--sieve", 6, "--json"
    )  # fmt: skip
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert [row["name"] for row in report["classes"]] == [one.name for one in legends()["aras400k"].classes]
    assert (report["cleaning"]["majority_px"], report["cleaning"]["sieve_px"]) == (3, 6)
    assert "majority in 3 x 3 px; parts of fewer than 6 px" in done.err
    assert run("verify", report["outputs"]["labels"]).code == 0


@pytest.mark.parametrize("schema", ["cloudsen12", "binary", "valid", "scl"])
def test_a_schema_is_the_legend_of_the_map_and_the_own_one_changes_nothing(
    run: Run, scene: Path, model: Path, schema: str
) -> None:
    report = json.loads(run("cloudmask", scene, "--model", model, "--schema", schema, "--json").out)
    names = {"cloudsen12": "cloudsen12", "binary": "cloud-binary", "valid": "cloud-valid", "scl": "sentinel-2-scl"}
    assert report["legend"] == names[schema]
    assert (report["cleaning"] == {}) == (schema == "cloudsen12")


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("classify", "--schema", "binary"), ("classify", "--dilate", 1), ("classify", "--min-size", 2),
        ("classify", "--threshold", 0.5), ("cloudmask", "--legend", "aras400k"), ("cloudmask", "--sieve", 3),
        ("cloudmask", "--majority", 3), ("cloudmask", "--schema", "esa-worldcover"), ("cloudmask", "--min-size", 0),
        ("cloudmask", "--min-size", "1.5"), ("cloudmask", "--dilate", -1), ("cloudmask", "--dilate", 255),
        ("cloudmask", "--threshold", 0), ("cloudmask", "--threshold", 1.01), ("cloudmask", "--threshold", "nan"),
        ("cloudmask", "--format", "png"), ("cloudmask", "--co", "TFW=YES"),
    ],
)  # fmt: skip
def test_an_option_of_the_other_command_or_a_value_that_cannot_be_meant_ends_with_2(
    run: Run, scene: Path, model: Path, command: str, option: str, value: object
) -> None:
    done = run(command, scene, "--model", model, option, value)
    assert (done.code, done.out) == (2, "")
    assert [path.name for path in scene.parent.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--legend", "cloudsen12"], "cannot be turned into"),
        (["--legend", "corine"], "there is no legend 'corine'"),
        (["--majority", 4], "majority window of 4"),
        (["--sieve", 0], "--sieve 0"),
        (["--legend", "aras400k", "--mask-clouds", "--clouds-as", "class"], "--legend cannot turn"),
        (["--format", "gtiff", "--co", "LEVEL=9"], "LEVEL"),
        (["--co", "COMPRESS=LZW", "--co", "COMPRESS=ZSTD"], "twice"),
    ],
)
def test_wrong_options_of_land_cover_end_with_2_before_the_first_scene(
    run: Run, scene: Path, land_model: Path, options: list[object], words: str
) -> None:
    done = run("classify", scene, scene.with_name("absent.tif"), "--model", land_model, *options)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "scene.tif" not in done.err


def test_losses_are_told_once_however_many_scenes(run: Run, scene: Path, model: Path) -> None:
    other = scene.with_name("other.tif")
    other.write_bytes(scene.read_bytes())
    done = run("cloudmask", scene, other, "--model", model, "--schema", "binary")
    assert done.code == 0
    assert done.err.count("Thick and thin cloud become one class.") == 1


def test_a_dry_run_tells_what_would_be_done_and_refuses_the_same(run: Run, scene: Path, model: Path) -> None:
    matrix = scene.with_name("matrix.csv")
    matrix.write_text("map/reference,clear,cloud\nclear,8,2\ncloud,1,9\n")
    given = ("cloudmask", scene, "--model", model, "--dry-run", "--json", "--accuracy", matrix)
    done = run(*given, "--schema", "binary", "--threshold", 0.4, "--format", "gtiff")
    report = json.loads(done.out)
    assert (report["legend"], report["cloud_threshold"], report["format"]) == ("cloud-binary", 0.4, "gtiff")
    assert "cloud: probability of 0.4 or more" in done.err
    assert run(*given).code == 65, "the table is of other classes"
    assert run(*given, "--accuracy", matrix.with_name("absent.csv")).code == 66


def test_adjusted_areas_stand_in_report_and_messages(run: Run, scene: Path, model: Path) -> None:
    matrix = scene.with_name("matrix.csv")
    matrix.write_text("map/reference,clear,cloud\nclear,8,2\ncloud,1,9\n")
    given = ("cloudmask", scene, "--model", model, "--accuracy", matrix, "--overwrite")
    done = run(*given, "--schema", "binary", "--json")
    adjusted = json.loads(done.out)["adjusted"]
    areas = json.loads(run("areas", scene.with_name("scene_cloudmask.tif"), "--accuracy", matrix, "--json").out)
    assert adjusted == areas["adjusted"]
    assert "adjusted ha" in done.err
    assert "drawn at random within each class of this very map" in done.err
    matrix.write_text("map/reference,clear,thick_cloud\nclear,8,2\nthick_cloud,1,9\n")
    done = run(*given)
    assert done.code == 0
    assert "warning: no adjusted areas" in done.err


@pytest.mark.parametrize("option", ["compress=zstd", "COMPRESS=ZSTD", "Compress=Zstd"])
@pytest.mark.parametrize("name", ["cog", "gtiff"])
def test_creation_options_work_in_any_case_and_messages_repeat_them(
    run: Run, scene: Path, model: Path, option: str, name: str
) -> None:
    assert run("cloudmask", scene, "--model", model, "--format", name, "--co", option).code == 0
    with rasterio.open(scene.with_name("scene_cloudmask.tif")) as made:
        assert made.compression.name == "zstd"
    done = run("cloudmask", scene, "--model", model, "--format", name, "--co", option.replace("=", "=x"))
    assert done.code == 2
    assert f"x{option.partition('=')[2]} is unknown or would change pixels" in done.err


def test_verify_says_that_a_map_is_a_plain_geotiff(run: Run, scene: Path, model: Path) -> None:
    out = run("cloudmask", scene, "--model", model, "--format", "gtiff").out.strip()
    done = run("verify", out)
    assert (done.code, done.out) == (0, f"{out}: intact, 9 checks; a plain GeoTIFF\n")
    assert json.loads(run("verify", out, "--json").out)["format"] == "gtiff"
