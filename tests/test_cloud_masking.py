"""Land cover where the cloud mask is clear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.catalog import LandClass, Legend, legends
from geoseg_cli.cloud_masking import CloudMasking, MaskedRows
from geoseg_cli.errors import UsageError
from geoseg_cli.rows import Rows

LAND, CLOUDS = legends()["esa-worldcover"], legends()["cloudsen12"]


def pieces(values: list[int], valid: np.ndarray, heights: list[int], seed: int) -> Iterator[Rows]:
    """Random rows over a height, in pieces of these heights, again and again."""
    rng = np.random.default_rng(seed)
    labels = np.where(valid, rng.choice(values, valid.shape), 255).astype(np.uint8)
    confidence = np.where(valid, rng.random(valid.shape), 0).astype(np.float32)
    row = index = 0
    while row < len(valid):
        part = slice(row, row + heights[index % len(heights)])
        yield Rows(row, labels[part], confidence[part], None, valid[part])
        row, index = min(part.stop, len(valid)), index + 1


def whole(rows: Iterator[Rows]) -> Rows:
    parts = list(rows)
    assert [part.row for part in parts] == list(np.cumsum([0, *(len(part.labels) for part in parts)])[:-1])
    arrays = ([getattr(part, name) for part in parts] for name in ("labels", "confidence", "valid"))
    labels, confidence, valid = map(np.concatenate, arrays)
    return Rows(0, labels, confidence, None, valid)


@given(
    height=st.integers(1, 30),
    land_heights=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    cloud_heights=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_land_shows_where_clear_and_clouds_or_nothing_elsewhere_whatever_the_pieces(
    height: int, land_heights: list[int], cloud_heights: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    land_valid, cloud_valid = rng.random((height, 7)) > 0.2, rng.random((height, 7)) > 0.2

    def land() -> Iterator[Rows]:
        return pieces([10, 30, 80], land_valid, land_heights, seed)

    def clouds() -> Iterator[Rows]:
        return pieces([0, 1, 2, 3], cloud_valid, cloud_heights, seed + 1)

    below, above = whole(land()), whole(clouds())
    for hidden_as in ("nodata", "class"):
        masking = CloudMasking.of(LAND, CLOUDS, hidden_as)  # type: ignore[arg-type]
        masked = MaskedRows(land(), clouds(), masking)
        got = whole(masked)
        assert masked.hidden == ((below.labels != 255) & (above.labels != 0)).sum()
        for place in np.ndindex(height, 7):
            cloud = above.labels[place]
            if cloud == 0:
                expected, sure = below.labels[place], below.confidence[place]
            elif cloud == 255 or hidden_as == "nodata":
                expected, sure = 255, 0.0
            else:
                expected, sure = cloud, above.confidence[place]
            assert got.labels[place] == expected
            assert got.valid[place] == (expected != 255)
            assert got.confidence[place] == sure


def test_the_legend_of_the_masked_map_names_every_value() -> None:
    as_class = CloudMasking.of(LAND, CLOUDS, "class").legend
    assert as_class.values == (*LAND.values, 1, 2, 3)
    assert [one.name for one in as_class.classes[-3:]] == ["thick_cloud", "thin_cloud", "cloud_shadow"]
    assert CloudMasking.of(LAND, CLOUDS, "nodata").legend == LAND


def test_legends_that_share_a_value_cannot_be_joined() -> None:
    other = Legend("other", (LandClass(1, "forest", "Forest", "#00FF00"),))
    with pytest.raises(UsageError, match="other and cloudsen12 share 1"):
        CloudMasking.of(other, CLOUDS, "class")
    assert CloudMasking.of(other, CLOUDS, "nodata").legend == other


def test_a_legend_without_a_clear_class_masks_nothing() -> None:
    with pytest.raises(UsageError, match="no class called clear"):
        CloudMasking.of(LAND, replace(CLOUDS, classes=CLOUDS.classes[1:]), "nodata")
