"""One scene of many: is there anything to do, do it, and tell the journal."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from geoseg_cli import engines, predict
from geoseg_cli.batch.identity import Identities
from geoseg_cli.batch.journal import FOLDER, History, Journal, merged
from geoseg_cli.batch.rerun import Decision, Wanted, decide, hash_of, hashes_of
from geoseg_cli.batch.tasks import Failure, Outcome, Recipe, SceneTask, Status
from geoseg_cli.bundle import Bundle
from geoseg_cli.errors import BusyError, GeosegError
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.lock import lock_path
from geoseg_cli.results.workfolder import has_leftovers

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine
    from geoseg_cli.job import Job
    from geoseg_cli.predict import PredictReport


class Turn:
    """A scene's right to use the engines; here without waiting for anybody."""

    def lend(self, engine: Engine) -> Engine:
        """What the scene runs: the engine itself, or one that waits for the scene's turn."""
        return engine

    def leave(self) -> None:
        """The scene needs no engine any more."""


NO_TURN = Turn()


class Watch(Protocol):
    """What a run tells while it works; called from several threads."""

    def note(self, text: str) -> None:
        """Something about the whole run."""

    def begin(self, task: SceneTask) -> None:
        """This thread turns to a scene."""

    def announce(self, task: SceneTask, job: Job) -> None:
        """A scene was opened and understood."""

    def progress(self, task: SceneTask, done_px: int, total_px: int) -> None:
        """Pixels of a scene are finished."""

    def finished(self, task: SceneTask, report: PredictReport) -> None:
        """A scene's map is published."""


class Models:
    """The bundles of a recipe, and their engines, which are opened when the first scene needs them."""

    def __init__(self, recipe: Recipe, watch: Watch) -> None:
        """Open the bundles without their weights.

        Raises:
            InputMissingError, ModelError: There is none, or its card does not fit.
        """
        self.recipe = recipe
        self.bundle = Bundle.open(recipe.bundle)
        self.cloud_bundle = Bundle.open(recipe.clouds.bundle) if recipe.clouds else None
        self._watch, self._lock = watch, threading.Lock()
        self._opened: tuple[Engine, predict.CloudModel | None] | None = None

    def opened(self) -> tuple[Engine, predict.CloudModel | None]:
        """The engine, and what masks clouds.

        Raises:
            EngineTrouble: An engine does not open: no scene can be run.
        """
        with self._lock:
            if self._opened is None:
                try:
                    self._opened = self._choose(self.bundle), self._clouds()
                except GeosegError as error:
                    raise EngineTrouble(error) from error
            return self._opened

    def close(self) -> None:
        """Free the devices."""
        if self._opened is not None:
            engine, clouds = self._opened
            engine.close()
            if clouds is not None and clouds.engine is not None:
                clouds.engine.close()
            self._opened = None

    def _choose(self, bundle: Bundle) -> Engine:
        engine, reason = engines.choose_engine(bundle, self.recipe.engine)
        self._watch.note(f"bundle {bundle.name}; engine {reason}")
        return engine

    def _clouds(self) -> predict.CloudModel | None:
        if self.cloud_bundle is None or self.recipe.clouds is None:
            return None
        return predict.CloudModel(self.cloud_bundle, self._choose(self.cloud_bundle), self.recipe.clouds.hidden_as)


class EngineTrouble(Exception):
    """No engine runs: a reason to end a run over many scenes, not to name each of them.

    Attributes:
        error: The trouble itself.
    """

    def __init__(self, error: GeosegError) -> None:
        super().__init__(error.message)
        self.error = error


