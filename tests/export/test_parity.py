"""The comparison itself: what it measures, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from geoseg_cli.errors import ModelError
from geoseg_cli.export.parity import Parity, Sample, Shapes, compare, require_agreement, spread_tiles, summarise
from tests.export.toys import draw

WANTED = draw(2, 4, 8, 8)
SAMPLES = [Sample(draw(2, 3, 8, 8, seed=2), WANTED)]


@pytest.mark.parametrize("multiple", [1, 4, 32, 48])
def test_no_shape_that_is_checked_shares_a_free_axis_with_the_traced_one(multiple: int) -> None:
    shapes = Shapes.choose(5, multiple)
    assert len(shapes.checked) == 3
    assert 1 not in shapes.traced
    for shape in (shapes.traced, *shapes.checked):
        assert shape[1] == 5
        assert shape[2] % multiple == shape[3] % multiple == 0
    for shape in shapes.checked:
        assert all(shape[axis] != shapes.traced[axis] for axis in (0, 2, 3))


def test_a_network_of_any_size_is_checked_at_an_odd_size() -> None:
    assert any(height % 2 and width % 2 for _, _, height, width in Shapes.choose(3, 1).checked)


def test_shares_and_differences_are_those_of_the_pixels() -> None:
    found = WANTED.copy()
    found[0, :, 0, 0] = -WANTED[0, :, 0, 0]  # the largest logit becomes the smallest
    parity = compare(lambda pixels: found, SAMPLES, "fp16")
    label = int(WANTED[0, :, 0, 0].argmax())
    of_class = int((WANTED.argmax(1) == label).sum())
    assert parity.pixels == sum(parity.class_pixels) == 128
    assert parity.labels == pytest.approx(127 / 128)
    assert parity.class_pixels[label] == of_class
    assert parity.classes[label] == pytest.approx((of_class - 1) / of_class)
    assert parity.largest_difference == pytest.approx(2 * np.abs(WANTED[0, :, 0, 0]).max())


def test_a_class_that_the_network_never_gives_has_no_share() -> None:
    wanted = np.zeros((1, 3, 4, 4), np.float32)
    wanted[:, 1] = 1
    parity = compare(lambda pixels: wanted, [Sample(draw(1, 3, 4, 4), wanted)])
    assert parity.classes == (None, 1.0, None)
    assert parity.class_pixels == (0, 16, 0)


@pytest.mark.parametrize("share", [1.01e-4, 0.5])
def test_in_fp32_logits_must_agree_in_proportion_to_the_largest(share: float) -> None:
    off = np.float32(np.abs(WANTED).max() * share)
    with pytest.raises(ModelError, match="logits differ by up to"):
        compare(lambda pixels: WANTED + off, SAMPLES)
    assert compare(lambda pixels: WANTED + off, SAMPLES, "fp16").labels == 1.0


def test_in_fp32_a_difference_of_rounding_passes() -> None:
    off = np.float32(np.abs(WANTED).max() * 0.9e-4)
    assert compare(lambda pixels: WANTED + off, SAMPLES).labels == 1.0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_never_pass(precision: str, number: float) -> None:
    found = WANTED.copy()
    found[0, 0, 0, :3] = number
    with pytest.raises(ModelError, match="3 logits are not finite"):
        compare(lambda pixels: found, SAMPLES, precision)


def test_a_network_that_answers_nan_itself_does_not_pass() -> None:
    wanted = np.full_like(WANTED, np.nan)
    with pytest.raises(ModelError, match="differ by up to nan"):
        compare(lambda pixels: WANTED, [Sample(SAMPLES[0].pixels, wanted)])


def test_another_shape_and_a_failed_run_are_named_with_the_pixels() -> None:
    with pytest.raises(ModelError, match=r"pixels \(2, 3, 8, 8\): logits are \(1, 4, 8, 8\), not \(2, 4, 8, 8\)"):
        compare(lambda pixels: WANTED[:1], SAMPLES)

    def fail(pixels: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such axis\nand a page more")

    with pytest.raises(ModelError, match=r"no such axis$"):
        compare(fail, SAMPLES)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_too_many_changed_labels_are_refused_with_the_number_that_would_be_accepted(precision: str) -> None:
    parity = Parity((), 1000, 0.98765, (), (), 0.1)
    with pytest.raises(ModelError, match=r"98\.765% of 1000 pixels") as caught:
        require_agreement(parity, precision, 0.99)
    assert "--accept-agreement 0.987" in caught.value.hint
    require_agreement(parity, precision, 0.987)


def test_tiles_fill_a_larger_batch_by_mirroring() -> None:
    tiles = [np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.full((1, 2, 3), 9, np.float32)]
    batch = spread_tiles(tiles, (3, 1, 4, 2))
    assert batch.shape == (3, 1, 4, 2)
    assert batch[0, 0].tolist() == batch[2, 0].tolist() == [[0, 1], [3, 4], [3, 4], [0, 1]]
    assert (batch[1] == 9).all()


def test_an_error_of_a_page_becomes_a_sentence() -> None:
    assert summarise(RuntimeError("one\ntwo")) == "one"
    assert summarise(RuntimeError("\n found:\n - two\n - three")) == "found: two"
    assert summarise(KeyError()) == "KeyError"
