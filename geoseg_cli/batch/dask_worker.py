"""What runs in the workers of a Dask cluster: one scene is one task, and the model is loaded once per process."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from geoseg_cli.batch.identity import Identities
from geoseg_cli.batch.models import EngineTrouble, Models
from geoseg_cli.batch.run import Floor, FloorLane
from geoseg_cli.batch.scene_run import SceneRunner
from geoseg_cli.batch.tasks import Outcome, Recipe, SceneTask
from geoseg_cli.errors import ModelError
from geoseg_cli.redaction import without_credentials

TOPIC = "geoseg"
"""Under which workers tell what they do."""
_PROGRESS_EVERY_S = 1.0


class MayPass(Exception):
    """A scene failed at something that another try may not meet: the scheduler tries it again.

    Attributes:
        outcome: What there is to know.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


@dataclass(slots=True)
class _Loaded:
    """A recipe's models in this process."""

    models: Models
    lane: FloorLane
    scenes: int = 0


@dataclass(slots=True)
class _Process:
    """What this process holds, by recipe."""

    loaded: dict[str, _Loaded] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, recipe: Recipe, key: str) -> _Loaded:
        """The models of a recipe; those of others that nobody uses are given up."""
        with self.lock:
            for other in [name for name, one in self.loaded.items() if name != key and not one.scenes]:
                self.loaded.pop(other).models.close()
            if key not in self.loaded:
                self.loaded[key] = _load(recipe, key)
            self.loaded[key].scenes += 1
            return self.loaded[key]

    def leave(self, key: str) -> None:
        with self.lock:
            self.loaded[key].scenes -= 1


_process = _Process()


def run_scene(task: SceneTask, recipe: Recipe, recipe_key: str) -> Outcome:
    """Run a scene in this worker.

    Args:
        task: The scene, meaning the same in any process.
        recipe: What is done to it; folders must lie where the client sees them.
        recipe_key: The recipe as the client knows it.

    Raises:
        MayPass: Another try may help.
        EngineTrouble: No engine runs here, or the model is another one than the client's.
    """
    loaded = _process.enter(recipe, recipe_key)
    try:
        outcome = loaded.lane.run(task, loaded.lane.turn())
    finally:
        _process.leave(recipe_key)
    if outcome.status == "failed" and outcome.failure is not None and outcome.failure.may_pass:
        raise MayPass(outcome)
    return outcome


def do_nothing(task: SceneTask, recipe: Recipe, recipe_key: str) -> Outcome:
    """Stand for :func:`run_scene` where the cost of the way is measured."""
    return Outcome(task, "done", 0.0)


def _load(recipe: Recipe, key: str) -> _Loaded:
    try:
        if Identities(recipe).of_recipe != key:
            raise ModelError(
                f"the model in {recipe.bundle}, or geoseg, is not the same on this worker as on the client",
                "install one version and one bundle everywhere",
            )
        watch = _Watch()
        models = Models(recipe, watch)
    except Exception as error:
        from geoseg_cli.errors import GeosegError

        if isinstance(error, GeosegError):
            raise EngineTrouble(error) from error
        raise
    return _Loaded(models, FloorLane(SceneRunner(models, watch, without_credentials), Floor()))


class _Watch:
    """Tells the client through the scheduler; what nobody listens to is lost."""

    def __init__(self) -> None:
        from distributed import get_worker

        self._worker = get_worker()
        self._next_s: dict[SceneTask, float] = {}

    def _tell(self, task: SceneTask | None, word: str, *rest: Any) -> None:
        place = None if task is None else str(task.place)
        self._worker.log_event(TOPIC, {"output": place, "word": word, "rest": list(rest)})

    def note(self, text: str) -> None:
        self._tell(None, "note", f"{self._worker.name}: {without_credentials(text)}")

    def begin(self, task: SceneTask) -> None:
        self._tell(task, "begin")

    def announce(self, task: SceneTask, decisions: Mapping[str, Any]) -> None:
        self._tell(task, "announce", dict(decisions))

    def progress(self, task: SceneTask, done_px: int, total_px: int) -> None:
        now = time.monotonic()
        if now >= self._next_s.get(task, 0.0):
            self._next_s[task] = now + _PROGRESS_EVERY_S
            self._tell(task, "progress", done_px, total_px)

    def finished(self, task: SceneTask, not_finite: int) -> None:
        self._next_s.pop(task, None)
        self._tell(task, "finished", not_finite)
