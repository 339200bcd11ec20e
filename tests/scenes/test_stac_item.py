"""STAC items as scenes: which asset is which band, where it lies, and what its numbers mean.

The items are written here after the specification (stac-spec 1.0 and 1.1, eo and raster extensions) and after the
habits of three catalogues, with invented identifiers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import GeosegError, InputError, RadiometryError
from geoseg_cli.grid import Window
from geoseg_cli.scenes import SceneOptions, open_scene
from geoseg_cli.scenes.product import Product
from geoseg_cli.scenes.stac_item import find
from tests.conftest import write_scene

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
JP2 = "image/jp2"
SIDE = 6
SPEC = InputSpec(("red", "green", "blue"), (), (0.0,) * 3, (1.0,) * 3)
WINDOW = Window(0, 0, SIDE, SIDE)


def plane(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(1, 9000, (SIDE, SIDE), dtype=np.uint16)


def write_item(
    folder: Path, assets: dict[str, Any], properties: dict[str, Any] | None = None, version: str = "1.0.0"
) -> Path:
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": version,
        "id": "scene-1",
        "geometry": None,
        "properties": {"datetime": "2023-06-01T10:00:00Z", **(properties or {})},
        "links": [],
        "assets": assets,
    }
    path = folder / "item.json"
    path.write_text(json.dumps(item), encoding="utf-8")
    return path


def write_planes(folder: Path, *names: str) -> dict[str, np.ndarray[Any, Any]]:
    """A file ``NAME.tif`` of its own numbers for each name."""
    planes = {name: plane(seed) for seed, name in enumerate(names)}
    for name, numbers in planes.items():
        (folder / f"{name}.tif").parent.mkdir(parents=True, exist_ok=True)
        write_scene(folder / f"{name}.tif", numbers[None])
    return planes


def asset(href: str, common: str, **more: Any) -> dict[str, Any]:
    return {"href": href, "type": COG, "roles": ["data"], "eo:bands": [{"common_name": common}], **more}


def rgb(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    planes = write_planes(folder, "red", "green", "blue")
    return {name: asset(f"./{name}.tif", name) for name in planes}, planes


def earth_search(folder: Path, offset: float, is_applied: bool | None) -> tuple[Path, dict[str, Any]]:
    """Sentinel-2 L2A as Earth Search lists it: all red edges alike, every band as COG and as JPEG 2000."""
    commons = {
        **{name: name for name in ("blue", "green", "red", "nir", "nir08", "swir16", "swir22")},
        **{f"rededge{number}": "rededge" for number in (1, 2, 3)},
    }
    planes = write_planes(folder, *commons)
    numbers_mean = [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": offset}]
    assets: dict[str, Any] = {}
    for name, common in commons.items():
        bands = [{"name": name, "common_name": common, "center_wavelength": 0.6}]
        shared = {"roles": ["data", "reflectance"], "eo:bands": bands, "raster:bands": numbers_mean}
        assets[name] = {"href": f"{name}.tif", "type": COG, **shared}
        assets[f"{name}-jp2"] = {"href": f"s3://bucket/{name}.jp2", "type": JP2, **shared}
    assets["visual"] = {
        "href": "TCI.tif",
        "type": COG,
        "roles": ["visual"],
        "eo:bands": [{"name": name, "common_name": name} for name in ("red", "green", "blue")],
    }
    assets["thumbnail"] = {"href": "thumbnail.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
    assets["granule_metadata"] = {"href": "metadata.xml", "type": "application/xml", "roles": ["metadata"]}
    properties: dict[str, Any] = {"platform": "sentinel-2b", "constellation": "sentinel-2", "instruments": ["msi"]}
    if is_applied is not None:
        properties["earthsearch:boa_offset_applied"] = is_applied
    return write_item(folder, assets, properties), planes


@pytest.mark.parametrize(
    ("offset", "is_applied", "expected"),
    [(-0.1, True, 0.0), (-0.1, False, -0.1), (0.0, False, 0.0), (-0.1, None, -0.1)],
)
def test_an_offset_that_earth_search_applied_is_not_applied_again(
    tmp_path: Path, offset: float, is_applied: bool | None, expected: float
) -> None:
    path, planes = earth_search(tmp_path, offset, is_applied)
    with open_scene(path, SPEC) as scene:
        reflectance = scene.to_reflectance(scene.read(WINDOW).pixels)
        assert scene.radiometry.rung == "stac"
    wanted = np.stack([planes[name] for name in SPEC.bands]) * 1e-4 + expected
    np.testing.assert_allclose(reflectance, wanted, atol=1e-6)


def test_red_edges_of_one_common_name_are_told_apart_by_their_own(tmp_path: Path) -> None:
    path, planes = earth_search(tmp_path, 0.0, None)
    wanted = {"rededge071": "rededge1", "rededge075": "rededge2", "rededge078": "rededge3", "nir08": "nir08"}
    spec = InputSpec(tuple(wanted), (), (0.0,) * 4, (1.0,) * 4)
    with open_scene(path, spec) as scene:
        np.testing.assert_array_equal(scene.read(WINDOW).pixels, [planes[name] for name in wanted.values()])


def test_files_of_tiff_are_preferred_to_those_of_jpeg_2000(tmp_path: Path) -> None:
    found = find(earth_search(tmp_path, 0.0, None)[0])
    assert found is not None
    assert {layer.driver for layer in found.layers} == {"GTiff"}
    assert len(found.layers) == 10
    assert (found.sensor, found.warnings) == ("sentinel-2", ())


def planetary_computer(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Sentinel-2 L2A as Planetary Computer lists it: assets by band number, nothing about the numbers."""
    commons = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B11": "swir16", "B12": "swir22"}
    commons |= dict.fromkeys(("B05", "B06", "B07", "B8A"), "rededge")
    planes = write_planes(folder, *commons, "SCL")
    assets: dict[str, Any] = {
        name: {**asset(f"{name}.tif", common), "eo:bands": [{"name": name, "common_name": common}]}
        for name, common in commons.items()
    }
    three = [{"name": name, "common_name": commons[name]} for name in ("B04", "B03", "B02")]
    assets["visual"] = {"href": "TCI.tif", "type": COG, "roles": ["data"], "eo:bands": three}
    assets["SCL"] = {"href": "SCL.tif", "type": COG, "roles": ["data"]}
    properties = {"platform": "Sentinel-2B", "constellation": "Sentinel 2", "instruments": ["msi"]}
    return write_item(folder, assets, {"s2:processing_baseline": "05.09", **properties}), planes


