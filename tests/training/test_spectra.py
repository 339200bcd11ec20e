"""The spectral library and the physics of leaves and water."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.errors import InputError, InputMissingError
from geoseg_cli.training.spectra import (
    GROUP_NAMES,
    S2_BANDS,
    SpectralLibrary,
    WaterQuality,
    canopy_reflectance,
    water_reflectance,
)

SPECTRA = (
    Path(os.environ.get("GEOSEG_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "training" / "spectra"
)
needs_spectra = pytest.mark.skipif(not SPECTRA.is_dir(), reason="spectra not found: set GEOSEG_REAL_DATA")

HEADER = "library,name,class,subclass,usable," + ",".join(S2_BANDS)


@pytest.fixture(scope="module")
def library() -> SpectralLibrary:
    return SpectralLibrary.load(SPECTRA)


@needs_spectra
def test_every_group_has_complete_plausible_spectra(library: SpectralLibrary) -> None:
    assert set(library.groups) == set(GROUP_NAMES)
    for spectra in library.groups.values():
        assert spectra.shape[1] == 13
        assert np.isfinite(spectra).all()
        assert spectra.min() > -0.05
        assert spectra.max() < 1.1


@needs_spectra
def test_groups_keep_their_spectral_character(library: SpectralLibrary) -> None:
    red, nir, swir = S2_BANDS.index("B04"), S2_BANDS.index("B08"), S2_BANDS.index("B11")
    median = {name: np.median(spectra, axis=0) for name, spectra in library.groups.items()}
    assert median["leaf"][nir] > 4 * median["leaf"][red]
    assert median["soil"][swir] > median["soil"][red]
    assert median["snow"][red] > 0.8 > 0.3 > median["snow"][swir]
    assert median["char"].max() < 0.3


@needs_spectra
def test_draws_are_deterministic_and_within_the_group(library: SpectralLibrary) -> None:
    first = library.draw(np.random.default_rng(4), "soil", 50)
    assert first.shape == (50, 13)
    np.testing.assert_array_equal(first, library.draw(np.random.default_rng(4), "soil", 50))
    soils = library.groups["soil"]
    assert (first <= np.clip(soils.max(axis=0), 0.002, 1) + 1e-6).all()
    assert (first >= np.clip(soils.min(axis=0), 0.002, 1) - 1e-6).all()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"s2a_bands\.csv"):
        SpectralLibrary.load(tmp_path)


def test_missing_column_is_named(tmp_path: Path) -> None:
    for table in ("s2a_bands.csv", "s2b_bands.csv"):
        (tmp_path / table).write_text(HEADER.replace(",B12", "") + "\n")
    with pytest.raises(InputError, match="B12"):
        SpectralLibrary.load(tmp_path)


def test_unusable_rows_do_not_count(tmp_path: Path) -> None:
    row = "x,one,soil,,0," + ",".join(["0.2"] * 13)
    for table in ("s2a_bands.csv", "s2b_bands.csv"):
        (tmp_path / table).write_text(f"{HEADER}\n{row}\n")
    with pytest.raises(InputError, match="soil"):
        SpectralLibrary.load(tmp_path)


@given(st.floats(0.01, 0.45), st.floats(0.1, 0.9))
def test_a_canopy_is_darker_than_its_leaves(leaf: float, sunlit: float) -> None:
    canopy = canopy_reflectance(np.full(13, leaf, np.float32), sunlit)
    assert (canopy > 0).all()
    assert (canopy < leaf).all()


def test_a_canopy_darkens_red_more_than_near_infrared() -> None:
    leaf = np.array([0.07] * 6 + [0.49] * 7, np.float32)
    canopy = canopy_reflectance(leaf, 0.5)
    assert canopy[0] / leaf[0] < 0.5 * canopy[12] / leaf[12]


def test_water_is_black_beyond_one_micrometre() -> None:
    for sediment in (0.1, 10.0, 300.0):
        water = water_reflectance(WaterQuality(sediment, 1.0, 0.1))
        assert water[S2_BANDS.index("B11")] < 0.02
        assert water[S2_BANDS.index("B12")] < 0.01
        assert water.min() > 0
        assert water.max() < 0.4


def test_sediment_brightens_and_dissolved_matter_darkens_water() -> None:
    clear, muddy = (water_reflectance(WaterQuality(sediment, 0.5, 0.05)) for sediment in (0.2, 80.0))
    peaty = water_reflectance(WaterQuality(0.2, 0.5, 5.0))
    assert (muddy > clear).all()
    assert peaty[1] < 0.5 * clear[1]
    assert clear.argmax() <= 1, "clean water is blue"
    assert muddy.argmax() in (2, 3, 4), "muddy water is green to red"
