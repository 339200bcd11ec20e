"""Fakes at the seams that the architecture names: a scene in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from geoseg_cli.arrays import NUMPY, Array, Arrays
from geoseg_cli.bundle import InputSpec
from geoseg_cli.grid import Grid, Window

ONE_BAND = InputSpec(bands=("red",), optional=(), mean=(0.0,), stddev=(1.0,))
"""A contract under which the network's input is the reflectance itself."""


@dataclass(frozen=True)
class MemoryPatch:
    """Pixels (P,H,W) and validity (H,W)."""

    pixels: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]


@dataclass
class MemoryScene:
    """A scene held in memory; remembers which windows were read."""

    pixels: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]
    present: tuple[bool, ...] = (True,)
    scale: float = 1.0
    windows: list[Window] = field(default_factory=list)
    column_step: int | None = None

    @property
    def grid(self) -> Grid:
        return Grid(None, Affine.identity(), *self.valid.shape)

    def read(self, window: Window) -> MemoryPatch:
        self.windows.append(window)
        return MemoryPatch(self.pixels[:, window.rows, window.cols], self.valid[window.rows, window.cols])

    def to_reflectance(self, pixels: Array, arrays: Arrays = NUMPY) -> Array:
        return arrays.as_float32(pixels) * float(np.float32(self.scale))
