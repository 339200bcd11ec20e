"""ENVI files: raw numbers, and a text file ``.hdr`` beside them that says what they are.

The numbers may begin with any bytes, so the header decides. GDAL takes it by its name: that of the data with ``.hdr``
in place of its ending, or behind it. Bands that it does not name are told by their wavelengths, where it states these.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from geoseg_cli.errors import InputError, InputMissingError, StorageError
from geoseg_cli.scenes import single_file
from geoseg_cli.scenes.band_files import read_metadata
from geoseg_cli.scenes.bands import known_names
from geoseg_cli.scenes.integrity import first_bytes
from geoseg_cli.scenes.product import Product
from geoseg_cli.scenes.wavelengths import named_by_wavelength

_ENDINGS: Final = ("", ".dat", ".img", ".bsq", ".bil", ".bip", ".raw", ".bin")
_TEXTS: Final = frozenset({".json", ".xml", ".txt", ".vrt", ".zip"})
"""Endings of what may lie beside a scene and describe it; such a file is data only if ``.hdr`` stands behind it."""

_UNIT_NM: Final = {
    "micrometers": 1000.0,
    "micrometer": 1000.0,
    "um": 1000.0,
    "nanometers": 1.0,
    "nanometer": 1.0,
    "nm": 1.0,
}
"""Nanometres of a unit of the header's ``wavelength``; of others, as ``Index``, it is no wavelength."""

_TYPE_BYTES: Final = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 9: 16, 12: 2, 13: 4, 14: 8, 15: 8}
"""Bytes of a number by the header's ``data type``."""


def data_file(path: Path) -> Path | None:
    """The file of the numbers, where a path is that of an ENVI file or of its header.

    Args:
        path: Absolute path of a regular file.

    Returns:
        None where it is neither.

    Raises:
        InputMissingError: It is a header without data.
        InputError: Several files beside a header may be its data.
    """
    if path.suffix.lower() != ".hdr":
        return path if _headers(path) else None
    if not _is_header(path):
        return None
    endings = dict.fromkeys(cased for ending in _ENDINGS for cased in (ending, ending.upper()))
    found = _distinct([path.with_suffix(ending) for ending in endings])
    if not found:
        raise InputMissingError(
            f"{path} is the header of an ENVI file, and its data are not there",
            f"put them beside it, as {path.stem}.dat",
        )
    if len(found) > 1:
        names = " or ".join(one.name for one in found)
        raise InputError(f"{path} may be the header of {names}", "name the file of the data")
    return found[0]


def find(path: Path, data: Path, max_pixels: int | None = None) -> Product:
    """Describe an ENVI file.

    Args:
        path: What the user gave: the data or the header.
        data: What :func:`data_file` says.
        max_pixels: Largest rows x columns that is opened.

    Raises:
        InputError: Two headers belong to it, or a mask beside it would be read with it.
        StorageError: It is shorter than the header says.
        GeosegError: It cannot be opened.
    """
    headers = _headers(data)
    if len(headers) != 1:
        names = " and ".join(one.name for one in headers) or "none"
        raise InputError(f"{data} needs one ENVI header, there are {names}", "keep the one that is right beside it")
    for ending in (".msk", ".ovr", ".MSK", ".OVR"):
        if os.path.exists(beside := data.with_name(data.name + ending)):
            raise InputError(
                f"{beside.name} beside {data} would be read with it",
                f"move it away; or make one file of them: gdal_translate {data.name} scene.tif",
            )
    text = read_metadata(headers[0]).decode("latin-1")
    _refuse_short(data, headers[0].name, text)
    product = single_file.find(data, "ENVI", max_pixels)
    known = [_own_name(layer.name) for layer in product.layers]
    told = named_by_wavelength(known, _wavelengths_nm(text, len(known)))
    layers = tuple(replace(layer, name=name or layer.name) for layer, name in zip(product.layers, told, strict=True))
    return replace(product, path=path, layers=layers, members=(data, headers[0]))


def _headers(data: Path) -> list[Path]:
    """ENVI headers by whose names GDAL looks for that of a file."""
    names = [data.with_name(data.name + ending) for ending in (".hdr", ".HDR")]
    if data.suffix.lower() not in _TEXTS:
        names += [data.with_suffix(ending) for ending in (".hdr", ".HDR")]
    return [one for one in _distinct(names) if _is_header(one)]


def _distinct(paths: list[Path]) -> list[Path]:
    """Regular files among paths, each once: some file systems know no upper case."""
    found: dict[tuple[int, int], Path] = {}
    for path in paths:
        if os.path.isfile(path):  # says no where Path.is_file raises: to names that are too long
            status = path.stat()
            found.setdefault((status.st_dev, status.st_ino), path)
    return list(found.values())


def _is_header(path: Path) -> bool:
    return os.path.isfile(path) and first_bytes(path).startswith(b"ENVI")


def _own_name(described: str) -> str:
    """The name of a band that some sensor knows, ``""`` for others; GDAL puts the wavelength behind it."""
    name = described.strip()
    if name.casefold() not in known_names():
        name = re.sub(r" \([^()]*\)$", "", name).strip()
    return name if name.casefold() in known_names() else ""


def _wavelengths_nm(header: str, count: int) -> list[float | None]:
    """Centre of each band; None for all where the header does not say them, each and with their unit."""
    unit = re.search(r"(?im)^[ \t]*wavelength units[ \t]*=[ \t]*(\w+)", header)
    listed = re.search(r"(?im)^[ \t]*wavelength[ \t]*=[ \t]*\{([^{}]*)\}", header)
    factor = _UNIT_NM.get(unit[1].casefold()) if unit else None
    if factor is None or listed is None:
        return [None] * count
    try:
        numbers = [float(text) for text in listed[1].split(",")]
    except ValueError:
        return [None] * count
    return [factor * number for number in numbers] if len(numbers) == count else [None] * count


def _refuse_short(data: Path, header: str, text: str) -> None:
    """Refuse data that end too early: GDAL would read zeros behind the end."""
    stated = dict(re.findall(r"(?m)^[ \t]*(samples|lines|bands|data type|header offset)[ \t]*=[ \t]*(\d{1,12})", text))
    number_bytes = _TYPE_BYTES.get(int(stated.get("data type", 0)))
    if number_bytes is None or not {"samples", "lines", "bands"} <= stated.keys() or _is_packed(text):
        return  # GDAL tells what is wrong with it
    pixels = int(stated["samples"]) * int(stated["lines"]) * int(stated["bands"])
    needed, size = int(stated.get("header offset", 0)) + pixels * number_bytes, data.stat().st_size
    if size < needed:
        raise StorageError(
            f"{data} is truncated: {header} says {needed} bytes, it has {size}",
            "copy or download it again and compare sizes",
        )


def _is_packed(header: str) -> bool:
    return re.search(r"(?m)^[ \t]*file compression[ \t]*=[ \t]*[1-9]", header) is not None
