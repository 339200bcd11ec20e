"""Landsat 4 to 9: a GeoTIFF per band and an MTL file (text, JSON or XML) that says what the numbers mean.

Level 1: top-of-atmosphere reflectance = (M x DN + A) / sin(sun elevation); level 2: surface reflectance = M x DN + A.
M and A are REFLECTANCE_MULT_BAND_n and REFLECTANCE_ADD_BAND_n; both formulas and the fill bit of the quality band are
those of the USGS Landsat data format control books and of the Collection 2 product guides.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geoseg_cli.errors import InputError, RadiometryError, StorageError
from geoseg_cli.scenes.band_files import (
    band_files,
    driver_of,
    member_file,
    names_in,
    product_of,
    read_metadata,
    refuse_other_scenes,
)
from geoseg_cli.scenes.product import Layer, Product, Quality, Statement
from geoseg_cli.scenes.xml_text import local_name, read_xml

Groups = dict[str, dict[str, str]]
"""The groups of an MTL file: name of the group -> key -> value as text."""

NODATA = 0
FILL_BIT = 1
"""Bit 0 of QA_PIXEL and of the BQA band of collection 1."""

_MTL = re.compile(r"(?P<stem>.*_|)MTL\.(?P<kind>txt|json|xml)", re.IGNORECASE)
_KINDS = ("txt", "json", "xml")
"""Which of several MTL files of one scene is read, best first; they say the same."""

_PRODUCT_FILE = re.compile(r"L[COTEM]\d{1,2}_?\d.*_B\d{1,2}\.TIFF?", re.IGNORECASE)
_LANDSAT_FILE = re.compile(r"L(?:[CEMOT]0?[1-9](?=_|\d{6})|[789][-_])", re.IGNORECASE)
_FOREIGN_FILE = re.compile(r"L(?:M0?[1-5]|T0?[89])(?=_|\d{6})", re.IGNORECASE)
"""Scenes of the MSS, and of the thermal sensor of Landsat 8 and 9 alone."""

_QUALITY_FILE = re.compile(r".*_(?:QA_PIXEL|BQA)\.TIFF?", re.IGNORECASE)

_OLI, _TM = (1, 2, 3, 4, 5, 6, 7, 9), (1, 2, 3, 4, 5, 7)
"""Band numbers that hold reflectance of the multispectral pixel size: no thermal, no panchromatic band."""

_LEVEL_1_GROUPS = ("LEVEL1_RADIOMETRIC_RESCALING", "RADIOMETRIC_RESCALING")
"""Of collection 2 and of those before; level 2 files repeat the first beside their own."""

_LEVEL_2_GROUPS = ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS",)

_AGAIN = "download the product again"


@dataclass(frozen=True, slots=True)
class _Mtl:
    """An MTL file.

    Attributes:
        path: Where it lies.
        groups: What it says.
    """

    path: Path
    groups: Groups

    def get(self, key: str, *groups: str) -> str | None:
        """The value of a key in the first of some groups that has it."""
        return next((self.groups[group][key] for group in groups if key in self.groups.get(group, {})), None)

    def need(self, key: str, *groups: str) -> str:
        """As :meth:`get`.

        Raises:
            InputError: No group has it.
        """
        value = self.get(key, *groups)
        if value is None:
            raise InputError(f"{self.path} has no {key} in {' or '.join(groups)}", _AGAIN)
        return value

    def number(self, key: str, *groups: str) -> float | None:
        """A value as a number.

        Raises:
            InputError: It is none, or not finite.
        """
        text = self.get(key, *groups)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{self.path}: {key} is {text[:40]!r}, which is no number", _AGAIN)
        return value


def find(path: Path) -> Product | None:
    """Describe a Landsat scene.

    Args:
        path: Absolute path of a folder or of an MTL file.

    Returns:
        None where it is none. A folder of Landsat bands without an MTL file has no statement about its numbers.

    Raises:
        InputError: The MTL file cannot be understood or names files outside its folder, no band is there, the folder
            holds several scenes, or the scene is of the MSS or of TIRS alone.
        RadiometryError: The sun was not above the horizon.
        StorageError: The MTL file is truncated.
        AccessError: Something may not be read.
    """
    if path.is_dir():
        mtl = _mtl_in(path)
        return _described(path, mtl) if mtl else _without_mtl(path)
    if _MTL.fullmatch(path.name) is None or not path.exists():
        return None
    return _described(path, path)


def read_mtl(path: Path) -> Groups:
    """Read an MTL file.

    Args:
        path: One that ends in ``.txt``, ``.json`` or ``.xml``.

    Raises:
        InputError: It cannot be understood.
        StorageError: It ends too early.
        GeosegError: As :func:`geoseg_cli.scenes.band_files.read_metadata` does.
    """
    readers = {".json": _read_json, ".xml": _read_xml}
    return readers.get(path.suffix.lower(), _read_text)(path)


def _mtl_in(folder: Path) -> Path | None:
    found = [match for match in map(_MTL.fullmatch, names_in(folder)) if match]
    stems = sorted({match["stem"].casefold() for match in found})
    if not found:
        return None
    if len(stems) > 1:
        names = [next(match.group() for match in found if match["stem"].casefold() == stem) for stem in stems[:2]]
        raise InputError(
            f"{folder} holds several Landsat scenes: {names[0]} and {names[1]}",
            f"give the MTL file of one of them: {folder / names[0]}",
        )
    best = min(found, key=lambda match: _KINDS.index(match["kind"].lower()))
    return member_file(folder, best.group(), "a link in it")


def _described(path: Path, mtl_path: Path) -> Product:
    mtl = _Mtl(mtl_path, read_mtl(mtl_path))
    contents = ("PRODUCT_CONTENTS", "PRODUCT_METADATA")
    sensor, numbers = _sensor(mtl)
    level = _level(mtl)
    files, absent = _band_paths(mtl, contents, numbers)
    if not files:
        raise InputError(
            f"{mtl_path}: none of the {len(absent)} band files that it names is there: {', '.join(absent[:3])} ...",
            "put them beside it under these names",
        )
    prefix = "SR_B" if level == 2 else "B"
    layers = tuple(Layer(f"{prefix}{number}", str(file), nodata=NODATA) for number, file in files.items())
    quality, lost = _quality(mtl, contents)
    gone = [*absent, *lost]
    warnings = (f"{', '.join(gone)}: named in {mtl_path.name}, but not there",) if gone else ()
    members = (mtl_path, *files.values(), *([Path(quality.layer.file)] if quality else []))
    statement = _statement(mtl, level, tuple(files))
    title = f"Landsat level {level} product"
    return Product(title, path, layers, sensor, statement, quality, members, warnings=warnings)


def _sensor(mtl: _Mtl) -> tuple[str, tuple[int, ...]]:
    """Name of the sensor and the numbers of its reflectance bands."""
    groups = ("IMAGE_ATTRIBUTES", "PRODUCT_METADATA")
    craft, sensor = mtl.need("SPACECRAFT_ID", *groups), mtl.need("SENSOR_ID", *groups)
    number = re.fullmatch(r"LANDSAT_?([1-9])", craft.upper())
    kind = sensor.upper().rstrip("+")
    if number and number[1] in "89" and kind in ("OLI", "OLI_TIRS"):
        return "landsat-8", _OLI
    if number and (number[1], kind) in (("4", "TM"), ("5", "TM"), ("7", "ETM")):
        return "landsat-5", _TM
    raise InputError(
        f"{mtl.path}: scenes of {craft[:40]} {sensor[:40]} cannot be read",
        "give one of TM, ETM+ or OLI: Landsat 4 to 9",
    )


def _level(mtl: _Mtl) -> int:
    text = mtl.get("PROCESSING_LEVEL", "PRODUCT_CONTENTS") or mtl.need("DATA_TYPE", "PRODUCT_METADATA")
    if text[:2] not in ("L1", "L2"):
        raise InputError(f"{mtl.path}: processing level {text[:40]!r} is unknown", "give a level 1 or level 2 product")
    return int(text[1])


def _band_paths(mtl: _Mtl, groups: Sequence[str], numbers: Sequence[int]) -> tuple[dict[int, Path], list[str]]:
    """Files of the bands by number, and the names of those that are not there."""
    files: dict[int, Path] = {}
    absent: list[str] = []
    for number in numbers:
        name = mtl.get(f"FILE_NAME_BAND_{number}", *groups)
        if name is None:
            continue
        path = _path_of(mtl, name)
        if path in files.values():
            raise InputError(f"{mtl.path} names {name} for two bands", _AGAIN)
        if path.exists():
            files[number] = path
        else:
            absent.append(name)
    if not files and not absent:
        raise InputError(f"{mtl.path} names no file of a reflectance band", _AGAIN)
    return files, absent


def _path_of(mtl: _Mtl, name: str) -> Path:
    """Where a file that the MTL file names lies; its ending may have been written in other letters since."""
    folder = mtl.path.parent
    path = member_file(folder, name, mtl.path.name)
    if path.exists():
        return path
    alike = [other for other in names_in(folder) if other.casefold() == name.casefold()]
    return member_file(folder, alike[0], mtl.path.name) if len(alike) == 1 else path


def _quality(mtl: _Mtl, groups: Sequence[str]) -> tuple[Quality | None, list[str]]:
    """The quality band, or the name of its file where that is not there."""
    name = mtl.get("FILE_NAME_QUALITY_L1_PIXEL", *groups) or mtl.get("FILE_NAME_BAND_QUALITY", *groups)
    if name is None:
        return None, []
    path = _path_of(mtl, name)
    return (_fill(path), []) if path.exists() else (None, [name])


def _fill(path: Path) -> Quality:
    name = "BQA" if "BQA" in path.stem.upper() else "QA_PIXEL"
    return Quality(Layer(name, str(path), nodata=None), (), FILL_BIT, f"fill bit of {name}")


def _statement(mtl: _Mtl, level: int, numbers: Sequence[int]) -> Statement | None:
    """What the MTL file says of each band; None where it says nothing, as before collection 1 for TM and ETM+."""
    groups = _LEVEL_2_GROUPS if level == 2 else _LEVEL_1_GROUPS
    mults = [mtl.number(f"REFLECTANCE_MULT_BAND_{number}", *groups) for number in numbers]
    adds = [mtl.number(f"REFLECTANCE_ADD_BAND_{number}", *groups) for number in numbers]
    pairs = [pair if None not in pair else (None, None) for pair in zip(mults, adds, strict=True)]
    known = dict.fromkeys(pair for pair in pairs if pair[0] is not None)
    if not known:
        return None
    if any(mult is not None and mult <= 0 for mult, _ in pairs):
        raise InputError(f"{mtl.path}: a REFLECTANCE_MULT_BAND is not above 0", _AGAIN)
    formula = "; ".join(f"{mult:g} x DN {add:+g}" for mult, add in known)
    if level == 2:
        reason = f"{formula}, as REFLECTANCE_MULT and REFLECTANCE_ADD in {mtl.path.name} say"
        return Statement("metadata", reason, *_columns(pairs, 1.0))
    elevation = _sun_elevation(mtl)
    reason = (
        f"({formula}) / sin({elevation:g} degrees), as REFLECTANCE_MULT, REFLECTANCE_ADD and SUN_ELEVATION in"
        f" {mtl.path.name} say"
    )
    return Statement("metadata", reason, *_columns(pairs, math.sin(math.radians(elevation))))


def _columns(
    pairs: Sequence[tuple[float | None, float | None]], divisor: float
) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    divided = [tuple(None if value is None else value / divisor for value in pair) for pair in pairs]
    return tuple(pair[0] for pair in divided), tuple(pair[1] for pair in divided)


def _sun_elevation(mtl: _Mtl) -> float:
    """Degrees above the horizon at the middle of the scene."""
    elevation = mtl.number("SUN_ELEVATION", "IMAGE_ATTRIBUTES", "PRODUCT_PARAMETERS")
    if elevation is None:
        raise InputError(f"{mtl.path} has no SUN_ELEVATION in IMAGE_ATTRIBUTES", _AGAIN)
    if not 0 < elevation <= 90:
        raise RadiometryError(
            f"{mtl.path}: SUN_ELEVATION is {elevation:g} degrees: without sunlight there is no reflectance",
            "give a scene that was taken by day",
        )
    return elevation


def _without_mtl(folder: Path) -> Product | None:
    names = names_in(folder)
    if not any(_LANDSAT_FILE.match(name) for name in names):
        return None
    files = band_files(folder)
    if not files or not all(_LANDSAT_FILE.match(file.path.name) for file in files):
        return None
    foreign = next((file.path.name for file in files if _FOREIGN_FILE.match(file.path.name)), None)
    if foreign:
        raise InputError(
            f"{folder}: {foreign} is of the MSS or of TIRS, which cannot be read",
            "give a scene that TM, ETM+ or OLI took: Landsat 4 to 9",
        )
    # Renamed or computed files need not keep the fill number of the product.
    is_original = all(_PRODUCT_FILE.fullmatch(file.path.name) for file in files)
    quality = _quality_beside(folder, names) if is_original else None
    product = product_of(
        folder,
        files,
        "Landsat folder without an MTL file",
        NODATA if is_original else "file",
        [Path(quality.layer.file)] if quality else [],
    )
    refuse_other_scenes(folder, files)
    return replace(product, quality=quality)


def _quality_beside(folder: Path, names: Sequence[str]) -> Quality | None:
    found = [name for name in names if _QUALITY_FILE.fullmatch(name) and driver_of(folder / name)]
    return _fill(member_file(folder, found[0], "a link in it")) if len(found) == 1 else None


def _read_text(path: Path) -> Groups:
    """The text form: ``KEY = VALUE`` lines inside ``GROUP = NAME`` and ``END_GROUP = NAME``, and END."""
    groups: Groups = {}
    inside: list[str] = []
    for number, line in enumerate(_decoded(path).splitlines(), start=1):
        key, sign, value = (part.strip() for part in line.partition("="))
        if not key.strip("\0"):
            continue
        if key == "END" and not sign:
            return groups
        if not sign:
            raise InputError(f"{path}: line {number} is no KEY = VALUE", _AGAIN)
        if key == "GROUP":
            inside.append(value)
        elif key == "END_GROUP":
            if not inside or inside.pop() != value:
                raise InputError(f"{path}: line {number} ends the group {value[:40]!r}, which is not open", _AGAIN)
        elif inside:
            _add(groups, inside[-1], key, value.strip('"'), path)
    raise StorageError(f"{path} is truncated: it has no END line", _AGAIN)


def _read_json(path: Path) -> Groups:
    try:
        data = json.loads(_decoded(path), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON that can be read: {error}", _AGAIN) from error
    groups: Groups = {}
    for name, group in _members(_only(data)):
        for key, value in _members(group):
            if isinstance(value, str | int | float):
                _add(groups, name, key, str(value), path)
    return groups


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one group")
    return found


def _members(data: Any) -> list[tuple[str, Any]]:
    return list(data.items()) if isinstance(data, dict) else []


def _only(data: Any) -> Any:
    """What the one member of the outermost object holds."""
    return next(iter(data.values())) if isinstance(data, dict) and len(data) == 1 else {}


def _read_xml(path: Path) -> Groups:
    groups: Groups = {}
    for group in read_xml(path):
        for element in group:
            if len(element) == 0:
                _add(groups, local_name(group), local_name(element), (element.text or "").strip(), path)
    return groups


def _add(groups: Groups, group: str, key: str, value: str, path: Path) -> None:
    if groups.setdefault(group, {}).setdefault(key, value) != value:
        raise InputError(f"{path} says {key} twice in {group}: {groups[group][key][:40]!r} and {value[:40]!r}", _AGAIN)


def _decoded(path: Path) -> str:
    try:
        return read_metadata(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: byte {error.start} is not UTF-8", _AGAIN) from error
