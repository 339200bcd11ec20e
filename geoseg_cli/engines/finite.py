"""What a reduced precision loses entirely: logits that are not finite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from geoseg_cli.arrays import NUMPY, Array, Arrays


def recompute_not_finite(
    logits: Array, pixels: Array, run_fp32: Callable[[Array], Array], arrays: Arrays = NUMPY
) -> None:
    """Replace the logits of every tile that has one that is not finite, in place.

    Args:
        logits: (N, K, H, W) float32 of a reduced precision.
        pixels: (N, C, H, W) float32 that they belong to.
        run_fp32: Runs (1, C, H, W) in fp32.
        arrays: What all of them are.
    """
    are_finite = arrays.module.isfinite(logits).reshape(len(logits), -1).all(1)
    for tile in np.flatnonzero(~arrays.fetch(are_finite)).tolist():
        logits[tile] = run_fp32(pixels[tile : tile + 1])[0]