class SceneRunner:
    """Runs scenes by one recipe and keeps the journals; :meth:`run` may be called by several threads.

    Args:
        models: What runs them.
        watch: Is told what happens.
        hide: Takes out of messages what neither journal nor report should hold.
    """

    def __init__(self, models: Models, watch: Watch, hide: Callable[[str], str] = str) -> None:
        self._models, self._watch, self._recipe, self._hide = models, watch, models.recipe, hide
        self._identities: Identities | None = None
        self._journals: dict[Path, Journal] = {}
        self._hidden: dict[Path, list[str]] = {}
        self._lock = threading.Lock()

    def run(self, task: SceneTask, turn: Turn = NO_TURN) -> Outcome:
        """Run a scene if that is needed; what is wrong with it becomes part of the outcome.

        Raises:
            EngineTrouble: No engine runs.
        """
        started = time.perf_counter()
        self._watch.begin(task)
        try:
            status, report = self._run(task, turn)
        except EngineTrouble:
            raise
        # A mistake of ours in one scene must not cost the others their maps.
        except Exception as error:
            failure = Failure.of(error, task.scene, self._hide)
            seconds = time.perf_counter() - started
            if isinstance(error, BusyError):
                return Outcome(task, "busy", seconds, failure=failure)
            if task.home is not None:
                with suppress(GeosegError):  # the scene's own trouble is the one to tell
                    self._journal(task.home).write(task, "failed", error=failure.to_json(), seconds=seconds)
            return Outcome(task, "failed", seconds, failure=failure)
        return Outcome(task, status, time.perf_counter() - started, report)

    def close(self) -> None:
        """Close the journals."""
        for journal in self._journals.values():
            journal.close()

    def reload(self, task: SceneTask) -> None:
        """Look again at what other processes told about a scene's folder."""
        with self._lock:
            journals = list(self._journals.values())
        for journal in journals:
            if task.place.is_relative_to(journal.home):
                journal.reload()

    def _run(self, task: SceneTask, turn: Turn) -> tuple[Status, dict[str, Any]]:
        if task.home is None:
            return "done", self.predict(task, turn).to_json()
        decision, key = self.decide(task)
        if decision == "keep":
            self._journal(task.home).write(task, "kept", files={task.place: hash_of(task.output)})
        if decision in ("unchanged", "keep"):
            self._clean_up(task)
            return "unchanged", {"outputs": {"labels": str(task.output)}}
        self._models.opened()
        return "done", self._predict_and_tell(task, key, decision == "replace", turn).to_json()

    def _clean_up(self, task: SceneTask) -> None:
        """Remove what a run left that was killed when this scene's map had its name already."""
        targets, folder = Wanted.of(task, self._recipe).all, task.place.parent
        with self._lock:
            if folder not in self._hidden:  # listed once: a folder may hold many scenes
                self._hidden[folder] = [name for name in os.listdir(folder) if name.startswith(".")]
        hidden = self._hidden[folder]
        if any(has_leftovers(target, hidden) or lock_path(target).name in hidden for target in targets):
            with suppress(GeosegError), OutputTransaction(targets, overwrite=True) as transaction:
                transaction.adopt(None)

    def decide(self, task: SceneTask) -> tuple[Decision, str]:
        """What would become of a scene that a journal is kept for, and its key.

        Raises:
            GeosegError: The scene cannot be read, or somebody else's map is in the way.
        """
        assert task.home is not None, "nobody keeps a journal"
        with self._lock:
            identities = self._identities = self._identities or Identities(self._recipe)
        key = identities.key(task.scene)
        return decide(task, key, self._recipe, self._models.bundle, self._history(task, task.home)), key

    def _history(self, task: SceneTask, home: Path) -> History | None:
        """What is known of a scene's output: a run that was begun elsewhere, or with a list, has its journal there."""
        folders = [folder for folder in task.place.parents if folder == home or (folder / FOLDER).is_dir()]
        journals = [self._journal(folder) for folder in dict.fromkeys([home, *folders])]
        return merged([history for journal in journals if (history := journal.of(task.place)) is not None])

    def _predict_and_tell(self, task: SceneTask, key: str, may_replace: bool, turn: Turn) -> PredictReport:
        assert task.home is not None, "nobody keeps a journal"
        journal, started = self._journal(task.home), time.perf_counter()
        files = {}

        def note_hashes(finished: Mapping[Path, Path]) -> None:
            files.update(hashes_of(finished))
            journal.write(task, "publishing", key=key, files=files)

        journal.write(task, "started", key=key)
        _make_folder(task)
        report = self.predict(task, turn, may_replace, note_hashes)
        journal.write(task, "done", key=key, files=files, seconds=time.perf_counter() - started)
        return report

    def predict(
        self,
        task: SceneTask,
        turn: Turn = NO_TURN,
        may_replace: bool = False,
        publishing: Callable[[Mapping[Path, Path]], None] | None = None,
    ) -> PredictReport:
        """Run a scene whatever the journal says.

        Raises:
            GeosegError: What is wrong with the scene.
            EngineTrouble: No engine runs.
        """
        engine, clouds = self._models.opened()
        options = self._recipe.options
        if clouds is not None and clouds.engine is not None:
            clouds = replace(clouds, engine=turn.lend(clouds.engine))

        def progress(done_px: int, total_px: int) -> None:
            if done_px == total_px:
                turn.leave()
            self._watch.progress(task, done_px, total_px)

        report = predict.predict_scene(
            task.scene,
            task.output,
            self._models.bundle,
            turn.lend(engine),
            replace(options, overwrite=True) if may_replace else options,
            progress=progress,
            announce=lambda job: self._watch.announce(task, job),
            clouds=clouds,
            publishing=publishing,
        )
        self._watch.finished(task, report)
        return report

    def _journal(self, home: Path) -> Journal:
        with self._lock:
            if home not in self._journals:
                self._journals[home] = Journal(home)
            return self._journals[home]


def _make_folder(task: SceneTask) -> None:
    """Make the folders that mirror where the scene was found; that of the whole run must be there."""
    if task.home is not None and task.home.is_dir() and task.place.is_relative_to(task.home):
        task.output.parent.mkdir(parents=True, exist_ok=True)
