"""The recipes of the shipped bundles: network, bands, classes, what to learn from and how.

Trained from scratch on simulated scenes and on permissively licensed real samples. Everything that decides a bundle
stands here, except the seed and the time that it was given.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final, Literal

import numpy as np

from geoseg_cli.bundle import InputSpec
from geoseg_cli.catalog import Legend, legends
from geoseg_cli.errors import UsageError
from geoseg_cli.training.augment import AugmentOptions, Source, whole_sample
from geoseg_cli.training.chips import CLOUD_VALUES, LAND_VALUES, Chip, simulated_chip
from geoseg_cli.training.loop import TrainOptions, ValidationSet
from geoseg_cli.training.pool import ScenePool
from geoseg_cli.training.real_chips import alberta_chips, eurosat_chips, ontario_chips, ukis_chips
from geoseg_cli.training.simulate import SimulatorOptions, simulate_scene
from geoseg_cli.training.spectra import SpectralLibrary

Task = Literal["land-cover", "cloud"]

TRAIN_SEED: Final = 1_000_000
DEVELOP_SEED: Final = 900_000_000
TEST_SEED: Final = 800_000_000
"""Seeds of simulated scenes: chip i of a part has the part's first seed plus i. The parts never meet."""
SHARES: Final[dict[Task, dict[str, float]]] = {
    "land-cover": {"simulated": 0.50, "eurosat": 0.42, "ontario": 0.08},
    "cloud": {"simulated": 0.72, "eurosat": 0.10, "ukis": 0.12, "alberta": 0.06},
}
"""Share of the samples that each source gives."""
PROVENANCE: Final = {
    "simulated": ("scenes simulated from measured spectra (ECOSTRESS, earthlib)", "Apache-2.0, MIT (the spectra)"),
    "eurosat": ("EuroSAT tiles, Sentinel-2 L1C, 11 of each 16 per class", "MIT; Copernicus Sentinel data"),
    "ontario": ("Landsat blocks with a forest inventory, boreal Ontario", "Apache-2.0 (Crown copyright Ontario); USGS"),
    "ukis": ("Landsat 5 and 7 scenes with hand-drawn cloud masks (ukis-csmask)", "Apache-2.0; USGS"),
    "alberta": ("one Sentinel-2 L2A scene, where Sen2Cor and s2cloudless agree", "Copernicus Sentinel data"),
}
"""Source -> what it is, and its licence."""
SCENE_PX: Final = 256
DEVELOP_SCENES: Final = 40


@dataclass(frozen=True, slots=True)
class BundleRecipe:
    """How one bundle is made.

    Attributes:
        name: Name of the bundle.
        task: What it maps.
        title, description, architecture: What a person reads.
        limits: What the bundle was not made for or not measured on.
        network: Name in ``geoseg_cli.networks``.
        spec: Input contract. Means and deviations were measured on 150 simulated and all real training chips.
        legend: Classes in the order of the outputs.
        gsd_m: Ground sampling distance that the bundle is for.
        tile_px, overlap_px, size_multiple: Tiling that the bundle asks for.
        augment, train: How to disturb the samples and how to train.
    """

    name: str
    task: Task
    title: str
    description: str
    architecture: str
    limits: tuple[str, ...]
    network: str
    spec: InputSpec
    legend: Legend
    gsd_m: float
    tile_px: int
    overlap_px: int
    size_multiple: int
    augment: AugmentOptions
    train: TrainOptions


@dataclass(frozen=True, slots=True)
class SceneMaker:
    """Makes the simulated chip of a seed; can be sent to another process.

    Attributes:
        recipe: Name of the recipe.
        spectra: Folder of the spectral tables.
    """

    recipe: str
    spectra: Path

    def __call__(self, seed: int) -> Chip:
        """Simulate the scene of ``seed`` and keep the recipe's bands."""
        recipe = recipe_named(self.recipe)
        options = scene_options(recipe.task, seed)
        scene = simulate_scene(_library(self.spectra), options, seed)
        return simulated_chip(scene, recipe.task, recipe.spec.bands, options.level == "L1C")

    def fingerprint(self) -> str:
        """Eight hex digits that change with the simulator, so that no pool mixes scenes of two versions of it."""
        chip = self(TRAIN_SEED)
        return hashlib.sha256(chip.dn.tobytes() + chip.target.tobytes()).hexdigest()[:8]


