"""The images that bundles are measured on, beside simulated scenes that no training has seen.

Every source says what its truth is worth. Nothing here may choose, tune or calibrate weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import NODATA, sensors
from geoseg_cli.training.bundle_recipes import TEST_SEED, BundleRecipe, SceneMaker, scene_options
from geoseg_cli.training.chips import DN_NODATA, DN_PER_REFLECTANCE, Chip, values_from_targets
from geoseg_cli.training.real_chips import eurosat_chips, eurosat_tile_classes

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

GERMAN_CLASSES = {
    "ConiferousForest": 10, "DeciduousForest": 10, "MixedForest": 10, "Grassland": 30, "PlantedFields": 40,
    "Industrial": 50, "Settlement": 50, "Urban": 50, "Water": 80, "OpenSoil": 60,
}  # fmt: skip
SOIL_ALSO = (40,)
"""Ploughed fields are bare to the eye and cropland to WorldCover: both are right."""
ESRI_CLASSES = {
    "water": 80,
    "trees": 10,
    "crops": 40,
    "built_area": 50,
    "bare_ground": 60,
    "snow_ice": 70,
    "rangeland": 30,
}
POLYGON_ROWS, POLYGON_COLUMNS, POLYGON_PATCH_PX = 10, 20, 64


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One image with its truth; equal to itself alone.

    Attributes:
        source: Which set it belongs to.
        unit: What is independent of the other cases: chip, polygon, tile, scene.
        bands: Common names of its P bands.
        reflectance: (P, H, W) float32.
        valid: (H, W) bool.
        truth: (H, W) uint8 class values, 255 unknown.
        part: What the figures of the source are split by, a city or a sensor; empty where by nothing.
        place: Names the ground where several sources show the same.
        also_right: Class values that are as right as the truth, wherever it is known.
    """

    source: str
    unit: str
    bands: tuple[str, ...]
    reflectance: FloatArray
    valid: BoolArray
    truth: UInt8Array
    part: str = ""
    place: str = ""
    also_right: tuple[int, ...] = ()


NOTES = {
    "simulated": "Scenes of the simulator as it was when this was measured, of seeds that no training uses: agreement"
    " with our own physics, not with the world.",
    "eurosat": "EuroSAT tiles set apart from training (the last 3 of 16 per class); the same sensor and continent as"
    " those that were trained on. Pixels are judged where a simple rule makes them certain.",
    "eurosat-tiles": "The same tiles: the most frequent class of a tile against its label. Road and river tiles have"
    " none.",
    "germany": "Drawn polygons of 200 pixels each, Sentinel-2 L1C, 3 cities, six classes: forest, grassland, planted"
    " fields, built-up, water and open soil, which is the row called bare. Open soil means ploughed fields, which"
    " WorldCover calls cropland and which look bare: there both answers are right. The pixels have no neighbours: those"
    " of a polygon are laid out in a 10 x 20 block amid copies of themselves, so no texture and no context is real.",
    "terramesh-l1c": "3 chips of 224 px with a coarse map product (ESRI land cover) as truth, which misplaces shores,"
    " calls dark forest snow and savanna crops. Sentinel-2 L1C.",
    "terramesh-l2a": "The same 3 chips as surface reflectance.",
    "terramesh-levels": "The same 3 chips: the share of the pixels that are called the same at both levels.",
    "oncloudn": "3 chips of 512 px, Sentinel-2 L2A, blue, green, red and near infrared only; blobby masks, about a"
    " tenth wrong by eye; cloud shadow counts as clear in the truth, and so it does here.",
    "cs12-scribbles": "5 dates of one place, Sentinel-2 L1C, blue, green and red only; scribbles of people on some of"
    " the pixels, one of the five wholly clear.",
    "cs12-clear": "2 clear images, one of bright ground, blue, green and red only: what is called cloud is a false"
    " alarm.",
    "terramesh-clear-l1c": "The 3 TerraMesh chips, Sentinel-2 L1C, clear by eye and by their labels, one of them snow:"
    " false alarms.",
    "terramesh-clear-l2a": "The same 3 chips as surface reflectance: false alarms.",
    "eurosat-clear": "EuroSAT tiles set apart from training, all clear: false alarms.",
}  # fmt: skip