def test_an_item_that_does_not_say_what_its_numbers_mean_is_refused(tmp_path: Path) -> None:
    path, _ = planetary_computer(tmp_path)
    with pytest.raises(RadiometryError):
        open_scene(path, SPEC)


def test_a_picture_named_visual_is_no_band_whatever_its_role(tmp_path: Path) -> None:
    path, planes = planetary_computer(tmp_path)
    wanted = {"red": "B04", "rededge071": "B05", "rededge078": "B07", "nir": "B08", "nir08": "B8A"}
    spec = InputSpec(tuple(wanted), (), (0.0,) * 5, (1.0,) * 5)
    with open_scene(path, spec, SceneOptions(radiometry="dn")) as scene:
        np.testing.assert_array_equal(scene.read(WINDOW).pixels, [planes[name] for name in wanted.values()])


@pytest.mark.parametrize("key", ["scl", "SCL"])
def test_the_scene_classification_tells_lost_pixels(tmp_path: Path, key: str) -> None:
    assets, _ = rgb(tmp_path)
    classes = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE) % 12
    write_scene(tmp_path / "classes.tif", classes[None])
    assets[key] = {"href": "classes.tif", "type": COG}
    with open_scene(write_item(tmp_path, assets), SPEC, SceneOptions(radiometry="dn")) as scene:
        np.testing.assert_array_equal(scene.read(WINDOW).valid, ~np.isin(classes, (0, 1)))
        assert "SCL" in scene.nodata_reason


