"""The recipes of the shipped bundles: network, bands, classes, what to learn from and how.

Trained from scratch on simulated scenes and on permissively licensed real samples. Everything that decides a bundle
stands here, except the seed and the time that it was given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from geoseg_cli.bundle import InputSpec
from geoseg_cli.catalog import Legend, legends
from geoseg_cli.errors import UsageError
from geoseg_cli.training.augment import AugmentOptions, Source, scattered, whole_sample
from geoseg_cli.training.chips import CLOUD_VALUES, LAND_VALUES, Chip, simulated_chip
from geoseg_cli.training.imagers import IMAGERS, ImagerName
from geoseg_cli.training.loop import TrainOptions, ValidationSet
from geoseg_cli.training.pool import ScenePool
from geoseg_cli.training.real_chips import alberta_chips, eurosat_chips, ontario_chips, ukis_chips
from geoseg_cli.training.real_ground import PastedChips, Textures, TileGround, at_surface
from geoseg_cli.training.recipes import BRIGHT_LANDSCAPES
from geoseg_cli.training.simulate import Level, SimulatorOptions, simulate_scene
from geoseg_cli.training.spectra import SpectralLibrary

Task = Literal["land-cover", "cloud"]

TRAIN_SEED: Final = 1_000_000
DEVELOP_SEED: Final = 900_000_000
TEST_SEED: Final = 800_000_000
"""Seeds of simulated scenes: chip i of a part has the part's first seed plus i. The parts never meet."""
SHARES: Final[dict[Task, dict[str, float]]] = {
    "land-cover": {"simulated": 0.26, "eurosat": 0.66, "ontario": 0.08},
    "cloud": {"simulated": 0.68, "eurosat": 0.14, "ukis": 0.12, "alberta": 0.06},
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
TILES_AS_GROUND: Final[dict[Task, dict[str, str]]] = {
    "land-cover": {
        "simulated": "; fields of those that look like Sentinel-2 at 10 m wear EuroSAT's pixels",
        "eurosat": ", as they are and corrected to the surface, a quarter with pixels of pieces of them in no order",
    },
    "cloud": {
        "simulated": "; four of ten lie on ground of EuroSAT's tiles",
        "eurosat": ", as they are and up to three times brighter",
    },
}
"""What a task does with EuroSAT's tiles beside learning from them, by the source that shows it."""
PIECES_SHARE: Final = 0.15
"""Share of the EuroSAT samples of land cover that are laid of small pieces of tiles."""
SCATTERED_SHARE: Final = 0.25
"""Share of those that hold pixels of pieces of tiles in no order."""
SCATTERED: Final = "scattered"
"""Name of the validation set without texture: it helps to choose weights, and fits no confidence."""
SCATTERED_PX: Final = 14
"""Side of the pieces whose pixels fill a tile there: a small field."""
EUROSAT_VARIANTS: Final = 8
"""Recoloured variants of each EuroSAT tile that land cover learns from."""
MOST_BRIGHTENED: Final = 3.0
"""Half of the clear tiles that clouds are told from are up to so much brighter, as sand, salt and roofs are."""
SCENE_PX: Final = 256
SENSOR_SHARES: Final[dict[ImagerName, float]] = {
    "sentinel-2": 0.55, "landsat-8": 0.16, "landsat-7": 0.06, "landsat-5": 0.07, "hls-l30": 0.03, "hls-s30": 0.05,
    "planetscope": 0.08,
}  # fmt: skip
"""Share of each sensor among simulated scenes."""
_LANDSAT_SIZES: Final = {15: 0.1, 30: 0.8, 60: 0.1}
PIXEL_SIZES: Final[dict[ImagerName, dict[int, float]]] = {
    "sentinel-2": {5: 0.05, 10: 0.67, 15: 0.08, 20: 0.12, 30: 0.04, 60: 0.04}, "landsat-8": _LANDSAT_SIZES,
    "landsat-7": _LANDSAT_SIZES, "landsat-5": _LANDSAT_SIZES, "hls-l30": {30: 1.0}, "hls-s30": {30: 1.0},
    "planetscope": {5: 0.5, 10: 0.5},
}  # fmt: skip
"""Pixel sizes of a sensor's scenes in metres, and their shares: products are also resampled by their users."""
BRIGHT_SHARE: Final = 0.055
"""Share of cloud scenes that get bright ground on top of the simulator's own share; both together are 12 %."""
TILE_GROUND_SHARE: Final = 0.45
"""Share of the cloud scenes of no chosen landscape whose ground is EuroSAT's tiles."""
DEVELOP_SCENES: Final = 40
RED_EDGE: Final = ("rededge071", "rededge075", "rededge078")
RECIPES: Final[dict[str, tuple[str, str, TrainOptions]]] = {
    "landcover-lale": (
        "lale-s1", "LALE-S1 (arXiv 2606.02092), attention within 48 and 32 px",
        TrainOptions(learning_rate=2.5e-3, weight_decay=0.05, view_weight=1.0),
    ),
    "landcover-chromaformer": (
        "chromaformer-mini", "ChromaFormer, mini (after arXiv 2503.08534)", TrainOptions(learning_rate=1e-3)
    ),
    "landcover-lemevit": (
        "lemevit-tiny-light", "LeMeViT-Tiny with the all-MLP head (arXiv 2405.09789)", TrainOptions(learning_rate=1e-3)
    ),
    "cloud-lale": (
        "lale-s1", "LALE-S1 (arXiv 2606.02092), attention within 128 and 128 px",
        TrainOptions(learning_rate=2e-3, view_weight=0.5),
    ),
    "cloud-mscloudcam": (
        "mscloudcam-small", "MSCloudCAM, small (after arXiv 2510.10802)",
        TrainOptions(learning_rate=1e-3, output_weights=(1.0, 0.4, 0.4)),
    ),
}  # fmt: skip
"""Recipe -> its network in ``geoseg_cli.networks``, what a person reads of it, and how it is trained."""
WITHOUT_GRAPH: Final = ("landcover-chromaformer", "landcover-lemevit")
"""Recipes whose bundles have no ONNX graph, so that all together stay below 60 MiB; ``geoseg export`` makes one."""
NETWORK_CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "landcover-lale": {"reach": [3, 1]}, "cloud-lale": {"reach": [8, 4]},
}  # fmt: skip
"""Recipe -> what is different from that network.

With attention to all of a tile the class of many pixels hung on where tiles lie and how large they are; see "Tiles" in
benchmarks/README.md. Clouds need more: their shadows lie far from them.
"""
TILINGS: Final = {"landcover-lale": (800, 64), "cloud-lale": (800, 64)}
"""Recipe -> side of a tile and overlap, where not 512 and 32 px; see "Tiles" in benchmarks/README.md."""


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
        gsd_range_m: Smallest and largest one that it is run at as stored.
        tile_px, overlap_px, size_multiple: Tiling that the bundle asks for.
        augment, train: How to disturb the samples and how to train.
        config: What is different from the network of that name.
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
    gsd_range_m: tuple[float, float]
    tile_px: int
    overlap_px: int
    size_multiple: int
    augment: AugmentOptions
    train: TrainOptions
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SceneMaker:
    """Makes the simulated chip of a seed; can be sent to another process.

    Attributes:
        recipe: Name of the recipe.
        training: Folder of the training files.
        has_tiles: Whether `TILE_GROUND_SHARE` of the scenes of clouds have the ground of real tiles; scenes that choose
            or measure have none, so that no tile that was learned from is met there.
    """

    recipe: str
    training: Path
    has_tiles: bool = False

    def __call__(self, seed: int) -> Chip:
        """Simulate the scene of ``seed`` and keep the recipe's bands."""
        recipe = recipe_named(self.recipe)
        options = scene_options(recipe.task, seed, recipe.spec.required)
        ground_of = _tile_ground(self.training).make if self.is_on_tiles(seed) else None
        scene = simulate_scene(_library(self.training / "spectra"), options, seed, ground_of)
        return simulated_chip(scene, recipe.task, recipe.spec.bands, options.level == "L1C")

    def is_on_tiles(self, seed: int) -> bool:
        """Whether the scene of ``seed`` has the ground of real tiles; none has whose landscape was chosen."""
        recipe = recipe_named(self.recipe)
        if not self.has_tiles or recipe.task != "cloud":
            return False
        is_free = scene_options(recipe.task, seed, recipe.spec.required).landscape == "random"
        return is_free and np.random.default_rng((seed, 2)).random() < TILE_GROUND_SHARE

    def fingerprint(self) -> str:
        """Eight hex digits that change with the simulator, so that no pool mixes scenes of two versions of it."""
        seeds = range(TRAIN_SEED, TRAIN_SEED + 20)
        chip = self(next(filter(self.is_on_tiles, seeds), TRAIN_SEED))
        return hashlib.sha256(chip.dn.tobytes() + chip.target.tobytes()).hexdigest()[:8]


