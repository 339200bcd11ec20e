"""A run over many scenes in one process: two are under way, the engine belongs to one of them at a time.

While the engine answers the tiles of one scene, the last scene's map is compressed, read back and published, and the
next scene is opened and its first tiles are cut. The engine goes from one scene to the next when the last row of the
first is done; so nothing about a map depends on its neighbours.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geoseg_cli.arrays import Array
from geoseg_cli.batch.scene_run import SceneRunner, Turn
from geoseg_cli.batch.tasks import Outcome, SceneTask

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine

FIRST_WAIT_S = 1.0
"""Before the second try; each further one waits twice as long."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How scenes are run.

    Attributes:
        fail_fast: Whether no scene is begun after one failed.
        retries: Further tries for what may pass: a network, an output that another run holds.
        at_once: Scenes under way, 1 or 2.
    """

    fail_fast: bool = False
    retries: int = 2
    at_once: int = 2


class Stopped(BaseException):
    """The run was ended while a scene was under way; it unwinds the scene's transaction."""


class Floor:
    """The right to use the engine: the scene that began first has it, until its last row."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: list[object] = []
        self._is_stopped = False

    def enter(self, owner: object) -> None:
        """Stand in line."""
        with self._changed:
            self._line.append(owner)

    def take(self, owner: object) -> None:
        """Wait for the engine.

        Raises:
            Stopped: The run was ended.
        """
        with self._changed:
            if owner not in self._line:  # it left early: rows that nobody writes are computed all the same
                self._line.append(owner)
            self._changed.wait_for(lambda: self._is_stopped or self._line[0] is owner)
            if self._is_stopped:
                raise Stopped

    def leave(self, owner: object) -> None:
        """Let the next have it."""
        with self._changed:
            if owner in self._line:
                self._line.remove(owner)
                self._changed.notify_all()

    def stop(self) -> None:
        """Nobody gets it any more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Sleep, unless the run is ended.

        Raises:
            Stopped: It was.
        """
        with self._changed:
            if self._changed.wait_for(lambda: self._is_stopped, seconds):
                raise Stopped


class LentEngine:
    """An engine that a scene runs when it has the floor.

    Args:
        engine: What answers.
        floor: Who may ask.
        owner: The scene.
    """

    def __init__(self, engine: Engine, floor: Floor, owner: object) -> None:
        self._engine, self._floor, self._owner = engine, floor, owner
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision
        self.batch_tiles, self.arrays = engine.batch_tiles, engine.arrays

    def run(self, pixels: Array) -> Array:
        """Run the network once it is this scene's turn."""
        self._floor.take(self._owner)
        return self._engine.run(pixels)

    def close(self) -> None:
        """Nothing: the engine is wanted by other scenes."""


def run_batch(tasks: Iterable[SceneTask], runner: SceneRunner, options: RunOptions) -> Generator[Outcome, None, None]:
    """Run scenes and tell how each ended, as it ends; closing the iterator stops those that are under way.

    A scene that may pass at another try is set aside and tried again behind the others.

    Args:
        tasks: The scenes; taken one by one.
        runner: What runs one.
        options: How.

    Raises:
        EngineTrouble: No engine runs.
    """
    work = _Work(iter(tasks), runner, options)
    if options.at_once == 1:
        yield from work.outcomes(Floor())
        return
    floor = Floor()
    results: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=_serve, args=(work, floor, results), name=f"geoseg-scene-{number}", daemon=True)
        for number in range(options.at_once)
    ]
    for thread in threads:
        thread.start()
    try:
        yield from _gathered(results, len(threads))
    finally:
        floor.stop()
        for thread in threads:
            thread.join()


def _gathered(results: queue.SimpleQueue[Outcome | BaseException | None], threads: int) -> Iterator[Outcome]:
    while threads:
        result = results.get()
        if isinstance(result, BaseException):
            raise result
        if result is None:
            threads -= 1
        else:
            yield result


def _serve(work: _Work, floor: Floor, results: queue.SimpleQueue[Outcome | BaseException | None]) -> None:
    try:
        for outcome in work.outcomes(floor):
            results.put(outcome)
    except Stopped:
        pass
    except BaseException as error:  # it is for who asked for the outcomes
        results.put(error)
    finally:
        results.put(None)


class _Work:
    """The scenes that are left, shared by the threads that run them."""

    def __init__(self, tasks: Iterator[SceneTask], runner: SceneRunner, options: RunOptions) -> None:
        self._tasks, self._runner, self._options = tasks, runner, options
        self._aside: deque[tuple[SceneTask, int, float]] = deque()
        self._lock = threading.Lock()
        self._is_over = False

    def outcomes(self, floor: Floor) -> Iterator[Outcome]:
        """Run what is left, one scene after the other."""
        while (taken := self._next(floor)) is not None:
            task, tries, turn = taken
            try:
                outcome = self._runner.run(task, turn)
            finally:
                turn.leave()
            if outcome.failure is not None and outcome.failure.may_pass and tries < self._options.retries:
                with self._lock:
                    self._aside.append((task, tries + 1, time.monotonic() + FIRST_WAIT_S * 2**tries))
                continue
            self._is_over |= self._options.fail_fast and outcome.failure is not None
            yield outcome

    def _next(self, floor: Floor) -> tuple[SceneTask, int, Turn] | None:
        """A scene, how often it was tried, and its turn: turns are in the order of the scenes."""
        with self._lock:
            if self._is_over:
                return None
            task = next(self._tasks, None)
            if task is not None:
                return task, 0, _TurnOn(floor)
            if not self._aside:
                return None
            task, tries, not_before_s = self._aside.popleft()
        floor.wait(max(not_before_s - time.monotonic(), 0.0))
        self._runner.reload(task)
        return task, tries, _TurnOn(floor)


class _TurnOn(Turn):
    """A scene's turn among others."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        floor.enter(self)

    def lend(self, engine: Engine) -> Engine:
        return LentEngine(engine, self._floor, self)

    def leave(self) -> None:
        self._floor.leave(self)


if TYPE_CHECKING:
    _fits: type[Engine] = LentEngine
