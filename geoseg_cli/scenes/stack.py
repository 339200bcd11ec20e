"""Reads the bands of a product from one file or many, of one pixel size or several, as one stack.

The grid is that of the band whose pixels are nearest to the model's. Coarser bands are repeated, finer ones averaged:
a pixel's value never depends on the window that is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from geoseg_cli.errors import GridError, InputError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.scenes.product import Driver, Layer, Product, Quality
from geoseg_cli.scenes.raster_file import Nodata, RasterFile, open_raster
from geoseg_cli.scenes.sample import sample_windows

BoolArray = npt.NDArray[np.bool_]

_TOLERANCE_PX = 1e-3
_MOST_DRIFT_PX = 0.01
"""By how much pixels that nest may be off at the far end of the scene; coordinates are rounded to far less."""


@dataclass(frozen=True, slots=True)
class Validity:
    """What the user says about pixels that mean nothing; see ``SceneOptions``.

    Attributes:
        nodata: The number that means nothing; ``"auto"`` for what layers and files say.
        combine: ``all`` bands must mean something, or ``any`` of them.
        keeps_saturated: Whether the largest number of an integer type means something.
    """

    nodata: Nodata = "auto"
    combine: Literal["all", "any"] = "all"
    keeps_saturated: bool = True


@dataclass(frozen=True, slots=True)
class _Part:
    """Bands of the stack that one file holds.

    Attributes:
        file: The open file.
        numbers: Band numbers in the file, from 1.
        places: Where these bands stand in the stack, from 0; empty for a quality band.
        enlarge: Rows of the stack per row of the file; 1 where the file is finer.
        shrink: Rows of the file per row of the stack; 1 where the file is coarser.
    """

    file: RasterFile
    numbers: tuple[int, ...]
    places: tuple[int, ...]
    enlarge: int = 1
    shrink: int = 1

    def window(self, window: Window) -> Window:
        """Pixels of the file that a window of the stack needs."""
        row, col = (start * self.shrink // self.enlarge for start in (window.row, window.col))
        stop = [-(-end * self.shrink // self.enlarge) for end in (window.row_stop, window.col_stop)]
        return Window(row, col, stop[0] - row, stop[1] - col)

    def rows(self, rows: int) -> int:
        """Most rows of the file that ``rows`` successive rows of the stack touch."""
        return rows * self.shrink if self.enlarge == 1 else (rows - 2) // self.enlarge + 2 if rows > 1 else 1

    def fit(self, pixels: npt.NDArray[Any], window: Window, is_mask: bool = False) -> npt.NDArray[Any]:
        """Bring (..., h, w) of the file to the (..., H, W) of a window of the stack."""
        if self.shrink > 1:
            blocks = pixels.reshape(*pixels.shape[:-2], window.height, self.shrink, window.width, self.shrink)
            return np.asarray(blocks.all(axis=(-3, -1)) if is_mask else _averaged(blocks))
        if self.enlarge > 1:
            row, col = window.row % self.enlarge, window.col % self.enlarge
            large = pixels.repeat(self.enlarge, axis=-2).repeat(self.enlarge, axis=-1)
            return large[..., row : row + window.height, col : col + window.width]
        return pixels

    def read(self, window: Window, rules: Validity) -> tuple[npt.NDArray[Any], BoolArray]:
        """(p, H, W) numbers of this file's bands and (H, W) validity in a window of the stack.

        Where any valid band is enough, the numbers are float32 with NaN for those that mean nothing.
        """
        where = self.window(window)
        if rules.combine == "all":
            pixels, valid = self.file.read(self.numbers, where, rules.keeps_saturated)
            return self.fit(pixels, window), self.fit(valid, window, is_mask=True)
        pixels, each = self.file.read_each(self.numbers, where, rules.keeps_saturated)
        fitted = self.fit(np.where(each, pixels, np.float32(np.nan)).astype(np.float32), window)
        return fitted, np.isfinite(fitted).any(axis=0)

    def dtype(self, rules: Validity) -> np.dtype[Any]:
        """Of the numbers that :meth:`read` gives."""
        is_computed = rules.combine == "any" or self.shrink > 1
        return np.dtype(np.float32) if is_computed else self.file.dtype_of(self.numbers)

    def read_into(self, pixels: npt.NDArray[Any], window: Window, rules: Validity) -> BoolArray:
        """Fill this file's places of the stack's (P, H, W); returns (H, W) validity."""
        first, last = self.places[0], self.places[-1]
        is_as_stored = self.enlarge == self.shrink == 1 and rules.combine == "all"
        if is_as_stored and last - first + 1 == len(self.places) and pixels.dtype == self.dtype(rules):
            target = pixels[first : last + 1]
            return self.file.read(self.numbers, window, rules.keeps_saturated, target)[1]
        pixels[list(self.places)], valid = self.read(window, rules)
        return valid


class _FileKey(NamedTuple):
    """An open file: what it is opened with decides what it says of its pixels."""

    name: str
    driver: Driver
    nodata: Nodata
    says: str = "--nodata"


class Stack:
    """The wanted bands of a product, open. :meth:`read` may be called by many threads at once.

    Attributes:
        grid: Where the pixels lie.
        dtypes: Numpy name of each band's dtype as it is stored.
        scales, offsets: Tags of each band; 1 and 0 where there are none.
        nodata_reason: Where validity comes from, as a sentence.
        block_shape: Pixels of the grid's own file that are stored together.
        warnings: What the user should know.
        gsd_note: Which bands are stored at another pixel size, as a sentence; None where all have one.
    """

    def __init__(
        self,
        parts: Sequence[_Part],
        quality: tuple[Quality, _Part] | None,
        count: int,
        rules: Validity,
        files: Mapping[_FileKey, RasterFile],
    ) -> None:
        self._parts, self._quality, self._rules, self._files = tuple(parts), quality, rules, files
        reference = next(part for part in parts if part.enlarge == part.shrink == 1)
        self.grid, self.block_shape = reference.file.grid, reference.file.block_shape
        kinds = {part.dtype(rules) for part in parts}
        self._dtype = kinds.pop() if len(kinds) == 1 else np.dtype(np.float32)
        self.dtypes = _in_order(parts, count, lambda part, number: part.file.dtypes[number - 1])
        self.scales = _in_order(parts, count, lambda part, number: part.file.scales[number - 1])
        self.offsets = _in_order(parts, count, lambda part, number: part.file.offsets[number - 1])
        self.nodata_reason = "; ".join(dict.fromkeys(part.file.nodata_reason for part in parts))
        if quality:
            self.nodata_reason += f"; {quality[0].reason}"
        if rules.combine == "any":
            self.nodata_reason += "; valid where any band is (--valid any)"
        if not rules.keeps_saturated:
            self.nodata_reason += "; saturated numbers are lost"
        self.warnings: tuple[str, ...] = tuple(
            dict.fromkeys(warning for part in parts for warning in part.file.warnings)
        )

    def read(self, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
        """Read a window of all bands.

        Returns:
            (P, H, W) stored numbers, float32 where dtypes differ or finer bands were averaged, and (H, W) bool: where
            no band is nodata, masked, NaN or infinite, nor lost by the product's own quality band.

        Raises:
            StorageError: A file is truncated or damaged there.
        """
        pixels = np.empty((len(self.dtypes), window.height, window.width), self._dtype)
        first, *others = self._parts
        valid = first.read_into(pixels, window, self._rules)
        join = np.logical_and if self._rules.combine == "all" else np.logical_or
        for part in others:
            join(valid, part.read_into(pixels, window, self._rules), out=valid)
        if self._quality:
            valid &= self._kept(window)
        return pixels, valid

    def _kept(self, window: Window) -> BoolArray:
        """(H, W) bool: what the quality band does not call lost."""
        assert self._quality is not None
        quality, part = self._quality
        values = part.file.read(part.numbers, part.window(window))[0][0]
        return np.asarray(part.fit(~_is_lost(quality, values), window, is_mask=True))

    def read_small(self, window: Window, height: int, width: int) -> tuple[npt.NDArray[Any], BoolArray]:
        """Read a window as a smaller picture; a number is the nearest one, through overviews that lie in the files.

        Returns:
            (P, height, width) numbers as :meth:`read` gives them, and (height, width) bool, where all bands and the
            product's quality band say that they mean something.

        Raises:
            StorageError: A file is truncated or damaged there.
        """
        pixels = np.empty((len(self.dtypes), height, width), self._dtype)
        valid = np.ones((height, width), np.bool_)
        for part in self._parts:
            out = np.empty((len(part.numbers), height, width), part.file.dtype_of(part.numbers))
            numbers, known = part.file.read(part.numbers, part.window(window), self._rules.keeps_saturated, out)
            pixels[list(part.places)] = numbers
            valid &= known
        if self._quality:
            quality, part = self._quality
            values = np.empty((1, height, width), part.file.dtype_of(part.numbers))
            valid &= ~_is_lost(quality, part.file.read(part.numbers, part.window(window), out=values)[0][0])
        return pixels, valid

    def sample(self) -> npt.NDArray[Any]:
        """Stored numbers (P, n) of valid pixels from windows spread evenly over the scene; n may be 0."""
        return sample_windows(self.read, self.grid, self.block_shape)

    def bytes_in_cache(self, rows: int) -> int:
        """Bytes that GDAL's block cache needs for ``rows`` successive rows of the stack."""
        parts = [*self._parts, *([self._quality[1]] if self._quality else [])]
        return sum(part.file.bytes_in_cache(part.numbers, part.rows(rows)) for part in parts)

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    @property
    def number_bytes(self) -> int:
        """Bytes of each number that :meth:`read` gives."""
        return self._dtype.itemsize