def recipe_named(name: str) -> BundleRecipe:
    """Look a recipe up.

    Raises:
        UsageError: There is no such recipe.
    """
    if name not in RECIPES:
        raise UsageError(f"no recipe is called {name!r}", f"use one of {', '.join(RECIPES)}")
    network, architecture, train = RECIPES[name]
    make = _cloud if name.startswith("cloud-") else _land_cover
    recipe = make(name, network, architecture, train)
    tile_px, overlap_px = TILINGS.get(name, (recipe.tile_px, recipe.overlap_px))
    return replace(recipe, config=NETWORK_CONFIGS.get(name, {}), tile_px=tile_px, overlap_px=overlap_px)


def scene_options(task: Task, seed: int, required: Sequence[str] | None = None) -> SimulatorOptions:
    """What the simulator draws for a seed: sensor, surface or top-of-atmosphere reflectance, pixel size, clouds.

    Three of four land-cover scenes are cloud-free, as the scenes are that people map; the others teach that haze and
    shadow do not change the ground. Cloud scenes show bright ground more often than the Earth does: it is what they
    are confused with.

    Args:
        task: What is mapped.
        seed: Decides everything.
        required: Common names of bands that the sensor must have; all sensors that have them are drawn. None draws
            Sentinel-2 alone.
    """
    rng = np.random.default_rng((seed, 1))
    level: Level = "L1C" if rng.random() < 0.5 else "L2A"
    is_edge = bool(rng.random() < 0.08)
    sensor = _draw_sensor(rng, required)
    if sensor.startswith("hls"):
        level = "L2A"  # there is no other HLS
    sizes = PIXEL_SIZES[sensor]
    gsd_m = float(rng.choice(list(sizes), p=list(sizes.values())))
    options = SimulatorOptions(SCENE_PX, SCENE_PX, gsd_m, level, "clear", nodata_edge=is_edge, sensor=sensor)
    if task == "cloud":
        is_bright = rng.random() < BRIGHT_SHARE
        landscape = str(rng.choice(BRIGHT_LANDSCAPES)) if is_bright else "random"
        is_clear = is_bright and rng.random() < 0.4
        return replace(options, landscape=landscape, clouds="clear" if is_clear else "random")
    return options if rng.random() < 0.75 else replace(options, clouds="random")


