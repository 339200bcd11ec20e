"""What is promised beyond kills: room for the finished file, and the order of what reaches the disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from geoseg_cli.catalog import legends
from geoseg_cli.errors import StorageError
from geoseg_cli.results import cog as cog_module
from geoseg_cli.results import commit as commit_module
from geoseg_cli.results.raster import RasterSpec
from tests.results.published import publish_map
from tests.results.test_commit import MAP, SIDECAR, posix, publish

LEGEND = legends()["cloudsen12"]


def test_room_is_looked_for_again_before_the_finished_file_is_made(tmp_path, grid, monkeypatch):
    """Somebody else filled the disk while the network ran."""
    labels = np.zeros((300, 200), np.uint8)
    need = RasterSpec(grid(300, 200)).worst_case_bytes()
    answers = iter((need, 1_000))
    monkeypatch.setattr(commit_module, "free_bytes", lambda folder: next(answers))
    monkeypatch.setattr(cog_module.rasterio.shutil, "copy", lambda *given, **named: pytest.fail("it was begun"))
    with pytest.raises(StorageError, match="0 MB are free") as caught:
        publish_map(tmp_path / MAP, labels, grid(300, 200), LEGEND)
    assert caught.value.exit_code == 74
    assert list(tmp_path.iterdir()) == []


def test_the_work_raster_that_is_there_is_not_asked_room_for_twice(tmp_path, grid, monkeypatch):
    labels = np.zeros((300, 200), np.uint8)
    spec = RasterSpec(grid(300, 200))
    answers = iter((spec.worst_case_bytes(), spec.worst_case_bytes() - 512 * 512))
    monkeypatch.setattr(commit_module, "free_bytes", lambda folder: next(answers))
    assert publish_map(tmp_path / MAP, labels, grid(300, 200), LEGEND).is_file()


@posix
def test_old_sidecars_are_gone_on_the_disk_before_the_new_map_has_its_name(tmp_path, monkeypatch):
    """After a loss of power a folder may show any of the changes that were not waited for."""
    for name in (MAP, SIDECAR):
        (tmp_path / name).write_text("old")
    seen: list[str] = []
    replace, fsync = os.replace, os.fsync

    def noted_fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path):
            seen.append("folder on the disk")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        seen.append(f"{Path(source).name} to {Path(target).parent.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    publish(tmp_path, "new", names=(MAP,))
    away, placed = seen.index(f"{SIDECAR} to aside"), seen.index(f"{MAP} to {tmp_path.name}")
    assert "folder on the disk" in seen[away:placed]
    assert "folder on the disk" in seen[placed:]
