"""A run on a Dask cluster: scenes go out a few at a time, outcomes come back in any order.

When a worker dies, the scheduler cannot tell which of its tasks was to blame: all that it had been given are suspects.
So each of them is run again alone, when nothing else of this run is under way; one that loses its worker then is the
culprit, and fails by name.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from geoseg_cli.batch.dask_worker import TOPIC, MayPass, Told, Word, run_scene
from geoseg_cli.batch.identity import Identities
from geoseg_cli.batch.models import EngineTrouble
from geoseg_cli.batch.scene_run import SceneRunner
from geoseg_cli.batch.tasks import Failure, Outcome, Recipe, SceneTask
from geoseg_cli.batch.todo import RunOptions, Todo, Try
from geoseg_cli.batch.watch import Watch
from geoseg_cli.errors import EngineError, WorkerDiedError

if TYPE_CHECKING:
    from distributed import Client, Future

LEAST_UNDER_WAY = 16
"""Tasks that wait where there is no worker yet: what a cluster that grows by itself looks at."""
_LOOK_EVERY_S = 1.0
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class DaskOptions:
    """How scenes are handed to the cluster.

    Attributes:
        resources: What a worker must offer, and how much of it a scene takes.
        function: What a worker does.
    """

    resources: Mapping[str, float] = field(default_factory=dict)
    function: Callable[[SceneTask, Recipe, str], Told] = run_scene


@dataclass(slots=True)
class _UnderWay:
    """A task that the cluster has."""

    one: Try
    started_s: float


class DaskRun:
    """Scenes of one recipe on a cluster.

    Args:
        client: Knows the scheduler.
        recipe: What is done to each.
        runner: Writes to the journal what no worker can.
        watch: Is told what happens.
    """

    def __init__(self, client: Client, recipe: Recipe, runner: SceneRunner, watch: Watch) -> None:
        self._client, self._recipe, self._runner, self._watch = client, recipe, runner, watch
        self._identities = Identities(recipe)
        self._under_way: dict[Future, _UnderWay] = {}
        self._tasks: dict[str, SceneTask] = {}
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._window, self._looked_s, self._waits_since_s = LEAST_UNDER_WAY, 0.0, time.monotonic()
        self._has_complained = False

    def outcomes(
        self, tasks: Iterable[SceneTask], options: RunOptions, how: DaskOptions | None = None
    ) -> Generator[Outcome, None, None]:
        """Run scenes and tell how each ended, as it ends; closing the iterator takes back what has not begun.

        Raises:
            EngineTrouble: No engine runs, or the cluster is gone.
        """
        how = how or DaskOptions()
        # Failures that may pass are tried again by the scheduler.
        todo = Todo(tasks, replace(options, retries=0))
        self._client.subscribe_topic(TOPIC, self._hear)
        try:
            while self._hand_out(todo, options, how) or self._under_way:
                for one, outcome in self._ended_now():
                    if todo.settle(one, outcome):
                        yield outcome
        finally:
            if self._under_way:
                self._client.cancel(list(self._under_way), force=True)
            self._client.unsubscribe_topic(TOPIC)

    def _hand_out(self, todo: Todo, options: RunOptions, how: DaskOptions) -> bool:
        """Give the cluster what it can take; whether something is left that could not be given."""
        self._look_at_workers(how)
        while len(self._under_way) < self._window:
            one = todo.take()
            if one is None:
                return False
            must_wait = bool(one.deaths) and bool(self._under_way)
            if must_wait or one.not_before_s > time.monotonic():
                todo.put_back(one)
                return True
            self._submit(one, options, how)
            if one.deaths:  # alone
                return True
        return True

    def _submit(self, one: Try, options: RunOptions, how: DaskOptions) -> None:
        task = one.task.for_any_process()
        future = self._client.submit(
            how.function, task, self._recipe, self._identities.of_recipe,
            key=f"geoseg-{self._identities.task_key(task)}-{one.number}",
            retries=options.retries, resources=dict(how.resources) or None, pure=False,
        )  # fmt: skip
        self._under_way[future] = _UnderWay(one, time.monotonic())
        self._tasks[str(task.place)] = one.task
        future.add_done_callback(self._ended.put)

    def _ended_now(self) -> list[tuple[Try, Outcome]]:
        """What ended since the last time; waits a moment where nothing did."""
        ended = []
        try:
            ended.append(self._ended.get(timeout=_LOOK_EVERY_S))
            while True:
                ended.append(self._ended.get_nowait())
        except queue.Empty:
            return [found for future in ended if (found := self._end_of(future)) is not None]

    def _end_of(self, future: Future) -> tuple[Try, Outcome] | None:
        known = self._under_way.pop(future, None)
        if known is None:
            return None
        outcome = self._outcome(future, known)
        self._tasks.pop(str(known.one.task.place), None)
        future.release()
        return known.one, replace(outcome, task=known.one.task)

    def _outcome(self, future: Future, known: _UnderWay) -> Outcome:
        from distributed import KilledWorker

        task, seconds = known.one.task, time.monotonic() - known.started_s
        if future.status == "finished":
            told: Told = future.result()
            for word in told.words:
                self._repeat(word, task)
            return told.outcome
        if future.status != "error":
            gone = EngineError(f"the cluster lost a task ({future.status})", "see its scheduler; run the command again")
            raise EngineTrouble(gone)
        error = future.exception()
        if isinstance(error, MayPass):
            return error.outcome
        if isinstance(error, EngineTrouble):
            raise error
        if isinstance(error, KilledWorker):
            died = WorkerDiedError(
                f"KilledWorker: the worker {error.last_worker.address} died over it",
                "run it alone to see why; see the worker's log: memory may be short",
            )
            failure = Failure.of(died, task.scene)
        else:
            failure = Failure.of(error, task.scene)
        self._runner.tell_failure(task, failure, seconds)
        return Outcome(task, "failed", seconds, failure=failure)

    def _look_at_workers(self, how: DaskOptions) -> None:
        """Few tasks beyond those that run: whatever a dying worker had been given has to be run again."""
        now = time.monotonic()
        if now - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        fitting = [one for one in workers if all(one["resources"].get(k, 0) >= v for k, v in how.resources.items())]
        self._window = max(LEAST_UNDER_WAY, 2 * sum(one["nthreads"] for one in fitting))
        if fitting:
            self._waits_since_s = now
        elif now - self._waits_since_s > _PATIENCE_S and not self._has_complained:
            wanted = " with " + ", ".join(f"{k}={v:g}" for k, v in how.resources.items()) if how.resources else ""
            self._watch.note(f"no worker{wanted} has come for {_PATIENCE_S:.0f} s; still waiting")
            self._has_complained = True

    def _hear(self, event: Any) -> None:
        """What a worker tells; others' runs are not ours."""
        for said in event[1]:
            word = Word(**said)
            self._repeat(word, self._tasks.get(word.place or ""))

    def _repeat(self, word: Word, task: SceneTask | None) -> None:
        if word.name == "note":
            self._watch.note(*word.rest)
        elif task is not None:
            getattr(self._watch, word.name)(task, *word.rest)
