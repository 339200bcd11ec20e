"""Clusters: real schedulers and workers on the loopback, workers that are killed, SLURM's job scripts."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("distributed")

from geoseg_cli.batch.dask_cluster import ClusterOptions, connected, read_resources, read_slurm, slurm_cluster
from geoseg_cli.batch.identity import Identities
from geoseg_cli.batch.tasks import Recipe, SceneTask
from geoseg_cli.engines import EngineOptions
from geoseg_cli.errors import BusyError, ConfigError, EngineError, UsageError
from geoseg_cli.job import PredictOptions
from tests.batch.conftest import Run, hashes, journal_lines, scenes_in
from tests.batch.processes import ROOT, begin, environment, family, made, map_of, statuses, survivors, wait_for
from tests.test_predict import read

Dask = Callable[..., subprocess.Popen[bytes]]


def test_a_cluster_of_this_machine_gives_the_bytes_of_one_process_and_names_what_kills_its_workers(
    tmp_path: Path, model: Path
) -> None:
    names = [f"s{number}.tif" for number in range(4)]
    labels = scenes_in(tmp_path / "in", names)
    statuses(begin(tmp_path))
    expected = hashes(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "alone")
    scenes_in(tmp_path / "in", [*names, "killer.tif", "once.tif"])
    for name in names:  # the killers changed no other scene
        assert labels[name].shape == scenes_in(tmp_path / "again", names)[name].shape
    process = begin(tmp_path, "--scheduler", "local", "--workers", "2", GEOSEG_TEST_PAUSE="0.02")
    found = statuses(process, code=1)
    states = {name: one["status"] for name, one in found.items()}
    assert states == dict.fromkeys(["s0", "s1", "s2", "s3", "once"], "done") | {"killer": "failed"}
    error = found["killer"]["error"]
    assert (error["kind"], error["exit_code"]) == ("WorkerDiedError", 71)
    assert "KilledWorker" in error["message"]
    begun = (tmp_path / "log.txt").read_text()
    assert begun.count("begun killer.tif") == 2
    made_here = hashes(tmp_path / "out")
    assert {name: digest for name, digest in made_here.items() if name.startswith("s") and name.endswith(".tif")} == {
        name: digest for name, digest in expected.items() if name.endswith(".tif")
    }
    assert [line["error"]["kind"] for line in journal_lines(tmp_path / "out") if line["event"] == "failed"][-1:] == [
        "WorkerDiedError"
    ]


def certificates(folder: Path) -> tuple[str, str, str]:
    """An authority, and a certificate that it signed, with its key."""
    folder.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority",
            "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=geoseg", "-keyout", "own.key", "-out", "own.csr")
    openssl("x509", "-req", "-in", "own.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-out", "own.pem")  # fmt: skip
    return str(folder / "ca.pem"), str(folder / "own.pem"), str(folder / "own.key")


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    """``dask("scheduler", ...)`` begins a process of Dask's own command line; all end with the test."""
    with ExitStack() as stack:

        def command(*words: object) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *map(str, words)], env=environment(tmp_path), cwd=ROOT,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            return process

        yield command


WORKER = ("worker", "--nthreads", "1", "--no-dashboard", "--memory-limit", "0", "--preload", "tests.fakes.batch_tool")


