"""An uncompressed GeoTIFF that is a whole file from its first moment, so that a killed process leaves what it wrote.

GDAL keeps the directory of a file that it writes in memory: killed, it leaves a file without pixels. Here GDAL makes
the file, fills it with nodata and closes it; then pixels go straight to their places, past every cache of ours.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

PixelArray = npt.NDArray[np.uint8 | np.uint16]

BLOCK_PX = 512
"""Side of the blocks of the work raster, and the number of rows that share a checksum."""


class BlockFile:
    """Rows of pixels in the blocks of a file that GDAL made; one thread uses it.

    Attributes:
        shape: Bands, rows and columns.
        dtype: Of the pixels.
    """

    def __init__(self, path: Path) -> None:
        """Open a file that was created with uncompressed blocks, one band after the other.

        Raises:
            OSError, RasterioError: It cannot be opened, or is no such file.
        """
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), rasterio.open(path, driver="GTiff") as made:
            self.shape = made.count, made.height, made.width
            self.dtype: np.dtype[np.uint8 | np.uint16] = np.dtype(made.dtypes[0])
            self._offsets = _offsets(made)
        size = path.stat().st_size
        if not (self._offsets > 0).all() or self._offsets.max() + BLOCK_PX**2 * self.dtype.itemsize > size:
            # A disk that is full when GDAL fills the file is no exception in rasterio.
            raise OSError(errno.ENOSPC, "No space left for the work file")
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115 - closed by close()

    def write(self, row: int, pixels: PixelArray) -> None:
        """Put (B,h,W) pixels at their place.

        Raises:
            OSError: The disk does not take them.
        """
        width = self.shape[2]
        for offset, band, rows, cols in self._pieces(row, pixels.shape[1]):
            piece = pixels[band, rows, cols]
            if piece.shape[1] < BLOCK_PX:
                piece = np.pad(piece, ((0, 0), (0, BLOCK_PX - width % BLOCK_PX)))
            self._put(offset, np.ascontiguousarray(piece).data.cast("B"))

    def read(self, row: int, height: int) -> PixelArray:
        """(B,h,W) pixels from their place.

        Raises:
            OSError: The file cannot be read, or ends early.
        """
        bands, _, width = self.shape
        pixels: PixelArray = np.empty((bands, height, width), self.dtype)
        for offset, band, rows, cols in self._pieces(row, height):
            piece = np.empty((rows.stop - rows.start, BLOCK_PX), self.dtype)
            self._file.seek(offset)
            if self._file.readinto(piece.data.cast("B")) != piece.nbytes:
                raise OSError(errno.EIO, "the work file ends early")
            pixels[band, rows, cols] = piece[:, : min(cols.stop, width) - cols.start]
        return pixels

    def fileno(self) -> int:
        """The system's number of the open file."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file; it is whole at any time."""
        self._file.close()

    def _pieces(self, row: int, height: int) -> Iterator[tuple[int, int, slice, slice]]:
        """Where in the file the parts of some rows lie: offset, band, rows from the first of them, columns."""
        bands, _, width = self.shape
        for band in range(bands):
            start = row
            while start < row + height:
                line, within = divmod(start, BLOCK_PX)
                stop = min((line + 1) * BLOCK_PX, row + height)
                for number, col in enumerate(range(0, width, BLOCK_PX)):
                    offset = int(self._offsets[band, line, number]) + within * BLOCK_PX * self.dtype.itemsize
                    yield offset, band, slice(start - row, stop - row), slice(col, col + BLOCK_PX)
                start = stop

    def _put(self, offset: int, data: memoryview) -> None:
        self._file.seek(offset)
        while data:
            data = data[self._file.write(data) or 0 :]


def _offsets(made: Any) -> npt.NDArray[np.int64]:
    """(B, block rows, block columns) first byte of every block; 0 for one that is not in the file.

    Raises:
        OSError: The blocks are other than ours.
    """
    if made.compression is not None or set(made.block_shapes) != {(BLOCK_PX, BLOCK_PX)}:
        raise OSError(errno.EINVAL, "no work file of this version")
    lines, across = -(-made.height // BLOCK_PX), -(-made.width // BLOCK_PX)
    found = [
        int(made.get_tag_item(f"BLOCK_OFFSET_{col}_{line}", "TIFF", bidx=band + 1) or 0)
        for band in range(made.count)
        for line in range(lines)
        for col in range(across)
    ]
    return np.array(found, np.int64).reshape(made.count, lines, across)
