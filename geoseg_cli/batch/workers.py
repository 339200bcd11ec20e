"""Local worker processes: each has its own model, its share of the cores, and one scene at a time.

A worker that dies, whatever of, costs the one scene that it had: it is begun again, and so is the scene, once, behind
the others.
"""

from __future__ import annotations

import contextvars
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from geoseg_cli.ahead import usable_cores
from geoseg_cli.batch.models import EngineTrouble
from geoseg_cli.batch.run import Stopped, run_lanes
from geoseg_cli.batch.scene_run import NO_TURN, SceneRunner, Turn
from geoseg_cli.batch.tasks import Failure, Outcome, Recipe, SceneTask
from geoseg_cli.batch.todo import RunOptions
from geoseg_cli.batch.watch import Watch
from geoseg_cli.batch.worker_process import PATIENCE_S, WorkerOrder, serve
from geoseg_cli.engines.devices import CudaProbe, probe_cuda, resolve_devices
from geoseg_cli.errors import EngineError, GeosegError, WorkerDiedError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from geoseg_cli.batch.run import Lane
    from geoseg_cli.engines import EngineOptions

_log = logging.getLogger("geoseg_cli.batch")
_HELD_BACK = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True, slots=True)
class Around:
    """What surrounds the workers.

    Attributes:
        watch: Is told what happens in them.
        runner: Writes to the journal what no worker can.
        hide: Takes out of messages what neither journal nor report should hold; it must be possible to pickle it.
    """

    watch: Watch
    runner: SceneRunner
    hide: Callable[[str], str] = str


def run_workers(
    tasks: Sequence[SceneTask], recipes: Sequence[Recipe], around: Around, options: RunOptions
) -> Generator[Outcome, None, None]:
    """Run scenes in processes, one for each recipe; closing the iterator ends them all within seconds.

    Args:
        tasks: The scenes, handed out one by one in their order.
        recipes: What each worker does: the same but for devices and threads, as :func:`shares` makes them.
        around: What surrounds them.
        options: How scenes are run.

    Raises:
        EngineTrouble: No engine runs, or no worker begins.
    """
    lanes = [ProcessLane(WorkerOrder(recipe, around.hide), around) for recipe in recipes]
    yield from run_lanes(tasks, lanes, options)


def shares(recipe: Recipe, workers: int, probe: CudaProbe | None = None, cores: int | None = None) -> list[Recipe]:
    """A recipe for each of several workers: devices go round, cores and memory are divided.

    Args:
        recipe: As it was asked for; threads that are not 0 are each worker's.
        workers: How many.
        probe: What CUDA offers; None to ask.
        cores: Cores that this process may use; None to ask.

    Raises:
        UsageError, EngineError: There is no such device.
    """
    asked = recipe.engine
    probe = probe or (CudaProbe(0, "the CPU was asked for") if asked.device == "cpu" else probe_cuda())
    devices = _devices(asked.device, probe)
    threads = asked.threads or max(1, (cores or usable_cores()) // workers)
    memory = recipe.options.max_memory_bytes
    options = replace(recipe.options, max_memory_bytes=memory // workers) if memory is not None else recipe.options
    engines: Iterator[EngineOptions] = (
        replace(asked, device=devices[number % len(devices)], threads=threads) for number in range(workers)
    )
    return [replace(recipe, engine=engine, options=options) for engine in engines]


def _devices(asked: str, probe: CudaProbe) -> Sequence[str]:
    if asked in ("auto", "cuda") and probe.works:
        return [f"cuda:{number}" for number in range(probe.devices)]
    # On a CPU what was asked for stays: an engine then says itself why it runs there.
    return [asked] if asked in ("auto", "cpu") else resolve_devices(asked, probe)


class ProcessLane:
    """A worker process; begun when the first scene comes, and again after it died.

    Args:
        order: What it is told.
        around: Who is told what it says.
    """

    def __init__(self, order: WorkerOrder, around: Around) -> None:
        self._order, self._around = order, around
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._is_stopped = False

    def turn(self) -> Turn:
        """Workers do not wait for each other."""
        return NO_TURN

    def run(self, task: SceneTask, turn: Turn) -> Outcome:
        """Run a scene; the death of the process is a failure of it."""
        started = time.perf_counter()
        connection = self._ready()
        told = _Told(task, self._around.watch)
        try:
            connection.send(task)
            while (message := connection.recv())[0] != "outcome":
                told(*message)
        except (EOFError, OSError):
            return self._lost(task, time.perf_counter() - started)
        outcome: Outcome = message[1]
        return outcome

    def stop(self) -> None:
        """End the process: first it may remove what is unfinished."""
        with self._lock:
            self._is_stopped = True
            process = self._process
        if process is None:
            return
        process.terminate()
        process.join(PATIENCE_S + 2)
        if process.is_alive():
            process.kill()
            process.join()

    def _ready(self) -> Connection:
        if self._connection is not None:
            return self._connection
        connection = self._begin()
        told = _Told(None, self._around.watch)
        try:
            while (message := connection.recv())[0] != "ready":
                told(*message)
        except (EOFError, OSError):
            how = self._end()
            error = EngineError(f"a worker process does not begin: {how}", "run one scene alone, without --workers")
            raise EngineTrouble(error) from None
        self._connection = connection
        return connection

    def _begin(self) -> Connection:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        with self._lock, _signals_held_back():
            if self._is_stopped:
                raise Stopped
            self._process = multiprocessing.get_context("spawn").Process(
                target=serve, args=(theirs, self._order), name="geoseg-worker", daemon=True
            )
            self._process.start()
        # From here on only the worker has it: the pipe ends with it.
        theirs.close()
        return ours

    def _end(self) -> str:
        """Take leave of a process that died; how it did."""
        assert self._process is not None, "it was never begun"
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._process.join()
        if self._is_stopped:
            raise Stopped
        code = self._process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"

    def _lost(self, task: SceneTask, seconds: float) -> Outcome:
        error = WorkerDiedError(
            f"the worker process died over it: {self._end()}",
            "run it alone to see why; where memory is short, use fewer --workers or --max-memory",
        )
        failure = Failure.of(error, task.scene)
        self._around.runner.tell_failure(task, failure, seconds)
        return Outcome(task, "failed", seconds, failure=failure)


class _Told:
    """Hands what a worker says to the watch, as if the scene ran in a thread of its own here."""

    def __init__(self, task: SceneTask | None, watch: Watch) -> None:
        self._task, self._watch = task, watch
        self._context = contextvars.copy_context()

    def __call__(self, word: str, *rest: Any) -> None:
        self._context.run(self._say, word, *rest)

    def _say(self, word: str, *rest: Any) -> None:
        if word == "trouble":
            error: GeosegError = rest[0]
            raise EngineTrouble(error)
        if word == "log":
            level, text, fields = rest
            _log.log(level, "%s", text, extra={"fields": fields} if fields else None)
        elif word == "note":
            self._watch.note(*rest)
        elif self._task is not None:
            getattr(self._watch, word)(self._task, *rest)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """A process that begins inherits that signals wait, until it can take them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


if TYPE_CHECKING:
    _fits: type[Lane] = ProcessLane
