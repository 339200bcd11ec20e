"""Test-time augmentation: a network's answer averaged over turned and mirrored copies of each tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from geoseg_cli.arrays import Array

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine

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
        self.batch_tiles, self.arrays = engine.batch_tiles, engine.arrays

    def run(self, pixels: Array) -> Array:
        """Run the network; (N, C, H, W) and logits (N, K, H, W) of ``arrays``."""
        total = self._engine.run(pixels) + self._turned(pixels, 1)
        for view in range(2, self._views):
            total += self._turned(pixels, view)
        total /= self._views
        return total

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _turned(self, pixels: Array, view: int) -> Array:
        """The answer to one view, turned back; bits of ``view``: left to right, top to bottom, transposed."""
        mirrored = tuple(axis for bit, axis in ((1, -1), (2, -2)) if view & bit)
        shown = self.arrays.flip(pixels, mirrored)
        if view & 4:
            shown = shown.swapaxes(-1, -2)
        answer = self._engine.run(self.arrays.compact(shown))
        if view & 4:
            answer = answer.swapaxes(-1, -2)
        return self.arrays.flip(answer, mirrored)


if TYPE_CHECKING:
    _fits: type[Engine] = TurnedEngine
