"""Measured spectra per satellite band, and the physics that turns laboratory spectra into what a satellite sees.

A channel is one band of one instrument. Spectra are arrays (..., C) float32 of reflectance 0..1, one column for every
channel of every instrument in `BAND_TABLES`, Sentinel-2 first: a material is drawn once and seen by all of them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from geoseg_cli.errors import InputError, InputMissingError

FloatArray = NDArray[np.float32]
Row = dict[str, str]

S2_BANDS: Final = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BandTable:
    """Where the channels of one instrument come from.

    Attributes:
        bands: names of its own, the columns of the tables.
        wavelength_nm: centres, rising.
        files: tables of two sister instruments with the same rows (the same one twice where there is no sister); empty
            where the channels are means of the hyperspectral curves over `width_nm`.
        width_nm: width of each band where `files` is empty.
    """

    bands: tuple[str, ...]
    wavelength_nm: tuple[float, ...]
    files: tuple[str, ...] = ()
    width_nm: tuple[float, ...] = ()


# Centres of the published response functions (S2A, Landsat 8, 7 and 5). Planet prints 465-515, 547-583, 650-680 and
# 845-885 nm as blue, green, red and near infrared of its newest PlanetScope cameras (support.planet.com, "PlanetScope
# 8-band asset").
BAND_TABLES: Final[dict[str, BandTable]] = {
    "msi": BandTable(
        S2_BANDS,
        (442.7, 492.4, 559.8, 664.6, 704.1, 740.5, 782.8, 832.8, 864.7, 945.1, 1373.5, 1613.7, 2202.4),
        ("s2a_bands.csv", "s2b_bands.csv"),
    ),
    "oli": BandTable(
        ("B1", "B2", "B3", "B4", "B5", "B9", "B6", "B7"),
        (443.0, 482.6, 561.3, 654.6, 864.6, 1373.5, 1609.1, 2201.2),
        ("l8_bands.csv", "l9_bands.csv"),
    ),
    "etm": BandTable(
        ("B1", "B2", "B3", "B4", "B5", "B7"),
        (478.7, 561.0, 661.4, 834.6, 1649.8, 2208.5),
        ("l7_bands.csv", "l7_bands.csv"),
    ),
    "tm": BandTable(
        ("B1", "B2", "B3", "B4", "B5", "B7"),
        (486.3, 570.4, 660.3, 838.0, 1676.7, 2217.6),
        ("l5_bands.csv", "l5_bands.csv"),
    ),
    "dove": BandTable(("blue", "green", "red", "nir"), (490.0, 565.0, 665.0, 865.0), width_nm=(50.0, 36.0, 30.0, 40.0)),
}
_CURVES: Final = {
    "ecostress": "ecostress_library.npz",
    "ecostress_snow": "ecostress_snow_mixtures.npz",
    "earthlib": "earthlib_spectra.npz",
}

CHANNELS: Final = tuple((name, band) for name, table in BAND_TABLES.items() for band in table.bands)
WAVELENGTH_NM: Final[FloatArray] = np.array(
    [centre for table in BAND_TABLES.values() for centre in table.wavelength_nm], np.float32
)
S2_WAVELENGTH_NM: Final[FloatArray] = WAVELENGTH_NM[: len(S2_BANDS)]


def channels_of(table: str, bands: Sequence[str]) -> tuple[int, ...]:
    """Columns of the bands of one table."""
    return tuple(CHANNELS.index((table, band)) for band in bands)


def spread_smooth(values: Sequence[float] | NDArray[np.float64]) -> FloatArray:
    """A property that is known at Sentinel-2's 13 bands, interpolated along wavelength for all channels: (C,)."""
    return np.asarray(np.interp(WAVELENGTH_NM, S2_WAVELENGTH_NM, values), np.float32)


def spread_nearest(values: Sequence[float]) -> FloatArray:
    """As `spread_smooth` for what absorption lines decide: every channel takes the value of the nearest band."""
    nearest = np.abs(WAVELENGTH_NM[:, None] - S2_WAVELENGTH_NM).argmin(axis=1)
    return np.array([values[band] for band in nearest], np.float32)


# Absorption of pure water, 1/m: Pope and Fry 1997 (below 700 nm), Hale and Querry 1973 (above). It spans five
# decades, so its logarithm is interpolated.
_WATER_ABSORPTION: Final = np.exp(
    spread_smooth(np.log([0.0070, 0.0150, 0.0619, 0.429, 0.70, 2.71, 2.30, 3.30, 4.60, 29.0, 400.0, 670.0, 2000.0]))
)
# Phytoplankton absorption relative to 443 nm: two pigment peaks (after Bricaud et al. 1995), nothing beyond 720 nm.
_PIGMENT_SHAPE: Final = spread_smooth([1.0, 0.70, 0.25, 0.45, 0.08, 0, 0, 0, 0, 0, 0, 0, 0])