def open_stack(
    product: Product,
    numbers: Sequence[int],
    gsd_m: float,
    rules: Validity | None = None,
    max_bytes: int | None = None,
    beside: Stack | None = None,
) -> Stack:
    """Open the bands of a product that are wanted, and its quality band.

    Args:
        product: What the layout said.
        numbers: Numbers of the wanted layers, from 1, in the order of the stack.
        gsd_m: Pixel size that the model was trained on, in metres: the band that comes nearest gives the grid.
        rules: What the user says about pixels that mean nothing.
        max_bytes: Largest uncompressed size of one file that is opened.
        beside: Another stack of the product, whose open files are used where both need one.

    Raises:
        GeosegError: A file cannot be opened, or the bands do not lie on grids that nest.
    """
    rules = rules or Validity()
    shared = beside._files if beside is not None else {}
    groups: dict[tuple[str, str], list[int]] = {}
    for place, number in enumerate(numbers):
        layer = product.layers[number - 1]
        groups.setdefault((layer.file, layer.driver), []).append(place)
    with ExitStack() as stack:
        parts, files = [], {}
        for places in groups.values():
            layers = [product.layers[numbers[place] - 1] for place in places]
            key = _key(layers[0], rules.nodata)
            file = files[key] = _open_file(key, max_bytes, shared)
            stack.callback(file.close)
            _refuse_absent_bands(file, layers, product)
            parts.append(_Part(file, tuple(layer.number for layer in layers), tuple(places)))
        grid = _nearest_grid([part.file.grid for part in parts], gsd_m)
        fitted = [_nested(part, grid, product) for part in parts]
        quality = None
        if product.quality is not None:
            key = _key(product.quality.layer, None)
            if key not in files:
                files[key] = _open_file(key, max_bytes, shared)
                stack.callback(files[key].close)
            file = files[key]
            _refuse_unfit_quality(file, product.quality, product)
            quality = (product.quality, _nested(_Part(file, (product.quality.layer.number,), ()), grid, product))
        made = Stack(fitted, quality, len(numbers), rules, files)
        stack.pop_all()
        return made


