"""Reads the bands of a product from one file or many, of one pixel size or several, as one stack.

The grid is that of the band whose pixels are nearest to the model's. Files are read beside each other, each through
its own handle; what is read does not depend on how many at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from geoseg_cli.ahead import usable_cores
from geoseg_cli.errors import InputError
from geoseg_cli.grid import Window
from geoseg_cli.printable import counted
from geoseg_cli.recycling import RECYCLER
from geoseg_cli.scenes.file_threads import FileThreads, share_cores
from geoseg_cli.scenes.parts import MaskPart, Part, Validity, nearest_grid, nested
from geoseg_cli.scenes.product import BandMask, Driver, Layer, Product, Quality
from geoseg_cli.scenes.raster_file import Nodata, RasterFile, grid_warnings, open_raster
from geoseg_cli.scenes.sample import sample_windows
from geoseg_cli.scenes.sidecars import Sidecars, ignored_sidecars, supplement

BoolArray = npt.NDArray[np.bool_]


class _FileKey(NamedTuple):
    """An open file: what it is opened with decides what it says of its pixels."""

    name: str
    driver: Driver
    nodata: Nodata
    says: str = "--nodata"
    sidecars: Sidecars | None = None


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
        parts: Sequence[Part],
        quality: tuple[Quality, Part] | None,
        count: int,
        rules: Validity,
        files: Mapping[_FileKey, RasterFile],
    ) -> None:
        self._parts, self._quality, self._rules, self._files = tuple(parts), quality, rules, files
        self._all = (*parts, *([quality[1]] if quality else []))
        self._threads = FileThreads(_share_cores(self._all))
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
        masks = [part.mask for part in parts if part.mask is not None]
        self.nodata_reason += "".join(dict.fromkeys(f"; {mask.reason}" for mask in masks))
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
        pixels = RECYCLER.empty((len(self.dtypes), window.height, window.width), self._dtype)
        needs_all = self._rules.combine == "all"
        valid = np.full(pixels.shape[1:], needs_all)
        kept = np.ones(valid.shape if self._quality else (0, 0), np.bool_)
        lock = threading.Lock()

        def read(part: Part) -> None:
            if not part.places:
                kept[:] = self._kept(window)
                return
            known = part.read_into(pixels, window, self._rules)
            with lock:
                (np.logical_and if needs_all else np.logical_or)(valid, known, out=valid)

        self._threads.each(read, self._all)
        if self._quality:
            valid &= kept
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
            numbers, known = part.read_small(window, (height, width), self._rules)
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
        return sum(part.bytes_in_cache(rows) for part in self._all)

    @property
    def working_bytes(self) -> int:
        """Bytes per pixel that :meth:`read` takes beside what it gives, while as many files as may be are read."""
        each = sorted((part.working_bytes(self._rules) for part in self._all), reverse=True)
        return 1 + sum(each[: self._threads.count])

    def close(self) -> None:
        """End the threads and close all files."""
        self._threads.close()
        for file in self._files.values():
            file.close()

    @property
    def column_step(self) -> int | None:
        """Columns of the widest block of all files; None where the blocks of a file are decoded beside each other."""
        if any(part.file.decodes_beside for part in self._all):
            return None
        return max(part.columns(part.file.block_shape.width) for part in self._all)

    @property
    def number_bytes(self) -> int:
        """Bytes of each number that :meth:`read` gives."""
        return self._dtype.itemsize


def open_stack(
    product: Product,
    numbers: Sequence[int],
    gsd_m: float,
    rules: Validity | None = None,
    max_pixels: int | None = None,
    beside: Stack | None = None,
) -> Stack:
    """Open the bands of a product that are wanted, and its quality band.

    Args:
        product: What the layout said.
        numbers: Numbers of the wanted layers, from 1, in the order of the stack.
        gsd_m: Pixel size that the model was trained on, in metres: the band that comes nearest gives the grid.
        rules: What the user says about pixels that mean nothing.
        max_pixels: Largest rows x columns of one file that is opened.
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
        files: dict[_FileKey, RasterFile] = {}

        def opened(key: _FileKey) -> RasterFile:
            if key not in files:
                files[key] = _open_file(key, max_pixels, shared)
                stack.callback(files[key].close)
            return files[key]

        parts = []
        for places in groups.values():
            layers = [product.layers[numbers[place] - 1] for place in places]
            file = opened(_key(layers[0], rules.nodata))
            _refuse_absent_bands(file, layers, product)
            part = Part(file, tuple(layer.number for layer in layers), tuple(places))
            mask = layers[0].mask
            parts.append(part if mask is None else _masked(part, mask, opened(_mask_key(mask)), product))
        grid = nearest_grid([part.file.grid for part in parts], gsd_m)
        fitted = [nested(part, grid, str(product.path)) for part in parts]
        quality = None
        if product.quality is not None:
            file = opened(_key(product.quality.layer, None))
            _refuse_unfit_quality(file, product.quality.layer.number, product)
            part = Part(file, (product.quality.layer.number,), ())
            quality = (product.quality, nested(part, grid, str(product.path)))
        made = Stack(fitted, quality, len(numbers), rules, files)
        stack.pop_all()
        return made


