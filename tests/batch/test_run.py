"""Scenes that overlap in time, tries that are repeated, runs that are ended."""

from __future__ import annotations

import pickle
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoseg_cli import predict
from geoseg_cli.batch import todo
from geoseg_cli.batch.models import Models
from geoseg_cli.batch.run import run_batch
from geoseg_cli.batch.scene_run import SceneRunner
from geoseg_cli.batch.tasks import Failure, Outcome, Recipe, SceneTask
from geoseg_cli.batch.todo import RunOptions
from geoseg_cli.engines import EngineOptions
from geoseg_cli.engines.fake_engine import IdentityEngine
from geoseg_cli.errors import BusyError, InputError, StorageError
from geoseg_cli.job import PredictOptions
from geoseg_cli.scenes import block_cache
from tests.batch.conftest import hashes, journal_lines, scenes_in
from tests.test_predict import read


class Quiet:
    def note(self, text: str) -> None: ...
    def begin(self, task: Any) -> None: ...
    def announce(self, task: Any, job: Any) -> None: ...
    def progress(self, task: Any, done_px: int, total_px: int) -> None: ...
    def finished(self, task: Any, report: Any) -> None: ...


@pytest.fixture
def tasks(tmp_path: Path) -> list[SceneTask]:
    scenes_in(tmp_path, [f"s{number}.tif" for number in range(6)])
    out = tmp_path / "out"
    out.mkdir()
    return [SceneTask(tmp_path / f"s{n}.tif", out / f"m{n}.tif", out) for n in range(6)]


@pytest.fixture
def runner(model: Path, monkeypatch: pytest.MonkeyPatch) -> SceneRunner:
    monkeypatch.setattr("geoseg_cli.engines.choose_engine", lambda bundle, options: (IdentityEngine(4), "fake"))
    return SceneRunner(Models(Recipe(model, EngineOptions(), PredictOptions(sidecars=False)), Quiet()), Quiet())


def test_tasks_recipes_and_outcomes_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    task = SceneTask(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path)
    recipe = Recipe(tmp_path, EngineOptions(), PredictOptions())
    outcome = Outcome(task, "failed", 1.0, failure=Failure.of(InputError("m", "h"), task.scene))
    for thing in (task, recipe, outcome):
        assert pickle.loads(pickle.dumps(thing)) == thing


def test_two_scenes_under_way_give_the_bytes_of_one_after_the_other(
    tasks: list[SceneTask], runner: SceneRunner, tmp_path: Path
) -> None:
    recipe = Recipe(runner._recipe.bundle, EngineOptions(), PredictOptions(written_at=datetime(2024, 1, 1, tzinfo=UTC)))
    found = []
    for at_once in (1, 2):
        out = tmp_path / f"out{at_once}"
        out.mkdir()
        own = [SceneTask(task.scene, out / task.output.name, out) for task in tasks]
        again = SceneRunner(Models(recipe, Quiet()), Quiet())
        assert {one.status for one in run_batch(own, again, RunOptions(at_once=at_once))} == {"done"}
        found.append(hashes(out))
    assert found[0] == found[1]
    assert len(found[0]) == 6 * 4