def recipe_named(name: str) -> BundleRecipe:
    """Look a recipe up.

    Raises:
        UsageError: There is no such recipe.
    """
    recipes = {recipe.name: recipe for recipe in (_land_cover(), _cloud())}
    if name not in recipes:
        raise UsageError(f"no recipe is called {name!r}", f"use one of {', '.join(recipes)}")
    return recipes[name]


def scene_options(task: Task, seed: int) -> SimulatorOptions:
    """What the simulator draws for a seed: half surface and half top-of-atmosphere reflectance, several pixel sizes.

    Three of four land-cover scenes are cloud-free, as the scenes are that people map; the others teach that haze and
    shadow do not change the ground. Clouds are drawn at Sentinel-2's and Landsat's pixel sizes.
    """
    rng = np.random.default_rng((seed, 1))
    level: Literal["L1C", "L2A"] = "L1C" if rng.random() < 0.5 else "L2A"
    is_edge = bool(rng.random() < 0.08)
    if task == "cloud":
        gsd_m = float(rng.choice([10, 20, 30], p=[0.65, 0.1, 0.25]))
        return SimulatorOptions(SCENE_PX, SCENE_PX, gsd_m, level, "random", nodata_edge=is_edge)
    gsd_m = float(rng.choice([5, 10, 15, 20, 30], p=[0.1, 0.5, 0.15, 0.1, 0.15]))
    options = SimulatorOptions(SCENE_PX, SCENE_PX, gsd_m, level, "clear", nodata_edge=is_edge)
    return options if rng.random() < 0.75 else replace(options, clouds="random")


def sources(recipe: BundleRecipe, training: Path, pool: ScenePool) -> list[Source]:
    """Everything that a recipe learns from.

    Args:
        recipe: The recipe.
        training: Folder of the real training files.
        pool: Simulated chips.

    Returns:
        The simulated chips and the real ones, with their shares of the samples.
    """
    share = SHARES[recipe.task]
    eurosat = eurosat_chips(training, "train", recipe.task)
    common = [
        Source(pool, share=share["simulated"], zoom=(0.7, 1.5)),
        Source(eurosat, share=share["eurosat"], zoom=(0.5, 2.0), is_mosaic=True),
    ]
    if recipe.task == "land-cover":
        return [*common, Source(ontario_chips(training), share=share["ontario"], zoom=(0.5, 1.2))]
    # Drawn by hand but generously; and drawn by two programs that can be wrong together.
    ukis = Source(ukis_chips(training), share=share["ukis"], weight=0.5, zoom=(0.5, 1.5))
    alberta = Source(alberta_chips(training), share=share["alberta"], weight=0.3, zoom=(0.6, 3.0))
    return [*common, ukis, alberta]


def data_table(recipe: BundleRecipe) -> list[list[str]]:
    """What a card says of the data: rows of description, share of the samples, licence."""
    rows = [(*PROVENANCE[name], share) for name, share in SHARES[recipe.task].items()]
    return [[title, f"{share:.0%}", licence] for title, licence, share in rows]


def validation_sets(recipe: BundleRecipe, training: Path, spectra: Path) -> list[ValidationSet]:
    """What chooses the best weights: simulated scenes of their own seeds, and the EuroSAT tiles set apart for it."""
    make = SceneMaker(recipe.name, spectra)
    simulated = [make(DEVELOP_SEED + number) for number in range(DEVELOP_SCENES)]
    real = eurosat_chips(training, "develop", recipe.task)
    return [
        ValidationSet("simulated", [whole_sample(chip, recipe.spec) for chip in simulated]),
        ValidationSet("eurosat", [whole_sample(chip, recipe.spec) for chip in real]),
    ]