def _draw_sensor(rng: np.random.Generator, required: Sequence[str] | None) -> ImagerName:
    """A sensor with all required bands, by `SENSOR_SHARES`."""
    if required is None:
        return "sentinel-2"
    able = [name for name in SENSOR_SHARES if IMAGERS[name].has(required)]
    if not able:
        raise UsageError(
            f"no sensor that can be simulated has {', '.join(required)}", "leave out bands, or the simulator"
        )
    shares = np.array([SENSOR_SHARES[name] for name in able])
    return able[int(rng.choice(len(able), p=shares / shares.sum()))]


def sources(recipe: BundleRecipe, training: Path, pool: ScenePool) -> list[Source]:
    """Everything that a recipe learns from.

    Args:
        recipe: The recipe.
        training: Folder of the real training files.
        pool: Simulated chips.

    Returns:
        The simulated chips and the real ones, with their shares of the samples.
    """
    if recipe.task == "land-cover":
        return land_sources(recipe, training, pool)
    share = SHARES["cloud"]
    tiles = Source(eurosat_chips(training, "train", "cloud"), share["eurosat"] / 2, zoom=(0.5, 2.0), is_mosaic=True)
    bright = replace(tiles, brighten=MOST_BRIGHTENED)
    # Drawn by hand but generously; and drawn by two programs that can be wrong together.
    ukis = Source(ukis_chips(training), share=share["ukis"], weight=0.5, zoom=(0.5, 1.5))
    alberta = Source(alberta_chips(training), share=share["alberta"], weight=0.3, zoom=(0.6, 3.0))
    return [Source(pool, share=share["simulated"], zoom=(0.7, 1.5)), tiles, bright, ukis, alberta]


