"""Overlapping logits to rows: identity, constants, independence, nodata, exact confidence."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from copy import deepcopy

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg_cli.arrays import NUMPY, Arrays
from geoseg_cli.catalog import legends
from geoseg_cli.mosaic import Blend, Mosaic
from geoseg_cli.mosaic.seams import Seams
from geoseg_cli.rows import Extra, Rows
from geoseg_cli.tiles import Axis, Tile, TilePlan

LEGEND = legends()["cloudsen12"]
BLENDS = st.sampled_from(["hann", "linear", "trim"])

Answer = tuple[Tile, npt.NDArray[np.float32], npt.NDArray[np.bool_]]


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
    rows = blend_labels(ones, ones.astype(bool), plan, blend, extras=("confidence", "probabilities"))
    expected = np.exp(4) / (np.exp(4) + 3)
    assert (joined(rows) == 1).all()
    np.testing.assert_allclose(joined(rows, "confidence"), expected, rtol=1e-6)
    np.testing.assert_allclose(joined(rows, "probabilities").sum(axis=0), 1, rtol=1e-6)


def test_blending_is_the_weighted_mean_of_probabilities() -> None:
    """Two tiles that disagree, checked against a plain sum over the whole scene in float64."""
    plan = TilePlan.cover(8, 24, 16, 8)
    rng = np.random.default_rng(3)
    logits = [rng.normal(size=(4, 8, 16)).astype(np.float32) for _ in plan]
    mosaic = Mosaic(plan, LEGEND, "linear", extras=("probabilities",))
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
    seams = Seams(Axis.spread(100, 32, overlap, 1), blend)
    assert all((weights > 0).all() for weights in seams.weights)


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    """Tiles that cover an axis, with any starts: evenly spread or not, three above each other or touching."""
    tile, overlap = draw(st.integers(1, 24)), draw(st.integers(0, 12))
    starts = [0]
    for step in draw(st.lists(st.integers(1, tile), max_size=4)):
        starts.append(starts[-1] + step)
    size = starts[-1] + (tile if len(starts) > 1 else draw(st.integers(1, tile)))
    return Axis(size, tile, min(overlap, tile // 2), tuple(starts))


def expected_weights(axis: Axis, index: int, blend: Blend) -> npt.NDArray[np.float64]:
    """What the documentation says, pixel by pixel in float64."""
    start, length = axis.extent(index)
    weights = np.ones(length)
    for pixel in range(length):
        if blend == "trim":
            first, stop = axis.core(index)
            weights[pixel] = first <= start + pixel < stop
            continue
        inner = []
        if index > 0:
            inner.append(pixel)
        if index < len(axis.starts) - 1:
            inner.append(length - 1 - pixel)
        for distance in inner:
            if distance < axis.overlap:
                step = (distance + 0.5) / axis.overlap
                weights[pixel] *= step if blend == "linear" else (1 - np.cos(np.pi * step)) / 2
    return weights


def plain_blend(
    plan: TilePlan, blend: Blend, tiles: list[Answer], temperature: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums of weighted probabilities and of weights over the whole scene, in float64."""
    sums, weights = np.zeros((4, plan.rows.size, plan.cols.size)), np.zeros((plan.rows.size, plan.cols.size))
    for tile, padded, padded_valid in tiles:
        logits = padded[:, : tile.window.height, : tile.window.width].astype(np.float64)
        valid = padded_valid[: tile.window.height, : tile.window.width] & np.isfinite(logits).all(axis=0)
        scaled = np.exp(np.where(np.isfinite(logits), logits, 0) / temperature)
        weight = np.outer(
            expected_weights(plan.rows, tile.row_index, blend), expected_weights(plan.cols, tile.col_index, blend)
        )
        sums[:, tile.window.rows, tile.window.cols] += scaled / scaled.sum(axis=0) * weight * valid
        weights[tile.window.rows, tile.window.cols] += weight * valid
    return sums, weights


