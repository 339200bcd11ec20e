"""Optical depth, light, shadow and labels of clouds, without any scene."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.training.clouds import (
    SHADOW_TRANSMISSION,
    THICK_OPTICAL_DEPTH,
    THIN_OPTICAL_DEPTH,
    CloudLayer,
    CloudOptions,
    beam_transmission,
    label_clouds,
    make_clouds,
    shadow_shift,
)
from geoseg_cli.training.spectra import CHANNELS, S2_BANDS

B02, B11, B12 = (S2_BANDS.index(name) for name in ("B02", "B11", "B12"))


def sheet(depth: float, is_ice: bool = False) -> CloudLayer:
    return CloudLayer(np.full((2, 2), depth, np.float32), np.ones((2, 2), np.float32), 1000.0, is_ice)


def test_overhead_sun_gives_the_two_stream_reflectance() -> None:
    # (1 - g) depth / (2 + (1 - g) depth) with g = 0.85, by hand for depth 20: 3 / 5.
    reflected, _ = sheet(20.0).reflectance(B02, 0.0)
    np.testing.assert_allclose(reflected, 0.6, rtol=1e-5)


@given(st.floats(0.0, 200.0), st.floats(0.0, 1.2))
def test_cloud_never_gives_more_light_than_it_gets(depth: float, zenith: float) -> None:
    for band in range(len(CHANNELS)):
        for is_ice in (False, True):
            reflected, passed = sheet(depth, is_ice).reflectance(band, zenith)
            assert reflected.min() >= 0
            assert reflected.max() + passed.max() <= 1 + 1e-5


def test_ice_is_darker_than_droplets_in_short_wave_infrared() -> None:
    for band, low, high in ((B11, 0.6, 0.8), (B12, 0.4, 0.6)):
        blue = sheet(60.0).reflectance(B02, 0.6)[0].mean()
        water = sheet(60.0).reflectance(band, 0.6)[0].mean()
        ice = sheet(60.0, is_ice=True).reflectance(band, 0.6)[0].mean()
        assert low < water / blue < high
        assert ice < 0.75 * water


@given(st.floats(0, 89), st.floats(0, 359.9), st.floats(0, 3000))
def test_shadow_points_away_from_the_sun(zenith_deg: float, azimuth_deg: float, height_m: float) -> None:
    rows, columns = shadow_shift(height_m, np.radians(zenith_deg), np.radians(azimuth_deg), 10.0)
    east, north = np.sin(np.radians(azimuth_deg)), np.cos(np.radians(azimuth_deg))
    length = height_m * np.tan(np.radians(zenith_deg)) / 10
    assert columns == pytest.approx(-east * length, abs=0.51)
    assert -rows == pytest.approx(-north * length, abs=0.51)


def test_labels_change_exactly_at_the_thresholds() -> None:
    below, at = np.float32(1 - 1e-5), np.float32(1)
    depth = np.array([[THIN_OPTICAL_DEPTH * below, THIN_OPTICAL_DEPTH * at,
                       THICK_OPTICAL_DEPTH * below, THICK_OPTICAL_DEPTH * at]], np.float32)  # fmt: skip
    valid = np.ones_like(depth, bool)
    np.testing.assert_array_equal(label_clouds(depth, np.zeros_like(depth), valid), [[0, 2, 2, 1]])
    np.testing.assert_array_equal(label_clouds(depth, np.full_like(depth, 50), valid), [[3, 2, 2, 1]])
    np.testing.assert_array_equal(label_clouds(depth, np.zeros_like(depth), ~valid), [[255] * 4])


def test_shadow_starts_where_the_beam_is_weak_enough() -> None:
    # Scaled depth (1 - g^2) d = -ln(transmission).
    limit = -np.log(SHADOW_TRANSMISSION) / (1 - 0.85**2)
    beam = np.array([[limit * 0.999, limit * 1.001]], np.float32)
    labels = label_clouds(np.zeros((1, 2), np.float32), beam, np.ones((1, 2), bool))
    np.testing.assert_array_equal(labels, [[0, 3]])
    assert beam_transmission(beam)[0, 0] == pytest.approx(SHADOW_TRANSMISSION, rel=2e-3)


def test_clear_has_no_layer_and_multilayer_has_ice_on_top() -> None:
    options = CloudOptions((64, 64), 10.0, 2.0)
    assert make_clouds("clear", options, np.random.default_rng(0)) == []
    low, high = make_clouds("multilayer", options, np.random.default_rng(0))
    assert low.height_m < high.height_m
    assert high.is_ice
