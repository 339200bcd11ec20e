"""Bands are found by name; whatever a name may mean besides is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import BandError
from geoseg_cli.scenes import SceneOptions, match_product
from geoseg_cli.scenes.bands import match_bands
from geoseg_cli.scenes.product import Layer, Product

# Written down here again, from the Sentinel-2 and Landsat handbooks, so that the data file is checked too.
S2 = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge071",
    "B06": "rededge075",
    "B07": "rededge078",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B10": "cirrus",
    "B11": "swir16",
    "B12": "swir22",
}
OLI = {"blue": "SR_B2", "green": "SR_B3", "red": "SR_B4", "nir": "SR_B5", "swir16": "SR_B6", "swir22": "SR_B7"}
TM = {"blue": "SR_B1", "green": "SR_B2", "red": "SR_B3", "nir": "SR_B4", "swir16": "SR_B5", "swir22": "SR_B7"}


def spec(*required: str, optional: tuple[str, ...] = ()) -> InputSpec:
    bands = (*required, *optional)
    return InputSpec(bands, optional, (0.0,) * len(bands), (1.0,) * len(bands))


BGRN = spec("blue", "green", "red", "nir", optional=("swir16", "swir22"))


@pytest.mark.parametrize(("name", "common"), S2.items())
def test_each_sentinel_2_band_is_found_by_its_name_in_a_full_product(name: str, common: str) -> None:
    match = match_bands(spec(common), tuple(S2))
    assert match.numbers == (tuple(S2).index(name) + 1,)


@given(st.permutations([*S2, "SCL", None, "QA60", "dataMask"]), st.booleans())
def test_order_case_blanks_and_foreign_bands_do_not_matter(names: list[str | None], lower: bool) -> None:
    shown = [f" {name.lower() if lower else name} " if name else name for name in names]
    match = match_bands(BGRN, shown)
    assert [names[number - 1] for number in match.held_numbers] == ["B02", "B03", "B04", "B08", "B11", "B12"]


@given(st.permutations(["B02", "B03", "B04", "B08", "B11", "B12"]))
def test_common_names_and_a_sensors_names_may_be_mixed(names: list[str]) -> None:
    # B08 keeps its own name: without it the names could be those of HLS L30 too, where B11 is thermal.
    mixed = [S2[name] if index % 2 and name != "B08" else name for index, name in enumerate(names)]
    match = match_bands(BGRN, mixed)
    assert [names[number - 1] for number in match.held_numbers] == ["B02", "B03", "B04", "B08", "B11", "B12"]


def test_names_of_other_tools_for_the_short_wave_bands_fit_every_sensor() -> None:
    match = match_bands(BGRN, ("blue", "green", "red", "nir", "swir1", "swir2"))
    assert match.numbers == (1, 2, 3, 4, 5, 6)


def test_missing_optional_bands_are_flagged() -> None:
    match = match_bands(BGRN, ("B08", "B04", "B03", "B02", "B11"))
    assert match.present == (True, True, True, True, True, False)
    assert match.held_numbers == (4, 3, 2, 1, 5)
    assert match.held_names == ("blue", "green", "red", "nir", "swir16")


def test_a_missing_required_band_is_named_with_a_table_and_the_option_that_helps() -> None:
    with pytest.raises(BandError) as caught:
        match_bands(BGRN, ("B02", "B03", "B04", "B8A"), where="x.tif")
    assert "x.tif: missing band nir" in caught.value.message
    assert "blue    band 1 (B02)" in caught.value.message
    assert "nir     -" in caught.value.message
    assert "--bands blue,green,red,nir" in caught.value.hint


@pytest.mark.parametrize("name", ["B8A", "b8a", "B08A", "8A"])
def test_the_narrow_near_infrared_of_sentinel_2_never_stands_for_the_broad_one(name: str) -> None:
    with pytest.raises(BandError, match="missing band nir"):
        match_bands(BGRN, ("B02", "B03", "B04", name))


def test_nir08_stands_for_nir_where_the_names_fit_landsat_8_only() -> None:
    names = ("coastal", "SR_B2", "green", "red", "nir08", "ST_B10")
    assert match_bands(spec("blue", "nir"), names).numbers == (2, 5)


def test_nir08_alone_among_common_names_is_ambiguous() -> None:
    with pytest.raises(BandError, match="ambiguous") as caught:
        match_bands(BGRN, ("blue", "green", "red", "nir08"))
    assert "--bands blue,green,red,nir (Landsat 8/9 OLI" in caught.value.hint


def test_nir_wins_where_nir08_is_there_too() -> None:
    assert match_bands(spec("nir"), ("blue", "green", "red", "nir08", "nir")).numbers == (5,)


@pytest.mark.parametrize(
    "names",
    [
        ("B2", "B3", "B4"),
        ("B2", "B3", "B4", "B8"),
        ("B1", "B2", "B3", "B4", "B5", "B6", "B7"),
        tuple(f"B{number}" for number in range(1, 12)),
        ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"),
    ],
)
def test_names_that_mean_different_bands_for_different_sensors_are_ambiguous(names: tuple[str, ...]) -> None:
    with pytest.raises(BandError, match="ambiguous") as caught:
        match_bands(spec("green", "red", optional=("blue", "nir")), names)
    assert "Landsat 8/9 OLI:" in caught.value.message
    assert caught.value.hint.count("--bands") >= 2


def test_a_band_that_every_reading_lacks_is_told_before_the_ambiguity() -> None:
    with pytest.raises(BandError, match="missing band nir"):
        match_bands(spec("nir", optional=("swir16",)), ("B11",))


def test_the_hint_of_an_ambiguity_lifts_it() -> None:
    wanted = spec("red", optional=("blue", "green", "nir"))
    with pytest.raises(BandError) as caught:
        match_bands(wanted, ("B4", "B3", "B2"))
    assert "--bands red,green,blue (Sentinel-2 MSI, Landsat 8/9 OLI)" in caught.value.hint
    assert "--bands nir,red,green (Landsat 4-7 TM/ETM+)" in caught.value.hint
    assert match_bands(wanted, ("B4", "B3", "B2"), ("red", "green", "blue")).numbers == (1, 3, 2, None)


@pytest.mark.parametrize(("table", "thermal"), [(OLI, "ST_B10"), (TM, "ST_B6")], ids=["OLI", "TM"])
def test_the_thermal_band_tells_the_landsats_apart(table: dict[str, str], thermal: str) -> None:
    names = [*table.values(), thermal, "QA_PIXEL"]
    random.Random(1).shuffle(names)
    match = match_bands(spec(*table), names)
    assert [names[number - 1] for number in match.held_numbers] == list(table.values())


@pytest.mark.parametrize("names", [("B02", "SR_B3", "B04"), ("B02", "blue", "B03"), ("B2", "B02", "B03")])
def test_names_of_two_sensors_or_two_names_of_one_band_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(BandError, match="no sensor has these bands, each once"):
        match_bands(spec("blue"), names)


def test_two_bands_with_one_name_are_refused_unless_the_user_chooses() -> None:
    names = ("red", "green", "blue", "nir", "red", "green", "blue", "nir")
    with pytest.raises(BandError, match="bands 1 and 5 are both called red"):
        match_bands(BGRN, names)
    chosen = match_bands(BGRN, names, ("-", "-", "-", "-", "red", "green", "blue", "nir"))
    assert chosen.held_numbers == (7, 6, 5, 8)


def test_two_foreign_bands_with_one_name_do_no_harm() -> None:
    assert match_bands(spec("blue"), ("mask", "B02", "mask")).numbers == (2,)


@pytest.mark.parametrize("names", [(None,) * 6, ("", " ", "", "", "", ""), ("ImageData4 SWIR_Swath",) * 6])
def test_without_names_the_count_of_bands_is_never_enough(names: tuple[str | None, ...]) -> None:
    with pytest.raises(BandError, match="no band has a name that is known") as caught:
        match_bands(BGRN, names)
    assert "wanted  found" in caught.value.message
    assert "--bands blue,green,red,nir,swir16,swir22" in caught.value.hint


@pytest.mark.parametrize("name", ["B02 (492.7 nm)", "Band 2 - Blue", "Blue band", "B2_10m", "2", "BGR"])
def test_decorated_names_are_not_guessed_at(name: str) -> None:
    with pytest.raises(BandError):
        match_bands(spec("blue"), (name,))


def test_the_users_names_decide_over_those_of_the_file() -> None:
    told = match_bands(spec("blue", "red"), ("red", "green", "blue"), ("B02", "-", "B04"))
    assert told.numbers == (1, 3)
    assert told.file_names == ("B02", "", "B04")


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_users_names_must_be_as_many_as_the_bands(count: int) -> None:
    with pytest.raises(BandError, match=rf"--bands names {count} bands? but the file has 4"):
        match_bands(BGRN, (None,) * 4, ("blue", "green", "red", "nir", "swir16")[:count])


def test_a_name_that_no_sensor_knows_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BandError, match="'infrared'") as caught:
        match_bands(BGRN, (None,) * 4, ("blue", "green", "red", "infrared"))
    assert "nir" in caught.value.hint


def test_the_users_names_can_be_ambiguous_too() -> None:
    with pytest.raises(BandError, match="ambiguous"):
        match_bands(spec("red"), (None, None), ("B3", "B4"))


def test_single_band_files_are_told_to_be_stacked() -> None:
    with pytest.raises(BandError) as caught:
        match_bands(BGRN, ("B02",))
    assert "gdal_merge.py -separate" in caught.value.hint


def test_control_characters_of_a_file_do_not_reach_the_terminal() -> None:
    with pytest.raises(BandError) as caught:
        match_bands(BGRN, ("\x1b]0;owned\x07" + "A" * 500, None, None, None))
    assert "\x1b" not in caught.value.message
    assert "A" * 100 not in caught.value.message


def test_names_that_two_products_give_to_other_bands_are_ambiguous() -> None:
    """HLS L30 calls near infrared B05, which is a red edge of Sentinel-2, and cirrus B09."""
    with pytest.raises(BandError, match="ambiguous"):
        match_bands(BGRN, ("B02", "B03", "B04", "B05", "B06", "B07"))


def test_a_sensor_other_than_the_product_s_own_is_refused() -> None:
    spec = InputSpec(("red",), (), (0.0,), (1.0,))
    product = Product("test", Path("/scene"), (Layer("B4", "/scene/B4.tif"),), "landsat-8")
    assert match_product(product, spec, SceneOptions(sensor="landsat-8")).held_names == ("red",)
    with pytest.raises(BandError, match="is a scene of landsat-8, --sensor says landsat-5"):
        match_product(product, spec, SceneOptions(sensor="landsat-5"))
