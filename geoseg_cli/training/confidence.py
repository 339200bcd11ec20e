"""Makes the confidence of a network that was just trained mean the share of right pixels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import torch
from torch import nn

from geoseg_cli.bundle import ConfidenceCalibration
from geoseg_cli.calibration import calibrate
from geoseg_cli.errors import InputError
from geoseg_cli.training.augment import Sample
from geoseg_cli.training.chips import values_from_targets

PIXELS_PER_SAMPLE: Final = 2000
"""Most pixels of a sample that are used: neighbours tell the same."""
_UNKNOWN: Final = 255


@torch.no_grad()
def fit_confidence(network: nn.Module, samples: Iterable[Sample], data: str) -> ConfidenceCalibration | None:
    """Fit the temperature to samples that no step learned from; those that chose the weights will do.

    Args:
        network: In evaluation mode, on the CPU.
        samples: At least one.
        data: What they are, for people.

    Returns:
        The temperature and what it changed; None where none fits best, because all pixels are right, or none is known.
    """
    rng = np.random.default_rng(0)
    logits, targets = [], []
    for sample in samples:
        answers = network(torch.from_numpy(sample.pixels)[None])[0].flatten(1).T.numpy()
        numbers = values_from_targets(sample.target, range(answers.shape[1]), _UNKNOWN).ravel()
        chosen = rng.permutation(np.flatnonzero(numbers != _UNKNOWN))[:PIXELS_PER_SAMPLE]
        logits.append(answers[chosen])
        targets.append(numbers[chosen])
    try:
        return calibrate(np.concatenate(logits), np.concatenate(targets), data, len(logits))
    except InputError:
        return None
