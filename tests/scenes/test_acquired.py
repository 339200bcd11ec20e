"""When a scene was taken: as metadata and names state it, and nothing where they do not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from geoseg_cli.scenes.acquired import acquisition_time
from geoseg_cli.scenes.product import Layer, Product


def product(layout: str, path: Path, *, name: str = "", members: tuple[Path, ...] = (), file: str = "") -> Product:
    return Product(layout, path, (Layer("red", file or str(path)),), members=members, name=name)


def of_mtl(tmp_path: Path, day: str, time: str) -> datetime | None:
    mtl = tmp_path / "LC08_MTL.txt"
    mtl.write_text(
        f"GROUP = LANDSAT_METADATA_FILE\n  GROUP = IMAGE_ATTRIBUTES\n    DATE_ACQUIRED = {day}\n"
        f"    SCENE_CENTER_TIME = {time}\n  END_GROUP = IMAGE_ATTRIBUTES\nEND_GROUP = LANDSAT_METADATA_FILE\nEND\n"
    )
    return acquisition_time(product("Landsat level 2 product", tmp_path, members=(mtl,)))


def of_item(tmp_path: Path, stated: object) -> datetime | None:
    path = tmp_path / "item.json"
    path.write_text(json.dumps({"properties": {"datetime": stated}}))
    return acquisition_time(product("STAC item x", path, members=(path,)))


@pytest.mark.parametrize(
    "place",
    [
        {"name": "S2A_MSIL2A_20230708T101112_N0509_R022_T31UFS_20230708T160000.SAFE"},
        {"path": Path("/x/S2B_MSIL1C_20230708T101112_N0509_R022_T31UFS_20230708T160000.SAFE/MTD_MSIL1C.xml")},
    ],
)
def test_a_sentinel_2_name_states_the_sensing_time_and_not_that_of_processing(place: dict) -> None:
    path = place.pop("path", Path("/x/scene"))
    found = acquisition_time(product("Sentinel-2 L2A SAFE folder", path, **place))
    assert found == datetime(2023, 7, 8, 10, 11, 12, tzinfo=UTC)


def test_an_hls_name_states_year_and_day_of_the_year() -> None:
    file = "/x/HLS.S30.T10TEM.2024060T190911.v2.0.B04.tif"
    found = acquisition_time(product("HLS S30 folder", Path("/x"), file=file))
    assert found == datetime(2024, 2, 29, 19, 9, 11, tzinfo=UTC), "day 60 of a leap year"


@pytest.mark.parametrize("name", ["20230708_101112_73_2262_3B_AnalyticMS_SR_8b.tif", "20230708_101112_0e2f_3B.tif"])
def test_a_planetscope_name_begins_with_date_and_time(name: str) -> None:
    found = acquisition_time(product("PlanetScope radiance product", Path("/x"), file=f"/x/{name}"))
    assert found == datetime(2023, 7, 8, 10, 11, 12, tzinfo=UTC)
    assert acquisition_time(product("GeoTIFF", Path(f"/x/{name}"))) is None, "another file of such a name says nothing"


@pytest.mark.parametrize("time", ['"10:11:12.5000000Z"', "10:11:12.5000000Z", "10:11:12.5Z"])
def test_a_landsat_mtl_states_day_and_time(tmp_path: Path, time: str) -> None:
    assert of_mtl(tmp_path, "2023-07-08", time) == datetime(2023, 7, 8, 10, 11, 12, 500_000, tzinfo=UTC)


@pytest.mark.parametrize("stated", ["2023-07-08T10:11:12Z", "2023-07-08T12:11:12+02:00", "2023-07-08T10:11:12.000Z"])
def test_a_stac_item_states_its_datetime_in_any_zone(tmp_path: Path, stated: str) -> None:
    assert of_item(tmp_path, stated) == datetime(2023, 7, 8, 10, 11, 12, tzinfo=UTC)


@pytest.mark.parametrize("stated", [None, 7, "soon", {}, "9999-99-99"])
def test_what_is_no_time_is_none(tmp_path: Path, stated: object) -> None:
    assert of_item(tmp_path, stated) is None
    assert of_mtl(tmp_path, str(stated), "10:00") is None


def test_a_plain_file_states_nothing(tmp_path: Path) -> None:
    assert acquisition_time(product("GeoTIFF", tmp_path / "scene_20230708T101112.tif")) is None
    assert acquisition_time(product("Landsat level 2 product", tmp_path)) is None
