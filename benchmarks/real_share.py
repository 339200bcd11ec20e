"""What simulated scenes give to land cover, and what they cost on real ground.

    python benchmarks/real_share.py --data DIR --arms recipe half real --steps 1500

A network learns from the first 8 EuroSAT tiles of each class, from simulated scenes and from Ontario in the shares of
an arm, and is asked for the next 5 tiles of each class and for 16 simulated scenes that no training uses. The tiles
that bundles are reported on are not opened. Prints one line per arm and validation: the share of the 40 tiles with a
class whose most frequent answer is right, the share of their pixels, and the mean IoU on simulated scenes.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from geoseg_cli.networks import create_network
from geoseg_cli.training.augment import Sample, whole_sample
from geoseg_cli.training.bundle_recipes import DEVELOP_SEED, TRAIN_SEED, SceneMaker, land_sources, recipe_named
from geoseg_cli.training.chips import LAND_VALUES
from geoseg_cli.training.loop import Trainer, ValidationSet
from geoseg_cli.training.pool import ScenePool
from geoseg_cli.training.real_chips import eurosat_chips, eurosat_tile_classes

RECIPE = "landcover-lale"
HELD_OUT_SCENES = 16
ARMS: dict[str, tuple[tuple[float, float, float], bool]] = {
    "recipe": ((0.26, 0.66, 0.08), True),
    "plain": ((0.26, 0.66, 0.08), False),
    "half": ((0.45, 0.45, 0.10), True),
    "third": ((0.55, 0.33, 0.12), False),
    "real": ((0.0, 1.0, 0.0), False),
}
"""Arm -> shares of simulated scenes, EuroSAT and Ontario, and whether simulated fields wear real pixels."""


def main() -> int:
    """Train every arm and print what it reaches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("GEOSEG_REAL_DATA") or beside)
    parser.add_argument("--data", type=Path, default=data, help="folder that holds training/ (GEOSEG_REAL_DATA)")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--scenes", type=int, default=1600, help="simulated scenes to learn from")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where simulated scenes are kept")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for arm in arguments.arms:
        run(arm, arguments)
    return 0


def run(arm: str, arguments: argparse.Namespace) -> None:
    """Train one arm from scratch."""
    training, recipe = arguments.data / "training", recipe_named(RECIPE)
    maker = SceneMaker(recipe.name, training)
    shares, has_textures = ARMS[arm]
    kept = arguments.runs / f"pool-{recipe.task}-{maker.fingerprint()}"
    pool = ScenePool(kept, maker, arguments.scenes, TRAIN_SEED)
    pool.fill(arguments.scenes)
    share = dict(zip(("simulated", "eurosat", "ontario"), shares, strict=True))
    learned = land_sources(recipe, training, pool, share, "fit", has_textures)
    tiles = [whole_sample(chip, recipe.spec) for chip in eurosat_chips(training, "check", "land-cover")]
    classes = eurosat_tile_classes(training, "check")
    scenes = [whole_sample(maker(DEVELOP_SEED + number), recipe.spec) for number in range(HELD_OUT_SCENES)]
    options = replace(recipe.train, steps=arguments.steps, validate_steps=500)
    torch.manual_seed(options.seed)
    network = create_network(recipe.network, recipe.spec.channels, len(LAND_VALUES), **recipe.config)
    trainer = Trainer(network, recipe.spec, options, recipe.augment)
    for progress in trainer.run(learned, [ValidationSet("simulated", scenes)]):
        right, pixels = tile_accuracy(trainer.averaged, tiles, classes)
        print(
            f"{arm:7} step {progress.step:5}  tiles {right:.3f}  pixels {pixels:.3f}"
            f"  simulated mIoU {progress.scores['simulated']:.3f}",
            flush=True,
        )


@torch.no_grad()
def tile_accuracy(network: nn.Module, tiles: list[Sample], classes: list[int]) -> tuple[float, float]:
    """Share of the tiles whose most frequent answer is their class, and share of the pixels; 0 means no class."""
    shares, right = [], []
    for sample, wanted in zip(tiles, classes, strict=True):
        if wanted:
            answer = network(torch.from_numpy(sample.pixels)[None]).argmax(1).numpy()
            counts = np.bincount(answer.ravel(), minlength=len(LAND_VALUES))
            shares.append(float((answer == LAND_VALUES.index(wanted)).mean()))
            right.append(int(counts.argmax()) == LAND_VALUES.index(wanted))
    return float(np.mean(right)), float(np.mean(shares))


if __name__ == "__main__":
    sys.exit(main())
