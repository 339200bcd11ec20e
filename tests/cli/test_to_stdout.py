"""A map on standard output, and the lock and the work of killed runs as a user meets them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geoseg_cli.results.lock import OutputLock
from tests.cli.conftest import Run
from tests.test_predict import random_scene

SAMPLES = Path(__file__).parents[2] / "sample_scenes"
GEOSEG = [sys.executable, "-m", "geoseg_cli"]


@pytest.fixture
def sample() -> Path:
    return next(iter(sorted(SAMPLES.glob("*.tif"))))


@pytest.mark.parametrize("name", ["-", "/vsistdout/"])
def test_standard_output_carries_the_bytes_of_the_map_and_nothing_else(tmp_path: Path, sample: Path, name: str) -> None:
    env = os.environ | {"SOURCE_DATE_EPOCH": "1000000000", "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    wanted = tmp_path / "map.tif"
    common = [*GEOSEG, "cloudmask", str(sample)]
    subprocess.run([*common, "-o", str(wanted), "--no-sidecar", "-q"], env=env, check=True)
    done = subprocess.run([*common, "-o", name], env=env, check=True, capture_output=True)
    assert done.stdout == wanted.read_bytes()
    assert b"grid:" in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not Path(name).is_file()


def test_no_room_for_temporary_files_is_named(
    tmp_path: Path, model: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **more: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    random_scene(tmp_path / "scene.tif", 40, 40)
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    done = run("cloudmask", tmp_path / "scene.tif", "--model", model, "-o", "-")
    assert (done.code, done.out) == (74, "")
    assert "TMPDIR" in done.err


def test_a_reader_that_leaves_is_named_without_a_traceback(sample: Path) -> None:
    script = f"{{ {' '.join(GEOSEG)} cloudmask {sample} -o - -q; echo code $? >&2; }} | head -c 0"
    done = subprocess.run(script, shell=True, check=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert "code 74" in done.stderr


@pytest.mark.parametrize(
    ("more", "complaint"),
    [(["--json"], "--json"), (["--dry-run"], "--dry-run"), (["other.tif"], "several scenes")],
)
def test_nothing_else_may_go_to_standard_output(
    tmp_path: Path, model: Path, run: Run, more: list[str], complaint: str
) -> None:
    random_scene(tmp_path / "scene.tif", 40, 40)
    done = run("cloudmask", tmp_path / "scene.tif", "--model", model, "-o", "-", *more)
    assert (done.code, done.out) == (2, "")
    assert complaint in done.err


def test_a_terminal_gets_no_map(tmp_path: Path, model: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    random_scene(tmp_path / "scene.tif", 40, 40)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = run("cloudmask", tmp_path / "scene.tif", "--model", model, "-o", "-")
    assert (done.code, done.out) == (2, "")
    assert "terminal" in done.err


def test_a_run_that_fails_sends_nothing(tmp_path: Path, model: Path, run: Run) -> None:
    done = run("cloudmask", tmp_path / "missing.tif", "--model", model, "-o", "-")
    assert (done.code, done.out) == (66, "")


def test_an_output_that_another_run_holds_is_refused_with_75_before_anything_is_computed(
    tmp_path: Path, model: Path, run: Run
) -> None:
    random_scene(tmp_path / "scene.tif", 40, 40)
    with OutputLock([tmp_path / "map.tif"]):
        done = run("cloudmask", tmp_path / "scene.tif", "--model", model, "-o", tmp_path / "map.tif")
    assert done.code == 75
    assert f"held by process {os.getpid()}" in done.err
    assert not (tmp_path / "map.tif").exists()


def interrupt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from geoseg_cli.results.maps import MapWriter

    write = MapWriter.write

    def write_and_stop(self: MapWriter, rows: Any, state: Any = None) -> None:
        write(self, rows, state)
        monkeypatch.setattr(MapWriter, "write", write)
        raise SystemExit(143)

    monkeypatch.setattr(MapWriter, "write", write_and_stop)


@pytest.mark.parametrize(("more", "goes_on"), [([], True), (["--no-resume"], False)])
def test_the_same_command_goes_on_and_says_so(
    tmp_path: Path, model: Path, run: Run, monkeypatch: pytest.MonkeyPatch, more: list[str], goes_on: bool
) -> None:
    expected = random_scene(tmp_path / "scene.tif", 200, 90)
    arguments = ("cloudmask", tmp_path / "scene.tif", "--model", model, "-o", tmp_path / "map.tif", "--no-sidecar")
    interrupt_once(monkeypatch)
    assert run(*arguments).code == 143
    assert [path for path in tmp_path.iterdir() if ".part-" in path.name]
    done = run(*arguments, *more)
    assert done.code == 0
    assert ("continues at row 48 of 200, left by a run that was killed" in done.err) == goes_on
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "model", "scene.tif"]
    with rasterio.open(io.BytesIO((tmp_path / "map.tif").read_bytes())) as made:
        assert np.array_equal(made.read(1), expected)