@cache
def _library(folder: Path) -> SpectralLibrary:
    return SpectralLibrary.load(folder)


def _land_cover() -> BundleRecipe:
    return BundleRecipe(
        name="landcover-lale",
        task="land-cover",
        title="Land cover from Sentinel-2 or Landsat reflectance",
        description=(
            "Seven ESA WorldCover classes from blue, green, red and near infrared, and better with the short-wave"
            " infrared. Trained from scratch on simulated scenes and a few real samples; takes top-of-atmosphere and"
            " surface reflectance."
        ),
        architecture="LALE-S1 (arXiv 2606.02092)",
        limits=(
            "Shrubland, wetland, mangroves and moss are not among the classes: they come out as what they resemble.",
            "Clouds are not a class: mask them, or the land cover below and beside them is a guess.",
            "The real samples come from Europe and boreal Ontario; other regions rest on simulated scenes alone.",
            "Grassland, cropland and bare ground of one date look alike; they are confused more than other classes.",
        ),
        network="lale-s1",
        spec=InputSpec(
            bands=("blue", "green", "red", "nir", "swir16", "swir22"),
            optional=("swir16", "swir22"),
            mean=(0.12, 0.13, 0.12, 0.26, 0.18, 0.12),
            stddev=(0.13, 0.13, 0.14, 0.14, 0.11, 0.09),
        ),
        legend=legends()["esa-worldcover"].subset(LAND_VALUES),
        gsd_m=10.0,
        tile_px=256,
        overlap_px=64,
        size_multiple=32,
        # Real tiles are few and drawn often: disturbed strongly, lest they are learned by heart.
        augment=AugmentOptions(gain=0.15, band_gain=0.06, offset=0.015, band_sets=((), ("swir16", "swir22"))),
        train=TrainOptions(learning_rate=2e-3),
    )


def _cloud() -> BundleRecipe:
    return BundleRecipe(
        name="cloud-mscloudcam",
        task="cloud",
        title="Clouds and their shadows from Sentinel-2 or Landsat reflectance",
        description=(
            "Clear, thick cloud, thin cloud and cloud shadow from blue, green and red, and better with each further"
            " band. Trained from scratch on simulated scenes and a few real samples; takes top-of-atmosphere and"
            " surface reflectance."
        ),
        architecture="MSCloudCAM, small (after arXiv 2510.10802)",
        limits=(
            "Thick and thin are split at an optical depth in the simulated scenes; real samples knew no thin cloud.",
            "Snow, bright sand and white roofs may be called cloud, above all without the short-wave infrared.",
            "Shadows of terrain and of buildings, and dark water, may be called cloud shadow.",
        ),
        network="mscloudcam-small",
        spec=InputSpec(
            bands=("coastal", "blue", "green", "red", "nir", "nir09", "cirrus", "swir16", "swir22"),
            optional=("coastal", "nir", "nir09", "cirrus", "swir16", "swir22"),
            mean=(0.18, 0.17, 0.17, 0.17, 0.28, 0.20, 0.012, 0.22, 0.15),
            stddev=(0.15, 0.16, 0.16, 0.17, 0.16, 0.19, 0.05, 0.13, 0.11),
        ),
        legend=legends()["cloudsen12"].subset(CLOUD_VALUES),
        gsd_m=10.0,
        tile_px=256,
        overlap_px=64,
        size_multiple=32,
        augment=AugmentOptions(
            band_sets=(
                (),
                ("nir",),
                ("nir", "swir16"),
                ("nir", "swir16", "swir22"),
                ("coastal", "nir", "nir09", "swir16", "swir22"),
                ("coastal", "nir", "cirrus", "swir16", "swir22"),
            ),
            set_share=0.45,
            drop_share=0.2,
        ),
        train=TrainOptions(learning_rate=1e-3, output_weights=(1.0, 0.4, 0.4)),
    )