@pytest.mark.slow
def test_workers_that_were_begun_by_hand_are_found_by_the_scheduler_s_file_and_their_resources(
    tmp_path: Path, model: Path, dask: Dask
) -> None:
    labels = scenes_in(tmp_path / "in", ["a.tif", "b.tif", "c.tif"])
    known = tmp_path / "scheduler.json"
    dask("scheduler", "--no-dashboard", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", known)
    wait_for(known.exists)
    dask(*WORKER, "--scheduler-file", known, "--name", "plain")
    dask(*WORKER, "--scheduler-file", known, "--name", "gifted", "--resources", "GPU=1")
    process = begin(tmp_path, "--scheduler", f"file://{known}", "--resources", "GPU=1")
    found = statuses(process)
    assert {one["status"] for one in found.values()} == {"done"}
    writers = {line["process"] for line in journal_lines(tmp_path / "out") if line["event"] == "done"}
    assert len(writers) == 1, "only the worker that offers a GPU may run scenes"
    again = statuses(begin(tmp_path, "--scheduler", f"file://{known}", "--resources", "GPU=1"))
    assert {one["status"] for one in again.values()} == {"unchanged"}
    assert made(tmp_path) == {"a": 1, "b": 1, "c": 1}
    for name, expected in labels.items():
        np.testing.assert_array_equal(read(map_of(tmp_path, Path(name).stem))[0], expected)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_a_cluster_with_tls_takes_only_who_has_a_certificate(tmp_path: Path, model: Path, dask: Dask) -> None:
    scenes_in(tmp_path / "in", ["a.tif", "b.tif"])
    ca, cert, key = certificates(tmp_path / "tls")
    _, wrong_cert, wrong_key = certificates(tmp_path / "strangers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tls = ("--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key)
    address = f"tls://127.0.0.1:{port}"
    dask("scheduler", "--no-dashboard", "--host", address, *tls)
    dask(*WORKER, address, *tls)
    found = statuses(begin(tmp_path, "--scheduler", address, "--tls-ca", ca, "--tls-cert", cert, "--tls-key", key))
    assert {one["status"] for one in found.values()} == {"done"}
    stranger = begin(tmp_path, "--scheduler", address, "--tls-ca", ca, "--tls-cert", wrong_cert, "--tls-key", wrong_key)
    err = stranger.communicate(timeout=60)[1]
    assert stranger.returncode == 75, err


@pytest.mark.slow
def test_the_end_of_a_run_is_the_end_of_a_cluster_that_it_began(tmp_path: Path, model: Path) -> None:
    scenes_in(tmp_path / "in", [f"s{n:02}.tif" for n in range(40)])
    process = begin(tmp_path, "--scheduler", "local", "--workers", "2", GEOSEG_TEST_PAUSE="0.2")
    wait_for(lambda: (tmp_path / "log.txt").exists() and sum(made(tmp_path).values()) >= 1)
    workers = family(process)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not survivors(workers, 15)


def test_a_name_of_the_work_follows_scene_model_options_and_place(tmp_path: Path, model: Path) -> None:
    scenes_in(tmp_path, ["a.tif", "b.tif"])
    recipe = Recipe(model, EngineOptions(), PredictOptions())
    task = SceneTask(tmp_path / "a.tif", tmp_path / "a_map.tif", tmp_path)
    key = Identities(recipe).task_key(task)
    assert Identities(recipe).task_key(task) == key
    others = {
        Identities(recipe).task_key(SceneTask(tmp_path / "b.tif", task.output, tmp_path)),
        Identities(recipe).task_key(SceneTask(task.scene, tmp_path / "x.tif", tmp_path)),
        Identities(Recipe(model, EngineOptions(), PredictOptions(overlap_px=24))).task_key(task),
    }
    (model / "item.json").write_text((model / "item.json").read_text() + "\n")
    others.add(Identities(recipe).task_key(task))
    (tmp_path / "a.tif").write_bytes(b"changed")
    others.add(Identities(recipe).task_key(task))
    assert len(others | {key}) == 6


def test_resources_are_names_with_numbers() -> None:
    assert read_resources("GPU=1,SLOTS=0.5") == {"GPU": 1.0, "SLOTS": 0.5}
    assert read_resources(None) == {}
    for wrong in ("GPU", "=1", "GPU=x", "GPU=0", "GPU=1,"):
        with pytest.raises(UsageError):
            read_resources(wrong)


SLURM = """\
queue: gpu
account: forest
cores: 8
memory: 32 GB
walltime: "02:00:00"
job_extra_directives: ["--gpus=1"]
worker_extra_args: ["--death-timeout", "90"]
interface: lo
maximum: 20
"""


def test_a_slurm_file_becomes_a_job_script(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(SLURM)
    jobs, number = read_slurm(tmp_path / "cluster.yaml")
    assert number == {"maximum": 20}
    options = ClusterOptions("slurm:", resources={"GPU": 1.0})
    with slurm_cluster(jobs, options) as cluster:
        script = cluster.job_script()
    for line in ("#SBATCH -p gpu", "#SBATCH -A forest", "#SBATCH --cpus-per-task=8", "#SBATCH --gpus=1",
                 "#SBATCH -t 02:00:00"):  # fmt: skip
        assert line in script
    assert script.rindex("--nthreads 1") > script.index("--nthreads 8"), "one scene at a time"
    assert "--resources 'GPU=1'" in script
    assert "--death-timeout 90" in script


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cores: 8", "memory"), ("- a", "no table"), ("cores: [", "cannot be read"), (SLURM + "quue: x\n", "quue"),
        (SLURM + "workers: many\n", "many"), ("!!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)  # fmt: skip
def test_a_slurm_file_that_says_something_unknown_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_slurm(tmp_path / "cluster.yaml")
    assert told in caught.value.message


@contextmanager
def opened(scheduler: str) -> Iterator[None]:
    with connected(ClusterOptions(scheduler)):
        yield


def test_what_is_not_there_has_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cluster.yaml").write_text(SLURM)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="sbatch"), opened(f"slurm:{tmp_path}/cluster.yaml"):
        pass
    with pytest.raises(UsageError, match="scheduler file"), opened(f"file://{tmp_path}/none.json"):
        pass
    monkeypatch.setattr("geoseg_cli.batch.dask_cluster._CONNECT_S", 1)
    with pytest.raises(BusyError, match="127"), opened("tcp://127.0.0.1:9"):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match="Dask") as caught, opened("local"):
        pass
    assert "geoseg[dask]" in caught.value.hint


def test_sbatch_that_is_missing_ends_the_command_with_69(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes_in(tmp_path, ["a.tif"])
    (tmp_path / "cluster.yaml").write_text(SLURM)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("cloudmask", tmp_path / "a.tif", "--model", model, "--scheduler", f"slurm:{tmp_path}/cluster.yaml")
    assert done.code == 69
    assert "sbatch" in done.err
