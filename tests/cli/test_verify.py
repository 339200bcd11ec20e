"""``geoseg verify``: what it prints and how it exits, on maps that the commands made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rasterio

from tests.cli.conftest import Run
from tests.test_predict import random_scene


@pytest.fixture
def made(run: Run, model: Path, tmp_path: Path) -> Path:
    random_scene(tmp_path / "scene.tif", 90, 70)
    done = run("cloudmask", tmp_path / "scene.tif", "--model", model, "--confidence", tmp_path / "c.tif")
    assert done.code == 0, done.err
    return tmp_path / "scene_cloudmask.tif"


def test_a_fresh_map_is_intact(run: Run, made: Path) -> None:
    done = run("verify", made)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{made}: intact, 9 checks\n"


def test_json_is_one_verdict_a_line(run: Run, made: Path) -> None:
    made.with_suffix(".qml").unlink()
    verdict = json.loads(run("verify", made, "--json").out)
    assert (verdict["map"], verdict["intact"], verdict["problems"]) == (str(made), True, {})
    assert verdict["absent"] == ["scene_cloudmask.qml"]


def test_a_failed_check_is_named_and_ends_with_74(run: Run, made: Path) -> None:
    style = made.with_suffix(".qml")
    style.write_text(style.read_text().replace("Thick", "Thicker"))
    done = run("verify", made)
    assert done.code == 74
    assert "style (scene_cloudmask.qml): " in done.out
    assert "1 of 9 checks failed: style" in done.err
    verdict = json.loads(run("verify", made, "--json").out)
    assert not verdict["intact"]
    assert list(verdict["problems"]) == ["style (scene_cloudmask.qml)"]


@pytest.mark.parametrize(("name", "code"), [("scene.tif", 65), ("nowhere.tif", 66)])
def test_what_cannot_be_verified_ends_with_its_own_code(run: Run, made: Path, name: str, code: int) -> None:
    done = run("verify", made.with_name(name))
    assert done.code == code
    assert "  -> " in done.err
    failure = json.loads(run("verify", made.with_name(name), "--json").out)
    assert failure["error"]["exit_code"] == code


@pytest.mark.parametrize("command", ["verify", "report", "preview", "polygons", "areas"])
def test_a_folder_is_called_one_where_a_map_is_wanted(run: Run, made: Path, command: str) -> None:
    out = {"report": "x.html", "preview": "x.png", "polygons": "x.gpkg"}.get(command)
    done = run(command, made.parent, *(("-o", made.with_name(out)) if out else ()))
    assert done.code == 65
    assert f"{made.parent} is a folder" in done.err
    assert "*.tif" in done.err


def test_one_bad_map_of_several_is_named_and_the_others_are_checked(run: Run, made: Path) -> None:
    done = run("verify", made.with_name("scene.tif"), made)
    assert done.code == 1
    assert f"{made.with_name('scene.tif')}: failed\n" in done.out
    assert f"{made}: intact, 9 checks\n" in done.out
    assert "1 of 2 maps failed" in done.err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_who_wants_quiet_hears_of_failed_maps_alone(run: Run, made: Path, form: list[str]) -> None:
    quiet = run("verify", "-q", *form, made)
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    done = run("verify", "-q", *form, made.with_name("scene.tif"), made)
    assert done.code == 1
    assert done.out == run("verify", *form, made.with_name("scene.tif")).out
    assert "intact" not in done.out


def test_names_of_files_cannot_command_the_terminal(run: Run, made: Path) -> None:
    strange = made.with_name("a\x1b[31m.tif")
    made.rename(strange)
    done = run("verify", strange, strange.with_name("b\x1b.tif"))
    assert "\x1b" not in done.out + done.err


def test_all_that_a_run_wrote_is_intact_together(run: Run, model: Path, tmp_path: Path) -> None:
    random_scene(tmp_path / "scene.tif", 90, 70)
    kinds = ("probabilities", "confidence", "entropy", "seams")
    extras = [word for kind in kinds for word in (f"--{kind}", tmp_path / f"out_{kind}.tif")]
    assert run("cloudmask", tmp_path / "scene.tif", "--model", model, "-o", tmp_path / "out.tif", *extras).code == 0
    written = sorted(tmp_path.glob("out*.tif"))
    done = run("verify", *written, "--json")
    verdicts = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert {verdict["kind"] for verdict in verdicts} == {"labels", *kinds}
    assert all(verdict["intact"] for verdict in verdicts)
    told = run("verify", tmp_path / "out_seams.tif").out
    assert told == f"{tmp_path / 'out_seams.tif'}: intact, 4 checks; seams, without a hash of its own\n"


def test_a_raster_beside_a_map_that_holds_something_else_fails(run: Run, made: Path) -> None:
    path = made.with_name("c.tif")
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        values = file.read(1)
        values[0, 0] = 252
        file.write(values, 1)
        file.scales = (1.0,)
    done = run("verify", path)
    assert done.code == 74
    assert "its scale is not 1 / 250" in done.out
    with rasterio.open(path, "r+") as file:
        file.scales = (1 / 250,)
    done = run("verify", path)
    assert done.code == 74
    assert "values [252] are neither 0 to 250 nor nodata" in done.out
