"""``geoseg evaluate``: tables and files, what is refused with which code, the temperature in the card."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.test_evaluate import add_pair
from tests.test_labels import write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two places, each an image of 60 right pixels of class 1 and 40 that are 2 but called 1."""
    seen = np.ones((10, 10), int)
    truth = np.where(np.arange(100).reshape(10, 10) < 60, 1, 2)
    for place in ("oslo", "rome"):
        add_pair(tmp_path / "eval", f"{place}/x", seen, truth)
    return tmp_path / "eval"


def test_tables_go_to_stdout_and_say_why_there_is_no_interval(run: Run, folder: Path, model: Path) -> None:
    done = run("evaluate", model, folder, "--per", "place")
    assert done.code == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    # Confidence e / (e + 3) = 0.475; IoU (60 / 100 + 0) / 2; F1 (2 * 60 / 160 + 0) / 2, means of classes 1 and 2.
    assert "all 2 2 200 0.600 0.300 0.375 0.125 0.475" in lines
    assert "oslo 1 1 100 0.600 0.300 0.375 0.125 0.475" in lines
    assert "No intervals: 2 places, 5 are needed." in lines
    assert "Thin cloud 0 80 0 0" in lines
    assert "engine fake on cpu" in done.err


def test_json_on_stdout_is_the_whole_report_and_nothing_else(run: Run, folder: Path, model: Path) -> None:
    report = json.loads(run("evaluate", model, folder, "--json", "-").out)
    assert report["total"]["confusion"] == [[0, 0, 0, 0], [0, 120, 0, 0], [0, 80, 0, 0], [0, 0, 0, 0]]
    assert set(report["by_place"]) == {"oslo", "rome"}
    assert report["by_bands"]["red"]["overall_accuracy"] == 0.6
    assert str(folder.parent) not in json.dumps(report)


