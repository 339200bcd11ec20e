"""How undecided a network is about each pixel: the Shannon entropy of its probabilities."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_LEAST = np.finfo(np.float32).tiny
"""Stands for 0 in the logarithm, where 0 x log(0) would be NaN."""


def normalised_entropy(probabilities: FloatArray) -> FloatArray:
    """Shannon entropy divided by that of K equal probabilities.

    Class by class, so that it takes three planes of memory whatever K is.

    Args:
        probabilities: (K, H, W) float32 that sum to 1 over K, or all 0 where there is no answer.

    Returns:
        (H, W) float32: 0 where one class is certain and where there is no answer, 1 where all are equally probable.
    """
    total = np.zeros(probabilities.shape[1:], np.float32)
    term = np.empty_like(total)
    if len(probabilities) < 2:
        return total
    for plane in probabilities:
        np.maximum(plane, _LEAST, out=term)
        np.log(term, out=term)
        term *= plane
        total -= term
    total *= np.float32(1 / math.log(len(probabilities)))
    return np.clip(total, 0, 1, out=total)
