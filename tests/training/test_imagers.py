"""The table of instruments agrees with the catalogue and with published figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geoseg_cli.catalog import sensors
from geoseg_cli.errors import UsageError
from geoseg_cli.training.imagers import IMAGERS, ImagerName, imager_named
from geoseg_cli.training.sensor import Sensor
from geoseg_cli.training.spectra import CHANNELS, WAVELENGTH_NM

CATALOGUED: dict[ImagerName, str] = {
    "sentinel-2": "sentinel-2",
    "landsat-8": "landsat-8",
    "landsat-5": "landsat-5",
    "hls-l30": "hls-l30",
}
RNG_SEED = 7


@pytest.mark.parametrize(("name", "entry"), CATALOGUED.items())
def test_bands_bear_the_names_and_wavelengths_of_the_catalogue(name: ImagerName, entry: str) -> None:
    by_names = {band.common: band for band in sensors()[entry].bands}
    imager = IMAGERS[name]
    for names, channel, gsd_m in zip(imager.bands, imager.channels, imager.gsd_m, strict=True):
        assert WAVELENGTH_NM[channel] == pytest.approx(by_names[names].wavelength_nm, abs=6)
        assert gsd_m == by_names[names].gsd_m


@pytest.mark.parametrize("name", IMAGERS)
def test_every_band_has_all_its_properties(name: ImagerName) -> None:
    imager = IMAGERS[name]
    count = len(imager.bands)
    lengths = (imager.channels, imager.gsd_m, imager.parallax_rad, *imager.full_scale)
    assert {len(property_) for property_ in lengths} == {count}
    assert len(set(imager.channels)) == count
    assert len({CHANNELS[channel][0] for channel in imager.channels}) == 1, "bands of one instrument"
    first_names = [names[0] for names in imager.bands]
    assert imager.parallax_rad[first_names.index("red")] == 0
    assert 0 < imager.wobble_px < 0.5


def test_thematic_mapper_saturates_over_snow_in_blue() -> None:
    # pi * 193 / 1983 = 0.306 under a sun at zenith (Chander et al. 2009); twice that at a zenith angle of 60 degrees.
    full_scale = IMAGERS["landsat-5"].draw_full_scale(np.random.default_rng(RNG_SEED), np.radians(60))
    assert full_scale[0] == pytest.approx(2 * 0.306, rel=2e-3)
    assert (IMAGERS["sentinel-2"].draw_full_scale(np.random.default_rng(RNG_SEED), 0.0)[[1, 2, 3]] > 0.9).all()


@pytest.mark.parametrize(("name", "file", "zenith_cosine"), [("landsat-5", 5, 0.77), ("landsat-7", 7, 0.775)])
def test_eight_bit_bands_saturate_where_real_scenes_do(
    real_data: Path, name: ImagerName, file: int, zenith_cosine: float
) -> None:
    # Blue, green, red of a cloudy scene; the sun's height is not recorded, but one height must explain all bands.
    with np.load(real_data / "training" / f"ukis_landsat{file}_cloud.npz") as data:
        top = data["dn"][:3].max(axis=(1, 2)) * 1e-4
    settings = np.array(IMAGERS[name].full_scale)[:, :3] / zenith_cosine
    assert np.abs(settings / top - 1).max(axis=1).min() < 0.03


def test_an_unknown_sensor_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="modis") as caught:
        imager_named("modis")
    assert "landsat-8" in str(caught.value.hint)


@pytest.mark.parametrize("name", IMAGERS)
def test_stripes_stand_out_in_the_spectrum_of_column_or_row_means(name: ImagerName) -> None:
    imager = IMAGERS[name]
    noise = 10 ** imager.noise_log10[1]
    sensor = Sensor(1, (0.0, 0.0), 0.15, noise * 0.7, noise**2 * 3, False, 1.0, imager.bits, imager.stripes)
    seen = sensor.observe(np.full((256, 256), 0.35, np.float32), np.random.default_rng(RNG_SEED))
    across, along = seen.mean(axis=1 - imager.stripes.axis), seen.mean(axis=imager.stripes.axis)
    power = [np.abs(np.fft.rfft(means - means.mean()))[1:] ** 2 for means in (across, along)]
    assert power[0].mean() > 3 * power[1].mean(), "means over noise alone are much more even"
    if imager.stripes.detectors == 16:
        # 16 detectors to and fro repeat after 32 rows: all power lies at multiples of 8 waves in 256 rows.
        multiples = power[0][7::8].sum()
        assert multiples > 0.9 * power[0].sum()
