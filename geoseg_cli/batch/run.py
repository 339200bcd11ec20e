"""A run over many scenes: lanes run them beside each other, one each at a time.

In one process two are under way. While the engine answers the tiles of one scene, the last scene's map is compressed,
read back and published, and the next scene is opened and its first tiles are cut. The engine goes from one scene to the
next when the last row of the first is done; so nothing about a map depends on its neighbours.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from geoseg_cli.arrays import Array
from geoseg_cli.batch.scene_run import SceneRunner, Turn
from geoseg_cli.batch.tasks import Outcome, SceneTask
from geoseg_cli.batch.todo import RunOptions, Todo

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine


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


class Lane(Protocol):
    """What runs one scene at a time; a thread of its own uses it."""

    def turn(self) -> Turn:
        """The next scene's place in the line; asked for in the order of the scenes."""
        ...

    def run(self, task: SceneTask, turn: Turn) -> Outcome:
        """Run a scene.

        Raises:
            EngineTrouble: No scene can be run.
            Stopped: The run was ended.
        """
        ...

    def stop(self) -> None:
        """End what is under way; called from another thread."""
        ...


class FloorLane:
    """A lane in this process.

    Args:
        runner: What runs scenes.
        floor: Who may use the engine; shared by the lanes of a process.
    """

    def __init__(self, runner: SceneRunner, floor: Floor) -> None:
        self._runner, self._floor = runner, floor

    def turn(self) -> Turn:
        """Stand in line for the engine."""
        return TurnOn(self._floor)

    def run(self, task: SceneTask, turn: Turn) -> Outcome:
        """Run a scene; it leaves the line however it ends."""
        try:
            return self._runner.run(task, turn)
        finally:
            turn.leave()

    def stop(self) -> None:
        """Let nobody have the engine any more."""
        self._floor.stop()


def run_batch(tasks: Iterable[SceneTask], runner: SceneRunner, options: RunOptions) -> Generator[Outcome, None, None]:
    """Run scenes in this process and tell how each ended, as it ends; see :func:`run_lanes`.

    Args:
        tasks: The scenes.
        runner: What runs one.
        options: How.

    Raises:
        EngineTrouble: No engine runs.
    """
    floor = Floor()
    lanes = [FloorLane(runner, floor) for _ in range(options.at_once)]
    if len(lanes) == 1:
        yield from _outcomes(Todo(tasks, options), lanes[0], floor, threading.Lock())
    else:
        yield from run_lanes(tasks, lanes, options)


def run_lanes(tasks: Iterable[SceneTask], lanes: Sequence[Lane], options: RunOptions) -> Generator[Outcome, None, None]:
    """Run scenes and tell how each ended, as it ends; closing the iterator stops those that are under way.

    Args:
        tasks: The scenes; taken one by one, in their order.
        lanes: What runs them, beside each other.
        options: How.

    Raises:
        EngineTrouble: No engine runs.
    """
    todo, clock, in_order = Todo(tasks, options), Floor(), threading.Lock()
    results: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()

    def serve(lane: Lane) -> None:
        try:
            for outcome in _outcomes(todo, lane, clock, in_order):
                results.put(outcome)
        except Stopped:
            pass
        except BaseException as error:  # it is for who asked for the outcomes
            results.put(error)
        finally:
            results.put(None)

    threads = [
        threading.Thread(target=serve, args=(lane,), name=f"geoseg-scene-{number}", daemon=True)
        for number, lane in enumerate(lanes)
    ]
    for thread in threads:
        thread.start()
    try:
        yield from _gathered(results, len(threads))
    finally:
        clock.stop()
        # All at once: each may take its time to remove what is unfinished.
        stops = [threading.Thread(target=lane.stop, name="geoseg-stop", daemon=True) for lane in lanes]
        for stop in stops:
            stop.start()
        for thread in (*stops, *threads):
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


def _outcomes(todo: Todo, lane: Lane, clock: Floor, in_order: threading.Lock) -> Iterator[Outcome]:
    """What becomes of the scenes that a lane gets."""
    while True:
        with in_order:
            one = todo.take()
            if one is None:
                return
            turn = lane.turn() if one.number == 0 else None
        if turn is None:
            clock.wait(max(one.not_before_s - time.monotonic(), 0.0))
            turn = lane.turn()
        outcome = lane.run(one.task, turn)
        if todo.settle(one, outcome):
            yield outcome


class TurnOn(Turn):
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
    _fits_too: type[Lane] = FloorLane
