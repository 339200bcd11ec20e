"""Rows of a result on their way from the mosaic to the file, and what cuts, masks or enlarges them in between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LabelArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """Finished rows of the result at the scene's full width.

    Attributes:
        row: First row in the scene.
        labels: (H, W) uint8 legend values; the legend's nodata where there is no answer.
        confidence: (H, W) float32, probability of the label, 0 to 1; 0 where there is no answer.
        probabilities: (K, H, W) float32 that sum to 1 over K, 0 where there is no answer; None unless asked for.
        valid: (H, W) bool, where there is an answer.
    """

    row: int
    labels: LabelArray
    confidence: FloatArray
    probabilities: FloatArray | None
    valid: BoolArray
