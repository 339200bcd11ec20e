from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from geoseg_cli.errors import StorageError
from geoseg_cli.results import workfolder
from geoseg_cli.results.workfolder import WorkFolder, remove_dead_work

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process numbers are only asked for on POSIX")


@pytest.fixture
def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def make_beside(target) -> WorkFolder:
    folder = WorkFolder.beside(target)
    folder.make(target)
    return folder


def left_by(process: int, target, monkeypatch) -> WorkFolder:
    monkeypatch.setattr(workfolder.os, "getpid", lambda: process)
    folder = make_beside(target)
    monkeypatch.undo()
    folder.new("map.tif").write_text("half")
    return folder


def test_the_name_is_hidden_and_tells_output_and_process(tmp_path):
    folder = make_beside(tmp_path / "map.tif")
    assert folder.path.name.startswith(f".map.tif.part-{os.getpid()}-")
    assert folder.path.parent == tmp_path
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_only_the_dead_leave_work_that_is_removed(tmp_path, monkeypatch, dead_process):
    target = tmp_path / "map [1].tif"
    dead = left_by(dead_process, target, monkeypatch)
    alive = left_by(os.getppid(), target, monkeypatch)
    own = make_beside(target)
    other = left_by(dead_process, tmp_path / "map.tif", monkeypatch)
    mine = tmp_path / f".map [1].tif.part-{dead_process}-notes"
    mine.mkdir()
    remove_dead_work(target)
    assert not dead.path.exists()
    assert all(folder.path.exists() for folder in (alive, own, other))
    assert mine.exists(), "a user's folder with a similar name"


def test_work_of_another_machine_is_left_alone(tmp_path, monkeypatch, dead_process):
    monkeypatch.setattr(workfolder.platform, "node", lambda: "another machine")
    folder = left_by(dead_process, tmp_path / "map.tif", monkeypatch)
    remove_dead_work(tmp_path / "map.tif")
    assert folder.path.exists()


def test_a_process_of_somebody_else_is_alive(tmp_path, monkeypatch):
    folder = left_by(12345, tmp_path / "map.tif", monkeypatch)

    def not_permitted(process: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(workfolder.os, "kill", not_permitted)
    remove_dead_work(tmp_path / "map.tif")
    assert folder.path.exists()


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"gone/map\.tif"):
        make_beside(tmp_path / "gone" / "map.tif")


@pytest.mark.parametrize("gone", [("new",), ("scratch", "aside"), ("new", "scratch", "aside")])
def test_a_folder_that_a_dead_run_was_removing_can_be_taken(tmp_path, dead_process, monkeypatch, gone):
    target = tmp_path / "map.tif"
    dead = left_by(dead_process, target, monkeypatch)
    dead.checkpoint.write_text("rows")
    for part in gone:
        shutil.rmtree(dead.path / part)
    taken = WorkFolder.beside(target)
    taken.take(dead, target)
    assert sorted(path.name for path in taken.path.iterdir()) == ["aside", "checkpoint", "new", "scratch"]
    assert not dead.path.exists()
    assert list((taken.path / "new").iterdir()) == []
