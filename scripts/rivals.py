"""What stands beside a network: a random forest, a published threshold test and s2cloudless.

Each has one setting for all sources. The forest learns from the same simulated scenes and real samples, disturbed
alike, and judges each pixel by itself.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from figures import Model
from left_out import without
from validation_cases import Case, FloatArray, UInt8Array

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import UsageError
from geoseg_cli.training.augment import draw_batch
from geoseg_cli.training.bundle_recipes import TRAIN_SEED, BundleRecipe, SceneMaker, sources
from geoseg_cli.training.chips import values_from_targets
from geoseg_cli.training.pool import ScenePool

PEER_SCRIPT: Final = Path(__file__).resolve().parents[1] / "benchmarks" / "peers" / "run_s2cloudless.py"
PEER_BANDS: Final = (
    "coastal", "blue", "red", "rededge071", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22",
)  # fmt: skip
"""Sentinel-2's B01 B02 B04 B05 B08 B8A B09 B10 B11 B12; only top-of-atmosphere products have them all."""


@dataclass(frozen=True, slots=True)
class ForestOptions:
    """How much the forest learns from.

    With 800 samples chance decided: of three seeds one surpassed the network on a Landsat-5 scene that both had not
    seen (cloud F1 0.77, 0.81 and 0.89).

    Attributes:
        scenes: Simulated scenes.
        samples, pixels_per_sample: Samples that are drawn, and pixels of each.
        threads: Threads to train and predict with.
        seed: Seed of the samples and of the trees.
    """

    scenes: int = 300
    samples: int = 3000
    pixels_per_sample: int = 150
    threads: int = 1
    seed: int = 0


def normalised(case: Case, spec: InputSpec) -> FloatArray:
    """Network input (C, H, W) float32 of a case."""
    present = tuple(band in case.bands for band in spec.bands)
    held = [case.bands.index(band) for band in spec.bands if band in case.bands]
    return spec.apply(np.ascontiguousarray(case.reflectance[held]), case.valid, present)


def forest(recipe: BundleRecipe, training: Path, runs: Path, options: ForestOptions, left_out: Sequence[str]) -> Model:
    """Train a random forest on single pixels of the samples that the network would get.

    Args:
        recipe: The recipe.
        training: Folder of the real training files.
        runs: Where its simulated scenes are kept.
        options: How much it learns from.
        left_out: Real scenes that it may not see.
    """
    from sklearn.ensemble import RandomForestClassifier

    features, labels = _forest_samples(recipe, training, runs, options, left_out)
    trees = RandomForestClassifier(
        60, min_samples_leaf=3, max_depth=22, random_state=options.seed, n_jobs=options.threads
    )
    trees.fit(features, labels)

    def predict(case: Case) -> UInt8Array:
        pixels = normalised(case, recipe.spec)
        predicted = trees.predict(pixels.reshape(len(pixels), -1).T)
        return np.asarray(predicted, np.uint8).reshape(case.truth.shape)

    return Model("forest", predict)


def _forest_samples(
    recipe: BundleRecipe, training: Path, runs: Path, options: ForestOptions, left_out: Sequence[str]
) -> tuple[FloatArray, UInt8Array]:
    """Features (pixels, C) float32 and class values (pixels,) uint8."""
    maker = SceneMaker(recipe.name, training, has_tiles=True)
    kept = runs / f"pool-forest-{recipe.task}-{maker.fingerprint()}"
    pool = ScenePool(kept, maker, options.scenes, TRAIN_SEED)
    pool.fill(options.scenes)
    given = without(sources(recipe, training, pool), left_out)
    rng = np.random.default_rng(options.seed)
    features, labels = [], []
    for sample in draw_batch(given, options.samples, 64, recipe.spec, recipe.augment, rng):
        truth = values_from_targets(sample.target, recipe.legend.values).ravel()
        chosen = rng.permutation(np.flatnonzero(truth != 255))[: options.pixels_per_sample]
        features.append(sample.pixels.reshape(len(sample.pixels), -1)[:, chosen].T)
        labels.append(truth[chosen])
    return np.concatenate(features), np.concatenate(labels)


def threshold_test() -> Model:
    """The cloud test of Braaten, Cohen and Yang (2015), Remote Sensing of Environment 169, 128-138.

    Made for top-of-atmosphere reflectance of Landsat's MSS; applied unchanged, to surface reflectance too.
    """

    def predict(case: Case) -> UInt8Array:
        green, red = (case.reflectance[case.bands.index(band)] for band in ("green", "red"))
        return is_cloud_by_threshold(green, red).astype(np.uint8)

    return Model("threshold", predict, is_binary=True)


def is_cloud_by_threshold(green: FloatArray, red: FloatArray) -> Any:
    """Cloud where (green > 0.175 and (green - red) / (green + red) > 0) or green > 0.39.

    Args:
        green, red: Reflectance, any shape.

    Returns:
        The same shape, bool.
    """
    sum_of_both = green + red
    index = np.divide(green - red, sum_of_both, out=np.zeros_like(sum_of_both), where=sum_of_both > 0)
    return ((green > 0.175) & (index > 0)) | (green > 0.39)


def s2cloudless(cases: Sequence[Case], python: Path) -> Model:
    """Run s2cloudless with the interpreter of its own environment on the cases that have its bands.

    Raises:
        UsageError: It does not run there.
    """
    able = [case for case in cases if set(PEER_BANDS) <= set(case.bands)]
    with tempfile.TemporaryDirectory() as folder:
        images, masks = Path(folder) / "images.npz", Path(folder) / "masks.npz"
        np.savez(images, **{str(place): _peer_image(case) for place, case in enumerate(able)})  # type: ignore[arg-type]
        command = [str(python), str(PEER_SCRIPT), str(images), str(masks)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UsageError(f"s2cloudless does not run with {python}: {last}", f"read the head of {PEER_SCRIPT.name}")
        with np.load(masks, allow_pickle=False) as read:
            found = {case: read[str(place)] for place, case in enumerate(able)}
    return Model("s2cloudless", found.get, is_binary=True)


def _peer_image(case: Case) -> FloatArray:
    """(H, W, 10) float32."""
    held = [case.bands.index(band) for band in PEER_BANDS]
    return np.ascontiguousarray(np.moveaxis(case.reflectance[held], 0, -1))
