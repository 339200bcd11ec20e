"""Which layout a path is, decided by what lies there and never by trying drivers.

A folder is asked for in the order of `_FOLDERS`, a file by its first bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from geoseg_cli.errors import InputError, UsageError
from geoseg_cli.scenes import (
    aws_tile,
    band_files,
    envi,
    file_list,
    hls,
    landsat,
    network,
    planetscope,
    safe,
    single_file,
    stac_item,
    zip_member,
)
from geoseg_cli.scenes.integrity import first_bytes, is_folder, is_jpeg2000, is_tiff
from geoseg_cli.scenes.product import Driver, Product

if TYPE_CHECKING:
    from geoseg_cli.scenes import SceneOptions

Find = Callable[[Path], Product | None]

_FOLDERS: Final[tuple[Find, ...]] = (
    safe.find, aws_tile.find, landsat.find, hls.find, planetscope.find, band_files.find,
)  # fmt: skip
_METADATA: Final[tuple[Find, ...]] = (safe.find, aws_tile.find, landsat.find, hls.find, planetscope.find)
_HEAD_BYTES: Final = 1024
"""As far as GDAL looks for the root of a virtual raster, which may follow a declaration and comments."""
KNOWN: Final = (
    "a GeoTIFF, COG or JPEG 2000 file, a Sentinel-2 SAFE folder or .zip, a tile folder of the Sentinel-2 archive on"
    " AWS, a Landsat folder or MTL file, an HLS or PlanetScope product, a STAC item, or single-band"
    " files as a folder or a list: B02.tif,B03.tif,B04.tif"
)


def find_product(path: Path, options: SceneOptions) -> Product:
    """Say which file holds which band.

    Args:
        path: Absolute path of a file or folder, or an address.
        options: What the user says about the scene.

    Raises:
        GeosegError: There is nothing, or nothing that is known.
    """
    if network.is_remote(address := str(path)):
        return _remote(address, options)
    if (found := zip_member.find(path, options.max_pixels)) is not None:
        return found
    if (files := file_list.split_list(path)) is not None:  # before the system is asked for a name that is too long
        name = ",".join(file.name for file in files)  # all of it, and no folders, goes into the map's tags
        return replace(band_files.of_list(files), path=files[0].parent / name)
    if is_folder(path):
        return _first(_FOLDERS, path) or _unknown_folder(path)
    if not path.exists() and (found := hls.find(path)) is not None:
        return found  # the prefix that the files of a scene share
    head = first_bytes(path, _HEAD_BYTES)
    if is_tiff(head):
        return planetscope.find(path) or single_file.find(path, "GTiff", options.max_pixels, options.sidecars)
    if is_jpeg2000(head):
        return single_file.find(path, "JP2OpenJPEG", options.max_pixels, options.sidecars)
    if (data := envi.data_file(path)) is not None:
        return envi.find(path, data, options.max_pixels)
    if (found := _by_content(path, head, options)) is not None:
        return found
    return single_file.find(path, max_pixels=options.max_pixels)  # says what it is instead


def _by_content(path: Path, head: bytes, options: SceneOptions) -> Product | None:
    """Products that are named by a metadata file or an archive, and formats that must be asked for."""
    text = head.lstrip()
    if text.startswith((b"<", b"\xef\xbb\xbf")) and b"<VRTDataset" in text:
        if "VRT" not in options.drivers:
            raise InputError(
                f"{path} is a GDAL virtual raster: it can make GDAL read any other file",
                "if you made it yourself, add --allow-driver VRT; or make a file of it with gdal_translate",
            )
        return single_file.find(path, "VRT", options.max_pixels)
    if text.startswith(b"{"):
        return landsat.find(path) or aws_tile.find(path) or stac_item.find(path, options.allow_network)
    if text.startswith((b"<", b"PK", b"GROUP", b"\xef\xbb\xbf")):
        return _first(_METADATA, path)
    return None


def _remote(address: str, options: SceneOptions) -> Product:
    if address.split("?", 1)[0].endswith(".json"):
        found = stac_item.find(address, options.allow_network)
        if found is None:
            raise InputError(f"{network.redacted(address)} is no STAC item", "give the address of an item or a COG")
        return found
    name = network.gdal_name(address, options.allow_network)
    driver: Driver = "JP2OpenJPEG" if name.split("?", 1)[0].lower().endswith(".jp2") else "GTiff"
    return single_file.find(name, driver, options.max_pixels)


def _first(finders: tuple[Find, ...], path: Path) -> Product | None:
    return next((found for find in finders if (found := find(path)) is not None), None)


def _unknown_folder(path: Path) -> Product:
    raise InputError(f"{path} is a folder, and not one of a known product", f"give {KNOWN}")


def check_drivers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of `--allow-driver`, checked.

    Raises:
        UsageError: A driver cannot be allowed.
    """
    for name in names:
        if name != "VRT":
            raise UsageError(f"--allow-driver {name} is unknown", "the only one to ask for is VRT")
    return names
