"""Options of runs over many scenes through the command line, its table on a terminal, and the examples of the page."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from geoseg_cli import predict
from geoseg_cli.batch import tasks, todo
from geoseg_cli.cli.config_layers import is_guarded
from geoseg_cli.errors import StorageError
from tests.batch.conftest import Mask, Run, journal_lines, lines_of, scenes_in
from tests.batch.processes import ROOT, environment, map_of

PAGE = (ROOT / "docs" / "clusters.md").read_text()


def test_fail_fast_leaves_the_rest_and_says_how_many(run: Run, model: Path, tmp_path: Path) -> None:
    scenes_in(tmp_path, [f"s{number}.tif" for number in range(8)])
    (tmp_path / "a.tif").write_text("no scene")
    done = run("cloudmask", tmp_path, "--model", model, "--fail-fast", "--json")
    assert done.code == 1
    begun = len(lines_of(done))
    assert 0 < begun < 4
    assert f"{9 - begun} not begun" in done.err


@pytest.mark.parametrize(("retries", "status"), [(1, "done"), (0, "failed")])
def test_retries_are_those_that_were_asked_for(
    mask: Mask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retries: int, status: str
) -> None:
    scenes_in(tmp_path, ["a.tif", "b.tif"])
    good, failures = predict.predict_scene, [StorageError("the network is down", "wait")]

    def once(path: Path, *rest: Any, **more: Any) -> Any:
        if path.name == "a.tif" and failures:
            raise failures.pop()
        return good(path, *rest, **more)

    monkeypatch.setattr(predict, "predict_scene", once)
    monkeypatch.setattr(tasks, "_may_need_network", lambda scene: True)
    monkeypatch.setattr(todo, "FIRST_WAIT_S", 0.01)
    found = mask(tmp_path, "--retries", retries, code=int(status == "failed"))
    assert found == {"a.tif": status, "b.tif": "done"}


def test_a_dry_run_writes_nothing_and_knows_what_is_done(run: Run, mask: Mask, model: Path, tmp_path: Path) -> None:
    scenes_in(tmp_path, ["a.tif"])
    mask(tmp_path)
    scenes_in(tmp_path / "x", ["b.tif"])
    (tmp_path / "bad.tif").write_text("no scene")
    before = sorted(tmp_path.rglob("*"))
    done = run("cloudmask", tmp_path, "--model", model, "--dry-run", "--json")
    planned = {Path(line["scene"]).name: line.get("status") for line in lines_of(done)}
    assert (done.code, planned) == (1, {"a.tif": "unchanged", "b.tif": None, "bad.tif": "failed"})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_came_with_data_sets_neither_scheduler_nor_certificates() -> None:
    assert all(map(is_guarded, ("scheduler", "tls_ca", "tls_cert", "tls_key")))
    assert not any(map(is_guarded, ("workers", "threads", "retries")))


def test_a_terminal_shows_scenes_stages_and_how_far_the_run_is(tmp_path: Path, model: Path) -> None:
    scenes_in(tmp_path / "in", [f"s{number}.tif" for number in range(4)])
    (tmp_path / "in" / "bad.tif").write_text("no scene")
    (tmp_path / "out").mkdir()
    ours, theirs = pty.openpty()
    command = ["cloudmask", tmp_path / "in", "--out-dir", tmp_path / "out", "--model", model,
               "--tile", "16", "--overlap", "0", "--batch", "1"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.batch_tool", *map(str, command)], cwd=ROOT, stderr=theirs,
        env=environment(tmp_path, GEOSEG_TEST_PAUSE="0.1", TERM="xterm", COLUMNS="120"), stdout=subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    out, _ = process.communicate(timeout=60)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert process.returncode == 1
    assert len(out.split()) == 4, "standard output carries the paths alone"
    assert "s0.tif" in text
    assert re.search(r"[1-4] of 5 scenes, 1 failed", text)
    assert "running" in text
    assert "5 scenes: 4 done, 0 unchanged, 1 failed" in text


def test_the_page_s_job_array_of_slurm_runs_as_it_stands(tmp_path: Path, model: Path) -> None:
    scenes_in(tmp_path / "in", ["a.tif", "b.tif", "c.tif"])
    script = next(block for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if "#SBATCH" in block)
    tool = tmp_path / "bin" / "geoseg"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.fakes.batch_tool "$@" --model "{model}"\n')
    tool.chmod(0o755)
    (tmp_path / "out").mkdir()
    for number in (1, 2):
        array = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
        folders = {"ARCHIVE": str(tmp_path / "in"), "MASKS": str(tmp_path / "out")}
        path = {"PATH": f"{tool.parent}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", script], env=environment(tmp_path, **array, **folders, **path),
                              capture_output=True, text=True, check=False, timeout=120)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 3 - number
    assert all(map_of(tmp_path, stem).is_file() for stem in "abc")


def test_the_page_s_commands_for_aws_and_kubernetes_are_taken(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml = pytest.importorskip("yaml")
    (aws,) = (json.loads(block)["command"][1:] for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    manifests = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    (job,) = (one["spec"] for one in manifests if "kind" in one)
    (container,) = job["template"]["spec"]["containers"]
    given = {one["name"]: one["value"] for one in container["env"]}
    assert given == {"JOB_COMPLETION_COUNT": str(job["completions"])}
    scenes_in(tmp_path / "archive", ["a.tif", "b.tif"])
    (tmp_path / "masks").mkdir()
    for command, array in (
        (aws, {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "2"}),
        (container["args"], given | {"JOB_COMPLETION_INDEX": "1"}),
    ):
        with monkeypatch.context() as patch:
            for name, value in array.items():
                patch.setenv(name, value)
            done = run(*(word.replace("/data", str(tmp_path)) for word in command), "--model", model)
        assert done.code == 0, done.err
    assert {Path(line["output"]).name[0] for line in journal_lines(tmp_path / "masks")} == {"a", "b"}
