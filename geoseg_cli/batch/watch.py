"""What a run over many scenes tells while it works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from geoseg_cli.batch.tasks import SceneTask


class Watch(Protocol):
    """What a run tells while it works; called from several threads."""

    def note(self, text: str) -> None:
        """Something about the whole run."""

    def begin(self, task: SceneTask) -> None:
        """This thread turns to a scene."""

    def announce(self, task: SceneTask, decisions: Mapping[str, Any]) -> None:
        """A scene was opened and understood; what was decided, as :meth:`geoseg_cli.job.Job.decisions` tells it."""

    def progress(self, task: SceneTask, done_px: int, total_px: int) -> None:
        """Pixels of a scene are finished."""

    def finished(self, task: SceneTask, not_finite: int) -> None:
        """A scene's map is published; so many pixels became nodata because the network gave no finite number."""
