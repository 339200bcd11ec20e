"""The palette of a scene: what is green, dark and alike there follows from what grows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from geoseg_cli.training.materials import CROP, GRASS, Climate, Palette, Season, mix_palette
from geoseg_cli.training.spectra import S2_BANDS, SpectralLibrary

SPECTRA = (
    Path(os.environ.get("GEOSEG_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "training" / "spectra"
)
pytestmark = pytest.mark.skipif(not SPECTRA.is_dir(), reason="spectra not found: set GEOSEG_REAL_DATA")

RED, NIR, SWIR = (S2_BANDS.index(band) for band in ("B04", "B08", "B11"))
SCENES = 40


@pytest.fixture(scope="module")
def palettes() -> list[Palette]:
    """Summer palettes of a temperate climate."""
    return draw("summer", 0.2)


def draw(season: Season, dryness: float) -> list[Palette]:
    library = SpectralLibrary.load(SPECTRA)
    return [mix_palette(library, Climate(season, dryness), np.random.default_rng(seed)) for seed in range(SCENES)]


def spectra(palette: Palette, name: str) -> NDArray[np.float32]:
    start, count = palette.starts[name]
    return np.concatenate(palette.spectra)[start : start + count]


def ndvi(spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
    return (spectrum[..., NIR] - spectrum[..., RED]) / (spectrum[..., NIR] + spectrum[..., RED])


def median(palettes: list[Palette], name: str, band: int) -> float:
    return float(np.median(np.concatenate([spectra(palette, name)[:, band] for palette in palettes])))


def test_all_reflectances_are_possible(palettes: list[Palette]) -> None:
    for palette in palettes:
        every = np.concatenate(palette.spectra)
        assert np.isfinite(every).all()
        assert every.min() >= 0
        assert every.max() < 1.5


def test_forests_are_darker_than_meadows_in_red_and_short_wave_infrared(palettes: list[Palette]) -> None:
    for band in (RED, SWIR):
        assert median(palettes, "forest", band) < 0.8 * median(palettes, "meadow", band)


def test_forests_reflect_what_broad_leaves_and_needles_do(palettes: list[Palette]) -> None:
    # EuroSAT's forests, top of atmosphere: 0.16 to 0.35 at 0.83 um, 0.07 to 0.16 at 1.6 um.
    assert 0.2 < median(palettes, "forest", NIR) < 0.38
    assert 0.08 < median(palettes, "forest", SWIR) < 0.17
    assert median(palettes, "forest", RED) < 0.035


def test_meadows_are_greener_than_steppe(palettes: list[Palette]) -> None:
    greener = [np.median(ndvi(spectra(one, "meadow"))) > np.median(ndvi(spectra(one, "steppe"))) for one in palettes]
    assert np.mean(greener) > 0.9


def test_the_crops_of_a_region_are_fewer_than_those_of_all_regions(palettes: list[Palette]) -> None:
    values = np.stack([ndvi(spectra(palette, "crop")) for palette in palettes])
    between = values.mean(axis=1).std()
    # Fields that were drawn one by one would leave 1 / sqrt(48) of the deviation between regions.
    assert between > 2 * values.std() / np.sqrt(values.shape[1])


def test_more_fields_are_green_in_spring_and_summer_than_in_autumn() -> None:
    def green_share(season: Season) -> float:
        return float(np.mean([ndvi(spectra(palette, "crop")) > 0.6 for palette in draw(season, 0.2)]))

    autumn = green_share("autumn")
    assert green_share("summer") > 1.3 * autumn
    assert green_share("spring") > 1.3 * autumn


def test_orchards_are_crops_between_bare_soil_and_forest(palettes: list[Palette]) -> None:
    for palette in palettes:
        start, count = palette.starts["orchard"]
        assert palette.codes[start : start + count] == [CROP] * count
        orchard, soil, forest = (np.median(ndvi(spectra(palette, name))) for name in ("orchard", "open_soil", "forest"))
        assert soil < orchard < forest


def test_gardens_are_grass_between_streets_and_meadows(palettes: list[Palette]) -> None:
    between = []
    for palette in palettes:
        start, count = palette.starts["garden"]
        assert palette.codes[start : start + count] == [GRASS] * count
        street, garden, meadow = (np.median(ndvi(spectra(palette, name))) for name in ("street", "garden", "meadow"))
        between.append(street < garden < meadow + 0.1)
    assert np.mean(between) > 0.9
