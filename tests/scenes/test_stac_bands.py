"""STAC items that tell their bands by wavelength, or by names that only the platform gives a meaning.

Which wavelength is which band is written down here again, from the sensors' own documents.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.bundle import InputSpec
from geoseg_cli.catalog import sensors, wavelength_tolerance
from geoseg_cli.errors import BandError, InputError
from geoseg_cli.scenes import SceneOptions, open_scene
from geoseg_cli.scenes.stac_item import find
from geoseg_cli.scenes.wavelengths import named_by_wavelength
from tests.conftest import write_scene
from tests.scenes.test_stac_item import COG, JP2, WINDOW, write_item, write_planes

DN = SceneOptions(radiometry="dn")


def read(path: Path, *wanted: str, options: SceneOptions = DN) -> np.ndarray[Any, Any]:
    spec = InputSpec(wanted, (), (0.0,) * len(wanted), (1.0,) * len(wanted))
    with open_scene(path, spec, options) as scene:
        return scene.read(WINDOW).pixels


def item_of(
    folder: Path, bands: dict[str, dict[str, Any]], properties: dict[str, Any] | None = None, collection: str = ""
) -> tuple[Path, dict[str, Any]]:
    """An item of one file for each band; keys of ``bands`` are those of the assets."""
    planes = write_planes(folder, *bands)
    assets = {key: {"href": f"{key}.tif", "type": COG, "eo:bands": [band]} for key, band in bands.items()}
    path = write_item(folder, assets, properties)
    if collection:
        path.write_text(json.dumps({**json.loads(path.read_text()), "collection": collection}))
    return path, planes


# Sentinel-2 as Earth Search rounds its wavelengths; OLI as Planetary Computer does; SuperDove of Planet's documents.
STATED = {
    "sentinel-2a": {
        **{"blue": 0.49, "green": 0.56, "red": 0.665, "rededge071": 0.704, "rededge075": 0.74, "rededge078": 0.783},
        **{"nir": 0.842, "nir08": 0.865, "nir09": 0.945, "swir16": 1.61, "swir22": 2.19, "coastal": 0.443},
    },
    "landsat-8": {"blue": 0.48, "green": 0.56, "red": 0.65, "nir08": 0.87, "swir16": 1.61, "swir22": 2.2},
    "landsat-5": {"blue": 0.49, "green": 0.56, "red": 0.66, "nir08": 0.83, "swir16": 1.65, "swir22": 2.22},
}


@pytest.mark.parametrize("platform", STATED)
@pytest.mark.parametrize("key", ["center_wavelength", "eo:center_wavelength"])
def test_bands_without_a_name_are_told_by_their_wavelength(tmp_path: Path, platform: str, key: str) -> None:
    waves = STATED[platform]
    bands = {f"file{number}": {key: wave} for number, wave in enumerate(waves.values())}
    path, planes = item_of(tmp_path, bands, {"platform": platform})
    np.testing.assert_array_equal(read(path, *waves), list(planes.values()))


def test_wavelengths_of_version_1_1_stand_in_the_bands_of_a_file(tmp_path: Path) -> None:
    numbers = np.stack([*write_planes(tmp_path, "a", "b", "c").values()])
    write_scene(tmp_path / "all.tif", numbers)
    bands = [{"name": f"layer {number}", "eo:center_wavelength": wave} for number, wave in enumerate((0.66, 9.0, 0.56))]
    path = write_item(tmp_path, {"image": {"href": "all.tif", "type": COG, "bands": bands}}, version="1.1.0")
    np.testing.assert_array_equal(read(path, "green", "red"), numbers[[2, 0]])


def test_a_wavelength_of_two_bands_or_of_none_names_no_band(tmp_path: Path) -> None:
    # 848 nm is as far as 2 % from both B08 (832.8) and B8A (864.7); 0.90 from neither; 665 was meant as nanometres.
    bands = {"red": {"center_wavelength": 0.665}, "x": {"center_wavelength": 0.848}, "y": {"center_wavelength": 0.9}}
    path, _ = item_of(tmp_path, {**bands, "z": {"center_wavelength": 665}}, {"platform": "sentinel-2b"})
    found = find(path)
    assert found is not None
    assert [layer.name for layer in found.layers] == ["red"]


def test_of_many_narrow_bands_none_is_the_red_one(tmp_path: Path) -> None:
    bands = {f"n{wave}": {"center_wavelength": wave / 1000} for wave in (655, 660, 665, 670, 490)}
    path, _ = item_of(tmp_path, bands, {"platform": "sentinel-2a"})
    found = find(path)
    assert found is not None
    assert [(layer.name, Path(layer.file).name) for layer in found.layers] == [("blue", "n490.tif")]


@pytest.mark.parametrize(
    "named", [{"common_name": "red"}, {"name": "B04"}], ids=["by a common name", "by the sensor's own"]
)
def test_a_wavelength_yields_to_a_name(tmp_path: Path, named: dict[str, str]) -> None:
    path, planes = item_of(
        tmp_path, {"other": {"center_wavelength": 0.665}, "right": named}, {"platform": "Sentinel-2A"}
    )
    np.testing.assert_array_equal(read(path, "red")[0], planes["right"])


def test_a_jpeg_2000_of_the_same_wavelength_does_not_make_it_ambiguous(tmp_path: Path) -> None:
    write_planes(tmp_path, "a")
    band = {"eo:bands": [{"center_wavelength": 0.665}]}
    assets = {"a": {"href": "a.tif", "type": COG, **band}, "b": {"href": "b.jp2", "type": JP2, **band}}
    found = find(write_item(tmp_path, assets))
    assert found is not None
    assert [(layer.name, layer.driver) for layer in found.layers] == [("red", "GTiff")]


LANDSAT_OWN = {f"B{number}": {"name": f"B{number}"} for number in (2, 3, 4, 5)}
READINGS = [
    ({"platform": "landsat-8"}, {"blue": "B2", "green": "B3", "red": "B4", "nir08": "B5"}),
    ({"platform": "LANDSAT_9", "instruments": ["OLI", "TIRS"]}, {"blue": "B2", "red": "B4", "nir08": "B5"}),
    ({"platform": "landsat-5"}, {"green": "B2", "red": "B3", "nir08": "B4", "swir16": "B5"}),
    ({"platform": "Landsat 7", "instruments": ["etm+"]}, {"green": "B2", "red": "B3", "swir16": "B5"}),
    ({"instruments": ["tm"]}, {"green": "B2", "red": "B3", "swir16": "B5"}),
    ({"constellation": "sentinel-2"}, {"blue": "B2", "green": "B3", "red": "B4", "rededge071": "B5"}),
    ({"platform": "sentinel-2c", "constellation": "Sentinel-2"}, {"red": "B4", "rededge071": "B5"}),
]


@pytest.mark.parametrize(("properties", "meaning"), READINGS, ids=lambda value: str(value)[:60])
def test_the_platform_says_which_band_b4_is(
    tmp_path: Path, properties: dict[str, Any], meaning: dict[str, str]
) -> None:
    path, planes = item_of(tmp_path, LANDSAT_OWN, properties)
    np.testing.assert_array_equal(read(path, *meaning), [planes[name] for name in meaning.values()])


def test_own_names_of_another_sensor_are_no_doubles(tmp_path: Path) -> None:
    """``B4`` is red for Landsat 8, so that a band called red would make it a second one; of TM it is near infrared."""
    path, planes = item_of(tmp_path, {"red": {"common_name": "red"}, "B4": {}}, {"platform": "landsat-5"})
    np.testing.assert_array_equal(read(path, "red", "nir08"), [planes["red"], planes["B4"]])


def test_bands_stay_in_the_order_of_the_item_however_they_are_told(tmp_path: Path) -> None:
    bands = {"x": {"center_wavelength": 0.665}, "B03": {}, "y": {"common_name": "blue"}, "z": {}, "B08": {}}
    path, planes = item_of(tmp_path, bands, {"platform": "sentinel-2a"})
    found = find(path)
    assert found is not None
    assert [layer.name for layer in found.layers] == ["red", "B03", "blue", "B08"]
    options = SceneOptions(radiometry="dn", bands=("nir", "-", "-", "red"))
    np.testing.assert_array_equal(read(path, "red", options=options)[0], planes["B08"])


def test_without_a_platform_such_names_stay_ambiguous(tmp_path: Path) -> None:
    path, _ = item_of(tmp_path, LANDSAT_OWN)
    with pytest.raises(BandError, match="ambiguous"):
        read(path, "green", "red")


def test_a_platform_that_contradicts_the_sensor_option_is_refused(tmp_path: Path) -> None:
    path, planes = item_of(tmp_path, LANDSAT_OWN, {"platform": "landsat-8"})
    with pytest.raises(BandError, match="a scene of landsat-8, --sensor says landsat-5"):
        read(path, "red", options=SceneOptions(radiometry="dn", sensor="landsat-5"))
    options = SceneOptions(radiometry="dn", sensor="landsat-8")
    np.testing.assert_array_equal(read(path, "red", options=options)[0], planes["B4"])


def test_an_instrument_that_is_not_the_tables_leaves_the_sensor_open(tmp_path: Path) -> None:
    """The MSS on Landsat 5 called green what TM calls red."""
    path, _ = item_of(tmp_path, LANDSAT_OWN, {"platform": "landsat-5", "instruments": ["mss"]})
    found = find(path)
    assert found is not None
    assert found.sensor is None
    assert "landsat-5" in found.warnings[0]
    assert "mss" in found.warnings[0]


def test_an_unknown_platform_says_nothing(tmp_path: Path) -> None:
    path, _ = item_of(tmp_path, {"red": {"common_name": "red"}}, {"platform": "worldview-3", "instruments": None})
    found = find(path)
    assert found is not None
    assert (found.sensor, found.warnings) == (None, ())


@pytest.mark.parametrize(
    ("collection", "platform", "sensor"),
    [
        ("hls2-l30", "landsat-9", "hls-l30"),
        ("HLSS30_2.0", "", "hls-s30"),
        ("HLSL30.v2.0", "landsat-8", "hls-l30"),
        ("mine", "landsat-8", "hls-l30"),
        ("mine", "sentinel-2a", "sentinel-2"),
    ],
)
def test_names_with_a_zero_or_the_collection_tell_hls_from_landsat(
    tmp_path: Path, collection: str, platform: str, sensor: str
) -> None:
    path, planes = item_of(tmp_path, {f"B0{n}": {} for n in (2, 3, 4, 5)}, {"platform": platform}, collection)
    found = find(path)
    assert found is not None
    assert found.sensor == sensor
    fifth = "nir08" if sensor == "hls-l30" else "rededge071"
    np.testing.assert_array_equal(read(path, "red", fifth), [planes["B04"], planes["B05"]])


def test_an_item_that_tells_no_band_says_what_it_could_have(tmp_path: Path) -> None:
    path, _ = item_of(tmp_path, {"image": {"center_wavelength": 5.0}})
    with pytest.raises(InputError, match=r"eo:common_name.*eo:center_wavelength"):
        find(path)


@pytest.mark.parametrize("name", list(sensors()))
def test_every_band_of_the_table_is_told_by_its_own_centre(name: str) -> None:
    sensor = sensors()[name]
    waves = [band.wavelength_nm for band in sensor.bands]
    told = named_by_wavelength([""] * len(waves), waves, name)
    assert [sensor.find(one) for one in told] == list(sensor.bands)


@given(st.floats(300, 13_000), st.sampled_from([None, *sensors()]))
def test_a_band_told_by_wavelength_lies_within_the_tolerance_of_every_sensor_that_has_one_there(
    wave: float, name: str | None
) -> None:
    able = [sensors()[name]] if name else list(sensors().values())
    (told,) = named_by_wavelength([""], [wave], name)
    near = [
        [band for band in sensor.bands if abs(wave / band.wavelength_nm - 1) <= wavelength_tolerance()]
        for sensor in able
    ]
    near = [bands for bands in near if bands]
    if told:
        assert near
        assert all(len(bands) == 1 and told in bands[0].common for bands in near)
    elif near:
        shared = set.intersection(*(set(bands[0].common) for bands in near))
        assert any(len(bands) > 1 for bands in near) or not shared