@pytest.mark.parametrize("name", ["page.html", "diagram.svg"])
def test_files_appear_beside_the_tables_and_are_not_replaced_unasked(
    run: Run, folder: Path, model: Path, tmp_path: Path, name: str
) -> None:
    arguments = ("evaluate", model, folder, "--report", tmp_path / name, "--json", tmp_path / "figures.json")
    done = run(*arguments)
    assert done.code == 0
    assert "No intervals" in done.out
    assert json.loads((tmp_path / "figures.json").read_text())["total"]["pixels"] == 200
    text = (tmp_path / name).read_text()
    assert "fake-bundle on eval" in text
    if name.endswith("svg"):
        ElementTree.fromstring(text)
    assert run(*arguments).code == 73
    assert run(*arguments, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--drop-bands", "nir", "--bands-only", "red"), 2, "exclude each other"),
        (("--report", "x.pdf"), 2, "neither .svg nor .html"),
        (("--fit-temperature", "--json", "-"), 2, "--json has no meaning"),
        (("--ignore", "a"), 2, "not whole numbers"),
        (("--batch", "0"), 2, "--batch"),
        (("--drop-bands", "red"), 65, "needs band red"),
        (("--bands-only", "nir"), 65, "needs red"),
        (("--json", "absent/figures.json"), 73, "there is no folder"),
        (("--drop-bands", ""), 2, "--drop-bands is empty"),
    ],
)
def test_options_that_make_no_sense_end_the_run(
    run: Run, folder: Path, model: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    done = run("evaluate", model, folder, *options)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_no_folder_no_pair_and_no_bundle_have_their_codes(run: Run, folder: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("evaluate", model, tmp_path / "absent").code == 66
    assert run("evaluate", model, tmp_path / "empty").code == 66
    assert run("evaluate", "no-such-bundle", folder).code == 66


def test_unknown_values_can_be_ignored_as_the_message_says(run: Run, folder: Path, model: Path) -> None:
    stored = np.where(np.arange(100).reshape(10, 10) < 60, 1, 99).astype(np.uint8)
    write(folder / "rome" / "x_label.tif", stored)
    done = run("evaluate", model, folder)
    assert (done.code, done.out) == (65, "")
    assert "--ignore 99" in done.err
    report = json.loads(run("evaluate", model, folder, "--ignore", "99", "--json", "-").out)
    assert report["by_place"]["rome"]["overall_accuracy"] == 1


def test_an_output_must_not_replace_a_label(run: Run, folder: Path, model: Path) -> None:
    label = folder / "rome" / "x_label.tif"
    before = label.read_bytes()
    done = run("evaluate", model, folder, "--json", label, "--overwrite")
    assert done.code == 2
    assert label.read_bytes() == before


def test_fitting_writes_the_card_says_on_what_and_the_next_map_uses_it(
    run: Run, folder: Path, model: Path, tmp_path: Path
) -> None:
    done = run("evaluate", model, folder, "--fit-temperature")
    # 60 % right: one logit of 1 / T against three of 0 gives e^(1/T) / (e^(1/T) + 3) = 0.6, so T = 1 / ln 4.5.
    assert done.code == 0
    assert float(done.out) == pytest.approx(1 / np.log(4.5), rel=1e-3)
    assert "fitted on eval (2 places, 200 pixels)" in done.err
    card = json.loads((model / "item.json").read_text())
    assert card["properties"]["mlm:hyperparameters"]["geoseg"]["calibration"]["pixels"] == 200
    scene, made = folder / "rome" / "x.tif", tmp_path / "map.tif"
    report = json.loads(run("cloudmask", scene, "--model", model, "-o", made, "--json").out)
    assert report["temperature"] == float(done.out)
    after = json.loads(run("evaluate", model, folder, "--json", "-").out)
    assert after["total"]["calibration"]["mean_confidence"] == pytest.approx(0.6, abs=1e-3)


def test_fitting_does_not_change_a_bundle_that_came_with_geoseg(
    run: Run, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg_cli.shipped.bundle_folders", lambda: [model])
    monkeypatch.setattr("geoseg_cli.bundle.bundle_folders", lambda: [model])
    before = (model / "item.json").read_bytes()
    done = run("evaluate", model.name, folder, "--fit-temperature")
    assert done.code == 77
    assert f"cp -r {model}" in done.err
    assert (model / "item.json").read_bytes() == before


def test_an_uncalibrated_confidence_comes_with_a_warning(run: Run, folder: Path, model: Path, tmp_path: Path) -> None:
    scene = folder / "rome" / "x.tif"
    plain = run("cloudmask", scene, "--model", model, "-o", tmp_path / "a.tif")
    asked = run("cloudmask", scene, "--model", model, "-o", tmp_path / "b.tif", "--confidence", tmp_path / "c.tif")
    assert "--fit-temperature" in asked.err
    assert "--fit-temperature" not in plain.err


@pytest.mark.parametrize("name", ["item.json", "README.md", "weights.bin"])
def test_an_output_must_not_replace_a_file_of_the_bundle(run: Run, folder: Path, model: Path, name: str) -> None:
    target = model / name
    target.touch()
    before = target.read_bytes()
    assert run("evaluate", model, folder, "--json", target, "--overwrite").code == 2
    scene = folder / "rome" / "x.tif"
    assert run("cloudmask", scene, "--model", model, "-o", target, "--overwrite").code == 2
    assert run("cloudmask", scene, "--model", model, "-o", target, "--overwrite", "--dry-run").code == 2
    assert target.read_bytes() == before


def test_places_that_the_card_says_were_learned_from_are_counted(run: Run, folder: Path, model: Path) -> None:
    card = json.loads((model / "item.json").read_text())
    extras = card["properties"]["mlm:hyperparameters"]["geoseg"]
    extras["training"] = {"split": {"train": ["oslo", "bonn"], "develop": ["rome"], "test": []}}
    (model / "item.json").write_text(json.dumps(card))
    seen = "warning: of 2 places, the card says, 1 were trained on"
    assert f"{seen} and 1 chose the weights" in run("evaluate", model, folder).err
    assert f"{seen}: figures" in run("evaluate", model, folder, "--fit-temperature").err
    extras["training"] = {"split": {"train": ["bonn"], "develop": [], "test": ["oslo", "rome"]}}
    (model / "item.json").write_text(json.dumps(card))
    assert "the card says" not in run("evaluate", model, folder).err
