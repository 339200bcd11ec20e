"""How many tiles travel together: what the user says, what was measured before, or what this run finds out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from platformdirs import user_cache_path

DOUBLINGS = 3
"""The largest batch that is tried is the engine's own, doubled so many times."""

TRIES = 2
"""Batches of each size whose time is taken."""

GAIN = 1.1
"""A larger batch is taken if it is faster by more than this; it costs memory."""


class BatchSize:
    """Finds the fastest batch with the first batches of a run, so that no work is done for the measurement alone.

    Sizes are tried one after the other; until all were timed the engine's own size is used. Answers do not depend on
    it. Safe to use from two threads: one cuts batches, one runs them.

    Args:
        usual: What the engine likes.
        sizes: Sizes to try, the usual one among them; one alone is taken without a word.
        keep: Called with the size that was found to be the fastest.
    """

    def __init__(self, usual: int, sizes: Sequence[int], keep: Callable[[int], None] = lambda size: None) -> None:
        self._usual, self._sizes, self._keep = usual, sorted(set(sizes)), keep
        # The first batch of a run also warms the engine up: nobody takes its time.
        self._to_try = [usual, *(size for size in self._sizes for _ in range(TRIES))] if len(self._sizes) > 1 else []
        self._is_warm = False
        self._seconds: dict[int, list[float]] = defaultdict(list)
        self._found: int | None = self._sizes[0] if len(self._sizes) == 1 else None
        self._lock = threading.Lock()

    @classmethod
    def fixed(cls, size: int) -> BatchSize:
        """Always the same."""
        return cls(size, [size])

    @property
    def is_found(self) -> bool:
        """Whether there is nothing to find out any more."""
        with self._lock:
            return self._found is not None

    @property
    def largest(self) -> int:
        """The most tiles that a batch can hold."""
        return self._sizes[-1]

    def next(self) -> int:
        """Tiles of the batch that is cut now."""
        with self._lock:
            if self._found is not None:
                return self._found
            return self._to_try.pop(0) if self._to_try else self._usual

    def record(self, tiles: int, seconds: float) -> None:
        """Tell how long a batch took to run."""
        with self._lock:
            if self._found is not None:
                return
            if not self._is_warm:
                self._is_warm = True
                return
            self._seconds[tiles].append(seconds / tiles)
            if any(len(self._seconds[size]) < TRIES for size in self._sizes):
                return
            self._found = self._fastest()
        self._keep(self._found)

    def _fastest(self) -> int:
        """The smallest size that no larger one beats by more than it is worth."""
        best = self._sizes[0]
        for size in self._sizes[1:]:
            if min(self._seconds[best]) > GAIN * min(self._seconds[size]):
                best = size
        return best


class KnownSizes:
    """Sizes that earlier runs found, in the user's cache folder; nothing depends on it.

    Args:
        key: What the fastest size depends on: bundle, engine, device, precision, tile, threads.
        folder: Where they are kept; None for the user's cache folder.
    """

    def __init__(self, key: Sequence[str], folder: Path | None = None) -> None:
        folder = user_cache_path("geoseg") / "batch" if folder is None else folder
        self._path = folder / f"{hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:32]}.json"

    def load(self) -> int | None:
        """The size that was found; None where nobody looked for it, or the file says nothing that makes sense."""
        try:
            size = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return size if isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= 4096 else None

    def keep(self, size: int) -> None:
        """Remember a size where that is possible; two processes may do so at the same time."""
        unfinished = self._path.with_suffix(f".{os.getpid()}.part")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(f"{size}\n", encoding="utf-8")
            unfinished.replace(self._path)


def most_to_try(usual: int, engine: str, device: str) -> int:
    """The largest batch that is worth a trial with an engine on a device, where the engine likes ``usual``.

    On a CPU none is: with ONNX Runtime and OpenVINO 4 tiles instead of 2 took 15 to 27 % more memory above the model
    and 16 two and a half times as much, for -3 to 20 % more time, and yet noise made trials choose 16. TensorRT
    would build a program for each size.
    """
    return usual if device == "cpu" or engine == "tensorrt" else usual << DOUBLINGS


def sizes_to_try(usual: int, most: int, tiles: int) -> list[int]:
    """Sizes from the engine's own upwards that fit into memory and into the scene several times.

    Args:
        usual: What the engine likes.
        most: The most that memory allows.
        tiles: How many there are; where they are few, finding out is not worth it.
    """
    sizes = [usual << doubling for doubling in range(DOUBLINGS + 1) if usual << doubling <= most]
    while len(sizes) > 1 and tiles < 4 * TRIES * sum(sizes):
        sizes.pop()
    return sizes or [max(1, min(usual, most))]
