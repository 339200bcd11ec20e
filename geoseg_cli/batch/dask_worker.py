"""What runs in the workers of a Dask cluster: one scene is one task, and the model is loaded once per process."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
_TELL_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Word:
    """One call of a watch, on its way to the client.

    Attributes:
        place: The output of the scene that it is about; None for the whole run.
        name: Name of the watch's method.
        rest: What else it is called with.
    """

    place: str | None
    name: str
    rest: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What a task returns.

    Attributes:
        outcome: How the scene ended.
        words: What was not told before that.
    """

    outcome: Outcome
    words: Sequence[Word] = ()


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
    watch: _Watch
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


def run_scene(task: SceneTask, recipe: Recipe, recipe_key: str) -> Told:
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
        loaded.watch.tell()
        raise MayPass(outcome)
    return Told(outcome, loaded.watch.untold())


def do_nothing(task: SceneTask, recipe: Recipe, recipe_key: str) -> Told:
    """Stand for :func:`run_scene` where the cost of the way is measured."""
    return Told(Outcome(task, "done", 0.0))


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
    return _Loaded(models, watch, FloorLane(SceneRunner(models, watch, without_credentials), Floor()))


class _Watch:
    """Tells the client through the scheduler; what nobody listens to is lost.

    A message costs the cluster as much as a task. So words are gathered for a while, and those of a small scene go with
    its outcome.
    """

    def __init__(self) -> None:
        from distributed import get_worker

        self._worker = get_worker()
        self._words: list[Word] = []
        self._lock = threading.Lock()
        self._next_s = 0.0

    def untold(self) -> list[Word]:
        """What was not told so far; it is not told again."""
        with self._lock:
            words, self._words = self._words, []
            return words

    def tell(self) -> None:
        """Tell at once."""
        self._next_s = time.monotonic() + _TELL_EVERY_S
        self._worker.log_event(TOPIC, [asdict(word) for word in self.untold()])

    def _say(self, task: SceneTask | None, name: str, *rest: Any) -> None:
        word = Word(None if task is None else str(task.place), name, rest)
        with self._lock:
            if name == "progress":  # the last one counts
                self._words = [one for one in self._words if (one.place, one.name) != (word.place, name)]
            self._words.append(word)
        if time.monotonic() >= self._next_s:
            self.tell()

    def note(self, text: str) -> None:
        self._say(None, "note", f"{self._worker.name}: {without_credentials(text)}")

    def begin(self, task: SceneTask) -> None:
        self._say(task, "begin")

    def announce(self, task: SceneTask, decisions: Mapping[str, Any]) -> None:
        self._say(task, "announce", dict(decisions))

    def progress(self, task: SceneTask, done_px: int, total_px: int) -> None:
        self._say(task, "progress", done_px, total_px)

    def finished(self, task: SceneTask, not_finite: int) -> None:
        self._say(task, "finished", not_finite)
