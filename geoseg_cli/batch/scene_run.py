"""One scene of many: is there anything to do, do it, and tell the journal."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli import predict
from geoseg_cli.batch.claims import claimed
from geoseg_cli.batch.identity import Identities
from geoseg_cli.batch.journal import FOLDER, History, Journal, merged
from geoseg_cli.batch.models import EngineTrouble, Models
from geoseg_cli.batch.rerun import Decision, Wanted, decide, hash_of, hashes_of, remove_leftovers
from geoseg_cli.batch.tasks import Failure, Outcome, SceneTask, Status, is_address
from geoseg_cli.batch.watch import Watch
from geoseg_cli.errors import BusyError, GeosegError
from geoseg_cli.results.lock import lock_path
from geoseg_cli.results.workfolder import has_leftovers
from geoseg_cli.scenes.layouts import find_product

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine
    from geoseg_cli.predict import PredictReport


class Turn:
    """A scene's right to use the engines; here without waiting for anybody."""

    def lend(self, engine: Engine) -> Engine:
        """What the scene runs: the engine itself, or one that waits for the scene's turn."""
        return engine

    def leave(self) -> None:
        """The scene needs no engine any more."""


NO_TURN = Turn()


class FailedElsewhere(Exception):
    """Another process of this run, or another run, tried the same meanwhile, and it failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


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
        self._keys: dict[Path, str] = {}
        self._lock = threading.Lock()
        self._since_s = time.time()

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
        except FailedElsewhere as known:
            return Outcome(task, "failed", time.perf_counter() - started, failure=known.failure)
        # A mistake of ours in one scene must not cost the others their maps.
        except Exception as error:
            failure = Failure.of(error, task.scene, self._hide)
            seconds = time.perf_counter() - started
            if isinstance(error, BusyError):
                return Outcome(task, "busy", seconds, failure=failure)
            self.tell_failure(task, failure, seconds)
            return Outcome(task, "failed", seconds, failure=failure)
        finally:
            self._keys.pop(task.place, None)
        return Outcome(task, status, time.perf_counter() - started, report)

    def tell_failure(self, task: SceneTask, failure: Failure, seconds: float) -> None:
        """Write to the journal that a scene has no map."""
        if failure.has_died:
            with suppress(GeosegError):
                remove_leftovers(task, self._recipe)
        if task.home is None:
            return
        fields = failure.to_json() | ({"may_pass": True} if failure.may_pass else {})
        with suppress(GeosegError):  # the scene's own trouble is the one to tell
            key = self._keys.get(task.place, "")
            self._journal(task.home).write(task, "failed", key=key, error=fields, seconds=seconds)

    def close(self) -> None:
        """Close the journals."""
        for journal in self._journals.values():
            journal.close()

    def _reload(self, task: SceneTask) -> None:
        """Look again at what other processes told about a scene's folder."""
        with self._lock:
            journals = list(self._journals.values())
        for journal in journals:
            if journal.home == task.home or task.place.is_relative_to(journal.home):
                journal.reload()

    def _run(self, task: SceneTask, turn: Turn) -> tuple[Status, dict[str, Any]]:
        if task.home is None:
            return "done", self.predict(task, turn).to_json()
        key = self._keys[task.place] = self._key(task)
        unchanged: dict[str, Any] = {"outputs": {"labels": str(task.output)}}
        if self._is_unchanged(task, task.home, key):
            self._clean_up(task)
            return "unchanged", unchanged
        with claimed(task, task.home):
            self._reload(task)
            self._refuse_failed_elsewhere(task, task.home, key)
            decision = self._decide(task, task.home, key)
            if decision == "keep":
                self._journal(task.home).write(task, "kept", files={task.place: hash_of(task.output)})
            if decision == "unchanged":
                self._finish(task, task.home, key)
            if decision in ("unchanged", "keep"):
                return "unchanged", unchanged
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
            with suppress(GeosegError):  # a run that lives holds them
                remove_leftovers(task, self._recipe)

    def decide(self, task: SceneTask) -> tuple[Decision, str]:
        """What would become of a scene that a journal is kept for, and its key.

        Raises:
            GeosegError: The scene cannot be read, or somebody else's map is in the way.
        """
        assert task.home is not None, "nobody keeps a journal"
        key = self._key(task)
        return self._decide(task, task.home, key), key

    def _key(self, task: SceneTask) -> str:
        with self._lock:
            identities = self._identities = self._identities or Identities(self._recipe)
        return identities.key(task.scene)

    def _decide(self, task: SceneTask, home: Path, key: str) -> Decision:
        return decide(task, key, self._recipe, self._models.bundle, self._history(task, home))

    def _is_unchanged(self, task: SceneTask, home: Path, key: str) -> bool:
        """Whether a scene is known to be done, so that nobody needs its claim."""
        history = self._history(task, home)
        if history is None or history.is_open or history.published is None or history.published.key != key:
            return False
        with suppress(GeosegError):  # to be told once the claim is held
            return decide(task, key, self._recipe, self._models.bundle, history) == "unchanged"
        return False

    def _finish(self, task: SceneTask, home: Path, key: str) -> None:
        """Clean up behind a run that died when everything had its name already, and tell what it could not."""
        history = self._history(task, home)
        if history is not None and history.is_open and history.published is not None:
            remove_leftovers(task, self._recipe)
            self._journal(home).write(task, "done", key=key, files=history.published.files)

    def _refuse_failed_elsewhere(self, task: SceneTask, home: Path, key: str) -> None:
        """Two processes that share the work do not both fail at one bad scene."""
        last = history.last if (history := self._history(task, home)) else None
        if last is None or last.event != "failed" or last.key != key or last.time_s < self._since_s:
            return
        if not last.is_own and not last.error.get("may_pass"):
            raise FailedElsewhere(Failure.from_json(last.error))

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

    def refuse_early(self, task: SceneTask) -> None:
        """Refuse what can be told without an engine and without pixels.

        Raises:
            GeosegError: The scene is not there or cannot be one, or an output exists or has no folder.
        """
        options = self._recipe.options
        members = () if is_address(task.scene) else find_product(task.scene.absolute(), options.scene).members
        predict.check_targets(task.output, options, [task.scene, *members])

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
            announce=lambda job: self._watch.announce(task, job.decisions()),
            clouds=clouds,
            publishing=publishing,
        )
        self._watch.finished(task, report.not_finite)
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
