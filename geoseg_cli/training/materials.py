"""The palette of one scene: which spectrum, land-cover code and texture each kind of ground has there and then.

Axis letters: M materials of a palette. Spectra are (M, C) float32 reflectance 0..1, one column per
channel of `spectra.CHANNELS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from geoseg_cli.training.fields import FloatArray
from geoseg_cli.training.spectra import (
    S2_BANDS,
    WAVELENGTH_NM,
    SpectralLibrary,
    WaterQuality,
    canopy_reflectance,
    spread_smooth,
    water_reflectance,
)

Spectra = NDArray[np.floating[Any]]
Season = Literal["spring", "summer", "autumn", "winter"]

TREE, GRASS, CROP, BUILT_UP, BARE, SNOW, WATER, UNKNOWN = 10, 30, 40, 50, 60, 70, 80, 255
LAND_COVER_IDS: Final = (TREE, GRASS, CROP, BUILT_UP, BARE, SNOW, WATER)

_BLUE, _RED, _NIR, _SWIR = (S2_BANDS.index(band) for band in ("B02", "B04", "B08", "B11"))

# Share of fields that are bare, half grown, green and ripe or stubble: northern mid-latitude calendars.
_CROP_STAGES: Final = {
    "spring": (0.44, 0.24, 0.28, 0.04),
    "summer": (0.22, 0.17, 0.24, 0.37),
    "autumn": (0.46, 0.15, 0.12, 0.27),
    "winter": (0.45, 0.28, 0.20, 0.07),
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
        spectra: blocks (n, C) of mean reflectance.
        drifts: blocks (n, C), what is added per deviation of the slow texture field.
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
        """Append a kind of ground with one or more variants; `drift` is (n, C) or (C,)."""
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
    _add_orchards(palette, library, soil, rng)
    _add_grass(palette, library, climate, soil, rng)
    _add_forest(palette, library, climate, soil, rng)
    _add_bare(palette, library, climate, soil, rng)
    _add_built(palette, library, soil, rng)
    _add_gardens(palette, soil, rng)
    _add_water(palette, soil, rng)
    _add_snow(palette, library, soil, rng)
    _add_bright(palette, library, rng)
    return palette


def _field_soils(library: SpectralLibrary, climate: Climate, rng: np.random.Generator, count: int) -> FloatArray:
    """Soils as they lie, (count, C): two origins per scene, darker than the dried and sieved samples of a library.

    Moisture takes away up to half (Lobell and Asner 2002), roughness and its shadows some more.
    """
    drawn = library.draw(rng, "soil", 6).reshape(3, 2, -1)
    # Bare fields of EuroSAT reflect about 1.4 times as much at 1.6 um as at 0.83 um, half of the library less.
    origins = drawn[(drawn[..., _SWIR] / drawn[..., _NIR]).argmax(axis=0), (0, 1)]
    weight = rng.random((count, 1)).astype(np.float32)
    darkening = rng.uniform(0.42 + 0.30 * climate.dryness, 0.74 + 0.24 * climate.dryness, (count, 1))
    soils = (origins[0] * weight + origins[1] * (1 - weight)) * darkening.astype(np.float32)
    # Images without cloud are taken days after rain: every other surface is dry.
    wetness = max(rng.uniform(-0.2, 0.2), 0) * (1 - climate.dryness)
    soils[:, WAVELENGTH_NM > 1400] *= np.float32(1 - wetness)  # liquid water absorbs most beyond 1.4 um
    return np.asarray(soils, np.float32)


def _column(values: NDArray[np.float64]) -> FloatArray:
    """(n,) numbers as (n, 1) float32."""
    return np.asarray(values[:, None], np.float32)


def _dense_canopies(library: SpectralLibrary, rng: np.random.Generator, count: int) -> FloatArray:
    """Canopies of the library, (count, C), the greenest of three each: half of them show soil between the plants."""
    drawn = library.draw(rng, "canopy", 3 * count).reshape(3, count, -1)
    greenness = drawn[..., _NIR] / drawn[..., _RED]
    return np.asarray(drawn[greenness.argmax(axis=0), np.arange(count)])


def _green_plants(
    library: SpectralLibrary, rng: np.random.Generator, count: int, closed: tuple[float, float] = (0.2, 0.8)
) -> FloatArray:
    """Dense low plants, (count, C): simulated canopies of the library, and leaves piled up by `canopy_reflectance`.

    `closed` bounds the share of the second: deep green stands without a view of stems and soil.
    """
    dense = _dense_canopies(library, rng, count) * _column(rng.uniform(0.6, 0.9, count))
    piled = canopy_reflectance(library.draw(rng, "leaf", count), _column(rng.uniform(0.5, 0.9, count)))
    share = _column(rng.uniform(*closed, count))
    return np.asarray(dense * (1 - share) + piled * share, np.float32)


def _add_crops(
    palette: Palette, library: SpectralLibrary, climate: Climate, soil: FloatArray, rng: np.random.Generator
) -> None:
    """Fields of a region: a few crops, each at one stage, and small differences from field to field."""
    count, kinds = 48, int(rng.integers(2, 7))
    kind = rng.choice(kinds, count, p=rng.dirichlet(np.full(kinds, 1.5)))
    stage = rng.choice(4, kinds, p=np.array(_CROP_STAGES[climate.season]))
    cover = np.choose(stage, [0.04 * rng.random(kinds), rng.uniform(0.12, 0.55, kinds),
                              rng.uniform(0.7, 0.98, kinds), rng.uniform(0.0, 0.15, kinds)])  # fmt: skip
    litter = np.where(stage == 3, rng.uniform(0.35, 0.95, kinds), rng.uniform(0.05, 0.5, kinds))
    field_cover = _column(np.clip(cover[kind] * rng.uniform(0.8, 1.2, count), 0.0, 1.0))
    straw_share = _column(np.clip(litter[kind] * rng.uniform(0.7, 1.2, count), 0.0, 1.0))
    straw = library.draw(rng, "dry_plant", kinds)[kind] * _column(rng.uniform(0.55, 0.85, count))
    ground = soil[rng.integers(0, len(soil), count)] * _column(rng.uniform(0.75, 1.25, count))
    ground = ground * (1 - straw_share) + straw * straw_share
    green = _green_plants(library, rng, kinds, (0.4, 1.0))[kind] * _column(rng.uniform(0.9, 1.1, count))
    spectra = green * field_cover + ground * (1 - field_cover)
    palette.add("crop", spectra, (ground - green) * _column(rng.uniform(0.02, 0.09, count)), CROP, 0.04)


def _add_orchards(palette: Palette, library: SpectralLibrary, soil: FloatArray, rng: np.random.Generator) -> None:
    """Rows of trees or vines over soil and dry grass; the rows are narrower than a pixel, so they mix."""
    count = 12
    rows = _woody_canopy(library, rng, count, rng.uniform(0.3, 0.8, count))
    grass = library.draw(rng, "dry_plant", count) * _column(rng.uniform(0.4, 0.7, count))
    grass_share = _column(rng.uniform(0.0, 0.6, count))
    ground = soil[rng.integers(0, len(soil), count)] * _column(rng.uniform(0.9, 1.4, count))
    ground = ground * (1 - grass_share) + grass * grass_share
    green = np.float32(rng.uniform(0.0, 0.3)) * _green_plants(library, rng, count)
    cover = _column(rng.uniform(0.12, 0.5, count))
    spectra = rows * cover + (ground * np.float32(0.75) + green) * (1 - cover)
    palette.add("orchard", spectra, (ground - rows) * _column(rng.uniform(0.03, 0.10, count)), CROP, 0.07)


def _add_grass(
    palette: Palette, library: SpectralLibrary, climate: Climate, soil: FloatArray, rng: np.random.Generator
) -> None:
    """Meadows: nearly closed swards; steppe: tufts, herbs and low shrubs that shade each other, hay and soil."""
    for name, count, lushness, shade, patchy, most_shrubs in (
        ("meadow", 10, 1.4, (0.75, 1.05), (0.04, 0.12), 0.05),
        ("steppe", 6, 0.6, (0.55, 0.9), (0.06, 0.22), 0.45),
    ):
        cover = _GREENNESS[climate.season] * lushness * (1 - 0.75 * climate.dryness)
        # A scene has its own weather and grazing; its meadows differ less from each other.
        green_share = _column(np.clip(rng.normal(rng.normal(cover, 0.15), 0.10, count), 0.03, 0.98))
        hay = library.draw(rng, "dry_plant", count) * _column(rng.uniform(0.4, 0.75, count))
        hay_share = _column(rng.uniform(0.3, 0.85, count))
        ground = hay * hay_share + soil[rng.integers(0, len(soil), count)] * (1 - hay_share)
        light = np.float32(rng.uniform(*shade)) * _column(rng.uniform(0.92, 1.08, count))
        # Last year's blades stand between those of this year.
        dead = _column(rng.uniform(0.0, 0.2, count))
        green = _green_plants(library, rng, count) * (1 - dead)
        green = green + library.draw(rng, "senescent", count) * np.float32(0.75) * dead
        spectra = (green * green_share + ground * (1 - green_share)) * light
        shrubs = _column(rng.uniform(0.0, most_shrubs, count))
        spectra = spectra * (1 - shrubs) + _woody_canopy(library, rng, count, rng.uniform(0.2, 0.6, count)) * shrubs
        palette.add(name, spectra, (ground - green) * _column(rng.uniform(*patchy, count)), GRASS, 0.05)


def _woody_canopy(
    library: SpectralLibrary, rng: np.random.Generator, count: int, sunlit: NDArray[np.float64]
) -> FloatArray:
    """Crowns of trees, (count, C), `sunlit` (count,): a part of what light meets in a crown is bark, not leaf.

    Bark takes near infrared away from light that would else be passed on from leaf to leaf.
    """
    bark_share = _column(rng.uniform(0.08, 0.35, count))
    bark = library.draw(rng, "dry_plant", count) * np.float32(0.8)
    leaf = library.draw(rng, "leaf", count)
    piled = canopy_reflectance(leaf * (1 - bark_share) + bark * bark_share, _column(sunlit))
    # The canopies of the library are open below; shadows between the crowns take half of their light or more.
    open_crowns = _dense_canopies(library, rng, count) * _column(0.2 + 0.4 * sunlit)
    share = _column(rng.uniform(0.0, 0.6, count))
    return np.asarray(piled * (1 - share) + open_crowns * share, np.float32)


def _add_forest(
    palette: Palette, library: SpectralLibrary, climate: Climate, soil: FloatArray, rng: np.random.Generator
) -> None:
    count = 8
    crowns = _woody_canopy(library, rng, count, rng.uniform(0.25, 0.75, count))
    litter = library.draw(rng, "dry_plant", count) * np.float32(0.35)
    understory = 0.5 * litter + 0.1 * soil[rng.integers(0, len(soil), count)] + 0.4 * crowns
    bare_twigs = {"winter": 0.6, "spring": 0.2, "autumn": 0.3}.get(climate.season, 0.0)
    deciduous = rng.random(count) < 0.5
    gap = np.where(deciduous, bare_twigs * rng.random(count), 0.0) + rng.uniform(0.02, 0.10 + 0.2 * climate.dryness)
    gap_share = _column(np.clip(gap, 0.0, 0.8))
    spectra = crowns * (1 - gap_share) + understory * gap_share
    # Stands differ most in how much of their crowns lies in the sun, and some in species.
    drift = np.float32(0.10) * (np.roll(spectra, 1, axis=0) - spectra) + np.float32(rng.uniform(0.02, 0.12)) * spectra
    palette.add("forest", spectra, drift, TREE, float(rng.uniform(0.10, 0.26)))
    snowy = spectra * 0.75 + 0.25 * library.draw(rng, "snow", count) * _column(rng.uniform(0.2, 0.9, count))
    palette.add("snowy_forest", snowy, drift * np.float32(1.4), TREE, 0.16)


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
    roofs = roofs * _column(rng.uniform(0.4, 0.75, len(roofs)))
    roofs = 0.55 * roofs + 0.45 * roofs[:3].mean(axis=0)
    palette.add("roof", roofs, 0.02 * roofs, BUILT_UP, 0.06)
    halls = np.concatenate([library.draw(rng, "roof", 8), library.draw(rng, "rock", 4)])
    halls = halls * _column(rng.uniform(0.5, 1.1, len(halls)))
    palette.add("hall", halls, 0.02 * halls, BUILT_UP, 0.03)
    grey = library.draw(rng, "paved", 6) * _column(rng.uniform(0.55, 0.85, 6))
    palette.add("street", grey, 0.1 * (soil[0] - grey), BUILT_UP, 0.04)
    track = soil[:3] * 1.25
    palette.add("track", track, 0.02 * track, BARE, 0.05)


def _add_gardens(palette: Palette, soil: FloatArray, rng: np.random.Generator) -> None:
    """What lies between houses: lawns, trees, beds and paths, all smaller than a pixel, in part in their shadows."""
    count = 8
    lawn, tree, path = (_variants(palette, name, rng, count) for name in ("meadow", "forest", "street"))
    bed = soil[rng.integers(0, len(soil), count)]
    parts = rng.dirichlet((3.2, 1.4, 1.0, 2.2), count).astype(np.float32)
    mixed = np.einsum("pn,pnc->nc", parts.T, np.stack([lawn, tree, path, bed]))
    spectra = np.asarray(mixed * _column(rng.uniform(0.8, 1.05, count)), np.float32)
    palette.add("garden", spectra, (tree - spectra) * np.float32(0.15), GRASS, 0.08)


def _variants(palette: Palette, name: str, rng: np.random.Generator, count: int) -> FloatArray:
    """Spectra (count, C) of materials of a kind that is in the palette already."""
    spectra = np.concatenate(palette.spectra)
    return np.stack([spectra[palette.one(name, rng)] for _ in range(count)])


def _add_water(palette: Palette, soil: FloatArray, rng: np.random.Generator) -> None:
    spectra = []
    for _ in range(4):
        quality = WaterQuality(
            sediment_g_m3=float(10 ** np.clip(rng.normal(0.3, 0.8), -1.0, 2.5)),
            chlorophyll_mg_m3=float(10 ** rng.uniform(-1.0, 1.5)),
            dissolved_per_m=float(10 ** rng.uniform(-1.7, 0.5)),
        )
        spectra.append(water_reflectance(quality))
    # Glint and foam are as bright in every band; both grow with wind, so a scene has one level.
    glint = np.float32(rng.choice([0.003, rng.uniform(0, 0.02), rng.uniform(0.02, 0.12)], p=[0.6, 0.3, 0.1]))
    water = np.stack(spectra) + glint
    palette.add("water", water, 0.03 * water + 0.15 * glint, WATER, 0.015)
    shallow = 0.7 * water + 0.3 * soil[:1] * np.exp(-spread_smooth([0.3, 0.3, 0.4, 1.0, 1.5] + [4.0] * 8))
    palette.add("shallow", shallow, 0.12 * shallow, WATER, 0.05)


def _add_snow(palette: Palette, library: SpectralLibrary, soil: FloatArray, rng: np.random.Generator) -> None:
    clean = library.draw(rng, "snow", 3) * _column(rng.uniform(0.75, 1.0, 3))
    dirty = library.draw(rng, "dark_snow", 3) * 0.5 + clean * 0.5
    snow = np.concatenate([clean, dirty])
    palette.add("snow", snow, 0.05 * (soil[0] - snow), SNOW, 0.03)
    ice = clean * spread_smooth([0.85, 0.85, 0.8, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.35, 0.2, 0.12, 0.12])
    palette.add("ice", ice, 0.1 * (snow[:3] - ice), SNOW, 0.05)


def _add_bright(palette: Palette, library: SpectralLibrary, rng: np.random.Generator) -> None:
    """Ground and roofs as bright as cloud."""
    dune = _brightened(library.draw(rng, "soil", 12), 4, _RED, (0.28, 0.6), rng)
    palette.add("dune", dune, 0.05 * (np.roll(dune, 1, axis=0) - dune), BARE, 0.02)
    salt = _brightened(library.draw(rng, "salt", 8), 4, _RED, (0.4, 0.88), rng)
    crust = _column(rng.uniform(0.0, 0.5, 4))
    playa = salt * (1 - crust) + dune * crust
    palette.add("playa", playa, 0.10 * (dune - playa), BARE, 0.02)
    mud = (0.3 * playa + 0.4 * dune) * (1 - _column(rng.uniform(0.0, 0.6, 4)) * (WAVELENGTH_NM > 1400))
    palette.add("playa_mud", mud, 0.15 * (playa - mud), BARE, 0.03)
    chalk = _brightened(library.draw(rng, "rock", 16), 3, _RED, (0.4, 0.75), rng)
    palette.add("chalk", chalk, 0.08 * (dune[:3] - chalk), BARE, 0.04)
    white = _brightened(library.draw(rng, "roof", 20), 4, _BLUE, (0.45, 0.8), rng)
    palette.add("white_hall", white, 0.02 * white, BUILT_UP, 0.02)
    # Film reflects some light and passes the rest twice, by way of the crop; less of both beyond 1.4 um.
    film = _column(rng.uniform(0.12, 0.5, 6)) * np.where(WAVELENGTH_NM > 1400, np.float32(0.75), np.float32(1))
    below = 0.5 * _green_plants(library, rng, 6) + 0.5 * dune[rng.integers(0, 4, 6)] * np.float32(0.5)
    plastic = film + (1 - film) ** 2 * 0.7 * below
    palette.add("plastic", plastic, 0.04 * plastic, BUILT_UP, 0.05)


def _brightened(
    spectra: FloatArray, count: int, channel: int, bounds: tuple[float, float], rng: np.random.Generator
) -> FloatArray:
    """The `count` spectra brightest in one channel, scaled by 0.5 to 1.4 towards a reflectance within bounds."""
    brightest = spectra[np.argsort(spectra[:, channel])[-count:]]
    factor = rng.uniform(*bounds, count) / brightest[:, channel]
    return np.asarray(np.minimum(brightest * _column(np.clip(factor, 0.5, 1.4)), 0.92), np.float32)
