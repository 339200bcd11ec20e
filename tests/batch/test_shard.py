"""Parts of a run: by hand, and as job arrays number them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.batch.shard import Shard
from geoseg_cli.batch.tasks import SceneTask
from geoseg_cli.cli.array_job import shard_of
from geoseg_cli.errors import UsageError
from tests.batch.conftest import Run, scenes_in
from tests.batch.processes import begin, made, map_of, statuses, wait_for
from tests.test_predict import read


def tasks_of(names: list[str], home: str = "/home/out") -> list[SceneTask]:
    return [SceneTask(Path("/in") / name, Path(home) / f"{name}_map.tif", Path(home)) for name in names]


@given(st.lists(st.text("abcd/", min_size=1).map(lambda text: text.replace("/", "_")), unique=True), st.integers(1, 9),
       st.randoms())  # fmt: skip
def test_parts_hold_every_scene_once_in_equal_numbers_whatever_the_order_and_the_mount(
    names: list[str], of: int, chance: random.Random
) -> None:
    parts = [[task.scene for task in Shard(number, of).of_tasks(tasks_of(names))] for number in range(1, of + 1)]
    assert sorted(scene for part in parts for scene in part) == sorted(Path("/in") / name for name in names)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    chance.shuffle(names)
    elsewhere = [[task.scene for task in Shard(n + 1, of).of_tasks(tasks_of(names, "/mnt/z/out"))] for n in range(of)]
    assert elsewhere == parts


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "a/b", "-1/4", "1/4/2", "1.0/2", "²/3", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Shard.parse(text)


SLURM = {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "10",
         "SLURM_ARRAY_TASK_STEP": "2"}  # fmt: skip
AWS = {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "3"}
KUBERNETES = {"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETION_COUNT": "3"}


def test_job_arrays_say_which_part_a_process_is() -> None:
    assert shard_of(SLURM) == Shard(3, 4), "--array=10-16:2, the third of 10, 12, 14, 16"
    assert shard_of(SLURM | {"SLURM_ARRAY_TASK_STEP": "", "SLURM_ARRAY_TASK_ID": "13"}) == Shard(4, 4)
    assert shard_of(AWS) == Shard(1, 3)
    assert shard_of(KUBERNETES) == Shard(3, 3)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, "no job array"),
        (AWS | {"AWS_BATCH_JOB_ARRAY_SIZE": ""}, "AWS_BATCH_JOB_ARRAY_SIZE is not set"),
        ({"JOB_COMPLETION_INDEX": "0"}, "JOB_COMPLETION_COUNT is not set"),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "13"}, "SLURM_ARRAY_TASK_ID=13"),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "30"}, "in a row"),
        (KUBERNETES | {"JOB_COMPLETION_INDEX": "3"}, "in a row"),
        (AWS | {"AWS_BATCH_JOB_ARRAY_INDEX": "x"}, "'x'"),
    ],
)
def test_half_a_job_array_is_refused_with_the_name_of_what_is_missing(environ: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        shard_of(environ)
    assert told in caught.value.message


def test_the_parts_of_a_job_array_together_are_the_run(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = scenes_in(tmp_path / "in", [f"s{number}.tif" for number in range(5)])
    (tmp_path / "out").mkdir()
    monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_SIZE", "2")
    printed = []
    for index in range(2):
        monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_INDEX", str(index))
        done = run("cloudmask", tmp_path / "in", "--out-dir", tmp_path / "out", "--model", model, "--shard", "auto")
        assert done.code == 0
        assert f"shard {index + 1}/2: {3 - index} of 5 scenes" in done.err
        printed.append(set(done.out.split()))
    assert [len(paths) for paths in printed] == [3, 2]
    assert not printed[0] & printed[1]
    for name, expected in labels.items():
        np.testing.assert_array_equal(read(map_of(tmp_path, Path(name).stem))[0], expected)


def test_a_part_without_scenes_is_done(run: Run, model: Path, tmp_path: Path) -> None:
    scenes_in(tmp_path, ["a.tif"])
    done = run("cloudmask", tmp_path / "a.tif", "--model", model, "--shard", "2/2")
    assert (done.code, done.out) == (0, "")
    assert "0 of 1 scene" in done.err


def kill_shards(tmp_path: Path, model: Path, shards: int, scenes: int, kills: int) -> None:
    """Every part in two processes at once; some are killed at random, and all are begun again."""
    labels, chance = scenes_in(tmp_path / "in", [f"s{number:02}.tif" for number in range(scenes)]), random.Random(3)
    running = [
        begin(tmp_path, "--shard", f"{number}/{shards}", GEOSEG_TEST_PAUSE="0.1")
        for number in range(1, shards + 1) for _ in range(2)
    ]  # fmt: skip
    wait_for(lambda: (tmp_path / "log.txt").exists() and sum(made(tmp_path).values()) >= 1)
    for process in chance.sample(running, kills):
        process.kill()
    for process in running:
        process.communicate(timeout=120)
    for number in range(1, shards + 1):
        found = statuses(begin(tmp_path, "--shard", f"{number}/{shards}"))
        assert {one["status"] for one in found.values()} <= {"done", "unchanged"}
    begun = made(tmp_path, "begun")
    assert begun.keys() == {Path(name).stem for name in labels}
    # A run has two scenes under way: those of a killed one are begun again, and no other is.
    assert begun.total() <= scenes + 2 * kills
    for name, expected in labels.items():
        np.testing.assert_array_equal(read(map_of(tmp_path, Path(name).stem))[0], expected)
    left = {path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")}
    assert left == {".geoseg"}, "an unfinished file is left"


def test_parts_that_are_run_twice_and_killed_make_every_map_once(tmp_path: Path, model: Path) -> None:
    kill_shards(tmp_path, model, 1, 8, 1)


@pytest.mark.slow
def test_many_parts_that_are_run_twice_and_killed_make_every_map_once(tmp_path: Path, model: Path) -> None:
    kill_shards(tmp_path, model, 3, 30, 4)