def _is_lost(quality: Quality, values: npt.NDArray[Any]) -> BoolArray:
    """Where values of a quality band call a pixel lost."""
    lost = np.isin(values, quality.lost_values)
    if quality.lost_bits:
        lost |= (values & values.dtype.type(quality.lost_bits)) != 0
    return lost


def _averaged(blocks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(..., H, W) averages of (..., H, n, W, n); NaN takes no part, and is what a block of nothing else becomes."""
    average = np.asarray(blocks.mean(axis=(-3, -1), dtype=np.float32))
    holes = np.isnan(average)
    if holes.any():
        numbers = np.moveaxis(blocks, -3, -2)[holes].reshape(np.count_nonzero(holes), -1)
        known = ~np.isnan(numbers)
        total = np.where(known, numbers, 0).sum(axis=1, dtype=np.float32)
        average[holes] = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
    return average


def _in_order(parts: Sequence[_Part], count: int, value: Any) -> tuple[Any, ...]:
    """One value per band of the stack."""
    found: list[Any] = [None] * count
    for part in parts:
        for place, number in zip(part.places, part.numbers, strict=True):
            found[place] = value(part, number)
    return tuple(found)


def _key(layer: Layer, nodata: Nodata) -> _FileKey:
    """The file of a layer and how it is read."""
    if nodata != "auto" or layer.nodata == "file":
        return _FileKey(layer.file, layer.driver, nodata)
    return _FileKey(layer.file, layer.driver, layer.nodata, "the product's nodata")


def _open_file(key: _FileKey, max_bytes: int | None, shared: Mapping[_FileKey, RasterFile]) -> RasterFile:
    if key in shared:
        return shared[key].share()
    return open_raster(key.name, key.driver, key.nodata, max_bytes, key.says)


def _refuse_absent_bands(file: RasterFile, layers: Sequence[Layer], product: Product) -> None:
    """Refuse metadata that list more bands than a file has."""
    most = max(layer.number for layer in layers)
    if most > len(file.dtypes):
        raise InputError(
            f"{product.path} lists band {most} of {file.path.name}, which has {len(file.dtypes)}",
            "download the product again",
        )


def _refuse_unfit_quality(file: RasterFile, quality: Quality, product: Product) -> None:
    """Refuse a quality band without the whole numbers whose bits or values tell what is lost."""
    if quality.layer.number > len(file.dtypes) or np.dtype(file.dtypes[quality.layer.number - 1]).kind not in "iu":
        raise InputError(
            f"{product.path}: the quality band {file.path.name} holds {file.dtypes[0]} numbers, it needs whole ones",
            "download the product again, or take this file out of it",
        )


def _nearest_grid(grids: Sequence[Grid], gsd_m: float) -> Grid:
    """The grid whose pixels are nearest to ``gsd_m``; of two the finer, without a CRS the one with most pixels."""

    def distance(grid: Grid) -> tuple[float, int]:
        steps = grid.gsd_m()
        size = 1.0 if steps is None else max(max(step, gsd_m) / min(step, gsd_m) for step in steps)
        return round(size, 3), -grid.height * grid.width

    return min(grids, key=distance)


def _nested(part: _Part, grid: Grid, product: Product) -> _Part:
    """The part with its ratio to the grid.

    Raises:
        GridError: Its pixels do not nest with those of the grid.
    """
    own = part.file.grid
    if own == grid:
        return part
    for enlarge, shrink in _ratios(own, grid):
        scaled = grid.transform @ grid.transform.scale(enlarge / shrink)
        near = [abs(a - b) for a, b in zip(own.transform, scaled, strict=True)]
        step = max(abs(own.transform.a), abs(own.transform.b), abs(own.transform.e))
        # A difference of the pixels' sides adds up over all of them.
        drift = max(near[0], near[1], near[3], near[4]) * max(own.height, own.width)
        is_near = max(near[2], near[5]) <= 0.5 * step * _TOLERANCE_PX and drift <= step * _MOST_DRIFT_PX
        covers = all(
            ours * enlarge >= theirs * shrink for ours, theirs in ((own.height, grid.height), (own.width, grid.width))
        )
        if own.crs == grid.crs and is_near and covers:
            return _Part(part.file, part.numbers, part.places, enlarge, shrink)
    raise GridError(
        f"{product.path}: {part.file.path.name} does not lie on the grid of the other bands: {_grid_words(own)},"
        f" they have {_grid_words(grid)}",
        "bring all bands to one grid: gdalwarp -te LEFT BOTTOM RIGHT TOP -tr X Y FILE",
    )


def _ratios(own: Grid, grid: Grid) -> Iterator[tuple[int, int]]:
    """How many rows of the grid a row of a file may be, as (enlarge, shrink)."""
    if not grid.height or not own.height:
        return
    size = abs(own.transform.determinant / grid.transform.determinant) ** 0.5
    yield (max(1, round(size)), 1) if size >= 1 else (1, max(1, round(1 / size)))


def _grid_words(grid: Grid) -> str:
    code = grid.crs.to_string() if grid.crs else "no CRS"
    step = abs(grid.transform.a) or abs(grid.transform.b)
    return (
        f"{grid.height} x {grid.width} px of {step:g} from ({grid.transform.c:g}, {grid.transform.f:g}) in {code[:40]}"
    )