def landsat(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Landsat Collection 2 Level 2 as Planetary Computer lists it, with a thermal band of another unit."""
    names = {"blue": "OLI_B2", "green": "OLI_B3", "red": "OLI_B4", "nir08": "OLI_B5", "lwir11": "TIRS_B10"}
    planes = write_planes(folder, *names)
    assets: dict[str, Any] = {}
    for name, own in names.items():
        scale, offset = (0.00341802, 149.0) if name == "lwir11" else (2.75e-5, -0.2)
        assets[name] = {
            **asset(f"{name}.tif", name),
            "eo:bands": [{"name": own, "common_name": name}],
            "raster:bands": [{"nodata": 0, "scale": scale, "offset": offset, "data_type": "uint16"}],
        }
    assets["qa_pixel"] = {"href": "qa.tif", "type": COG, "roles": ["cloud"], "raster:bands": [{"unit": "bit index"}]}
    assets["mtl.json"] = {"href": "mtl.json", "type": "application/json", "roles": ["metadata"]}
    return write_item(folder, assets, {"platform": "landsat-8", "instruments": ["oli", "tirs"]}), planes


def test_landsat_numbers_are_scaled_as_the_raster_extension_says(tmp_path: Path) -> None:
    path, planes = landsat(tmp_path)
    spec = InputSpec(("red", "nir08"), (), (0.0,) * 2, (1.0,) * 2)
    with open_scene(path, spec) as scene:
        reflectance = scene.to_reflectance(scene.read(WINDOW).pixels)
    expected = np.stack([planes["red"], planes["nir08"]]) * 2.75e-5 - 0.2
    np.testing.assert_allclose(reflectance, expected, atol=1e-6)


def test_nodata_of_the_item_stands_where_the_file_has_none(tmp_path: Path) -> None:
    path, planes = landsat(tmp_path)
    numbers = planes["red"].copy()
    numbers[2, 3] = 0
    write_scene(tmp_path / "red.tif", numbers[None])
    with open_scene(path, InputSpec(("red",), (), (0.0,), (1.0,))) as scene:
        assert np.argwhere(~scene.read(WINDOW).valid).tolist() == [[2, 3]]


STYLES_OF_1_1 = {
    "extension fields in the band": {"eo:common_name": "red", "raster:scale": 2e-4, "raster:offset": -0.05},
    "fields without a prefix": {"common_name": "red", "scale": 2e-4, "offset": -0.05},
}


@pytest.mark.parametrize("band", STYLES_OF_1_1.values(), ids=STYLES_OF_1_1)
@pytest.mark.parametrize("is_in_asset", [True, False])
def test_items_of_version_1_1_say_it_in_bands_or_in_the_asset(
    tmp_path: Path, band: dict[str, Any], is_in_asset: bool
) -> None:
    planes = write_planes(tmp_path, "one")
    if is_in_asset and "common_name" in band:
        band = {**band, "eo:common_name": band["common_name"]}
    fields = {**band, "nodata": 5} if is_in_asset else {"bands": [{**band, "nodata": 5}]}
    path = write_item(tmp_path, {"B4": {"href": "one.tif", "type": COG, **fields}}, version="1.1.0")
    with open_scene(path, InputSpec(("red",), (), (0.0,), (1.0,))) as scene:
        reflectance = scene.to_reflectance(scene.read(WINDOW).pixels)
        assert "5" in scene.nodata_reason
    np.testing.assert_allclose(reflectance[0], planes["one"] * 2e-4 - 0.05, atol=1e-6)


def test_bands_of_one_file_keep_their_numbers(tmp_path: Path) -> None:
    numbers = np.stack([plane(seed) for seed in range(4)])
    write_scene(tmp_path / "all.tif", numbers)
    bands = [{"eo:common_name": "blue"}, {"name": "mystery"}, {"eo:common_name": "green"}, {"eo:common_name": "red"}]
    path = write_item(tmp_path, {"image": {"href": "all.tif", "type": COG, "bands": bands}}, version="1.1.0")
    with open_scene(path, SPEC, SceneOptions(radiometry="dn")) as scene:
        np.testing.assert_array_equal(scene.read(WINDOW).pixels, numbers[[3, 2, 0]])


def test_two_bands_of_one_name_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    assets, _ = rgb(tmp_path)
    assets["other"] = asset("green.tif", "red")
    with pytest.raises(InputError, match="two bands are called red"):
        find(write_item(tmp_path, assets))


@pytest.mark.parametrize(
    "more",
    [
        {"roles": ["thumbnail"]},
        {"roles": ["overview"]},
        {"roles": ["visual"]},
        {"roles": ["data", "metadata"]},
        {"type": "image/png"},
        {"type": "image/jpeg"},
        {"type": "application/x-hdf5"},
        {"href": None},
    ],
)
def test_pictures_and_papers_are_no_bands(tmp_path: Path, more: dict[str, Any]) -> None:
    assets, _ = rgb(tmp_path)
    assets["picture"] = {**asset("picture.tif", "red"), **more}
    found = find(write_item(tmp_path, assets))
    assert found is not None
    assert [layer.name for layer in found.layers] == ["red", "green", "blue"]


def test_without_a_type_the_ending_of_the_link_tells_the_format(tmp_path: Path) -> None:
    assets, _ = rgb(tmp_path)
    for one in assets.values():
        del one["type"]
    found = find(write_item(tmp_path, assets))
    assert found is not None
    assert {layer.driver for layer in found.layers} == {"GTiff"}


def only_red(folder: Path, href: str) -> Product | None:
    return find(write_item(folder, {"red": asset(href, "red")}))


def test_links_may_be_relative_absolute_file_addresses_or_percent_encoded(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    write_planes(folder, "red é", "in/red")
    here = folder.as_posix()
    cases = {
        "./red%20%C3%A9.tif": "red é.tif",
        "red%20é.tif": "red é.tif",
        "in/red.tif": "in/red.tif",
        "in/../in/red.tif": "in/red.tif",
        f"{here}/in/red.tif": "in/red.tif",
        f"file://{here.replace(' ', '%20')}/in/red.tif": "in/red.tif",
        f"file://localhost{here.replace(' ', '%20')}/in/red.tif": "in/red.tif",
    }
    for href, expected in cases.items():
        found = only_red(folder, href)
        assert found is not None
        assert found.layers[0].file == str((folder / expected).resolve()), href


@pytest.mark.parametrize(
    "href", ["../red.tif", "/etc/red.tif", "file:///etc/red.tif", "in/%2e%2e/../../red.tif", "%2e%2e/red.tif"]
)
def test_links_out_of_the_folder_are_refused(tmp_path: Path, href: str) -> None:
    with pytest.raises(InputError, match="outside of the item's folder"):
        only_red(tmp_path, href)


def test_a_link_through_a_symbolic_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "item"
    folder.mkdir()
    write_planes(tmp_path, "secret")
    (folder / "red.tif").symlink_to(tmp_path / "secret.tif")
    with pytest.raises(InputError, match="outside of the item's folder"):
        only_red(folder, "red.tif")


@pytest.mark.parametrize("href", ["/vsizip/x.zip/red.tif", "/vsicurl/file:///etc/red.tif", "/vsis3/bucket/red.tif"])
def test_links_in_the_language_of_gdal_are_refused(tmp_path: Path, href: str) -> None:
    with pytest.raises(InputError, match="no link"):
        find(write_item(tmp_path, {"red": asset(href, "red")}), allow_network=True)


@pytest.mark.parametrize(
    "href", ["https://host/red.tif?key=SECRET", "http://host/r.tif", "s3://b/r.tif", "gs://b/r.tif"]
)
def test_links_to_a_network_need_permission_and_their_secrets_are_not_told(tmp_path: Path, href: str) -> None:
    path = write_item(tmp_path, {"red": asset(href, "red")})
    with pytest.raises(InputError, match="lies on a network") as refusal:
        find(path)
    assert "SECRET" not in str(refusal.value)
    assert "--allow-network" in refusal.value.hint


def test_with_permission_links_to_a_network_become_names_of_gdal(tmp_path: Path) -> None:
    hrefs = {"red": "https://host/red.tif?key=1", "green": "s3://bucket/a/green.tif", "blue": "gs://bucket/blue.tif"}
    found = find(write_item(tmp_path, {name: asset(href, name) for name, href in hrefs.items()}), allow_network=True)
    assert found is not None
    assert [layer.file for layer in found.layers] == [
        "/vsicurl/https://host/red.tif?key=1",
        "/vsis3/bucket/a/green.tif",
        "/vsigs/bucket/blue.tif",
    ]
    assert found.members == (tmp_path / "item.json",)


def test_files_of_an_item_may_not_change_unnoticed(tmp_path: Path) -> None:
    assets, _ = rgb(tmp_path)
    found = find(write_item(tmp_path, assets))
    assert found is not None
    assert set(found.members) == {tmp_path / name for name in ("item.json", "red.tif", "green.tif", "blue.tif")}


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"type": "Feature"}', '{"type": "FeatureCollection"}', "\xff"])
def test_other_json_is_no_item(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="latin-1")
    assert find(path) is None


@pytest.mark.parametrize("part", ["assets", "properties"])
def test_half_an_item_is_refused(tmp_path: Path, part: str) -> None:
    path = write_item(tmp_path, {})
    item = json.loads(path.read_text())
    del item[part]
    path.write_text(json.dumps(item))
    with pytest.raises(InputError, match="no assets or no properties"):
        find(path)


def test_an_item_without_a_named_band_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="common name"):
        find(write_item(tmp_path, {"image": {"href": "x.tif", "type": COG}}))


@pytest.mark.parametrize("scale", [0, "0.0001", None, True, float("nan")])
def test_a_scale_that_says_nothing_leaves_the_numbers_undecided(tmp_path: Path, scale: Any) -> None:
    assets, _ = rgb(tmp_path)
    for one in assets.values():
        one["raster:bands"] = [{"scale": scale, "offset": -0.1}]
    with pytest.raises(RadiometryError, match="nothing says"):
        open_scene(write_item(tmp_path, assets), SPEC)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.just(10**400)
    | st.sampled_from(["red", "http://[", "a\0b.tif", "%00", "", COG]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "scale", "x", "center_wavelength", "eo:center_wavelength"]), inner)
    ),
    max_leaves=6,
)
FIELDS = ("href", "type", "roles", "eo:bands", "bands", "raster:bands", "nodata", "eo:common_name", "raster:scale")
WHOSE = ("platform", "instruments", "constellation")


@given(
    st.dictionaries(st.sampled_from(["red", "scl", "B04"]), st.dictionaries(st.sampled_from(FIELDS), JUNK) | JUNK),
    st.dictionaries(st.sampled_from(WHOSE), JUNK | st.sampled_from(["landsat-8", "msi", ["oli"]])),
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_an_item_it_is_described_or_refused(
    tmp_path: Path, assets: dict[str, Any], properties: dict[str, Any]
) -> None:
    path = write_item(tmp_path, assets, properties)
    try:
        found = find(path)
    except GeosegError:
        return
    assert found is not None
    assert found.layers


def told(folder: Path, band: dict[str, Any], properties: dict[str, Any] | None = None) -> Path:
    write_planes(folder, "red")
    asset = {"href": "red.tif", "type": COG, "eo:bands": [{"common_name": "red"}], "raster:bands": [band]}
    return write_item(folder, {"red": asset}, properties)


RED = InputSpec(("red",), (), (0.0,), (1.0,))


@pytest.mark.parametrize("word", ["scale", "offset"])
def test_a_scale_or_offset_that_is_no_number_says_nothing(tmp_path: Path, word: str) -> None:
    path = told(tmp_path, {"scale": 1e-4, "offset": -0.1, word: "-0.1"})
    with pytest.raises(RadiometryError, match="nothing says"):
        open_scene(path, RED)


@pytest.mark.parametrize(
    ("baseline", "offset", "applied", "agree"),
    [
        ("05.09", 0.0, None, False),
        ("04.00", 0.0, False, False),
        ("05.09", 0.0, True, True),
        ("05.09", -0.1, None, True),
        ("03.01", 0.0, None, True),
        ("02.14", -0.1, None, False),
        ("99.99", 0.0, None, True),
    ],
)
def test_offset_and_processing_baseline_of_an_item_must_go_together(
    tmp_path: Path, baseline: str, offset: float, applied: bool | None, agree: bool
) -> None:
    properties = {"s2:processing_baseline": baseline, "earthsearch:boa_offset_applied": applied}
    path = told(tmp_path, {"scale": 1e-4, "offset": offset}, properties)
    if agree:
        open_scene(path, RED).close()
        return
    with pytest.raises(RadiometryError, match=f"two sources disagree.*{baseline}"):
        open_scene(path, RED)
    with open_scene(path, RED, SceneOptions(radiometry="dn-1000")) as scene:
        assert scene.radiometry.rung == "option"


@pytest.mark.parametrize("word", ["nodata", "scale", "offset", "eo:center_wavelength"])
def test_a_whole_number_that_no_float_can_be_says_nothing(tmp_path: Path, word: str) -> None:
    path = told(tmp_path, {"scale": 1e-4, word: 10**400})
    found = find(path)
    assert found is not None
    assert found.layers[0].nodata == "file"


def test_half_of_a_surrogate_pair_in_a_link_is_refused(tmp_path: Path) -> None:
    path = write_item(tmp_path, {"red": {"href": "\udc80.tif", "type": COG, "eo:bands": [{"common_name": "red"}]}})
    with pytest.raises(InputError, match="is no text"):
        find(path)
