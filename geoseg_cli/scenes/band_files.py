"""A scene as a folder, or a list, of files that hold one band each: the file names tell which.

Layouts that have such files and metadata beside them, as Landsat and HLS do, are built from the same parts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geoseg_cli.catalog import sensors
from geoseg_cli.errors import AccessError, GeosegError, InputError, InputMissingError, StorageError
from geoseg_cli.scenes.bands import known_names
from geoseg_cli.scenes.product import Driver, Layer, Product
from geoseg_cli.scenes.raster_file import open_raster

MAX_METADATA_BYTES = 32 * 2**20
"""Largest metadata file that is read; real ones have some hundred kilobytes."""

_AGAIN = "download the product again"

_SIGNATURES: dict[bytes, Driver] = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}
_ENDINGS: dict[str, Driver] = {
    ".tif": "GTiff",
    ".tiff": "GTiff",
    ".jp2": "JP2OpenJPEG",
    ".j2k": "JP2OpenJPEG",
}

_OWN_NAME = re.compile(r"(?:b|band)0*(\d{1,2})(a?)", re.IGNORECASE)
_PIXEL_SIZE = re.compile(r"r?(\d{1,4})m", re.IGNORECASE)
_OF_BAND = re.compile(r"r?\d{1,4}n?m|sr", re.IGNORECASE)
"""Words that may differ between the bands of a scene: pixel size, wavelength, and the prefix of Landsat's bands."""
_NO_BAND = frozenset(
    {"qa", "bqa", "msk", "mask", "preview", "browse", "thumbnail", "thumb", "overview", "quicklook", "ql"}
    | {
        "st",
        "lst",
        "bt",
        "vcid",
        "label",
        "labels",
        "angle",
        "angles",
        "saa",
        "sza",
        "vaa",
        "vza",
        "udm",
        "udm2",
        "landcover",
        "cloudmask",
    }
)
"""Words in the names of files that belong to a band or a scene but hold no reflectance."""

_SENSOR_NAMES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), sensor)
    for pattern, sensor in (
        (r"HLS\.L30\.", "hls-l30"),
        (r"HLS\.S30\.", "hls-s30"),
        (r"S2[A-D]_|(?:.*_)?T\d{2}[A-Z]{3}_\d{8}", "sentinel-2"),
        (r"L[CO]0?[89](?=_|\d{6})|L[89][-_]", "landsat-8"),
        (r"LT0?[45](?=_|\d{6})|LE0?7(?=_|\d{6})|L7[-_]", "landsat-5"),
    )
)
"""How product names begin. Landsat 4 and 5 also carried the MSS, so their number alone says nothing."""


@dataclass(frozen=True, slots=True)
class BandFile:
    """A file of one band, as its name describes it.

    Attributes:
        path: Absolute path.
        driver: What it is to be read with.
        name: What the file calls its band: ``B04``, ``SR_B4``, ``red``.
        key: The same for every spelling of that name; sorts in the order of the sensor's bands.
        size_m: Pixel size that the name states (``10m``), or None.
        scene: The other words of the name in lower case, such as dates, tiles and orbits; files of one scene share
            them. Names of colours beside that of the band (``blue_B02``) and wavelengths are none of them.
    """

    path: Path
    driver: Driver
    name: str
    key: tuple[int, str]
    size_m: int | None
    scene: tuple[str, ...]


def find(path: Path) -> Product | None:
    """Describe a folder of single-band files.

    Args:
        path: Absolute path of a folder.

    Returns:
        The product; None for a folder without single-band files, and for one that holds several scenes of many bands.

    Raises:
        InputError: Two files hold the same band, or the names tell of different scenes.
        AccessError: The folder may not be read.
    """
    if not path.is_dir():
        return None
    found = band_files(path)
    is_band = {file.path: _is_single(file.path, file.driver) for file in found}
    singles = [file for file in found if is_band[file.path]]
    if not singles or _is_folder_of_scenes(path, is_band):
        return None
    product = product_of(path, singles, "folder of single-band files")
    refuse_other_scenes(path, singles)
    return product


def band_files(folder: Path) -> list[BandFile]:
    """Files directly in a folder whose names end in the name of a band, in the order of their names.

    Raises:
        AccessError: The folder may not be read.
        InputError: A file is a link that leads out of the folder.
    """
    found = []
    for name in names_in(folder):
        words = _words(name)
        if words and (driver := driver_of(folder / name)) is not None:
            found.append(_described(member_file(folder, name, "a link in it"), driver, words))
    return found


def sensor_of(files: Iterable[BandFile], folder: Path) -> str | None:
    """The sensor that product names tell: those of the files, or else that of the folder.

    Raises:
        InputError: The files tell of different sensors.
    """
    told = {sensor_named(file.path.name): file.path.name for file in files}
    told.pop(None, None)
    if len(told) > 1:
        names = " and ".join(list(told.values())[:2])
        raise InputError(f"{folder} holds bands of different sensors: {names}", "give one scene in a folder of its own")
    return next(iter(told), None) or sensor_named(folder.name)


