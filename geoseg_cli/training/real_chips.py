"""Permissively licensed real images with labels, read as chips.

What the labels of each file are worth stands with its reader: none of them was made for our legends.

Axes: P bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import sensors
from geoseg_cli.errors import InputError, InputMissingError
from geoseg_cli.training.chips import DN_NODATA, LAND_VALUES, Chip, FloatArray, UInt8Array

EUROSAT_FILE: Final = "eurosat_ms_tiles.npz"
ONTARIO_FILE: Final = "ontario_landsat_blocks.npz"
ALBERTA_FILE: Final = "alberta_s2_scl.npz"
EUROSAT_PARTS: Final = {"train": (0, 11), "develop": (11, 13), "test": (13, 16), "fit": (0, 8), "check": (8, 13)}
"""Part -> first and last (not included) of the 16 tiles of each class, in the order of the file."""
UKIS_FILES: Final = ("ukis_landsat5_cloud.npz", "ukis_landsat7_cloud.npz")

_TREE, _GRASS, _CROP, _BUILT, _BARE, _WATER = (1 << LAND_VALUES.index(value) for value in (10, 30, 40, 50, 60, 80))
_DRY_LAND = _TREE | _GRASS | _CROP | _BUILT | _BARE
_CLEAR, _THICK, _THIN, _SHADOW = (1 << place for place in range(4))
_CLOUD = _THICK | _THIN


def eurosat_chips(folder: Path, part: str, task: str, variants: int = 0) -> list[Chip]:
    """Read EuroSAT tiles: 64 x 64 px, Sentinel-2 L1C, cloud-free, one label per tile.

    The label of a tile does not hold for each of its pixels, so greenness and wetness narrow it: vegetation inside a
    town may be trees or grass as well as town, and river and road tiles only say where water is.

    Args:
        folder: The training folder.
        part: ``train``, ``develop`` (chooses the best weights) or ``test`` (never seen before the report), or for
            trials ``fit`` and ``check``, which divide the first two; see `EUROSAT_PARTS`.
        task: ``land-cover``, or ``cloud``: every pixel is clear.
        variants: Chips to add per tile in which its bands are brought towards those of another tile of its label, see
            `towards`: so few tiles show but a few of the colours that lie between theirs.

    Returns:
        One chip per tile, and after all of them their variants.
    """
    data = _arrays(folder / EUROSAT_FILE, ("dn", "label", "label_names", "bands"))
    names = [str(name) for name in data["label_names"]]
    bands = tuple(_common_name(str(band)) for band in data["bands"])
    dn = np.minimum(data["dn"], 32767).astype(np.int16)
    chips = []
    for index in _eurosat_part(data["label"], part):
        tile = dn[index]
        if task == "cloud":
            target = np.full(tile.shape[1:], _CLEAR, np.uint8)
        else:
            target = _eurosat_target(names[data["label"][index]], dict(zip(bands, tile / np.float32(1e4), strict=True)))
        chips.append(Chip("eurosat", bands, tile, target))
    return chips + _variants(chips, data["label"][_eurosat_part(data["label"], part)], variants)


def towards(chip: Chip, other: Chip, share: float) -> Chip:
    """The chip with each band scaled so that its mean goes ``share`` (0 to 1) of the way to the other's, in logarithms.

    Texture, order of the pixels and targets stay; ratios of neighbouring pixels stay as well.
    """
    own, aim = (np.maximum(one.dn.mean(axis=(1, 2), dtype=np.float64), 1.0) for one in (chip, other))
    dn = np.clip(chip.dn * ((aim / own) ** share)[:, None, None], 0, 32767)
    return replace(chip, dn=dn.astype(np.int16))


def _variants(chips: Sequence[Chip], labels: npt.NDArray[Any], count: int) -> list[Chip]:
    """``count`` variants of each chip, the same in every run."""
    rng = np.random.default_rng(16)
    made = []
    for place, chip in enumerate(chips):
        alike = np.flatnonzero(labels == labels[place])
        for other in rng.choice(alike, count):
            made.append(towards(chip, chips[int(other)], float(rng.uniform(0.1, 0.8))))
    return made


def eurosat_tile_classes(folder: Path, part: str) -> list[int]:
    """WorldCover value of each tile that ``eurosat_chips`` returns; 0 for road and river tiles, which have none."""
    data = _arrays(folder / EUROSAT_FILE, ("label", "label_names"))
    names = [str(name) for name in data["label_names"]]
    return [_EUROSAT_VALUE.get(names[data["label"][index]], 0) for index in _eurosat_part(data["label"], part)]


_EUROSAT_VALUE: Final = {
    "AnnualCrop": 40, "PermanentCrop": 40, "Forest": 10, "HerbaceousVegetation": 30, "Pasture": 30,
    "Industrial": 50, "Residential": 50, "SeaLake": 80,
}  # fmt: skip


def _eurosat_part(label: UInt8Array, part: str) -> list[int]:
    """Indices of the tiles of a part, class by class."""
    span = slice(*EUROSAT_PARTS[part])
    return [int(index) for value in np.unique(label) for index in np.flatnonzero(label == value)[span]]


def _eurosat_target(name: str, reflectance: dict[str, FloatArray]) -> UInt8Array:
    """What each pixel of a tile called ``name`` may be: (H, W) uint8 targets."""
    ndvi = _index(reflectance["nir"], reflectance["red"])
    wet = (_index(reflectance["green"], reflectance["swir16"]) > 0.2) & (reflectance["nir"] < 0.12)
    # Between shore and plant a 10 m pixel is a mixture; nobody knows its label.
    dry = ~wet & (ndvi > 0.15)
    match name:
        case "SeaLake":
            return np.where(wet, _WATER, 0).astype(np.uint8)
        case "River" | "Highway":
            return np.where(wet, _WATER, np.where(dry, _DRY_LAND, 0)).astype(np.uint8)
        case "Forest":
            return np.where(ndvi > 0.5, _TREE, 0).astype(np.uint8)
        case "HerbaceousVegetation" | "Pasture":
            return np.where(ndvi > 0.25, _GRASS, np.where(wet, 0, _GRASS | _BARE)).astype(np.uint8)
        case "Industrial" | "Residential":
            return np.where(wet, 0, np.where(ndvi < 0.45, _BUILT, _BUILT | _TREE | _GRASS)).astype(np.uint8)
        case _:
            return np.where(wet, 0, _CROP).astype(np.uint8)


def ontario_chips(folder: Path) -> list[Chip]:
    """Read Landsat surface reflectance blocks of boreal Ontario with a forest inventory: 256 x 256 px, 30 m.

    Only codes with a clear meaning are used. Rock carries a mean NDVI of 0.72 in this file, so it is called rock,
    grass or trees; water and forest must also look like it, because the inventory is older than the images.

    Returns:
        One land-cover chip per block.
    """
    data = _arrays(folder / ONTARIO_FILE, ("dn", "label", "label_names", "valid", "fill"))
    names = [str(name) for name in data["label_names"]]
    bands = ("blue", "green", "red", "nir", "swir16", "swir22")
    meaning = {
        "FOR_OLD": _TREE,
        "TMS": _TREE,
        "GRS": _GRASS,
        "DAL": _CROP,
        "WAT": _WATER,
        "RCK": _BARE | _GRASS | _TREE,
    }
    table = np.array([meaning.get(name, 0) for name in names], np.uint8)
    chips = []
    for dn, label, valid in zip(data["dn"], data["label"], data["valid"], strict=True):
        seen = (valid == 1) & (dn != data["fill"]).all(axis=0)
        reflectance = np.where(seen, dn, 0) / np.float32(1e4)
        target = np.where(seen, table[label], 0).astype(np.uint8)
        ndvi = _index(reflectance[3], reflectance[2])
        target[(target == _TREE) & (ndvi < 0.5)] = 0
        target[(target == _WATER) & (reflectance[3] > 0.1)] = 0
        chips.append(Chip("ontario", bands, np.where(seen, dn, DN_NODATA).astype(np.int16), target))
    return chips


def ukis_chips(folder: Path) -> list[Chip]:
    """Read two Landsat-5 and -7 images with hand-drawn clouds: 512 x 512 px, 30 m, top-of-atmosphere.

    The masks are sharp and have no thin class, so a cloud pixel may be thick or thin. The blue of both files stops
    at the sensor's saturation.

    Returns:
        Two cloud chips.
    """
    chips = []
    for file in UKIS_FILES:
        data = _arrays(folder / file, ("dn", "label", "bands"))
        table = np.array([_SHADOW, _CLEAR, _CLEAR, _CLEAR, _CLOUD], np.uint8)
        bands = tuple(str(band) for band in data["bands"])
        chips.append(Chip("ukis", bands, data["dn"].astype(np.int16), table[data["label"]]))
    return chips


def alberta_chips(folder: Path) -> list[Chip]:
    """Read the Sentinel-2 L2A scene of Alberta with its automatic scene classes: 1697 x 1284 px, 12 m.

    Sen2Cor and s2cloudless, two automatic methods, stand in for a person: a pixel is used where they agree. Sen2Cor
    calls a bright tailings pond cirrus; s2cloudless knows that it is clear, and cirrus is not used at all.

    Returns:
        One cloud chip.
    """
    data = _arrays(folder / ALBERTA_FILE, ("dn", "label", "cloud_prob_255", "bands"))
    scene_class, probability = data["label"], data["cloud_prob_255"]
    target = np.zeros(scene_class.shape, np.uint8)
    target[np.isin(scene_class, (4, 5, 6)) & (probability < 64)] = _CLEAR
    target[np.isin(scene_class, (8, 9)) & (probability >= 128)] = _CLOUD
    target[(scene_class == 3) & (probability < 128)] = _SHADOW
    bands = tuple(_common_name(str(band)) for band in data["bands"])
    return [Chip("alberta", bands, np.minimum(data["dn"], 32767).astype(np.int16), target)]


def _index(first: FloatArray, second: FloatArray) -> FloatArray:
    """Normalised difference, -1 to 1."""
    total = first + second
    return ((first - second) / np.where(np.abs(total) < 1e-4, 1e-4, total)).astype(np.float32)


def _common_name(band: str) -> str:
    found = sensors()["sentinel-2"].find(band)
    assert found is not None
    return found.common[0]


def _arrays(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an NPZ file without pickled objects.

    Raises:
        InputMissingError: There is no such file.
        InputError: An array is missing.
    """
    if not path.is_file():
        raise InputMissingError(f"no training file {path}", "pass the folder that holds the training files")
    with np.load(path, allow_pickle=False) as file:
        missing = sorted(set(names) - set(file.files))
        if missing:
            raise InputError(f"{path} has no array {', '.join(missing)}", "use the published training files")
        return {name: file[name] for name in names}
