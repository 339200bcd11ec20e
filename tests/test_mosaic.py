"""Overlapping logits to rows: identity, constants, independence, nodata, exact confidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.catalog import legends
from geoseg_cli.mosaic import Blend, Mosaic
from geoseg_cli.rows import Rows
from geoseg_cli.tiles import Tile, TilePlan

LEGEND = legends()["cloudsen12"]
BLENDS = st.sampled_from(["hann", "linear", "trim"])


def one_hot(labels: npt.NDArray[np.int_], plan: TilePlan) -> npt.NDArray[np.float32]:
    padded = np.zeros((plan.tile_height, plan.tile_width), int)
    padded[: labels.shape[0], : labels.shape[1]] = labels
    return (padded == np.arange(4)[:, None, None]).astype(np.float32) * 4


def cut(valid: npt.NDArray[np.bool_], plan: TilePlan, tile: Tile) -> npt.NDArray[np.bool_]:
    padded = np.zeros((plan.tile_height, plan.tile_width), bool)
    padded[: tile.window.height, : tile.window.width] = valid[tile.window.rows, tile.window.cols]
    return padded


def blend_labels(
    labels: npt.NDArray[np.int_],
    valid: npt.NDArray[np.bool_],
    plan: TilePlan,
    blend: Blend,
    **options: object,
) -> list[Rows]:
    mosaic = Mosaic(plan, LEGEND, blend, **options)  # type: ignore[arg-type]

    def rows() -> Iterator[Rows]:
        for tile in plan:
            shown = cut(valid, plan, tile)
            if shown.any():
                yield from mosaic.add(tile, one_hot(labels[tile.window.rows, tile.window.cols], plan), shown)
        yield from mosaic.finish()

    return list(rows())


def joined(rows: Iterable[Rows], name: str = "labels") -> npt.NDArray[np.uint8]:
    parts = list(rows)
    stops = np.cumsum([part.labels.shape[0] for part in parts])
    assert [part.row for part in parts] == [0, *stops[:-1]]
    return np.concatenate([getattr(part, name) for part in parts], axis=-2)


@given(
    st.integers(1, 120),
    st.integers(1, 70),
    st.sampled_from([8, 32]),
    st.integers(0, 4),
    BLENDS,
    st.integers(0, 99),
)
def test_tiles_that_agree_give_back_the_scene_and_nodata_exactly(
    height: int, width: int, tile: int, overlap: int, blend: Blend, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (height, width))
    valid = rng.random((height, width)) > rng.choice([0.0, 0.3, 0.97])
    plan = TilePlan.cover(height, width, tile, overlap, 8)
    rows = blend_labels(labels, valid, plan, blend)
    np.testing.assert_array_equal(joined(rows), np.where(valid, labels, 255))
    np.testing.assert_array_equal(joined(rows, "valid"), valid)


@pytest.mark.parametrize("blend", ["hann", "linear", "trim"])
def test_constant_logits_give_a_constant_mask_with_the_softmax_as_confidence(blend: Blend) -> None:
    plan = TilePlan.cover(100, 130, 32, 12)
    ones = np.ones((100, 130), int)
    rows = blend_labels(ones, ones.astype(bool), plan, blend, with_probabilities=True)
    expected = np.exp(4) / (np.exp(4) + 3)
    assert (joined(rows) == 1).all()
    np.testing.assert_allclose(joined(rows, "confidence"), expected, rtol=1e-6)
    np.testing.assert_allclose(joined(rows, "probabilities").sum(axis=0), 1, rtol=1e-6)


def test_blending_is_the_weighted_mean_of_probabilities() -> None:
    """Two tiles that disagree, checked against a plain sum over the whole scene in float64."""
    plan = TilePlan.cover(8, 24, 16, 8)
    rng = np.random.default_rng(3)
    logits = [rng.normal(size=(4, 8, 16)).astype(np.float32) for _ in plan]
    mosaic = Mosaic(plan, LEGEND, "linear", with_probabilities=True)
    valid = np.ones((8, 16), bool)
    rows = [row for tile, x in zip(plan, logits, strict=True) for row in mosaic.add(tile, x, valid)]
    rows += mosaic.finish()
    sums, weights = np.zeros((4, 8, 24)), np.zeros((8, 24))
    ramp = (np.arange(8) + 0.5) / 8
    for tile, x in zip(plan, logits, strict=True):
        side = np.ones(16)
        if tile.col_index == 0:
            side[8:] = ramp[::-1]
        else:
            side[:8] = ramp
        p = np.exp(x.astype(np.float64))
        sums[:, :, tile.window.cols] += p / p.sum(axis=0) * side
        weights[:, tile.window.cols] += side
    np.testing.assert_allclose(joined(rows, "probabilities"), sums / weights, rtol=1e-5)


@given(st.integers(0, 16), st.sampled_from(["hann", "linear"]))
def test_weights_of_blends_are_strictly_positive(overlap: int, blend: Blend) -> None:
    plan = TilePlan.cover(100, 100, 32, overlap)
    mosaic = Mosaic(plan, LEGEND, blend)
    assert all((weights > 0).all() for weights in (*mosaic._row_weights, *mosaic._col_weights))


def test_memory_is_one_tile_height_of_rows_whatever_the_height_of_the_scene() -> None:
    low, high = (Mosaic(TilePlan.cover(height, 64, 32, 8), LEGEND, "hann") for height in (64, 100_000))
    assert low._sums.nbytes == high._sums.nbytes == 4 * 32 * 64 * 4


def test_rows_come_as_soon_as_no_later_tile_touches_them() -> None:
    plan = TilePlan.cover(96, 32, 32, 0)
    mosaic = Mosaic(plan, LEGEND, "hann")
    zeros, valid = np.zeros((32, 32), int), np.ones((32, 32), bool)
    counts = [len(list(mosaic.add(tile, one_hot(zeros, plan), valid))) for tile in plan]
    assert counts == [0, 1, 1]


def test_non_finite_logits_become_nodata_and_are_counted() -> None:
    plan = TilePlan.cover(16, 16, 16, 0)
    mosaic = Mosaic(plan, LEGEND, "hann")
    logits = one_hot(np.full((16, 16), 2), plan)
    logits[1, 3, 4] = np.nan
    logits[2, 5, 6] = np.inf
    (tile,) = plan
    rows = [*mosaic.add(tile, logits, np.ones((16, 16), bool)), *mosaic.finish()]
    labels = joined(rows)
    assert mosaic.not_finite == 2
    assert labels[3, 4] == labels[5, 6] == 255
    assert (labels == 2).sum() == 254


def test_labels_are_the_legends_values_not_the_channel_numbers() -> None:
    legend = legends()["esa-worldcover"].subset([80, 10, 50, 30])
    plan = TilePlan.cover(8, 8, 8, 0)
    mosaic = Mosaic(plan, legend, "trim")
    (tile,) = plan
    numbers = np.arange(64).reshape(8, 8) % 4
    rows = [*mosaic.add(tile, one_hot(numbers, plan), np.ones((8, 8), bool)), *mosaic.finish()]
    np.testing.assert_array_equal(joined(rows), np.array([80, 10, 50, 30])[numbers])


@given(st.floats(0.1, 10), st.integers(0, 99))
def test_a_temperature_divides_the_logits_and_keeps_the_labels_of_a_tile(temperature: float, seed: int) -> None:
    plan = TilePlan.cover(8, 8, 8, 0)
    logits = np.random.default_rng(seed).normal(0, 3, (4, 8, 8)).round(2).astype(np.float32)

    def made(temperature: float) -> Rows:
        mosaic = Mosaic(plan, LEGEND, "hann", with_probabilities=True, temperature=temperature)
        (tile,) = plan
        assert not list(mosaic.add(tile, logits, np.ones((8, 8), bool)))
        (rows,) = mosaic.finish()
        return rows

    scaled = np.exp(logits.astype(np.float64) / temperature)
    expected = scaled / scaled.sum(axis=0)
    rows = made(temperature)
    assert rows.probabilities is not None
    np.testing.assert_allclose(rows.probabilities, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(rows.confidence, expected.max(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(rows.labels, made(1.0).labels)
    np.testing.assert_array_equal(rows.labels, logits.argmax(axis=0))
