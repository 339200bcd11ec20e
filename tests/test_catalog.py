"""Legends and sensors as the data files state them."""

from __future__ import annotations

import re

import pytest

from geoseg_cli.catalog import (
    LandClass,
    Legend,
    LegendMapping,
    common_names,
    find_mapping,
    legends,
    mappings,
    sensors,
)
from geoseg_cli.errors import ModelError, UsageError


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


@pytest.mark.parametrize("values", [(1, 1), (1, 255), (-1, 2), (3, 70_000)])
def test_values_that_cannot_be_told_apart_in_a_map_are_refused(values: tuple[int, int]) -> None:
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


@pytest.mark.parametrize("mapping", mappings().values(), ids=str)
def test_a_mapping_tells_the_end_of_every_class(mapping: LegendMapping) -> None:
    table = mapping.table()
    assert set(table) == {*mapping.source.values, 255}
    assert set(table.values()) <= {*mapping.target.values, 255}
    assert table[255] == 255
    lost = {c.value for c in mapping.source.classes if c.name in mapping.lost}
    assert {value for value, goal in table.items() if goal == 255} == {*lost, 255}
    assert all(sentence.endswith(".") for sentence in mapping.losses)


@pytest.mark.parametrize(
    ("source", "target", "table"),
    [
        ("cloudsen12", "cloud-binary", {0: 0, 1: 1, 2: 1, 3: 0}),
        ("cloudsen12", "cloud-valid", {0: 1, 1: 0, 2: 0, 3: 0}),
        ("cloudsen12", "sentinel-2-scl", {0: 7, 1: 9, 2: 10, 3: 3}),
        # The scene classification as users of CloudSEN12 read it; 1 is saturated or defective.
        (
            "sentinel-2-scl",
            "cloudsen12",
            {1: 255, 2: 0, 3: 3, 4: 0, 5: 0, 6: 0, 7: 0, 8: 1, 9: 1, 10: 2, 11: 0},
        ),
        # ARAS400k: wetland and moss are grass, mangroves tree, snow barren.
        (
            "esa-worldcover",
            "aras400k",
            {10: 0, 20: 1, 30: 2, 40: 3, 50: 4, 60: 5, 70: 5, 80: 6, 90: 2, 95: 0, 100: 2},
        ),
        (
            "esa-worldcover",
            "dynamic-world",
            {10: 1, 20: 5, 30: 2, 40: 4, 50: 6, 60: 7, 70: 8, 80: 0, 90: 3, 95: 3, 100: 255},
        ),
    ],
)
def test_mappings_have_the_values_of_their_legends(source: str, target: str, table: dict[int, int]) -> None:
    assert find_mapping(source, target).table() == table | {255: 255}


def test_what_a_cloud_mask_says_survives_the_way_to_the_scene_classification_and_back() -> None:
    there, back = find_mapping("cloudsen12", "sentinel-2-scl"), find_mapping("sentinel-2-scl", "cloudsen12")
    assert all(back.table()[goal] == value for value, goal in there.table().items())


def test_a_mapping_that_nobody_wrote_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError) as caught:
        find_mapping("cloudsen12", "esa-worldcover")
    assert "cloud-binary, cloud-valid, sentinel-2-scl" in caught.value.hint


@pytest.mark.parametrize(
    ("classes", "lost"),
    [
        ({"clear": "clear"}, ("thick_cloud", "thin_cloud")),
        ({"clear": "clear", "cloud": "cloud"}, ("thick_cloud", "thin_cloud", "cloud_shadow")),
        ({"clear": "clear", "thin_cloud": "cloud"}, ("thick_cloud", "thin_cloud", "cloud_shadow")),
        ({"clear": "fog"}, ("thick_cloud", "thin_cloud", "cloud_shadow")),
    ],
)
def test_a_mapping_that_forgets_a_class_or_invents_one_is_refused(
    classes: dict[str, str], lost: tuple[str, ...]
) -> None:
    with pytest.raises(ModelError):
        LegendMapping(legends()["cloudsen12"], legends()["cloud-binary"], classes, lost, ("Something is lost.",))


def test_a_mapping_must_say_what_is_lost() -> None:
    others = ("thick_cloud", "thin_cloud", "cloud_shadow")
    with pytest.raises(ModelError, match="what is lost"):
        LegendMapping(legends()["cloudsen12"], legends()["cloud-binary"], {"clear": "clear"}, others, ())
