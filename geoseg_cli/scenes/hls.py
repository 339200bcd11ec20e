"""Harmonized Landsat Sentinel-2 (HLS) version 2: one GeoTIFF per band, all of one name but for its end.

Scale, fill and names are those of the HLS product user guide, version 2. The same name means different bands in L30
and S30, so the product name decides.
"""

from __future__ import annotations

import re
from pathlib import Path

from geoseg_cli.catalog import sensors
from geoseg_cli.errors import InputError
from geoseg_cli.scenes.band_files import driver_of, is_thermal_or_pan, member_file, names_in
from geoseg_cli.scenes.product import Layer, Product, Quality, Statement

SCALE = 1e-4
"""Reflectance per stored number."""

NODATA = -9999
FMASK_FILL = 255

_PREFIX = r"(?P<prefix>HLS\.(?P<kind>[LS]30)\.T\w{5}\.\d{7}T\d{6}\.v2\.\d+)"
_FILE = re.compile(_PREFIX + r"\.(?P<part>B\d[\dA]|Fmask)\.tif", re.IGNORECASE)
_ANY_FILE = re.compile(_PREFIX + r"(?:\..*)?", re.IGNORECASE)


def find(path: Path) -> Product | None:
    """Describe an HLS scene.

    Args:
        path: Absolute path of a folder, of its metadata file, or of the common prefix of its files
            (``.../HLS.S30.T10TEM.2023123T190911.v2.0``).

    Returns:
        None where it is none.

    Raises:
        InputError: The folder holds several scenes, or a file of the scene is a link that leads out of it.
        AccessError: The folder may not be read.
    """
    if path.is_dir():
        return _of_folder(path, path, None)
    named = _ANY_FILE.fullmatch(path.name)
    # A band's own file is a scene of one file, which is another layout.
    if named is None or driver_of(path) is not None or not path.parent.is_dir():
        return None
    return _of_folder(path, path.parent, named["prefix"])


def _of_folder(path: Path, folder: Path, prefix: str | None) -> Product | None:
    found = [match for match in map(_FILE.fullmatch, names_in(folder)) if match and prefix in (None, match["prefix"])]
    bands = {match["part"].upper(): match for match in found if match["part"].upper().startswith("B")}
    if not bands:
        return None
    prefixes = sorted({match["prefix"] for match in found})
    if len(prefixes) > 1:
        raise InputError(
            f"{folder} holds several HLS scenes: {prefixes[0]} and {prefixes[1]}",
            f"give one of them: {folder / prefixes[0]}",
        )
    kind = next(iter(bands.values()))["kind"].upper()
    sensor = f"hls-{kind.lower()}"
    wanted = [name for name in bands if sensors()[sensor].find(name) and not is_thermal_or_pan(name, sensor)]
    if not wanted:
        raise InputError(f"{folder} holds no reflectance band of {prefixes[0]}", "download its other bands too")
    files = {name: member_file(folder, bands[name].group(), "a link in it") for name in wanted}
    layers = tuple(Layer(name, str(file), nodata=NODATA) for name, file in files.items())
    quality = _fmask(folder, [match.group() for match in found if match["part"].lower() == "fmask"])
    members = (*files.values(), *([Path(quality.layer.file)] if quality else []))
    warnings = () if quality else (f"{prefixes[0]}.Fmask.tif is not there: only fill numbers tell lost pixels",)
    return Product(f"HLS {kind} folder", path, layers, sensor, _statement(len(layers)), quality, members, "", warnings)


def _statement(count: int) -> Statement:
    reason = f"{SCALE:g} x DN, as the HLS user guide says of all version 2 products"
    return Statement("product", reason, (SCALE,) * count, (0.0,) * count)


def _fmask(folder: Path, names: list[str]) -> Quality | None:
    if not names:
        return None
    layer = Layer("Fmask", str(member_file(folder, names[0], "a link in it")), nodata=None)
    return Quality(layer, (FMASK_FILL,), 0, f"fill number {FMASK_FILL} of Fmask")
