"""What is tried again, how often, and what is final."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.batch import todo
from geoseg_cli.batch.tasks import Failure, Outcome, SceneTask
from geoseg_cli.batch.todo import RunOptions, Todo, Try

KINDS = {
    "passing": Failure("StorageError", "m", "h", 74, may_pass=True),
    "died": Failure("WorkerDiedError", "m", "h", 71, may_pass=True),
    "busy": Failure("BusyError", "m", "h", 75, may_pass=True),
    "bad": Failure("InputError", "m", "h", 65),
}


def end(one: Try, kind: str) -> Outcome:
    status = {"busy": "busy", "done": "done"}.get(kind, "failed")
    return Outcome(one.task, status, 0.0, failure=KINDS.get(kind))  # type: ignore[arg-type]


def tries_of(kind: str, options: RunOptions, tasks: int = 1) -> list[Try]:
    """All tries of scenes that always end alike."""
    given = [SceneTask(Path(f"{number}.tif"), Path(f"{number}_map.tif")) for number in range(tasks)]
    work, tries = Todo(given, options), []
    while (one := work.take()) is not None:
        tries.append(one)
        work.settle(one, end(one, kind))
    return tries


def test_what_may_pass_is_tried_as_often_as_asked_and_bad_input_once() -> None:
    for retries in (0, 1, 3):
        assert len(tries_of("passing", RunOptions(retries=retries))) == retries + 1
        assert len(tries_of("bad", RunOptions(retries=retries))) == 1


@given(st.integers(0, 5))
def test_a_scene_whose_process_dies_is_tried_once_more_whatever_else_is_asked(retries: int) -> None:
    assert [one.deaths for one in tries_of("died", RunOptions(retries=retries))] == [0, 1]


def test_a_scene_that_is_held_is_looked_at_until_the_patience_ends_and_retries_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(todo.time, "monotonic", lambda: now[0])
    work = Todo([SceneTask(Path("a.tif"), Path("b.tif"))], RunOptions(retries=0, wait_s=60))
    looks = []
    while (one := work.take()) is not None:
        now[0] = max(now[0], one.not_before_s)
        looks.append(now[0])
        is_final = work.settle(one, end(one, "busy"))
    assert is_final
    assert looks[-1] - looks[0] >= 60
    assert max(b - a for a, b in itertools.pairwise(looks)) <= todo.LONGEST_PAUSE_S
    assert len(looks) < 20


def test_what_is_set_aside_comes_behind_all_others() -> None:
    numbers = [one.number for one in tries_of("died", RunOptions(), tasks=4)]
    assert numbers == [0] * 4 + [1] * 4


def test_nothing_comes_after_the_first_failure_where_that_was_asked() -> None:
    assert len(tries_of("bad", RunOptions(fail_fast=True), tasks=4)) == 1
    assert len(tries_of("done", RunOptions(fail_fast=True), tasks=4)) == 4
