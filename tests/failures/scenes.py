"""Scenes whose right map is known before geoseg sees them, and the model that gives it back.

The model is one 1 x 1 convolution in a real ONNX file: logit k of a pixel x is k x - k²/2, so the largest is that of
the whole number nearest to x. A pixel of class k is written as the reflectance 0.1 + 0.2 k, which the model's card
turns into x = k.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.conftest import write_scene
from tests.engines.pixelwise import Pixelwise
from tests.failures.case import Labels, Made

CLASSES = 4
NODATA_DN = 65_535
TAG = (1e-4, 0.0)
"""Scale and offset tag under which the numbers below mean reflectance."""

STEPS = np.arange(CLASSES, dtype=np.float32)
NEAREST = Pixelwise(np.stack([STEPS, 0 * STEPS, 0 * STEPS], axis=1), -(STEPS**2) / 2)


def draw(height: int, width: int, seed: int = 0, share_valid: float = 0.7) -> Labels:
    """(H, W) random classes, 255 where there is nothing."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, (height, width))
    return np.where(random.random((height, width)) < share_valid, labels, 255).astype(np.uint8)


def numbers(labels: Labels, nodata: float = NODATA_DN) -> npt.NDArray[np.uint16]:
    """(H, W) digital numbers that mean the labels."""
    return np.where(labels == 255, nodata, 1000 + 2000 * labels.astype(np.int64)).astype(np.uint16)


def reflectance(labels: Labels, nodata: float = np.nan) -> npt.NDArray[np.float32]:
    """(H, W) reflectance that means the labels."""
    return np.where(labels == 255, nodata, 0.1 + 0.2 * labels).astype(np.float32)


def write_red(path: Path, labels: Labels, **profile: Any) -> Made:
    """Write a scene of the red band alone; ``profile`` as for :func:`tests.conftest.write_scene`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"bands": ["red"], "tags": [TAG], "nodata": NODATA_DN, **profile}
    write_scene(path, numbers(labels)[None], **settings)
    return Made(path, labels)


def red(folder: Path, height: int = 90, width: int = 70, seed: int = 0, **profile: Any) -> Made:
    """A sound scene ``scene.tif`` of random classes, or one that ``profile`` makes less sound."""
    return write_red(folder / "scene.tif", draw(height, width, seed), **profile)
