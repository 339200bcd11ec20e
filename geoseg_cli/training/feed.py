"""Batches of a run: what each step of each process sees, drawn from (seed, step, rank) alone.

So a batch may be drawn ahead, and again after a resume. Axes: N batch, C input channels, H rows, W columns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geoseg_cli.bundle import InputSpec
from geoseg_cli.training.augment import AugmentOptions, Sample, Source, draw_batch, draw_view_batch
from geoseg_cli.training.schedule import TrainOptions


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one step needs.

    Attributes:
        samples: N samples of one size.
        seed: Of the chance inside the network.
        shifts: How far the second of each two samples lies from the first, rows and columns, where they are views of
            the same ground; empty where each sample shows its own.
    """

    samples: list[Sample]
    seed: int
    shifts: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class Feed:
    """Draws the batches of one process in the order of its steps.

    Attributes:
        sources: What to draw from.
        spec: Normalisation.
        options, augment: How to draw.
        rank: Number of the process; each sees other samples, of the same size.
    """

    sources: Sequence[Source]
    spec: InputSpec
    options: TrainOptions
    augment: AugmentOptions
    rank: int = 0

    def draw(self, step: int) -> Drawn:
        """Draw the batch of a step."""
        rng = np.random.default_rng((self.options.seed, step))
        size_px = int(rng.choice(self.options.sizes_px))
        if self.rank:
            rng = np.random.default_rng((self.options.seed, step, self.rank))
        count = max(1, self.options.pixels_per_step // size_px**2)
        if not self.options.view_weight:
            samples = draw_batch(self.sources, count, size_px, self.spec, self.augment, rng)
            return Drawn(samples, int(rng.integers(2**31)))
        pairs = draw_view_batch(self.sources, max(1, count // 2), size_px, self.spec, self.augment, rng)
        samples = [view for pair in pairs for view in (pair.first, pair.second)]
        return Drawn(samples, int(rng.integers(2**31)), tuple(pair.shift for pair in pairs))


class ReadAhead:
    """A feed whose coming batches are drawn by threads while a step runs; a context manager.

    Args:
        feed: Draws.
        threads: How many batches are drawn ahead at once; 0 draws when asked.
        last_step: No batch of this step or a later one is drawn ahead.
    """

    def __init__(self, feed: Feed, threads: int, last_step: int | None = None) -> None:
        self._feed, self._threads, self._last_step = feed, threads, last_step
        self._pool = ThreadPoolExecutor(threads) if threads else None
        self._coming: deque[tuple[int, Future[Drawn]]] = deque()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def take(self, step: int) -> Drawn:
        """The batch of a step; steps are asked for in their order."""
        if self._pool is None:
            return self._feed.draw(step)
        first = self._coming[-1][0] + 1 if self._coming else step
        for ahead in range(first, step + self._threads + 1):
            if ahead == step or self._last_step is None or ahead < self._last_step:
                self._coming.append((ahead, self._pool.submit(self._feed.draw, ahead)))
        number, drawn = self._coming.popleft()
        assert number == step, "steps are taken one after the other"
        return drawn.result()


def stack(batch: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of one size as tensors: pixels (N, C, H, W) float32, targets (N, H, W), weights (N,) float32."""
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in batch]))
    target = torch.from_numpy(np.stack([sample.target for sample in batch]))
    return pixels, target, torch.tensor([sample.weight for sample in batch], dtype=torch.float32)