def sensor_named(name: str) -> str | None:
    """The sensor, as in ``data/sensors.toml``, that a product name tells; None where it tells none."""
    return next((sensor for pattern, sensor in _SENSOR_NAMES if pattern.match(name)), None)


def product_of(
    path: Path,
    files: Sequence[BandFile],
    layout: str,
    nodata: float | Literal["file"] | None = "file",
    members: Sequence[Path] = (),
) -> Product:
    """Make a product of single-band files.

    Args:
        path: What the user gave.
        files: One or more per band; of several pixel sizes of one band the finest is taken.
        layout: What it is, as a person says it.
        nodata: As of :class:`geoseg_cli.scenes.product.Layer`.
        members: Further files that must not change while it is read.

    Raises:
        InputError: Two files hold the same band, or belong to different sensors.
    """
    sensor = sensor_of(files, path)
    kept = [file for file in _one_per_band(path, files) if not is_thermal_or_pan(file.name, sensor)]
    if not kept:
        raise InputError(f"{path} holds thermal or panchromatic bands only", "give the bands that hold reflectance")
    layers = tuple(Layer(file.name, str(file.path), file.driver, nodata=nodata) for file in kept)
    return Product(layout, path, layers, sensor, members=(*(file.path for file in kept), *members))


def is_thermal_or_pan(name: str, sensor: str | None) -> bool:
    """Whether a band of a sensor is none that reflectance models use; False where no sensor is known."""
    band = sensors()[sensor].find(name) if sensor else None
    return band is not None and (band.common[0].startswith("lwir") or band.common[0] == "pan")


def refuse_other_scenes(folder: Path, files: Sequence[BandFile]) -> None:
    """Refuse files whose names differ in more than the band and the pixel size: in date, tile, orbit or place.

    Raises:
        InputError: They do.
    """
    for file in files[1:]:
        if file.scene != files[0].scene:
            raise InputError(
                f"{folder} holds files of different scenes: {files[0].path.name} and {file.path.name}",
                "put each scene into a folder of its own, or list the files that belong together",
            )


def driver_of(path: Path) -> Driver | None:
    """The driver that a file is to be read with, by its first bytes; None where it is no raster.

    A file that is named like a raster and begins otherwise keeps the driver of its name: opening it tells what is
    wrong with it.
    """
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            head = stream.read(12)
    except OSError:
        head = b""
    by_head = next((driver for magic, driver in _SIGNATURES.items() if head.startswith(magic)), None)
    return by_head or _ENDINGS.get(path.suffix.lower())


def names_in(folder: Path) -> list[str]:
    """Names of all that lies directly in a folder, sorted.

    Raises:
        AccessError: It may not be read.
        StorageError: The disk fails.
    """
    try:
        return sorted(os.listdir(folder))
    except PermissionError as error:
        raise AccessError(f"{folder}: no permission to read it", "ask for it, or chmod +rx") from error
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read ({error.strerror})", "check the path and the disk") from error


def member_file(folder: Path, name: str, source: str) -> Path:
    """A file that metadata names, if it may be opened: one that lies in the product's own folder.

    Args:
        folder: Absolute path of the product.
        name: What the metadata says.
        source: Who says it, for the message.

    Returns:
        Its path; nothing need lie there.

    Raises:
        InputError: ``name`` is no plain file name, or a link leads out of the folder.
    """
    if not name or name in (".", "..") or any(sign in name for sign in "/\\\0"):
        raise InputError(f"{folder}: {source} names {name[:200]!r}, which is no plain file name", _AGAIN)
    path = folder / name
    if path.is_symlink() and Path(os.path.realpath(path)).parent != Path(os.path.realpath(folder)):
        raise InputError(f"{path} is a link that leads out of its folder", "copy the file itself into the folder")
    return path


def read_metadata(path: Path) -> bytes:
    """All of a metadata file.

    Raises:
        InputMissingError: There is no such file.
        AccessError: It may not be read.
        InputError: It is no regular file, or larger than :data:`MAX_METADATA_BYTES`.
        StorageError: The disk fails.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no regular file", "name the metadata file of the product")
        with path.open("rb") as stream:
            data = stream.read(MAX_METADATA_BYTES + 1)
    except FileNotFoundError as error:
        raise InputMissingError(f"{path}: there is no such file", "check the path") from error
    except PermissionError as error:
        raise AccessError(f"{path}: no permission to read it", "ask for it, or chmod +r") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror})", "check the path and the disk") from error
    if len(data) > MAX_METADATA_BYTES:
        raise InputError(f"{path} is larger than {MAX_METADATA_BYTES >> 20} MiB: no metadata file is", _AGAIN)
    return data


def _words(name: str) -> list[str]:
    """Words of a file name without its ending; none where it has a word that no band's file has."""
    words = [word for word in re.split(r"[-_. ]+", Path(name).stem) if word]
    return words if _band_place(words) is not None else []