def land_cover_cases(recipe: BundleRecipe, data: Path, scenes: int) -> list[Case]:
    """All cases for a land-cover bundle; ``scenes`` simulated ones."""
    validation = data / "validation"
    return [
        *_simulated(recipe, data, scenes),
        *_eurosat(data),
        *_germany(validation),
        *_terramesh(validation, "l1c", ESRI_CLASSES, "terramesh-l1c"),
        *_terramesh(validation, "l2a", ESRI_CLASSES, "terramesh-l2a"),
    ]


def cloud_cases(recipe: BundleRecipe, data: Path, scenes: int) -> list[Case]:
    """All cases for a cloud bundle; ``scenes`` simulated ones."""
    validation = data / "validation"
    return [
        *_simulated(recipe, data, scenes),
        *_oncloudn(validation),
        *_scribbles(validation),
        *_clear_rgb(validation),
        *_terramesh(validation, "l1c", None, "terramesh-clear-l1c"),
        *_terramesh(validation, "l2a", None, "terramesh-clear-l2a"),
        *(
            from_chip(chip, "eurosat-clear", "tile", np.zeros(chip.target.shape, np.uint8))
            for chip in eurosat_chips(data / "training", "test", "cloud")
        ),
    ]


def _simulated(recipe: BundleRecipe, data: Path, scenes: int) -> Iterator[Case]:
    make = SceneMaker(recipe.name, data / "training")
    for number in range(scenes):
        chip = make(TEST_SEED + number)
        sensor = scene_options(recipe.task, TEST_SEED + number, recipe.spec.required).sensor
        yield from_chip(chip, "simulated", "scene", values_from_targets(chip.target, recipe.legend.values), sensor)


def _eurosat(data: Path) -> Iterator[Case]:
    training, values = data / "training", (10, 30, 40, 50, 60, 70, 80)
    chips = eurosat_chips(training, "test", "land-cover")
    for chip, tile_class in zip(chips, eurosat_tile_classes(training, "test"), strict=True):
        yield from_chip(chip, "eurosat", "tile", values_from_targets(chip.target, values))
        if tile_class:
            yield from_chip(chip, "eurosat-tiles", "tile", np.full(chip.target.shape, tile_class, np.uint8))


def from_chip(chip: Chip, source: str, unit: str, truth: UInt8Array, part: str = "") -> Case:
    """A case of the bands that a chip has."""
    present = [place for place in range(len(chip.bands)) if (chip.dn[place] != DN_NODATA).any()]
    dn = chip.dn[present]
    valid = (dn != DN_NODATA).all(axis=0)
    reflectance = np.where(valid, dn, 0).astype(np.float32) / np.float32(DN_PER_REFLECTANCE)
    return Case(source, unit, tuple(chip.bands[place] for place in present), reflectance, valid, truth, part)


def _germany(validation: Path) -> Iterator[Case]:
    with np.load(validation / "germany_s2_pixels.npz") as data:
        dn, label, polygon = data["dn"], data["label"], data["polygon_id"]
        region, names = data["region"], [str(name) for name in data["label_names"]]
        bands = _common_names(data["bands"])
    rng = np.random.default_rng(0)
    for place, number in sorted({(str(r), int(p)) for r, p in zip(region, polygon, strict=True)}):
        rows = np.flatnonzero((polygon == number) & (region == place))
        for value in np.unique(label[rows]):
            chosen = rows[label[rows] == value]
            if len(chosen) == POLYGON_ROWS * POLYGON_COLUMNS:
                yield polygon_case(dn[chosen], names[value], place, bands, rng)


