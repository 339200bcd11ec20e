"""Engines without a network: for tests of everything around one, and for timing reading and writing alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geoseg_cli.arrays import NUMPY

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine

FloatArray = npt.NDArray[np.float32]


class FakeEngine:
    """An engine whose answer is a function.

    Args:
        classes: Number of classes K.
        function: (N, C, H, W) float32 -> (N, K, H, W) float32.

    Attributes:
        batches: Number of tiles of each call of :meth:`run`, in order.
        closed: Whether :meth:`close` was called.
    """

    name = "fake"
    arrays = NUMPY

    def __init__(self, classes: int, function: Callable[[FloatArray], FloatArray]) -> None:
        self.device = "cpu"
        self.precision = "fp32"
        self.batch_tiles = 1
        self.classes = classes
        self.function = function
        self.batches: list[int] = []
        self.closed = False

    def run(self, pixels: FloatArray) -> FloatArray:
        """Answer with the function; arrays as :meth:`geoseg_cli.engines.Engine.run`."""
        assert not self.closed, "a closed engine was run"
        assert pixels.ndim == 4, f"pixels are {pixels.shape}"
        assert pixels.dtype == np.float32, f"pixels are {pixels.dtype}"
        logits = self.function(pixels)
        assert logits.shape == (len(pixels), self.classes, *pixels.shape[2:]), f"logits are {logits.shape}"
        self.batches.append(len(pixels))
        return logits

    def close(self) -> None:
        """Remember that the engine was closed."""
        self.closed = True


class IdentityEngine(FakeEngine):
    """Logits 1 for the class whose number stands in channel 0, 0 for the others.

    Numbers are rounded to whole ones; a number outside 0 to K - 1 gives 0 for all classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, self._one_hot)

    def _one_hot(self, pixels: FloatArray) -> FloatArray:
        numbers = np.rint(pixels[:, 0:1])
        hits: npt.NDArray[np.bool_] = numbers == np.arange(self.classes, dtype=np.float32)[:, None, None]
        return hits.astype(np.float32)


class ConstantEngine(FakeEngine):
    """The same logits everywhere.

    Args:
        logits: One per class.
    """

    def __init__(self, logits: Sequence[float]) -> None:
        self._logits = np.asarray(logits, np.float32)[:, None, None]
        super().__init__(len(logits), self._repeat)

    def _repeat(self, pixels: FloatArray) -> FloatArray:
        shape = (len(pixels), self.classes, *pixels.shape[2:])
        return np.broadcast_to(self._logits, shape).copy()


if TYPE_CHECKING:
    _fits: type[Engine] = FakeEngine