def land_sources(
    recipe: BundleRecipe, training: Path, pool: ScenePool, share: Mapping[str, float] = SHARES["land-cover"],
    part: str = "train", has_textures: bool = True,
) -> list[Source]:  # fmt: skip
    """What land cover learns from; a trial may change what the shipped recipe takes.

    Args:
        recipe: The recipe.
        training: Folder of the real training files.
        pool: Simulated chips.
        share: Source -> share of the samples, as in `SHARES`.
        part: Tiles of EuroSAT, see `eurosat_chips`.
        has_textures: Whether simulated fields wear the pixels of tiles.
    """
    top = eurosat_chips(training, part, "land-cover", EUROSAT_VARIANTS)
    surface = [at_surface(chip, np.random.default_rng((17, place))) for place, chip in enumerate(top)]
    whole = share["eurosat"] * (1 - PIECES_SHARE - SCATTERED_SHARE)
    # The size of fields and the grain of crowns tell classes apart: little of either is left after a zoom of 2.
    tiles = Source([*top, *surface], whole, zoom=(0.8, 1.25), is_mosaic=True)
    # Fields of a few pixels must be told by their spectrum, without the texture of a whole tile.
    pieces = replace(tiles, share=share["eurosat"] * PIECES_SHARE, piece_px=(6, 40))
    # And pieces without any texture: crops and towns whose pixels lay in no order were taken for something else.
    loose = replace(
        pieces, share=share["eurosat"] * SCATTERED_SHARE, zoom=(1.0, 1.0), piece_px=(10, 64), is_scattered=True
    )
    wear = {"L1C": Textures(top), "L2A": Textures(surface)}

    def textures(place: int) -> Textures | None:
        """What the simulated chip at a place wears."""
        options = scene_options("land-cover", pool.seed(place), recipe.spec.required)
        # The tiles show what Sentinel-2 sees at 10 m.
        return wear[options.level] if (options.sensor, options.gsd_m) == ("sentinel-2", 10.0) else None

    chips = PastedChips(pool, textures, seed=18) if has_textures else pool
    simulated = Source(chips, share["simulated"], zoom=(0.7, 1.5))
    ontario = Source(ontario_chips(training), share=share["ontario"], zoom=(0.5, 1.2))
    return [simulated, tiles, pieces, loose, ontario]


def data_table(recipe: BundleRecipe, gone: Collection[str] = ()) -> list[list[str]]:
    """What a card says of the data: rows of description, share of the samples, licence.

    Args:
        recipe: The recipe.
        gone: Sources that this training did without; the others' shares grow.
    """
    given = {name: share for name, share in SHARES[recipe.task].items() if name not in gone}
    rows = [(name, *PROVENANCE[name], share / sum(given.values())) for name, share in given.items()]
    more = TILES_AS_GROUND[recipe.task]
    return [[title + more.get(name, ""), f"{share:.0%}", licence] for name, title, licence, share in rows]


def validation_sets(recipe: BundleRecipe, training: Path) -> list[ValidationSet]:
    """What chooses the best weights.

    They are simulated scenes of their own seeds, the EuroSAT tiles set apart for it and, for land cover, the same
    tiles with pixels of pieces of them in no order.
    """
    make = SceneMaker(recipe.name, training)
    simulated = [make(DEVELOP_SEED + number) for number in range(DEVELOP_SCENES)]
    real = eurosat_chips(training, "develop", recipe.task)
    chips = {"simulated": simulated, "eurosat": real}
    if recipe.task == "land-cover":
        rng = np.random.default_rng(21)
        chips[SCATTERED] = [scattered(chip, SCATTERED_PX, rng) for chip in real]
    return [ValidationSet(name, [whole_sample(chip, recipe.spec) for chip in some]) for name, some in chips.items()]


@cache
def _library(folder: Path) -> SpectralLibrary:
    return SpectralLibrary.load(folder)


@cache
def _tile_ground(training: Path) -> TileGround:
    top = eurosat_chips(training, "train", "cloud")
    return TileGround([at_surface(chip, np.random.default_rng((17, place))) for place, chip in enumerate(top)])


