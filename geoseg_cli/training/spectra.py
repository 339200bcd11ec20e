"""Measured spectra per Sentinel-2 band, and the physics that turns laboratory spectra into what a satellite sees.

Spectra are arrays (..., 13) float32 of reflectance 0..1 in the order of S2_BANDS.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from geoseg_cli.errors import InputError, InputMissingError

FloatArray = NDArray[np.float32]

S2_BANDS: Final = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip

# Band centres of Sentinel-2A, from its published response functions.
S2_WAVELENGTH_NM: Final[FloatArray] = np.array(
    [442.7, 492.4, 559.8, 664.6, 704.1, 740.5, 782.8, 832.8, 864.7, 945.1, 1373.5, 1613.7, 2202.4], np.float32
)
S2_NATIVE_GSD_M: Final = (60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 60, 20, 20)

TABLES: Final = ("s2a_bands.csv", "s2b_bands.csv")

# Absorption of pure water, 1/m, at the band centres: Pope and Fry 1997 (below 700 nm), Hale and Querry 1973 (above).
_WATER_ABSORPTION = np.array(
    [0.0070, 0.0150, 0.0619, 0.429, 0.70, 2.71, 2.30, 3.30, 4.60, 29.0, 400.0, 670.0, 2000.0], np.float32
)
# Phytoplankton absorption relative to 443 nm: two pigment peaks (after Bricaud et al. 1995), nothing beyond 720 nm.
_PIGMENT_SHAPE = np.array([1.0, 0.70, 0.25, 0.45, 0.08, 0, 0, 0, 0, 0, 0, 0, 0], np.float32)

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
        groups: group name -> (n, 13) float32 reflectance 0..1.03, S2_BANDS order, no missing values.
    """

    groups: Mapping[str, FloatArray]

    @classmethod
    def load(cls, folder: str | Path) -> SpectralLibrary:
        """Read the Sentinel-2 band tables in `folder`.

        Raises:
            InputMissingError: a table is not there.
            InputError: a table lacks a column, or a group has no usable spectrum.
        """
        collected: dict[str, list[list[float]]] = {name: [] for name in GROUP_NAMES}
        for table in TABLES:
            for row in _usable_rows(Path(folder) / table):
                group = _group_of(row["class"], row["subclass"])
                if group is not None:
                    collected[group].append([float(row[band] or "nan") for band in S2_BANDS])
        empty = [name for name, rows in collected.items() if not rows]
        if empty:
            raise InputError(f"no usable spectrum for {', '.join(empty)} in {folder}", "Pass the complete folder.")
        return cls({name: _fill_gaps(np.array(rows, np.float32)) for name, rows in collected.items()})

    def draw(self, rng: np.random.Generator, group: str, count: int) -> FloatArray:
        """Draw spectra of one group.

        Half of each result is a blend of two spectra, so that no two scenes use the very same curves.

        Returns:
            (count, 13) float32, reflectance 0..1.
        """
        spectra = self.groups[group]
        first, second = rng.integers(0, len(spectra), (2, count))
        weight = np.where(rng.random(count) < 0.5, 0.0, rng.random(count)).astype(np.float32)[:, None]
        mixed: FloatArray = spectra[first] * (1 - weight) + spectra[second] * weight
        return np.clip(mixed, 0.002, 1.0)


def _usable_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a band table with usable = 1."""
    if not path.is_file():
        raise InputMissingError(f"no band table {path}", "Pass the folder that holds s2a_bands.csv and s2b_bands.csv.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"class", "subclass", "usable", *S2_BANDS} - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{path} has no column {', '.join(sorted(missing))}", "Use the published band tables.")
        return [row for row in reader if row["usable"] == "1"]


def _group_of(class_name: str, subclass: str) -> str | None:
    """Our group of a table row, or None where we have no use for it (laboratory water and mixtures)."""
    for wanted_class, prefix, group in _GROUPS:
        if class_name == wanted_class and subclass.startswith(prefix):
            return group
    return None


def _fill_gaps(spectra: FloatArray) -> FloatArray:
    """Interpolate missing bands of (n, 13) spectra along wavelength: one library has nothing near 1375 nm."""
    for spectrum in spectra:
        known = np.isfinite(spectrum)
        spectrum[~known] = np.interp(S2_WAVELENGTH_NM[~known], S2_WAVELENGTH_NM[known], spectrum[known])
    return spectra


def canopy_reflectance(leaf: FloatArray, sunlit: FloatArray | float) -> FloatArray:
    """Reflectance of a closed canopy of leaves.

    A leaf transmits nearly as much as it reflects, so its single-scattering albedo is about twice its reflectance; a
    deep layer of such scatterers reflects (1 - s) / (1 + s), s = sqrt(1 - albedo) (Hapke 1981, isotropic scatterers).
    This darkens the visible far more than the near infrared. Crowns shade each other: only a part is sunlit, and the
    shaded rest is lit by light that leaves pass on, in proportion to the albedo.

    Args:
        leaf: (..., 13) leaf reflectance 0..1.
        sunlit: share of the crown surface in the sun, 0..1; 0.35 tall conifers, 0.9 dense grass.

    Returns:
        (..., 13) float32 canopy reflectance 0..1.
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
        (13,) float32 reflectance 0..0.35; zero in effect beyond 1 um.
    """
    wavelength = S2_WAVELENGTH_NM
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
