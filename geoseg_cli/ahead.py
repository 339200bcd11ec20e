"""Stages that run beside each other: an iterator in a thread of its own, a bounded number of items ahead."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


def usable_cores() -> int:
    """Processor cores that this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


PATIENCE_S = 0.3
"""How long an interrupted program waits for a stage to finish the item that it is making."""


@contextmanager
def ahead(
    source: Generator[T, None, None], depth: int, name: str, interrupted: threading.Event | None = None
) -> Iterator[Iterator[T]]:
    """Run a generator in a thread of its own.

    Order is kept. An error of the generator is raised at the next item that is asked for, also where finished items
    still wait. Leaving the block closes the generator and waits for its thread, at most for the item being made; a
    program that is being interrupted waits for :data:`PATIENCE_S` at most, and the thread ends after its item.

    Args:
        source: Makes the items; runs in the new thread only.
        depth: Finished items that may wait beside the one just made; the generator pauses when there are as many. With
            0 it makes the next item once the one before has been asked for.
        name: Of the thread.
        interrupted: Set by whoever interrupts the program; leaving the block by an interrupt sets it as well.
    """
    interrupted = interrupted or threading.Event()
    stage = _Stage(source, depth, name)
    try:
        yield stage
    except (KeyboardInterrupt, SystemExit):
        interrupted.set()
        raise
    finally:
        stage.stop(PATIENCE_S if interrupted.is_set() else None)


class _Stage(Generic[T]):
    """The thread and what it has made; an iterator for one consumer."""

    def __init__(self, source: Generator[T, None, None], depth: int, name: str) -> None:
        self._source, self._depth = source, depth
        self._made: deque[T] = deque()
        self._error: BaseException | None = None
        self._is_stopped = self._is_done = self._is_asked = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> _Stage[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._is_asked = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._made or self._is_done)
            self._is_asked = False
            if self._error is not None:
                raise self._error
            if not self._made:
                raise StopIteration
            item = self._made.popleft()
            self._changed.notify_all()
            return item

    def stop(self, patience_s: float | None) -> None:
        """End the thread, and wait for that; items that wait are dropped."""
        with self._changed:
            self._is_stopped = True
            self._made.clear()
            self._changed.notify_all()
        self._thread.join(patience_s)

    def _run(self) -> None:
        try:
            for item in self._source:
                if not self._put(item):
                    break
                del item  # the consumer alone decides how long it lives
        except BaseException as error:  # it is the consumer's to handle
            self._error = error
        finally:
            self._finish()

    def _put(self, item: T) -> bool:
        """Hand an item over; False once nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._made) < self._depth + self._is_asked or self._is_stopped)
            if self._is_stopped:
                return False
            self._made.append(item)
            self._changed.notify_all()
            return True

    def _finish(self) -> None:
        try:
            self._source.close()
        except BaseException as error:
            self._error = self._error or error
        with self._changed:
            self._is_done = True
            self._changed.notify_all()
