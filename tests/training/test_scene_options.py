"""What the recipes ask the simulator for."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg_cli.errors import UsageError
from geoseg_cli.networks import create_network
from geoseg_cli.training.bundle_recipes import (
    BRIGHT_SHARE,
    PIXEL_SIZES,
    RECIPES,
    SENSOR_SHARES,
    TILE_GROUND_SHARE,
    TRAIN_SEED,
    SceneMaker,
    recipe_named,
    scene_options,
)
from geoseg_cli.training.imagers import IMAGERS
from geoseg_cli.training.recipes import BRIGHT_LANDSCAPES, RECIPE_WEIGHTS

RGB = ("red", "green", "blue")
TRAINING = Path(os.environ.get("GEOSEG_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "training"
needs_data = pytest.mark.skipif(not TRAINING.is_dir(), reason="training files not found: set GEOSEG_REAL_DATA")


def test_every_sensor_has_a_share_and_pixel_sizes() -> None:
    assert set(SENSOR_SHARES) == set(PIXEL_SIZES) == set(IMAGERS)
    assert sum(SENSOR_SHARES.values()) == pytest.approx(1)
    for sizes in PIXEL_SIZES.values():
        assert sum(sizes.values()) == pytest.approx(1)


def test_sensors_are_drawn_by_their_shares() -> None:
    drawn = Counter(scene_options("cloud", seed, RGB).sensor for seed in range(2000))
    for name, share in SENSOR_SHARES.items():
        assert drawn[name] / 2000 == pytest.approx(share, abs=0.035)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31), required=st.sampled_from([RGB, ("nir",), ("nir08", "swir16"), ("coastal", "cirrus")])
)
def test_the_sensor_has_the_required_bands(seed: int, required: tuple[str, ...]) -> None:
    options = scene_options("land-cover", seed, required)
    names = {name for band in IMAGERS[options.sensor].bands for name in band}
    assert set(required) <= names
    assert options == scene_options("land-cover", seed, required)
    if options.sensor.startswith("hls"):
        assert options.level == "L2A"


def test_without_required_bands_all_scenes_are_of_sentinel_2() -> None:
    assert {scene_options("cloud", seed).sensor for seed in range(50)} == {"sentinel-2"}


def test_a_band_that_no_sensor_has_is_refused() -> None:
    with pytest.raises(UsageError, match="lwir"):
        scene_options("cloud", 1, ("lwir",))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_network_takes_its_planes_and_gives_its_classes(name: str) -> None:
    recipe = recipe_named(name)
    channels = recipe.spec.channels
    network = create_network(recipe.network, channels, len(recipe.legend.classes), **recipe.config).eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, channels, recipe.size_multiple * 2, recipe.size_multiple * 2))
    assert logits.shape == (1, len(recipe.legend.classes), recipe.size_multiple * 2, recipe.size_multiple * 2)


@pytest.mark.parametrize("name", ["landcover-lale", "cloud-lale"])
def test_recipes_learn_from_several_sensors(name: str) -> None:
    recipe = recipe_named(name)
    drawn = {scene_options(recipe.task, seed, recipe.spec.required).sensor for seed in range(300)}
    assert drawn == set(IMAGERS)


def test_an_eighth_of_the_cloud_scenes_shows_bright_ground() -> None:
    own = sum(RECIPE_WEIGHTS[name] for name in BRIGHT_LANDSCAPES) / sum(RECIPE_WEIGHTS.values())
    landscapes = [scene_options("cloud", seed, RGB).landscape for seed in range(3000)]
    share = np.mean([own if name == "random" else float(name in BRIGHT_LANDSCAPES) for name in landscapes])
    assert share == pytest.approx(0.12, abs=0.015)
    clear = [scene_options("cloud", seed, RGB) for seed in range(3000)]
    bright = [options.clouds for options in clear if options.landscape != "random"]
    assert 0.25 < np.mean([clouds == "clear" for clouds in bright]) < 0.55


@needs_data
def test_only_scenes_to_learn_clouds_from_lie_on_tiles_and_the_stated_share_of_them() -> None:
    seeds = range(TRAIN_SEED, TRAIN_SEED + 600)
    on_tiles = [SceneMaker("cloud-lale", TRAINING, has_tiles=True).is_on_tiles(seed) for seed in seeds]
    assert np.mean(on_tiles) == pytest.approx(TILE_GROUND_SHARE * (1 - BRIGHT_SHARE), abs=0.06)
    for maker in (SceneMaker("cloud-lale", TRAINING), SceneMaker("landcover-lale", TRAINING, has_tiles=True)):
        assert not any(maker.is_on_tiles(seed) for seed in seeds)


@needs_data
def test_tiles_change_the_ground_of_a_scene_and_none_of_its_labels() -> None:
    maker = SceneMaker("cloud-lale", TRAINING, has_tiles=True)
    seed = next(filter(maker.is_on_tiles, range(TRAIN_SEED, TRAIN_SEED + 50)))
    on_tiles, plain = maker(seed), replace(maker, has_tiles=False)(seed)
    assert (on_tiles.target == plain.target).all()
    assert (on_tiles.dn != plain.dn).any()
    assert maker.fingerprint() != replace(maker, has_tiles=False).fingerprint()
