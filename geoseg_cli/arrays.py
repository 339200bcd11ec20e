"""Where arrays live and what computes on them: numpy, or a module with the same functions, torch's on a device.

What is written over :class:`Arrays` calls only functions that both modules spell alike, with arguments by position
where their names differ; the few that they do not share are methods here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.recycling import RECYCLER

Array = Any
"""An array of whichever module computes: numpy's or a tensor."""


PIECE_PX = 32_768
"""Pixels that numpy works on at once."""


@dataclass(frozen=True, slots=True)
class Arrays:
    """Where arrays live and what computes on them.

    Attributes:
        module: ``numpy``, or a module with the same functions.
        device: As the module's functions take it.
        piece_px: Pixels that are worked on at once: on a CPU few, so that they stay in its caches, but not so few
            that the cost of a call counts; a device with a large cost per call wants whole tiles.
    """

    module: Any = np
    device: Any = "cpu"
    piece_px: int = PIECE_PX

    @property
    def are_numpys(self) -> bool:
        """Whether numpy computes."""
        return self.module is np

    @property
    def _is_cuda(self) -> bool:
        return str(self.device).startswith("cuda")

    def empty(self, shape: tuple[int, ...]) -> Array:
        """A new float32 array of any content."""
        if self.are_numpys:
            return RECYCLER.empty(shape, np.float32)
        return self.module.empty(shape, dtype=self.module.float32, device=self.device)

    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> Array:
        """A new array of one value."""
        zeros = self.module.zeros(shape, dtype=getattr(self.module, dtype), device=self.device)
        if value:
            zeros[...] = value
        return zeros

    def put(self, array: Array) -> Array:
        """An array as this module's on its device; a copy only where it must be."""
        if isinstance(array, np.ndarray) and not self.are_numpys:
            # Tensors have neither strides below 0 nor another order of bytes, and are always writable.
            array = np.require(array, array.dtype.newbyteorder("="), ("C", "W"))
            if min(array.strides, default=0) < 0:  # along an axis of one, which numpy counts as contiguous
                array = array.copy()
            if self._is_cuda:
                # From pinned memory a device fetches by itself; torch keeps the buffer until it has.
                return self.module.from_numpy(array).pin_memory().to(self.device, non_blocking=True)
        return self.module.asarray(array, device=self.device)

    def fetch(self, array: Array) -> npt.NDArray[Any]:
        """An array as one of numpy's; of the same memory where that can be."""
        return np.asarray(array if self.device == "cpu" else array.cpu())

    def copy(self, array: Array) -> Array:
        """A copy that shares no memory."""
        copied = self.module.empty_like(array)
        copied[...] = array
        return copied

    def as_float32(self, array: Array) -> Array:
        """A new float32 array of an array's numbers, of whatever type they are."""
        numbers = self.empty(tuple(array.shape))
        numbers[...] = array
        return numbers

    def blank(self, array: Array, where: Array) -> None:
        """Set an array to 0 where a bool array of its shape, or one that fits it, is True."""
        if self.are_numpys:
            np.copyto(array, 0, where=where)  # twice as fast as an index
        else:
            array.masked_fill_(where, 0)

    def settle(self) -> None:
        """Wait until the device has done what it was told; elsewhere nothing is left to do."""
        if self._is_cuda:
            self.module.cuda.synchronize(self.device)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """What a device is told in this block it does beside its other work, and has done at the end.

        What others use afterwards is to be handed over in the block.
        """
        if not self._is_cuda:
            yield
            return
        stream = _side_stream(self.module, str(self.device))
        with self.module.cuda.stream(stream):
            yield
        stream.synchronize()

    def hand_over(self, array: Array) -> Array:
        """An array made ``beside``, whose memory is not given away before the device's other work is done with it."""
        if self._is_cuda:
            array.record_stream(self.module.cuda.default_stream(self.device))
        return array

    def flip(self, array: Array, axes: Sequence[int]) -> Array:
        """Turn axes round; with numpy a view, with torch, which has no steps below 0, a copy."""
        return self.module.flip(array, tuple(axes)) if axes else array

    def compact(self, array: Array) -> Array:
        """An array with its numbers side by side; itself where they are."""
        return np.ascontiguousarray(array) if self.are_numpys else array.contiguous()

    def join(self, parts: Sequence[Array], axis: int) -> Array:
        """Arrays one behind the other; one alone as it is."""
        return parts[0] if len(parts) == 1 else self.module.concatenate(tuple(parts), axis)


@cache
def _side_stream(torch: Any, device: str) -> Any:
    """One for the process: torch keeps memory apart by stream."""
    return torch.cuda.Stream(device)


NUMPY = Arrays()
"""The arrays of numpy."""
