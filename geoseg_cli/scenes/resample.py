"""Shows the network a scene at another pixel size, and brings its answer back to the scene's own pixels.

The pixels that the network sees cover exactly the same ground: their number along each axis is the nearest whole one.
Coarser pixels are averages weighted by area, finer ones bilinear between centres. Along each axis this is a sum with
whole-number weights that depend on the pixel alone, so a value never depends on the window that is read. Lost pixels
take no part. A coarser pixel is valid where any part of it is, a finer one where its centre lies in a valid pixel:
so every valid pixel of the scene lies in one that the network sees, and gets an answer.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from geoseg_cli.errors import GridError, UsageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.rows import Rows, only_where
from geoseg_cli.scenes import FAR_GSD, NEAR_GSD, Scene, Source, size_ratio, sizes_told

if TYPE_CHECKING:
    from geoseg_cli.scenes.raster_file import BlockShape

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Gsd = float | Literal["auto", "native"]
"""Pixel size that the network sees: metres, the model's where the scene's differs much, or the scene's own."""

_CHUNK_BYTES = 16 * 2**20
"""Room for the numbers that are averaged at once."""

_BYTES_PER_NUMBER = 16
"""A float64, and another one that is added to it."""

_MEMORY_BYTES = 128 * 2**20
"""Room for the validity of rows whose answer is still to come; what does not fit is read again."""


class Touchable(Protocol):
    """What can tell whether it touches a window: an area, or a window."""

    def touches(self, window: Window) -> bool:
        """Whether they share a pixel."""


