"""A sample of a scene's numbers, from all over it and cheap: few blocks are decoded, and each of them is used whole.

What decides on radiometry, or doubts it, looks at a sample before anything is computed. Decoding is what it costs: a
JPEG 2000 scene has a hundred blocks, and a window that lies across the corner of four decodes them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.grid import Grid, Window
from geoseg_cli.scenes.raster_file import BlockShape

BoolArray = npt.NDArray[np.bool_]

_SAMPLE_PX = 128 * 128
"""Numbers that one window of a sample gives of each band at most."""

_LARGEST_WINDOW_PX = 1024
"""Side of the windows of a sample in blocks that are larger than its square."""

_FEWEST_WINDOWS, _MANY_WINDOWS, _MOST_WINDOWS = 4, 16, 256
_BLOCKS_PER_WINDOW = 32
"""A sample decodes one block of so many, but for the fewest and the most windows."""

_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples without their whole part never bunch: their order spreads columns over rows, however many there are."""


def sample_windows(
    read: Callable[[Window], tuple[npt.NDArray[Any], BoolArray]], grid: Grid, block: BlockShape
) -> npt.NDArray[Any]:
    """Numbers (P, n) of valid pixels from windows spread evenly over a grid; n may be 0.

    Every window is a whole block, of which evenly spaced pixels are taken: they cost what its first pixel costs.

    Args:
        read: Gives (P, H, W) numbers and (H, W) bool validity of a window.
        grid: Where the pixels lie.
        block: Pixels that are stored together.
    """
    cell = _sample_cell(grid, block)
    cells = -(-grid.height // cell.height) * -(-grid.width // cell.width)
    few = min(max(cells // _BLOCKS_PER_WINDOW, _FEWEST_WINDOWS), _MANY_WINDOWS)
    # A scene that is nearly all nodata gets a closer look.
    for count in dict.fromkeys((few, _MANY_WINDOWS, _MOST_WINDOWS)):
        found = np.concatenate([_thinned(*read(window)) for window in spread_windows(grid, cell, count)], axis=1)
        if found.shape[1] >= 1000 or count >= cells:
            break
    return found


def spread_windows(grid: Grid, cell: BlockShape, count: int) -> list[Window]:
    """About ``count`` cells of a grid, spread evenly over it; all of them where there are no more."""
    rows, cols = -(-grid.height // cell.height), -(-grid.width // cell.width)
    if count >= rows * cols:
        places = {(row, col) for row in range(rows) for col in range(cols)}
    else:
        # One in each of `count` bands of rows and of columns, as queens on a chessboard.
        order = np.argsort((0.5 + np.arange(count) * _GOLDEN) % 1)
        places = {
            ((2 * i + 1) * rows // (2 * count), (2 * int(j) + 1) * cols // (2 * count)) for i, j in enumerate(order)
        }
    windows = (Window(row * cell.height, col * cell.width, cell.height, cell.width) for row, col in sorted(places))
    return [window.intersection(grid.window) for window in windows]


def _sample_cell(grid: Grid, block: BlockShape) -> BlockShape:
    """What a sample looks at together: a block, several where they are small, a part of one that is large."""
    height, width = min(block.height, grid.height), min(block.width, grid.width)
    if height * width > _LARGEST_WINDOW_PX**2:
        return BlockShape(min(height, _LARGEST_WINDOW_PX), min(width, _LARGEST_WINDOW_PX))
    side = math.isqrt(_SAMPLE_PX)
    width *= max(1, -(-min(side, grid.width) // width))
    height *= max(1, -(-_SAMPLE_PX // (height * width)))
    return BlockShape(min(height, grid.height), width)


def _thinned(pixels: npt.NDArray[Any], valid: BoolArray) -> npt.NDArray[Any]:
    """Numbers (P, n) of evenly spaced valid pixels of (P, H, W)."""
    step = math.isqrt(max(0, valid.size - 1) // _SAMPLE_PX) + 1
    return pixels[:, ::step, ::step][:, valid[::step, ::step]]
