"""A local worker process: it loads the model once, gets one scene after the other, and tells what happens.

It ends when the process that began it does, however that dies: the end of their pipe tells. What a terminal sends to
all its processes (Ctrl-C) is the beginner's to handle.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, NoReturn

from geoseg_cli.batch.models import EngineTrouble, Models
from geoseg_cli.batch.run import Floor, FloorLane, Stopped
from geoseg_cli.batch.scene_run import SceneRunner
from geoseg_cli.batch.tasks import Recipe, SceneTask
from geoseg_cli.errors import GeosegError

PATIENCE_S = 4.0
"""How long a scene may take to remove what is unfinished once the run is ended."""
_PROGRESS_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What a worker needs to know.

    Attributes:
        recipe: What is done to each scene, with this worker's device and threads.
        hide: Takes out of messages what neither journal nor report should hold.
    """

    recipe: Recipe
    hide: Callable[[str], str] = str


def serve(connection: Connection, order: WorkerOrder) -> None:
    """Run the scenes that come through a pipe until it ends; the whole life of a worker process.

    Args:
        connection: Gives tasks; takes tuples of a word and what belongs to it.
        order: What is done to them.
    """
    _mind_only_the_beginner()
    # Said in our own words, as everywhere.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    tell = _Teller(connection)
    logger = logging.getLogger("geoseg_cli")
    logger.addHandler(_Forward(tell))
    logger.setLevel(logging.INFO)
    floor, tasks = Floor(), queue.SimpleQueue[SceneTask | None]()
    scenes = threading.Thread(target=_run_scenes, args=(tasks, floor, order, tell), name="geoseg-scene", daemon=True)
    scenes.start()
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError, SystemExit):
        floor.stop()
        tasks.put(None)
        scenes.join(PATIENCE_S)
        os._exit(0)


def _mind_only_the_beginner() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminated)
    if hasattr(signal, "pthread_sigmask"):  # they were held back until somebody was here to take them
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _run_scenes(tasks: queue.SimpleQueue[SceneTask | None], floor: Floor, order: WorkerOrder, tell: _Teller) -> None:
    try:
        lane = FloorLane(SceneRunner(Models(order.recipe, tell), tell, order.hide), floor)
        tell("ready")
        while (task := tasks.get()) is not None:
            tell("outcome", lane.run(task, lane.turn()))
    except Stopped:
        return
    except EngineTrouble as trouble:
        tell("trouble", trouble.error)
    except GeosegError as error:
        tell("trouble", error)
    except BaseException:
        traceback.print_exc()
        os._exit(70)  # the beginner waits for an answer


class _Teller:
    """Sends what happens to the beginner; a watch, called from several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()
        self._next_progress_s = 0.0

    def __call__(self, word: str, *rest: Any) -> None:
        with self._lock:
            try:
                self._connection.send((word, *rest))
            except OSError:
                return  # it is gone; the main thread is about to notice

    def note(self, text: str) -> None:
        self("note", text)

    def begin(self, task: SceneTask) -> None:
        self("begin")

    def announce(self, task: SceneTask, decisions: Mapping[str, Any]) -> None:
        self("announce", dict(decisions))

    def progress(self, task: SceneTask, done_px: int, total_px: int) -> None:
        now = time.monotonic()
        if now >= self._next_progress_s or done_px == total_px:
            self._next_progress_s = now + _PROGRESS_EVERY_S
            self("progress", done_px, total_px)

    def finished(self, task: SceneTask, not_finite: int) -> None:
        self("finished", not_finite)


class _Forward(logging.Handler):
    """Hands on what the library notes by the way."""

    def __init__(self, tell: _Teller) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell("log", record.levelno, record.getMessage(), getattr(record, "fields", None))
