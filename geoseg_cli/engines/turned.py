"""Test-time augmentation: a network's answer averaged over turned and mirrored copies of each tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine

FloatArray = npt.NDArray[np.float32]
Augmentation = Literal["none", "flip", "d4"]

AUGMENTATIONS: tuple[Augmentation, ...] = ("none", "flip", "d4")


class TurnedEngine:
    """An engine that asks another one about every tile several times, and averages.

    ``flip`` shows a tile as it is, mirrored left to right, top to bottom, and both; ``d4`` shows each of these also
    transposed, which makes the eight symmetries of the square. Logits are averaged in a fixed order, so that an
    answer depends on the tile alone. Costs four or eight times the work.

    Args:
        engine: What runs the network; it is closed with this.
        augmentation: ``flip`` or ``d4``.
    """

    def __init__(self, engine: Engine, augmentation: Augmentation) -> None:
        self._engine = engine
        self._views = 4 if augmentation == "flip" else 8
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision
        self.batch_tiles = engine.batch_tiles

    def run(self, pixels: FloatArray) -> FloatArray:
        """Run the network; arrays as :meth:`geoseg_cli.engines.Engine.run`."""
        total = self._engine.run(pixels).copy()
        for view in range(1, self._views):
            total += _turned(self._engine.run, pixels, view)
        total /= np.float32(self._views)
        return total

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def _turned(run: Callable[[FloatArray], FloatArray], pixels: FloatArray, view: int) -> FloatArray:
    """The answer to one view, turned back; bits of ``view``: left to right, top to bottom, transposed."""
    mirrored = tuple(axis for bit, axis in ((1, -1), (2, -2)) if view & bit)
    shown = np.flip(pixels, mirrored)
    if view & 4:
        shown = shown.swapaxes(-1, -2)
    answer = run(np.ascontiguousarray(shown))
    if view & 4:
        answer = answer.swapaxes(-1, -2)
    return np.flip(answer, mirrored)


if TYPE_CHECKING:
    _fits: type[Engine] = TurnedEngine
