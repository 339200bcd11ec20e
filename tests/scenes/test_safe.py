"""Sentinel-2 SAFE products: the numbers that were written come back, and nothing leads out of a product."""

from __future__ import annotations

import os
import re
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import EngineError, GeosegError, InputError, RadiometryError, StorageError
from geoseg_cli.scenes import Scene, archive, open_scene, xml_text
from geoseg_cli.scenes.product import Product
from geoseg_cli.scenes.safe import find
from geoseg_cli.scenes.sentinel2_metadata import BAND_IDS
from geoseg_cli.scenes.stack import open_stack
from tests.scenes.safe_fixtures import (
    ALL_MINUS_1000,
    IDS,
    NATIVE_M,
    Text,
    native_images,
    touch_images,
    write_image,
    write_metadata,
    write_safe,
    zip_folder,
)

L1C = Text("L1C", "05.09", ALL_MINUS_1000)
L2A = Text("L2A", "05.09", ALL_MINUS_1000)
OLD_L2A = Text("L2A", "03.00")
LEVELS = pytest.mark.parametrize("text", [L1C, L2A], ids=lambda text: text.level)
COMMON = ("blue", "green", "red", "nir", "rededge071", "swir16", "coastal")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def open_safe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    """``open_scene`` for SAFE products."""

    def open_one(path: Path, bands: tuple[str, ...] = COMMON) -> Scene:
        monkeypatch.setattr("geoseg_cli.scenes.layouts.find_product", lambda path, options: found(path))
        return open_scene(path, InputSpec(bands, (), (0.0,) * len(bands), (1.0,) * len(bands)))

    return open_one


def found(path: Path) -> Product:
    product = find(path)
    assert product is not None
    return product


def pixels_of(product: Product, gsd_m: float = 10) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    stack = open_stack(product, range(1, len(product.layers) + 1), gsd_m)
    try:
        return stack.read(stack.grid.window)
    finally:
        stack.close()


