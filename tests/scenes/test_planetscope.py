"""PlanetScope scenes: bands by description or by the order of the product, numbers by name or metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from geoseg_cli.errors import BandError, InputError
from geoseg_cli.scenes import planetscope
from geoseg_cli.scenes.product import Product
from tests.conftest import write_scene
from tests.scenes.product_fixtures import read_numbers, read_reflectance

SCENE = "20210825_153054_80_2442"
# From Planet's item description, written down here again.
FOUR = {"blue": 1, "green": 2, "red": 3, "nir": 4}
EIGHT = {"coastal": 1, "blue": 2, "green": 4, "red": 6, "rededge071": 7, "nir": 8}
COEFFICIENTS = [2.1e-5, 2.2e-5, 2.4e-5, 3.6e-5, 2.0e-5, 2.5e-5, 2.9e-5, 3.3e-5]


def make_image(path: Path, count: int, names: Sequence[str] = (), **profile: Any) -> npt.NDArray[Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(5).integers(100, 9000, (count, 6, 6), dtype=np.uint16)
    write_scene(path, pixels, names, **profile)
    return pixels


def make_xml(path: Path, coefficients: Sequence[object], extra: str = "") -> Path:
    blocks = "".join(
        f"<ps:bandSpecificMetadata><ps:bandNumber>{number}</ps:bandNumber>"
        f"<ps:radiometricScaleFactor>0.01</ps:radiometricScaleFactor>"
        f"<ps:reflectanceCoefficient>{value}</ps:reflectanceCoefficient></ps:bandSpecificMetadata>"
        for number, value in enumerate(coefficients, start=1)
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>' + extra
    path.write_text(f'{head}<ps:EarthObservation xmlns:ps="urn:ps"><ps:bands>{blocks}</ps:bands></ps:EarthObservation>')
    return path


def found(path: Path) -> Product:
    product = planetscope.find(path)
    assert product is not None
    return product


@pytest.mark.parametrize(
    ("name", "count", "bands"),
    [
        ("3B_AnalyticMS_SR.tif", 4, FOUR),
        ("3B_AnalyticMS_SR_harmonized_clip.tif", 4, FOUR),
        ("3B_AnalyticMS_SR_8b.tif", 8, EIGHT),
        ("3B_AnalyticMS_SR_8b_harmonized_clip_file_format.tif", 8, EIGHT),
        ("ortho_analytic_8b_sr.tif", 8, EIGHT),
        ("ortho_analytic_4b_sr.tif", 4, FOUR),
    ],
)
def test_surface_reflectance_is_a_ten_thousandth_of_the_number_in_the_order_of_the_product(
    tmp_path: Path, name: str, count: int, bands: dict[str, int]
) -> None:
    pixels = make_image(tmp_path / f"{SCENE}_{name}", count)
    # The coefficients are of the radiance product of the scene.
    make_xml(tmp_path / f"{SCENE}_3B_AnalyticMS_metadata.xml", COEFFICIENTS[:4])
    product = found(tmp_path / f"{SCENE}_{name}")
    reflectance, valid = read_reflectance(product, *bands, gsd_m=3.0)
    assert reflectance == pytest.approx(pixels[[number - 1 for number in bands.values()]] / 10000)
    assert valid.all()
    assert "by the order of the product" in product.warnings[0]


@pytest.mark.parametrize(
    ("image", "xml", "count", "bands"),
    [
        ("3B_AnalyticMS.tif", "3B_AnalyticMS_metadata.xml", 4, FOUR),
        ("3B_AnalyticMS_clip.tif", "3B_AnalyticMS_metadata_clip.xml", 4, FOUR),
        ("3B_AnalyticMS_8b.tif", "3B_AnalyticMS_8b_metadata.xml", 8, EIGHT),
        ("ortho_analytic_8b.tif", "ortho_analytic_8b_xml.xml", 8, EIGHT),
    ],
)
def test_radiance_becomes_reflectance_by_the_coefficient_of_each_band(
    tmp_path: Path, image: str, xml: str, count: int, bands: dict[str, int]
) -> None:
    pixels = make_image(tmp_path / f"{SCENE}_{image}", count)
    make_xml(tmp_path / f"{SCENE}_{xml}", COEFFICIENTS[:count])
    product = found(tmp_path / f"{SCENE}_{image}")
    reflectance, _ = read_reflectance(product, *bands, gsd_m=3.0)
    for plane, number in zip(reflectance, bands.values(), strict=True):
        assert plane == pytest.approx(pixels[number - 1] * COEFFICIENTS[number - 1])
    assert product.statement is not None
    assert product.statement.rung == "metadata"
    assert f"{SCENE}_{xml}" in product.statement.reason
    assert {path.name for path in product.members} == {f"{SCENE}_{image}", f"{SCENE}_{xml}"}


@pytest.mark.parametrize("xml", [None, "20200101_000000_0f00_3B_AnalyticMS_metadata.xml"])
def test_radiance_without_its_own_metadata_has_no_statement(tmp_path: Path, xml: str | None) -> None:
    make_image(tmp_path / f"{SCENE}_3B_AnalyticMS.tif", 4)
    if xml:
        make_xml(tmp_path / xml, COEFFICIENTS[:4])
    assert found(tmp_path / f"{SCENE}_3B_AnalyticMS.tif").statement is None


def test_a_metadata_file_stands_for_its_image(tmp_path: Path) -> None:
    for name, count in (("3B_AnalyticMS", 4), ("3B_AnalyticMS_8b", 8)):
        make_image(tmp_path / f"{SCENE}_{name}.tif", count)
        make_xml(tmp_path / f"{SCENE}_{name}_metadata.xml", COEFFICIENTS[:count])
    product = found(tmp_path / f"{SCENE}_3B_AnalyticMS_8b_metadata.xml")
    assert {layer.file for layer in product.layers} == {str(tmp_path / f"{SCENE}_3B_AnalyticMS_8b.tif")}
    make_image(tmp_path / f"{SCENE}_3B_AnalyticMS_SR_8b.tif", 8)
    with pytest.raises(InputError, match="several images of one scene"):
        planetscope.find(tmp_path / f"{SCENE}_3B_AnalyticMS_8b_metadata.xml")


def test_metadata_of_the_eight_band_product_is_not_taken_for_the_four_band_one(tmp_path: Path) -> None:
    make_image(tmp_path / f"{SCENE}_3B_AnalyticMS.tif", 4)
    make_xml(tmp_path / f"{SCENE}_3B_AnalyticMS_8b_metadata.xml", COEFFICIENTS)
    assert found(tmp_path / f"{SCENE}_3B_AnalyticMS.tif").statement is None


def test_descriptions_win_over_the_order_of_the_product(tmp_path: Path) -> None:
    path = tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif"
    pixels = make_image(path, 4, ("red", "green", "blue", "nir"))
    product = found(path)
    assert (read_numbers(product, "blue", "red", gsd_m=3.0)[0] == pixels[[2, 0]]).all()
    assert product.warnings == ()


def test_descriptions_in_planets_own_words_are_known(tmp_path: Path) -> None:
    names = ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir")
    path = tmp_path / f"{SCENE}_3B_AnalyticMS_SR_8b.tif"
    pixels = make_image(path, 8, names)
    numbers = read_numbers(found(path), *EIGHT, gsd_m=3.0)[0]
    assert (numbers == pixels[[number - 1 for number in EIGHT.values()]]).all()


@pytest.mark.parametrize(
    ("name", "count"),
    [("3B_AnalyticMS_SR.tif", 5), ("3B_AnalyticMS_SR_8b.tif", 4), ("ortho_analytic_4b_sr.tif", 8)],
)
def test_a_count_that_the_product_does_not_have_names_no_band(tmp_path: Path, name: str, count: int) -> None:
    path = tmp_path / f"{SCENE}_{name}"
    make_image(path, count)
    product = found(path)
    assert {layer.name for layer in product.layers} == {""}
    assert f"has {count} bands without names" in product.warnings[0]
    with pytest.raises(BandError, match="no band has a name"):
        read_numbers(product, "red")


@pytest.mark.parametrize(
    "name",
    [
        *("scene.tif", f"{SCENE}_3B_udm2.tif", f"{SCENE}_3B_AnalyticMS_DN_udm.tif", f"{SCENE}_3B_Visual.tif"),
        *(f"{SCENE}_3B_AnalyticMS_SR_8b_harmonized_clip_B2.tif", "20200101_000000_ssc4d3_0001_analytic_SR.tif"),
    ],
)
def test_other_products_are_none(tmp_path: Path, name: str) -> None:
    make_image(tmp_path / name, 4)
    assert planetscope.find(tmp_path / name) is None
    assert planetscope.find(tmp_path) is None


def test_zeros_are_lost_pixels(tmp_path: Path) -> None:
    path = tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif"
    pixels = make_image(path, 4)
    pixels[:, 1, 2] = 0
    write_scene(path, pixels)
    valid = read_numbers(found(path), "red", "nir", gsd_m=3.0)[1]
    assert [tuple(place) for place in np.argwhere(~valid)] == [(1, 2)]


def test_a_folder_of_one_image_is_that_image(tmp_path: Path) -> None:
    make_image(tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif", 4)
    make_mask(tmp_path / f"{SCENE}_3B_udm2.tif")
    product = found(tmp_path)
    assert {layer.file for layer in product.layers} == {str(tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif")}


def test_a_folder_of_two_images_of_a_scene_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("3B_AnalyticMS_SR.tif", "3B_AnalyticMS.tif"):
        make_image(tmp_path / f"{SCENE}_{name}", 4)
    with pytest.raises(InputError, match="several images of one scene"):
        planetscope.find(tmp_path)


def test_a_folder_of_several_scenes_is_none(tmp_path: Path) -> None:
    for scene in (SCENE, "20210826_153054_80_2442"):
        make_image(tmp_path / f"{scene}_3B_AnalyticMS_SR.tif", 4)
    assert planetscope.find(tmp_path) is None


@pytest.mark.parametrize(
    ("coefficients", "says"),
    [
        ([2e-5, 2e-5, "x", 2e-5], "no factor"),
        ([2e-5, 2e-5, "nan", 2e-5], "no factor"),
        ([2e-5, 2e-5, 0.0, 2e-5], "no factor"),
        ([2e-5, 2e-5, 1.0, 2e-5], "no factor"),
        ([2e-5, 2e-5, 2e-5], "is of 3 bands"),
    ],
)
def test_coefficients_that_make_no_sense_are_refused(tmp_path: Path, coefficients: list[object], says: str) -> None:
    make_image(tmp_path / f"{SCENE}_3B_AnalyticMS.tif", 4)
    make_xml(tmp_path / f"{SCENE}_3B_AnalyticMS_metadata.xml", coefficients)
    with pytest.raises(InputError, match=says):
        planetscope.find(tmp_path / f"{SCENE}_3B_AnalyticMS.tif")


def test_a_document_type_is_refused(tmp_path: Path) -> None:
    make_image(tmp_path / f"{SCENE}_3B_AnalyticMS.tif", 4)
    make_xml(tmp_path / f"{SCENE}_3B_AnalyticMS_metadata.xml", COEFFICIENTS[:4], '<!DOCTYPE x SYSTEM "file:///x">')
    with pytest.raises(InputError, match="document type"):
        planetscope.find(tmp_path / f"{SCENE}_3B_AnalyticMS.tif")


def test_floats_under_a_products_name_were_computed_and_have_no_statement(tmp_path: Path) -> None:
    path = tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif"
    write_scene(path, np.full((4, 6, 6), 0.25, np.float32))
    assert found(path).statement is None


def test_an_eight_bit_picture_under_a_products_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif"
    write_scene(path, np.full((4, 6, 6), 25, np.uint8))
    with pytest.raises(InputError, match="8-bit rendered image"):
        planetscope.find(path)


def make_mask(path: Path, count: int = 8) -> npt.NDArray[np.bool_]:
    """A mask whose last band has every bit somewhere; where bit 0 is set nothing was imaged."""
    bits = np.random.default_rng(9).integers(0, 256, (6, 6)).astype(np.uint8)
    planes = np.random.default_rng(10).integers(0, 2, (count, 6, 6)).astype(np.uint8)
    planes[-1] = bits
    write_scene(path, planes)
    return bits % 2 == 1


@pytest.mark.parametrize(
    ("image", "mask", "count"),
    [
        ("3B_AnalyticMS_SR.tif", "3B_udm2.tif", 8),
        ("3B_AnalyticMS_SR_8b_harmonized_clip.tif", "3B_udm2_clip.tif", 8),
        ("ortho_analytic_8b_sr.tif", "ortho_udm2.tif", 8),
        ("3B_AnalyticMS_SR_clip.tif", "3B_AnalyticMS_DN_udm_clip.tif", 1),
    ],
)
def test_where_nothing_was_imaged_pixels_are_lost_and_clouds_are_not(
    tmp_path: Path, image: str, mask: str, count: int
) -> None:
    make_image(tmp_path / f"{SCENE}_{image}", 8 if "8b" in image else 4)
    blackfill = make_mask(tmp_path / f"{SCENE}_{mask}", count)
    product = found(tmp_path / f"{SCENE}_{image}")
    np.testing.assert_array_equal(read_numbers(product, "red", "nir", gsd_m=3.0)[1], ~blackfill)
    assert tmp_path / f"{SCENE}_{mask}" in product.members
    assert product.quality is not None
    assert mask in product.quality.reason


def test_of_two_masks_the_newer_is_taken(tmp_path: Path) -> None:
    make_image(tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif", 4)
    blackfill = make_mask(tmp_path / f"{SCENE}_3B_udm2.tif")
    write_scene(tmp_path / f"{SCENE}_3B_AnalyticMS_DN_udm.tif", np.ones((1, 6, 6), np.uint8))
    product = found(tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif")
    np.testing.assert_array_equal(read_numbers(product, "red", gsd_m=3.0)[1], ~blackfill)


@pytest.mark.parametrize(
    "mask", [f"{SCENE}_3B_udm2_clip.tif", "20210826_153054_80_2442_3B_udm2.tif", f"{SCENE}_3B_AnalyticMS_udm.tif"]
)
def test_a_mask_of_another_scene_or_cut_says_nothing(tmp_path: Path, mask: str) -> None:
    make_image(tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif", 4)
    make_mask(tmp_path / mask)
    assert found(tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif").quality is None


def test_a_mask_with_other_bands_is_refused(tmp_path: Path) -> None:
    make_image(tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif", 4)
    make_mask(tmp_path / f"{SCENE}_3B_udm2.tif", 7)
    with pytest.raises(InputError, match="has 7 bands, such a mask has 8"):
        planetscope.find(tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif")


def test_a_mask_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    make_image(folder / f"{SCENE}_3B_AnalyticMS_SR.tif", 4)
    make_mask(tmp_path / "mask.tif")
    (folder / f"{SCENE}_3B_udm2.tif").symlink_to(tmp_path / "mask.tif")
    with pytest.raises(InputError, match="leads out of its folder"):
        planetscope.find(folder / f"{SCENE}_3B_AnalyticMS_SR.tif")


def test_two_masks_of_one_kind_are_refused(tmp_path: Path) -> None:
    make_image(tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif", 4)
    for name in ("3B_udm2.tif", "ortho_udm2.tif"):
        make_mask(tmp_path / f"{SCENE}_{name}")
    with pytest.raises(InputError, match="may be its mask"):
        planetscope.find(tmp_path / f"{SCENE}_3B_AnalyticMS_SR.tif")
