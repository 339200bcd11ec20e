"""What the journals of a folder say about every map, compared with what is there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geoseg_cli.batch.claims import is_claimed
from geoseg_cli.batch.journal import FOLDER, Entry, History, Journal, merged
from geoseg_cli.batch.rerun import hash_of
from geoseg_cli.errors import InputMissingError

State = Literal["done", "failed", "running", "interrupted", "missing", "changed"]


@dataclass(frozen=True, slots=True)
class SceneState:
    """What is known of a scene.

    Attributes:
        state: ``done``; ``failed``; ``running``: a process holds it; ``interrupted``;
            ``missing``: done, and a file is gone; ``changed``: done, and a raster is not as it was.
        last: The newest line about it.
    """

    state: State
    last: Entry

    def to_json(self) -> dict[str, Any]:
        """The state in plain types."""
        last = self.last
        error = {"error": dict(last.error)} if self.state == "failed" else {}
        writer = {"process": last.process, "host": last.host} if self.state == "running" else {}
        return {"scene": last.scene, "output": str(last.output), "state": self.state} | error | writer


def read_status(home: Path, with_hashes: bool = False) -> list[SceneState]:
    """The state of every scene that a journal tells of, in the order of the outputs.

    Args:
        home: Folder that maps were written to; journals in the folders inside it count as well.
        with_hashes: Whether the content of every file is compared; without it only whether it is there and how long.

    Raises:
        InputMissingError: There is no journal.
        AccessError, StorageError: It, or a map, cannot be read.
    """
    homes = [Path(folder) for folder, names, _ in os.walk(home) if FOLDER in names]
    if not homes:
        raise InputMissingError(
            f"{home} has no journal", "name the folder that a run over several scenes wrote to, or was given"
        )
    journals = [Journal(folder) for folder in sorted(homes)]
    outputs = sorted({output for journal in journals for output in journal.outputs()})
    states = []
    for output in outputs:
        knowing = [journal for journal in journals if journal.of(output)]
        history = merged([found for journal in knowing if (found := journal.of(output))])
        if history is not None:
            is_held = any(is_claimed(journal.home, output) for journal in knowing)
            states.append(SceneState(_state(history, is_held, with_hashes), history.last))
    return states


def _state(history: History, is_held: bool, with_hashes: bool) -> State:
    last = history.last
    if is_held:
        return "running"
    if last.event == "failed":
        return "failed"
    if last.event in ("started", "publishing"):
        return "interrupted"
    for path, stored in last.files.items():
        if not os.path.isfile(path):
            return "missing"
        is_raster = path.suffix.lower() in (".tif", ".tiff")
        if is_raster and (path.stat().st_size != stored.size_bytes or (with_hashes and hash_of(path) != stored)):
            return "changed"
    return "done"
