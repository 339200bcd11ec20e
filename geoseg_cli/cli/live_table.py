"""The scenes under way, and how far the run is, where standard error is a terminal."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

from geoseg_cli.printable import counted, printable

if TYPE_CHECKING:
    from geoseg_cli.batch.tasks import Outcome, SceneTask
    from geoseg_cli.cli.console import Messages


class LiveTable:
    """A context manager; nothing is shown where nobody looks. Its methods may be called by several threads.

    Args:
        messages: Whose terminal it shares: lines that are printed meanwhile appear above it.
        scenes: How many there are.

    Attributes:
        is_shown: Whether there is a terminal to show it on.
    """

    def __init__(self, messages: Messages, scenes: int) -> None:
        self.is_shown = not messages.is_quiet and sys.stderr.isatty()
        self._scenes, self._failed = scenes, 0
        self._rows: dict[SceneTask, Any] = {}
        self._lock = threading.Lock()
        self._bar = _bar(messages) if self.is_shown else None
        self._all: Any = None
        if self._bar is not None:
            self._all = self._bar.add_task(f"0 of {counted(scenes, 'scene')}", total=scenes, stage="", rate="")

    def begin(self, task: SceneTask) -> None:
        """A scene was opened; its first tiles are being read."""
        if self._bar is None:
            return
        from rich.markup import escape

        name = escape(printable(task.scene.name))
        with self._lock:
            self._rows[task] = self._bar.add_task(name, total=None, stage="reading", rate="")

    def advance(self, task: SceneTask, done_px: int, total_px: int) -> None:
        """Pixels of a scene are finished."""
        row = self._rows.get(task)
        if self._bar is None or row is None:
            return
        elapsed_s = next((one.elapsed or 0.0 for one in self._bar.tasks if one.id == row), 0.0)
        rate = f"{done_px / elapsed_s / 1e6:.2f} Mpx/s" if elapsed_s else ""
        stage = "writing" if done_px == total_px else "running"
        self._bar.update(row, completed=done_px, total=total_px, stage=stage, rate=rate)

    def end(self, outcome: Outcome) -> None:
        """A scene is out of the way."""
        if self._bar is None:
            return
        with self._lock:
            row = self._rows.pop(outcome.task, None)
            self._failed += not outcome.has_map
        if row is not None:
            self._bar.remove_task(row)
        self._bar.advance(self._all)
        done = int(self._bar.tasks[0].completed)
        failed = f", {self._failed} failed" if self._failed else ""
        self._bar.update(self._all, description=f"{done} of {counted(self._scenes, 'scene')}{failed}")

    def __enter__(self) -> LiveTable:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar(messages: Messages) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.fields[stage]}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    # What is redirected goes to standard error: only where both are the terminal is that the same place.
    is_terminal = sys.stdout.isatty()
    return Progress(*columns, console=messages.console, transient=True, redirect_stdout=is_terminal)
