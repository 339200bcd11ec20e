"""The list of finished rows: what is torn ends it, and nothing behind it counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg_cli.grid import Grid
from geoseg_cli.results.block_file import BlockFile
from geoseg_cli.results.checkpoint import CheckpointLog, Entry, entries_in, key_in
from geoseg_cli.results.raster import RasterSpec, WorkRaster

ENTRIES = [Entry(10 * n, {"labels": n}, {"view_row": n}) for n in range(1, 5)]


def written(path: Path, key: str = "key") -> Path:
    log = CheckpointLog(path, key)
    for entry in ENTRIES:
        log.append(entry)
    log.close()
    return path


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "checkpoint")
    assert key_in(path) == "key"
    assert list(entries_in(path)) == ENTRIES


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_torn_or_flipped_anywhere_only_whole_entries_before_that_count(
    tmp_path_factory: pytest.TempPathFactory, at: int, is_torn: bool
) -> None:
    path = written(tmp_path_factory.mktemp("log") / "checkpoint")
    content = path.read_bytes()
    at %= len(content)
    path.write_bytes(content[:at] if is_torn else content[:at] + bytes([content[at] ^ 2]) + content[at + 1 :])
    whole = content[:at].count(b"\n")
    assert key_in(path) == ("key" if whole else None)
    if whole:
        assert list(entries_in(path)) == ENTRIES[: whole - 1]


def test_going_on_drops_what_is_not_believed(tmp_path: Path) -> None:
    path = written(tmp_path / "checkpoint")
    log = CheckpointLog(path, "key", entries=2)
    log.append(Entry(99, {}, None))
    log.close()
    assert list(entries_in(path)) == [*ENTRIES[:2], Entry(99, {}, None)]


def test_waiting_for_the_disk_takes_its_share_of_the_time_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("geoseg_cli.results.checkpoint.time.monotonic", lambda: now[0])
    log = CheckpointLog(tmp_path / "checkpoint", "key")
    now[0] = 4.9
    assert not log.is_sync_due
    now[0] = 5.1
    assert log.is_sync_due

    def slow_disk() -> None:
        now[0] += 2

    log.sync([slow_disk])
    now[0] += 199
    assert not log.is_sync_due, "two seconds of waiting are the share of two hundred"
    now[0] += 2
    assert log.is_sync_due
    log.close()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 1200), st.integers(1, 1100), st.integers(1, 3), st.data())
def test_rows_are_read_from_where_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, bands: int, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "w.tif"
    spec = RasterSpec(Grid(None, Affine(10, 0, 0, 0, -10, 0), height, width), bands)
    pixels = np.random.default_rng(height).integers(0, 255, (bands, height, width)).astype(np.uint8)
    with WorkRaster(path, spec) as work:
        work.write(0, pixels)
    first = data.draw(st.integers(0, height - 1))
    count = data.draw(st.integers(1, height - first))
    file = BlockFile(path)
    assert np.array_equal(file.read(first, count), pixels[:, first : first + count])
    file.close()


def test_a_file_of_another_kind_is_no_work_file(tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "w.tif", "w", driver="GTiff", height=600, width=600, count=1, dtype="uint8", compress="DEFLATE"
    ):
        pass
    with pytest.raises(OSError, match="no work file"):
        BlockFile(tmp_path / "w.tif")
