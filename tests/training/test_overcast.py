"""Clouds over a sample: what shows through keeps its label, what is hidden loses it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from geoseg_cli.bundle import InputSpec
from geoseg_cli.training.augment import AugmentOptions, Source, draw_sample
from geoseg_cli.training.chips import Chip
from geoseg_cli.training.overcast import cloud_over

BANDS = ("blue", "red", "nir", "swir22")
SEEDS = range(40)


def ground(value: float = 0.1) -> np.ndarray:
    return np.full((4, 64, 64), value, np.float32)


def test_clouds_brighten_dark_ground_and_shadows_darken_bright_ground() -> None:
    dark = [cloud_over(ground(0.02), BANDS, 10.0, np.random.default_rng(seed))[0] for seed in SEEDS]
    bright = [cloud_over(ground(0.5), BANDS, 10.0, np.random.default_rng(seed))[0] for seed in SEEDS]
    assert np.mean([image.max() > 0.3 for image in dark]) > 0.4
    assert np.mean([image.min() < 0.4 for image in bright]) > 0.4


def test_what_is_hidden_is_bright_in_the_visible_whatever_lies_below() -> None:
    hidden = 0
    for seed in SEEDS:
        images, masks = zip(*(cloud_over(ground(v), BANDS, 10.0, np.random.default_rng(seed)) for v in (0.02, 0.3)),
                            strict=True)  # fmt: skip
        assert (masks[0] == masks[1]).all()
        hidden += int(masks[0].sum())
        assert (images[0][0][masks[0]] > 0.12).all()
    assert hidden > 0.02 * len(SEEDS) * 64 * 64


def test_reflectance_stays_finite_and_a_seed_gives_the_same() -> None:
    for seed in SEEDS:
        first, second = (cloud_over(ground(), BANDS, 10.0, np.random.default_rng(seed)) for _ in range(2))
        assert first[0].dtype == np.float32
        assert np.isfinite(first[0]).all()
        np.testing.assert_array_equal(first[0], second[0])


def sample(clouds: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    spec = InputSpec(BANDS, (), (0.0,) * 4, (1.0,) * 4)
    calm = {"gain": 0, "band_gain": 0, "offset": 0, "noise": 0, "wedge": 0, "set_share": 0, "drop_share": 0}
    chip = Chip("t", BANDS, np.full((4, 64, 64), 1000, np.int16), np.ones((64, 64), np.uint8))
    drawn = draw_sample(Source([chip]), 64, spec, AugmentOptions(**calm, clouds=clouds), np.random.default_rng(seed))
    return drawn.pixels, drawn.target


def test_labels_stay_under_thin_cloud_and_go_under_thick() -> None:
    kept = lost = 0
    for seed in SEEDS:
        pixels, target = sample(1.0, seed)
        changed = np.abs(pixels - 0.1).max(axis=0) > 0.01
        kept += int((changed & (target == 1)).sum())
        lost += int((target == 0).sum())
        assert changed[target == 0].all()
    assert min(kept, lost) > 0


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_share_of_cloudy_samples_is_what_was_asked_for(share: float) -> None:
    cloudy = sum(bool((np.abs(sample(share, seed)[0] - 0.1) > 1e-6).any()) for seed in range(100))
    assert abs(cloudy / 100 - share) < 0.15
