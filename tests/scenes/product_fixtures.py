"""Small products of many files, made by code, and a reader that turns any product into reflectance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.bundle import InputSpec
from geoseg_cli.grid import Window
from geoseg_cli.scenes.bands import match_bands
from geoseg_cli.scenes.product import Product
from geoseg_cli.scenes.stack import open_stack
from tests.conftest import write_scene

Groups = Mapping[str, Mapping[str, object]]

SIDE = 6
ELEVATION = 37.25

ALL_BANDS = {"OLI_TIRS": range(1, 12), "TM": range(1, 8), "ETM": (1, 2, 3, 4, 5, 7, 8)}
THERMAL = {"OLI_TIRS": (10, 11), "TM": (6,), "ETM": ()}
PREFIXES = {
    ("LANDSAT_4", "TM"): "LT04",
    ("LANDSAT_5", "TM"): "LT05",
    ("LANDSAT_7", "ETM"): "LE07",
    ("LANDSAT_8", "OLI_TIRS"): "LC08",
    ("LANDSAT_9", "OLI_TIRS"): "LC09",
}


@dataclass(frozen=True)
class Landsat:
    """A scene that was written.

    Attributes:
        folder: Where.
        numbers: (H, W) stored numbers by band number.
        mult, add: What the MTL file says of each band.
        quality: (H, W) stored numbers of the quality band.
    """

    folder: Path
    numbers: dict[int, npt.NDArray[Any]]
    mult: dict[int, float]
    add: dict[int, float]
    quality: npt.NDArray[Any]

    @property
    def mtl(self) -> Path:
        return next(self.folder.glob("*_MTL.*"))


def write_band(path: Path, plane: npt.NDArray[Any], **profile: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Writing over a band of Landsat, GDAL would take its MTL file for a part of it and delete both.
    path.unlink(missing_ok=True)
    return write_scene(path, plane[None], **profile)


def make_landsat(
    root: Path,
    craft: str = "LANDSAT_8",
    sensor: str = "OLI_TIRS",
    level: int = 2,
    kinds: Sequence[str] = ("txt",),
    collection: int = 2,
    elevation: float = ELEVATION,
    date: str = "20200614",
) -> Landsat:
    """Write a scene whose every band has its own numbers, factor and summand."""
    prefix = PREFIXES[craft, sensor]
    processed = "L2SP" if level == 2 else "L1TP"
    name = f"{prefix}_{processed}_198029_{date}_20200825_{collection:02}_T1"
    rng = np.random.default_rng(7)
    bands = ALL_BANDS[sensor] if level == 1 else [n for n in ALL_BANDS[sensor] if n <= 7 and n not in THERMAL[sensor]]
    stem = f"{name}_SR_B" if level == 2 else f"{name}_B"
    numbers = {band: rng.integers(7000, 40000, (SIDE, SIDE), dtype=np.uint16) for band in bands}
    for band, plane in numbers.items():
        write_band(root / f"{stem}{band}.TIF", plane)
    quality = np.full((SIDE, SIDE), 21824, np.uint16)
    quality_name = f"{name}_{'QA_PIXEL' if collection == 2 else 'BQA'}.TIF"
    write_band(root / quality_name, quality)
    reflective = [band for band in numbers if band not in THERMAL[sensor]]
    scale = 2.75e-5 if level == 2 else 2e-5
    mult = {band: scale * (1 + band / 100) for band in reflective}
    add = {band: (-0.2 if level == 2 else -0.1) - band / 1000 for band in reflective}
    groups = mtl_groups(craft, sensor, processed, {band: f"{stem}{band}.TIF" for band in numbers}, quality_name)
    groups["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"] = elevation
    rescaling = groups["LEVEL1_RADIOMETRIC_RESCALING"] if level == 1 else {}
    if level == 2:
        groups["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"] = rescaling
        groups["LEVEL1_RADIOMETRIC_RESCALING"] = {f"REFLECTANCE_MULT_BAND_{band}": 9.0 for band in reflective}
        groups["LEVEL1_PROCESSING_RECORD"] = {f"FILE_NAME_BAND_{band}": f"L1_B{band}.TIF" for band in range(1, 12)}
    for band in reflective:
        rescaling |= {f"REFLECTANCE_MULT_BAND_{band}": mult[band], f"REFLECTANCE_ADD_BAND_{band}": add[band]}
    if collection == 1:
        groups = as_collection_1(groups)
    for kind in kinds:
        write_mtl(root / f"{name}_MTL.{kind}", groups)
    return Landsat(root, numbers, mult, add, quality)


def mtl_groups(
    craft: str, sensor: str, level: str, files: Mapping[int, str], quality: str
) -> dict[str, dict[str, object]]:
    """Groups of a Collection 2 MTL file."""
    names: dict[str, object] = {f"FILE_NAME_BAND_{band}": file for band, file in files.items()}
    return {
        "PRODUCT_CONTENTS": {"PROCESSING_LEVEL": level, **names, "FILE_NAME_QUALITY_L1_PIXEL": quality},
        "IMAGE_ATTRIBUTES": {"SPACECRAFT_ID": craft, "SENSOR_ID": sensor},
        "LEVEL1_RADIOMETRIC_RESCALING": {"RADIANCE_MULT_BAND_1": 0.0129},
    }


def as_collection_1(groups: Groups) -> dict[str, dict[str, object]]:
    """The same under the names that Collection 1 gave to groups and keys."""
    contents = dict(groups["PRODUCT_CONTENTS"])
    contents["DATA_TYPE"] = contents.pop("PROCESSING_LEVEL")
    contents["FILE_NAME_BAND_QUALITY"] = contents.pop("FILE_NAME_QUALITY_L1_PIXEL")
    image = dict(groups["IMAGE_ATTRIBUTES"])
    contents |= {key: image.pop(key) for key in ("SPACECRAFT_ID", "SENSOR_ID")}
    return {
        "PRODUCT_METADATA": contents,
        "IMAGE_ATTRIBUTES": image,
        "RADIOMETRIC_RESCALING": dict(groups["LEVEL1_RADIOMETRIC_RESCALING"]),
    }


def write_mtl(path: Path, groups: Groups) -> Path:
    """Write an MTL file in the form that its ending names."""
    writers = {".txt": mtl_text, ".json": mtl_json, ".xml": mtl_xml}
    path.write_text(writers[path.suffix](groups), encoding="utf-8")
    return path


def mtl_text(groups: Groups) -> str:
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for name, group in groups.items():
        values = {key: f'"{value}"' if isinstance(value, str) else repr(value) for key, value in group.items()}
        lines += [f"  GROUP = {name}", *(f"    {key} = {value}" for key, value in values.items())]
        lines.append(f"  END_GROUP = {name}")
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])


def mtl_json(groups: Groups) -> str:
    return json.dumps({"LANDSAT_METADATA_FILE": {n: {k: str(v) for k, v in g.items()} for n, g in groups.items()}})


def mtl_xml(groups: Groups) -> str:
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<LANDSAT_METADATA_FILE>"]
    for name, group in groups.items():
        lines += [f"<{name}>", *(f"  <{key}>{value}</{key}>" for key, value in group.items()), f"</{name}>"]
    return "\n".join([*lines, "</LANDSAT_METADATA_FILE>"])


def spec_of(*bands: str) -> InputSpec:
    """What a network wants that needs these bands."""
    return InputSpec(bands, (), (0.0,) * len(bands), (1.0,) * len(bands))


def read_numbers(
    product: Product, *bands: str, gsd_m: float = 30.0
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_], tuple[int, ...]]:
    """(P, H, W) stored numbers of common bands, (H, W) validity, and the numbers of the layers, from 1."""
    names = [layer.name or None for layer in product.layers]
    match = match_bands(spec_of(*bands), names, None, str(product.path), product.sensor)
    stack = open_stack(product, match.held_numbers, gsd_m)
    try:
        pixels, valid = stack.read(Window(0, 0, stack.grid.height, stack.grid.width))
    finally:
        stack.close()
    return pixels, valid, match.held_numbers


def read_reflectance(
    product: Product, *bands: str, gsd_m: float = 30.0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(P, H, W) reflectance of common bands by what the product states, and (H, W) validity."""
    pixels, valid, layers = read_numbers(product, *bands, gsd_m=gsd_m)
    assert product.statement is not None
    scales = np.array([product.statement.scales[number - 1] for number in layers], np.float64)
    offsets = np.array([product.statement.offsets[number - 1] for number in layers], np.float64)
    return pixels * scales[:, None, None] + offsets[:, None, None], valid
