"""Landsat scenes: reflectance as the MTL file defines it, and nothing where it does not."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.errors import GeosegError, InputError, RadiometryError, StorageError
from geoseg_cli.scenes import landsat
from geoseg_cli.scenes.product import Product
from geoseg_cli.scenes.radiometry import Evidence, decide_radiometry
from tests.scenes.product_fixtures import (
    ELEVATION,
    SIDE,
    Landsat,
    make_landsat,
    mtl_json,
    mtl_text,
    mtl_xml,
    read_numbers,
    read_reflectance,
    write_band,
    write_mtl,
)

# From the USGS handbooks, written down here again.
OLI = {"coastal": 1, "blue": 2, "green": 3, "red": 4, "nir": 5, "swir16": 6, "swir22": 7}
TM = {"blue": 1, "green": 2, "red": 3, "nir": 4, "swir16": 5, "swir22": 7}
CRAFTS = [
    ("LANDSAT_4", "TM", TM),
    ("LANDSAT_5", "TM", TM),
    ("LANDSAT_7", "ETM", TM),
    ("LANDSAT_8", "OLI_TIRS", OLI),
    ("LANDSAT_9", "OLI_TIRS", OLI),
]


def found(path: Path) -> Product:
    product = landsat.find(path)
    assert product is not None
    return product


def expected(scene: Landsat, bands: dict[str, int], level: int) -> np.ndarray:
    divisor = math.sin(ELEVATION * math.pi / 180) if level == 1 else 1.0
    planes = [(scene.mult[n] * scene.numbers[n].astype(float) + scene.add[n]) / divisor for n in bands.values()]
    return np.stack(planes)


@pytest.mark.parametrize("kind", ["txt", "json", "xml"])
@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize(("craft", "sensor", "bands"), CRAFTS)
def test_each_sensor_level_and_mtl_form_gives_the_reflectance_of_the_formula(
    tmp_path: Path, craft: str, sensor: str, bands: dict[str, int], level: int, kind: str
) -> None:
    scene = make_landsat(tmp_path, craft, sensor, level, (kind,))
    reflectance, valid = read_reflectance(found(tmp_path), *bands)
    assert reflectance == pytest.approx(expected(scene, bands, level), rel=1e-9)
    assert valid.all()


def test_collection_1_is_read_by_its_own_group_names(tmp_path: Path) -> None:
    scene = make_landsat(tmp_path, level=1, collection=1)
    product = found(tmp_path)
    assert read_reflectance(product, *OLI)[0] == pytest.approx(expected(scene, OLI, 1), rel=1e-9)
    assert product.quality is not None
    assert product.quality.reason == "fill bit of BQA"


def test_the_three_forms_of_an_mtl_file_describe_the_same_product(tmp_path: Path) -> None:
    make_landsat(tmp_path, level=1, kinds=("txt", "json", "xml"))
    products = [found(path) for path in sorted(tmp_path.glob("*_MTL.*"))]
    assert len(products) == 3
    assert len({product.layers for product in products}) == 1
    assert len({(p.statement.scales, p.statement.offsets) for p in products if p.statement}) == 1


@pytest.mark.parametrize(("craft", "sensor", "bands"), CRAFTS)
@pytest.mark.parametrize("level", [1, 2])
def test_thermal_and_panchromatic_bands_are_no_layers(
    tmp_path: Path, craft: str, sensor: str, bands: dict[str, int], level: int
) -> None:
    make_landsat(tmp_path, craft, sensor, level)
    names = {layer.name.removeprefix("SR_") for layer in found(tmp_path).layers}
    cirrus = {"B9"} if sensor == "OLI_TIRS" and level == 1 else set()
    assert names == {f"B{number}" for number in bands.values()} | cirrus


def test_the_reason_names_formula_file_and_sun_elevation(tmp_path: Path) -> None:
    scene = make_landsat(tmp_path, level=1)
    statement = found(tmp_path).statement
    assert statement is not None
    assert statement.rung == "metadata"
    for part in ("x DN", "/ sin(37.25 degrees)", scene.mtl.name, "SUN_ELEVATION"):
        assert part in statement.reason


@pytest.mark.parametrize("elevation", [90.0, 45.0, 0.5])
def test_a_lower_sun_means_a_higher_reflectance_for_the_same_number(tmp_path: Path, elevation: float) -> None:
    make_landsat(tmp_path, level=1, elevation=elevation)
    statement = found(tmp_path).statement
    assert statement is not None
    # Band 1 of the fixture has the factor 2e-5 x 1.01.
    assert statement.scales[0] == pytest.approx(2.02e-5 / math.cos(math.radians(90 - elevation)))


@pytest.mark.parametrize("elevation", [0.0, -12.5])
def test_a_scene_without_sunlight_is_refused(tmp_path: Path, elevation: float) -> None:
    make_landsat(tmp_path, level=1, elevation=elevation)
    with pytest.raises(RadiometryError, match="SUN_ELEVATION"):
        landsat.find(tmp_path)


@pytest.mark.parametrize(("collection", "level"), [(2, 1), (2, 2), (1, 1)])
def test_the_fill_bit_alone_and_the_number_0_tell_lost_pixels(tmp_path: Path, collection: int, level: int) -> None:
    scene = make_landsat(tmp_path, level=level, collection=collection)
    quality = scene.quality.copy()
    quality[0, :3] = (1, 21825, 65534)
    write_band(next(tmp_path.glob("*QA*.TIF")), quality)
    blue = scene.numbers[2].copy()
    blue[5, 5] = 0
    write_band(next(tmp_path.glob("*_B2.TIF")), blue)
    valid = read_numbers(found(tmp_path), "red", "blue")[1]
    lost = np.zeros((SIDE, SIDE), bool)
    lost[0, 0] = lost[0, 1] = lost[5, 5] = True
    assert (valid == ~lost).all()


def test_absent_files_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    make_landsat(tmp_path)
    gone = [next(tmp_path.glob("*_SR_B3.TIF")), next(tmp_path.glob("*_QA_PIXEL.TIF"))]
    for path in gone:
        path.unlink()
    product = found(tmp_path)
    assert [layer.name for layer in product.layers] == [f"SR_B{number}" for number in (1, 2, 4, 5, 6, 7)]
    assert product.quality is None
    (warning,) = product.warnings
    assert all(path.name in warning for path in gone)


def test_a_scene_without_any_band_is_refused(tmp_path: Path) -> None:
    make_landsat(tmp_path)
    for path in tmp_path.glob("*.TIF"):
        path.unlink()
    with pytest.raises(InputError, match="none of the 7 band files"):
        landsat.find(tmp_path)


def test_files_that_were_renamed_to_small_letters_are_found(tmp_path: Path) -> None:
    scene = make_landsat(tmp_path)
    for path in tmp_path.glob("*.TIF"):
        path.rename(path.with_suffix(".tif"))
    assert read_reflectance(found(tmp_path), *OLI)[0] == pytest.approx(expected(scene, OLI, 2), rel=1e-9)


def test_all_files_that_are_read_are_members(tmp_path: Path) -> None:
    scene = make_landsat(tmp_path)
    product = found(tmp_path)
    names = {path.name for path in product.members}
    assert names == {path.name for path in tmp_path.iterdir()}
    assert scene.mtl in product.members


def rewritten(scene: Landsat, old: str, new: str) -> Path:
    text = scene.mtl.read_text()
    assert old in text
    scene.mtl.write_text(text.replace(old, new))
    return scene.folder


@pytest.mark.parametrize("name", ["../x.TIF", "/etc/hostname", "a\\\\b.TIF", "a/b.TIF", "..", "."])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    scene = make_landsat(tmp_path)
    with pytest.raises(InputError, match="no plain file name"):
        landsat.find(rewritten(scene, next(tmp_path.glob("*_SR_B4.TIF")).name, name))


@pytest.mark.parametrize("band", ["SR_B4", "QA_PIXEL"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, band: str) -> None:
    make_landsat(tmp_path / "scene")
    path = next((tmp_path / "scene").glob(f"*_{band}.TIF"))
    path.rename(tmp_path / "outside.TIF")
    path.symlink_to(tmp_path / "outside.TIF")
    with pytest.raises(InputError, match="leads out of its folder"):
        landsat.find(tmp_path / "scene")


def test_one_file_for_two_bands_is_refused(tmp_path: Path) -> None:
    scene = make_landsat(tmp_path)
    names = [next(tmp_path.glob(f"*_SR_B{number}.TIF")).name for number in (4, 5)]
    with pytest.raises(InputError, match="for two bands"):
        landsat.find(rewritten(scene, *names))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"LANDSAT_8"', '"LANDSAT_3"', "cannot be read"),
        ('"LANDSAT_8"', '"LANDSAT_5"', "cannot be read"),
        ('"OLI_TIRS"', '"MSS"', "cannot be read"),
        ('"OLI_TIRS"', '"TIRS"', "cannot be read"),
        ('"L2SP"', '"L3"', "processing level 'L3' is unknown"),
        ("SPACECRAFT_ID", "SPACECRAFT", "no SPACECRAFT_ID"),
        ("REFLECTANCE_ADD_BAND_3 = ", "REFLECTANCE_ADD_BAND_3 = x", "no number"),
        ("REFLECTANCE_MULT_BAND_3 = ", "REFLECTANCE_MULT_BAND_3 = nan#", "no number"),
        ("REFLECTANCE_MULT_BAND_3 = ", "REFLECTANCE_MULT_BAND_3 = -", "not above 0"),
        ("END_GROUP = IMAGE_ATTRIBUTES", "END_GROUP = OTHER", "not open"),
        ("SENSOR_ID =", "SENSOR_ID", "no KEY = VALUE"),
        ("    SENSOR_ID", '    SENSOR_ID = "TM"\n    SENSOR_ID', "twice"),
    ],
)
def test_an_mtl_file_that_makes_no_sense_is_refused_with_its_name(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    scene = make_landsat(tmp_path)
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        landsat.find(rewritten(scene, old, new))
    assert scene.mtl.name in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_mtl_text_is_refused(tmp_path: Path, share: float) -> None:
    scene = make_landsat(tmp_path)
    lines = scene.mtl.read_text().splitlines()
    scene.mtl.write_text("\n".join(lines[: int(len(lines) * share)]))
    with pytest.raises(StorageError, match="truncated"):
        landsat.find(tmp_path)


def test_a_document_type_is_refused(tmp_path: Path) -> None:
    scene = make_landsat(tmp_path, kinds=("xml",))
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n<LANDSAT_METADATA_FILE>'
    with pytest.raises(InputError, match="document type"):
        landsat.find(rewritten(scene, "<LANDSAT_METADATA_FILE>", bomb))


@pytest.mark.parametrize("kind", ["txt", "json", "xml"])
def test_metadata_larger_than_any_products_is_not_read(tmp_path: Path, kind: str) -> None:
    scene = make_landsat(tmp_path, kinds=(kind,))
    with scene.mtl.open("r+b") as stream:
        stream.truncate(33 * 2**20)
    with pytest.raises(InputError, match=r"larger than 32 MiB|too large"):
        landsat.find(tmp_path)


def test_xml_as_deep_as_no_products_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x_MTL.xml"
    path.write_text("<a>" * 50_000 + "</a>" * 50_000)
    with pytest.raises(InputError, match="no SPACECRAFT_ID"):
        landsat.find(path)


def test_json_that_says_a_key_twice_is_refused(tmp_path: Path) -> None:
    scene = make_landsat(tmp_path, kinds=("json",))
    with pytest.raises(InputError, match="twice"):
        landsat.find(rewritten(scene, '"SENSOR_ID"', '"SENSOR_ID": "TM", "SENSOR_ID"'))


def test_two_scenes_in_a_folder_are_refused_and_the_mtl_file_chooses(tmp_path: Path) -> None:
    first = make_landsat(tmp_path, date="20200614")
    mtl = first.mtl
    make_landsat(tmp_path, date="20210617")
    with pytest.raises(InputError, match="several Landsat scenes") as caught:
        landsat.find(tmp_path)
    assert "20200614" in caught.value.message
    assert "20210617" in caught.value.message
    assert {re.search("20200614|20210617", layer.file)[0] for layer in found(mtl).layers} == {"20200614"}  # type: ignore[index]


def test_other_folders_and_files_are_none(tmp_path: Path) -> None:
    assert landsat.find(tmp_path) is None
    write_band(tmp_path / "B04.tif", np.ones((2, 2), np.uint16))
    assert landsat.find(tmp_path) is None
    assert landsat.find(tmp_path / "B04.tif") is None
    assert landsat.find(tmp_path / "absent_MTL.txt") is None


def without_mtl(scene: Landsat) -> Path:
    scene.mtl.unlink()
    return scene.folder


@pytest.mark.parametrize(("craft", "sensor", "bands"), CRAFTS)
def test_without_an_mtl_file_names_tell_bands_and_sensor_but_nothing_tells_the_numbers(
    tmp_path: Path, craft: str, sensor: str, bands: dict[str, int]
) -> None:
    scene = make_landsat(tmp_path, craft, sensor, level=1)
    product = found(without_mtl(scene))
    assert product.statement is None
    pixels = read_numbers(product, *bands)[0]
    assert (pixels == np.stack([scene.numbers[number] for number in bands.values()])).all()
    names = {layer.name for layer in product.layers}
    assert names == {f"B{number}" for number in bands.values()} | ({"B9"} if sensor == "OLI_TIRS" else set())


def test_without_an_mtl_file_the_fill_of_the_product_still_counts(tmp_path: Path) -> None:
    scene = make_landsat(tmp_path, level=1)
    quality = scene.quality.copy()
    quality[0, 0] |= 1
    write_band(next(tmp_path.glob("*_QA_PIXEL.TIF")), quality)
    red = scene.numbers[4].copy()
    red[1, 1] = 0
    write_band(next(tmp_path.glob("*_B4.TIF")), red)
    valid = read_numbers(found(without_mtl(scene)), "red")[1]
    assert [tuple(place) for place in np.argwhere(~valid)] == [(0, 0), (1, 1)]


def test_without_an_mtl_file_the_scene_is_refused_with_a_remedy(tmp_path: Path) -> None:
    product = found(without_mtl(make_landsat(tmp_path, level=1)))
    numbers, valid, _ = read_numbers(product, "red", "nir")
    evidence = Evidence(
        product.path, ("red", "nir"), ("uint16",) * 2, (1.0,) * 2, (0.0,) * 2, lambda: numbers[:, valid]
    )
    with pytest.raises(RadiometryError, match="nothing says what its uint16 numbers mean") as caught:
        decide_radiometry("auto", evidence)
    assert "--radiometry" in caught.value.hint


def test_bands_of_two_dates_without_an_mtl_file_are_refused_by_name(tmp_path: Path) -> None:
    without_mtl(make_landsat(tmp_path, date="20200614"))
    without_mtl(make_landsat(tmp_path, date="20210617"))
    with pytest.raises(InputError, match="hold the same band") as caught:
        landsat.find(tmp_path)
    assert "_20200614_" in caught.value.message
    assert "_20210617_" in caught.value.message


@pytest.mark.parametrize(
    "name", ["LM05_L1TP_198029_19900614_20200825_02_T2_B4.TIF", "LT08_L1GT_198029_20190614_B11.TIF"]
)
def test_the_mss_and_tirs_alone_are_refused_also_without_an_mtl_file(tmp_path: Path, name: str) -> None:
    write_band(tmp_path / name, np.ones((2, 2), np.uint8))
    with pytest.raises(InputError, match="MSS or of TIRS"):
        landsat.find(tmp_path)


NAMES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789", min_size=1, max_size=12).map(lambda text: f"K{text}")
VALUES = st.text(st.characters(codec="ascii", exclude_characters='<>&"\\\0', exclude_categories=("C", "Z")), max_size=9)
GROUPS = st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, min_size=1, max_size=5), min_size=1, max_size=4)


@given(GROUPS)
def test_the_three_forms_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, groups: dict[str, dict[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("mtl")
    for kind in ("txt", "json", "xml"):
        assert landsat.read_mtl(write_mtl(folder / f"x_MTL.{kind}", groups)) == groups


SAMPLE: dict[str, dict[str, object]] = {"A": {"K": "v", "N": 1.5}, "B": {"FILE": "x.TIF"}}
TEXTS = {"txt": mtl_text(SAMPLE), "json": mtl_json(SAMPLE), "xml": mtl_xml(SAMPLE)}


@given(st.sampled_from(list(TEXTS)), st.data())
def test_damaged_metadata_is_read_or_refused_but_never_a_surprise(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    text = bytearray(TEXTS[kind], "utf-8")
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        text[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4))
    path = tmp_path_factory.mktemp("mtl") / f"x_MTL.{kind}"
    path.write_bytes(text)
    try:
        groups = landsat.read_mtl(path)
    except GeosegError:
        return
    assert all(isinstance(value, str) for group in groups.values() for value in group.values())


def stated(text: str, key: str, last: bool = False) -> float:
    """A number of a real MTL text; level 2 files say their own reflectance factors before those of level 1."""
    values = re.findall(rf"\b{key} = (\S+)", text)
    return float(values[-1 if last else 0])


REAL = [
    *("LC08_L1TP_016037_20170813_20170814_01_RT", "LC80200392015216LGN00"),
    *("LC08_L2SP_005009_20150710_20200908_02_T2", "LC08_L2SP_008059_20191201_20200825_02_T1"),
    "LC08_L2SP_017036_20130419_20200913_02_T2",
]


@pytest.mark.parametrize("name", REAL)
def test_real_scenes_have_the_reflectance_of_their_mtl_file(real_data: Path, name: str) -> None:
    folder = real_data / "scenes/landsat" / name
    text = (folder / f"{name}_MTL.txt").read_text()
    is_level_2 = "_L2SP_" in name
    divisor = 1.0 if is_level_2 else math.sin(math.radians(stated(text, "SUN_ELEVATION")))
    reflectance, valid = read_reflectance(found(folder), *OLI)
    quality = tifffile.imread(
        next(path for path in folder.glob("*QA*.TIF") if "BQA" in path.name or "PIXEL" in path.name)
    )
    lost = (quality & 1) != 0
    for plane, number in zip(reflectance, OLI.values(), strict=True):
        stored = tifffile.imread(folder / f"{name}_{'SR_' if is_level_2 else ''}B{number}.TIF").astype(float)
        mult, add = (stated(text, f"REFLECTANCE_{word}_BAND_{number}") for word in ("MULT", "ADD"))
        np.testing.assert_allclose(plane, (mult * stored + add) / divisor, rtol=0, atol=1e-9)
        lost |= stored == 0
    assert (valid == ~lost).all()
    assert valid.any()


def test_the_real_scene_of_antarctica_is_read_in_its_polar_grid(real_data: Path) -> None:
    (folder,) = (real_data / "awkward/polar_epsg3031").iterdir()
    reflectance, valid = read_reflectance(found(folder), "red")
    stored = tifffile.imread(next(folder.glob("*_SR_B4.TIF")))
    np.testing.assert_allclose(reflectance[0][valid], 2.75e-5 * stored[valid] - 0.2, rtol=0, atol=1e-9)
    assert valid.any()


def test_the_real_collection_1_folder_without_an_mtl_file_is_read_as_numbers(real_data: Path) -> None:
    (folder,) = (real_data / "awkward/landsat_c1_no_mtl").iterdir()
    product = found(folder)
    assert product.statement is None
    assert product.sensor == "landsat-8"
    pixels, valid, _ = read_numbers(product, *OLI)
    for plane, number in zip(pixels, OLI.values(), strict=True):
        assert (plane == tifffile.imread(next(folder.glob(f"*_B{number}.TIF")))).all()
    assert (valid == (tifffile.imread(next(folder.glob("*_BQA.TIF"))) & 1 == 0)).all()


def test_the_real_folder_with_a_band_in_two_grids_is_refused_by_name(real_data: Path) -> None:
    with pytest.raises(InputError, match="hold the same band") as caught:
        landsat.find(real_data / "awkward/non_square_pixels_no_mtl")
    assert "L8-B4-Elkton-VA-4326.tiff" in caught.value.message


def test_real_float_reflectance_is_left_to_the_radiometry(real_data: Path) -> None:
    product = found(real_data / "awkward/float_reflectance")
    assert [layer.name for layer in product.layers] == ["B2", "B3", "B4", "B5", "B6", "B7", "B9"]
    assert {layer.nodata for layer in product.layers} == {"file"}
    assert product.statement is None
