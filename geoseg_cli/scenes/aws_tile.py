"""Sentinel-2 tiles as the archive on AWS keeps them: ``tiles/10/S/DG/2018/12/31/0``, one folder a tile.

Level 1C has its images in the folder itself (``B02.jp2``), level 2A in ``R10m``, ``R20m`` and ``R60m``. What the
numbers mean stands elsewhere in the archive, under ``products/``: the tile knows the product's name, whose baseline
tells. Where the product's metadata were put beside the tile as ``product_metadata.xml``, they tell. The archive is
described in the readme files of its buckets, ``sentinel-s2-l1c`` and ``sentinel-s2-l2a``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element

from geoseg_cli.errors import InputError, StorageError
from geoseg_cli.scenes.band_files import read_metadata
from geoseg_cli.scenes.product import Driver, Layer, Product
from geoseg_cli.scenes.sentinel2_metadata import (
    BAND_IDS,
    PLAIN_NAME,
    level_of,
    name_of,
    nodata_of,
    scene_classification,
    statement_of,
)
from geoseg_cli.scenes.xml_text import read_xml

NODATA: Final = 0
"""What the metadata of every product call NODATA."""

_TILE_INFO, _PRODUCT_INFO, _PRODUCT = "tileInfo.json", "productInfo.json", "product_metadata.xml"
_NAMES: Final = (_TILE_INFO, _PRODUCT_INFO, _PRODUCT, "metadata.xml")
_FOLDERS: Final = ("R10m", "R20m", "R60m", "")
"""Where an image may lie, from the smallest pixels on."""

_DRIVERS: Final[tuple[tuple[str, Driver], ...]] = ((".jp2", "JP2OpenJPEG"), (".tif", "GTiff"))
_AGAIN: Final = "download the tile again"


def find(path: Path) -> Product | None:
    """Describe a tile.

    Args:
        path: Absolute path of its folder, or of its ``tileInfo.json`` or ``metadata.xml``.

    Returns:
        A layer for each band of which an image is there; None where ``path`` is something else.

    Raises:
        StorageError: ``tileInfo.json`` is damaged.
        InputError: No image is there, the files disagree about the product, or an image leads out of the folder.
        RadiometryError: ``product_metadata.xml`` contradicts itself.
    """
    folder = path.parent if path.name in _NAMES else path
    tile = _table(folder / _TILE_INFO)
    product = _table(folder / _PRODUCT_INFO, is_sure=bool(tile))
    is_tile = isinstance(tile.get("utmZone"), int) and isinstance(tile.get("gridSquare"), str)
    if not is_tile:
        _refuse_product_folder(folder, product)
        return None
    files = {band: found for band in (*BAND_IDS, "SCL") if (found := _image(folder, band)) is not None}
    if not set(files) - {"SCL"}:
        raise InputError(
            f"{folder} is a tile of the Sentinel-2 archive on AWS, and no image is there",
            f"download the images too: B02.jp2 ... beside {_TILE_INFO}, of level 2A in R10m, R20m and R60m",
        )
    return _described(path, folder, files, _name(folder, tile, product))


def _described(path: Path, folder: Path, files: dict[str, tuple[Path, Driver]], name: str) -> Product:
    bands = [band for band in BAND_IDS if band in files]
    document = folder / _PRODUCT
    root = read_xml(document) if os.path.isfile(document) else None
    if root is not None:
        _refuse_other_product(root, document, name)
    nodata = None if root is None else nodata_of(root, str(document))
    layers = tuple(
        Layer(band, str(files[band][0]), files[band][1], nodata=NODATA if nodata is None else nodata) for band in bands
    )
    quality = scene_classification(str(files["SCL"][0]), files["SCL"][1]) if "SCL" in files else None
    statement = None if root is None else statement_of(root, level_of(root, str(document)), bands, document)
    members = (folder / _TILE_INFO, *([document] if root is not None else []), *(file for file, _ in files.values()))
    return Product(
        "Sentinel-2 tile of the archive on AWS", path, layers, "sentinel-2", statement, quality, members, name
    )


def _table(path: Path, is_sure: bool = True) -> dict[str, Any]:
    """What a JSON file holds; empty where it is not there, or holds something else.

    Args:
        path: Of the file.
        is_sure: Whether its name alone tells that it belongs to a tile.

    Raises:
        StorageError: It is no JSON, and surely should be.
    """
    if not os.path.isfile(path):
        return {}
    try:
        held = json.loads(read_metadata(path))
    except (ValueError, RecursionError) as error:
        if not is_sure:
            return {}
        raise StorageError(f"{path} is damaged: it is no JSON ({str(error)[:80]})", _AGAIN) from error
    return held if isinstance(held, dict) else {}


def _refuse_product_folder(folder: Path, product: dict[str, Any]) -> None:
    """Say where the images are, for a folder of ``products/``, which holds none."""
    tiles = product.get("tiles")
    if not isinstance(product.get("name"), str) or not isinstance(tiles, list) or os.path.exists(folder / "B02.jp2"):
        return
    paths = [one["path"] for one in tiles if isinstance(one, dict) and isinstance(one.get("path"), str)]
    named = f": {ascii(paths[0])[1:80]}" if paths else ""
    raise InputError(
        f"{folder} is a product folder of the Sentinel-2 archive on AWS: it holds metadata, no images",
        f"give the folder of a tile of it, which has a {_TILE_INFO}{named}",
    )


def _name(folder: Path, tile: dict[str, Any], product: dict[str, Any]) -> str:
    """The product's name, ``""`` where nothing tells.

    Raises:
        InputError: Two files tell two.
    """
    said = [name for name in (tile.get("productName"), product.get("name")) if isinstance(name, str)]
    names = list(dict.fromkeys(name for name in said if PLAIN_NAME.fullmatch(name)))
    if len(names) > 1:
        raise InputError(f"{folder}: {_TILE_INFO} is of {names[0]}, {_PRODUCT_INFO} of {names[1]}", _AGAIN)
    return names[0] if names else ""


def _refuse_other_product(root: Element, document: Path, name: str) -> None:
    stated = name_of(root, str(document)).removesuffix(".SAFE")
    if stated and name and stated != name:
        raise InputError(f"{document} is of {stated}, {_TILE_INFO} of {name}", "keep the one that came with the images")


def _image(folder: Path, band: str) -> tuple[Path, Driver] | None:
    """The image of a band with the smallest pixels.

    Raises:
        InputError: It leads out of the folder.
    """
    for inner in _FOLDERS:
        for ending, driver in _DRIVERS:
            file = folder / inner / f"{band}{ending}"
            if not os.path.isfile(file):
                continue
            if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
                raise InputError(f"{file} is a link that leads out of the tile", "copy the file itself into the folder")
            return file, driver
    return None