_TILING: Final[dict[str, Any]] = {
    "gsd_m": 10.0, "gsd_range_m": (10.0, 30.0), "tile_px": 512, "overlap_px": 32, "size_multiple": 32,
}  # fmt: skip
# What the land-cover networks share.
_LAND_COVER: Final[dict[str, Any]] = {
    "task": "land-cover",
    "title": "Land cover from Sentinel-2 or Landsat reflectance",
    "description": (
        "Seven ESA WorldCover classes from blue, green, red and near infrared, and better with the red edge and the"
        " short-wave infrared. Trained from scratch on simulated scenes and a few real samples; takes"
        " top-of-atmosphere and surface reflectance."
    ),
    "limits": (
        "Shrubland, wetland, mangroves and moss are not among the classes: they come out as what they resemble.",
        "Clouds are not a class: mask them, or the land cover below and beside them is a guess.",
        "The real samples come from Europe and boreal Ontario; other regions rest on simulated scenes alone.",
        (
            "Grassland, cropland and bare ground of one date look alike; they are confused more than other classes. Of"
            " the German pixels a forest that learned from two of the cities names 74 % of the third's right"
            " (benchmarks/german_cities.py)."
        ),
    ),
    "spec": InputSpec(
        bands=("blue", "green", "red", *RED_EDGE, "nir", "swir16", "swir22"),
        optional=(*RED_EDGE, "swir16", "swir22"),
        mean=(0.12, 0.13, 0.12, 0.15, 0.22, 0.25, 0.26, 0.18, 0.12),
        stddev=(0.13, 0.13, 0.14, 0.13, 0.13, 0.14, 0.14, 0.11, 0.09),
    ),
    # Real tiles are few and drawn often: disturbed, lest they are learned by heart.
    "augment": AugmentOptions(
        gain=0.1,
        band_gain=0.04,
        offset=0.008,
        band_sets=((), ("swir16", "swir22"), RED_EDGE),
        # Measured after 500 steps from scratch: hiding as much as this costs nothing with all bands.
        set_share=0.2,
        drop_share=0.1,
        # The same ground is L1C to some and L2A to others.
        air=0.25,
    ),
}
# What the cloud networks share.
_CLOUD: Final[dict[str, Any]] = {
    "task": "cloud",
    "title": "Clouds and their shadows from Sentinel-2 or Landsat reflectance",
    "description": (
        "Clear, thick cloud, thin cloud and cloud shadow from blue, green and red, and better with each further"
        " band. Trained from scratch on simulated scenes and a few real samples; takes top-of-atmosphere and"
        " surface reflectance."
    ),
    "limits": (
        "Thick and thin are split at an optical depth in the simulated scenes; no real sample says which is which.",
        "Snow, bright sand and white roofs may be called cloud, above all without the short-wave infrared.",
        "Shadows of terrain and of buildings, and dark water, may be called cloud shadow.",
    ),
    "spec": InputSpec(
        bands=("coastal", "blue", "green", "red", "nir", "nir09", "cirrus", "swir16", "swir22"),
        optional=("coastal", "nir", "nir09", "cirrus", "swir16", "swir22"),
        mean=(0.18, 0.17, 0.17, 0.17, 0.28, 0.20, 0.012, 0.22, 0.15),
        stddev=(0.15, 0.16, 0.16, 0.17, 0.16, 0.19, 0.05, 0.13, 0.11),
    ),
    "augment": AugmentOptions(
        # Few bands are the hardest case and a common one: half of the sets are RGB and RGB-NIR.
        band_sets=(
            (),
            (),
            (),
            ("nir",),
            ("nir",),
            ("nir", "swir16"),
            ("nir", "swir16", "swir22"),
            ("nir", "swir16", "swir22"),
            ("coastal", "nir", "nir09", "swir16", "swir22"),
            ("coastal", "nir", "cirrus", "swir16", "swir22"),
        ),
        # Measured after 300 steps from scratch: 0.3 and 0.1 cost 4.8 points with all bands, 0.6 and 0.2 13.6.
        set_share=0.4,
        drop_share=0.1,
    ),
}


def _land_cover(name: str, network: str, architecture: str, train: TrainOptions) -> BundleRecipe:
    legend = legends()["esa-worldcover"].subset(LAND_VALUES)
    return BundleRecipe(
        name=name, network=network, architecture=architecture, train=train, legend=legend, **_TILING, **_LAND_COVER
    )


def _cloud(name: str, network: str, architecture: str, train: TrainOptions) -> BundleRecipe:
    legend = legends()["cloudsen12"].subset(CLOUD_VALUES)
    return BundleRecipe(
        name=name, network=network, architecture=architecture, train=train, legend=legend, **_TILING, **_CLOUD
    )