# class, subclass prefix of the table -> our group; the first match wins, and rows without a match are not used.
_GROUPS: Final = (
    ("vegetation", "canopy", "canopy"),
    ("vegetation", "grey_or_senescent", "senescent"),
    ("vegetation", "", "leaf"),
    ("npv_bark_dry_plant", "", "dry_plant"),
    ("soil", "", "soil"),
    ("hydrated_mineral_salt", "", "salt"),
    ("manmade_mineral_rock", "green_artificial", "roof"),
    ("manmade_mineral_rock", "", "rock"),
    ("manmade", "asphalt", "paved"),
    ("manmade", "road", "paved"),
    ("manmade", "gravel", "paved"),
    ("manmade", "driveway", "paved"),
    ("manmade", "sidewalk", "paved"),
    ("manmade", "concrete", "paved"),
    ("manmade", "", "roof"),
    ("snow_ice", "", "snow"),
    ("snow_mixture_dark", "", "dark_snow"),
    ("burned", "", "char"),
)
GROUP_NAMES: Final = tuple(dict.fromkeys(group for _, _, group in _GROUPS))


@dataclass(frozen=True, slots=True)
class SpectralLibrary:
    """Usable reflectance spectra by group.

    Attributes:
        groups: group name -> (n, C) float32 reflectance 0..1.03, no missing values.
    """

    groups: Mapping[str, FloatArray]

    @classmethod
    def load(cls, folder: str | Path) -> SpectralLibrary:
        """Read the band tables and hyperspectral curves in `folder`.

        Raises:
            InputMissingError: a file is not there.
            InputError: a table lacks a column, tables differ in their rows, or a group has no usable spectrum.
        """
        rows, spectra = _read_tables(Path(folder))
        collected: dict[str, list[int]] = {name: [] for name in GROUP_NAMES}
        for number, row in enumerate(rows):
            group = _group_of(row["class"], row["subclass"])
            if group is not None:
                collected[group].append(number)
        empty = [name for name, numbers in collected.items() if not numbers]
        if empty:
            raise InputError(f"no usable spectrum for {', '.join(empty)} in {folder}", "Pass the complete folder.")
        return cls({name: spectra[numbers] for name, numbers in collected.items()})

    def draw(self, rng: np.random.Generator, group: str, count: int) -> FloatArray:
        """Draw spectra of one group.

        Half of each result is a blend of two spectra, so that no two scenes use the very same curves.

        Returns:
            (count, C) float32, reflectance 0..1.
        """
        spectra = self.groups[group]
        first, second = rng.integers(0, len(spectra), (2, count))
        weight = np.where(rng.random(count) < 0.5, 0.0, rng.random(count)).astype(np.float32)[:, None]
        mixed: FloatArray = spectra[first] * (1 - weight) + spectra[second] * weight
        return np.clip(mixed, 0.002, 1.0)


def _read_tables(folder: Path) -> tuple[list[Row], FloatArray]:
    """Usable rows, once per sister instrument, and their spectra (n, C) without gaps."""
    tables = list(BAND_TABLES.values())
    files = {file: _usable_rows(folder / file, table.bands) for table in tables for file in table.files}
    rows, *others = files.values()
    labels = [(row["library"], row["name"]) for row in rows]
    if any([(row["library"], row["name"]) for row in other] != labels for other in others):
        raise InputError(f"the band tables in {folder} differ in their rows", "Use the published band tables.")
    blocks = [
        [_columns(files[file], table) for file in table.files] if table.files else [_box_means(folder, rows, table)] * 2
        for table in tables
    ]
    sisters = [np.concatenate(sister, axis=1) for sister in zip(*blocks, strict=True)]
    return rows * len(sisters), np.concatenate(sisters)


def _usable_rows(path: Path, bands: Sequence[str]) -> list[Row]:
    """Rows of a band table with usable = 1."""
    if not path.is_file():
        raise InputMissingError(f"no band table {path}", "Pass the folder that holds s2a_bands.csv and its sisters.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"library", "name", "class", "subclass", "usable", *bands} - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{path} has no column {', '.join(sorted(missing))}", "Use the published band tables.")
        return [row for row in reader if row["usable"] == "1"]


def _columns(rows: Sequence[Row], table: BandTable) -> FloatArray:
    """Reflectance (n, bands) of rows of a table, gaps filled."""
    values = np.array([[float(row[band] or "nan") for band in table.bands] for row in rows], np.float32)
    return _fill_gaps(values.reshape(-1, len(table.bands)), np.array(table.wavelength_nm))


def _box_means(folder: Path, rows: Sequence[Row], table: BandTable) -> FloatArray:
    """Reflectance (n, bands) of the rows' hyperspectral curves, averaged over each band's width."""
    means: dict[tuple[str, str], FloatArray] = {}
    for library in dict.fromkeys(row["library"] for row in rows):
        path = folder / _CURVES.get(library, f"{library}.npz")
        if not path.is_file():
            raise InputMissingError(f"no spectra {path}", "Pass the complete folder of spectra.")
        with np.load(path) as file:
            names, curves, wavelength = file["name"], file["reflectance"], file["wavelength_nm"]
        boxes = np.stack(
            [_box_mean(curves, wavelength, *box) for box in zip(table.wavelength_nm, table.width_nm, strict=True)],
            axis=1,
        )
        means |= {(library, str(name)): box for name, box in zip(names, boxes, strict=True)}
    lost = [row["name"] for row in rows if (row["library"], row["name"]) not in means]
    if lost:
        raise InputError(f"no curve for {len(lost)} rows in {folder}, {lost[0]} is the first", "Pass matching files.")
    found = [means[row["library"], row["name"]] for row in rows]
    return np.array(found, np.float32).reshape(-1, len(table.bands))