def polygon_case(dn: npt.NDArray[Any], name: str, city: str, bands: tuple[str, ...], rng: np.random.Generator) -> Case:
    """Lay 200 pixels (200, P) out as a block in the middle of a patch filled with copies of them."""
    filled = dn[rng.integers(len(dn), size=POLYGON_PATCH_PX**2)].reshape(POLYGON_PATCH_PX, POLYGON_PATCH_PX, -1)
    top, left = (POLYGON_PATCH_PX - POLYGON_ROWS) // 2, (POLYGON_PATCH_PX - POLYGON_COLUMNS) // 2
    block = np.s_[top : top + POLYGON_ROWS, left : left + POLYGON_COLUMNS]
    filled[block] = dn.reshape(POLYGON_ROWS, POLYGON_COLUMNS, -1)
    truth = np.full((POLYGON_PATCH_PX, POLYGON_PATCH_PX), NODATA, np.uint8)
    truth[block] = GERMAN_CLASSES[name]
    reflectance = np.moveaxis(filled, -1, 0).astype(np.float32) / np.float32(1e4)
    also_right = SOIL_ALSO if name == "OpenSoil" else ()
    return Case("germany", "polygon", bands, reflectance, np.ones(truth.shape, bool), truth, city, "", also_right)


def _terramesh(validation: Path, level: str, classes: dict[str, int] | None, source: str) -> Iterator[Case]:
    """TerraMesh chips of a level; without ``classes`` every pixel is clear."""
    for path in sorted(validation.glob("terramesh_*.npz")):
        with np.load(path) as data:
            scaled = data[f"{level}_dn"] * float(data[f"{level}_scale"]) + float(data[f"{level}_offset"])
            names = [str(name) for name in data["label_names"]]
            table = np.array([0 if classes is None else classes.get(name, NODATA) for name in names], np.uint8)
            truth, bands = table[data["label"]], _common_names(data[f"{level}_bands"])
        yield Case(source, "chip", bands, scaled.astype(np.float32), np.ones(truth.shape, bool), truth, place=path.stem)


def _oncloudn(validation: Path) -> Iterator[Case]:
    for path in sorted(validation.glob("oncloudn_*.npz")):
        with np.load(path) as data:
            reflectance, bands = data["dn"].astype(np.float32) / np.float32(1e4), _common_names(data["bands"])
            truth = data["label"].astype(np.uint8)
        yield Case("oncloudn", "chip", bands, reflectance, np.ones(truth.shape, bool), truth)


def _scribbles(validation: Path) -> Iterator[Case]:
    for path in sorted(validation.glob("cs12rgb_ROI_2507_*.npz")):
        with np.load(path) as data:
            table = np.full(256, NODATA, np.uint8)
            table[data["label_sc_ids"]] = data["label_sc_to_hq"]
            yield _rgb_case("cs12-scribbles", data["dn"], data["bands"], table[data["label_sc"]])


def _clear_rgb(validation: Path) -> Iterator[Case]:
    for place in ("2507", "4683"):
        with np.load(validation / f"cs12rgb_ROI_{place}_clear.npz") as data:
            yield _rgb_case("cs12-clear", data["dn"], data["bands"], np.zeros(data["dn"].shape[1:], np.uint8))


def _rgb_case(source: str, dn: npt.NDArray[Any], bands: npt.NDArray[Any], truth: UInt8Array) -> Case:
    reflectance = dn.astype(np.float32) / np.float32(1e4)
    return Case(source, "image", _common_names(bands), reflectance, np.ones(truth.shape, bool), truth)


def _common_names(bands: npt.NDArray[Any]) -> tuple[str, ...]:
    """Common names of Sentinel-2 bands."""
    found = [sensors()["sentinel-2"].find(str(band)) for band in bands]
    assert all(band is not None for band in found)
    return tuple(band.common[0] for band in found if band is not None)
