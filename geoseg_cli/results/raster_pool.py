"""Reads windows of many rasters in turn, with a bounded number of files open."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from geoseg_cli.grid import Window
from geoseg_cli.results.storage import storage_trouble

MOST_OPEN = 128
"""Files that stay open; a shell gives a process 1024 as a rule, and GDAL keeps some kilobytes of each."""


class RasterPool:
    """Files that are read again and again in the same order; a context manager, for one thread.

    The first ``most_open`` files stay open and the others are opened for each window: for files that are read in
    turn no other choice opens fewer, since the one that was used least recently is the next to be needed.
    """

    def __init__(self, most_open: int = MOST_OPEN) -> None:
        self._most_open, self._open, self._stack = most_open, dict[Path, Any](), ExitStack()

    def read(self, path: Path, window: Window) -> npt.NDArray[np.uint8]:
        """(h, w) uint8 of the first band.

        Raises:
            AccessError, StorageError: The file cannot be read.
        """
        # Without a look at the folder: sidecars must not decide what the pixels are.
        with storage_trouble(path, "read"), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            file = self._open.get(path)
            if file is not None:
                return _pixels(file, window)
            opened = rasterio.open(path.absolute(), driver="GTiff")
            if len(self._open) < self._most_open:
                self._open[path] = self._stack.enter_context(opened)
                return _pixels(opened, window)
            with opened:
                return _pixels(opened, window)

    def __enter__(self) -> RasterPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        self._stack.close()


def _pixels(file: Any, window: Window) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = file.read(1, window=window.to_rasterio())
    return pixels