def random_answers(plan: TilePlan, seed: int, skipped: float = 0.2, broken: float = 0.01) -> list[Answer]:
    """Logits that differ from tile to tile; some tiles never come, some pixels are invalid, some not finite."""
    rng = np.random.default_rng(seed)
    valid = rng.random((plan.rows.size, plan.cols.size)) > 0.1
    answers = []
    for tile in plan:
        logits = rng.normal(0, 3, (4, plan.tile_height, plan.tile_width)).astype(np.float32)
        for number in (np.nan, np.inf, -np.inf):
            logits[rng.random(logits.shape) < broken / 12] = number
        if rng.random() >= skipped:
            answers.append((tile, logits, cut(valid, plan, tile)))
    return answers


def stitch(mosaic: Mosaic, answers: list[Answer]) -> list[Rows]:
    rows = [row for answer in answers for row in mosaic.add(*answer)]
    return [*rows, *mosaic.finish()]


BOTH: tuple[Extra, ...] = ("confidence", "probabilities")
TORCH = Arrays(torch)


@settings(deadline=None, max_examples=50)
@given(axes(), axes(), BLENDS, st.sampled_from([1.0, 0.4, 2.5]), st.integers(0, 999), st.sampled_from([NUMPY, TORCH]))
def test_any_plan_gives_the_largest_weighted_sum_of_probabilities(
    rows: Axis, cols: Axis, blend: Blend, temperature: float, seed: int, arrays: Arrays
) -> None:
    plan = TilePlan(rows, cols)
    answers = random_answers(plan, seed)
    sums, weights = plain_blend(plan, blend, answers, temperature)
    made = stitch(Mosaic(plan, LEGEND, blend, temperature, BOTH, arrays), answers)
    answered = weights > 0
    np.testing.assert_array_equal(joined(made, "valid"), answered)
    expected = np.divide(sums, weights, out=np.zeros_like(sums), where=answered)
    np.testing.assert_allclose(joined(made, "probabilities"), expected, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(joined(made, "confidence"), expected.max(axis=0), rtol=2e-5)
    second, first = np.sort(expected, axis=0)[-2:]
    clear = answered & (first - second > 1e-5)
    labels = joined(made)
    np.testing.assert_array_equal(labels[clear], expected.argmax(axis=0)[clear])
    np.testing.assert_array_equal(labels[~answered], 255)


@settings(deadline=None, max_examples=50)
@given(axes(), axes(), BLENDS, st.integers(0, 999), st.integers(1, 40))
def test_labels_do_not_depend_on_what_else_is_asked_for_nor_on_the_size_of_pieces(
    rows: Axis, cols: Axis, blend: Blend, seed: int, piece_px: int
) -> None:
    plan = TilePlan(rows, cols)
    answers = random_answers(plan, seed)
    plain = stitch(Mosaic(plan, LEGEND, blend), answers)
    assert all(part.confidence is None and part.probabilities is None for part in plain)
    for extras in ((), ("confidence",), ("probabilities",), BOTH):
        made = stitch(Mosaic(plan, LEGEND, blend, 1.0, extras, Arrays(piece_px=piece_px)), answers)
        assert joined(made).tobytes() == joined(plain).tobytes()
        assert {name for name in BOTH if getattr(made[0], name) is not None} == set(extras)
    whole = stitch(Mosaic(plan, LEGEND, blend, 1.0, BOTH), answers)
    assert joined(made, "probabilities").tobytes() == joined(whole, "probabilities").tobytes()
    assert joined(made, "confidence").tobytes() == joined(whole, "confidence").tobytes()


@given(BLENDS, st.integers(0, 99))
def test_turned_logits_are_blended_as_if_they_were_stored_so(blend: Blend, seed: int) -> None:
    plan = TilePlan.cover(70, 50, 32, 8)
    answers = random_answers(plan, seed)
    turned = [
        (tile, np.ascontiguousarray(logits[:, ::-1, ::-1].swapaxes(1, 2)).swapaxes(1, 2)[:, ::-1, ::-1], valid)
        for tile, logits, valid in answers
    ]
    made, expected = (stitch(Mosaic(plan, LEGEND, blend), one) for one in (turned, answers))
    assert joined(made).tobytes() == joined(expected).tobytes()


def test_rows_keep_their_numbers_while_later_tiles_come() -> None:
    plan = TilePlan.cover(200, 40, 32, 8)
    mosaic = Mosaic(plan, LEGEND, "hann", extras=BOTH)
    kept, copies = [], []
    for answer in random_answers(plan, 0):
        for rows in mosaic.add(*answer):
            kept.append(rows)
            copies.append(deepcopy(rows))
    assert len(kept) > 3
    for name in ("labels", "confidence", "probabilities", "valid"):
        np.testing.assert_array_equal(joined(kept, name), joined(copies, name))


def test_equal_logits_give_the_first_class() -> None:
    plan = TilePlan.cover(40, 40, 32, 8)
    zeros = np.zeros((4, 32, 32), np.float32)
    rows = stitch(Mosaic(plan, LEGEND, "hann"), [(tile, zeros, np.ones((32, 32), bool)) for tile in plan])
    assert (joined(rows) == LEGEND.values[0]).all()


def peak_bytes(height: int, extras: tuple[Extra, ...]) -> int:
    """Most memory that a mosaic of this height takes at once, its logits left out."""
    plan = TilePlan.cover(height, 512, 64, 16)
    logits, valid = np.ones((4, 64, 64), np.float32), np.ones((64, 64), bool)
    tracemalloc.start()
    mosaic = Mosaic(plan, LEGEND, "hann", extras=extras, arrays=Arrays(piece_px=1024))
    for tile in plan:
        for _ in mosaic.add(tile, logits, valid):
            pass
    for _ in mosaic.finish():
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("extras", [(), BOTH], ids=["labels", "all"])
def test_memory_is_some_tile_heights_of_rows_whatever_the_height_of_the_scene(extras: tuple[Extra, ...]) -> None:
    peak_bytes(64, extras)  # what is loaded once
    low, high = peak_bytes(640, extras), peak_bytes(3200, extras)
    assert high - low < 64 * (3200 - 640)  # the plan's integers and weights; a row of labels alone takes 512 bytes
    assert low < 512 * 64 * 4 * (17 if extras else 5.5)  # strips of one float32 per pixel


def test_rows_come_as_soon_as_no_later_tile_touches_them() -> None:
    plan = TilePlan.cover(96, 32, 32, 0)
    mosaic = Mosaic(plan, LEGEND, "hann")
    zeros, valid = np.zeros((32, 32), int), np.ones((32, 32), bool)
    counts = [len(list(mosaic.add(tile, one_hot(zeros, plan), valid))) for tile in plan]
    assert counts == [1, 1, 0], "the last ones come with finish()"


@pytest.mark.parametrize("extras", [(), BOTH], ids=["labels", "all"])
def test_non_finite_logits_become_nodata_and_are_counted(extras: tuple[Extra, ...]) -> None:
    plan = TilePlan.cover(16, 16, 16, 0)
    mosaic = Mosaic(plan, LEGEND, "hann", extras=extras)
    logits = one_hot(np.full((16, 16), 2), plan)
    logits[1, 3, 4], logits[2, 5, 6], logits[0, 7, 8] = np.nan, np.inf, -np.inf
    logits[:, 9, 9] = np.nan
    valid = np.ones((16, 16), bool)
    valid[9, 9] = False
    (tile,) = plan
    rows = stitch(mosaic, [(tile, logits, valid)])
    labels = joined(rows)
    assert mosaic.not_finite == 3
    assert labels[3, 4] == labels[5, 6] == labels[7, 8] == labels[9, 9] == 255
    assert (labels == 2).sum() == joined(rows, "valid").sum() == 252
    if extras:
        assert joined(rows, "confidence")[3, 4] == 0
        assert (joined(rows, "probabilities")[:, 5, 6] == 0).all()


@pytest.mark.parametrize(("blend", "lost"), [("hann", 1), ("trim", 0)])
def test_a_pixel_that_one_of_two_tiles_cannot_answer_gets_the_answer_of_the_other(blend: Blend, lost: int) -> None:
    plan = TilePlan.cover(16, 24, 16, 8)
    left, right = plan
    broken, sound = one_hot(np.full((16, 16), 2), plan), one_hot(np.full((16, 16), 1), plan)
    broken[0, 5, 15] = np.nan  # nearer to the middle of the right tile
    valid = np.ones((16, 16), bool)
    mosaic = Mosaic(plan, LEGEND, blend)
    labels = joined(stitch(mosaic, [(left, broken, valid), (right, sound, valid)]))
    assert mosaic.not_finite == lost
    assert labels[5, 15] == 1
    assert (labels != 255).all()


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
        mosaic = Mosaic(plan, LEGEND, "hann", temperature, ("confidence", "probabilities"))
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


def plain_votes(
    plan: TilePlan, answers: list[Answer], labels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float64], int, int]:
    """Share of dissenting tiles, shared and disputed pixels: tile by tile and pixel by pixel, from the definition."""
    named: dict[tuple[int, int], list[int]] = {}
    for tile, logits, valid in answers:
        for row in range(tile.window.height):
            for col in range(tile.window.width):
                if valid[row, col] and np.isfinite(logits[:, row, col]).all():
                    place = tile.window.row + row, tile.window.col + col
                    named.setdefault(place, []).append(LEGEND.values[int(logits[:, row, col].argmax())])
    shares = np.zeros(labels.shape)
    for place, classes in named.items():
        shares[place] = sum(one != labels[place] for one in classes) / len(classes)
    several = [set(classes) for classes in named.values() if len(classes) > 1]
    return shares, len(several), sum(len(classes) > 1 for classes in several)


