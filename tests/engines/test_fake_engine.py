from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.engines.fake_engine import ConstantEngine, FakeEngine, IdentityEngine


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_class_of_the_identity_engine_is_the_number_in_channel_0(n: int, k: int, h: int, w: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(0, k, (n, h, w))
    pixels = np.stack([numbers, random.integers(-9, 9, (n, h, w))], axis=1).astype(np.float32)
    logits = IdentityEngine(k).run(pixels)
    assert logits.dtype == np.float32
    assert (logits.argmax(1) == numbers).all()
    assert (logits.sum(1) == 1).all()


def test_a_number_that_is_no_class_gets_no_logit() -> None:
    assert not IdentityEngine(3).run(np.full((1, 1, 2, 2), 7, np.float32)).any()


def test_the_constant_engine_repeats_its_logits() -> None:
    logits = ConstantEngine([0.5, -2, 3]).run(np.zeros((2, 4, 5, 6), np.float32))
    assert logits.shape == (2, 3, 5, 6)
    for k, value in enumerate((0.5, -2, 3)):
        assert (logits[:, k] == value).all()


def test_batches_are_counted_and_closing_is_remembered() -> None:
    engine = IdentityEngine(2)
    for tiles in (3, 1, 2):
        engine.run(np.zeros((tiles, 1, 4, 4), np.float32))
    assert engine.batches == [3, 1, 2]
    assert not engine.closed
    engine.close()
    assert engine.closed
    with pytest.raises(AssertionError):
        engine.run(np.zeros((1, 1, 4, 4), np.float32))


def test_a_function_of_the_wrong_shape_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        FakeEngine(3, lambda pixels: pixels).run(np.zeros((1, 1, 4, 4), np.float32))
