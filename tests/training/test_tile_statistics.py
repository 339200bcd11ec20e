"""Figures of tiles: each against an image whose answer is known."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.training.fields import FieldOptions, fractal_field

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def statistics() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module("tile_statistics")


def noise(seed: int, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_spectrum_slope_finds_the_exponent_of_a_fractal(statistics: ModuleType, exponent: float) -> None:
    rng = np.random.default_rng(3)
    images = np.stack([fractal_field(rng, (64, 64), FieldOptions(exponent, 1e4)) for _ in range(20)])
    assert float(np.mean(statistics.spectrum_slope(images))) == pytest.approx(exponent, abs=0.3)


def test_autocorrelation_of_a_wave_is_its_cosine(statistics: ModuleType) -> None:
    columns = np.broadcast_to(np.sin(2 * np.pi * np.arange(64) / 16).astype(np.float32), (1, 64, 64))
    # Along the columns nothing changes; across them a wave of 16 px turns over after 8.
    expected = [(np.cos(2 * np.pi * lag / 16) + 1) / 2 for lag in statistics.LAGS_PX]
    np.testing.assert_allclose(statistics.autocorrelation(columns)[0], expected, atol=0.06)


def test_autocorrelation_of_noise_is_none(statistics: ModuleType) -> None:
    assert np.abs(statistics.autocorrelation(noise(0, 4, 64, 64))).max() < 0.1


def test_one_step_is_one_column_of_edges(statistics: ModuleType) -> None:
    image = np.zeros((1, 64, 64), np.float32)
    image[:, :, 32:] = 0.03
    assert statistics.edge_density(image)[0] == pytest.approx(1 / 63)
    assert statistics.edge_density(image, step=0.04)[0] == 0


def test_two_halves_have_one_border(statistics: ModuleType) -> None:
    labels = np.zeros((2, 4, 6), np.uint8)
    labels[:, 2:] = 7
    assert statistics.boundary_density(labels) == pytest.approx(2 * 6 / (2 * 4 * 6))


@given(seed=st.integers(0, 2**31), bands=st.integers(2, 5))
def test_band_correlation_is_that_of_numpy(statistics: ModuleType, seed: int, bands: int) -> None:
    tiles = noise(seed, 2, bands, 9, 7)
    for found, tile in zip(statistics.band_correlation(tiles), tiles, strict=True):
        np.testing.assert_allclose(found, np.corrcoef(tile.reshape(bands, -1)), atol=1e-4)


def test_a_band_that_does_not_vary_correlates_with_nothing(statistics: ModuleType) -> None:
    tiles = noise(1, 1, 2, 8, 8)
    tiles[:, 0] = 0.25
    assert np.abs(statistics.band_correlation(tiles)[0, 0]).max() < 1e-3


@given(seed=st.integers(0, 2**31))
def test_normalised_differences_stay_within_one(statistics: ModuleType, seed: int) -> None:
    tiles = noise(seed, 2, 2, 5, 5)
    found = statistics.normalised_difference(tiles, 0, 1)
    assert np.abs(found).max() <= 1
    np.testing.assert_allclose(found, -statistics.normalised_difference(tiles, 1, 0), atol=1e-6)


def test_pixel_features_are_the_pixel_and_the_square_around_it(statistics: ModuleType) -> None:
    tiles = noise(2, 1, 2, 16, 16)
    features = statistics.pixel_features(tiles, stride_px=4)
    assert features.shape == (1, 4, 4, 6)
    square = tiles[0, :, 6:11, 2:7]
    expected = [*tiles[0, :, 8, 4], *square.mean(axis=(1, 2)), *square.std(axis=(1, 2))]
    np.testing.assert_allclose(features[0, 2, 1], expected, rtol=1e-4)


def test_summary_features_are_one_row_per_tile(statistics: ModuleType) -> None:
    tiles = noise(4, 3, 6, 64, 64)
    features = statistics.summary_features(tiles, (2, 3))
    assert features.shape == (3, 6 + 6 + 15 + 2 * 6)
    np.testing.assert_allclose(features[:, :6], tiles.mean(axis=(2, 3)), rtol=1e-4)
