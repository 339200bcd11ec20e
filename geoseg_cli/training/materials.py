"""The palette of one scene: which spectrum, land-cover code and texture each kind of ground has there and then.

Axis letters: M materials of a palette. Spectra are (M, 13) float32 reflectance 0..1 in the order of S2_BANDS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from geoseg_cli.training.fields import FloatArray
from geoseg_cli.training.spectra import SpectralLibrary, WaterQuality, canopy_reflectance, water_reflectance

Spectra = NDArray[np.floating[Any]]
Season = Literal["spring", "summer", "autumn", "winter"]

TREE, GRASS, CROP, BUILT_UP, BARE, SNOW, WATER, UNKNOWN = 10, 30, 40, 50, 60, 70, 80, 255
LAND_COVER_IDS: Final = (TREE, GRASS, CROP, BUILT_UP, BARE, SNOW, WATER)

# Share of fields that are bare, half grown, green and ripe or stubble: northern mid-latitude calendars.
_CROP_STAGES: Final = {
    "spring": (0.40, 0.25, 0.33, 0.02),
    "summer": (0.12, 0.18, 0.40, 0.30),
    "autumn": (0.35, 0.20, 0.20, 0.25),
    "winter": (0.45, 0.30, 0.20, 0.05),
}
# Share of green plants in what is not crop.
_GREENNESS: Final = {"spring": 0.75, "summer": 0.7, "autumn": 0.5, "winter": 0.35}


@dataclass(frozen=True, slots=True)
class Climate:
    """What the materials of a scene have in common.

    Attributes:
        season: northern season; decides crop stages and leaves.
        dryness: 0 lush to 1 desert; bleaches soil and grass.
    """

    season: Season
    dryness: float


@dataclass(slots=True)
class Palette:
    """Materials of a scene, filled while the landscape is drawn.

    Attributes:
        spectra: blocks (n, 13) of mean reflectance.
        drifts: blocks (n, 13), what is added per deviation of the slow texture field.
        codes: land-cover id per material.
        grains: relative deviation of brightness by the fine texture field.
        starts: name of a kind of ground -> (first material, number of materials).
    """

    spectra: list[FloatArray] = field(default_factory=list)
    drifts: list[FloatArray] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    grains: list[float] = field(default_factory=list)
    starts: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, name: str, spectra: Spectra, drift: Spectra, code: int, grain: float) -> None:
        """Append a kind of ground with one or more variants; `drift` is (n, 13) or (13,)."""
        self.starts[name] = (len(self.codes), len(spectra))
        self.spectra.append(spectra.astype(np.float32))
        self.drifts.append(np.broadcast_to(drift, spectra.shape).astype(np.float32))
        self.codes += [code] * len(spectra)
        self.grains += [grain] * len(spectra)

    def one(self, name: str, rng: np.random.Generator) -> int:
        """A material of the kind `name`, by chance."""
        start, count = self.starts[name]
        return start + int(rng.integers(count))

    def by_key(self, name: str, key: NDArray[np.uint32]) -> NDArray[np.int32]:
        """The material of the kind `name` for each key: (H, W) uint32 -> (H, W) int32."""
        start, count = self.starts[name]
        return ((key >> np.uint32(7)) % np.uint32(count)).astype(np.int32) + np.int32(start)


def mix_palette(library: SpectralLibrary, climate: Climate, rng: np.random.Generator) -> Palette:
    """Draw all materials of one scene."""
    palette = Palette()
    soil = _field_soils(library, climate, rng, 6)
    _add_crops(palette, library, climate, soil, rng)
    _add_grass(palette, library, climate, soil, rng)
    _add_forest(palette, library, climate, soil, rng)
    _add_bare(palette, library, climate, soil, rng)
    _add_built(palette, library, soil, rng)
    _add_water(palette, soil, rng)
    _add_snow(palette, library, soil, rng)
    return palette


def _field_soils(library: SpectralLibrary, climate: Climate, rng: np.random.Generator, count: int) -> FloatArray:
    """Soils as they lie, (count, 13): two origins per scene, darker than the dried and sieved samples of a library.

    Moisture takes away up to half (Lobell and Asner 2002), roughness and its shadows some more.
    """
    origins = library.draw(rng, "soil", 2)
    weight = rng.random((count, 1)).astype(np.float32)
    darkening = rng.uniform(0.28 + 0.40 * climate.dryness, 0.55 + 0.42 * climate.dryness, (count, 1))
    soils = (origins[0] * weight + origins[1] * (1 - weight)) * darkening.astype(np.float32)
    wetness = rng.uniform(0, 0.35) * (1 - climate.dryness)
    soils[:, 11:] *= np.float32(1 - wetness)  # liquid water absorbs most beyond 1.4 um
    return np.asarray(soils, np.float32)


def _column(values: NDArray[np.float64]) -> FloatArray:
    """(n,) numbers as (n, 1) float32."""
    return np.asarray(values[:, None], np.float32)


def _green_plants(library: SpectralLibrary, rng: np.random.Generator, count: int) -> FloatArray:
    """Dense low plants, (count, 13): simulated canopies of the library, or leaves piled up by `canopy_reflectance`."""
    dense = library.draw(rng, "canopy", count) * _column(rng.uniform(0.65, 0.98, count))
    piled = canopy_reflectance(library.draw(rng, "leaf", count), _column(rng.uniform(0.45, 0.9, count)))
    share = _column(rng.random(count)) * 0.6
    return np.asarray(dense * (1 - share) + piled * share, np.float32)


def _add_crops(
    palette: Palette, library: SpectralLibrary, climate: Climate, soil: FloatArray, rng: np.random.Generator
) -> None:
    count = 48
    shares = np.array(_CROP_STAGES[climate.season])
    stage = rng.choice(4, count, p=shares)
    cover = _column(np.choose(stage, [0.03 * rng.random(count), rng.uniform(0.15, 0.6, count),
                                      rng.uniform(0.75, 1.0, count), rng.uniform(0.0, 0.2, count)]))  # fmt: skip
    straw = library.draw(rng, "dry_plant", count) * _column(rng.uniform(0.6, 0.9, count))
    straw_share = _column(np.where(stage == 3, rng.uniform(0.4, 0.95, count), rng.uniform(0, 0.25, count)))
    ground = soil[rng.integers(0, len(soil), count)] * _column(rng.uniform(0.75, 1.25, count))
    ground = ground * (1 - straw_share) + straw * straw_share
    green = _green_plants(library, rng, count)
    spectra = green * cover + ground * (1 - cover)
    palette.add("crop", spectra, (ground - green) * _column(rng.uniform(0.01, 0.07, count)), CROP, 0.03)


def _add_grass(
    palette: Palette, library: SpectralLibrary, climate: Climate, soil: FloatArray, rng: np.random.Generator
) -> None:
    for name, count, lushness in (("meadow", 10, 1.25), ("steppe", 6, 0.55)):
        cover = _GREENNESS[climate.season] * lushness * (1 - 0.75 * climate.dryness)
        green_share = _column(np.clip(rng.normal(cover, 0.15, count), 0.03, 0.97))
        hay = library.draw(rng, "dry_plant", count) * _column(rng.uniform(0.45, 0.8, count))
        hay_share = _column(rng.uniform(0.3, 0.85, count))
        ground = hay * hay_share + soil[rng.integers(0, len(soil), count)] * (1 - hay_share)
        green = _green_plants(library, rng, count) * np.float32(0.85)
        spectra = green * green_share + ground * (1 - green_share)
        palette.add(name, spectra, (ground - green) * _column(rng.uniform(0.04, 0.15, count)), GRASS, 0.045)


def _add_forest(
    palette: Palette, library: SpectralLibrary, climate: Climate, soil: FloatArray, rng: np.random.Generator
) -> None:
    count = 8
    sunlit = _column(rng.uniform(0.15, 0.6, count))
    crowns = canopy_reflectance(library.draw(rng, "leaf", count), sunlit)
    litter = library.draw(rng, "dry_plant", count) * np.float32(0.45)
    understory = 0.5 * litter + 0.2 * soil[rng.integers(0, len(soil), count)] + 0.3 * crowns
    bare_twigs = {"winter": 0.6, "spring": 0.2, "autumn": 0.3}.get(climate.season, 0.0)
    deciduous = rng.random(count) < 0.5
    gap = np.where(deciduous, bare_twigs * rng.random(count), 0.0) + rng.uniform(0.02, 0.10 + 0.2 * climate.dryness)
    gap_share = _column(np.clip(gap, 0.0, 0.8))
    spectra = crowns * (1 - gap_share) + understory * gap_share
    drift = np.roll(spectra, 1, axis=0) - spectra
    palette.add("forest", spectra, drift * np.float32(0.22), TREE, float(rng.uniform(0.06, 0.16)))
    snowy = spectra * 0.75 + 0.25 * library.draw(rng, "snow", count) * _column(rng.uniform(0.2, 0.9, count))
    palette.add("snowy_forest", snowy, drift * np.float32(0.3), TREE, 0.16)


def _add_bare(
    palette: Palette, library: SpectralLibrary, climate: Climate, soil: FloatArray, rng: np.random.Generator
) -> None:
    rock = library.draw(rng, "rock", 6) * _column(rng.uniform(0.45, 0.9, 6))
    palette.add("rock", rock, 0.10 * (soil[0] - rock), BARE, 0.08)
    ground = soil * _column(rng.uniform(0.9, 1.3, len(soil)))
    palette.add("open_soil", ground, 0.12 * (rock[0] - ground), BARE, 0.05)
    candidates = library.draw(rng, "soil", 12)
    sand = candidates[np.argsort(candidates[:, 3])[-4:]] * _column(rng.uniform(0.65, 1.0, 4))
    palette.add("sand", sand, 0.06 * (soil[0] - sand), BARE, 0.05)
    salt = library.draw(rng, "salt", 2) * _column(rng.uniform(0.6, 1.0, 2))
    palette.add("salt", salt, 0.1 * (soil[0] - salt), BARE, 0.06)
    char = library.draw(rng, "char", 3) * _column(rng.uniform(0.6, 1.2, 3))
    palette.add("burnt", char, 0.08 * (soil[0] - char), UNKNOWN, 0.12)


def _add_built(palette: Palette, library: SpectralLibrary, soil: FloatArray, rng: np.random.Generator) -> None:
    # Towns look alike inside: a few common roof materials make up most of the houses.
    roofs = np.concatenate([library.draw(rng, "roof", 10), library.draw(rng, "rock", 8)])
    roofs = roofs * _column(rng.uniform(0.35, 0.75, len(roofs)))
    roofs = 0.55 * roofs + 0.45 * roofs[:3].mean(axis=0)
    palette.add("roof", roofs, 0.02 * roofs, BUILT_UP, 0.06)
    halls = np.concatenate([library.draw(rng, "roof", 8), library.draw(rng, "rock", 4)])
    halls = halls * _column(rng.uniform(0.5, 1.1, len(halls)))
    palette.add("hall", halls, 0.02 * halls, BUILT_UP, 0.03)
    grey = library.draw(rng, "paved", 6) * _column(rng.uniform(0.6, 0.9, 6))
    palette.add("street", grey, 0.1 * (soil[0] - grey), BUILT_UP, 0.04)
    track = soil[:3] * 1.25
    palette.add("track", track, 0.02 * track, BARE, 0.05)


def _add_water(palette: Palette, soil: FloatArray, rng: np.random.Generator) -> None:
    spectra = []
    for _ in range(4):
        quality = WaterQuality(
            sediment_g_m3=float(10 ** rng.uniform(-1.0, 2.3)),
            chlorophyll_mg_m3=float(10 ** rng.uniform(-1.0, 1.5)),
            dissolved_per_m=float(10 ** rng.uniform(-1.7, 0.5)),
        )
        spectra.append(water_reflectance(quality))
    # Glint and foam are as bright in every band; both grow with wind, so a scene has one level.
    glint = np.float32(rng.choice([0.003, rng.uniform(0, 0.02), rng.uniform(0.02, 0.12)], p=[0.6, 0.3, 0.1]))
    water = np.stack(spectra) + glint
    palette.add("water", water, 0.05 * water + 0.15 * glint, WATER, 0.03)
    shallow = 0.7 * water + 0.3 * soil[:1] * np.exp(-np.array([0.3, 0.3, 0.4, 1.0, 1.5] + [4.0] * 8, np.float32))
    palette.add("shallow", shallow, 0.12 * shallow, WATER, 0.05)


def _add_snow(palette: Palette, library: SpectralLibrary, soil: FloatArray, rng: np.random.Generator) -> None:
    clean = library.draw(rng, "snow", 3) * _column(rng.uniform(0.75, 1.0, 3))
    dirty = library.draw(rng, "dark_snow", 3) * 0.5 + clean * 0.5
    snow = np.concatenate([clean, dirty])
    palette.add("snow", snow, 0.05 * (soil[0] - snow), SNOW, 0.03)
    ice = clean * np.array([0.85, 0.85, 0.8, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.35, 0.2, 0.12, 0.12], np.float32)
    palette.add("ice", ice, 0.1 * (snow[:3] - ice), SNOW, 0.05)
