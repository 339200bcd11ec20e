from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geoseg_cli.errors import AccessError, StorageError
from geoseg_cli.results.cog import write_cog
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.raster import RasterSpec, WorkRaster
from geoseg_cli.results.storage import free_bytes, storage_trouble

DISK_BYTES = 3_000_000


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        refused = subprocess.run(mount, capture_output=True, check=False).returncode
    except OSError:
        refused = 1
    if refused:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def publish_noise(out: Path, grid, side: int, bands: int = 1, *, threads_in_environment: bool = False) -> None:
    """Random pixels, which do not compress: about side x side x bands bytes for the work raster, 4/3 for the COG."""
    pixels = np.random.default_rng(0).integers(0, 256, (bands, side, side)).astype(np.uint8)
    with OutputTransaction([out], overwrite=True) as transaction:
        with WorkRaster(transaction.scratch("work.tif"), RasterSpec(grid(side, side), bands), out) as work:
            for row in range(0, side, 100):
                work.write(row, pixels[:, row : row + 100])
        write_cog(work, transaction.path(out))
        transaction.commit()


@pytest.mark.parametrize("side", [2300, 1200, 1100, 1700], ids=lambda side: f"{side}px")
def test_a_full_disk_is_an_error_and_keeps_the_old_output(tiny_disk, grid, side):
    """2300 px do not fit as a work raster, 1100 to 1700 px not as a COG."""
    out = tiny_disk / "map.tif"
    out.write_bytes(b"old")
    with pytest.raises(StorageError) as caught:
        publish_noise(out, grid, side)
    assert caught.value.exit_code == 74
    assert str(out) in caught.value.message
    assert "MB are free" in caught.value.hint
    assert [p.name for p in tiny_disk.iterdir()] == ["map.tif"]
    assert out.read_bytes() == b"old"


def test_the_space_that_is_asked_for_beforehand_is_enough(tiny_disk, grid):
    side = next(side for side in range(1500, 0, -20) if RasterSpec(grid(side, side)).worst_case_bytes() < DISK_BYTES)
    assert side > 500
    publish_noise(tiny_disk / "map.tif", grid, side)
    assert (tiny_disk / "map.tif").stat().st_size > side * side


def test_threads_asked_for_by_the_environment_do_not_hide_a_full_disk(tiny_disk):
    """With compression threads GDAL reports nothing; GDAL_NUM_THREADS must not switch them on."""
    code = f"""
import sys
from pathlib import Path
from tests.results.test_storage import publish_noise
from geoseg_cli.grid import Grid
from geoseg_cli.errors import StorageError
from geoseg_cli.results.raster import RasterSpec, WorkRaster
from affine import Affine
import numpy as np
grid = Grid(None, Affine(10, 0, 0, 0, -10, 0), 2300, 2300)
try:
    work = WorkRaster(Path({str(tiny_disk / "w.tif")!r}), RasterSpec(grid))
    work.write(0, np.random.default_rng(0).integers(0, 256, (1, 2300, 2300)).astype(np.uint8))
    work.close()
except StorageError:
    sys.exit(74)
"""
    environment = os.environ | {"GDAL_NUM_THREADS": "ALL_CPUS"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[2], check=False)
    assert run.returncode == 74


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("limit", [0, 4096, 100_000, 900_000, 1_050_000, 1_300_000])
def test_a_write_that_fails_at_any_size_is_an_error_and_keeps_the_old_output(tmp_path, grid, limit):
    import resource

    out = tmp_path / "map.tif"
    out.write_bytes(b"old")
    child = os.fork()
    if child == 0:
        code = 99
        try:
            # Python ignores SIGXFSZ, so that write() fails with EFBIG.
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            publish_noise(out, grid, 1024)
        except StorageError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 74
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]
    assert out.read_bytes() == b"old"


def test_errors_of_the_system_name_the_file_and_what_to_do(tmp_path):
    target = tmp_path / "map.tif"
    with pytest.raises(AccessError, match=r"map\.tif: Permission denied"), storage_trouble(target):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(StorageError, match=r"write .*map\.tif: No space left") as caught, storage_trouble(target):
        raise OSError(28, "No space left on device")
    assert str(tmp_path) in caught.value.hint
    with pytest.raises(StorageError, match=r"cannot read ") as caught, storage_trouble(target, "read"):
        raise OSError(5, "Input/output error")
    assert "gdalinfo" in caught.value.hint
    with pytest.raises(StorageError) as caught, storage_trouble(tmp_path / "gone" / "map.tif"):
        raise OSError(2, "No such file or directory")
    assert "still there" in caught.value.hint


def test_errors_of_our_own_pass_unchanged(tmp_path):
    with pytest.raises(ZeroDivisionError), storage_trouble(tmp_path):
        raise ZeroDivisionError


def test_free_bytes_are_those_of_the_file_system(tiny_disk):
    assert 0 < free_bytes(tiny_disk) <= DISK_BYTES + 4096
    (tiny_disk / "file").write_bytes(bytes(1_000_000))
    assert free_bytes(tiny_disk) <= DISK_BYTES - 1_000_000 + 4096
