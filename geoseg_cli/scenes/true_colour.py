"""A scene as a picture for the eye: its own red, green and blue, stretched, on the ground that a map covers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import GridError, RadiometryError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.scenes import Scene, SceneOptions, block_cache, open_scene
from geoseg_cli.scenes.radiometry import Radiometry
from geoseg_cli.scenes.stack import Stack

BoolArray = npt.NDArray[np.bool_]
ImageArray = npt.NDArray[np.uint8]

EYE = InputSpec(("red", "green", "blue"), (), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""What the eye is fed, in its own order."""

STRETCH_PERCENT = (2.0, 98.0)
"""Percentiles over the valid pixels of all three bands that become black and full brightness.

One stretch for all three: one for each would turn lakes turquoise and fields pink.
"""

GAMMA = 1.6
"""Lifts forest and water out of the dark where clouds take the bright end."""

FINER = 2
"""Numbers per picture pixel and axis that are averaged where the scene has more than the picture."""

CACHE_BYTES = 64 << 20
_OFF_PX = 0.5


@dataclass(frozen=True, slots=True)
class TrueColour:
    """A scene for the eye.

    Attributes:
        rgba: (H,W,4) uint8 in the order of the file; transparent where a band means nothing.
        size_bytes: Of the scene's files together.
    """

    rgba: ImageArray
    size_bytes: int


def true_colour(path: Path, ground: Grid, height: int, width: int, options: SceneOptions | None = None) -> TrueColour:
    """Draw a scene, read through its overviews.

    Args:
        path: The scene.
        ground: The map's grid; the picture covers exactly this ground.
        height, width: Of the picture.
        options: What the user says about the scene. Where nothing says what its numbers mean, they are stretched as
            they are: a scale and an offset that all bands share make no difference.

    Raises:
        GeosegError: The scene cannot be read, or names no red, green or blue.
        GridError: The map does not lie on the scene.
    """
    steps = ground.gsd_m()
    with block_cache(CACHE_BYTES), _opened(path, options, min(steps) if steps else 10.0) as scene:
        window = _window_of(scene, ground)
        finer = FINER if window.height > height or window.width > width else 1
        assert isinstance(scene.source, Stack), "a scene on disk is a stack"
        numbers, valid = scene.source.read_small(window, finer * height, finer * width)
        size_bytes = sum(identity.size_bytes for identity in scene.identities.values())
        return TrueColour(stretched(scene.radiometry, numbers, valid, finer), size_bytes)


def _opened(path: Path, options: SceneOptions | None, gsd_m: float) -> Scene:
    options = options or SceneOptions()
    try:
        return open_scene(path, EYE, options, gsd_m)
    except RadiometryError:
        return open_scene(path, EYE, replace(options, radiometry="reflectance"), gsd_m)


def stretched(radiometry: Radiometry, numbers: npt.NDArray[Any], valid: BoolArray, finer: int = 1) -> ImageArray:
    """Average, turn into reflectance, and stretch between percentiles.

    Args:
        radiometry: What the numbers mean.
        numbers: (3, n*H, n*W), any real dtype.
        valid: (n*H, n*W) bool, whether they mean something.
        finer: n.

    Returns:
        (H, W, 4) uint8; a pixel is opaque where at least one of its numbers is valid. A scene of one number is grey.
    """
    known = _blocks(valid, finer).sum(axis=(1, 3))
    seen = known > 0
    rgba = np.zeros((*known.shape, 4), np.uint8)
    rgba[..., 3] = np.where(seen, 255, 0)
    if not seen.any():
        return rgba
    means = np.empty((len(numbers), np.count_nonzero(seen), 1), np.float32)
    for mean, plane in zip(means, numbers, strict=True):
        total = _blocks(np.where(valid, plane, plane.dtype.type(0)), finer).sum(axis=(1, 3), dtype=np.float64)
        mean[:, 0] = total[seen] / known[seen]
    means = radiometry.apply(means)
    low, high = np.percentile(means, STRETCH_PERCENT)
    for band, mean in enumerate(means[..., 0]):
        share = (mean - low) / (high - low) if high > low else np.full_like(mean, 0.5)
        rgba[seen, band] = np.round(np.clip(share, 0, 1) ** (1 / GAMMA) * 255)
    return rgba


def _blocks(plane: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """(n*H, n*W) -> (H, n, W, n)."""
    height, width = plane.shape
    return plane.reshape(height // side, side, width // side, side)


def _window_of(scene: Scene, ground: Grid) -> Window:
    """The pixels of a scene that cover the ground of a map, which may be a part of it.

    Raises:
        GridError: The map lies elsewhere, or its pixels are turned against the scene's.
    """
    inverse = ~scene.grid.transform
    (col, row), (col_stop, row_stop), (side_col, side_row) = (
        inverse @ (ground.transform @ corner) for corner in ((0, 0), (ground.width, ground.height), (ground.width, 0))
    )
    is_parallel = abs(side_row - row) <= _OFF_PX and abs(side_col - col_stop) <= _OFF_PX
    is_inside = min(col, row) >= -_OFF_PX and max(col_stop - scene.grid.width, row_stop - scene.grid.height) <= _OFF_PX
    edges = [round(edge) for edge in (row, col, row_stop, col_stop)]
    window = Window(edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1])
    if scene.grid.crs != ground.crs or not is_parallel or not is_inside or min(window.height, window.width) < 1:
        raise GridError(f"the map does not lie on the scene {scene.path}", "give the scene that it was made from")
    return window.intersection(scene.grid.window)