def _share_cores(parts: Sequence[Part]) -> int:
    """Files to read at a time, once each knows how many threads it may decode with."""
    decodes_beside = any(part.file.decodes_beside for part in parts)
    readers, decoders = share_cores(len(parts), usable_cores(), decodes_beside)
    if readers > 1:
        for part in parts:
            part.limit_threads(decoders)
    return readers


def _masked(part: Part, mask: BandMask, file: RasterFile, product: Product) -> Part:
    """The part with what the product itself says of its pixels.

    Raises:
        GeosegError: The mask has too few bands, none of whole numbers, or does not lie on the part's pixels.
    """
    numbers = (*mask.lost, *mask.saturated)
    _refuse_unfit_quality(file, max(numbers), product)
    on_file = nested(Part(file, numbers, ()), part.file.grid, str(product.path))
    return replace(part, mask=MaskPart(on_file, mask.lost, mask.saturated, mask.reason))


def _mask_key(mask: BandMask) -> _FileKey:
    return _FileKey(mask.file, mask.driver, None)


def _is_lost(quality: Quality, values: npt.NDArray[Any]) -> BoolArray:
    """Where values of a quality band call a pixel lost."""
    lost = np.isin(values, quality.lost_values)
    if quality.lost_bits:
        lost |= (values & values.dtype.type(quality.lost_bits)) != 0
    return lost


def _in_order(parts: Sequence[Part], count: int, value: Any) -> tuple[Any, ...]:
    """One value per band of the stack."""
    found: list[Any] = [None] * count
    for part in parts:
        for place, number in zip(part.places, part.numbers, strict=True):
            found[place] = value(part, number)
    return tuple(found)


def _key(layer: Layer, nodata: Nodata) -> _FileKey:
    """The file of a layer and how it is read."""
    if nodata != "auto" or layer.nodata == "file":
        return _FileKey(layer.file, layer.driver, nodata, sidecars=layer.sidecars)
    return _FileKey(layer.file, layer.driver, layer.nodata, "the product's nodata")


def _open_file(key: _FileKey, max_pixels: int | None, shared: Mapping[_FileKey, RasterFile]) -> RasterFile:
    if key in shared:
        return shared[key].share()
    file = open_raster(key.name, key.driver, key.nodata, max_pixels, key.says)
    if key.sidecars is not None:
        supplement(file, key.sidecars, with_nodata=key.nodata == "auto")
        file.warnings = (*grid_warnings(file.grid), *ignored_sidecars(file.path, key.sidecars.files))
    return file


def _refuse_absent_bands(file: RasterFile, layers: Sequence[Layer], product: Product) -> None:
    """Refuse metadata that list more bands than a file has."""
    most = max(layer.number for layer in layers)
    if most > len(file.dtypes):
        raise InputError(
            f"{product.path} lists band {most} of {file.path.name}, which has {len(file.dtypes)}",
            "download the product again",
        )


def _refuse_unfit_quality(file: RasterFile, number: int, product: Product) -> None:
    """Refuse a quality band without the whole numbers whose bits or values tell what is lost."""
    if number > len(file.dtypes):
        raise InputError(
            f"{product.path}: the quality band {file.path.name} has {counted(len(file.dtypes), 'band')}, it needs"
            f" {number}",
            "download the product again, or take this file out of it",
        )
    if np.dtype(file.dtypes[number - 1]).kind not in "iu":
        raise InputError(
            f"{product.path}: the quality band {file.path.name} holds {file.dtypes[0]} numbers, it needs whole ones",
            "download the product again, or take this file out of it",
        )
