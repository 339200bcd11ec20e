"""Real pixels under other skies and on simulated layouts: they stay what they are and where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from geoseg_cli.training.atmosphere import Atmosphere
from geoseg_cli.training.chips import DN_NODATA, Chip, band_names
from geoseg_cli.training.imagers import IMAGERS, ImagerName
from geoseg_cli.training.materials import UNKNOWN, Climate
from geoseg_cli.training.real_ground import (
    COARSE_GSD_M,
    MIN_REGION_PX,
    PASTED_SHARE,
    PastedChips,
    Textures,
    TileGround,
    at_surface,
)
from geoseg_cli.training.recipes import RECIPES
from geoseg_cli.training.surfaces import Ground, GroundOptions

BANDS = ("blue", "green", "red", "nir")
TREE, GRASS, CROP = 1, 2, 4
S2 = band_names("sentinel-2")


def tile(bit: int, first: int) -> Chip:
    """Eight by eight pixels of one class, every one of another number from ``first`` on, the same in all bands."""
    numbers = np.arange(first, first + 64, dtype=np.int16).reshape(8, 8)
    return Chip("eurosat", BANDS, np.stack([numbers] * 4), np.full((8, 8), bit, np.uint8))


def simulated(target: np.ndarray) -> Chip:
    return Chip("simulated", BANDS, np.full((4, *target.shape), 9000, np.int16), target)


def pasted(chip: Chip, tiles: list[Chip], count: int = 40) -> list[Chip]:
    return [Textures(tiles).paste(chip, np.random.default_rng(seed)) for seed in range(count)]


def halves() -> np.ndarray:
    target = np.full((30, 40), TREE, np.uint8)
    target[:, 20:] = GRASS
    return target


def test_each_region_wears_pixels_of_one_tile_of_its_class() -> None:
    tiles = [tile(TREE, 0), tile(TREE, 100), tile(GRASS, 200)]
    worn = set()
    for chip in pasted(simulated(halves()), tiles):
        trees, grass = chip.dn[0, :, :20], chip.dn[0, :, 20:]
        for region, wanted in ((trees, {0, 1}), (grass, {2})):
            first = set((region.ravel() // 100).tolist())
            assert first == {90} or (len(first) == 1 and first <= wanted)
            worn |= first
    assert worn == {0, 1, 2, 90}


def test_pixels_of_all_bands_come_from_the_same_place_and_neighbours_stay_neighbours() -> None:
    dn = next(chip.dn for chip in pasted(simulated(halves()), [tile(TREE, 0)]) if chip.dn[0, 0, 0] < 100)
    assert (dn[:, :, :20] == dn[0, :, :20]).all()
    assert set(np.abs(np.diff(dn[0, :, :20].astype(int), axis=1)).ravel()) == {0, 1}  # 0 where it is mirrored
    assert set(np.abs(np.diff(dn[0, :, :20].astype(int), axis=0)).ravel()) == {0, 8}


def test_about_the_stated_share_of_the_regions_is_pasted() -> None:
    target = np.zeros((90, 90), np.uint8)
    for row in range(0, 90, 9):
        for col in range(0, 90, 9):
            target[row : row + 8, col : col + 8] = CROP
    chip = Textures([tile(CROP, 0)]).paste(simulated(target), np.random.default_rng(0))
    assert (chip.dn[0][target == CROP] < 100).mean() == pytest.approx(PASTED_SHARE, abs=0.15)


def test_small_regions_and_classes_without_tiles_keep_what_was_simulated() -> None:
    target = np.zeros((20, 20), np.uint8)
    target[0, : MIN_REGION_PX - 1] = TREE
    target[5:, :] = GRASS
    for chip in pasted(simulated(target), [tile(TREE, 0)]):
        assert (chip.dn == 9000).all()
        assert (chip.target == target).all()


def test_what_is_unknown_in_a_tile_is_unknown_where_it_is_laid() -> None:
    known = tile(TREE, 0)
    known.target[known.dn[0] % 2 == 1] = 0
    known.target[0, 1] = TREE  # more than half of it is certain
    for chip in pasted(simulated(np.full((30, 30), TREE, np.uint8)), [known]):
        is_pasted = chip.dn[0] < 100
        odd = is_pasted & (chip.dn[0] % 2 == 1) & (chip.dn[0] != 1)
        assert (chip.target[odd] == 0).all()
        assert (chip.target[~odd] == TREE).all()


def test_a_tile_lends_only_where_most_of_it_is_certain() -> None:
    mixed, uncertain = tile(TREE, 0), tile(TREE | GRASS, 100)
    mixed.target[:5] = 0
    assert all((chip.dn == 9000).all() for chip in pasted(simulated(halves()), [mixed, uncertain], 20))


def test_absent_bands_stay_absent_and_the_simulated_chip_is_not_changed() -> None:
    chip = simulated(halves())
    chip.dn[3] = DN_NODATA
    before = chip.dn.copy()
    for one in pasted(chip, [tile(TREE, 0), tile(GRASS, 100)], 10):
        assert (one.dn[3] == DN_NODATA).all()
    assert (chip.dn == before).all()
    assert (chip.target == halves()).all()


def test_a_chip_is_the_same_whenever_it_is_asked_for() -> None:
    textures = Textures([tile(TREE, 0), tile(TREE, 100), tile(GRASS, 200)])
    chips = [simulated(halves())] * 12
    made = [PastedChips(chips, lambda place: textures if place % 2 else None, seed=3) for _ in range(2)]
    assert len(made[0]) == 12
    assert all((made[0][place].dn == made[1][place].dn).all() for place in reversed(range(12)))
    assert all((made[0][place].dn == 9000).all() for place in range(0, 12, 2))
    assert len({made[0][place].dn.tobytes() for place in range(1, 12, 2)}) > 1


def seen_from_above(surface: np.ndarray, air: Atmosphere) -> np.ndarray:
    """Flat ground (B, H, W) under clear air: path light and what passes, with light thrown back by the air."""
    slab, thrown = air.layer(0.0, np.inf), air.spherical_albedo()
    rows = [
        slab.path[channel] + slab.transmission[channel] * ground / (1 - thrown[channel] * ground)
        for ground, channel in zip(surface, IMAGERS["sentinel-2"].channels, strict=True)
    ]
    return np.stack(rows)


def test_clear_air_is_taken_away_as_it_was_laid_over_the_ground() -> None:
    surface = np.random.default_rng(0).uniform(0.0, 0.9, (13, 6, 6)).astype(np.float32)
    air = Atmosphere(0.7, 0.2, 1.2, 1.0)
    found = air.to_surface(seen_from_above(surface, air), IMAGERS["sentinel-2"].channels)
    passes = air.layer(0.0, np.inf).transmission[list(IMAGERS["sentinel-2"].channels)] > 0.05
    np.testing.assert_allclose(found[passes], surface[passes], atol=2e-3)


def meadow() -> Chip:
    rng = np.random.default_rng(1)
    ground = np.where(np.array([band.startswith(("nir", "rededge07")) for band in S2]), 0.35, 0.06).astype(np.float32)
    surface = ground[:, None, None] * rng.uniform(0.6, 1.4, (13, 16, 16)).astype(np.float32)
    top = seen_from_above(surface, Atmosphere(0.6, 0.15, 1.3, 1.5))
    return Chip("eurosat", S2, np.rint(top * 1e4).astype(np.int16), np.full((16, 16), GRASS, np.uint8))


def test_a_corrected_tile_loses_blue_most_and_no_band_of_it_falls_below_zero() -> None:
    chip = meadow()
    corrected = [at_surface(chip, np.random.default_rng(seed)) for seed in range(20)]
    lost = np.stack([(chip.dn - one.dn).mean(axis=(1, 2)) for one in corrected])
    blue, red, swir = (S2.index(band) for band in ("blue", "red", "swir22"))
    assert (lost[:, blue] > lost[:, red]).all()
    assert (lost[:, red] > lost[:, swir]).all()
    assert lost[:, blue].min() > 200
    lit = [place for place, band in enumerate(S2) if band not in ("cirrus", "nir09")]
    assert all((np.percentile(one.dn[lit], 1.5, axis=(1, 2)) > 0).all() for one in corrected)
    assert all((one.target == chip.target).all() for one in corrected)
    assert len({one.dn.tobytes() for one in corrected}) == 20


def test_a_tile_that_no_air_fits_stays_as_it_is() -> None:
    chip = meadow()
    black = Chip("eurosat", S2, np.zeros_like(chip.dn), chip.target)
    assert at_surface(black, np.random.default_rng(0)) is black


def laid(tiles: list[Chip], sensor: ImagerName = "sentinel-2", gsd_m: float = 10.0, seed: int = 0) -> Ground:
    options = GroundOptions(
        (96, 130), gsd_m, Climate("summer", 0.2), RECIPES["farmland"], IMAGERS[sensor].channels
    )  # fmt: skip
    return TileGround(tiles).make(options, np.random.default_rng(seed))


def plain(reflectance: float, tilt: float = 0.0) -> Chip:
    """Sixteen pixels square of one colour: what it reflects rises by ``tilt`` from each lit band to the next."""
    lit = [band for band in S2 if band not in ("cirrus", "nir09")]
    ground = np.array([reflectance + tilt * lit.index(band) if band in lit else 0.9 for band in S2])
    dn = np.broadcast_to(np.rint(ground * 1e4).astype(np.int16)[:, None, None], (13, 16, 16))
    return Chip("eurosat", S2, dn.copy(), np.full((16, 16), GRASS, np.uint8))


def test_laid_tiles_fill_the_scene_and_have_neither_slope_nor_known_land_cover() -> None:
    ground = laid([plain(0.1), plain(0.3)])
    assert ground.reflectance.shape == (13, 96, 130)
    assert ground.reflectance.dtype == np.float32
    assert (ground.reflectance > 0).all()
    assert (ground.land_cover == UNKNOWN).all()
    assert not ground.slope.any()


def test_light_changes_a_laid_tile_as_a_whole_and_each_band_a_little() -> None:
    levels = [np.unique(laid([plain(0.2)], seed=seed).reflectance[2]) for seed in range(12)]
    assert min(level.min() for level in levels) < 0.19
    assert max(level.max() for level in levels) > 0.21
    ground = laid([plain(0.2)]).reflectance
    ratio = ground / ground[2]
    assert 0.7 < ratio.min() < ratio.max() < 1.4
    assert len(np.unique(np.round(ratio[4], 5))) > 1  # another one for every piece


def test_bands_in_which_vapour_hides_the_ground_are_interpolated_from_their_neighbours() -> None:
    reflectance = laid([plain(0.2)]).reflectance
    hidden = [S2.index(band) for band in ("cirrus", "nir09")]
    assert reflectance[hidden].max() < 0.45  # the tile says 0.9 there


def test_another_instrument_sees_what_lies_between_the_bands_of_the_tile() -> None:
    seen = np.stack([laid([plain(0.1, 0.02)], "landsat-8", seed=seed).reflectance for seed in range(40)])
    blue, green, red, nir = (np.median(seen[:, place]) for place in (1, 2, 3, 4))
    # Bands 2, 3, 4 and 8A of Sentinel-2 are the second, third, fourth and ninth lit ones.
    np.testing.assert_allclose(np.array([green, red, nir]) / blue, np.array([0.14, 0.16, 0.26]) / 0.12, rtol=0.05)


def test_neighbours_in_a_laid_tile_are_neighbours_in_it() -> None:
    chip = plain(0.1)
    chip.dn[:] = (np.arange(16)[:, None] * 100 + np.arange(16) + 500)[None]
    ground = laid([chip]).reflectance[2]
    along = np.abs(np.diff(ground[:20, :20], axis=1) / ground[:20, :20].mean()).max()
    assert along < 0.1  # 100 of about 1250 at most, wherever the tile is turned or mirrored


def test_coarse_scenes_average_two_by_two_pixels_of_a_tile() -> None:
    chip = plain(0.1)
    chip.dn[:] = np.where(np.indices((16, 16)).sum(0) % 2, 1000, 3000)
    fine, coarse = (laid([chip], gsd_m=gsd_m).reflectance[2] for gsd_m in (COARSE_GSD_M - 1, COARSE_GSD_M))
    assert np.abs(np.diff(fine, axis=1)).mean() > 0.1
    assert np.abs(np.diff(coarse, axis=1)).mean() < 0.01
