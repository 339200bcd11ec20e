"""Files beside a raster that say what it lacks itself: a world file (``.tfw``) and GDAL's ``.aux.xml``.

They can come from anyone, and one that stayed behind describes another file. So they are read only where the user asks
for it, by this module and never by GDAL, which would follow an ``OVERVIEW_FILE`` in them to any file; and they only add
what the raster does not say.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from xml.etree.ElementTree import Element

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geoseg_cli.errors import InputError
from geoseg_cli.grid import Grid
from geoseg_cli.scenes.xml_text import elements, number, only_text, read_xml

if TYPE_CHECKING:
    from geoseg_cli.scenes.raster_file import RasterFile

T = TypeVar("T")

_WORLD: Final = (".tfw", ".tifw", ".tiffw", ".wld", ".j2w", ".jp2w")
_MOST_WORLD_BYTES: Final = 4096
_KEEP: Final = "correct or delete it, or leave out --sidecars"
_NEAR_PX: Final = 1e-3


@dataclass(frozen=True, slots=True)
class BandNotes:
    """What ``.aux.xml`` says of one band; None where it says nothing."""

    name: str | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None


@dataclass(frozen=True, slots=True)
class Sidecars:
    """What the files beside a raster say of it.

    Attributes:
        files: Those that were read.
        transform: From pixels to the map; None where nothing says.
        crs: As WKT; None where nothing says.
        bands: Notes by band number.
    """

    files: tuple[Path, ...]
    transform: Affine | None
    crs: str | None
    bands: tuple[tuple[int, BandNotes], ...]


def ignored_sidecars(path: Path, read: tuple[Path, ...] = ()) -> tuple[str, ...]:
    """A warning that names the files beside a raster that GDAL would have read with it, and nobody reads here."""
    names = [path.name + ending for ending in (".aux.xml", ".msk")] + [path.stem + ending for ending in _WORLD[:2]]
    # os.path.exists says no where Path.exists raises: to names that are too long.
    known = {one.name for one in read}
    found = [name for name in names if name not in known and os.path.exists(path.with_name(name))]
    if not found:
        return ()
    return (f"{', '.join(found)} beside the scene is not read; --sidecars reads .aux.xml and world files",)


def read_sidecars(path: Path) -> Sidecars | None:
    """Read what lies beside a raster; None where nothing does.

    Raises:
        InputError: One cannot be understood, they contradict each other, or one leads to another file.
    """
    worlds = [one for ending in _WORLD if os.path.isfile(one := path.with_name(path.stem + ending))]
    notes = path.with_name(path.name + ".aux.xml")
    transforms = {one: _world(one) for one in worlds}
    root = read_xml(notes) if os.path.isfile(notes) else None
    if root is not None and (stated := _transform(root, notes)) is not None:
        transforms[notes] = stated
    first = next(iter(transforms), None)
    for other in transforms:
        if first is not None and not _agree(transforms[first], transforms[other]):
            raise InputError(f"{first} and {other.name} say different things of where the scene lies", _KEEP)
    files = (*worlds, *([notes] if root is not None else []))
    if not files:
        return None
    bands = () if root is None else tuple(_bands(root, notes))
    return Sidecars(files, transforms[first] if first else None, None if root is None else _crs(root, notes), bands)


def supplement(file: RasterFile, sidecars: Sidecars, with_nodata: bool) -> None:
    """Add to an open file what it does not say itself.

    Args:
        file: Just opened.
        sidecars: What lies beside it.
        with_nodata: Whether nodata numbers count; not where the user says what they are.

    Raises:
        InputError: The file says something else.
    """
    grid, where = file.grid, f"{file.path} and {', '.join(one.name for one in sidecars.files)} beside it"
    transform, crs = grid.transform, grid.crs
    if sidecars.transform is not None:
        if not grid.transform.is_identity and not _agree(grid.transform, sidecars.transform):
            raise InputError(f"{where} say different things of where the scene lies", _KEEP)
        transform = sidecars.transform
    if sidecars.crs is not None:
        stated = CRS.from_wkt(sidecars.crs)
        if crs is not None and crs != stated:
            raise InputError(f"{where} have different CRS", _KEEP)
        crs = stated
    file.grid = Grid(crs, transform, grid.height, grid.width)
    for band, notes in sidecars.bands:
        if band > len(file.dtypes):
            raise InputError(f"{where}: there is no band {band}", _KEEP)
        place, name = band - 1, f"{where} say different things of band {band}"
        file.descriptions = _added(file.descriptions, place, notes.name, None, name)
        file.scales = _added(file.scales, place, notes.scale, 1.0, name)
        file.offsets = _added(file.offsets, place, notes.offset, 0.0, name)
        if with_nodata:
            file.nodata = _added(file.nodata, place, notes.nodata, None, name)
    if with_nodata and any(notes.nodata is not None for _, notes in sidecars.bands):
        numbers = dict.fromkeys(f"{value:g}" for value in file.nodata if value is not None)
        file.nodata_reason = f"nodata {', '.join(numbers)} of the file and .aux.xml"


def _added(values: tuple[T, ...], place: int, stated: T | None, silent: T, where: str) -> tuple[T, ...]:
    """The values with another at one place, which said nothing so far."""
    if stated is None or stated == values[place] or str(stated) == str(values[place]):
        return values
    if values[place] != silent:
        raise InputError(where, _KEEP)
    return (*values[:place], stated, *values[place + 1 :])


def _agree(one: Affine, other: Affine) -> bool:
    step = max(abs(one.a), abs(one.b), abs(one.d), abs(one.e))
    return all(abs(a - b) <= step * _NEAR_PX for a, b in zip(one, other, strict=True))


def _world(path: Path) -> Affine:
    """The transform of a world file: six numbers, the last two of them the centre of the first pixel."""
    try:
        with path.open("rb") as stream:
            a, d, b, e, c, f = (float(text) for text in stream.read(_MOST_WORLD_BYTES).split())
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is no world file of six numbers", _KEEP) from error
    return _usable(Affine(a, b, c, d, e, f) @ Affine.translation(-0.5, -0.5), path)


def _transform(root: Element, path: Path) -> Affine | None:
    if any(key.get("key", "").upper() == "OVERVIEW_FILE" for key in elements(root, "MDI")):
        raise InputError(f"{path} names another file to take pixels from (OVERVIEW_FILE)", _KEEP)
    text = only_text(root, str(path), "GeoTransform")
    if text is None:
        return None
    parts = [number(part, "GeoTransform", str(path)) for part in text.split(",")]
    if len(parts) != 6:
        raise InputError(f"{path}: GeoTransform has {len(parts)} numbers, it needs 6", _KEEP)
    return _usable(Affine.from_gdal(*parts), path)


def _usable(transform: Affine, path: Path) -> Affine:
    if transform.is_degenerate or not all(map(math.isfinite, transform[:6])):
        raise InputError(f"{path} maps all pixels onto a line", _KEEP)
    return transform


def _crs(root: Element, path: Path) -> str | None:
    text = only_text(root, str(path), "SRS")
    if not text:
        return None
    try:
        return str(CRS.from_user_input(text).to_wkt())
    except CRSError as error:
        raise InputError(f"{path}: its SRS is no CRS: {text[:60]!r}", _KEEP) from error


def _bands(root: Element, path: Path) -> list[tuple[int, BandNotes]]:
    found: dict[int, BandNotes] = {}
    for element in elements(root, "PAMRasterBand"):
        band = element.get("band", "")
        if not (band.isascii() and band.isdigit() and int(band[:9]) > 0 and int(band[:9]) not in found):
            raise InputError(f"{path}: a PAMRasterBand is of no band, or two are of one: {band[:20]!r}", _KEEP)
        texts = [only_text(element, str(path), name) for name in ("Description", "NoDataValue", "Scale", "Offset")]
        name, *rest = texts
        numbers = [None if text is None else _number(text, path) for text in rest]
        found[int(band)] = BandNotes(name, *numbers)
    return list(found.items())


def _number(text: str, path: Path) -> float:
    """A number that may be NaN, as nodata numbers are."""
    return math.nan if text.casefold() == "nan" else number(text, "a number of a band", str(path))
