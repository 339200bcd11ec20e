"""The ladder that decides what numbers mean: one test per rung, and what no rung may decide."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from geoseg_cli.arrays import Arrays
from geoseg_cli.errors import InputError, RadiometryError, UsageError
from geoseg_cli.scenes.radiometry import CHOICES, Claim, Evidence, decide_radiometry, refuse_rendered

BASELINE_5 = Path("/data/S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.SAFE/x/stack.tif")
BASELINE_2 = Path("/data/S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857.SAFE/x/stack.tif")
PLAIN = Path("/data/stack.tif")


def evidence(
    sample: Any = ((100, 500, 4000), (90, 700, 5000)),
    path: Path = PLAIN,
    dtype: str = "uint16",
    scales: tuple[float, ...] = (1.0, 1.0),
    offsets: tuple[float, ...] = (0.0, 0.0),
    stated: Claim | None = None,
) -> Evidence:
    numbers: npt.NDArray[Any] = np.asarray(sample, dtype=dtype)
    return Evidence(path, ("blue", "nir"), (dtype, dtype), scales, offsets, lambda: numbers, stated)


@pytest.mark.parametrize(
    ("choice", "number", "reflectance"),
    [("dn", 5000, 0.5), ("dn-1000", 5000, 0.4), ("dn-1000", 0, -0.1), ("reflectance", 1, 1.0)],
)
def test_the_option_decides_first(choice: str, number: int, reflectance: float) -> None:
    decided = decide_radiometry(choice, evidence(path=BASELINE_5, scales=(2.0, 2.0)))
    assert decided.rung == "option"
    assert f"--radiometry {choice}" in decided.reason
    assert decided.apply(np.full((2, 1, 1), number)) == pytest.approx(reflectance, abs=1e-7)


def test_tags_decide_band_by_band() -> None:
    decided = decide_radiometry("auto", evidence(scales=(2.75e-5, 1e-4), offsets=(-0.2, 0.0)))
    assert decided.rung == "tags"
    assert decided.apply(np.full((2, 1, 1), 10000)).ravel().tolist() == pytest.approx([0.075, 1.0])


STATED = Claim("metadata", "0.0001 x (DN - 1000), as MTD_MSIL2A.xml says", (1e-4, 1e-4), (-0.1, -0.1))
TAGGED: dict[str, Any] = {"scales": (1e-4, 1e-4), "offsets": (-0.1, -0.1)}


@pytest.mark.parametrize(
    ("found", "rung"),
    [
        ({"stated": STATED, "path": BASELINE_5, **TAGGED}, "metadata"),
        ({"stated": STATED}, "metadata"),
        ({"path": BASELINE_5, **TAGGED}, "tags"),
    ],
    ids=["all three", "metadata alone", "tags and name"],
)
def test_of_sources_that_agree_the_first_decides(found: dict[str, Any], rung: str) -> None:
    decided = decide_radiometry("auto", evidence(**found))
    assert decided.rung == rung
    assert decided.apply(np.full((2, 1, 1), 2000)).ravel().tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    "found",
    [
        {"path": BASELINE_5, "scales": (1e-4, 1e-4), "offsets": (0.0, 0.0)},
        {"stated": STATED, "scales": (1e-4, 1e-4), "offsets": (0.0, 0.0)},
        {
            "stated": Claim("metadata", "0.0001 x DN, as MTD_MSIL2A.xml says", (1e-4,) * 2, (0.0,) * 2),
            "path": BASELINE_5,
        },
    ],
    ids=["tags against name", "metadata against tags", "metadata against name"],
)
def test_sources_that_disagree_stop_the_run_until_the_user_decides(found: dict[str, Any]) -> None:
    with pytest.raises(RadiometryError, match="two sources disagree"):
        decide_radiometry("auto", evidence(**found))
    assert decide_radiometry("dn", evidence(**found)).rung == "option"


@pytest.mark.parametrize(
    ("scales", "offsets"),
    [((1.0, 1e-4), (0.0, 0.0)), ((0.0, 1e-4), (0.0, 0.0)), ((1e-4, 1e-4), (0.0, float("nan")))],
    ids=["one band without", "scale 0", "offset NaN"],
)
def test_tags_that_make_no_sense_are_refused(scales: tuple[float, ...], offsets: tuple[float, ...]) -> None:
    with pytest.raises(RadiometryError, match="make no sense"):
        decide_radiometry("auto", evidence(scales=scales, offsets=offsets))


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.SAFE", -0.1),
        ("S2B_MSIL1C_20220413T150759_N0400_R025_T33XWJ_20220414T082126", -0.1),
        ("S2B_MSIL2A_20210122T133229_N0301_R081_T22HBD_20210122T155500.SAFE", 0.0),
        # Reprocessed: an old date with a new baseline carries the offset.
        ("S2A_MSIL2A_20170725T142751_N0500_R053_T19GBQ_20240410T040247.SAFE", -0.1),
    ],
)
@pytest.mark.parametrize("place", ["{}/stack.tif", "a/{}/b/c.tif", "{}_10m.tif"])
def test_the_baseline_in_a_product_name_decides(name: str, offset: float, place: str) -> None:
    decided = decide_radiometry("auto", evidence(path=Path("/data") / place.format(name)))
    assert decided.rung == "baseline"
    assert decided.scale == (1e-4, 1e-4)
    assert decided.offset == pytest.approx((offset, offset))
    assert name[:-5] in decided.reason


def test_the_innermost_product_name_decides() -> None:
    inner = BASELINE_2.parents[1] / BASELINE_5.parents[1].name / "stack.tif"
    assert decide_radiometry("auto", evidence(path=inner)).offset == pytest.approx((-0.1, -0.1))


@pytest.mark.parametrize(
    "name",
    [
        "S2A_MSIL2A_20170725T142751_N9999_R053_T19GBQ_20240410T040247.tif",
        "S2A_MSIL2A_20230625T234621_R073_T01WCP.tif",
        "LC08_L2SP_N0509_005009.tif",
        "field_N0512_plots.tif",
        "S2_L2A_2023-06-25.tif",
    ],
)
def test_no_other_name_decides_not_even_by_its_date(name: str) -> None:
    with pytest.raises(RadiometryError) as caught:
        decide_radiometry("auto", evidence(path=Path("/data") / name))
    for choice in CHOICES[1:]:
        assert f"--radiometry {choice}" in caught.value.hint


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_between_minus_1_and_2_are_reflectance(dtype: str) -> None:
    decided = decide_radiometry("auto", evidence(sample=((0.01, 0.3, 1.4), (0.0, 0.5, -0.05)), dtype=dtype))
    assert (decided.rung, decided.scale, decided.offset) == ("float", (1.0, 1.0), (0.0, 0.0))


def test_a_few_glints_above_2_are_still_reflectance() -> None:
    sample = np.full((2, 5000), 0.2)
    sample[:, :3] = 2.5
    assert decide_radiometry("auto", evidence(sample=sample, dtype="float32")).rung == "float"


@pytest.mark.parametrize(
    "sample",
    [((0.0, 55.0, 90.0), (1.0, 2.0, 30.0)), ((-9999.0, 0.2, 0.3), (-9999.0, 0.1, 0.2))],
    ids=["per cent", "untagged fill"],
)
def test_other_floats_are_refused_with_their_range(sample: Any) -> None:
    with pytest.raises(RadiometryError, match="float numbers from") as caught:
        decide_radiometry("auto", evidence(sample=sample, dtype="float32"))
    assert "--nodata NUMBER" in caught.value.hint


@pytest.mark.parametrize("sample", [((), ()), ((0.0, 0.0), (0.0, 0.0))], ids=["no valid pixel", "zeros only"])
def test_floats_without_a_single_number_decide_nothing(sample: Any) -> None:
    with pytest.raises(RadiometryError, match="nothing says"):
        decide_radiometry("auto", evidence(sample=sample, dtype="float32"))


def test_small_integers_are_not_taken_for_reflectance() -> None:
    with pytest.raises(RadiometryError, match="nothing says what its int16 numbers mean"):
        decide_radiometry("auto", evidence(sample=((0, 1, 1), (1, 2, 0)), dtype="int16"))


def test_an_unknown_choice_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="DN"):
        decide_radiometry("DN", evidence())


def test_numbers_that_seem_to_carry_the_offset_raise_a_doubt_but_do_not_decide() -> None:
    shifted = evidence(sample=np.full((2, 2000), 1000) + np.arange(2000), path=BASELINE_2)
    decided = decide_radiometry("auto", shifted)
    assert decided.offset == (0.0, 0.0)
    assert any("--radiometry dn-1000" in text for text in decided.warnings)


def test_products_whose_numbers_are_defined_raise_no_doubt_about_an_offset_of_sentinel_2() -> None:
    bright = np.full((2, 2000), 1000) + np.arange(2000)
    defined = Claim("product", "as defined", (1e-4, 1e-4), (0.0, 0.0))
    assert decide_radiometry("auto", replace(evidence(sample=bright), stated=defined)).warnings == ()
    same = replace(evidence(sample=bright), stated=replace(defined, rung="metadata"))
    assert any("+1000" in text for text in decide_radiometry("auto", same).warnings)


def test_a_sample_without_a_valid_pixel_is_told() -> None:
    decided = decide_radiometry("dn", evidence(sample=((), ())))
    assert any(text.startswith("no valid pixel") for text in decided.warnings)


def test_numbers_that_seem_to_have_lost_the_offset_raise_a_doubt_but_do_not_decide() -> None:
    decided = decide_radiometry("auto", evidence(sample=np.full((2, 2000), 200), path=BASELINE_5))
    assert decided.offset == pytest.approx((-0.1, -0.1))
    assert any("--radiometry dn" in text for text in decided.warnings)


@pytest.mark.parametrize(("choice", "dtype"), [("reflectance", "uint16"), ("dn", "float32")])
def test_reflectances_that_look_wrong_raise_a_doubt(choice: str, dtype: str) -> None:
    sample = np.full((2, 2000), 2500 if dtype == "uint16" else 0.25)
    assert any(
        "look wrong" in text for text in decide_radiometry(choice, evidence(sample=sample, dtype=dtype)).warnings
    )


def test_an_ordinary_scene_raises_no_doubt() -> None:
    sample = np.stack([np.linspace(150, 9000, 2000), np.linspace(40, 6000, 2000)])
    assert decide_radiometry("dn", evidence(sample=sample)).warnings == ()


def test_overridden_tags_are_mentioned() -> None:
    decided = decide_radiometry("dn", evidence(scales=(2.75e-5,) * 2, offsets=(-0.2, -0.2)))
    assert any("overrides" in text for text in decided.warnings)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_eight_bit_images_are_refused_unless_tags_scale_them(dtype: str) -> None:
    with pytest.raises(InputError, match="8-bit rendered image"):
        refuse_rendered(PLAIN, (dtype,) * 3, has_tags=False)
    refuse_rendered(PLAIN, (dtype,) * 3, has_tags=True)
    refuse_rendered(PLAIN, ("uint16",) * 3, has_tags=False)


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="complex"):
        refuse_rendered(PLAIN, ("complex64",), has_tags=True)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_reflectance_is_float32_and_exact_to_single_precision(dtype: str) -> None:
    rng = np.random.default_rng(3)
    numbers = rng.integers(0, 20_000, (5, 2, 4, 6)).astype(dtype)
    decided = decide_radiometry("auto", evidence(scales=(2.75e-5, 1e-4), offsets=(-0.2, -0.1)))
    found = decided.apply(numbers)
    right = (
        numbers.astype(np.float64) * np.array([2.75e-5, 1e-4])[:, None, None] + np.array([-0.2, -0.1])[:, None, None]
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, right, atol=2e-7)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_tensors_of_stored_numbers_give_the_same_bits(dtype: str) -> None:
    rng = np.random.default_rng(4)
    numbers = rng.uniform(0, 250 if dtype == "uint8" else 60_000, (2, 40, 60)).astype(dtype)
    if dtype == "float64":
        numbers[:, 0, :3] = np.nan, -1.7e308, np.inf
    decided = decide_radiometry("auto", evidence(scales=(2.75e-5, 1e-4), offsets=(-0.2, -0.1)))
    arrays = Arrays(torch)
    found = arrays.fetch(decided.apply(arrays.put(numbers), arrays))
    assert found.dtype == np.float32
    assert found.tobytes() == decided.apply(numbers).tobytes()


def test_huge_nodata_numbers_make_no_noise() -> None:
    decided = decide_radiometry("dn", evidence())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decided.apply(np.array([[[-1.7e308]], [[np.nan]]]))


def test_the_reason_names_the_product_but_no_folder() -> None:
    reason = decide_radiometry("auto", evidence(path=BASELINE_5)).reason
    assert "05.09" in reason
    assert "/data" not in reason


def test_metadata_that_say_otherwise_than_the_user_are_mentioned() -> None:
    stated = Claim("metadata", "0.0001 x (DN - 1000), as X says", (1e-4,) * 2, (-0.1,) * 2)
    decided = decide_radiometry("dn", evidence(stated=stated))
    assert decided.rung == "option"
    assert any("overrides what the scene says: 0.0001 x (DN - 1000), as X says" in text for text in decided.warnings)
    assert not any("overrides" in text for text in decide_radiometry("dn-1000", evidence(stated=stated)).warnings)
