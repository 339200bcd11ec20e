"""Worker processes of one machine: shares, deaths, ends."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geoseg_cli.batch.tasks import Recipe
from geoseg_cli.batch.workers import shares
from geoseg_cli.engines import EngineOptions
from geoseg_cli.engines.devices import CudaProbe
from geoseg_cli.errors import EngineError, UsageError
from geoseg_cli.job import PredictOptions
from tests.batch.conftest import Run, hashes, journal_lines, scenes_in
from tests.batch.processes import begin, family, made, map_of, statuses, survivors, wait_for
from tests.test_predict import read

NO_CUDA, FOUR = CudaProbe(0, "none"), CudaProbe(4)


def asked(**engine: object) -> Recipe:
    return Recipe(Path("/model"), EngineOptions(**engine), PredictOptions())  # type: ignore[arg-type]


def test_devices_go_round_and_cores_and_memory_are_divided() -> None:
    on_cpu = [one.engine for one in shares(asked(), 3, NO_CUDA, cores=8)]
    assert [(one.device, one.threads) for one in on_cpu] == [("auto", 2)] * 3
    assert [one.engine.device for one in shares(asked(), 6, FOUR)] == [f"cuda:{n % 4}" for n in range(6)]
    assert [one.engine.device for one in shares(asked(device="cuda:3,1"), 3, FOUR)] == ["cuda:3", "cuda:1", "cuda:3"]
    assert [one.engine.device for one in shares(asked(device="cuda:2"), 2, FOUR)] == ["cuda:2"] * 2
    assert [one.engine.device for one in shares(asked(device="cpu"), 2, FOUR)] == ["cpu"] * 2
    assert {one.engine.threads for one in shares(asked(threads=5), 3, NO_CUDA, cores=8)} == {5}
    assert {one.engine.threads for one in shares(asked(), 9, NO_CUDA, cores=2)} == {1}, "never none"
    limited = replace(asked(), options=PredictOptions(max_memory_bytes=900))
    assert {one.options.max_memory_bytes for one in shares(limited, 3, NO_CUDA)} == {300}


def test_a_device_that_is_not_there_is_refused_before_any_process_begins() -> None:
    with pytest.raises(EngineError):
        shares(asked(device="cuda:0,7"), 2, FOUR)
    with pytest.raises(UsageError):
        shares(asked(device="gpu"), 2, FOUR)


def test_workers_give_the_bytes_the_reports_and_the_journal_of_one_process(tmp_path: Path, model: Path) -> None:
    scenes_in(tmp_path / "in", [f"s{number}.tif" for number in range(5)])
    (tmp_path / "in" / "bad.tif").write_text("no scene")
    alone = statuses(begin(tmp_path), code=1)
    expected = hashes(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "alone")
    several = begin(tmp_path, "--workers", "2")
    found = statuses(several, code=1)
    assert hashes(tmp_path / "out") == expected
    timed = {"seconds", "memory", "resumed_at_row"}
    assert found.keys() == alone.keys()
    for name, one in alone.items():
        other = found[name]
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}
    lines = journal_lines(tmp_path / "out")
    assert len([line for line in lines if line["event"] == "done"]) == 5
    assert len({line["process"] for line in lines if line["event"] == "done"}) == 2, "one worker did it all"


def test_a_scene_that_kills_its_worker_is_tried_once_more_and_named_and_the_others_are_done(
    tmp_path: Path, model: Path
) -> None:
    labels = scenes_in(tmp_path / "in", ["a.tif", "killer.tif", "once.tif", "z.tif"])
    found = statuses(begin(tmp_path, "--workers", "2", "--threads", "1"), code=1)
    assert {name: one["status"] for name, one in found.items()} == {
        "a": "done", "once": "done", "z": "done", "killer": "failed",
    }  # fmt: skip
    error = found["killer"]["error"]
    assert (error["kind"], error["exit_code"]) == ("WorkerDiedError", 71)
    assert "SIGKILL" in error["message"]
    begun = (tmp_path / "log.txt").read_text().split("\n")
    assert sum(line.startswith("begun killer.tif") for line in begun) == 2
    for stem in ("a", "once", "z"):
        np.testing.assert_array_equal(read(map_of(tmp_path, stem))[0], labels[f"{stem}.tif"])
    left = {path.name for path in (tmp_path / "out").glob(".*")}
    assert left == {".geoseg"}, "something unfinished is left"
    lines = [line for line in journal_lines(tmp_path / "out") if line["scene"].endswith("killer.tif")]
    last = max(lines, key=lambda line: line["time"])
    assert (last["event"], last["error"]["kind"]) == ("failed", "WorkerDiedError")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
     pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow)],
)  # fmt: skip
def test_the_end_of_a_run_is_the_end_of_its_workers(
    tmp_path: Path, model: Path, number: signal.Signals, code: int
) -> None:
    scenes_in(tmp_path / "in", [f"s{n:02}.tif" for n in range(40)])
    process = begin(tmp_path, "--workers", "2", GEOSEG_TEST_PAUSE="0.2")
    wait_for(lambda: (tmp_path / "log.txt").exists() and sum(made(tmp_path).values()) >= 2)
    workers = family(process)
    assert len(workers) >= 2
    process.send_signal(number)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == code
    assert "Traceback" not in err
    assert not survivors(workers, 10), "a worker outlives its run"
    visible = {path.name for path in (tmp_path / "out").iterdir()}
    assert {name for name in visible if name.startswith(".")} == {".geoseg"}, "an unfinished file is left"


@pytest.mark.slow
def test_a_terminal_s_interrupt_reaches_everybody_and_is_told_once(tmp_path: Path, model: Path) -> None:
    scenes_in(tmp_path / "in", [f"s{n:02}.tif" for n in range(40)])
    process = begin(tmp_path, "--workers", "2", GEOSEG_TEST_PAUSE="0.2")
    wait_for(lambda: (tmp_path / "log.txt").exists() and sum(made(tmp_path).values()) >= 1)
    workers = family(process)
    for one in workers:
        os.kill(one.pid, signal.SIGINT)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    assert (process.returncode, "Traceback" in err, err.count("interrupted")) == (130, False, 1)
    assert not survivors(workers, 10)


def test_two_runs_on_one_folder_share_the_work(tmp_path: Path, model: Path) -> None:
    labels = scenes_in(tmp_path / "in", [f"s{number:02}.tif" for number in range(8)])
    (tmp_path / "in" / "bad.tif").write_text("no scene")
    both = [begin(tmp_path, GEOSEG_TEST_PAUSE="0.15") for _ in range(2)]
    found = [statuses(process, code=1) for process in both]
    assert made(tmp_path) == {Path(name).stem: 1 for name in labels}
    for name in labels:
        told = sorted(one[Path(name).stem]["status"] for one in found)
        assert told == ["done", "unchanged"], "each map is made by one run and seen by the other"
    shares_of_each = [sum(one["status"] == "done" for one in run.values()) for run in found]
    assert min(shares_of_each) >= 1, "one of them did it all"


def test_options_that_contradict_each_other_end_the_command_before_it_begins(run: Run, tmp_path: Path) -> None:
    for arguments in (
        ("--resources", "GPU=1"), ("--tls-ca", "x.pem"), ("--scheduler", "tcp://h:1", "--workers", "2"),
        ("--scheduler", "somewhere"), ("--scheduler", "tls://h:1", "--tls-ca", "x.pem"), ("--shard", "0/3"),
        ("--scheduler", "local", "--resources", "GPU"), ("--workers", "0"),
    ):  # fmt: skip
        scenes_in(tmp_path, ["a.tif", "b.tif"])
        assert run("cloudmask", tmp_path, *arguments).code == 2, arguments
