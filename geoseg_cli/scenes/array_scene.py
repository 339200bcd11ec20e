"""A scene that somebody holds as an :class:`xarray.DataArray`: in memory, as dask chunks, or not read yet.

array = rioxarray.open_rasterio("scene.tif", chunks=True)  # or one of the two below; without dask, leave out chunks
array = xarray.open_zarr("cube.zarr", decode_coords="all")[["B02", "B03", "B04"]].isel(time=0).to_dataarray("band")
array = xarray.open_dataset("scene.nc", decode_coords="all", chunks={})[["B02", "B03", "B04"]].to_dataarray("band")
with open_array(array, bundle.input_spec) as scene:
    patch = scene.read(window)

Without ``decode_coords`` xarray leaves the CRS behind. Only the windows that are read are computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from rasterio.errors import RasterioError

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import InputError, StorageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.scenes import Scene, SceneOptions, match_product
from geoseg_cli.scenes.array_metadata import (
    Packing,
    band_names,
    file_below,
    grid_of_array,
    is_in_memory,
    name_of_array,
    nodata_of_array,
    ordered_array,
    packings,
    stored_packing,
)
from geoseg_cli.scenes.bands import BandMatch
from geoseg_cli.scenes.integrity import FileIdentity
from geoseg_cli.scenes.parts import Validity
from geoseg_cli.scenes.product import Layer, Product
from geoseg_cli.scenes.radiometry import Evidence, decide_radiometry, refuse_rendered
from geoseg_cli.scenes.raster_file import BlockShape, grid_warnings, valid_numbers
from geoseg_cli.scenes.sample import sample_windows

if TYPE_CHECKING:
    from xarray import DataArray

BoolArray = npt.NDArray[np.bool_]

_MEMORY_BYTES: Final = 256 * 2**20
"""Largest row of chunks that is kept for the next read."""

_READ_TROUBLES: Final = (OSError, ValueError, RuntimeError, KeyError, RasterioError)
"""What the libraries below xarray raise when a chunk cannot be read or decoded."""


class ArraySource:
    """The wanted bands of an array: a :class:`geoseg_cli.scenes.Source`. :meth:`read` may be called by many threads.

    Attributes:
        grid: Where the pixels lie.
        nodata_reason: Where validity comes from, as a sentence.
        block_shape: Rows and columns of a chunk; the whole array where it is in memory, rows where nothing says.
        column_step: None, as whole rows of chunks are kept.
        warnings: What the user should know.
    """

    def __init__(
        self, array: DataArray, grid: Grid, numbers: Sequence[int], rules: Validity, nodata: tuple[float | None, str]
    ) -> None:
        """Wrap an array.

        Args:
            array: (band, y, x) in this order.
            grid: Its grid.
            numbers: Wanted bands, from 1, in the order of the network.
            rules: What the user says about pixels that mean nothing.
            nodata: The number that means nothing, None where there is none, and where it comes from, as a sentence.
        """
        self.grid, self._array, self._rules = grid, array, rules
        self._places = [number - 1 for number in numbers]
        self._nodata, self.nodata_reason = nodata
        self.block_shape = _block_shape(array)
        self.column_step = None
        self.warnings = grid_warnings(grid)
        self._last: tuple[int, npt.NDArray[Any]] | None = None
        row_bytes = grid.width * len(self._places) * array.dtype.itemsize
        self._keeps_rows = not is_in_memory(array) and self.block_shape.height * row_bytes <= _MEMORY_BYTES

    def read(self, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
        """Compute a window.

        Returns:
            (P, H, W) numbers of the wanted bands in the array's dtype, float32 with NaN for what means nothing where
            any valid band is enough, and (H, W) bool validity.

        Raises:
            StorageError: What lies below the array cannot be read there.
        """
        assert window.intersection(self.grid.window) == window, f"{window} leaves the grid"
        pixels = self._load(window)
        each = valid_numbers(pixels, [self._nodata] * len(pixels), self._rules.keeps_saturated)
        if self._rules.combine == "all":
            return pixels, np.asarray(each.all(axis=0))
        return np.where(each, pixels, np.float32(np.nan)).astype(np.float32), np.asarray(each.any(axis=0))

    def _load(self, window: Window) -> npt.NDArray[Any]:
        """(P, H, W) of a window. Of full rows, those of the last chunk are kept: the next strip begins in it."""
        if not self._keeps_rows or window.width < self.grid.width:
            return self._compute(window)
        pieces, start = [], window.row
        # Read once: another thread may put other rows there.
        if (last := self._last) is not None and last[0] <= start < last[0] + last[1].shape[1]:
            pieces.append(last[1][:, start - last[0] : window.row_stop - last[0]])
            start += pieces[0].shape[1]
        if start < window.row_stop:
            side = self.block_shape.height
            stop = min(-(-window.row_stop // side) * side, self.grid.height)
            fresh = self._compute(Window(start, 0, stop - start, window.width))
            kept_from = max(start, (stop - 1) // side * side)
            self._last = kept_from, fresh[:, kept_from - start :].copy()
            pieces.append(fresh[:, : window.row_stop - start])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)

    def _compute(self, window: Window) -> npt.NDArray[Any]:
        band, y, x = self._array.dims
        # Cut first: numpy would copy the whole bands.
        cut = self._array.isel({y: window.rows, x: window.cols}).isel({band: self._places})
        try:
            return np.asarray(cut.to_numpy())
        except _READ_TROUBLES as error:
            raise StorageError(
                f"{name_of_array(self._array)}: cannot read rows {window.row} to {window.row_stop - 1},"
                f" columns {window.col} to {window.col_stop - 1} ({error})",
                "open the array again, and look whether all of what it was opened from is there",
            ) from error

    def sample(self) -> npt.NDArray[Any]:
        """Numbers (P, n) of valid pixels from windows spread evenly over the array; n may be 0."""
        return sample_windows(self.read, self.grid, self.block_shape)

    @property
    def number_bytes(self) -> int:
        """Bytes of each number that :meth:`read` gives."""
        return max(self._array.dtype.itemsize, 4 if self._rules.combine == "any" else 1)

    @property
    def working_bytes(self) -> int:
        """Bytes per pixel that :meth:`read` takes beside what it gives: the validity of each band."""
        return len(self._places)

    def bytes_in_cache(self, rows: int) -> int:
        """Bytes that GDAL's block cache needs for ``rows`` successive rows: arrays of rioxarray are read through it."""
        block_rows = -(-(rows - 1) // self.block_shape.height) + 1
        high = min(block_rows * self.block_shape.height, self.grid.height)
        return 0 if is_in_memory(self._array) else high * self.grid.width * len(self._places) * self._itemsize

    @property
    def _itemsize(self) -> int:
        return int(self._array.dtype.itemsize)

    def close(self) -> None:
        """Forget what was kept; the array belongs to whoever opened it."""
        self._last = None


def open_array(
    array: DataArray, input_spec: InputSpec, options: SceneOptions | None = None, gsd_m: float = 10.0
) -> Scene:
    """Use an array as a scene.

    Bands are called as the coordinate of the band dimension says, or else ``attrs["long_name"]``. The grid comes from
    the x and y coordinates (pixel centres, ascending or descending) and from ``array.rio.crs``; a stored transform that
    fits the coordinates gives the exact numbers. The nodata number is that of ``array.rio.nodata``.

    Args:
        array: Dimensions band, y and x in any order, or y and x for one band; whole numbers or floats.
        input_spec: Bands that the network wants.
        options: What the user says; ``drivers`` and ``allow_network`` mean nothing here, the array is open already.
        gsd_m: As of :func:`geoseg_cli.scenes.open_scene`; all bands of an array have one pixel size, so it decides
            nothing.

    Returns:
        A scene that reads windows of the array; closing it leaves the array open.

    Raises:
        UsageError: rioxarray is missing, or an option contradicts the array.
        GridError: Coordinates are missing or not regular.
        RadiometryError: Nothing says what the numbers mean, or whether their scale is applied.
        InputError: The array has other dimensions or numbers (as a subclass: other bands).
    """
    options = options or SceneOptions()
    ordered = ordered_array(array)
    where = name_of_array(ordered)
    packed, unpacked = packings(ordered)
    refuse_rendered(where, (ordered.dtype.name,), packed.says_something)
    _refuse_giants(ordered, options.max_pixels)
    grid, warnings = grid_of_array(ordered)
    source_file = file_below(ordered)
    layers = tuple(Layer(name, str(where)) for name in band_names(ordered))
    product = Product(
        "xarray.DataArray", where, layers, members=(source_file,) if source_file else (), warnings=warnings
    )
    match = match_product(product, input_spec, options)
    rules = Validity(options.nodata, options.valid, options.saturated)
    # Of the array as it was given: rioxarray forgets a nodata number when dimensions are turned.
    source = ArraySource(ordered, grid, match.held_numbers, rules, nodata_of_array(array, rules))
    identities = {member: FileIdentity.of(member) for member in product.members}
    stored = stored_packing(ordered, packed, unpacked, options.radiometry)
    radiometry = decide_radiometry(options.radiometry, gather_evidence(source, ordered, match, stored))
    if radiometry.rung == "float" and unpacked.says_something:
        radiometry = replace(radiometry, reason=f"{radiometry.reason}; {unpacked} was applied when they were opened")
    means = [input_spec.mean[input_spec.bands.index(name)] for name in match.held_names]
    return Scene(product, source, match, radiometry, identities, tuple(means) if options.valid == "any" else ())


def gather_evidence(source: ArraySource, array: DataArray, match: BandMatch, stored: Packing) -> Evidence:
    """What the array says about its numbers."""
    places = [number - 1 for number in match.held_numbers]
    scales, offsets = ([values[place] for place in places] for values in (stored.scales, stored.offsets))
    dtypes = (array.dtype.name,) * len(places)
    # Rooted, so that the name of the working directory says nothing about the numbers.
    path = Path("/", name_of_array(array))
    return Evidence(path, match.held_names, dtypes, tuple(scales), tuple(offsets), source.sample)


def _block_shape(array: DataArray) -> BlockShape:
    """Rows and columns of the chunks in which an array is computed or stored; rows where nothing says."""
    _, y, x = array.dims
    if array.chunks is not None:
        return BlockShape(max(array.chunks[1]), max(array.chunks[2]))
    stated = array.encoding.get("preferred_chunks") or {}
    if is_in_memory(array):
        return BlockShape(array.shape[1], array.shape[2])
    if not isinstance(stated, Mapping) or y not in stated or x not in stated:
        return BlockShape(1, array.shape[2])
    return BlockShape(min(int(stated[y]), array.shape[1]), min(int(stated[x]), array.shape[2]))


def _refuse_giants(array: DataArray, max_pixels: int | None) -> None:
    _, height, width = array.shape
    if max_pixels is not None and height * width > max_pixels:
        raise InputError(
            f"{name_of_array(array)} has {height} x {width} px; up to {max_pixels} pixels are accepted",
            f"cut it with .isel(...), or raise SceneOptions.max_pixels to {height * width}",
        )
