"""A request over its scenes: results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.cli import fleet, logs, to_stdout
from geoseg_cli.cli.console import Messages, tame
from geoseg_cli.cli.early_engine import EarlyEngine
from geoseg_cli.cli.live_table import LiveTable
from geoseg_cli.cli.options import read_size
from geoseg_cli.cli.request import SOME_FAILED_EXIT_CODE, Request, put
from geoseg_cli.cli.run_messages import BatchWatch, Summary, further_decisions, tell_report
from geoseg_cli.errors import GeosegError, UsageError
from geoseg_cli.printable import counted

if TYPE_CHECKING:
    from geoseg_cli.batch.models import Models
    from geoseg_cli.batch.scene_run import SceneRunner
    from geoseg_cli.batch.tasks import Outcome, Recipe, SceneTask
    from geoseg_cli.predict import PredictReport


def run_request(request: Request) -> None:
    """Run a command over its scenes.

    One bad scene of several does not stop the others: it is named, and the exit code is 1.
    """
    # Said in our own words, once, with the other warnings about the scene.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    early = EarlyEngine(request)
    request.predict_options()  # wrong values end the run before its first scene
    if request.given["sandbox"]:
        from geoseg_cli.cli.sandbox import run_sandboxed

        run_sandboxed(request.given, read_size(request.given["max_memory"]))
    if request.given["output"] in to_stdout.NAMES:
        _run_to_stdout(request, early)
        return
    messages = Messages(quiet=request.given["quiet"], verbose=request.given["verbose"])
    tasks = request.tasks()
    if request.given.get("shard"):
        scenes = len(tasks)
        tasks, shard = fleet.shard_of(tasks, request.given["shard"])
        messages.note(f"shard {shard}: {len(tasks)} of {counted(scenes, 'scene')}")
    recipe = request.recipe()
    for loss in recipe.options.cleaning.to_json().get("legend", {}).get("losses", ()):
        messages.note(f"lost: {loss}")
    if request.given["dry_run"]:
        _plan_all(tasks, recipe, request, messages)
    elif len(tasks) == 1 and tasks[0].home is None:
        _run_one(tasks[0], recipe, request, messages, early)
    else:
        _run_many(tasks, recipe, request, messages)


def _run_to_stdout(request: Request, early: EarlyEngine) -> None:
    """A scene alone, whose map goes to standard output once it is finished."""
    with to_stdout.folder_for_one_map() as folder:
        path = folder / "map.tif"
        apart = replace(request, given=request.given | {"output": path})
        messages = Messages(quiet=request.given["quiet"], verbose=request.given["verbose"])
        (task,) = apart.tasks()
        _predict_one(replace(task, home=None), apart.recipe(), apart, messages, early)
        to_stdout.send(path)


def _run_one(task: SceneTask, recipe: Recipe, request: Request, messages: Messages, early: EarlyEngine) -> None:
    """A scene alone: its own exit code, and everything that was decided about it."""
    report = _predict_one(task, recipe, request, messages, early)
    if request.given["json"]:
        put(json.dumps(report.to_json() | {"status": "done"} | _scene_field(task)) + "\n")
    else:
        put(f"{report.outputs['labels']}\n")


def _predict_one(
    task: SceneTask, recipe: Recipe, request: Request, messages: Messages, early: EarlyEngine
) -> PredictReport:
    from geoseg_cli.batch.models import EngineTrouble, Models
    from geoseg_cli.batch.scene_run import SceneRunner

    _refuse_streams_as_outputs(task, recipe)
    logs.about(_shown(task))
    with _told(task, request), messages.log(), messages.progress(_name(task)) as progress:
        watch = _OneScene(messages, progress)
        runner = SceneRunner(Models(recipe, watch, early.choose), watch)
        runner.refuse_early(task)
        try:
            report = runner.predict(task)
        except EngineTrouble as trouble:
            raise trouble.error from trouble
    tell_report(messages, report)
    return report


def _run_many(tasks: list[SceneTask], recipe: Recipe, request: Request, messages: Messages) -> None:
    """Many scenes: those that can be done are done, the others are named."""
    for task in tasks:
        _refuse_streams_as_outputs(task, recipe)
    summary = Summary(len(tasks))
    with messages.log(), LiveTable(messages, len(tasks)) as table:
        watch = BatchWatch(messages, table)
        with fleet.running(tasks, recipe, request.given, watch) as outcomes:
            for outcome in outcomes:
                summary.add(outcome)
                watch.ended(outcome)
                _put_outcome(outcome, request.given["json"])
    summary.tell(messages)
    if not summary.is_good:
        sys.exit(SOME_FAILED_EXIT_CODE)


def _put_outcome(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        put(json.dumps(outcome.to_json()) + "\n")
    elif outcome.has_map:
        put(f"{outcome.task.output}\n")


def _plan_all(tasks: list[SceneTask], recipe: Recipe, request: Request, messages: Messages) -> None:
    """Print what would be done; nothing is written."""
    from geoseg_cli.batch.models import Models
    from geoseg_cli.batch.scene_run import SceneRunner

    models = Models(recipe, _OneScene(messages, None))
    runner, failed = SceneRunner(models, _OneScene(messages, None)), 0
    for task in tasks:
        try:
            with _told(task, request):
                report = _plan(task, runner, models, messages)
        except GeosegError as error:
            if len(tasks) == 1:
                raise
            failed += 1
            messages.failure(Path(_shown(task)), error)
        else:
            put(json.dumps(report) + "\n" if request.given["json"] else "")
    if failed:
        messages.note(f"{failed} of {counted(len(tasks), 'scene')} would fail")
        sys.exit(SOME_FAILED_EXIT_CODE)


def _plan(task: SceneTask, runner: SceneRunner, models: Models, messages: Messages) -> dict[str, Any]:
    from geoseg_cli.ahead import usable_cores
    from geoseg_cli.predict import CloudModel, check_outputs, memory_json, open_for

    recipe = models.recipe
    decision = "run" if task.home is None else runner.decide(task)[0]
    if decision in ("unchanged", "keep"):
        messages.note(f"{_shown(task)}: unchanged")
        return {"output": str(task.output), "status": "unchanged"} | {"scene": _shown(task)}
    options = replace(recipe.options, overwrite=recipe.options.overwrite or decision == "replace")
    clouds = None
    if recipe.clouds is not None and models.cloud_bundle is not None:
        clouds = CloudModel(models.cloud_bundle, None, recipe.clouds.hidden_as)
    with open_for(task.scene, models.bundle, options, clouds) as job:
        if task.home is None or task.output.parent.is_dir():
            check_outputs(job, task.output)
        _announce(messages, task, job.decisions())
        jobs = (job,) if job.clouds is None else (job, job.clouds)
        plans = [one.memory(usable_cores(), 1 / len(jobs)) for one in jobs]
        for plan in plans:
            messages.memory(plan)
        return {
            "output": str(task.output),
            **job.decisions(),
            "memory": memory_json(plans),
            **_scene_field(task),
        }


@contextmanager
def _told(task: SceneTask, request: Request) -> Iterator[None]:
    """Give a scene's failure its line of JSON."""
    from geoseg_cli.batch.tasks import Failure

    try:
        yield
    except Exception as error:
        if isinstance(error, GeosegError):
            tame(error)
        if request.given["json"]:
            failure = Failure.of(error, task.scene, logs.redaction().text).to_json()
            put(json.dumps({"scene": _shown(task), "status": "failed", "error": failure}) + "\n")
        raise


