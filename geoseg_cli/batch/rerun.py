"""Whether a scene has to be run: what the journal says counts only where the files still say the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geoseg_cli.batch.identity import members_of
from geoseg_cli.batch.journal import Entry, History, StoredFile
from geoseg_cli.batch.tasks import Recipe, SceneTask
from geoseg_cli.bundle import Bundle
from geoseg_cli.errors import GeosegError, OutputError
from geoseg_cli.job import targets_of
from geoseg_cli.printable import printable
from geoseg_cli.results.lock import OutputLock
from geoseg_cli.results.map_file import opened_map
from geoseg_cli.results.sidecars import sidecar_paths
from geoseg_cli.results.storage import storage_trouble
from geoseg_cli.results.workfolder import remove_dead_work
from geoseg_cli.scenes.integrity import FileIdentity

Decision = Literal["run", "replace", "unchanged", "keep"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The files that a scene should have.

    Attributes:
        rasters: The map, and further rasters.
        sidecars: What lies beside the map.
    """

    rasters: tuple[Path, ...]
    sidecars: tuple[Path, ...]

    @classmethod
    def of(cls, task: SceneTask, recipe: Recipe) -> Wanted:
        """Those of a task."""
        rasters = targets_of(task.output, recipe.options).values()
        sidecars = sidecar_paths(task.output).values() if recipe.options.sidecars else ()
        return cls(tuple(path.absolute() for path in rasters), tuple(path.absolute() for path in sidecars))

    @property
    def all(self) -> tuple[Path, ...]:
        """Rasters and sidecars."""
        return (*self.rasters, *self.sidecars)


def decide(task: SceneTask, key: str, recipe: Recipe, bundle: Bundle, history: History | None) -> Decision:
    """Decide what becomes of a scene.

    Hashes are always taken: size and time of a file can be the same after it was changed.

    Args:
        task: The scene.
        key: What its map is made of now.
        recipe: What is done to it.
        bundle: The model.
        history: What the journal knows of its output.

    Returns:
        ``unchanged`` where all is there and made of the same; ``replace`` where what is there is older work of ours,
        ``keep`` where the journal does not know a map that proves to be of this scene and model; else ``run``.

    Raises:
        OutputError: What is there was made or changed by somebody else.
        AccessError, StorageError: It cannot be read.
    """
    wanted = Wanted.of(task, recipe)
    if recipe.options.overwrite:
        return "run"
    if not any(os.path.lexists(path) for path in wanted.all):
        return "run"
    published = history.published if history else None
    if published is not None and published.key == key and _is_whole(wanted, published):
        return "unchanged"
    if recipe.skip_existing and published is None and os.path.lexists(task.output):
        _refuse_strangers_map(task, recipe, bundle)
        return "keep"
    known: Mapping[Path, set[str]] = history.hashes if history else {}
    for path in wanted.all:
        if os.path.lexists(path) and (not path.is_file() or hash_of(path).sha256 not in known.get(path, ())):
            raise OutputError(
                f"{path} is not as a run for this folder left it" if path in known else f"{path} exists already",
                "move it away, or add --overwrite to replace it",
            )
    return "replace"


def remove_leftovers(task: SceneTask, recipe: Recipe) -> None:
    """Remove locks and unfinished work that a run which died left beside the files of a scene.

    Raises:
        BusyError: A run that lives holds them.
        AccessError, StorageError: The folder does not allow it.
    """
    wanted = Wanted.of(task, recipe)
    with OutputLock(wanted.all):  # which takes over what nobody holds any more
        for path in wanted.all:
            remove_dead_work(path)


def hash_of(path: Path) -> StoredFile:
    """Size and SHA-256 of a file.

    Raises:
        AccessError, StorageError: It cannot be read.
    """
    with storage_trouble(path, "read"), open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return StoredFile(digest, os.fstat(stream.fileno()).st_size)


def hashes_of(files: Mapping[Path, Path]) -> dict[Path, StoredFile]:
    """Hashes of files, by the names that they are about to get."""
    return {target: hash_of(path) for target, path in files.items()}


def _is_whole(wanted: Wanted, published: Entry) -> bool:
    """Whether rasters are as they were published, and sidecars are there; a style may be edited."""
    if not all(path in published.files and path.is_file() for path in wanted.all):
        return False
    return all(hash_of(path) == published.files[path] for path in wanted.rasters)


def _refuse_strangers_map(task: SceneTask, recipe: Recipe, bundle: Bundle) -> None:
    """Refuse a map that is damaged, or that its tags do not tell to be of this scene and model."""
    from geoseg_cli.results.verify import verify_map

    hint = "move it away, or add --overwrite to replace it"
    try:
        verdict = verify_map(task.output)
        with opened_map(task.output) as file:
            tags: Mapping[str, str] = file.tags()
    except GeosegError as error:
        raise OutputError(f"{task.output} exists and is not kept: {error.message}", hint) from error
    if not verdict.is_intact:
        raise OutputError(f"{task.output} exists and is damaged: {', '.join(verdict.problems)}", hint)
    members: Sequence[Path] = tuple(members_of(task.scene.absolute(), recipe.options.scene))
    size = sum(FileIdentity.of(path).size_bytes for path in members)
    models = {asset.checksum[4:] for asset in bundle.card.assets.values()}
    facts = {
        "scene": tags.get("GEOSEG_INPUT") == printable(task.scene.name),
        "size of the scene": tags.get("GEOSEG_INPUT_BYTES") == str(size),
        "model": tags.get("GEOSEG_MODEL") == bundle.name and tags.get("GEOSEG_MODEL_SHA256") in models,
    }
    others = [name for name, is_same in facts.items() if not is_same]
    if others:
        raise OutputError(f"{task.output} exists and is of another {' and '.join(others)}", hint)
    missing = [path.name for path in Wanted.of(task, recipe).rasters if not path.is_file()]
    if missing:
        raise OutputError(f"{task.output} exists, but {', '.join(missing)} does not", hint)
