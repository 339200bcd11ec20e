"""Clear air: published values and the order of bands."""

from __future__ import annotations

import numpy as np
import pytest

from geoseg_cli.training.atmosphere import Atmosphere, rayleigh_optical_depth
from geoseg_cli.training.spectra import S2_BANDS, channels_of

AIR = Atmosphere(sun_zenith_rad=float(np.radians(40)), aerosol_depth=0.12, angstrom=1.3, vapour_cm=2.0)
B02, B08, B09, B10 = (S2_BANDS.index(name) for name in ("B02", "B08", "B09", "B10"))


def test_molecules_scatter_as_tabulated() -> None:
    # Bodhaine et al. 1999 (their full theory, 1013 hPa): 0.1460 at 500 nm, 0.0155 near 870 nm.
    depth = rayleigh_optical_depth()
    assert np.interp(500, [492.4, 559.8], depth[1:3]) == pytest.approx(0.146, rel=0.05)
    assert depth[S2_BANDS.index("B8A")] == pytest.approx(0.0157, rel=0.04)


def test_path_light_falls_from_blue_to_short_wave_infrared() -> None:
    path = AIR.layer(0, np.inf).path
    assert 0.05 < path[B02] < 0.1
    assert (np.diff(path[[0, 1, 2, 3, 7, 11, 12]]) < 0).all()


def test_vapour_hides_the_ground_in_the_cirrus_band_but_not_high_cloud() -> None:
    assert AIR.layer(0, np.inf).transmission[B10] < 1e-6
    assert AIR.layer(10_000, np.inf).transmission[B10] > 0.7
    assert 0.1 < AIR.layer(0, np.inf).transmission[B09] < 0.5


def test_dry_air_lets_the_cirrus_band_see_mountains() -> None:
    polar = Atmosphere(AIR.sun_zenith_rad, 0.05, 1.3, vapour_cm=0.1, ground_m=3000)
    assert polar.layer(0, np.inf).transmission[B10] > 0.2


def test_stacked_layers_transmit_like_the_whole() -> None:
    whole = AIR.layer(0, np.inf).transmission
    parts = AIR.layer(0, 1500).transmission * AIR.layer(1500, np.inf).transmission
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-12)


def test_skylight_is_blue() -> None:
    sky = AIR.sky_share()
    assert 0.15 < sky[B02] < 0.35
    assert sky[B08] < 0.6 * sky[B02]


def test_smoke_hides_the_ground_more_than_clear_air() -> None:
    clean, smoke = (Atmosphere(0.6, depth, 1.3, 2.0).layer(0, np.inf) for depth in (0.05, 1.0))
    # Over dark ground an aerosol depth of 1 about doubles the blue and adds 0.05 to 0.15 of red reflectance.
    red = S2_BANDS.index("B04")
    assert 1.6 < smoke.path[B02] / clean.path[B02] < 4
    assert 0.05 < smoke.path[red] - clean.path[red] < 0.15
    assert (smoke.transmission <= clean.transmission).all()


def test_mountains_have_less_air_above_them() -> None:
    low, high = (Atmosphere(0.6, 0.1, 1.3, 1.0, ground_m).layer(0, np.inf) for ground_m in (0.0, 4000.0))
    assert high.path[B02] < 0.8 * low.path[B02]
    assert high.transmission[B09] > low.transmission[B09]


def test_the_same_wavelength_sees_the_same_air_in_every_instrument() -> None:
    layer = AIR.layer(0, np.inf)
    for table, bands, twins in (("oli", ("B2", "B4", "B5", "B6"), ("B02", "B04", "B8A", "B11")),
                                ("dove", ("blue", "red", "nir"), ("B02", "B04", "B8A"))):  # fmt: skip
        own, twin = list(channels_of(table, bands)), list(channels_of("msi", twins))
        np.testing.assert_allclose(layer.transmission[own], layer.transmission[twin], rtol=0.02)
        np.testing.assert_allclose(layer.path[own], layer.path[twin], rtol=0.12, atol=1e-4)