def at_10_m(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    times = 120 // pixels.shape[0]
    return np.repeat(np.repeat(pixels, times, axis=0), times, axis=1)


def meant(product: Product) -> dict[str, tuple[float | None, float | None]]:
    """Scale and offset of each band that the product states."""
    assert product.statement is not None
    names = [layer.name for layer in product.layers]
    return dict(zip(names, zip(product.statement.scales, product.statement.offsets, strict=True), strict=True))


# --- pixels ---


@LEVELS
def test_every_band_reads_as_it_was_written_and_coarse_ones_are_repeated(
    tmp_path: Path, rng: np.random.Generator, text: Text
) -> None:
    images = native_images(text.level, rng)
    product = found(write_safe(tmp_path, text, images))
    names = [name for name in BAND_IDS if name in {image[:3] for image in images}]
    assert [layer.name for layer in product.layers] == names
    assert len(names) == (13 if text.level == "L1C" else 12)
    wanted = [next(pixels for image, pixels in images.items() if image.startswith(name)) for name in names]
    pixels, valid = pixels_of(product)
    assert np.array_equal(pixels, np.stack([at_10_m(band) for band in wanted]))
    assert valid.all()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@LEVELS
def test_a_zip_reads_as_the_folder_it_was_made_of(
    tmp_path: Path, rng: np.random.Generator, text: Text, method: int
) -> None:
    images = native_images(text.level, rng)
    images[next(iter(images))][:3] = 0
    root = write_safe(tmp_path, text, images)
    # GDAL looks for the first .zip in a path; this one is a folder.
    (tmp_path / "a.zip").mkdir()
    packed = found(zip_folder(root, tmp_path / "a.zip" / "b.ZIP", method))
    folder = found(root)
    assert packed.layout == f"Sentinel-2 {text.level} SAFE zip"
    assert packed.statement == folder.statement
    assert packed.name == folder.name == text.product
    for from_zip, from_folder in zip(pixels_of(packed), pixels_of(folder), strict=True):
        assert np.array_equal(from_zip, from_folder)


def test_the_folder_the_metadata_and_any_folder_name_lead_to_the_same_product(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    root = write_safe(tmp_path, L2A, native_images("L2A", rng))
    granule = next((root / "GRANULE").iterdir())
    first = found(root)
    assert found(root / "MTD_MSIL2A.xml").layers == found(granule).layers == first.layers
    renamed = root.rename(tmp_path / "my scene")
    assert [layer.name for layer in found(renamed).layers] == [layer.name for layer in first.layers]


def test_the_finest_stored_image_of_a_band_is_taken(tmp_path: Path) -> None:
    sides = {"10m": 120, "20m": 60, "60m": 20}
    images = {f"B02_{size}": np.full((side, side), side, np.uint16) for size, side in sides.items()}
    images |= {"SCL_20m": np.full((60, 60), 4, np.uint8), "SCL_60m": np.zeros((20, 20), np.uint8)}
    product = found(write_safe(tmp_path, L2A, images))
    pixels, valid = pixels_of(product)
    assert pixels.shape == (1, 120, 120)
    assert (pixels == 120).all()
    assert valid.all()
    assert product.warnings == ()


def test_a_coarser_image_stands_in_for_one_that_is_not_there_and_is_named(tmp_path: Path) -> None:
    images = {"B02_20m": np.full((60, 60), 7, np.uint16), "B03_10m": np.full((120, 120), 8, np.uint16)}
    product = found(write_safe(tmp_path, L2A, images, ["B02_10m", "B02_20m", "B03_10m", "B03_20m"]))
    assert pixels_of(product)[0][:, 0, 0].tolist() == [7, 8]
    assert product.warnings == ("finer images are listed but not there; used are B02 at 20 m",)


def test_bands_whose_images_are_not_there_are_absent_and_named(tmp_path: Path) -> None:
    images = {"B02_10m": np.ones((120, 120), np.uint16), "B11_20m": np.ones((60, 60), np.uint16)}
    product = found(write_safe(tmp_path, L2A, images, ["B02_10m", "B03_10m", "B11_20m", "SCL_20m", "AOT_20m"]))
    assert [layer.name for layer in product.layers] == ["B02", "B11"]
    assert product.quality is None
    assert product.warnings == ("the product lists images of B03, SCL that are not there",)


@LEVELS
def test_a_product_without_images_is_refused_by_name(tmp_path: Path, text: Text) -> None:
    root = write_safe(tmp_path, text, {}, ["B02_10m", "B03_10m", "TCI_10m"])
    with pytest.raises(
        InputError, match=r"no image is there; MTD_MSIL\d.\.xml lists 2 of B02, B03 \(GRANULE/"
    ) as caught:
        find(root)
    assert caught.value.hint


def test_geotiff_images_under_the_same_names_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(1, 9000, (120, 120), dtype=np.uint16)
    write_metadata(tmp_path, L2A, ["B02_10m"])
    write_image(tmp_path / f"{L2A.stem('B02_10m')}.tif", pixels, "GTiff")
    assert np.array_equal(pixels_of(found(tmp_path))[0][0], pixels)
    packed = found(zip_folder(tmp_path, tmp_path.with_suffix(".zip")))
    assert np.array_equal(pixels_of(packed)[0][0], pixels)


def test_products_before_november_2016_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(1, 9000, (120, 120), dtype=np.uint16)
    granule = "S2A_OPER_MSI_L1C_TL_EPA__20160605T113933_A000734_T32TQR_N02.02"
    image = "S2A_OPER_MSI_L1C_TL_EPA__20160605T113933_A000734_T32TQR_B02"
    body = Text("L1C", "02.02").xml([])
    listed = f'<Granules granuleIdentifier="{granule}"><IMAGE_ID>{image}</IMAGE_ID></Granules>'
    text = body.replace("</Granule_List>", f"{listed}</Granule_List>")
    (tmp_path / "S2A_OPER_MTD_SAFL1C_PDMC_20160605T141800_R022.xml").write_text(text)
    write_image(tmp_path / "GRANULE" / granule / "IMG_DATA" / f"{image}.jp2", pixels)
    product = found(tmp_path)
    assert [layer.name for layer in product.layers] == ["B02"]
    assert np.array_equal(pixels_of(product)[0][0], pixels)


# --- what pixels mean nothing ---


def test_scene_classes_0_and_1_and_the_number_0_are_lost_and_all_else_is_kept(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    images = native_images("L2A", rng)
    images["B08_10m"][5, 7] = 0
    images["SCL_20m"] = rng.integers(0, 12, (60, 60), dtype=np.uint8)
    product = found(write_safe(tmp_path, L2A, images))
    _, valid = pixels_of(product)
    wanted = at_10_m(images["SCL_20m"]) > 1
    wanted[5, 7] = False
    assert np.array_equal(valid, wanted)


def test_level_1c_has_no_quality_band_and_0_is_lost(tmp_path: Path, rng: np.random.Generator) -> None:
    images = native_images("L1C", rng)
    images["B01"][2, 3] = 0
    product = found(write_safe(tmp_path, L1C, images))
    _, valid = pixels_of(product)
    assert product.quality is None
    assert np.array_equal(valid, at_10_m(images["B01"]) != 0)


def test_metadata_without_a_nodata_number_keep_every_number_and_say_so(tmp_path: Path) -> None:
    text = Text("L1C", nodata=False, adds=ALL_MINUS_1000)
    product = found(write_safe(tmp_path, text, {"B02": np.zeros((120, 120), np.uint16)}))
    assert pixels_of(product)[1].all()
    assert "no nodata number" in product.warnings[0]


# --- what numbers mean ---


@LEVELS
def test_old_and_new_baselines_and_a_zip_give_the_same_reflectance_for_the_same_ground(
    tmp_path: Path, open_safe: Callable[..., Scene], text: Text
) -> None:
    read = []
    for baseline, add in (("03.00", 0), ("04.00", 1000), ("05.11", 1000)):
        images = native_images(text.level, np.random.default_rng(1), add)
        written = Text(text.level, baseline, ALL_MINUS_1000 if add else None)
        root = write_safe(tmp_path, written, images)
        for path in (root, zip_folder(root, tmp_path / f"{baseline}.zip")):
            with open_safe(path) as scene:
                assert scene.radiometry.rung == "metadata"
                read.append(scene.to_reflectance(scene.read(scene.grid.window).pixels))
    blue = next(
        at_10_m(pixels) for name, pixels in native_images(text.level, np.random.default_rng(1)).items() if "B02" in name
    )
    assert read[0][0] == pytest.approx(blue / 10_000, abs=1e-6)
    for other in read[1:]:
        assert np.abs(other - read[0]).max() < 1e-6


def test_the_reason_names_formula_and_place(tmp_path: Path) -> None:
    for text, wanted in (
        (L2A, "0.0001 x (DN - 1000), as BOA_ADD_OFFSET in MTD_MSIL2A.xml says"),
        (L1C, "0.0001 x (DN - 1000), as RADIO_ADD_OFFSET in MTD_MSIL1C.xml says"),
        (OLD_L2A, "0.0001 x DN, as MTD_MSIL2A.xml of processing baseline 03.00 says: it has no BOA_ADD_OFFSET"),
    ):
        root = tmp_path / text.product
        write_metadata(root, text, ["B02_10m"])
        touch_images(root, text, ["B02_10m"])
        statement = found(root).statement
        assert statement is not None
        assert statement.reason == wanted


@given(
    level=st.sampled_from(["L1C", "L2A"]),
    divisor=st.floats(1, 1e5),
    adds=st.lists(st.integers(-5000, 5000), min_size=13, max_size=13),
    dn=st.integers(0, 65535),
)
def test_every_band_has_its_own_offset_and_the_products_quantification(
    level: str, divisor: float, adds: list[int], dn: int
) -> None:
    text = Text(level, adds=dict(enumerate(adds)), divisor=divisor)
    ends = [band if level == "L1C" else f"{band}_{NATIVE_M[band]}m" for band in IDS]
    with tempfile.TemporaryDirectory() as folder:
        write_metadata(Path(folder), text, ends)
        touch_images(Path(folder), text, ends)
        stated = meant(found(Path(folder)))
    for band, add in zip(IDS, adds, strict=True):
        scale, offset = stated[band]
        assert scale is not None
        assert offset is not None
        assert dn * scale + offset == pytest.approx((dn + add) / divisor, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (Text(baseline="04.00"), "contradicts itself: processing baseline 04.00"),
        (Text(baseline="05.11"), "contradicts itself: processing baseline 05.11"),
        (Text(baseline=None), "neither BOA_ADD_OFFSET nor a readable PROCESSING_BASELINE"),
        (Text(baseline="new"), "neither BOA_ADD_OFFSET nor a readable PROCESSING_BASELINE"),
        (Text(adds={0: -1000}), "for some bands, but not for B02"),
        (Text(adds={13: -1000}), "the unknown band '13'"),
        (Text(adds={1: float("nan")}), "BOA_ADD_OFFSET is no number"),
        (Text(adds=ALL_MINUS_1000, divisor=0), "must be above 0"),
        (Text(adds=ALL_MINUS_1000, divisor=float("inf")), "BOA_QUANTIFICATION_VALUE is no number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_metadata_that_do_not_say_what_the_numbers_mean_are_refused(tmp_path: Path, text: Text, says: str) -> None:
    write_metadata(tmp_path, text, ["B02_10m"])
    touch_images(tmp_path, text, ["B02_10m"])
    with pytest.raises(InputError, match=says) as caught:
        find(tmp_path)
    assert caught.value.hint


def test_a_toolbox_product_without_offsets_says_nothing(tmp_path: Path) -> None:
    text = Text(baseline="99.99")
    write_metadata(tmp_path, text, ["B02_10m"])
    touch_images(tmp_path, text, ["B02_10m"])
    assert found(tmp_path).statement is None


def test_a_name_whose_baseline_contradicts_the_offsets_is_refused(
    tmp_path: Path, rng: np.random.Generator, open_safe: Callable[..., Scene]
) -> None:
    name = "S2A_MSIL2A_20230625T104621_N0301_R051_T31UFS_20230625T150000.SAFE"
    root = write_safe(tmp_path, Text(adds=ALL_MINUS_1000, name=name), native_images("L2A", rng))
    with pytest.raises(RadiometryError, match="two sources disagree"):
        open_safe(root)


@pytest.mark.parametrize("name", ["/etc/S2A_MSIL2A_N0500_x", "../../N0500", "a\\b"])
def test_a_product_name_that_is_a_path_is_not_used(tmp_path: Path, name: str) -> None:
    text = Text(adds=ALL_MINUS_1000, name=name)
    write_metadata(tmp_path, text, ["B02_10m"])
    touch_images(tmp_path, text, ["B02_10m"])
    assert found(tmp_path).name == ""


# --- several granules ---


def test_one_of_several_granules_is_read_when_it_is_named(tmp_path: Path) -> None:
    text = Text("L1C", "05.09", ALL_MINUS_1000, tiles=("T31UFS", "T31UFT"))
    write_metadata(tmp_path, text, ["B02"])
    for value, tile in enumerate(text.tiles, start=1):
        write_image(tmp_path / f"{text.stem('B02', tile)}.jp2", np.full((120, 120), value, np.uint16))
    with pytest.raises(InputError, match="holds 2 granules") as caught:
        find(tmp_path)
    granules = sorted((tmp_path / "GRANULE").iterdir())
    assert granules[0].name in caught.value.hint
    for value, granule in enumerate(granules, start=1):
        assert (pixels_of(found(granule))[0] == value).all()
    with pytest.raises(InputError, match="holds 2 granules") as caught:
        find(zip_folder(tmp_path, tmp_path.with_suffix(".zip")))
    assert caught.value.hint.startswith("unpack it")


def test_two_products_in_one_folder_or_zip_are_refused(tmp_path: Path) -> None:
    for text in (L1C, L2A):
        write_metadata(tmp_path, text, ["B02"])
    for path in (tmp_path, zip_folder(tmp_path, tmp_path.with_suffix(".zip"))):
        with pytest.raises(InputError, match=r"several products: .*MTD_MSIL1C\.xml, .*MTD_MSIL2A\.xml"):
            find(path)


# --- other things ---


def test_what_is_no_sentinel_2_product_is_left_to_others(tmp_path: Path, make_scene: Callable[..., Path]) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("../readme.txt", "hostile, but none of ours")
    os.mkfifo(tmp_path / "pipe.zip")
    os.mkfifo(tmp_path / "MTD_MSIL1C.xml")
    (tmp_path / "sub" / "MTD_TL.xml").mkdir(parents=True)
    scene = make_scene(np.ones((1, 4, 4), np.uint16))
    others = [tmp_path / name for name in ("text.zip", "other.zip", "pipe.zip", "MTD_MSIL1C.xml", "sub", "nothing")]
    assert [find(path) for path in (*others, scene, Path("/"))] == [None] * 8


# --- hostile metadata ---

GOOD = L2A.xml(["B02_10m"])


def declared(text: str) -> str:
    head, body = text.split("?>", 1)
    return f'{head}?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>{body}'


HOSTILE_XML = {
    "document type": (declared(GOOD).encode(), "declares a document type"),
    "lower-case document type": (declared(GOOD).lower().encode(), "declares a document type"),
    "entity": (GOOD.replace("<Product_Info>", "<!ENTITY b 'c'><Product_Info>").encode(), "declares a document type"),
    "UTF-16": (declared(GOOD).replace("UTF-8", "UTF-16").encode("utf-16"), "UTF-8"),
    "UTF-16 without mark": (declared(GOOD).encode("utf-16-le"), "of another encoding than UTF-8"),
    "UTF-32": (declared(GOOD).encode("utf-32"), "UTF-8"),
    "UTF-7": (declared(GOOD).replace("UTF-8", "UTF-7").encode("utf-7"), "of another encoding than UTF-8"),
    "EBCDIC": (declared(GOOD).replace("UTF-8", "cp500").encode("cp500"), "UTF-8"),
    "named Latin-1": (GOOD.replace("UTF-8", "ISO-8859-1").encode(), "of another encoding than UTF-8"),
    "Latin-1": (GOOD.replace("NODATA", "é").encode("latin-1"), "no UTF-8 text"),
    "too large": (GOOD.encode() + b" " * xml_text.MAX_XML_BYTES, "too large"),
    "a million elements": (GOOD.replace("<Product_Info>", "<Product_Info>" + "<a/>" * 1_000_000).encode(), "too large"),
    "a million attributes": (
        GOOD.replace("<Product_Info>", "<Product_Info>" + "<a b='' c='' d=''/>" * 260_000).encode(),
        "too large",
    ),
    "cut off": (GOOD[:-40].encode(), "no well-formed XML"),
    "empty": (b"", "no well-formed XML"),
    "another document": (b"<html><body/></html>", "no Sentinel-2 L1C or L2A product metadata: html"),
}


@pytest.mark.parametrize("case", HOSTILE_XML)
def test_metadata_that_could_expand_or_hide_something_are_refused(tmp_path: Path, case: str) -> None:
    data, says = HOSTILE_XML[case]
    (tmp_path / "MTD_MSIL2A.xml").write_bytes(data)
    touch_images(tmp_path, L2A, ["B02_10m"])
    with pytest.raises(InputError, match=says) as caught:
        find(tmp_path)
    assert "MTD_MSIL2A.xml" in caught.value.message
    assert caught.value.hint


def test_a_mark_at_the_start_and_comments_do_no_harm(tmp_path: Path) -> None:
    text = GOOD.replace("<Product_Info>", "<!-- made <b>by</b> hand --><Product_Info>")
    (tmp_path / "MTD_MSIL2A.xml").write_bytes(text.encode("utf-8-sig"))
    touch_images(tmp_path, L2A, ["B02_10m"])
    assert [layer.name for layer in found(tmp_path).layers] == ["B02"]


def test_an_xml_parser_of_before_the_fixes_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyexpat.version_info", (2, 4, 0))
    write_metadata(tmp_path, L2A, ["B02_10m"])
    with pytest.raises(EngineError, match="XML parser"):
        find(tmp_path)


OUTSIDE = [
    "../../secret_B02_10m",
    "GRANULE/../../secret_B02_10m",
    "/tmp/secret_B02_10m",
    "GRANULE//secret_B02_10m",
    "GRANULE/./secret_B02_10m",
    r"GRANULE\..\secret_B02_10m",
    "C:/secret_B02_10m",
    "/vsicurl/http://example.org/secret_B02_10m",
    "GRANULE/a\nb/secret_B02_10m",
    "",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_image_names_that_lead_out_of_the_product_are_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "product"
    write_metadata(root, L2A, ["B02_10m"], f"<IMAGE_FILE>{name}</IMAGE_FILE>")
    touch_images(root, L2A, ["B02_10m"])
    for path in (root, zip_folder(root, tmp_path / "product.zip")):
        with pytest.raises(InputError, match="may lead out of the product"):
            find(path)


def test_a_granule_name_cannot_lead_out_of_an_old_product(tmp_path: Path) -> None:
    listed = '<Granules granuleIdentifier="../../.."><IMAGE_ID>etc_B02</IMAGE_ID></Granules>'
    text = Text("L1C", "02.02").xml([]).replace("</Granule_List>", f"{listed}</Granule_List>")
    (tmp_path / "MTD_MSIL1C.xml").write_text(text)
    with pytest.raises(InputError, match="may lead out of the product"):
        find(tmp_path)


@pytest.mark.parametrize("linked", ["image", "folder", "metadata"])
def test_links_that_lead_out_of_the_product_are_refused(tmp_path: Path, rng: np.random.Generator, linked: str) -> None:
    root = write_safe(tmp_path, L2A, native_images("L2A", rng))
    image = root / f"{L2A.stem('B02_10m')}.jp2"
    target = {"image": image, "folder": image.parent, "metadata": root / "MTD_MSIL2A.xml"}[linked]
    target.symlink_to(target.rename(tmp_path / "outside"))
    with pytest.raises(InputError, match="link that leads out of the product") as caught:
        find(root)
    assert "cp -rL" in caught.value.hint


def test_links_inside_the_product_and_to_it_are_followed(tmp_path: Path, rng: np.random.Generator) -> None:
    root = write_safe(tmp_path, L2A, native_images("L2A", rng))
    image = root / f"{L2A.stem('B02_10m')}.jp2"
    image.symlink_to(image.rename(root / "inside.jp2"))
    link = tmp_path / "link"
    link.symlink_to(root)
    assert np.array_equal(pixels_of(found(link))[0], pixels_of(found(root))[0])


# --- hostile archives ---


def pack(path: Path, *extra: zipfile.ZipInfo | str, method: int = zipfile.ZIP_STORED, xml: str = GOOD) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as file:
        warnings.simplefilter("ignore", UserWarning)
        file.writestr("a/MTD_MSIL2A.xml", xml)
        file.writestr(f"a/{L2A.stem('B02_10m')}.jp2", b"")
        for member in extra:
            file.writestr(member, b"data")
    return path


def linked_member(mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("a/link")
    info.create_system, info.external_attr = 3, mode << 16
    return info


def patch_directory(path: Path, offset: int, layout: str, value: int) -> Path:
    """Change a field of the first entry of a zip's central directory."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, data.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (["/etc/passwd"], "may lead out"),
        (["../x"], "may lead out"),
        (["a/../../x"], "may lead out"),
        (["a\\..\\x"], "may lead out"),
        (["C:/x"], "may lead out"),
        (["a//x"], "may lead out"),
        (["a/./x"], "may lead out"),
        (["a/x\n"], "may lead out"),
        ([linked_member(0o120777)], "is a link or a device"),
        ([linked_member(0o020666)], "is a link or a device"),
        (["a/MTD_MSIL2A.txt", "a/MTD_MSIL2A.txt"], "is there twice"),
        (["a/b", "a/b/"], "is there twice"),
        ([f"a/{number}" for number in range(1000)], "has 1002 members"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_members_that_no_honest_packer_writes_are_refused(
    tmp_path: Path, members: list[zipfile.ZipInfo | str], says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        find(pack(tmp_path / "x.zip", *members))
    assert "x.zip" in caught.value.message
    assert caught.value.hint


def test_a_member_with_a_hidden_name_behind_a_nul_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", "a/good_evil")
    path.write_bytes(path.read_bytes().replace(b"a/good_evil", b"a/good\0evil"))
    with pytest.raises(InputError, match="may lead out"):
        find(path)


def test_two_metadata_of_one_name_in_a_zip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is there twice"):
        find(pack(tmp_path / "x.zip", "a/MTD_MSIL2A.xml"))


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is encrypted"):
        find(patch_directory(pack(tmp_path / "x.zip"), 8, "<H", 1))


def test_members_of_rare_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is packed by method 14"):
        find(pack(tmp_path / "x.zip", method=zipfile.ZIP_LZMA))


def test_archives_that_unpack_to_a_disk_full_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 1000)
    with pytest.raises(InputError, match="would unpack to"):
        find(pack(tmp_path / "x.zip"))


def test_metadata_that_were_packed_beyond_reason_are_not_unpacked(tmp_path: Path) -> None:
    xml = GOOD.replace("<Product_Info>", "<Product_Info>" + " " * 2**21)
    with pytest.raises(InputError, match=r"MTD_MSIL2A\.xml would unpack from \d+ to \d+ bytes"):
        find(pack(tmp_path / "x.zip", method=zipfile.ZIP_DEFLATED, xml=xml))


def test_metadata_larger_than_the_bound_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "x.zip")
    assert found(path).layers
    monkeypatch.setattr("geoseg_cli.scenes.safe.MAX_XML_BYTES", len(GOOD) - 1)
    with pytest.raises(InputError, match="would unpack from"):
        find(path)


def test_metadata_that_are_longer_than_the_archive_says_are_damage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="truncated or damaged"):
        find(patch_directory(pack(tmp_path / "x.zip", method=zipfile.ZIP_DEFLATED), 24, "<I", 100))


def test_a_directory_that_would_fill_the_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MAX_READ_BYTES", 300)
    path = pack(tmp_path / "x.zip", *(f"a/{number}" for number in range(20)))
    assert find(path) is None


def test_a_product_zip_that_was_cut_off_is_named_as_such(tmp_path: Path) -> None:
    path = pack(tmp_path / L2A.product.replace("SAFE", "zip"))
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(StorageError, match="truncated or damaged"):
        find(path)


def test_an_image_that_is_damaged_in_the_zip_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"B02_10m\.jp2"):
        pixels_of(found(pack(tmp_path / "x.zip")))


def is_product_or_named_error(path: Path) -> bool:
    """Whether ``find`` ends in a product, in None, or in an error that says what to do."""
    try:
        product = find(path)
    except GeosegError as error:
        return bool(error.message and error.hint)
    return product is None or bool(product.layers)


def test_any_damage_ends_in_a_product_or_a_named_error(tmp_path: Path, rng: np.random.Generator) -> None:
    whole_xml = GOOD.encode()
    whole_zip = pack(tmp_path / "whole.zip", method=zipfile.ZIP_DEFLATED).read_bytes()
    touch_images(tmp_path, L2A, ["B02_10m"])
    for name, whole in (("MTD_MSIL2A.xml", whole_xml), ("S2A_MSIL2A_x.zip", whole_zip)):
        path = tmp_path / name
        for _ in range(300):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), rng.integers(1, 6)):
                data[place] = rng.integers(0, 256)
            path.write_bytes(data[: rng.integers(1, 2 * len(data))])
            assert is_product_or_named_error(path), path.read_bytes()


# --- what must not change ---


@pytest.mark.parametrize("changed", ["MTD_MSIL2A.xml", f"{L2A.stem('B02_10m')}.jp2", f"{L2A.stem('SCL_20m')}.jp2"])
def test_a_file_of_the_product_that_changes_is_noticed(
    tmp_path: Path, rng: np.random.Generator, open_safe: Callable[..., Scene], changed: str
) -> None:
    root = write_safe(tmp_path, L2A, native_images("L2A", rng))
    with open_safe(root) as scene:
        scene.refuse_change()
        with (root / changed).open("ab") as stream:
            stream.write(b"\n")
        with pytest.raises(StorageError, match="changed while it was read"):
            scene.refuse_change()


def test_a_zip_is_the_only_file_of_its_product(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip")
    assert found(path).members == (path,)


# --- real products ---

PRODUCTS = ["S2A_MSIL1C_2020*", "S2A_MSIL1C_2021*", "S2A_MSIL2A_2015*", "S2A_MSIL2A_2018*", "S2A_MSIL2A_2019*"]
PRODUCTS += ["S2A_MSIL2A_*WCP*", "S2A_MSIL2A_*WCS*", "S2A_MSIL2A_202308*", "S2B_MSIL2A_2019*", "S2B_MSIL2A_2021*"]
PRODUCTS += ["S2B_MSIL2A_2022*", "S2B_MSIL2A_2023*"]


def real_metadata(real_data: Path, pattern: str) -> Path:
    return next(path for root in (real_data / "safe").glob(pattern) for path in root.glob("MTD_MSI*.xml"))


def test_every_real_product_is_tried(real_data: Path) -> None:
    tried = {real_metadata(real_data, pattern).parent for pattern in PRODUCTS}
    assert tried == {path for path in (real_data / "safe").iterdir() if path.name.startswith("S2")}


@pytest.mark.parametrize("pattern", PRODUCTS)
def test_real_metadata_mean_what_a_plain_search_finds_in_them(real_data: Path, tmp_path: Path, pattern: str) -> None:
    metadata = real_metadata(real_data, pattern)
    text = metadata.read_text(encoding="utf-8")
    (tmp_path / metadata.name).write_text(text, encoding="utf-8")
    for stem in re.findall(r"<IMAGE_FILE>(.*?)</IMAGE_FILE>", text):
        (tmp_path / f"{stem}.jp2").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{stem}.jp2").touch()
    product = found(tmp_path)
    divisor = float(re.findall(r">(\d+)</(?:BOA_)?QUANTIFICATION_VALUE>", text)[0])
    stated = dict(re.findall(r'_ADD_OFFSET band_id="(\d+)">(-?\d+)<', text))
    physical = dict(re.findall(r'bandId="(\d+)" physicalBand="B(\w+)"', text))
    names = {f"B{name.zfill(2)}": number for number, name in physical.items()}
    bands = set(re.findall(r"_(B\d[\dA])(?:_\d0m)?</IMAGE_FILE>", text))
    assert {layer.name for layer in product.layers} == bands
    assert meant(product) == {band: (1 / divisor, int(stated.get(names[band], 0)) / divisor) for band in bands}
    assert bool(stated) == (float(re.findall(r"<PROCESSING_BASELINE>(.*?)<", text)[0]) >= 4)
    assert product.name == re.findall(r"<PRODUCT_URI>(.*?)<", text)[0]
    assert (product.quality is not None) == ("SCL_20m" in text)


@pytest.mark.parametrize("pattern", PRODUCTS)
def test_real_products_without_images_are_refused_and_thumbnails_are_read(real_data: Path, pattern: str) -> None:
    root = real_metadata(real_data, pattern).parent
    files = sorted(path for path in root.rglob("IMG_DATA/**/*_B*") if path.suffix in (".jp2", ".tif"))
    if not files:
        with pytest.raises(InputError, match=r"no image is there; MTD_MSIL..\.xml lists \d+ of B") as caught:
            find(root)
        assert re.search(r"T\d\d[A-Z]{3}_\d{8}T\d{6}_B\d\d(_\d0m)?\.jp2", caught.value.message)
        return
    product = found(root)
    # All images of these four have 100 x 100 px, whatever their names say.
    pixels, _ = pixels_of(product, 1098)
    for layer, plane in zip(product.layers, pixels, strict=True):
        wanted = min((path for path in files if f"_{layer.name}_" in path.name), key=lambda path: path.stem[-3:])
        assert Path(layer.file) == wanted
        assert np.array_equal(plane, independently(wanted))


def independently(path: Path) -> npt.NDArray[Any]:
    if path.suffix == ".tif":
        return np.asarray(tifffile.imread(path))
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


def test_no_real_file_ends_in_anything_but_a_product_or_a_named_error(real_data: Path) -> None:
    for path in sorted((real_data / "safe").rglob("*")):
        if path.is_dir() or path.suffix == ".xml":
            assert is_product_or_named_error(path)


def test_a_damaged_member_of_a_zip_is_named_before_its_pixels_are_read(tmp_path: Path) -> None:
    images = native_images("L2A", np.random.default_rng(3))
    packed = zip_folder(write_safe(tmp_path, Text(adds=ALL_MINUS_1000), images), tmp_path / "a.zip")
    with zipfile.ZipFile(packed) as file:
        member = next(one for one in file.infolist() if "_B04_" in one.filename)
    data = bytearray(packed.read_bytes())
    data[member.header_offset + 30 + len(member.filename) + member.compress_size - 40] ^= 0x10
    packed.write_bytes(data)
    spec = InputSpec(("red",), (), (0.0,), (1.0,))
    with pytest.raises(StorageError, match=r"_B04_10m\.jp2 is damaged"):
        open_scene(packed, spec)
    # A band that is not used is not looked at.
    open_scene(packed, replace(spec, bands=("nir",))).close()
