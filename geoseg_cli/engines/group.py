"""Several devices on one scene: an engine that shares a batch out among others."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from geoseg_cli.arrays import Array
from geoseg_cli.engines.devices import name_devices

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine


class EngineGroup:
    """Runs the parts of a batch on several engines at the same time.

    Each part is as large as the batch that one engine alone would get, cut at the same tiles, so the answers are
    those of one device, whatever kernels its batch size selects. Where the engines work on tensors, tiles are made and
    blended on the first one's device, and parts travel between the devices.

    Args:
        engines: One per device, of one kind; they are closed with this.
        part_tiles: Tiles that each gets; None for what the engines like.
    """

    def __init__(self, engines: Sequence[Engine], part_tiles: int | None = None) -> None:
        first = engines[0]
        self._engines = tuple(engines)
        self._part = part_tiles or first.batch_tiles
        self.name, self.precision, self.arrays = first.name, first.precision, first.arrays
        self.device = name_devices([one.device for one in engines])
        self.batch_tiles = self._part * len(engines)
        self._pool = ThreadPoolExecutor(len(engines), "geoseg-device")

    def run(self, pixels: Array) -> Array:
        """Run the network; arrays as :meth:`geoseg_cli.engines.Engine.run`.

        Raises:
            EngineError: A device failed.
        """
        parts = [pixels[start : start + self._part] for start in range(0, len(pixels), self._part)]
        # Part i always goes to engine i modulo their number, and no engine gets two at a time.
        lanes = [parts[lane :: len(self._engines)] for lane in range(len(self._engines))]
        answers = list(self._pool.map(_run_all, self._engines, lanes))
        ordered = [answers[index % len(answers)][index // len(answers)] for index in range(len(parts))]
        logits = self.arrays.join([self.arrays.put(answer) for answer in ordered], 0)
        return self.arrays.fetch(logits) if isinstance(pixels, np.ndarray) else logits

    def close(self) -> None:
        """Close all engines."""
        self._pool.shutdown()
        for engine in self._engines:
            engine.close()


def _run_all(engine: Engine, parts: Sequence[Array]) -> list[Array]:
    return [engine.run(engine.arrays.put(part)) for part in parts]


if TYPE_CHECKING:
    _fits: type[Engine] = EngineGroup
