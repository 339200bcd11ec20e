"""``MapWriter`` with cleaning: what is on the disk and in memory meanwhile, and what a death in the middle leaves."""

from __future__ import annotations

import os
import signal
import tracemalloc

import numpy as np
import pytest
import rasterio

from geoseg_cli.catalog import find_mapping, legends
from geoseg_cli.errors import StorageError, UsageError
from geoseg_cli.results import maps as maps_module
from geoseg_cli.results import read_back
from geoseg_cli.results.clean_map import Cleaning
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.maps import MapSpec, MapWriter
from geoseg_cli.results.raster import WorkRaster
from geoseg_cli.rows import Rows
from tests.results.published import publish_map, tags_of
from tests.results.test_commit import MAP, in_child, posix, state, work_folders

CLOUDS = legends()["cloudsen12"]
EVERYTHING = Cleaning(8, 2, find_mapping("cloudsen12", "cloud-binary"), 3, 8)


def cloudy(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array([0, 0, 0, 1, 2, 3, 255], np.uint8), (height // 16 + 1, width // 16 + 1))
    return np.kron(coarse, np.ones((16, 16), np.uint8))[:height, :width]


def rows_of(labels, row=0):
    return Rows(row, labels, None, None, labels != 255)


@posix
@pytest.mark.parametrize("moment", ["first strip", "strip of the second pass", "cleaned row", "read back", "commit"])
def test_killed_while_a_map_is_cleaned_the_old_one_stays_and_the_next_run_completes(
    tmp_path, grid, monkeypatch, moment
):
    out = tmp_path / MAP
    out.write_text("old")
    labels = cloudy(1100, 600)

    def make(doomed="") -> int:
        def die_at(now, is_there=True) -> None:
            if is_there and now == doomed:
                os.kill(os.getpid(), signal.SIGKILL)

        passes = []
        strips, write, check = WorkRaster.strips, WorkRaster.write, read_back._check_pixels

        def dying_strips(work):
            passes.append(work)
            for number, strip in enumerate(strips(work)):
                die_at("first strip", (len(passes), number) == (1, 0))
                die_at("strip of the second pass", len(passes) > 1 and number == 1)
                yield strip

        def dying_write(work, row, pixels):
            write(work, row, pixels)
            die_at("cleaned row", bool(passes))

        monkeypatch.setattr(WorkRaster, "strips", dying_strips)
        monkeypatch.setattr(WorkRaster, "write", dying_write)
        monkeypatch.setattr(read_back, "_check_pixels", lambda *given: die_at("read back") or check(*given))
        monkeypatch.setattr(OutputTransaction, "commit", lambda *given: die_at("commit") or commit(*given))
        publish_map(out, labels, grid(1100, 600), CLOUDS, cleaning=EVERYTHING, overwrite=True)
        return 0

    commit = OutputTransaction.commit
    assert in_child(lambda: make(moment)) == -signal.SIGKILL
    assert state(tmp_path) == {MAP: "old"}
    assert len(work_folders(tmp_path)) == 1
    assert in_child(make) == 0
    assert work_folders(tmp_path) == []
    with rasterio.open(out) as file:
        assert file.tags()["GEOSEG_LEGEND"] == "cloud-binary"
        assert set(np.unique(file.read())) == {0, 1, 255}


def spec_of(grid, height, width, cleaning):
    return MapSpec(grid(height, width), CLOUDS, "cloud_mask", tags_of(CLOUDS), {}, cleaning)


def test_a_failure_while_a_map_is_cleaned_leaves_the_old_one_and_no_work(tmp_path, grid, monkeypatch):
    out = tmp_path / MAP
    out.write_text("old")
    monkeypatch.setattr("geoseg_cli.results.components.free_memory_bytes", lambda: 1000)
    with pytest.raises(UsageError, match="too many parts"):
        publish_map(out, cloudy(600, 90), grid(600, 90), CLOUDS, cleaning=Cleaning(sieve_px=9), overwrite=True)
    assert state(tmp_path) == {MAP: "old"}
    assert work_folders(tmp_path) == []


def test_a_work_file_that_comes_back_with_other_pixels_is_never_cleaned(tmp_path, grid, monkeypatch):
    out = tmp_path / MAP
    close = WorkRaster.close

    def close_and_damage(work):
        close(work)
        if work.path.name == "labels.tif":
            with rasterio.open(work.path, "r+") as file:
                file.write(np.full((1, 1, 1), 3, np.uint8), window=((700, 701), (5, 6)))

    monkeypatch.setattr(WorkRaster, "close", close_and_damage)
    with pytest.raises(StorageError, match="rows 512 to 1023 of its work file") as caught:
        publish_map(out, np.zeros((1100, 60), np.uint8), grid(1100, 60), CLOUDS, cleaning=Cleaning(dilate_px=1))
    assert str(out) in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_the_space_that_is_asked_for_is_enough_while_a_map_is_cleaned(tmp_path, grid, monkeypatch):
    """Noise of four classes, so that two bits a pixel remain."""
    shape = 1500, 1400
    labels = np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)
    held, names = [], []

    def look():
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        held.append(sum(path.stat().st_size for path in files))
        names.append({path.name for path in files})

    write, check = WorkRaster.write, read_back.check_written
    monkeypatch.setattr(WorkRaster, "write", lambda *given: (write(*given), look())[0])
    monkeypatch.setattr("geoseg_cli.results.cog.check_written", lambda *given: (look(), check(*given))[1])
    publish_map(tmp_path / MAP, labels, grid(*shape), CLOUDS, cleaning=Cleaning(majority_px=1))
    assert {"labels.tif", "cleaned.tif"} <= names[-2]
    assert "labels.tif" not in names[-1], "it is gone before the COG is begun"
    assert max(held) > 2 * 0.25 * shape[0] * shape[1]
    assert max(held) < spec_of(grid, *shape, Cleaning()).raster("labels").worst_case_bytes()


def peak_bytes(folder, grid, height, width, monkeypatch):
    """Most memory that Python and numpy hold at once while a map of a full tile's width is cleaned."""
    monkeypatch.setitem(maps_module.WRITERS, "cog", lambda work, out, options: None)
    tile = cloudy(512, width)
    out = folder / f"{height}.tif"
    spec = spec_of(grid, height, width, EVERYTHING)
    with OutputTransaction([out]) as transaction, MapWriter(spec, {"labels": out}, transaction) as writer:
        for row in range(0, height, 512):
            writer.write(rows_of(tile, row))
        tracemalloc.start()
        try:
            writer.finish()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def test_memory_does_not_grow_with_the_height_of_a_map_of_10980_columns(tmp_path, grid, monkeypatch):
    small, large = (peak_bytes(tmp_path, grid, height, 10_980, monkeypatch) for height in (1024, 2048))
    # The larger map has 44 000 more patches of 16 x 16 px, some of them joined.
    assert large < small + 44_000 * 400
    assert large < 400 * 2**20
