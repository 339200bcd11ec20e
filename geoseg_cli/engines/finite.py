"""What a reduced precision loses entirely: logits that are not finite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def recompute_not_finite(logits: FloatArray, pixels: FloatArray, run_fp32: Callable[[FloatArray], FloatArray]) -> None:
    """Replace the logits of every tile that has one that is not finite, in place.

    Args:
        logits: (N, K, H, W) float32 of a reduced precision.
        pixels: (N, C, H, W) float32 that they belong to.
        run_fp32: Runs (1, C, H, W) in fp32.
    """
    for tile in np.flatnonzero(~np.isfinite(logits).all(axis=(1, 2, 3))):
        logits[tile] = run_fp32(pixels[tile : tile + 1])[0]
