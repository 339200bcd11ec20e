"""One raster in a zip file that nobody unpacks, by the name that GDAL has for it: ``/vsizip/folder/file.zip/a.tif``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from geoseg_cli.errors import InputError, InputMissingError, StorageError
from geoseg_cli.scenes import single_file
from geoseg_cli.scenes.archive import list_archive, refuse_unsafe
from geoseg_cli.scenes.product import Driver, Product

PREFIX: Final = "/vsizip/"

_LIST: Final = "list its members: unzip -l FILE; a zip of a whole SAFE folder is named itself"
_DRIVERS: Final[dict[str, Driver]] = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG"}


def split_name(path: Path) -> tuple[Path, str] | None:
    """Archive and member that a name means, the member empty where only the archive is named.

    None where the name is of another kind, or no such archive is there.

    An absolute archive has two slashes before it, which ``pathlib`` makes one of: it is looked for first.
    """
    if not str(path).startswith(PREFIX):
        return None
    parts = str(path).removeprefix(PREFIX).split("/")
    for count in range(1, len(parts) + 1):
        inner = "/".join(parts[:count])
        for archive in (Path("/", inner), Path(inner).absolute()):
            if inner.lower().endswith(".zip") and os.path.isfile(archive):
                return archive, "/".join(parts[count:])
    return None


def find(path: Path, max_pixels: int | None = None) -> Product | None:
    """Describe a raster in a zip file; None where the name is of another kind.

    Args:
        path: The name.
        max_pixels: Largest rows x columns that is opened.

    Raises:
        InputMissingError: There is no such archive, or no such member.
        GeosegError: The archive is not to be trusted or damaged, or the member cannot be opened.
    """
    if not str(path).startswith(PREFIX):
        return None
    found = split_name(path)
    if found is None:
        raise InputMissingError(f"{path}: there is no such zip file", "check the path: /vsizip//FOLDER/FILE.zip/MEMBER")
    archive, member = list_archive(found[0]), found[1]
    if archive is None:
        raise StorageError(f"{found[0]} is truncated or damaged: it has no readable directory", "copy it again")
    refuse_unsafe(archive)
    if not member:
        raise InputError(f"{path} names no file in the zip", f"name one of `unzip -l`: /vsizip/{found[0]}/MEMBER.tif")
    if member not in archive.names:
        raise InputMissingError(f"{found[0]} holds no {member}; its files are read, no folders", _LIST)
    driver = _DRIVERS.get(Path(member).suffix.lower())
    if driver is None:
        raise InputError(f"{path}: only .tif, .tiff and .jp2 files are read in a zip", "unpack it, and give the file")
    product = single_file.find(archive.gdal_name(member), driver, max_pixels)
    return replace(product, layout=f"{product.layout} in a zip", members=(found[0],))