@dataclass(frozen=True, slots=True)
class _Length:
    """One axis of a grid in both pixel sizes: ``stored`` pixels cover what ``shown`` pixels cover."""

    stored: int
    shown: int

    @property
    def is_coarser(self) -> bool:
        """Whether a shown pixel covers at least one stored pixel."""
        return self.stored >= self.shown

    def first_stored(self, shown: int) -> int:
        """First stored pixel whose centre lies in this shown pixel or a later one."""
        return -(-(2 * self.stored * shown - self.shown) // (2 * self.shown))

    def shown_of(self, start: int, stop: int) -> IntArray:
        """(stop - start,) shown pixel that the centre of each stored pixel lies in."""
        centres = 2 * np.arange(start, stop, dtype=np.int64) + 1
        return centres * self.shown // (2 * self.stored)

    def reach(self, start: int, stop: int) -> tuple[int, int]:
        """First stored pixel, and one past the last, that shown pixels ``start`` to ``stop`` are made of."""
        index, _, _ = self.taps(start, stop)
        return int(index.min()), int(index.max()) + 1

    def taps(self, start: int, stop: int) -> tuple[IntArray, FloatArray, BoolArray]:
        """What shown pixels are made of.

        Returns:
            Three (stop - start, T): number of a stored pixel, its weight (a whole number), and whether its validity
            makes the shown pixel valid.
        """
        number = np.arange(start, stop, dtype=np.int64)
        return self._shares(number) if self.is_coarser else self._neighbours(number)

    def _shares(self, number: IntArray) -> tuple[IntArray, FloatArray, BoolArray]:
        """Common length of shown and stored pixels in units in which both have whole sides."""
        common_side = math.gcd(self.stored, self.shown)
        most = -(-(self.stored + self.shown - common_side) // self.shown)  # stored pixels that one can meet
        left = (number * self.stored)[:, None]
        index = left // self.shown + np.arange(most)
        common = np.minimum(left + self.stored, (index + 1) * self.shown) - np.maximum(left, index * self.shown)
        weight = np.maximum(common, 0)
        return np.minimum(index, self.stored - 1), weight.astype(np.float64), weight > 0

    def _neighbours(self, number: IntArray) -> tuple[IntArray, FloatArray, BoolArray]:
        """The two stored centres around each shown centre; beyond the outermost one its number goes on."""
        place = (2 * number + 1) * self.stored - self.shown
        index = (place // (2 * self.shown))[:, None] + np.arange(2)
        far = (place % (2 * self.shown))[:, None]
        weight = np.concatenate([2 * self.shown - far, far], axis=1).astype(np.float64)
        nearest = ((2 * number + 1) * self.stored // (2 * self.shown))[:, None]
        return np.clip(index, 0, self.stored - 1), weight, index == nearest


class Resampled:
    """A :class:`geoseg_cli.scenes.Source` whose pixels have another size than those of the source below it.

    Numbers are float32 in the unit of the stored ones: averages of scaled numbers are scaled averages, so scale and
    offset still hold. :meth:`read` may be called by many threads at once.

    Attributes:
        grid: The pixels that are shown; same CRS, same ground, same direction of rows.
    """

    def __init__(self, source: Source, gsd_m: float) -> None:
        """Wrap a source, which is closed with this.

        Args:
            source: Stored pixels.
            gsd_m: Wanted pixel size in metres.

        Raises:
            GridError: The source's grid does not say how large its pixels are.
        """
        self.grid = resampled_grid(source.grid, gsd_m)
        self._source = source
        self._rows = _Length(source.grid.height, self.grid.height)
        self._cols = _Length(source.grid.width, self.grid.width)
        self._validity = _ValidityMemory(source.grid.width)

    @property
    def nodata_reason(self) -> str:
        """Where validity comes from, as a sentence."""
        return self._source.nodata_reason

    @property
    def block_shape(self) -> BlockShape:
        """Stored pixels that are stored together."""
        return self._source.block_shape

    @property
    def column_step(self) -> int | None:
        """None: what a shown pixel is made of is remembered by rows."""
        return None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know."""
        if self._rows.is_coarser and self._cols.is_coarser:
            return self._source.warnings
        text = "the scene is shown to the model with smaller pixels than it has: expect errors in small things"
        return (*self._source.warnings, text)

    def read(self, window: Window) -> tuple[npt.NDArray[np.float32], BoolArray]:
        """Read a window of shown pixels.

        Returns:
            (P, H, W) float32 numbers, 0 where invalid, and (H, W) bool validity. NaN where only other bands have
            a number, as in the source.
        """
        first, stop = self._cols.reach(window.col, window.col_stop)
        numbers_a_row = max(window.width, stop - first) * max(1, self._rows.stored // self._rows.shown)
        rows = max(1, _CHUNK_BYTES // (_BYTES_PER_NUMBER * numbers_a_row))
        pixels: npt.NDArray[np.float32] | None = None
        valid = np.empty((window.height, window.width), np.bool_)
        for start in range(0, window.height, rows):
            part = slice(start, min(start + rows, window.height))
            numbers, valid[part] = self._read(Window(window.row + start, window.col, part.stop - start, window.width))
            if pixels is None:
                pixels = np.empty((len(numbers), *valid.shape), np.float32)
            pixels[:, part] = numbers
        assert pixels is not None, "a window without rows was read"
        return pixels, valid

    def _read(self, window: Window) -> tuple[npt.NDArray[np.float32], BoolArray]:
        row, row_stop = self._rows.reach(window.row, window.row_stop)
        col, col_stop = self._cols.reach(window.col, window.col_stop)
        pixels, valid = self._source.read(Window(row, col, row_stop - row, col_stop - col))
        if valid.shape[1] == self._cols.stored:
            self._validity.keep(row, valid)
        down = _taps_from(row, self._rows.taps(window.row, window.row_stop))
        across = _taps_from(col, self._cols.taps(window.col, window.col_stop))
        shown = _any(_any(valid, down, 0), across, 1)
        weights = _sum(_sum(valid.astype(np.float64), down, 0), across, 1)
        numbers = np.zeros((len(pixels), *shown.shape), np.float32)
        for number, plane in zip(numbers, pixels, strict=True):  # plane by plane: float64 is large
            known, parts = valid, weights
            if plane.dtype.kind == "f" and np.isnan(plane[valid]).any():
                # One band of several has nothing here (--valid any): it takes no part in its average.
                known = valid & ~np.isnan(plane)
                parts = _sum(_sum(known.astype(np.float64), down, 0), across, 1)
                number[shown & (parts == 0)] = np.nan
            total = _sum(_sum(np.where(known, plane, 0).astype(np.float64), down, 0), across, 1)
            np.divide(total, parts, out=number, where=shown & (parts > 0), casting="same_kind")
        return numbers, shown

    @property
    def number_bytes(self) -> int:
        """Bytes of each number that :meth:`read` gives: those of float32."""
        return 4

    @property
    def working_bytes(self) -> int:
        """Bytes per shown pixel that reading the stored ones takes beside what it gives, rounded up."""
        stored = self._rows.stored * self._cols.stored
        return -(-self._source.working_bytes * stored // (self._rows.shown * self._cols.shown))

    def bytes_in_cache(self, rows: int) -> int:
        """Bytes that GDAL's block cache needs for ``rows`` successive rows of shown pixels."""
        return self._source.bytes_in_cache(min(self._rows.stored, rows * self._rows.stored // self._rows.shown + 2))

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def stored_window(self, window: Window) -> Window:
        """The stored pixels whose centres lie in a window of shown pixels; height or width 0 where there are none."""
        row, row_stop = map(self._rows.first_stored, (window.row, window.row_stop))
        col, col_stop = map(self._cols.first_stored, (window.col, window.col_stop))
        return Window(row, col, row_stop - row, col_stop - col)

    def restore(self, finished: Iterator[Rows], nodata: int) -> Iterator[Rows]:
        """Bring answers back to the stored pixels: each takes that of the shown pixel in which its centre lies.

        Args:
            finished: Rows of shown pixels, from the first to the last.
            nodata: Label of pixels without an answer.

        Yields:
            Rows of stored pixels, none larger than those that came; pixels that are invalid in the source are nodata.
        """
        for rows in finished:
            height, width = rows.labels.shape
            piece = max(1, height * width // self._cols.stored)
            start, stop = map(self._rows.first_stored, (rows.row, rows.row + height))
            for row in range(start, stop, piece):
                yield self._stored_rows(rows, row, min(row + piece, stop), nodata)

    def _stored_rows(self, rows: Rows, start: int, stop: int, nodata: int) -> Rows:
        lines = self._rows.shown_of(start, stop) - rows.row
        places = np.ix_(lines, self._cols.shown_of(0, self._cols.stored))
        valid = rows.valid[places]
        if valid.any():
            valid &= self._stored_validity(start, stop)
        probabilities = None
        if rows.probabilities is not None:
            probabilities = np.stack([np.where(valid, plane[places], np.float32(0)) for plane in rows.probabilities])
        labels = np.where(valid, rows.labels[places], rows.labels.dtype.type(nodata))
        confidence, seams = (
            None if plane is None else only_where(valid, plane[places]) for plane in (rows.confidence, rows.seams)
        )
        return Rows(start, labels, confidence, probabilities, valid, seams)

    def _stored_validity(self, start: int, stop: int) -> BoolArray:
        """(stop - start, W) bool of the source; remembered from reading, or else read again."""
        known = self._validity.take(start, stop)
        if known is not None:
            return known
        return self._source.read(Window(start, 0, stop - start, self._cols.stored))[1]


class _ValidityMemory:
    """Validity of whole stored rows from when they are read until their answer is there, one bit a pixel."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._most_rows = max(1, _MEMORY_BYTES // -(-width // 8))
        self._lines: dict[int, npt.NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def keep(self, row: int, valid: BoolArray) -> None:
        """Remember (H, W) from ``row`` on."""
        lines = [np.packbits(line) for line in valid]
        with self._lock:
            if len(self._lines) + len(lines) <= self._most_rows:
                self._lines.update(enumerate(lines, start=row))

    def take(self, start: int, stop: int) -> BoolArray | None:
        """(stop - start, W), None where a row is not known; rows before ``stop`` are forgotten."""
        with self._lock:
            lines = [self._lines.get(row) for row in range(start, stop)]
            for row in [row for row in self._lines if row < stop]:
                del self._lines[row]
        known = [line for line in lines if line is not None]
        if len(known) < len(lines):
            return None
        return np.unpackbits(np.stack(known), axis=1, count=self._width).astype(np.bool_)


@dataclass(frozen=True, slots=True)
class AreaOfView:
    """An area on the stored grid, asked about windows of shown pixels."""

    area: Touchable
    resampled: Resampled

    def touches(self, window: Window) -> bool:
        """Whether an answer in this window goes to a stored pixel of the area."""
        stored = self.resampled.stored_window(window)
        return stored.height > 0 and stored.width > 0 and self.area.touches(stored)


def resampled_grid(grid: Grid, gsd_m: float) -> Grid:
    """A grid over the same ground with pixels of about ``gsd_m``: a whole number of them along each axis.

    Raises:
        GridError: The grid does not say how large its pixels are.
    """
    steps = grid.gsd_m()
    if steps is None:
        raise GridError(
            "the scene has no CRS that tells how large its pixels are, so it cannot be resampled",
            "use --gsd native, or write the CRS into the file: gdal_edit.py -a_srs EPSG:NNNN FILE",
        )
    height, width = (
        max(1, round(size * step / gsd_m)) for size, step in zip((grid.height, grid.width), steps, strict=True)
    )
    transform = grid.transform @ grid.transform.scale(grid.width / width, grid.height / height)
    return Grid(grid.crs, transform, height, width)


def choose_gsd(
    grid: Grid,
    model_gsd_m: float,
    wish: Gsd,
    where: str = "the scene",
    gsd_range_m: tuple[float, float] | None = None,
) -> float | None:
    """Decide at which pixel size a scene is shown to the network.

    Args:
        grid: The scene's.
        model_gsd_m: Pixel size of the training data, in metres.
        wish: ``auto`` resamples where pixels differ from the model's by more than 25 %, ``native`` never, and a number
            of metres always.
        where: What the error message calls the scene.
        gsd_range_m: Smallest and largest pixel size of the training data; ``auto`` leaves what lies between as it is.

    Returns:
        Metres, or None where the scene is shown as it is stored.

    Raises:
        UsageError: ``wish`` is not a size, or more than four times off those of the model.
        GridError: ``auto``, and pixels are more than four times larger or smaller than the model's.
    """
    if wish == "native":
        return None
    if wish != "auto":
        if not (math.isfinite(wish) and wish > 0):
            raise UsageError(f"--gsd {wish:g} is no pixel size", "use auto, native, or metres above 0")
        _refuse_far_wish(wish, model_gsd_m, gsd_range_m)
        return wish
    steps = grid.gsd_m()
    if steps is None:
        return None
    ratio = size_ratio(steps, model_gsd_m, gsd_range_m)
    if ratio <= FAR_GSD:
        return model_gsd_m if ratio > NEAR_GSD else None
    height_m, width_m = steps
    raise GridError(
        f"{where} has pixels of {height_m:.4g} x {width_m:.4g} m (height x width), {ratio:.3g} times off the"
        f" {sizes_told(model_gsd_m, gsd_range_m)} of the model",
        f"--gsd {model_gsd_m:g} resamples it all the same; a result from much larger pixels is not to be trusted",
    )


def _refuse_far_wish(wish: float, model_gsd_m: float, gsd_range_m: tuple[float, float] | None) -> None:
    """Refuse a pixel size that the model cannot use, before it makes a grid that nothing could hold."""
    low, high = gsd_range_m or (model_gsd_m, model_gsd_m)
    if not low <= wish * FAR_GSD or not wish <= high * FAR_GSD:
        learned = sizes_told(model_gsd_m, gsd_range_m)
        raise UsageError(
            f"--gsd {wish:g}: the model was trained on pixels of {learned}, that is more than {FAR_GSD:g} times off",
            f"use --gsd auto, or --gsd {model_gsd_m:g}",
        )


def show_at(scene: Scene, gsd_m: float | None) -> tuple[Scene, Resampled | None]:
    """The scene as the network sees it, and what brings the answer back; both share the files of ``scene``.

    Args:
        scene: As stored; stays usable, and is the one to close.
        gsd_m: Pixel size in metres; None for the scene's own.
    """
    if gsd_m is None or resampled_grid(scene.grid, gsd_m) == scene.grid:
        return scene, None
    resampled = Resampled(scene.source, gsd_m)
    return replace(scene, source=resampled), resampled


def _taps_from(first: int, taps: tuple[IntArray, FloatArray, BoolArray]) -> tuple[IntArray, FloatArray, BoolArray]:
    """Taps counted from the first stored pixel that was read; those without weight may lie outside."""
    index, weight, counts = taps
    return index - first, weight, counts


def _sum(values: FloatArray, taps: tuple[IntArray, FloatArray, BoolArray], axis: int) -> FloatArray:
    """Weighted sum along an axis of (H, W), tap by tap: the order of the additions is the same in every window."""
    index, weight, _ = taps
    total: FloatArray | None = None
    for tap in range(index.shape[1]):
        share = values.take(index[:, tap], axis=axis)
        share *= weight[:, tap] if axis else weight[:, tap, None]
        total = share if total is None else np.add(total, share, out=total)
    assert total is not None
    return total


def _any(valid: BoolArray, taps: tuple[IntArray, FloatArray, BoolArray], axis: int) -> BoolArray:
    """Where any stored pixel that counts is valid, along an axis of (H, W)."""
    index, _, counts = taps
    found: BoolArray | None = None
    for tap in range(index.shape[1]):
        share = valid.take(index[:, tap], axis=axis)
        share &= counts[:, tap] if axis else counts[:, tap, None]
        found = share if found is None else np.logical_or(found, share, out=found)
    assert found is not None
    return found
