"""Runs as a shell starts them: pipes, find and xargs, make, signals, and processes that are killed."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from geoseg_cli.catalog import legends
from tests.batch.conftest import hashes, scenes_in
from tests.fakes.bundles import card_fields
from tests.test_predict import read

ROOT = Path(__file__).resolve().parents[2]
FAKE = """
import sys, time
import geoseg_cli.engines
from geoseg_cli.engines.fake_engine import IdentityEngine

class Slow(IdentityEngine):
    def run(self, pixels):
        time.sleep({pause})
        return super().run(pixels)

geoseg_cli.engines.choose_engine = lambda bundle, options: (Slow(4), "fake")
from geoseg_cli.cli import main
main()
"""


@pytest.fixture
def geoseg(tmp_path: Path) -> str:
    """A command line that begins a run through an engine that gives back its input."""
    (tmp_path / "geoseg.py").write_text(FAKE.format(pause=0.02))
    model = tmp_path / "model"
    model.mkdir()
    (model / "item.json").write_text(json.dumps(card_fields(legends()["cloudsen12"])))
    script = tmp_path / "geoseg"
    quoted = [shlex.quote(str(part)) for part in (sys.executable, tmp_path / "geoseg.py")]
    script.write_text(f'#!/bin/sh\nexec {" ".join(quoted)} "$@" --model {shlex.quote(str(model))}\n')
    script.chmod(0o755)
    return str(script)


def shell(command: str, folder: Path, code: int = 0) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{folder.parent}:{os.environ['PATH']}",
                                "SOURCE_DATE_EPOCH": "1700000000"}  # fmt: skip
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True,
                          text=True, check=False, timeout=120)  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path, geoseg: str) -> Path:
    scenes_in(tmp_path / "in", ["a b.tif", "c.tif", "deep/d.tif"])
    return tmp_path / "in"


def test_find_feeds_a_list_and_python_or_jq_reads_the_reports(folder: Path) -> None:
    (folder / "bad.tif").write_text("no scene")
    listed = "find . -name '*.tif' -print0 | geoseg cloudmask - --json -q"
    lines = [json.loads(line) for line in shell(listed, folder, code=1).splitlines()]
    assert sorted(line["status"] for line in lines) == ["done", "done", "done", "failed"]
    if shutil.which("jq"):
        failed = shell("geoseg cloudmask . --json -q | jq -r 'select(.error) | .scene'", folder, code=1)
        assert failed.split() == ["bad.tif"]


@pytest.mark.slow
def test_xargs_runs_several_processes_over_one_folder(folder: Path) -> None:
    (folder / "out").mkdir()
    paths = shell("find . -name '*.tif' -print0 | xargs -0 -P 2 -n 1 geoseg cloudmask --out-dir out -q", folder)
    assert sorted(map(os.path.basename, paths.splitlines())) == [
        "a b_cloudmask.tif", "c_cloudmask.tif", "d_cloudmask.tif",
    ]  # fmt: skip


@pytest.mark.slow
def test_gnu_parallel_hands_over_several_scenes_at_a_time(folder: Path) -> None:
    if not shutil.which("parallel"):
        pytest.skip("GNU parallel is not installed")
    (folder / "out").mkdir()
    paths = shell("find . -name '*.tif' | parallel -j 2 -X geoseg cloudmask --out-dir out -q", folder)
    assert sorted(map(os.path.basename, paths.splitlines())) == [
        "a b_cloudmask.tif", "c_cloudmask.tif", "d_cloudmask.tif",
    ]  # fmt: skip


@pytest.mark.slow
def test_make_runs_only_what_is_newer(folder: Path) -> None:
    (folder / "Makefile").write_text(
        "all: c_cloudmask.tif deep/d_cloudmask.tif\n"
        "%_cloudmask.tif: %.tif\n\tgeoseg cloudmask $< -o $@ --overwrite -q\n"
    )
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    shell("make -j2", folder)
    assert "geoseg" not in shell("make", folder)
    os.utime(folder / "c.tif")
    assert shell("make", folder).count("geoseg") == 1


def test_a_reader_that_leaves_stops_no_scene(folder: Path) -> None:
    shell("geoseg cloudmask . -q | true", folder)
    assert len(list(folder.rglob("*_cloudmask.tif"))) == 3


def begin(folder: Path, out: Path, geoseg: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1700000000"}
    return subprocess.Popen(
        [geoseg, "cloudmask", str(folder), "--out-dir", str(out), "-q"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_ends_a_run_with_its_code_and_the_next_one_goes_on(
    tmp_path: Path, geoseg: str, number: signal.Signals, code: int
) -> None:
    labels = scenes_in(tmp_path / "in", [f"s{index:02}.tif" for index in range(14)])
    out = tmp_path / "out"
    out.mkdir()
    process = begin(tmp_path / "in", out, geoseg)
    while not list(out.glob("*.tif")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert b"Traceback" not in err
    made = set(hashes(out))
    assert all(name.startswith("s") for name in made), "an unfinished file is left"
    assert begin(tmp_path / "in", out, geoseg).wait(60) == 0
    for name, expected in labels.items():
        np.testing.assert_array_equal(read(out / name.replace(".tif", "_cloudmask.tif"))[0], expected)


def kill_and_rerun(tmp_path: Path, geoseg: str, kills: int, scenes: int) -> None:
    """Kill runs at random times, finish each, and compare every byte with a run that nobody disturbed."""
    scenes_in(tmp_path / "in", [f"s{index:02}.tif" for index in range(scenes)])
    whole = tmp_path / "whole"
    whole.mkdir()
    started = time.monotonic()
    assert begin(tmp_path / "in", whole, geoseg).wait(120) == 0
    lasts_s, expected, chance = time.monotonic() - started, hashes(whole), random.Random(5)
    for number in range(kills):
        out = tmp_path / f"out{number}"
        out.mkdir()
        process = begin(tmp_path / "in", out, geoseg)
        time.sleep(chance.uniform(0.3, 1.0) * lasts_s)
        process.kill()
        process.wait()
        again = begin(tmp_path / "in", out, geoseg)
        err = again.communicate(timeout=120)[1]
        assert again.returncode == 0, err
        assert hashes(out) == expected, f"kill {number}"
        shutil.rmtree(out)


def test_a_run_that_is_killed_is_finished_by_the_next_one_byte_for_byte(tmp_path: Path, geoseg: str) -> None:
    kill_and_rerun(tmp_path, geoseg, 1, 6)


@pytest.mark.slow
def test_fifty_runs_that_are_killed_are_finished_byte_for_byte(tmp_path: Path, geoseg: str) -> None:
    kill_and_rerun(tmp_path, geoseg, 50, 12)
