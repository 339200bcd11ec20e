"""Windows to normalised batches; reading runs one strip of tiles ahead of the engine.

A strip is one row of tiles, read at the full width of the scene: rows that two strips share are read once and
carried over, so every pixel is read exactly once whatever the overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from geoseg_cli.bundle import InputSpec
from geoseg_cli.grid import Grid, Window
from geoseg_cli.orientation import AS_STORED, Orientation
from geoseg_cli.tiles import Tile, TilePlan

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


class Pixels(Protocol):
    """Pixels of a window: ``pixels`` (P,H,W) in the file's own type, ``valid`` (H,W) bool."""

    @property
    def pixels(self) -> npt.NDArray[Any]:
        """(P, H, W) stored numbers of the present bands."""
        ...

    @property
    def valid(self) -> BoolArray:
        """(H, W) bool, False where any used band has no value."""
        ...


class Source(Protocol):
    """What batches need of a scene; ``scenes.Scene`` is one."""

    @property
    def grid(self) -> Grid:
        """Where the pixels lie."""
        ...

    @property
    def present(self) -> tuple[bool, ...]:
        """One flag per band of the input contract."""
        ...

    def read(self, window: Window) -> Pixels:
        """Read a window."""
        ...

    def to_reflectance(self, pixels: npt.NDArray[Any]) -> FloatArray:
        """Turn stored numbers (P,H,W) into reflectance float32."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Tiles that go through the engine together.

    Attributes:
        pixels: (N, C, T, T) float32, the network's input, turned as the network sees it.
        valid: (N, T, T) bool, turned alike, False where the scene has no value and in the padding.
        tiles: The N tiles, in the plan's order.
    """

    pixels: FloatArray
    valid: BoolArray
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """One row of tiles at the scene's full width, in the pieces in which its rows were read.

    To copy them into one array would cost time, and the memory of a second strip.

    Attributes:
        row: Its first row in the scene.
        pixels: Stored pixels (P,h,W) of successive rows.
        valid: Validity (h,W) of the same rows.
    """

    row: int
    pixels: tuple[npt.NDArray[Any], ...]
    valid: tuple[BoolArray, ...]

    @property
    def row_stop(self) -> int:
        """One past its last row in the scene."""
        return self.row + sum(len(piece) for piece in self.valid)


class Part(Protocol):
    """A part of the scene; a window is one."""

    def touches(self, other: Window, /) -> bool:
        """Whether a pixel of the window belongs to it."""
        ...


def batches(
    source: Source,
    plan: TilePlan,
    spec: InputSpec,
    size: int,
    keep: Part | None = None,
    orientation: Orientation = AS_STORED,
) -> Iterator[Batch]:
    """Cut a scene into normalised batches, in the plan's order.

    Args:
        source: The scene.
        plan: Tiles over the scene's grid.
        spec: How pixels are normalised.
        size: Tiles in a batch; the last one may hold fewer.
        keep: Only tiles that touch this part are made; all of them when None.
        orientation: How tiles are turned before the network sees them.

    Yields:
        Batches. Tiles without a valid pixel are left out: there is nothing to predict in them.
    """
    pending: list[tuple[Tile, FloatArray, BoolArray]] = []
    for strip, tiles in _strips(source, plan, keep or source.grid.window):
        for tile in tiles:
            made = _tile_input(source, plan, spec, strip, tile, orientation)
            if made is not None:
                pending.append((tile, *made))
            if len(pending) == size:
                yield _stack(pending)
                pending = []
    if pending:
        yield _stack(pending)


def _strips(source: Source, plan: TilePlan, keep: Part) -> Iterator[tuple[Strip, list[Tile]]]:
    rows = [
        [tile for col in range(len(plan.cols.starts)) if keep.touches((tile := plan[row, col]).window)]
        for row in range(len(plan.rows.starts))
    ]
    rows = [tiles for tiles in rows if tiles]
    with ThreadPoolExecutor(1, thread_name_prefix="geoseg-read") as reader:
        strip: Strip | None = None
        ahead = reader.submit(_read_strip, source, strip, rows[0][0].window) if rows else None
        for index, tiles in enumerate(rows):
            assert ahead is not None
            strip = ahead.result()
            if index + 1 < len(rows):
                ahead = reader.submit(_read_strip, source, strip, rows[index + 1][0].window)
            yield strip, tiles


def _read_strip(source: Source, last: Strip | None, window: Window) -> Strip:
    """Read the rows of a window that the last strip does not hold yet."""
    carried = max(0, last.row_stop - window.row) if last else 0
    width = source.grid.width
    fresh = source.read(Window(window.row + carried, 0, window.height - carried, width))
    if last is None or carried == 0:
        return Strip(window.row, (fresh.pixels,), (fresh.valid,))
    pixels, valid = _last_rows(last.pixels, carried), _last_rows(last.valid, carried)
    return Strip(window.row, (pixels, fresh.pixels), (valid, fresh.valid))


def _last_rows(pieces: tuple[npt.NDArray[Any], ...], count: int) -> npt.NDArray[Any]:
    """A copy (..., count, W) of the last rows of pieces (..., h, W): a view would hold on to all rows above."""
    last = pieces[-1] if pieces[-1].shape[-2] >= count else np.concatenate(pieces, axis=-2)
    return last[..., -count:, :].copy()


def _columns(pieces: tuple[npt.NDArray[Any], ...], cols: slice) -> npt.NDArray[Any]:
    """Columns (..., H, w) of all pieces (..., h, W)."""
    cut = [piece[..., cols] for piece in pieces]
    return cut[0] if len(cut) == 1 else np.concatenate(cut, axis=-2)


def _tile_input(
    source: Source, plan: TilePlan, spec: InputSpec, strip: Strip, tile: Tile, orientation: Orientation
) -> tuple[FloatArray, BoolArray] | None:
    valid = orientation.turn(_columns(strip.valid, tile.window.cols))
    if not valid.any():
        return None
    reflectance = orientation.turn(source.to_reflectance(_columns(strip.pixels, tile.window.cols)))
    height, width = orientation.shape(plan.tile_height, plan.tile_width)
    below, right = height - valid.shape[0], width - valid.shape[1]
    if below or right:
        # Mirrored, not constant: the network must not see an edge where the scene ends.
        reflectance = np.pad(reflectance, ((0, 0), (0, below), (0, right)), mode="symmetric")
        shown = np.pad(valid, ((0, below), (0, right)), mode="symmetric")
        valid = np.pad(valid, ((0, below), (0, right)))
    else:
        shown = valid
    return spec.apply(reflectance, shown, source.present), valid


def _stack(pending: list[tuple[Tile, FloatArray, BoolArray]]) -> Batch:
    tiles, pixels, valid = zip(*pending, strict=True)
    # On a CPU every tile is a batch of its own: there is nothing to copy together.
    together = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
    return Batch(together, np.stack(valid), tiles)
