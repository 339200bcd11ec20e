"""What a run over many scenes hands around: plain data that can be sent to other processes and machines."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoseg_cli.errors import BusyError, EngineError, GeosegError, StorageError, WorkerDiedError

if TYPE_CHECKING:
    from geoseg_cli.cloud_masking import HiddenAs
    from geoseg_cli.engines import EngineOptions
    from geoseg_cli.job import PredictOptions

Status = Literal["done", "unchanged", "failed", "busy"]


@dataclass(frozen=True, slots=True)
class SceneTask:
    """One scene and where its map goes.

    Attributes:
        scene: A path as it was given, or an address as a path.
        output: Where the map goes, as follows from what was given.
        home: Folder in whose journal the scene is told, absolute; None where nobody keeps one.
    """

    scene: Path
    output: Path
    home: Path | None = None

    @property
    def place(self) -> Path:
        """Where the map goes, absolute: what a journal knows it by."""
        return self.output.absolute()

    def for_any_process(self) -> SceneTask:
        """A task that means the same in whatever folder a process was started."""
        scene = self.scene if is_address(self.scene) else self.scene.absolute()
        return SceneTask(scene, self.place, self.home)


@dataclass(frozen=True, slots=True)
class CloudRecipe:
    """How maps are masked: the folder of the cloud bundle, and what hidden pixels become."""

    bundle: Path
    hidden_as: HiddenAs = "nodata"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to every scene of a run.

    Attributes:
        bundle: Folder of the model.
        engine: What is asked of the engines.
        options: As of a single scene.
        clouds: How maps are masked; None for no mask.
        skip_existing: Whether a map that the journal does not know is kept where it proves to be of the same scene and
            model.
    """

    bundle: Path
    engine: EngineOptions
    options: PredictOptions
    clouds: CloudRecipe | None = None
    skip_existing: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a scene has no map.

    Attributes:
        kind: Name of the error's class; ``Bug`` for mistakes of ours.
        message, hint, exit_code: As of :class:`geoseg_cli.errors.GeosegError`.
        may_pass: Whether another try can help: never for what is wrong with the scene itself.
    """

    kind: str
    message: str
    hint: str
    exit_code: int
    may_pass: bool = False

    @property
    def has_died(self) -> bool:
        """Whether the process that ran the scene died."""
        return self.kind == WorkerDiedError.__name__

    @classmethod
    def of(cls, error: Exception, scene: Path, hide: Callable[[str], str] = str) -> Failure:
        """Describe an error that a scene ended with.

        Args:
            error: What happened.
            scene: Where.
            hide: Takes out of a text what nobody else should read.
        """
        if isinstance(error, MemoryError):
            error = EngineError("the memory is not enough for this scene", "use a smaller --tile, or --max-memory")
        if not isinstance(error, GeosegError):
            text = hide(f"internal error: {type(error).__name__}: {error}")
            return cls("Bug", text, "run this scene alone with -vv and report it", 70)
        passing = isinstance(error, BusyError | WorkerDiedError)
        may_pass = passing or (isinstance(error, StorageError) and _may_need_network(scene))
        return cls(type(error).__name__, hide(error.message), hide(error.hint), error.exit_code, may_pass)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Failure:
        """What :meth:`to_json` made of a failure that cannot pass."""
        kind, message, hint = (str(fields.get(name, "")) for name in ("kind", "message", "hint"))
        return cls(kind, message, hint, int(fields.get("exit_code", 70)))

    def to_json(self) -> dict[str, Any]:
        """The failure in plain types."""
        return {"kind": self.kind, "exit_code": self.exit_code, "message": self.message, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a scene ended.

    Attributes:
        task: Which scene.
        status: ``done`` now, ``unchanged`` since it was done, ``failed``, or ``busy``: another run holds the output.
        seconds: Wall time.
        report: What was done, in plain types; of a scene that is unchanged only its files.
        failure: Why there is no map; None where there is one.
    """

    task: SceneTask
    status: Status
    seconds: float
    report: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None

    @property
    def has_map(self) -> bool:
        """Whether the scene's map is where it should be."""
        return self.failure is None

    def to_json(self) -> dict[str, Any]:
        """The outcome in plain types; one line of ``--json``."""
        error = {"error": self.failure.to_json()} if self.failure else {}
        own = {"scene": shown(self.task.scene), "output": str(self.task.output)}
        return own | self.report | {"scene": own["scene"], "status": self.status} | error


def is_file_name(text: str) -> bool:
    """Whether the system could take a text as a name at all."""
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a pair of surrogates, as JSON can hold
        return False


def is_address(scene: Path) -> bool:
    """Whether a scene lies on a network."""
    from geoseg_cli.scenes.network import is_remote

    return is_remote(str(scene))


def shown(scene: Path) -> str:
    """A scene as messages and reports call it: addresses whole, and without what may be secret in them."""
    from geoseg_cli.scenes.network import redacted

    if not is_address(scene):
        return str(scene)
    # A path makes one slash of two; without both, a user's name and password are not found.
    return redacted(re.sub(r"^([a-z0-9]+):/{1,2}", r"\1://", str(scene)))


def _may_need_network(scene: Path) -> bool:
    return is_address(scene) or (scene.suffix.lower() == ".json" and os.path.isfile(scene))