class _OneScene:
    """What a scene alone tells."""

    def __init__(self, messages: Messages, progress: Any) -> None:
        self._messages, self._progress = messages, progress

    def note(self, text: str) -> None:
        self._messages.note(text)

    def begin(self, task: SceneTask) -> None:
        logs.about(_shown(task))

    def announce(self, task: SceneTask, decisions: Mapping[str, Any]) -> None:
        _announce(self._messages, task, decisions)

    def progress(self, task: SceneTask, done_px: int, total_px: int) -> None:
        if self._progress is not None:
            self._progress(done_px, total_px)

    def finished(self, task: SceneTask, not_finite: int) -> None:
        return


def _announce(messages: Messages, task: SceneTask, decisions: Mapping[str, Any]) -> None:
    decisions = dict(decisions)
    messages.decisions(decisions, Path(_shown(task)), task.output)
    for line in further_decisions(decisions):
        messages.note(f"  {line}")


def _refuse_streams_as_outputs(task: SceneTask, recipe: Recipe) -> None:
    """Refuse a report that the shell writes, or a log, where an output goes: publishing that would lose it."""
    from geoseg_cli.job import targets_of
    from geoseg_cli.results.sidecars import sidecar_paths

    options = recipe.options
    beside = list(sidecar_paths(task.output).values()) if options.sidecars else []
    vectors = [options.polygons] if options.polygons else []
    log = logs.file()
    with suppress(OSError, ValueError):
        stdout = os.fstat(sys.stdout.fileno())
        for path in beside:
            if os.path.exists(path) and os.path.samestat(stdout, os.stat(path)):
                raise UsageError(
                    f"standard output goes to {path}, which lies beside the map and is written by the run itself",
                    "send it to a file of another name, or add --no-sidecar",
                )
    for path in (*targets_of(task.output, options).values(), *vectors, *beside):
        if log is not None and os.path.exists(path) and os.path.exists(log) and os.path.samefile(log, path):
            raise UsageError(f"the log goes to {path}, which the run itself writes", "give --log-file another name")


def _scene_field(task: SceneTask) -> dict[str, str]:
    """The scene's name for a report, as it was given: the library's is whole, and may tell the home folder."""
    return {"scene": _shown(task)}


def _shown(task: SceneTask) -> str:
    from geoseg_cli.batch.tasks import shown

    return shown(task.scene)


def _name(task: SceneTask) -> str:
    return _shown(task).rstrip("/").rpartition("/")[2]
