"""Labels of real files and simulated scenes in our legends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.errors import InputError, InputMissingError
from geoseg_cli.training.chips import (
    CLOUD_VALUES,
    DN_NODATA,
    LAND_VALUES,
    Chip,
    band_names,
    band_statistics,
    simulated_chip,
    targets_from_values,
    to_dn,
    values_from_targets,
)
from geoseg_cli.training.imagers import IMAGERS
from geoseg_cli.training.real_chips import (
    alberta_chips,
    eurosat_chips,
    eurosat_tile_classes,
    ontario_chips,
    towards,
    ukis_chips,
)

TREE, GRASS, CROP, BUILT, BARE, SNOW, WATER = (1 << place for place in range(7))
CLEAR, THICK, THIN, SHADOW = 1, 2, 4, 8

EUROSAT_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")


@pytest.fixture(scope="module")
def training(real_data: Path) -> Path:
    return real_data / "training"


@given(st.lists(st.sampled_from([*LAND_VALUES, 255]), min_size=1))
def test_certain_labels_survive_the_way_to_targets_and_back(values: list[int]) -> None:
    labels = np.array(values, np.uint8)
    assert (values_from_targets(targets_from_values(labels, LAND_VALUES), LAND_VALUES) == labels).all()


def test_a_target_of_two_classes_has_no_single_value() -> None:
    assert values_from_targets(np.array([THICK | THIN], np.uint8), CLOUD_VALUES).tolist() == [255]


def test_reflectance_is_stored_in_ten_thousandths_and_invalid_pixels_as_nodata() -> None:
    reflectance = np.array([[[0.1234, -0.01, 5.0, 0.5]]], np.float32)
    stored = to_dn(reflectance, np.array([[True, True, True, False]]))
    assert stored.tolist() == [[[1234, -100, 32767, DN_NODATA]]]


def write_eurosat(folder: Path, pixels: dict[str, tuple[float, float, float, float]]) -> None:
    """16 tiles of each class; all pixels of a class have the given green, red, near infrared and short-wave."""
    dn = np.full((16 * len(pixels), 13, 4, 4), 500, np.uint16)
    for place, spectrum in enumerate(pixels.values()):
        for band, value in zip(("B03", "B04", "B08", "B11"), spectrum, strict=True):
            dn[16 * place : 16 * place + 16, EUROSAT_BANDS.index(band)] = round(value * 10_000)
    np.savez(
        folder / "eurosat_ms_tiles.npz", dn=dn, label=np.repeat(np.arange(len(pixels)), 16).astype(np.uint8),
        label_names=np.array(list(pixels)), bands=np.array(EUROSAT_BANDS),
    )  # fmt: skip


GREEN_LAND, BARE_LAND, OPEN_WATER = (0.06, 0.04, 0.35, 0.2), (0.12, 0.15, 0.2, 0.25), (0.08, 0.06, 0.02, 0.01)


@pytest.mark.parametrize(
    ("name", "spectrum", "target"),
    [
        ("Forest", GREEN_LAND, TREE),
        ("Forest", BARE_LAND, 0),
        ("AnnualCrop", BARE_LAND, CROP),
        ("PermanentCrop", GREEN_LAND, CROP),
        ("Pasture", GREEN_LAND, GRASS),
        ("HerbaceousVegetation", BARE_LAND, GRASS | BARE),
        ("Industrial", BARE_LAND, BUILT),
        ("Residential", GREEN_LAND, BUILT | TREE | GRASS),
        ("SeaLake", OPEN_WATER, WATER),
        ("SeaLake", GREEN_LAND, 0),
        ("River", OPEN_WATER, WATER),
        ("Highway", GREEN_LAND, TREE | GRASS | CROP | BUILT | BARE),
    ],
)
def test_a_tile_label_is_narrowed_by_what_a_pixel_looks_like(
    tmp_path: Path, name: str, spectrum: tuple[float, float, float, float], target: int
) -> None:
    write_eurosat(tmp_path, {name: spectrum})
    chips = eurosat_chips(tmp_path, "train", "land-cover")
    assert all((chip.target == target).all() for chip in chips)


def test_parts_hold_eleven_two_and_three_different_tiles_of_each_class(tmp_path: Path) -> None:
    write_eurosat(tmp_path, {"Forest": GREEN_LAND, "SeaLake": OPEN_WATER})
    with np.load(tmp_path / "eurosat_ms_tiles.npz") as file:
        arrays = dict(file)
    arrays["dn"][:, 0, 0, 0] = np.arange(32)  # a number to know the tile by
    np.savez(tmp_path / "eurosat_ms_tiles.npz", **arrays)
    parts = [eurosat_chips(tmp_path, part, "land-cover") for part in ("train", "develop", "test")]
    numbers = [[int(chip.dn[0, 0, 0]) for chip in part] for part in parts]
    assert [len(part) for part in numbers] == [22, 4, 6]
    assert sorted(number for part in numbers for number in part) == list(range(32))


def test_tile_classes_are_worldcover_values(tmp_path: Path) -> None:
    write_eurosat(tmp_path, {"Forest": GREEN_LAND, "River": OPEN_WATER, "SeaLake": OPEN_WATER})
    assert eurosat_tile_classes(tmp_path, "test") == [10] * 3 + [0] * 3 + [80] * 3


def test_cloud_training_calls_all_of_eurosat_clear(tmp_path: Path) -> None:
    write_eurosat(tmp_path, {"Forest": GREEN_LAND})
    assert all((chip.target == CLEAR).all() for chip in eurosat_chips(tmp_path, "train", "cloud"))


def test_hand_drawn_clouds_may_be_thick_or_thin(tmp_path: Path) -> None:
    bands = np.array(["blue", "green", "red", "nir", "swir16", "swir22"])
    for sensor in ("5", "7"):
        np.savez(
            tmp_path / f"ukis_landsat{sensor}_cloud.npz", dn=np.full((6, 1, 5), 1000, np.int16),
            label=np.array([[0, 1, 2, 3, 4]], np.uint8), bands=bands,
        )  # fmt: skip
    assert ukis_chips(tmp_path)[1].target.tolist() == [[SHADOW, CLEAR, CLEAR, CLEAR, THICK | THIN]]


def test_automatic_labels_count_where_two_programs_agree(tmp_path: Path) -> None:
    scene_class = np.array([[4, 4, 9, 9, 8, 3, 3, 10, 10, 2]], np.uint8)
    probability = np.array([[10, 200, 250, 10, 130, 10, 250, 5, 255, 5]], np.uint8)
    np.savez(
        tmp_path / "alberta_s2_scl.npz", dn=np.full((5, 1, 10), 800, np.uint16), label=scene_class,
        cloud_prob_255=probability, bands=np.array(["B02", "B03", "B04", "B08", "B11"]),
    )  # fmt: skip
    chip = alberta_chips(tmp_path)[0]
    cloud = THICK | THIN
    assert chip.target.tolist() == [[CLEAR, 0, cloud, 0, cloud, SHADOW, 0, 0, 0, 0]]
    assert chip.bands == ("blue", "green", "red", "nir", "swir16")


def test_the_forest_inventory_is_used_where_the_image_agrees(tmp_path: Path) -> None:
    names = np.array(["NODATA0", "WAT", "FOR_OLD", "OMS"])
    dn = np.zeros((1, 6, 1, 6), np.int16)
    dn[0, 2], dn[0, 3] = 300, [[200, 2500, 2500, 350, 2500, -32768]]
    np.savez(
        tmp_path / "ontario_landsat_blocks.npz", dn=dn, label=np.array([[[1, 1, 2, 2, 3, 2]]], np.uint8),
        label_names=names, valid=np.ones((1, 1, 6), np.uint8), fill=np.int16(-32768),
    )  # fmt: skip
    chip = ontario_chips(tmp_path)[0]
    assert chip.target.tolist() == [[WATER, 0, TREE, 0, 0, 0]]
    assert (chip.dn[:, 0, 5] == DN_NODATA).all()


@dataclass(frozen=True)
class Scene:
    bands: tuple[tuple[str, ...], ...]
    reflectance: np.ndarray
    valid: np.ndarray
    land_cover: np.ndarray
    clouds: np.ndarray


@pytest.fixture
def scene() -> Scene:
    bands = np.arange(1, 14, dtype=np.float32) / 100
    valid = np.array([[True, True, True, False]])
    return Scene(
        IMAGERS["sentinel-2"].bands, np.tile(bands[:, None, None], (1, 1, 4)), valid,
        np.array([[10, 80, 255, 255]], np.uint8), np.array([[0, 1, 2, 255]], np.uint8),
    )  # fmt: skip


def test_a_simulated_chip_keeps_the_named_bands_in_their_order(scene: Scene) -> None:
    chip = simulated_chip(scene, "cloud", ("red", "blue", "cirrus"), True)
    assert chip.dn[:, 0, 0].tolist() == [400, 200, 1100]
    assert chip.target.tolist() == [[CLEAR, THICK, THIN, 0]]


def test_a_surface_reflectance_chip_has_no_cirrus_band(scene: Scene) -> None:
    chip = simulated_chip(scene, "cloud", ("red", "cirrus"), False)
    assert (chip.dn[1] == DN_NODATA).all()
    assert (chip.dn[0, 0, :3] == 400).all()


def test_bands_that_the_sensor_lacks_are_absent_and_synonyms_are_found() -> None:
    names = IMAGERS["landsat-8"].bands
    numbers = np.arange(1, 9, dtype=np.float32)[:, None, None] / 100
    scene = Scene(
        names, np.tile(numbers, (1, 1, 2)), np.array([[True, False]]), np.full((1, 2), 10, np.uint8),
        np.zeros((1, 2), np.uint8),
    )  # fmt: skip
    chip = simulated_chip(scene, "cloud", ("nir", "nir09", "nir08", "cirrus", "rededge1", "swir16"), True)
    # Band 5 is the only near infrared of Landsat 8, whichever of its two names a bundle uses.
    assert chip.dn[:, 0, 0].tolist() == [500, DN_NODATA, 500, 800, DN_NODATA, 600]
    assert (chip.dn[:, 0, 1] == DN_NODATA).all()


def test_the_first_name_of_a_band_wins_over_its_synonyms(scene: Scene) -> None:
    chip = simulated_chip(scene, "cloud", ("nir", "nir08"), True)
    assert chip.dn[:, 0, 0].tolist() == [800, 900]


def test_ground_below_thick_cloud_has_no_land_cover(scene: Scene) -> None:
    assert simulated_chip(scene, "land-cover", ("red",), True).target.tolist() == [[TREE, 0, 0, 0]]


def test_band_names_follow_the_order_of_the_sensor() -> None:
    assert band_names("sentinel-2")[1:4] == ("blue", "green", "red")
    assert band_names("sentinel-2")[10] == "cirrus"


def test_statistics_weigh_chips_alike_and_leave_out_nodata() -> None:
    small = Chip("a", ("red",), np.array([[[1000, DN_NODATA]]], np.int16), np.zeros((1, 2), np.uint8))
    large = Chip("b", ("red", "nir"), np.full((2, 1, 6), 3000, np.int16), np.zeros((1, 6), np.uint8))
    mean, deviation = band_statistics([small, large], ("red", "nir", "blue"))
    np.testing.assert_allclose(mean[:2], [0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(deviation[:2], [0.1, 0.0], atol=1e-6)
    assert np.isnan(mean[2])


def test_a_missing_file_or_array_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="eurosat_ms_tiles"):
        eurosat_chips(tmp_path, "train", "cloud")
    np.savez(tmp_path / "eurosat_ms_tiles.npz", dn=np.zeros(1))
    with pytest.raises(InputError, match="label_names"):
        eurosat_chips(tmp_path, "train", "cloud")


def test_the_real_files_give_chips_with_every_class_but_snow(training: Path) -> None:
    chips = eurosat_chips(training, "train", "land-cover") + ontario_chips(training)
    found = np.unique(np.concatenate([chip.target.ravel() for chip in chips]))
    assert {TREE, GRASS, CROP, BUILT, WATER} <= set(found.tolist())
    assert SNOW not in found


def test_the_pond_that_is_no_cirrus_is_not_taught_as_cloud(training: Path) -> None:
    chip = alberta_chips(training)[0]
    # Open water of the tailings pond, south of the clouds, which Sen2Cor mostly calls cirrus.
    pond = chip.target[1260:1440, 740:930]
    assert ((pond & (THICK | THIN)) != 0).mean() < 0.01
    assert ((chip.target & (THICK | THIN)) != 0).sum() > 150_000


def test_a_tile_brought_towards_another_keeps_its_texture_and_gets_part_of_the_others_colour() -> None:
    rng = np.random.default_rng(3)
    target = np.full((4, 4), 2, np.uint8)
    own = Chip("eurosat", ("red", "nir"), rng.integers(400, 600, (2, 4, 4)).astype(np.int16), target)
    other = Chip("eurosat", ("red", "nir"), np.full((2, 4, 4), 2000, np.int16), target)
    moved = towards(own, other, 0.5)
    wanted = np.sqrt(own.dn.mean(axis=(1, 2)) * 2000)
    assert np.allclose(moved.dn.mean(axis=(1, 2)), wanted, rtol=2e-3)
    assert np.allclose(moved.dn / moved.dn.mean(), own.dn / own.dn.mean(), rtol=0.2)
    assert np.array_equal(moved.target, target)
    assert np.array_equal(towards(own, other, 0.0).dn, own.dn)


def test_variants_follow_the_tiles_and_are_the_same_in_every_run(tmp_path: Path) -> None:
    write_eurosat(tmp_path, {"Forest": GREEN_LAND, "SeaLake": OPEN_WATER})
    plain = eurosat_chips(tmp_path, "train", "land-cover")
    first, again = (eurosat_chips(tmp_path, "train", "land-cover", 2) for _ in range(2))
    assert len(first) == 3 * len(plain)
    assert all(np.array_equal(one.dn, other.dn) for one, other in zip(first, again, strict=True))
    assert all(np.array_equal(one.dn, other.dn) for one, other in zip(first, plain, strict=False))
