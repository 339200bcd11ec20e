"""Folders and lists of single-band files: names tell the bands, and doubt is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.errors import BandError, GridError, InputError, InputMissingError
from geoseg_cli.scenes import band_files
from geoseg_cli.scenes.product import Product
from tests.conftest import TEN_METRES, write_scene
from tests.scenes.product_fixtures import read_numbers, write_band

S2 = {"blue": "B02", "green": "B03", "red": "B04", "rededge071": "B05", "nir": "B08", "nir08": "B8A", "swir16": "B11"}
SIDE = 6


def plane_of(value: int, side: int = SIDE) -> npt.NDArray[np.uint16]:
    return np.full((side, side), value, np.uint16)


def write_jp2(path: Path, plane: npt.NDArray[Any]) -> Path:
    options: dict[str, Any] = {"QUALITY": "100", "REVERSIBLE": "YES", "transform": TEN_METRES, "crs": "EPSG:32631"}
    height, width = plane.shape
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", count=1, height=height, width=width, dtype=plane.dtype, **options
    ) as file:
        file.write(plane, 1)
    return path


def found(path: Path) -> Product:
    product = band_files.find(path)
    assert product is not None
    return product


def names_of(product: Product) -> list[str]:
    return [layer.name for layer in product.layers]


@pytest.mark.parametrize(
    "pattern",
    [
        *("{}.tif", "T32TLS_20220620T162319_{}.tif", "T32TLS_20220620T162319_{}_10m.tif", "S2A_MSIL2A_x_36_85_{}.TIF"),
        *("scene-{}.tiff", "red_sea_20220620_{}.tif", "2022.06.20.{}.tif", "scene {}.tif"),
    ],
)
def test_each_band_is_found_by_its_name_in_file_names(tmp_path: Path, pattern: str) -> None:
    for value, name in enumerate(S2.values(), start=1):
        write_band(tmp_path / pattern.format(name), plane_of(value))
    product = found(tmp_path)
    numbers = read_numbers(product, *S2)[0]
    assert numbers[:, 0, 0].tolist() == list(range(1, 8))
    assert product.statement is None
    assert {path.name for path in product.members} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("pattern", ["{}.tif", "scene_{}.tif", "S2_20220620_{}_10m.tif", "scene_{}.TIF"])
def test_common_names_at_the_end_of_file_names_are_bands(tmp_path: Path, pattern: str) -> None:
    for value, name in enumerate(("red", "GREEN", "blue", "nir"), start=1):
        write_band(tmp_path / pattern.format(name), plane_of(value))
    assert read_numbers(found(tmp_path), "blue", "green", "red", "nir")[0][:, 0, 0].tolist() == [3, 2, 1, 4]


def test_words_such_as_red_ahead_of_the_end_belong_to_places(tmp_path: Path) -> None:
    write_band(tmp_path / "red_river_B08.tif", plane_of(8))
    write_band(tmp_path / "red_river_map.tif", plane_of(9))
    assert names_of(found(tmp_path)) == ["B08"]


@pytest.mark.parametrize(
    ("spelling", "common"),
    [("b4", "red"), ("B04", "red"), ("Band4", "red"), ("B8a", "nir08"), ("B08A", "nir08"), ("b11", "swir16")],
)
def test_spellings_of_a_sentinel_2_band_mean_the_same(tmp_path: Path, spelling: str, common: str) -> None:
    write_band(tmp_path / f"S2B_20220620_{spelling}.tif", plane_of(4))
    assert read_numbers(found(tmp_path), common)[0][0, 0, 0] == 4


@pytest.mark.parametrize(
    "name",
    [
        *("QA_B04.tif", "MSK_QUALIT_B04.jp2", "preview_B04.tif", "B04_mask.tif", "LC08_X_ST_B10.TIF", "X_QA_PIXEL.TIF"),
        *("LE07_X_B6_VCID_1.TIF", "BQA.TIF", "scene_thumbnail_red.tif", "B04.txt", "B04.tif.aux.xml", "scene_B13.tif"),
        *("scene_B2_B3.tif", "B.tif", "labels_red.tif"),
    ],
)
def test_files_of_no_reflectance_band_are_passed_over(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix.lower() in (".tif", ".jp2"):
        write_band(path, plane_of(1))
    else:
        path.write_text("x")
    assert band_files.find(tmp_path) is None
    write_band(tmp_path / "B08.tif", plane_of(8))
    assert names_of(found(tmp_path)) == ["B08"]


@pytest.mark.parametrize(
    ("name", "sensor"),
    [
        ("HLS.L30.T10TEM.2023123T190911.v1.5.B05.tif", "hls-l30"),
        ("HLS.S30.T10TEM.2023123T190911.v1.5.B05.tif", "hls-s30"),
        ("S2A_MSIL2A_20170617T113321_36_85_B05.tif", "sentinel-2"),
        ("T32TLS_20220620T162319_B05.jp2", "sentinel-2"),
        ("L2A_T32TLS_20220620T162319_B05.jp2", "sentinel-2"),
        ("LC08_L1TP_198029_20220331_20220406_02_T1_B5.TIF", "landsat-8"),
        ("LC80200392015216LGN00_B5.TIF", "landsat-8"),
        ("LC09_L2SP_198029_20220331_20220406_02_T1_SR_B5.TIF", "landsat-8"),
        ("L8-B5-Elkton-VA.tiff", "landsat-8"),
        ("LE07_L1TP_198029_20020331_20220406_02_T1_B5.TIF", "landsat-5"),
        ("LT50200392005216LGN00_B5.TIF", "landsat-5"),
        ("LM05_L1TP_198029_19900614_20200825_02_T2_B4.TIF", None),
        ("L5_B5.TIF", None),
        ("B05.tif", None),
        ("LONDON_20200101_B05.tif", None),
        ("S2_B05.tif", None),
    ],
)
def test_only_product_names_tell_the_sensor(name: str, sensor: str | None) -> None:
    assert band_files.sensor_named(name) == sensor


def test_the_folders_product_name_tells_the_sensor_where_the_files_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "LC08_L1TP_198029_20220331_20220406_02_T1"
    for number in (4, 5, 8, 10):
        write_band(folder / f"B{number}.TIF", plane_of(number))
    product = found(folder)
    assert names_of(product) == ["B4", "B5"]
    assert read_numbers(product, "red", "nir")[0][:, 0, 0].tolist() == [4, 5]


def test_names_that_several_sensors_have_stay_ambiguous(tmp_path: Path) -> None:
    for number in (2, 3, 4, 5):
        write_band(tmp_path / f"B{number}.tif", plane_of(number))
    with pytest.raises(BandError, match="ambiguous"):
        read_numbers(found(tmp_path), "blue", "green", "red", "nir")


def test_two_dates_of_a_band_are_refused_by_name(tmp_path: Path) -> None:
    names = ["T32TLS_20220620_B04.tif", "T32TLS_20220625_B04.tif"]
    for name in names:
        write_band(tmp_path / name, plane_of(4))
    with pytest.raises(InputError, match="hold the same band") as caught:
        band_files.find(tmp_path)
    assert all(name in caught.value.message for name in names)
    assert "give one scene" in caught.value.hint


def test_bands_of_different_dates_are_refused_though_no_band_comes_twice(tmp_path: Path) -> None:
    names = ["T32TLS_20220620_B04.tif", "T32TLS_20220625_B08.tif"]
    for name in names:
        write_band(tmp_path / name, plane_of(4))
    with pytest.raises(InputError, match="different scenes") as caught:
        band_files.find(tmp_path)
    assert all(name in caught.value.message for name in names)


@pytest.mark.parametrize("spellings", [("B4", "B04"), ("red", "RED"), ("B8A", "b08a")])
def test_two_spellings_of_a_band_are_one_band_twice(tmp_path: Path, spellings: tuple[str, str]) -> None:
    for number, spelling in enumerate(spellings):
        write_band(tmp_path / f"{'ab'[number]}_{spelling}.tif", plane_of(4))
    with pytest.raises(InputError, match="hold the same band"):
        band_files.find(tmp_path)


def test_of_several_pixel_sizes_the_finest_is_read(tmp_path: Path) -> None:
    for size, side in ((60, 1), (10, 6), (20, 3)):
        transform = TEN_METRES @ TEN_METRES.scale(size / 10)
        for name in ("B04", "B8A") if size > 10 else ("B04",):
            path = tmp_path / f"T32TLS_20220620T162319_{name}_{size}m.tif"
            write_band(path, plane_of(size, side), transform=transform)
    product = found(tmp_path)
    assert read_numbers(product, "red", "nir08", gsd_m=10.0)[0][:, 0, 0].tolist() == [10, 20]


@pytest.mark.parametrize("names", [("B04_10m", "B04_10m_copy"), ("B04", "B04_10m"), ("20200101_B04_10m", "B04_20m")])
def test_pixel_sizes_that_do_not_tell_files_apart_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write_band(tmp_path / f"{name}.tif", plane_of(4))
    with pytest.raises(InputError, match="hold the same band"):
        band_files.find(tmp_path)


def test_the_driver_is_told_by_the_first_bytes_whatever_the_ending(tmp_path: Path) -> None:
    write_band(tmp_path / "B03.tif", plane_of(3)).rename(tmp_path / "B03.jp2")
    write_jp2(tmp_path / "B04.jp2", plane_of(4)).rename(tmp_path / "B04.tif")
    write_jp2(tmp_path / "B08.jp2", plane_of(8))
    product = found(tmp_path)
    drivers = {layer.name: layer.driver for layer in product.layers}
    assert drivers == {"B03": "GTiff", "B04": "JP2OpenJPEG", "B08": "JP2OpenJPEG"}
    assert read_numbers(product, "green", "red", "nir")[0][:, 0, 0].tolist() == [3, 4, 8]


def test_a_file_that_is_empty_is_refused_only_where_its_band_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "B04.tif").write_bytes(b"")
    write_band(tmp_path / "B08.tif", plane_of(8))
    product = found(tmp_path)
    assert read_numbers(product, "nir")[0][0, 0, 0] == 8
    with pytest.raises(InputError, match=r"B04\.tif is no TIFF: it is empty"):
        read_numbers(product, "red", "nir")


def test_a_folder_of_scenes_of_many_bands_is_none(tmp_path: Path) -> None:
    many = np.ones((4, SIDE, SIDE), np.uint16)
    for name in ("a.tif", "b.tif", "coast_red.tif"):
        write_scene(tmp_path / name, many)
    assert band_files.find(tmp_path) is None
    write_band(tmp_path / "B04.tif", plane_of(4))
    assert band_files.find(tmp_path) is None


def test_one_picture_beside_the_bands_is_no_scene_of_its_own(tmp_path: Path) -> None:
    write_band(tmp_path / "B04.tif", plane_of(4))
    for name in ("TCI.tif", "picture.tif"):
        write_scene(tmp_path / name, np.ones((3, SIDE, SIDE), np.uint8))
    assert names_of(found(tmp_path)) == ["B04"]


def test_other_paths_are_none(tmp_path: Path) -> None:
    assert band_files.find(tmp_path) is None
    assert band_files.find(tmp_path / "absent") is None
    assert band_files.find(write_band(tmp_path / "B04.tif", plane_of(4))) is None


def test_a_list_may_join_folders_dates_and_grids_of_several_pixel_sizes(tmp_path: Path) -> None:
    red = write_band(tmp_path / "a/20220620_B04.tif", plane_of(4))
    nir = write_band(tmp_path / "b/20220625_B8A.tif", plane_of(8, 3), transform=TEN_METRES @ TEN_METRES.scale(2))
    product = band_files.of_list([nir, red])
    assert product.path == tmp_path
    assert read_numbers(product, "red", "nir08", gsd_m=10.0)[0][:, 0, 0].tolist() == [4, 8]


@given(st.permutations(["B02", "B03", "B04", "B05", "B08", "B8A", "B11"]))
def test_the_order_of_a_list_does_not_matter(tmp_path_factory: pytest.TempPathFactory, order: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_order"
    if not folder.exists():
        for value, name in enumerate(S2.values(), start=1):
            write_band(folder / f"{name}.tif", plane_of(value))
    product = band_files.of_list([folder / f"{name}.tif" for name in order])
    assert names_of(product) == list(S2.values())


@given(st.lists(st.text("CDEGHKLMPXYZ0123456789", min_size=1, max_size=8), max_size=4), st.sampled_from("_-. "))
def test_a_band_is_found_behind_any_words(words: list[str], sign: str) -> None:
    # Words of these letters are no band's name, no pixel size, and say of no file that it is no band (QL).
    for name in S2.values():
        found_words = band_files._words(f"{sign.join([*words, name])}.tif")
        assert found_words
        assert found_words[-1] == name


def test_a_list_with_a_file_that_names_no_band_is_refused(tmp_path: Path) -> None:
    red = write_band(tmp_path / "B04.tif", plane_of(4))
    other = write_band(tmp_path / "scene.tif", plane_of(4))
    many = write_scene(tmp_path / "x_B05.tif", np.ones((2, SIDE, SIDE), np.uint16))
    for path in (other, many):
        with pytest.raises(InputError, match=path.name):
            band_files.of_list([red, path])
    with pytest.raises(InputMissingError, match="absent_B04"):
        band_files.of_list([red, tmp_path / "absent_B04.tif"])
    with pytest.raises(InputError, match="no file is listed"):
        band_files.of_list([])
    with pytest.raises(InputError, match="hold the same band"):
        band_files.of_list([red, red])


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_read(tmp_path: Path) -> None:
    write_band(tmp_path / "outside.tif", plane_of(4))
    (tmp_path / "scene").mkdir()
    write_band(tmp_path / "scene/stored.tif", plane_of(8))
    (tmp_path / "scene/B08.tif").symlink_to("stored.tif")
    assert read_numbers(found(tmp_path / "scene"), "nir")[0][0, 0, 0] == 8
    (tmp_path / "scene/B04.tif").symlink_to(tmp_path / "outside.tif")
    with pytest.raises(InputError, match="leads out of its folder"):
        band_files.find(tmp_path / "scene")


def test_bands_of_two_sensors_are_refused(tmp_path: Path) -> None:
    for name in ("LC08_L1TP_198029_B2.TIF", "S2A_B03.tif"):
        write_band(tmp_path / name, plane_of(1))
    with pytest.raises(InputError, match="different sensors"):
        band_files.find(tmp_path)


def test_the_real_20_and_60_m_bands_of_18svg_are_repeated_to_20_m_or_refused(real_data: Path) -> None:
    folder = real_data / "scenes/s2_l1c_18SVG_20160112_20m_60m"
    product = found(folder)
    assert product.sensor == "sentinel-2"
    numbers = read_numbers(product, "rededge071", "nir08", "swir16", "swir22", gsd_m=10.0)[0]
    for plane, name in zip(numbers, ("B05", "B8A", "B11", "B12"), strict=True):
        assert (plane == tifffile.imread(folder / f"T18SVG_20160112_{name}.tif")).all()
    # The crop at 60 m begins 20 m further north.
    with pytest.raises(GridError, match="does not lie on the grid"):
        read_numbers(product, "rededge071", "coastal", gsd_m=10.0)


def test_the_real_bigearthnet_patch_is_read_in_all_its_pixel_sizes(real_data: Path) -> None:
    (folder,) = (real_data / "scenes/s2_l2a_bigearthnet").iterdir()
    product = found(folder)
    assert len(product.layers) == 12
    numbers = read_numbers(product, "blue", "rededge071", "coastal", gsd_m=10.0)[0]
    for plane, name, size in zip(numbers, ("B02", "B05", "B01"), (1, 2, 6), strict=True):
        stored = tifffile.imread(folder / f"{folder.name}_{name}.tif")
        assert (plane == stored.repeat(size, axis=0).repeat(size, axis=1)).all()


def test_real_folders_with_bare_band_names_are_read(real_data: Path) -> None:
    numbers = read_numbers(found(real_data / "awkward/mixed_resolution"), "red", "nir", gsd_m=10.0)[0]
    assert (numbers[0] == tifffile.imread(real_data / "awkward/mixed_resolution/B4.tif")).all()
    product = found(real_data / "awkward/geotiff_named_jp2")
    assert {layer.driver for layer in product.layers} == {"GTiff"}
    stored = tifffile.imread(real_data / "awkward/geotiff_named_jp2/B8A.jp2")
    assert (read_numbers(product, "nir08")[0][0] == stored).all()
    product = found(real_data / "awkward/jp2_without_crs")
    assert {layer.driver for layer in product.layers} == {"JP2OpenJPEG"}
    assert read_numbers(product, "red")[0].shape == (1, 687, 687)


def test_real_folders_of_scenes_are_none(real_data: Path) -> None:
    for folder in ("scenes", "scenes/s2_terramesh", "scenes/s2_l1c_eurosat", "scenes/s2_l2a_boadella", "awkward/tiny"):
        assert band_files.find(real_data / folder) is None
    assert all(band_files.find(folder) is None for folder in (real_data / "safe/aws").iterdir())


def test_the_real_landsat_folder_with_a_band_in_two_grids_is_read_as_a_list(real_data: Path) -> None:
    folder = real_data / "awkward/non_square_pixels_no_mtl"
    product = band_files.of_list([folder / f"L8-B{number}-Elkton-VA.tiff" for number in (2, 3, 4, 5, 10)])
    assert names_of(product) == ["B2", "B3", "B4", "B5"]
    numbers = read_numbers(product, "red", "nir")[0]
    for plane, number in zip(numbers, (4, 5), strict=True):
        assert (plane == tifffile.imread(folder / f"L8-B{number}-Elkton-VA.tiff")).all()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("site_2020-01-05_B02.tif", "site_2020-07-09_B03.tif"),
        ("T32UMA_B02.tif", "T33UMA_B03.tif"),
        ("jan_B02.tif", "jul_B03.tif"),
        ("north_red.tif", "south_nir.tif"),
    ],
)
def test_names_that_differ_in_more_than_the_band_are_of_different_scenes(
    tmp_path: Path, first: str, second: str
) -> None:
    write_band(tmp_path / first, plane_of(1))
    write_band(tmp_path / second, plane_of(2))
    with pytest.raises(InputError, match="different scenes"):
        band_files.find(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("x_blue_B02.tif", "x_green_B03.tif"),
        ("x_B02_490nm.tif", "x_B03_560nm.tif"),
        ("X_B02_10m.tif", "x_B05_20m.tif"),
        ("L8_SR_B2.tif", "L8_SR_B3.tif"),
    ],
)
def test_names_may_differ_in_what_belongs_to_the_band(tmp_path: Path, names: tuple[str, ...]) -> None:
    for value, name in enumerate(names):
        write_band(tmp_path / name, plane_of(value))
    assert len(found(tmp_path).layers) == 2
