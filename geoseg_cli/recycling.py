"""Memory of large arrays that is used again within a run.

A system gives out fresh pages filled with zeros, and takes them back as soon as an array of some megabytes is freed.
Filling them takes a tenth of the processor time of a whole scene; a run asks for the same few sizes over and over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

Memory = npt.NDArray[np.uint8]

LARGE_BYTES = 4 * 2**20
"""From here on memory is kept here; the C library itself keeps smaller pieces."""

MOST_WASTE = 1.25
"""So many times as large as what is asked for a free block may be."""


class Recycler:
    """Gives out arrays, and their memory again once nothing looks at it any more.

    A block that fits is taken before new memory is; before new memory is taken, as much that is free is given back to
    the system. So a run holds no more than :data:`MOST_WASTE` times what it had in use at its fullest. Threads may
    share it.
    """

    def __init__(self) -> None:
        """Begin without a block."""
        self._lock, self._users = Lock(), 0
        self._free: list[Memory] = []

    @contextmanager
    def run(self) -> Iterator[None]:
        """Keep blocks until the block ends, or that of the last run beside this one."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    # A list of its own: arrays that outlive the run hand their memory to the old one, and it goes.
                    self._free = []

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A new array of any content; outside of a run, and where it is small, as numpy's own."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if size < LARGE_BYTES:
            return np.empty(shape, kind)
        with self._lock:
            if not self._users:
                return np.empty(shape, kind)
            loan = _Loan(self._take(size), self._free, shape, kind)
        return np.asarray(loan)

    @property
    def free_bytes(self) -> int:
        """What is kept and not in use."""
        return sum(memory.nbytes for memory in self._free)

    def _take(self, size: int) -> Memory:
        """The smallest free block that fits, or a new one. Blocks come back at any time, to the end of the list."""
        free = self._free
        fitting = [place for place in range(len(free)) if size <= free[place].nbytes <= MOST_WASTE * size]
        if fitting:
            return free.pop(min(fitting, key=lambda place: free[place].nbytes))
        given_back = 0
        while free and given_back < size:
            given_back += free.pop(0).nbytes
        return np.empty(size, np.uint8)


class _Loan:
    """What an array of lent memory and all its views hold on to; with the last of them the memory comes back."""

    __slots__ = ("__array_interface__", "_free", "_memory")

    def __init__(self, memory: Memory, free: list[Memory], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._memory, self._free = memory, free
        # numpy.org/doc/stable/reference/arrays.interface.html
        self.__array_interface__ = {
            "data": (memory.ctypes.data, False),
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }

    def __del__(self) -> None:
        # Perhaps while the collector interrupts one who holds the lock: this must not need it.
        self._free.append(self._memory)


RECYCLER = Recycler()
"""That of the process: engines, readers and who cuts tiles have the same arrays in their hands."""