def _band_place(words: Sequence[str]) -> int | None:
    """Where the one word stands that names a band; common names count as the last word only.

    A common name further ahead belongs to a place: ``red_sea_B04``.
    """
    if _NO_BAND.intersection(word.casefold() for word in words):
        return None
    own = [place for place, word in enumerate(words) if _own_name(word) is not None]
    if own:
        return own[0] if len(own) == 1 else None
    rest = [place for place, word in enumerate(words) if not _PIXEL_SIZE.fullmatch(word)]
    return rest[-1] if rest and words[rest[-1]].casefold() in known_names() else None


def _own_name(word: str) -> tuple[int, str] | None:
    """(number, letter) of a sensor's own band name: (8, "A") of B8A, b08a and Band8A."""
    found = _OWN_NAME.fullmatch(word)
    if found is None or f"b{found[1]}{found[2]}".casefold() not in known_names():
        return None
    return int(found[1]), found[2].upper()


def _described(path: Path, driver: Driver, words: Sequence[str]) -> BandFile:
    place = _band_place(words)
    assert place is not None
    word, before = words[place], words[place - 1] if place else ""
    key = _own_name(word)
    name = word if key is None else re.sub("^band", "B", word, flags=re.IGNORECASE)
    # The prefix of surface reflectance tells Landsat from the other sensors that have a B4.
    if key is not None and before.upper() == "SR" and f"sr_{name}".casefold() in known_names():
        name = f"SR_{name}"
    sizes = [int(found[1]) for found in map(_PIXEL_SIZE.fullmatch, words) if found]
    rest = (other.casefold() for other in (*words[:place], *words[place + 1 :]))
    scene = tuple(other for other in rest if not _OF_BAND.fullmatch(other) and other not in known_names())
    return BandFile(path, driver, name, key or (100, word.casefold()), sizes[0] if len(sizes) == 1 else None, scene)


def _one_per_band(path: Path, files: Sequence[BandFile]) -> list[BandFile]:
    kept: dict[tuple[int, str], BandFile] = {}
    for file in files:
        other = kept.setdefault(file.key, file)
        if other is file:
            continue
        if other.size_m is None or file.size_m is None or other.size_m == file.size_m or other.scene != file.scene:
            raise InputError(
                f"{path}: {other.path.name} and {file.path.name} hold the same band",
                "give one scene: put its files into a folder of their own, or list them: A_B03.tif,A_B04.tif,...",
            )
        kept[file.key] = min(other, file, key=lambda one: one.size_m or 0)
    return [kept[key] for key in sorted(kept)]


def of_list(paths: Sequence[Path]) -> Product:
    """Describe single-band files that somebody says belong together, of whatever folders and dates.

    Args:
        paths: Absolute paths.

    Raises:
        InputError: A file is no raster of one band that its name tells, or two hold the same band.
        InputMissingError: A file is not there.
    """
    files = []
    for path in paths:
        words, driver = _words(path.name), driver_of(path)
        if not path.exists():
            raise InputMissingError(
                f"{path}: there is no such file", "check the path; those after the first lie in its folder"
            )
        if not words or driver is None or not _is_single(path, driver):
            raise InputError(
                f"{path} is no raster of one band whose name tells which",
                "end the names of the files with their bands: _B04.tif or _red.tif",
            )
        files.append(_described(path, driver, words))
    if not files:
        raise InputError("no file is listed", "list the files of the bands")
    folder = Path(os.path.commonpath([file.path.parent for file in files]))
    return product_of(folder, files, "list of single-band files")


def _is_single(path: Path, driver: Driver) -> bool:
    """Whether a file holds one band; one that cannot be opened is left to those who want its pixels."""
    try:
        file = open_raster(str(path), driver)
    except GeosegError:
        return True
    file.close()
    return len(file.dtypes) == 1


def _is_folder_of_scenes(folder: Path, is_band: dict[Path, bool]) -> bool:
    """Whether several files of many bands lie there."""
    count = sum(not single for single in is_band.values())
    for path in (folder / name for name in names_in(folder)):
        if count > 1:
            break
        if path not in is_band and path.suffix.lower() in _ENDINGS and not _is_extra(path.name):
            driver = driver_of(path)
            count += driver is not None and not _is_single(path, driver)
    return count > 1


def _is_extra(name: str) -> bool:
    """Whether a name is that of a picture or a mask that comes with a scene."""
    words = {word.casefold() for word in re.split(r"[-_. ]+", name)}
    return bool(words & (_NO_BAND | {"tci", "scl", "cld", "snw", "aot", "wvp", "pvi", "visual"}))
