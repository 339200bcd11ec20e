"""Which things in a folder are scenes: product folders are one, what lies in them and what geoseg wrote are none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg_cli.errors import GeosegError

if TYPE_CHECKING:
    from geoseg_cli.scenes.product import Product

SCENE_SUFFIXES = (".tif", ".tiff", ".jp2")
OUTPUT_STEMS = ("_landcover", "_cloudmask")
_MARK = b"GEOSEG_VERSION"
_ENDS_BYTES = 65536
"""GDAL writes a COG's tags into its first kilobytes, and those of a plain TIFF there or behind the pixels."""


def is_product(folder: Path) -> bool:
    """Whether a folder is one scene: a known product, or one that is meant to be and cannot be read.

    A folder of several scenes is none.
    """
    from geoseg_cli.scenes import band_files

    return _is_named_product(folder) or _is_found(band_files.find, folder)


def scenes_below(root: Path, patterns: Sequence[str] = ()) -> Iterator[Path]:
    """Scenes in a folder and in the folders inside it, in the order of their names.

    Hidden files and folders, geoseg's own outputs and the masks that come with scenes are none. A folder that may not
    be read is given as if it were a scene: opening it tells why.

    Args:
        root: Folder that is no scene itself.
        patterns: Names as a shell matches them; those without a slash are compared with the last part, others with the
            path below ``root``. Files that match are scenes whatever they end in.
    """
    seen: set[str] = set()
    yield from _walk(root, root, tuple(patterns), seen)


def _walk(folder: Path, root: Path, patterns: tuple[str, ...], seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:  # a link that leads back
        return
    seen.add(real)
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        yield folder
        return
    for name in names:
        path = folder / name
        if name.startswith("."):
            continue
        if os.path.isdir(path) and path.suffix.lower() != ".safe" and not is_product(path):
            yield from _walk(path, root, patterns, seen)
        elif _is_scene(path, bool(patterns)) and (not patterns or _matches(path, root, patterns)):
            yield path


def _matches(path: Path, root: Path, patterns: tuple[str, ...]) -> bool:
    below = path.relative_to(root).as_posix()
    return any(fnmatch(below if "/" in pattern else path.name, pattern) for pattern in patterns)


def _is_scene(path: Path, any_suffix: bool) -> bool:
    """Whether something in a folder of scenes is one of them."""
    from geoseg_cli.scenes import planetscope, safe

    if os.path.isdir(path):
        return True  # a product: other folders were looked into
    suffix = path.suffix.lower()
    if path.is_symlink() and not os.path.exists(path):
        # Opening it tells that what it points to is gone.
        return suffix in (*SCENE_SUFFIXES, ".safe", ".zip")
    if not os.path.isfile(path):
        return False
    if suffix == ".zip" and not any_suffix:
        return _is_found(safe.find, path)
    if not (any_suffix or suffix in SCENE_SUFFIXES) or planetscope.is_mask(path.name):
        return False
    return not path.stem.endswith(OUTPUT_STEMS) and not _is_own(path)


def _is_own(path: Path) -> bool:
    """Whether geoseg wrote a file, whatever it is called."""
    try:
        with open(path, "rb") as stream:
            if _MARK in stream.read(_ENDS_BYTES):
                return True
            stream.seek(-min(_ENDS_BYTES, os.fstat(stream.fileno()).st_size), os.SEEK_END)
            return _MARK in stream.read(_ENDS_BYTES)
    except OSError:
        return False  # opening it tells why


def _is_named_product(folder: Path) -> bool:
    """Whether the names of files in a folder, and not only their bands, tell that it is one product."""
    from geoseg_cli.scenes import aws_tile, hls, landsat, planetscope, safe

    if any(_is_found(find, folder) for find in (safe.find, aws_tile.find, landsat.find, hls.find)):
        return True
    # Scenes of other names may lie beside one of PlanetScope; its usable data masks (UDM) belong to it.
    rasters = [name for name in names_in(folder) if name.lower().endswith(SCENE_SUFFIXES) and "udm" not in name]
    return len(rasters) == 1 and _is_found(planetscope.find, folder)


def _is_found(find: Callable[[Path], Product | None], path: Path) -> bool:
    try:
        return find(path.absolute()) is not None
    except GeosegError:
        return True  # opening it tells what is wrong, and the remedy


def names_in(folder: Path) -> list[str]:
    """Names of what lies in a folder; none where nobody may look."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
