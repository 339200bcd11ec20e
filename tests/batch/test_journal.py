"""The journal where the disk does not take a line, or takes half of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from geoseg_cli.batch import journal as journal_module
from geoseg_cli.batch.journal import Journal
from geoseg_cli.batch.tasks import SceneTask
from geoseg_cli.errors import StorageError


class Grudging(io.FileIO):
    """Takes some bytes at a time, and at times none."""

    at_once, fails = 7, False

    def write(self, data: Any) -> int:
        whole = memoryview(data)
        if Grudging.fails:
            super().write(whole[: Grudging.at_once])
            raise OSError(28, "No space left on device")
        return super().write(whole[: Grudging.at_once]) or 0


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    real = open

    def opened(path: Path, mode: str, **more: Any) -> Any:
        return Grudging(path, mode.replace("b", "")) if "x" in mode else real(path, mode, **more)

    monkeypatch.setattr(journal_module, "open", opened, raising=False)
    return Journal(tmp_path)


def tasks(home: Path) -> list[SceneTask]:
    return [SceneTask(home / f"s{n}.tif", home / f"m{n}.tif", home) for n in range(3)]


def told(home: Path, task: SceneTask) -> tuple[str, str] | None:
    """The last event that somebody else reads of a scene, and its key."""
    history = Journal(home).of(task.place)
    return None if history is None else (history.last.event, history.last.key)


def test_a_line_that_the_system_takes_in_pieces_is_whole(tmp_path: Path, journal: Journal) -> None:
    first, second, _ = tasks(tmp_path)
    journal.write(first, "started", key="a")
    journal.write(second, "failed", key="b")
    assert [told(tmp_path, task) for task in (first, second)] == [("started", "a"), ("failed", "b")]


def test_a_line_that_was_torn_by_a_full_disk_does_not_take_the_next_one_with_it(
    tmp_path: Path, journal: Journal
) -> None:
    first, second, third = tasks(tmp_path)
    journal.write(first, "done", key="a")
    Grudging.fails = True
    try:
        with pytest.raises(StorageError, match="No space left"):
            journal.write(second, "started", key="b")
    finally:
        Grudging.fails = False
    assert journal.of(second.output) is None, "what is not on the disk is not known"
    journal.write(third, "done", key="c")
    assert [told(tmp_path, task) for task in (first, second, third)] == [("done", "a"), None, ("done", "c")]
