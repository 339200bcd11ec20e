"""Optics, detector spacing and swath edge."""

from __future__ import annotations

import numpy as np
import pytest

from geoseg_cli.training.sensor import Sensor, Stripes, scan_gaps, swath_edge

STILL = {"shift_px": (0.0, 0.0), "blur": 0.0, "noise_floor": 0.0, "noise_gain": 0.0, "is_smooth": False}
RNG = np.random.default_rng(5)
IMAGE = RNG.random((24, 36), dtype=np.float32)


def observe(image: np.ndarray, factor: int = 1, **changes: object) -> np.ndarray:
    return Sensor(factor, **{**STILL, **changes}).observe(image, np.random.default_rng(1))  # type: ignore[arg-type]


def test_a_perfect_sensor_changes_nothing() -> None:
    np.testing.assert_allclose(observe(IMAGE), IMAGE, atol=1e-6)


def test_blur_keeps_the_mean_and_lowers_the_contrast() -> None:
    blurred = observe(IMAGE, blur=0.15)
    assert blurred[2:-2, 2:-2].mean() == pytest.approx(IMAGE[2:-2, 2:-2].mean(), abs=0.01)
    assert blurred.std() < 0.75 * IMAGE.std()


def test_shift_moves_a_ramp_by_its_fraction() -> None:
    ramp = np.tile(np.arange(20, dtype=np.float32), (20, 1))
    np.testing.assert_allclose(observe(ramp, shift_px=(0.0, 0.3))[:, 2:-2], ramp[:, 2:-2] - 0.3, atol=1e-5)
    np.testing.assert_allclose(observe(ramp.T, shift_px=(0.3, 0.0))[2:-2], ramp.T[2:-2] - 0.3, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_coarse_pixels_are_block_means(factor: int) -> None:
    seen = observe(IMAGE, factor)
    assert seen.shape == IMAGE.shape
    assert seen[0, 0] == pytest.approx(IMAGE[:factor, :factor].mean(), rel=1e-5)
    np.testing.assert_array_equal(seen[:factor, :factor], seen[0, 0])


def test_smooth_refinement_keeps_a_ramp() -> None:
    ramp = np.tile(np.arange(24, dtype=np.float32), (12, 1))
    seen = observe(ramp, 6, is_smooth=True)
    np.testing.assert_allclose(seen[:, 3:-3], ramp[:, 3:-3], atol=1e-4)


def test_sizes_that_do_not_fit_the_coarse_grid_keep_their_shape() -> None:
    for is_smooth in (False, True):
        assert observe(IMAGE[:17, :23], 6, is_smooth=is_smooth).shape == (17, 23)


def test_noise_grows_with_light() -> None:
    dark, bright = (
        observe(np.full((80, 80), level, np.float32), noise_floor=0.001, noise_gain=1e-5).std() for level in (0.0, 0.9)
    )
    assert dark == pytest.approx(0.001, rel=0.1)
    assert bright == pytest.approx((1e-6 + 0.9e-5) ** 0.5, rel=0.1)


def test_the_swath_edge_leaves_both_sides() -> None:
    for seed in range(20):
        share = swath_edge(np.random.default_rng(seed), (64, 64)).mean()
        assert 0 < share < 1


@pytest.mark.parametrize("bits", [8, 12])
def test_numbers_are_whole_steps_up_to_full_scale(bits: int) -> None:
    seen = observe(IMAGE, full_scale=0.8, bits=bits)
    numbers = seen.astype(np.float64) / (0.8 / (2**bits - 1))
    np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-2)
    assert seen.max() == pytest.approx(0.8, rel=1e-6)
    assert (seen == seen.max()).sum() >= (IMAGE > 0.8).sum(), "what is brighter saturates"
    inside = IMAGE < 0.8
    np.testing.assert_allclose(seen[inside], IMAGE[inside], atol=0.51 * 0.8 / (2**bits - 1))


def test_a_pushbroom_stripes_columns_and_a_mirror_rows() -> None:
    flat = np.full((64, 64), 0.4, np.float32)
    columns = observe(flat, stripes=Stripes(1, 0.01))
    np.testing.assert_array_equal(columns, np.tile(columns[:1], (64, 1)))
    assert columns[0].std() == pytest.approx(0.004, rel=0.3)
    rows = observe(flat, stripes=Stripes(0, 0.01, detectors=16))
    np.testing.assert_array_equal(rows, np.tile(rows[:, :1], (1, 64)))
    np.testing.assert_array_equal(rows[:32], rows[32:])
    assert len(np.unique(rows)) == 32, "16 detectors on the way to and fro"


def test_scan_gaps_take_away_as_much_as_published() -> None:
    # 22 % of a whole scene (USGS), from none in its middle to 14 of 32 rows at its edges.
    lost = [1 - scan_gaps(np.random.default_rng(seed), (128, 128), 30.0).mean() for seed in range(200)]
    assert np.mean(lost) == pytest.approx(0.23, abs=0.05)
    assert max(lost) < 14 / 32 + 0.03
