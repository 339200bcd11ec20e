"""Complaints of GDAL and the system about an output -> errors that tell a user what to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rasterio._err import CPLE_BaseError  # rasterio.shutil raises these; there is no public name for them
from rasterio.errors import RasterioError

from geoseg_cli.errors import AccessError, StorageError

READ_BACK_HINT = "run again; if it happens twice, check disk and memory"
READ_HINT = "check that the file is complete, for example with gdalinfo -checksum"

Doing = Literal["write", "read back", "read"]


@contextmanager
def storage_trouble(target: Path, doing: Doing = "write") -> Iterator[None]:
    """Name the file in every error that touching it raises.

    Args:
        target: The file as the user knows it.
        doing: What failed; it decides the hint.

    Raises:
        AccessError: The system denied permission.
        StorageError: Any other failure of GDAL or the system, such as a full disk.
    """
    try:
        yield
    except PermissionError as error:
        raise AccessError(
            f"cannot {doing} {target}: {error.strerror}", f"check the permissions of {target.parent}"
        ) from error
    except (OSError, RasterioError, CPLE_BaseError) as error:
        hint = {"read back": READ_BACK_HINT, "read": READ_HINT}.get(doing) or _room(target)
        raise StorageError(f"cannot {doing} {target}: {_reason(error)}", hint) from error


def free_bytes(folder: Path) -> int:
    """Bytes that this user can still write in a folder's file system."""
    return shutil.disk_usage(folder).free


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).rstrip(".")


def _room(target: Path) -> str:
    try:
        free_mb = free_bytes(target.parent) / 1e6
    except OSError:
        return f"check that {target.parent} is still there"
    return f"make room in {target.parent} ({free_mb:.0f} MB are free) or write to another disk"
