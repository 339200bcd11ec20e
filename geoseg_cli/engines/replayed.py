"""A network whose kernels a CUDA device is told all at once, when batches of one shape come again and again.

Telling them one by one costs the processor time for each, however little there is to compute. Recording takes two
passes more, one that computes nothing and one whose answer is compared, so a small scene does without. Not measured on
a GPU.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

Replay = Callable[[Tensor], Tensor]

PATIENCE = 12
"""Batches of a shape after which it is recorded."""
MOST_RECORDINGS = 2
"""Each keeps the memory of a forward pass."""

_log = logging.getLogger(__name__)


class ReplayedNetwork:
    """Runs a network, and replays what it made the device do where that was recorded.

    A recording whose first answer is not the network's own to the last bit is not used, and nothing is recorded
    any more; nor where the device refuses.

    Args:
        network: In evaluation mode, on its device.
        patience: Batches of a shape after which it is recorded; 0 records nothing.
        record: Makes a replay of a network for batches like one; :func:`record_on_cuda` but for tests.
    """

    def __init__(
        self, network: nn.Module, patience: int, record: Callable[[nn.Module, Tensor], Replay] | None = None
    ) -> None:
        self._network, self._patience, self._record = network, patience, record or record_on_cuda
        self._seen: Counter[tuple[object, ...]] = Counter()
        self._replays: dict[tuple[object, ...], Replay] = {}

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, K, H, W) logits of (N, C, H, W), to be copied before the next call."""
        key = (tuple(pixels.shape), *_autocast(pixels))
        if key in self._replays:
            return self._replays[key](pixels)
        logits: Tensor = self._network(pixels)
        self._seen[key] += 1
        if self._seen[key] == self._patience and len(self._replays) < MOST_RECORDINGS:
            self._learn(key, pixels, logits)
        return logits

    def forget(self) -> None:
        """Free the memory of all recordings."""
        self._replays.clear()
        self._seen.clear()

    def _learn(self, key: tuple[object, ...], pixels: Tensor, logits: Tensor) -> None:
        try:
            replay = self._record(self._network, pixels)
            if torch.equal(replay(pixels).nan_to_num(), logits.nan_to_num()):
                self._replays[key] = replay
                return
            trouble = "gave another answer"
        except RuntimeError as error:
            trouble = str(error).split("\n", 1)[0]
        self._patience = 0
        _log.info("the network's kernels are told one by one: a recording of them %s", trouble)


def record_on_cuda(network: nn.Module, pixels: Tensor) -> Replay:
    """Record what a network does with a batch as a CUDA graph.

    Returns:
        Gives the answer to batches of that shape; it lies in the same memory each time.

    Raises:
        RuntimeError: The device refuses.
    """
    given, graph = pixels.clone(), torch.cuda.CUDAGraph()
    # Not torch's own stream for this, which belongs to the device that was used first.
    stream = torch.cuda.Stream(pixels.device)  # type: ignore[no-untyped-call]
    is_on, dtype = _autocast(pixels)
    # What autocast keeps of the weights would be freed with it, and the recorded kernels would read there. Other
    # threads go on to use the device meanwhile.
    with (
        torch.autocast(pixels.device.type, dtype=dtype, enabled=is_on, cache_enabled=False),
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        logits: Tensor = network(given)

    def replay(batch: Tensor) -> Tensor:
        """Logits (N, K, H, W) of pixels (N, C, H, W), in memory that the next call overwrites."""
        given.copy_(batch)
        graph.replay()
        return logits

    return replay


def _autocast(pixels: Tensor) -> tuple[bool, torch.dtype]:
    kind = pixels.device.type
    return torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
