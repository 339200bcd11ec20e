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
    BAND_TABLES,
    CHANNELS,
    GROUP_NAMES,
    S2_BANDS,
    WAVELENGTH_NM,
    SpectralLibrary,
    WaterQuality,
    canopy_reflectance,
    channels_of,
    water_reflectance,
)

SPECTRA = (
    Path(os.environ.get("GEOSEG_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "training" / "spectra"
)
needs_spectra = pytest.mark.skipif(not SPECTRA.is_dir(), reason="spectra not found: set GEOSEG_REAL_DATA")


def write_tables(folder: Path, row: str | None = None, without: str = "-") -> None:
    """Band tables with one row at most (`row` before its numbers, 0.2 in all bands), lacking one column."""
    for table in BAND_TABLES.values():
        for file in table.files:
            bands = [band for band in table.bands if band != without]
            lines = [",".join(["library,name,class,subclass,usable", *bands])]
            lines += [",".join([row, *["0.2"] * len(bands)])] if row else []
            (folder / file).write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def library() -> SpectralLibrary:
    return SpectralLibrary.load(SPECTRA)


@needs_spectra
def test_every_group_has_complete_plausible_spectra(library: SpectralLibrary) -> None:
    assert set(library.groups) == set(GROUP_NAMES)
    for spectra in library.groups.values():
        assert spectra.shape[1] == len(CHANNELS)
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
    assert first.shape == (50, len(CHANNELS))
    np.testing.assert_array_equal(first, library.draw(np.random.default_rng(4), "soil", 50))
    soils = library.groups["soil"]
    assert (first <= np.clip(soils.max(axis=0), 0.002, 1) + 1e-6).all()
    assert (first >= np.clip(soils.min(axis=0), 0.002, 1) - 1e-6).all()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"s2a_bands\.csv"):
        SpectralLibrary.load(tmp_path)


def test_missing_column_is_named(tmp_path: Path) -> None:
    write_tables(tmp_path, without="B12")
    with pytest.raises(InputError, match="B12"):
        SpectralLibrary.load(tmp_path)


def test_unusable_rows_do_not_count(tmp_path: Path) -> None:
    write_tables(tmp_path, "x,one,soil,,0")
    with pytest.raises(InputError, match="soil"):
        SpectralLibrary.load(tmp_path)


def test_tables_with_other_rows_are_refused(tmp_path: Path) -> None:
    write_tables(tmp_path, "x,one,soil,,1")
    table = tmp_path / "l8_bands.csv"
    table.write_text(table.read_text().replace("x,one", "x,two"))
    with pytest.raises(InputError, match="rows"):
        SpectralLibrary.load(tmp_path)


def test_missing_curves_are_named(tmp_path: Path) -> None:
    write_tables(tmp_path, "earthlib,one,soil,,1")
    with pytest.raises(InputMissingError, match=r"earthlib_spectra\.npz"):
        SpectralLibrary.load(tmp_path)


def test_a_row_without_a_curve_is_named(tmp_path: Path) -> None:
    write_tables(tmp_path, "earthlib,one,soil,,1")
    np.savez(
        tmp_path / "earthlib_spectra.npz", name=np.array(["two"]), reflectance=np.full((1, 180), 0.2),
        wavelength_nm=np.arange(400, 2200, 10.0),
    )  # fmt: skip
    with pytest.raises(InputError, match="one is the first"):
        SpectralLibrary.load(tmp_path)


@needs_spectra
@pytest.mark.parametrize(
    ("table", "bands", "twins"),
    [
        ("oli", ("B1", "B2", "B4", "B5", "B6", "B7"), ("B01", "B02", "B04", "B8A", "B11", "B12")),
        ("etm", ("B1", "B3", "B7"), ("B02", "B04", "B12")),
        ("tm", ("B1", "B3", "B7"), ("B02", "B04", "B12")),
        ("dove", ("blue", "red", "nir"), ("B02", "B04", "B8A")),
    ],
)
def test_a_row_is_the_same_material_in_every_table(
    library: SpectralLibrary, table: str, bands: tuple[str, ...], twins: tuple[str, ...]
) -> None:
    for group in ("soil", "leaf", "rock", "roof"):
        spectra = library.groups[group]
        for own, twin in zip(channels_of(table, bands), channels_of("msi", twins), strict=True):
            assert np.median(np.abs(spectra[:, own] - spectra[:, twin])) < 0.01
            assert np.corrcoef(spectra[:, own], spectra[:, twin])[0, 1] > 0.97


@needs_spectra
def test_boxes_average_the_hyperspectral_curves(library: SpectralLibrary) -> None:
    with np.load(SPECTRA / "earthlib_spectra.npz") as file:
        of_soil = (file["class"] == "soil") & (file["usable"] == 1)
        curves, wavelength = file["reflectance"][of_soil], file["wavelength_nm"]
    # 650 to 680 nm; the library's samples lie 10 nm apart, so the mean is a trapezium rule.
    inside = curves[:, (wavelength >= 650) & (wavelength <= 680)]
    expected = np.sort((inside[:, 1:] + inside[:, :-1]).mean(axis=1) / 2)
    found = library.groups["soil"][:, channels_of("dove", ["red"])[0]]
    assert all(np.abs(found - value).min() < 1e-3 for value in expected)


def test_wavelengths_rise_within_a_table() -> None:
    assert len(WAVELENGTH_NM) == len(CHANNELS)
    assert all(np.diff(table.wavelength_nm).min() > 0 for table in BAND_TABLES.values())


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
        assert water[WAVELENGTH_NM > 1300].max() < 0.02
        assert water[WAVELENGTH_NM > 2000].max() < 0.01
        assert water.min() > 0
        assert water.max() < 0.4


def test_sediment_brightens_and_dissolved_matter_darkens_water() -> None:
    clear, muddy = (water_reflectance(WaterQuality(sediment, 0.5, 0.05)) for sediment in (0.2, 80.0))
    peaty = water_reflectance(WaterQuality(0.2, 0.5, 5.0))
    assert (muddy > clear).all()
    assert peaty[1] < 0.5 * clear[1]
    assert WAVELENGTH_NM[clear.argmax()] < 500, "clean water is blue"
    assert 550 < WAVELENGTH_NM[muddy.argmax()] < 710, "muddy water is green to red"
