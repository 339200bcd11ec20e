"""Which scenes a path on the command line stands for, what they are called, and where their outputs go."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg_cli.errors import GeosegError

if TYPE_CHECKING:
    from geoseg_cli.scenes.product import Product

SCENE_SUFFIXES = (".tif", ".tiff", ".jp2")
OUTPUT_STEMS = ("_landcover", "_cloudmask")

_METADATA_FILE = re.compile(
    r"(?P<mtd>MTD_MSIL(?:1C|2A)\.xml|S2[A-D]_(?:OPER|USER)_MTD_SAFL1C_.*\.xml)|(?P<mtl>.*_|)MTL\.(?:txt|json|xml)",
    re.IGNORECASE,
)
_KNOWN_ENDINGS = re.compile(
    r"(?:\.tiff?|\.jp2|\.j2k|\.json|\.xml|\.txt|\.vrt|\.hdr|\.img|\.dat|\.bsq|\.bil|\.bip)$|(?:\.safe)?(?:\.zip)?$",
    re.IGNORECASE,
)
"""Names of products hold dots that end nothing: ``HLS.S30.T10TEM.2023123T190911.v2.0``."""


def place_and_stem(scene: Path) -> tuple[Path, str]:
    """Folder and stem of the outputs of a scene where the user names none.

    Nothing goes into a product's own folder: outputs of a product folder, or of its metadata file, lie beside the
    folder and are called like it. Those of an address lie in the current folder.
    """
    if is_address(scene):
        return Path(), _stem(shown(scene).rstrip("/").rpartition("/")[2])
    if (zipped := _in_zip(scene)) is not None:
        return _outside(zipped.parent), _stem(scene.name)
    if os.path.isdir(scene):
        folder = scene if scene.name not in ("", "..") else scene.resolve()
        return _outside(folder.parent), _stem(folder.name)
    found = _METADATA_FILE.fullmatch(scene.name)
    folder = scene.parent if scene.parent.name not in ("", "..") else scene.parent.resolve()
    if found is None or (found["mtd"] is None and _holds_several(scene.parent)):
        name = scene.name if found is None else found["mtl"].rstrip("_") or scene.name
        return _outside(scene.parent), _stem(name)
    return _outside(folder.parent), _stem(folder.name)


def _in_zip(scene: Path) -> Path | None:
    """The zip file that a scene lies in by its name."""
    from geoseg_cli.scenes.zip_member import split_name

    found = split_name(scene)
    return None if found is None else found[0]


def _outside(folder: Path) -> Path:
    """The folder itself, or that around the Sentinel-2 product that it belongs to."""
    absolute = folder.absolute()
    for part in (absolute, *absolute.parents):
        if part.suffix.lower() == ".safe":
            return part.parent
        if part.name == "GRANULE" and any(_METADATA_FILE.fullmatch(name) for name in _names_in(part.parent)):
            return part.parent.parent
    return folder


def _names_in(folder: Path) -> list[str]:
    """Names of what lies in a folder; none where nobody may look."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _stem(name: str) -> str:
    return _KNOWN_ENDINGS.sub("", name) or name


def _holds_several(folder: Path) -> bool:
    """Whether a folder holds the MTL files of several scenes."""
    found = filter(None, map(_METADATA_FILE.fullmatch, _names_in(folder)))
    return len({match["mtl"].casefold() for match in found if match["mtl"] is not None}) > 1


def is_address(scene: Path) -> bool:
    from geoseg_cli.scenes.network import is_remote

    return is_remote(str(scene))


def shown(scene: Path) -> str:
    """A scene as messages and reports call it: addresses whole, and without what may be secret in them."""
    from geoseg_cli.scenes.network import redacted

    if not is_address(scene):
        return str(scene)
    # A path makes one slash of two; without both, a user's name and password are not found.
    return redacted(re.sub(r"^([a-z0-9]+):/{1,2}", r"\1://", str(scene)))


def is_product(folder: Path) -> bool:
    """Whether a folder is one scene: a known product, or one that is meant to be and cannot be read.

    A folder of several scenes is none.
    """
    from geoseg_cli.scenes import band_files

    return _is_named_product(folder) or _is_found(band_files.find, folder)


def _is_named_product(folder: Path) -> bool:
    """Whether the names of files in a folder, and not only their bands, tell that it is one product."""
    from geoseg_cli.scenes import aws_tile, hls, landsat, planetscope, safe

    if any(_is_found(find, folder) for find in (safe.find, aws_tile.find, landsat.find, hls.find)):
        return True
    # Scenes of other names may lie beside one of PlanetScope; its usable data masks (UDM) belong to it.
    rasters = [name for name in _names_in(folder) if name.lower().endswith(SCENE_SUFFIXES) and "udm" not in name]
    return len(rasters) == 1 and _is_found(planetscope.find, folder)


def _is_found(find: Callable[[Path], Product | None], path: Path) -> bool:
    try:
        return find(path.absolute()) is not None
    except GeosegError:
        return True  # opening it tells what is wrong, and the remedy


def scenes_in(folder: Path) -> list[Path]:
    """Scenes directly in a folder by name, without geoseg's own outputs."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and _is_scene(path))


def _is_scene(path: Path) -> bool:
    """Whether something in a folder of scenes is one of them."""
    from geoseg_cli.scenes import planetscope, safe

    if path.is_symlink() and not os.path.exists(path):
        # Opening it tells that what it points to is gone.
        return path.suffix.lower() in (*SCENE_SUFFIXES, ".safe", ".zip")
    if os.path.isfile(path):
        if path.suffix.lower() == ".zip":
            return _is_found(safe.find, path)
        is_named = path.suffix.lower() in SCENE_SUFFIXES and not path.stem.endswith(OUTPUT_STEMS)
        return is_named and not planetscope.is_mask(path.name)
    if path.suffix.lower() == ".safe":
        return os.path.isdir(path)
    # A folder that nobody may look into is not taken for a product.
    if not os.path.isdir(path) or not os.access(path, os.R_OK | os.X_OK):
        return False
    return _is_named_product(path)
