"""Contact sheets of simulated scenes for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from geoseg_cli.training.simulate import SimulatedScene

ByteArray = NDArray[np.uint8]

# ESA WorldCover colours; unknown black.
_LAND_COLOURS: Final = {
    10: (0, 100, 0), 30: (255, 255, 76), 40: (240, 150, 255), 50: (250, 0, 0), 60: (180, 180, 180),
    70: (240, 240, 240), 80: (0, 100, 200), 255: (0, 0, 0),
}  # fmt: skip
_CLOUD_COLOURS: Final = {0: (110, 80, 20), 1: (255, 255, 255), 2: (150, 190, 220), 3: (40, 40, 60), 255: (0, 0, 0)}


def true_colour(scene: SimulatedScene, white: float = 0.3) -> ByteArray:
    """Picture of a scene.

    Args:
        scene: one with red, green and blue.
        white: reflectance that is shown as white; the curve is a power of 0.6.

    Returns:
        (H, W, 3) uint8.
    """
    first_names = [names[0] for names in scene.bands]
    shown = scene.reflectance[[first_names.index(name) for name in ("red", "green", "blue")]]
    stretched = np.clip(shown / white, 0, 1) ** 0.6 * 255
    return np.asarray(stretched.astype(np.uint8).transpose(1, 2, 0))


def paint_labels(labels: ByteArray, colours: dict[int, tuple[int, int, int]]) -> ByteArray:
    """Colour (H, W) labels by a table of RGB; ids that it lacks become magenta. Returns (H, W, 3) uint8."""
    table = np.full((256, 3), (255, 0, 255), np.uint8)
    for value, colour in colours.items():
        table[value] = colour
    return np.asarray(table[labels])


def picture_sheet(scenes: Sequence[SimulatedScene], columns: int = 2, white: float = 0.3) -> ByteArray:
    """Put scenes of one size side by side, each as true colour up to `white`, land cover and cloud labels.

    Returns:
        (rows * H, columns * 3 W, 3) uint8; unused places are black.
    """
    assert len({scene.clouds.shape for scene in scenes}) == 1, "scenes of one size"
    strips = [
        np.concatenate(
            [
                true_colour(scene, white),
                paint_labels(scene.land_cover, _LAND_COLOURS),
                paint_labels(scene.clouds, _CLOUD_COLOURS),
            ],
            axis=1,
        )
        for scene in scenes
    ]
    strips += [np.zeros_like(strips[0])] * (-len(strips) % columns)
    rows = [np.concatenate(strips[start : start + columns], axis=1) for start in range(0, len(strips), columns)]
    return np.concatenate(rows, axis=0)