def _box_mean(curves: FloatArray, wavelength_nm: FloatArray, centre_nm: float, width_nm: float) -> FloatArray:
    """Mean of curves (n, wavelengths) over a box, each sample weighted by a linear interpolation at steps of 1 nm."""
    steps = np.arange(centre_nm - width_nm / 2, centre_nm + width_nm / 2 + 0.5)
    upper = np.clip(np.searchsorted(wavelength_nm, steps), 1, len(wavelength_nm) - 1)
    share = (steps - wavelength_nm[upper - 1]) / (wavelength_nm[upper] - wavelength_nm[upper - 1])
    weights = np.bincount(upper - 1, 1 - share, len(wavelength_nm)) + np.bincount(upper, share, len(wavelength_nm))
    return np.asarray(curves @ (weights / len(steps)), np.float32)


def _group_of(class_name: str, subclass: str) -> str | None:
    """Our group of a table row, or None where we have no use for it (laboratory water and mixtures)."""
    for wanted_class, prefix, group in _GROUPS:
        if class_name == wanted_class and subclass.startswith(prefix):
            return group
    return None


def _fill_gaps(spectra: FloatArray, wavelength_nm: NDArray[np.float64]) -> FloatArray:
    """Interpolate missing bands of (n, bands) spectra along wavelength: one library has nothing near 1375 nm."""
    for row in np.flatnonzero(np.isnan(spectra).any(axis=1)):
        known = np.isfinite(spectra[row])
        spectra[row, ~known] = np.interp(wavelength_nm[~known], wavelength_nm[known], spectra[row, known])
    return spectra


def canopy_reflectance(leaf: FloatArray, sunlit: FloatArray | float) -> FloatArray:
    """Reflectance of a closed canopy of leaves.

    A leaf transmits nearly as much as it reflects, so its single-scattering albedo is about twice its reflectance; a
    deep layer of such scatterers reflects (1 - s) / (1 + s), s = sqrt(1 - albedo) (Hapke 1981, isotropic scatterers).
    This darkens the visible far more than the near infrared. Crowns shade each other: only a part is sunlit, and the
    shaded rest is lit by light that leaves pass on, in proportion to the albedo.

    Args:
        leaf: (..., C) leaf reflectance 0..1.
        sunlit: share of the crown surface in the sun, 0..1; 0.35 tall conifers, 0.9 dense grass.

    Returns:
        (..., C) float32 canopy reflectance 0..1.
    """
    albedo = np.clip(1.9 * leaf, 0.0, 0.97)
    root = np.sqrt(1 - albedo)
    layer = (1 - root) / (1 + root)
    return np.asarray(layer * (sunlit + (1 - sunlit) * 0.35 * albedo), np.float32)


@dataclass(frozen=True, slots=True)
class WaterQuality:
    """What floats in the water.

    Attributes:
        sediment_g_m3: suspended mineral matter, 0.05 (ocean) to 500 (flooding river).
        chlorophyll_mg_m3: 0.05 to 100.
        dissolved_per_m: absorption of dissolved organic matter at 440 nm, 0.01 (ocean) to 8 (peat lake).
    """

    sediment_g_m3: float
    chlorophyll_mg_m3: float
    dissolved_per_m: float


def water_reflectance(quality: WaterQuality) -> FloatArray:
    """Reflectance of deep water without glint.

    Absorption and backscattering give the reflectance below the surface (Gordon et al. 1988), which passes the surface
    (Lee et al. 2002). Sediment: 0.02 m2/g of absorption at 440 nm and 0.012 m2/g of backscattering at 555 nm (Babin et
    al. 2003, middle of their range); pigment: 0.05 * chlorophyll^0.65 1/m (Prieur and Sathyendranath 1981).

    Returns:
        (C,) float32 reflectance 0..0.35; zero in effect beyond 1 um.
    """
    wavelength = WAVELENGTH_NM
    absorption = (
        _WATER_ABSORPTION
        + quality.dissolved_per_m * np.exp(-0.015 * (wavelength - 440))
        + 0.05 * quality.chlorophyll_mg_m3**0.65 * _PIGMENT_SHAPE
        + 0.02 * quality.sediment_g_m3 * np.exp(-0.0125 * (wavelength - 440))
    )
    particles = 0.012 * quality.sediment_g_m3 + 0.002 * quality.chlorophyll_mg_m3**0.6
    backscattering = 0.00144 * (wavelength / 500) ** -4.32 + particles * (wavelength / 555) ** -0.7
    ratio = backscattering / (absorption + backscattering)
    below = 0.0949 * ratio + 0.0794 * ratio**2
    return np.asarray(np.pi * 0.52 * below / (1 - 1.7 * below), np.float32)
