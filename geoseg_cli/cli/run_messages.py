"""What is said about a scene and about a run over many of them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.cli import logs
from geoseg_cli.cli.console import Messages
from geoseg_cli.errors import GeosegError
from geoseg_cli.printable import counted, printable

if TYPE_CHECKING:
    from geoseg_cli.batch.tasks import Outcome, SceneTask
    from geoseg_cli.cli.live_table import LiveTable
    from geoseg_cli.predict import PredictReport


class BatchWatch:
    """Tells about each of many scenes in few lines; called from several threads."""

    def __init__(self, messages: Messages, table: LiveTable) -> None:
        self._messages, self._table = messages, table

    def note(self, text: str) -> None:
        self._messages.note(text)

    def begin(self, task: SceneTask) -> None:
        from geoseg_cli.batch.tasks import shown

        logs.about(shown(task.scene))

    def announce(self, task: SceneTask, decisions: Mapping[str, Any]) -> None:
        from geoseg_cli.batch.tasks import shown

        self._table.begin(task)
        if self._messages.is_verbose:
            self._messages.decisions(dict(decisions), Path(shown(task.scene)), task.output)
            for line in further_decisions(dict(decisions)):
                self._messages.note(f"  {line}")
            return
        for warning in decisions["warnings"]:
            self._messages.note(f"{printable(shown(task.scene))}: warning: {warning}")

    def progress(self, task: SceneTask, done_px: int, total_px: int) -> None:
        self._table.advance(task, done_px, total_px)

    def finished(self, task: SceneTask, not_finite: int) -> None:
        if not_finite:
            self._messages.note(
                f"{printable(str(task.output))}: warning: {counted(not_finite, 'pixel')} became nodata because the"
                " network gave no finite number"
            )

    def ended(self, outcome: Outcome) -> None:
        """A scene is out of the way."""
        from geoseg_cli.batch.tasks import shown

        self._table.end(outcome)
        _log(outcome)
        scene = printable(shown(outcome.task.scene))
        if outcome.failure is not None:
            failure = outcome.failure
            what = f"{outcome.status} (code {failure.exit_code}): {failure.message}"
            self._messages.trouble(f"{scene}: {what}", failure.hint)
        elif not self._table.is_shown:
            what = f"done in {outcome.seconds:.1f} s" if outcome.status == "done" else "unchanged"
            self._messages.note(f"{scene}: {what} -> {outcome.task.output}")


def _log(outcome: Outcome) -> None:
    from geoseg_cli.batch.tasks import shown

    logs.about(shown(outcome.task.scene))
    error = {} if outcome.failure is None else outcome.failure.to_json()
    level = logging.INFO if outcome.has_map else logging.ERROR
    logs.tell(outcome.status, level, output=str(outcome.task.output), seconds=round(outcome.seconds, 3), **error)
    logs.about(None)


class Summary:
    """How a run over many scenes ended.

    Args:
        scenes: How many were asked for.
    """

    def __init__(self, scenes: int) -> None:
        self._scenes = scenes
        self._counts: Counter[str] = Counter()
        self._failed: list[Outcome] = []
        self._started_s = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Take in how a scene ended."""
        self._counts[outcome.status] += 1
        if not outcome.has_map:
            self._failed.append(outcome)

    @property
    def is_good(self) -> bool:
        """Whether every scene has its map."""
        return not self._failed and self._counts.total() == self._scenes

    def tell(self, messages: Messages) -> None:
        """Say it, with a line for each scene that has no map."""
        from geoseg_cli.batch.tasks import shown

        counts = [f"{self._counts[status]} {status}" for status in ("done", "unchanged", "failed")]
        counts += [f"{self._counts['busy']} held by another run"] if self._counts["busy"] else []
        left = self._scenes - self._counts.total()
        counts += [f"{left} not begun"] if left else []
        seconds = time.monotonic() - self._started_s
        messages.note(f"{counted(self._scenes, 'scene')}: {', '.join(counts)}; {seconds:.1f} s")
        if not self._failed:
            return
        messages.note(f"{len(self._failed)} of {counted(self._scenes, 'scene')} failed:")
        for outcome in self._failed:
            failure = outcome.failure
            assert failure is not None, "without a map and without a reason"
            hint = f" -> {failure.hint}" if failure.hint else ""
            scene = printable(shown(outcome.task.scene))
            messages.note(f"  {scene} (code {failure.exit_code}): {failure.message}{hint}")


def tell_report(messages: Messages, report: PredictReport) -> None:
    """What a finished map holds."""
    from geoseg_cli.cli.area_tables import adjusted_table

    messages.areas(report)
    if isinstance(report.adjusted, GeosegError):
        messages.note(f"warning: no adjusted areas: {report.adjusted.message}; {report.adjusted.hint}")
    elif report.adjusted is not None:
        messages.note(adjusted_table(report.adjusted).rstrip())


def further_decisions(decisions: dict[str, Any]) -> list[str]:
    """What was decided about a scene that is not taken as it is stored, whole."""
    lines = []
    if decisions["resampled_gsd_m"]:
        height_m, width_m = decisions["resampled_gsd_m"]
        lines.append(f"shown to the model: pixels of {height_m:g} x {width_m:g} m; the map has the scene's own")
    if decisions["orientation"] != "as stored":
        lines.append(f"orientation: {decisions['orientation']}")
    if clouds := decisions.get("clouds"):
        bands = ", ".join(row["band"] for row in clouds["bands"] if row["index"] is not None)
        hidden = "nodata" if clouds["hidden_as"] == "nodata" else "classes of their own"
        lines.append(f"clouds: bundle {clouds['bundle']} on {bands}; clouds and shadows become {hidden}")
        lines += [
            f"warning: clouds: {warning}" for warning in clouds["warnings"] if warning not in decisions["warnings"]
        ]
    lines += _cleaning_lines(decisions)
    if decisions["area"]:
        height, width = decisions["output_size_px"]
        lines.append(f"area: {decisions['area']}; output of {height} x {width} px")
    return lines


def _cleaning_lines(decisions: dict[str, Any]) -> list[str]:
    """What is done to the finished map, in the order in which it is done."""
    words = {
        "min_object_px": "clouds of fewer than {} px become clear",
        "dilate_px": "clouds grow by {} px",
        "legend": "classes become those of {}",
        "majority_px": "majority in {} x {} px",
        "sieve_px": "parts of fewer than {} px join what they touch",
    }
    done = decisions["cleaning"]
    steps = [words[name].format(*[value["to"] if name == "legend" else value] * 2) for name, value in done.items()]
    lines = [f"cleaning: {'; '.join(steps)}"] if steps else []
    if decisions["cloud_threshold"] is not None:
        lines.insert(0, f"cloud: probability of {decisions['cloud_threshold']:g} or more")
    return lines
