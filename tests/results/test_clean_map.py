"""The order of all cleaning, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from geoseg_cli.catalog import find_mapping, legends
from geoseg_cli.errors import UsageError
from geoseg_cli.results.clean_map import Cleaning, cleaned
from tests.results.test_cleaning import plain_majority
from tests.results.test_sieve import assembled, plain_sieve, source_of

CLOUDS = legends()["cloudsen12"]


def test_without_options_nothing_changes() -> None:
    labels = np.array([[0, 1], [255, 3]], np.uint8)
    source, legend = cleaned(source_of(labels, 1), 2, CLOUDS, Cleaning())
    assert np.array_equal(assembled(source), labels)
    assert legend is CLOUDS


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_small_clouds_go_before_clouds_grow_and_the_schema_comes_last(seed: int, strip_px: int) -> None:
    labels = np.random.default_rng(seed).choice(np.array([0, 0, 0, 0, 1, 2, 3, 255], np.uint8), (20, 17))
    mapping = find_mapping("cloudsen12", "cloud-binary")
    cleaning = Cleaning(min_object_px=3, dilate_px=1, mapping=mapping)
    source, legend = cleaned(source_of(labels, strip_px), 20, CLOUDS, cleaning)
    parts, _ = ndimage.label(np.isin(labels, (1, 2)))
    cloud = (parts > 0) & (np.bincount(parts.ravel())[parts] >= 3)
    grown = ndimage.binary_dilation(cloud)
    expected = np.where(labels == 255, 255, grown.astype(np.uint8))
    assert np.array_equal(assembled(source), expected)
    assert legend.name == "cloud-binary"


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_land_cover_is_recoded_before_stray_pixels_and_small_parts_go(seed: int, strip_px: int) -> None:
    labels = np.random.default_rng(seed).choice(np.array([10, 30, 90, 70, 60, 255], np.uint8), (15, 20))
    mapping = find_mapping("esa-worldcover", "aras400k")
    cleaning = Cleaning(mapping=mapping, majority_px=3, sieve_px=4)
    source, _ = cleaned(source_of(labels, strip_px), 15, legends()["esa-worldcover"], cleaning)
    recoded = np.vectorize(mapping.table().__getitem__)(labels).astype(np.uint8)
    assert np.array_equal(assembled(source), plain_sieve(plain_majority(recoded, 1), 4))


@pytest.mark.parametrize(
    ("legend", "cleaning", "words"),
    [
        ("esa-worldcover", Cleaning(dilate_px=2), "for clouds"),
        ("esa-worldcover", Cleaning(min_object_px=2), "for clouds"),
        ("cloudsen12", Cleaning(min_object_px=0), "--min-size 0"),
        ("cloudsen12", Cleaning(sieve_px=-1), "--sieve -1"),
        ("cloudsen12", Cleaning(majority_px=2), "majority"),
        ("cloudsen12", Cleaning(dilate_px=-1), "dilation"),
        ("esa-worldcover", Cleaning(mapping=find_mapping("cloudsen12", "cloud-binary")), "does not fit"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_pixel_is_read(legend: str, cleaning: Cleaning, words: str) -> None:
    def never() -> None:
        pytest.fail("nothing must be read")

    with pytest.raises(UsageError, match=words):
        cleaned(never, 5, legends()[legend], cleaning)  # type: ignore[arg-type]
