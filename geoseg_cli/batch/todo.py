"""The scenes that are left: which is next, what is tried again and when, and when all is over.

====================  ==============================================================================
what happened         what follows
====================  ==============================================================================
may pass              tried again behind the others, ``retries`` times, with growing pauses
held by another run   looked at again behind the others until that run is done, ``wait_s`` at most
its process died      tried once more behind the others: memory may have been short
all else              final
====================  ==============================================================================
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from geoseg_cli.batch.tasks import Outcome, SceneTask

FIRST_WAIT_S = 1.0
"""Before the second try; each further one waits twice as long."""
LONGEST_PAUSE_S = 5.0
"""Between two looks at a scene that another run holds."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How scenes are run.

    Attributes:
        fail_fast: Whether no scene is begun after one failed.
        retries: Further tries for what may pass: a network.
        at_once: Scenes under way in one process, 1 or 2.
        wait_s: How long a scene that another run holds is waited for.
    """

    fail_fast: bool = False
    retries: int = 2
    at_once: int = 2
    wait_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Try:
    """A scene that is to be run.

    Attributes:
        task: The scene.
        number: How often it was tried.
        deaths: How often its process died.
        not_before_s: When, as ``time.monotonic`` counts.
        held_since_s: When, behind the others, another run was first found to hold it.
    """

    task: SceneTask
    number: int = 0
    deaths: int = 0
    not_before_s: float = 0.0
    held_since_s: float | None = None


class Todo:
    """Hands out scenes, and decides whether an outcome is the last word; may be used by several threads.

    Args:
        tasks: The scenes; taken one by one.
        options: How they are run.
    """

    def __init__(self, tasks: Iterable[SceneTask], options: RunOptions) -> None:
        self._tasks, self._options = iter(tasks), options
        self._aside: list[Try] = []
        self._lock = threading.Lock()
        self._is_over = False

    def take(self) -> Try | None:
        """What comes next, at its time; None where nothing is left now."""
        with self._lock:
            if self._is_over:
                return None
            task = next(self._tasks, None)
            if task is not None:
                return Try(task)
            if not self._aside:
                return None
            soonest = min(self._aside, key=lambda one: one.not_before_s)
            self._aside.remove(soonest)
            return soonest

    def put_back(self, one: Try) -> None:
        """Hand back what was not begun."""
        with self._lock:
            self._aside.append(one)

    def settle(self, one: Try, outcome: Outcome) -> bool:
        """Whether an outcome is final; if not, the scene is set aside to be tried again."""
        again = self._again(one, outcome)
        with self._lock:
            if again is not None:
                self._aside.append(again)
            else:
                self._is_over |= self._options.fail_fast and outcome.failure is not None
        return again is None

    def _again(self, one: Try, outcome: Outcome) -> Try | None:
        failure, now = outcome.failure, time.monotonic()
        if failure is None or not failure.may_pass:
            return None
        tried = replace(one, number=one.number + 1)
        pause_s = FIRST_WAIT_S * 2**one.number
        if outcome.status == "busy":
            later = replace(tried, not_before_s=now + min(pause_s, LONGEST_PAUSE_S))
            if not one.number:  # the patience begins once all others are out of the way
                return later
            since = one.held_since_s if one.held_since_s is not None else now
            return replace(later, held_since_s=since) if now - since < self._options.wait_s else None
        if failure.has_died:
            return replace(tried, deaths=one.deaths + 1) if not one.deaths else None
        return replace(tried, not_before_s=now + pause_s) if one.number < self._options.retries else None
