"""The temperature that a training leaves in its bundle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geoseg_cli.training.augment import Sample
from geoseg_cli.training.confidence import fit_confidence

CLASSES = 3


class Shout(nn.Module):
    """Gives its input planes as logits, ``factor`` times as sure as they should be."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def drawn_samples(count: int = 6, side: int = 48) -> list[Sample]:
    """Samples whose class is drawn with the very probabilities that softmax gives their pixels."""
    rng = np.random.default_rng(3)
    samples = []
    for _ in range(count):
        pixels = rng.normal(0, 1.5, (CLASSES, side, side)).astype(np.float32)
        shares = np.exp(pixels) / np.exp(pixels).sum(axis=0)
        number = (rng.random((side, side)) > shares.cumsum(axis=0)).sum(axis=0).clip(0, CLASSES - 1)
        samples.append(Sample(pixels, (1 << number).astype(np.uint8), 1.0))
    return samples


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_network_that_is_too_sure_by_a_factor_gets_it_as_its_temperature(factor: float) -> None:
    found = fit_confidence(Shout(factor), drawn_samples(), "drawn pixels")
    assert found is not None
    assert found.temperature == pytest.approx(factor, rel=0.06)
    assert found.places == 6
    assert found.pixels == 6 * 2000
    assert found.nll[1] <= found.nll[0]


def test_pixels_of_several_possible_classes_are_left_out() -> None:
    samples = drawn_samples(1)
    target = samples[0].target.copy()
    target[:, 10:] = 0b011
    found = fit_confidence(Shout(1.0), [Sample(samples[0].pixels, target, 1.0)], "drawn pixels")
    assert found is not None
    assert found.pixels == 48 * 10


@pytest.mark.parametrize("is_right", [True, False])
def test_a_network_that_is_always_right_or_knows_no_pixel_gets_none(is_right: bool) -> None:
    pixels = torch.eye(CLASSES)[:, :, None].numpy().copy()  # class c at (c, 0)
    target = np.array([[1], [2], [4]], np.uint8) if is_right else np.zeros((3, 1), np.uint8)
    assert fit_confidence(Shout(1.0), [Sample(pixels, target, 1.0)], "three pixels") is None