def test_the_engine_works_while_the_last_map_is_published_and_for_one_scene_at_a_time(
    tasks: list[SceneTask], runner: SceneRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second scene's tiles must be answered before the first scene's map is published."""
    answered, published = threading.Semaphore(0), []
    run_tiles = IdentityEngine.run

    def note_run(self: IdentityEngine, pixels: Any) -> Any:
        answered.release()
        return run_tiles(self, pixels)

    finish = predict.MapWriter.finish

    def wait_for_the_next(self: Any) -> None:
        if not published:
            published.append(True)
            assert all(answered.acquire(timeout=30) for _ in range(2)), "the next scene waits for this one"
        finish(self)

    monkeypatch.setattr(IdentityEngine, "run", note_run)
    monkeypatch.setattr(predict.MapWriter, "finish", wait_for_the_next)
    assert {one.status for one in run_batch(tasks[:2], runner, RunOptions())} == {"done"}


def test_shares_of_the_block_cache_add_up_and_go_back_in_any_order() -> None:
    from rasterio._env import get_gdal_config

    before, inside, left = get_gdal_config("GDAL_CACHEMAX"), threading.Event(), threading.Event()
    seen: list[object] = []

    def other() -> None:
        with block_cache(70 << 20):
            inside.set()
            assert left.wait(30)
            seen.append(get_gdal_config("GDAL_CACHEMAX"))

    thread = threading.Thread(target=other)
    with block_cache(50 << 20):
        thread.start()
        assert inside.wait(30)
        assert get_gdal_config("GDAL_CACHEMAX") == 120 << 20
    left.set()
    thread.join()
    assert seen == [70 << 20], "the other's share went with the first"
    assert get_gdal_config("GDAL_CACHEMAX") == before


def failing(monkeypatch: pytest.MonkeyPatch, errors: dict[str, list[Exception]]) -> list[str]:
    """Let scenes fail so often; the names of all that were begun."""
    begun: list[str] = []
    good = predict.predict_scene

    def sometimes(path: Path, *rest: Any, **more: Any) -> Any:
        begun.append(path.name)
        if errors.get(path.name):
            raise errors[path.name].pop(0)
        return good(path, *rest, **more)

    monkeypatch.setattr(predict, "predict_scene", sometimes)
    monkeypatch.setattr(todo, "FIRST_WAIT_S", 0.01)
    return begun


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_scene_that_another_run_holds_is_waited_for_behind_the_others_and_bad_input_never_tried_again(
    tasks: list[SceneTask], runner: SceneRunner, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    busy, bad = BusyError("held", "wait"), StorageError("truncated", "again")
    begun = failing(monkeypatch, {"s0.tif": [busy], "s1.tif": [bad, bad], "s2.tif": [busy] * 99})
    outcomes = {one.task.scene.name: one for one in run_batch(tasks, runner, RunOptions(at_once=at_once, wait_s=0.2))}
    assert [begun.count(f"s{number}.tif") for number in (0, 1, 3, 4, 5)] == [2, 1, 1, 1, 1]
    assert begun.count("s2.tif") > 3
    assert begun[-1] == "s2.tif"
    statuses = {name: one.status for name, one in outcomes.items()}
    others = dict.fromkeys(("s0.tif", "s3.tif", "s4.tif", "s5.tif"), "done")
    assert statuses == {"s1.tif": "failed", "s2.tif": "busy"} | others


def test_a_scene_that_another_run_finished_meanwhile_counts_as_done(
    tasks: list[SceneTask], runner: SceneRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = failing(monkeypatch, {"s0.tif": [BusyError("held", "wait")]})
    other = SceneRunner(runner._models, Quiet())

    def outcomes() -> list[Outcome]:
        found = []
        for outcome in run_batch(tasks[:2], runner, RunOptions(at_once=1)):
            found.append(outcome)
            if outcome.task.scene.name == "s1.tif":
                assert other.run(tasks[0]).status == "done"
        return found

    assert {one.task.scene.name: one.status for one in outcomes()} == {"s0.tif": "unchanged", "s1.tif": "done"}
    assert begun.count("s0.tif") == 2


@pytest.mark.parametrize("at_once", [1, 2])
def test_fail_fast_begins_nothing_after_a_failure(
    tasks: list[SceneTask], runner: SceneRunner, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    begun = failing(monkeypatch, {"s0.tif": [InputError("bad", "hint")]})
    list(run_batch(tasks, runner, RunOptions(fail_fast=True, at_once=at_once)))
    assert len(begun) <= at_once + 1


def test_a_run_that_is_ended_leaves_no_unfinished_file_and_the_next_one_continues(
    tasks: list[SceneTask], runner: SceneRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tiles = IdentityEngine.run

    def slow(self: IdentityEngine, pixels: Any) -> Any:
        time.sleep(0.05)
        return run_tiles(self, pixels)

    monkeypatch.setattr(IdentityEngine, "run", slow)
    outcomes = run_batch(tasks, runner, RunOptions())
    first = next(outcomes)
    outcomes.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("geoseg-scene")]
    out = tasks[0].output.parent
    assert {path.name for path in out.iterdir()} <= {".geoseg", *(task.output.name for task in tasks)}
    runner.close()
    done = {line["output"] for line in journal_lines(out) if line["event"] == "done"}
    again = SceneRunner(runner._models, Quiet())
    statuses = {one.task.output.name: one.status for one in run_batch(tasks, again, RunOptions())}
    assert first.task.output.name in done
    assert {name for name, status in statuses.items() if status == "unchanged"} == done
    for task in tasks:
        assert read(task.output).dtype == np.uint8
