"""Random fields have the spectrum that is asked for; hashes spread."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.training.fields import FieldOptions, block_mean, fractal_field, hash_integers, quantile, unit_interval


@given(seed=st.integers(0, 2**32), height=st.integers(4, 80), width=st.integers(4, 80))
def test_fields_are_finite_and_centred(seed: int, height: int, width: int) -> None:
    field = fractal_field(np.random.default_rng(seed), (height, width), FieldOptions(3.0, 16.0))
    assert field.shape == (height, width)
    assert field.dtype == np.float32
    assert np.isfinite(field).all()
    assert abs(float(field.mean())) < 1e-4


def test_deviation_is_about_one() -> None:
    field = fractal_field(np.random.default_rng(1), (256, 256), FieldOptions(2.0, 64.0))
    assert field.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_power_falls_with_the_exponent(exponent: float) -> None:
    field = fractal_field(np.random.default_rng(7), (256, 256), FieldOptions(exponent, 1e6))
    power = np.abs(np.fft.fft2(field)) ** 2
    wave = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None, :])
    rings = np.geomspace(0.02, 0.4, 10)
    means = [power[(wave >= low) & (wave < high)].mean() for low, high in pairwise(rings)]
    slope = np.polyfit(np.log(np.sqrt(rings[:-1] * rings[1:])), np.log(means), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.15)


def test_stretched_fields_vary_least_along_their_axis() -> None:
    options = FieldOptions(3.0, 32.0, stretch=6.0, angle_rad=0.0)
    field = fractal_field(np.random.default_rng(3), (128, 128), options)
    along, across = np.diff(field, axis=1).std(), np.diff(field, axis=0).std()
    assert along < 0.6 * across


def test_quantile_cuts_the_share() -> None:
    field = fractal_field(np.random.default_rng(3), (256, 256), FieldOptions(1.0, 16.0))
    assert (field > quantile(field, 0.8)).mean() == pytest.approx(0.2, abs=0.03)


def test_hashes_are_spread_evenly_and_differ_by_salt() -> None:
    rows, columns = np.meshgrid(np.arange(200, dtype=np.int32), np.arange(-100, 100, dtype=np.int32))
    first = unit_interval(hash_integers(rows, columns, 1))
    second = unit_interval(hash_integers(rows, columns, 2))
    counts = np.histogram(first, bins=10, range=(0, 1))[0]
    np.testing.assert_allclose(counts / first.size, 0.1, atol=0.01)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:, :-1].ravel(), first[:, 1:].ravel())[0, 1]) < 0.03


@given(factor=st.integers(1, 6), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_block_means_agree_with_plain_loops(factor: int, rows: int, columns: int) -> None:
    image = np.random.default_rng(factor).random((rows * factor, columns * factor), dtype=np.float32)
    wanted = [
        [image[r * factor : (r + 1) * factor, c * factor : (c + 1) * factor].mean() for c in range(columns)]
        for r in range(rows)
    ]
    np.testing.assert_allclose(block_mean(image, factor), wanted, rtol=1e-5)
