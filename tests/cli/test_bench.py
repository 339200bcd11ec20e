"""``geoseg bench``: tables and JSON of what was measured, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.engines.pixelwise import write_pixelwise_bundle
from tests.fakes.calls import call_here
from tests.test_bench import noise_scene

SIDES = 90, 120


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_pixelwise_bundle(tmp_path / "bundle").folder


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return noise_scene(tmp_path / "scene.tif", *SIDES)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder for temporary files, here and in processes that are started."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def all_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg_cli.bench.run.run_apart", call_here)
    monkeypatch.setattr("geoseg_cli.bench.overlap.run_apart", call_here)


def test_json_holds_figures_that_fit_each_other(run: Run, scene: Path, bundle: Path, temporary: Path) -> None:
    arguments = ("--model", bundle, "--engine", "onnx", "--device", "cpu", "--rounds", "1", "--batch", "2", "--json")
    done = run("bench", scene, *arguments)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    (row,) = report["rows"]
    assert (report["scene"], report["size_px"], report["rounds"]) == ("scene.tif", list(SIDES), 1)
    assert (row["engine"], row["precision"], row["batch"], row["tile_px"]) == ("onnx", "fp32", 2, 64)
    tiles = 2 * 3  # ceil((90 - 16) / 48) rows, ceil((120 - 16) / 48) columns
    assert row["tiles"] == tiles
    assert row["computed_share"] == pytest.approx(tiles * 64**2 / np.prod(SIDES))
    assert row["mpx_per_s"] == pytest.approx(np.prod(SIDES) / 1e6 / row["wall_s"])
    assert row["overhead"] == pytest.approx(row["core_s"] / (row["forward_core_s"] + report["read_core_s"]))
    assert row["tail_share"] == pytest.approx(row["tail_s"] / row["wall_s"])
    assert 0 < row["forward_share"] + row["tail_share"] < 1
    assert sum(row["seconds"].values()) <= row["wall_s"]
    assert row["agreement"]["share"] == row["agreement"]["lowest_iou"] == 1
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("all_in_one_process")
def test_text_has_a_row_for_each_configuration(run: Run, scene: Path, bundle: Path, temporary: Path) -> None:
    arguments = ("--model", bundle, "--engine", "onnx", "--precision", "fp32", "--precision", "bf16", "--rounds", "1")
    done = run("bench", scene, *arguments, "--precision", "auto", "--device", "cpu", "-q")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    ran = [line for line in lines if line.startswith("onnx fp32 batch auto tile 64/16")]
    assert len(ran) == 2 * 3  # fp32, and auto, which means the same here, in three tables
    assert all("100.000%      1.0000" in line for line in ran[4:])
    (refused,) = (line for line in lines if line.startswith("onnx bf16"))
    assert "does not run: no engine runs on cpu: onnx: the onnx engine runs fp32" in refused
    for title in ("Mpx/s", "total/(f+d)", "commit", "lowest IoU"):
        assert title in done.out
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("all_in_one_process")
def test_overlaps_of_a_network_without_context_all_agree(run: Run, scene: Path, bundle: Path, temporary: Path) -> None:
    arguments = ("--overlap", "--model", bundle, "--engine", "onnx", "--device", "cpu", "--json")
    done = run("bench", scene, *arguments)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert [(row["tile_px"], row["overlap_px"]) for row in report["rows"]] == [(64, 0), (64, 16), (64, 32)]
    assert {row["agreement"]["share"] for row in report["rows"]} == {1}
    assert report["smallest_overlap_px"] == {"64": {"99.9%": 0, "99.5%": 0}}
    assert report["seamless"] == [128]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "a scene is measured"),
        (("scene.tif", "--synthetic", "100"), "a scene is measured"),
        (("scene.tif", "--height", "100"), "--height"),
        (("scene.tif", "--overlap", "--overlap-px", "8"), "--overlap-px"),
        (("scene.tif", "--overlap", "--batch", "1", "--batch", "2"), "--batch"),
        (("scene.tif", "--overlap", "--engine", "all"), "--engine"),
        (("scene.tif", "--engine", "abacus"), "abacus"),
        (("scene.tif", "--precision", "fp7"), "fp7"),
        (("scene.tif", "--batch", "0"), "--batch"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_anything_is_measured(
    run: Run, temporary: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = run("bench", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "round" not in done.err


def test_a_scene_that_cannot_be_read_ends_the_run(run: Run, tmp_path: Path, bundle: Path, temporary: Path) -> None:
    done = run("bench", tmp_path / "none.tif", "--model", bundle)
    assert (done.code, done.out) == (66, "")
    assert "none.tif" in done.err
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_file_and_no_process(
    scene: Path, bundle: Path, temporary: Path, number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "geoseg_cli", "bench", str(scene), "--model", str(bundle), "--rounds", "1000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "auto auto" in line:
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert list(temporary.iterdir()) == []
    limit = time.monotonic() + 10
    while is_group_alive(process.pid):
        assert time.monotonic() < limit
        time.sleep(0.05)


def is_group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
