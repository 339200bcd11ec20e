"""Folders of small scenes whose maps are known, and the command that maps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.cli.conftest import Done, Run, model, run
from tests.test_predict import random_scene

__all__ = ["Done", "Run", "model", "run"]

Labels = npt.NDArray[np.int_]


def scenes_in(folder: Path, names: list[str]) -> dict[str, Labels]:
    """Write scenes; the classes of each by its name."""
    made = {}
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        made[name] = random_scene(folder / name, 20 + seed % 5, 30, seed)
    return made


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder but those of the journal."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".geoseg" not in path.parts
    }


def lines_of(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


def journal_lines(home: Path) -> list[dict[str, Any]]:
    files = sorted((home / ".geoseg").glob("journal-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


Mask = Callable[..., dict[str, str]]


@pytest.fixture
def mask(run: Run, model: Path) -> Mask:
    """``mask(folder, ...)`` runs cloudmask with --json and gives each scene's status by its name."""

    def statuses(*arguments: object, code: int = 0) -> dict[str, str]:
        done = run("cloudmask", *arguments, "--model", model, "--json", "-q")
        assert done.code == code, done.err
        found: Mapping[str, str] = {Path(line["scene"]).name: line["status"] for line in lines_of(done)}
        return dict(found)

    return statuses
