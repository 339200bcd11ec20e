"""A folder of simulated chips that grows and renews itself while a network trains.

Drawing a scene costs about as much as a training step on it, so scenes are drawn ahead, in worker processes, kept as
files and used several times with other crops and flips. Every file is written under another name and renamed: a
reader sees a whole chip or none.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from geoseg_cli.training.chips import Chip
from geoseg_cli.training.lazy import LazySequence

MakeChip = Callable[[int], Chip]

RENEWAL_PUMPS = 4
"""A full pool orders one new chip in so many pumps: more would take the processor from the training itself."""


class ScenePool(LazySequence[Chip]):
    """Chips number 0, 1, 2, ... of which the newest ``size`` are kept.

    Args:
        folder: Where the chips lie; created if needed. Chips that lie there already are used.
        make: Makes the chip of a seed; must be picklable when there are workers.
        size: Chips to keep.
        first_seed: Seed of chip 0; chip i has seed ``first_seed + i``.
        workers: Processes that make chips in the background; with 0 ``pump`` makes missing chips itself.
    """

    def __init__(self, folder: Path, make: MakeChip, size: int, first_seed: int, workers: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.make, self.size, self.first_seed = folder, make, size, first_seed
        self._workers = workers
        self._numbers = sorted(int(path.stem) for path in folder.glob("[0-9]*.npy"))
        self._next = self._numbers[-1] + 1 if self._numbers else 0
        self._pumps = 0
        self._under_way: deque[Future[int]] = deque()
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> ScenePool:
        if self._workers:
            # A forked child would inherit the threads' locks of the numeric libraries.
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self._workers, mp_context=context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def made(self) -> int:
        """Number of the newest chip plus one: how many different chips there have been."""
        return self._numbers[-1] + 1 if self._numbers else 0

    def seed(self, place: int) -> int:
        """Seed of the chip at a place in the order of their numbers."""
        return self.first_seed + self._numbers[place]

    def fill(self, count: int) -> None:
        """Wait until ``count`` chips are there."""
        while len(self) < min(count, self.size):
            self.pump(wait=True)

    def pump(self, wait: bool = False) -> None:
        """Take in finished chips and order new ones.

        Args:
            wait: Wait for at least one chip. Without workers this makes one; the pool never renews itself then.

        Raises:
            Exception: Whatever went wrong in a worker.
        """
        if self._executor is None:
            if wait or len(self) < self.size:
                self._take_in(write_chip(self.make, self.first_seed, self._next, self.folder))
                self._next += 1
            return
        self._pumps += 1
        is_full = self._next >= self.size
        allowed = 2 * self._workers if not is_full else int(self._pumps % RENEWAL_PUMPS == 0)
        while len(self._under_way) < allowed:
            job = (self.make, self.first_seed, self._next, self.folder)
            self._under_way.append(self._executor.submit(write_chip, *job))
            self._next += 1
        while self._under_way and (wait or self._under_way[0].done()):
            self._take_in(self._under_way.popleft().result())
            wait = False

    def _take_in(self, number: int) -> None:
        self._numbers.append(number)
        while len(self._numbers) > self.size:
            self._path(self._numbers.pop(0)).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.npy"

    def _make(self, place: int) -> Chip:
        """The chip at a place in the order of their numbers, the oldest first; mapped into memory."""
        planes = np.load(self._path(self._numbers[place]), mmap_mode="r")
        bands = tuple((self.folder / "bands.txt").read_text(encoding="utf-8").split())
        return Chip("simulated", bands, planes[:-1], planes[-1].astype(np.uint8))


def write_chip(make: MakeChip, first_seed: int, number: int, folder: Path) -> int:
    """Make chip ``number`` and put it into the folder.

    Returns:
        The number.
    """
    chip = make(first_seed + number)
    names = folder / "bands.txt"
    if not names.exists():
        names.write_text(" ".join(chip.bands), encoding="utf-8")
    path = folder / f"{number:08d}.npy"
    unfinished = folder / f".{number:08d}.npy"
    np.save(unfinished, np.concatenate([chip.dn, chip.target[None].astype(np.int16)]))
    unfinished.replace(path)
    return number
