"""Legends and sensors as the data files state them."""

from __future__ import annotations

import re

import pytest

from geoseg_cli.catalog import LandClass, Legend, common_names, legends, sensors
from geoseg_cli.errors import ModelError


@pytest.mark.parametrize("legend", legends().values(), ids=lambda legend: legend.name)
def test_a_legend_is_fit_for_stac_palette_and_uint8(legend: Legend) -> None:
    assert legend.nodata == 255
    for row in legend.stac_classes():
        assert re.fullmatch(r"[A-Za-z0-9_-]+", row["name"])
        assert re.fullmatch(r"[0-9A-F]{6}", row["color_hint"])
    assert set(legend.palette()) == {*legend.values, 255}
    assert legend.palette()[255][3] == 0


def test_worldcover_has_its_published_ids_and_colours() -> None:
    """ESA WorldCover 2021 v200 product user manual."""
    table = {c.value: c.color for c in legends()["esa-worldcover"].classes}
    assert list(table) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100]
    assert (table[10], table[40], table[80]) == ("#006400", "#F096FF", "#0064C8")


def test_a_subset_keeps_the_order_asked_for() -> None:
    assert legends()["esa-worldcover"].subset([80, 10]).values == (80, 10)


@pytest.mark.parametrize("values", [(1, 1), (1, 255), (-1, 2), (3, 300)])
def test_values_that_cannot_be_told_apart_in_uint8_are_refused(values: tuple[int, int]) -> None:
    with pytest.raises(ModelError):
        Legend("bad", tuple(LandClass(value, f"c{i}", "", "#000000") for i, value in enumerate(values)))


@pytest.mark.parametrize("name", list(sensors()))
def test_a_name_means_one_band_of_a_sensor(name: str) -> None:
    sensor = sensors()[name]
    for band in sensor.bands:
        for spelling in (band.name, *band.aliases, band.common[0]):
            for cased in (spelling, spelling.lower(), spelling.upper()):
                assert sensor.find(cased) is band


def test_sentinel_2_wavelengths_rise_with_the_band_except_for_the_swapped_b8a() -> None:
    bands = sensors()["sentinel-2"].bands
    assert [band.name for band in bands] == [
        *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
    ]
    waves = [band.wavelength_nm for band in bands]
    assert waves == sorted(waves)


def test_b8a_never_stands_for_the_broad_near_infrared_band() -> None:
    sentinel = sensors()["sentinel-2"]
    found = sentinel.find("nir")
    assert found is not None
    assert found.name == "B08"


def test_common_names_cover_what_the_models_want() -> None:
    wanted = {"coastal", "blue", "green", "red", "nir", "nir09", "cirrus", "swir16", "swir22"}
    assert wanted <= set(common_names())