@settings(deadline=None, max_examples=50)
@given(
    axes(), axes(), st.sampled_from(["hann", "linear"]), st.integers(0, 999), st.integers(1, 40),
    st.sampled_from([np, torch]),
)  # fmt: skip
def test_seams_are_the_tiles_that_named_another_class(
    rows: Axis, cols: Axis, blend: Blend, seed: int, piece_px: int, module: object
) -> None:
    plan = TilePlan(rows, cols)
    answers = random_answers(plan, seed)
    mosaic = Mosaic(plan, LEGEND, blend, 1.0, ("seams",), Arrays(module, piece_px=piece_px))
    made = stitch(mosaic, answers)
    labels = joined(made)
    assert labels.tobytes() == joined(stitch(Mosaic(plan, LEGEND, blend, 1.0, (), mosaic._arrays), answers)).tobytes()
    expected, shared, disputed = plain_votes(plan, answers, labels)
    np.testing.assert_allclose(joined(made, "seams"), expected, atol=1e-6)
    assert (mosaic.shared, mosaic.disputed) == (shared, disputed)


def test_tiles_that_agree_have_no_seams_but_shared_pixels() -> None:
    plan = TilePlan.cover(40, 56, 32, 8)
    logits = one_hot(np.ones((32, 32), int), plan)
    mosaic = Mosaic(plan, LEGEND, "hann", extras=("seams",))
    rows = stitch(mosaic, [(tile, logits, np.ones((32, 32), bool)) for tile in plan])
    assert not joined(rows, "seams").any()
    # Rows 8 to 31 lie in both rows of tiles, columns 24 to 31 in both columns.
    assert (mosaic.shared, mosaic.disputed) == (24 * 56 + 8 * 40 - 24 * 8, 0)


def test_seams_are_not_counted_unless_asked_for() -> None:
    plan = TilePlan.cover(40, 56, 32, 8)
    mosaic = Mosaic(plan, LEGEND, "hann", extras=BOTH)
    rows = stitch(mosaic, random_answers(plan, 1))
    assert all(part.seams is None for part in rows)
    assert (mosaic.shared, mosaic.disputed) == (0, 0)
