"""A scene that somebody holds as an :class:`xarray.DataArray`: in memory, as dask chunks, or not read yet.

array = rioxarray.open_rasterio("scene.tif", chunks=True)  # or one of the two below; without dask, leave out chunks
array = xarray.open_zarr("cube.zarr", decode_coords="all")[["B02", "B03", "B04"]].isel(time=0).to_dataarray("band")
array = xarray.open_dataset("scene.nc", decode_coords="all", chunks={})[["B02", "B03", "B04"]].to_dataarray("band")
with open_array(array, bundle.input_spec) as scene:
    patch = scene.read(window)

Without ``decode_coords`` xarray leaves the CRS behind. Only the windows that are read are computed.

What xarray has done to the numbers follows from where their scale stands: CF conventions 1.11, section 8.1, know
``scale_factor`` and ``add_offset`` as attributes of packed numbers, and xarray moves both to ``encoding`` when it
unpacks them. Arithmetic may keep attributes but drops the encoding, so floats with such attributes and nothing that
tells of a file may or may not be unpacked: they are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.errors import CRSError, RasterioError

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import GridError, InputError, RadiometryError, StorageError, UsageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.scenes import Scene, SceneOptions, match_product
from geoseg_cli.scenes.bands import BandMatch, known_names
from geoseg_cli.scenes.integrity import FileIdentity
from geoseg_cli.scenes.network import is_remote, redacted
from geoseg_cli.scenes.product import Layer, Product
from geoseg_cli.scenes.radiometry import Evidence, decide_radiometry, refuse_rendered
from geoseg_cli.scenes.raster_file import BlockShape, can_hold, grid_warnings, valid_numbers
from geoseg_cli.scenes.sample import sample_windows
from geoseg_cli.scenes.stack import Validity

if TYPE_CHECKING:
    from xarray import DataArray

BoolArray = npt.NDArray[np.bool_]

_TOLERANCE_PX: Final = 0.05
"""How far a coordinate may be off its place; float32 northings of 10 m pixels are off by up to 0.03."""

_MEMORY_BYTES: Final = 256 * 2**20
"""Largest row of chunks that is kept for the next read."""

_READ_TROUBLES: Final = (OSError, ValueError, RuntimeError, KeyError, RasterioError)
"""What the libraries below xarray raise when a chunk cannot be read or decoded."""


@dataclass(frozen=True, slots=True)
class _Packing:
    """How numbers are stored, as attributes or encoding say: one scale and offset per band."""

    scales: tuple[float, ...]
    offsets: tuple[float, ...]

    @property
    def says_something(self) -> bool:
        """Whether it is more than 1 and 0 everywhere."""
        return any(scale != 1 for scale in self.scales) or any(self.offsets)

    def __str__(self) -> str:
        pairs = dict.fromkeys(zip(self.scales, self.offsets, strict=True))
        return "; ".join(f"{scale:g} x number {offset:+g}" for scale, offset in pairs)


class ArraySource:
    """The wanted bands of an array: a :class:`geoseg_cli.scenes.Source`. :meth:`read` may be called by many threads.

    Attributes:
        grid: Where the pixels lie.
        nodata_reason: Where validity comes from, as a sentence.
        block_shape: Rows and columns of a chunk; the whole array where it is in memory, rows where nothing says.
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
        self.warnings = grid_warnings(grid)
        self._last: tuple[int, npt.NDArray[Any]] | None = None
        row_bytes = grid.width * len(self._places) * array.dtype.itemsize
        self._keeps_rows = not _is_in_memory(array) and self.block_shape.height * row_bytes <= _MEMORY_BYTES

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
                f"{_name(self._array)}: cannot read rows {window.row} to {window.row_stop - 1}, columns {window.col}"
                f" to {window.col_stop - 1} ({error})",
                "open the array again, and look whether all of what it was opened from is there",
            ) from error

    def sample(self) -> npt.NDArray[Any]:
        """Numbers (P, n) of valid pixels from windows spread evenly over the array; n may be 0."""
        return sample_windows(self.read, self.grid, self.block_shape)

    def bytes_in_cache(self, rows: int) -> int:
        """Bytes that GDAL's block cache needs for ``rows`` successive rows: arrays of rioxarray are read through it."""
        block_rows = -(-(rows - 1) // self.block_shape.height) + 1
        high = min(block_rows * self.block_shape.height, self.grid.height)
        return 0 if _is_in_memory(self._array) else high * self.grid.width * len(self._places) * self._itemsize

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
    ordered = _ordered(array)
    where = _name(ordered)
    packed, unpacked = _packings(ordered)
    refuse_rendered(where, (ordered.dtype.name,), packed.says_something)
    _refuse_giants(ordered, options.max_bytes)
    grid, warnings = _grid(ordered)
    source_file = _source_file(ordered)
    layers = tuple(Layer(name, str(where)) for name in _band_names(ordered))
    product = Product(
        "xarray.DataArray", where, layers, members=(source_file,) if source_file else (), warnings=warnings
    )
    match = match_product(product, input_spec, options)
    rules = Validity(options.nodata, options.valid, options.saturated)
    # Of the array as it was given: rioxarray forgets a nodata number when dimensions are turned.
    source = ArraySource(ordered, grid, match.held_numbers, rules, _nodata(array, rules))
    identities = {member: FileIdentity.of(member) for member in product.members}
    stored = _stored(ordered, packed, unpacked, options.radiometry)
    radiometry = decide_radiometry(options.radiometry, gather_evidence(source, ordered, match, stored))
    if radiometry.rung == "float" and unpacked.says_something:
        radiometry = replace(radiometry, reason=f"{radiometry.reason}; {unpacked} was applied when they were opened")
    means = [input_spec.mean[input_spec.bands.index(name)] for name in match.held_names]
    return Scene(product, source, match, radiometry, identities, tuple(means) if options.valid == "any" else ())


def _ordered(array: DataArray) -> DataArray:
    """The array as (band, y, x).

    Raises:
        UsageError: rioxarray is missing.
        InputError: The dimensions are others, or the pixels no real numbers.
    """
    try:
        import rioxarray  # noqa: F401  (adds the accessor .rio)
        from rioxarray.exceptions import MissingSpatialDimensionError
    except ImportError as error:
        raise UsageError("arrays need the package rioxarray", "install it: pip install rioxarray") from error
    where = _name(array)
    try:
        x, y = array.rio.x_dim, array.rio.y_dim
    except MissingSpatialDimensionError as error:
        raise InputError(
            f"{where}: none of the dimensions {_words(array.dims)} is called x and y",
            'say which they are: array.rio.set_spatial_dims(x_dim="...", y_dim="...")',
        ) from error
    others = [dim for dim in array.dims if dim not in (x, y)]
    if len(others) > 1:
        raise InputError(f"{where} has the dimensions {_words(array.dims)}", f"choose one {others[0]}: .isel(...=0)")
    if array.dtype.kind not in "iufc":
        raise InputError(f"{where} holds {array.dtype}, not numbers", "give whole numbers or floats")
    if 0 in array.shape:
        raise InputError(f"{where} is empty: {dict(array.sizes)}", "look at how it was cut")
    if not others:
        scalar = [name for name in ("band", "variable") if name in array.coords and array.coords[name].ndim == 0]
        array = array.expand_dims(scalar[0] if scalar else "band")
        others = [array.dims[0]]
    if array.sizes[others[0]] > 1 and _is_time(array, others[0]):
        raise InputError(f"{where}: its third dimension {others[0]} is time, not bands", "choose one: .isel(time=0)")
    return array.transpose(others[0], y, x)


def _is_time(array: DataArray, dim: Any) -> bool:
    return dim in array.coords and array.coords[dim].dtype.kind in "mM"


def _band_names(array: DataArray) -> list[str]:
    """Names of the bands, ``""`` where there is none: of the coordinate, or where no sensor knows them of long_name."""
    dim, count = array.dims[0], array.shape[0]
    stated = (
        [str(name) for name in array.coords[dim].to_numpy() if isinstance(name, str)] if dim in array.coords else []
    )
    long_name = array.attrs.get("long_name", array.name if count == 1 else None)
    titles = [long_name] if isinstance(long_name, str) else list(() if long_name is None else long_name)
    offers = [names for names in (stated, titles) if len(names) == count and all(isinstance(n, str) for n in names)]
    known = (names for names in offers if any(name.strip().casefold() in known_names() for name in names))
    return next(known, offers[0] if offers else [""] * count)


def _grid(array: DataArray) -> tuple[Grid, tuple[str, ...]]:
    """Where the pixels lie, and what to warn of.

    Raises:
        GridError: Coordinates are missing or not regular, or the CRS cannot be understood.
    """
    where = _name(array)
    _, y, x = array.dims
    height, width = array.shape[1:]
    try:
        crs = array.rio.crs
    except CRSError as error:
        raise GridError(
            f"{where}: its CRS cannot be understood ({error})", "set it: array.rio.write_crs(...)"
        ) from error
    stored = _stored_transform(array)
    if x in array.coords and y in array.coords:
        left, x_step = _axis(array, x, (stored.c, stored.a) if stored else None)
        top, y_step = _axis(array, y, (stored.f, stored.e) if stored else None)
        return Grid(crs, Affine(x_step, 0.0, left, 0.0, y_step, top), height, width), ()
    if stored is None:
        raise GridError(
            f"{where} is on no map grid: it has no x and y coordinates and no transform",
            "set them: array.rio.write_transform(...), or assign the coordinates of the pixel centres",
        )
    if "xc" in array.coords and "yc" in array.coords:
        return Grid(crs, _moved(array, stored), height, width), ()
    note = "the array has no x and y coordinates: its stored transform is right only if the array was never cut"
    return Grid(crs, stored, height, width), (note,)


def _stored_transform(array: DataArray) -> Affine | None:
    """The transform that rioxarray and GDAL keep beside the CRS; it is not updated when an array is cut.

    Raises:
        GridError: There are ground control points instead.
    """
    attrs = array.coords[array.rio.grid_mapping].attrs if array.rio.grid_mapping in array.coords else {}
    try:
        stored = Affine.from_gdal(*map(float, str(attrs.get("GeoTransform", "")).split()))
    except (TypeError, ValueError):
        stored = None
    is_useless = stored is None or stored.is_degenerate or not all(map(math.isfinite, stored[:6]))
    if "gcps" in attrs and (stored is None or stored.is_identity):
        raise GridError(
            f"{_name(array)} is not on a map grid: it carries only ground control points",
            "warp it first: array.rio.reproject(...), or gdalwarp",
        )
    return None if is_useless or (stored is not None and abs(stored.determinant) == 0) else stored


def _moved(array: DataArray, stored: Affine) -> Affine:
    """A rotated transform, moved to where the array's first pixel has its centre (``xc``, ``yc`` of rioxarray)."""
    x, y = (float(array.coords[name].isel(dict.fromkeys(array.coords[name].dims, 0))) for name in ("xc", "yc"))
    corner_x, corner_y = x - (stored.a + stored.b) / 2, y - (stored.d + stored.e) / 2
    step = math.sqrt(abs(stored.determinant))
    if math.hypot(corner_x - stored.c, corner_y - stored.f) < _TOLERANCE_PX * step:
        return stored
    return Affine(stored.a, stored.b, corner_x, stored.d, stored.e, corner_y)


def _axis(array: DataArray, dim: Any, stored: tuple[float, float] | None) -> tuple[float, float]:
    """Outer edge of the first pixel, and the step to the next one, from the coordinates of the centres.

    Args:
        array: (band, y, x).
        dim: ``x`` or ``y``, as it is called there.
        stored: The same two numbers of the stored transform, perhaps of an array that this one was cut out of.

    Raises:
        GridError: The coordinates are no regular steps.
    """
    centres = array.coords[dim].to_numpy().astype(np.float64)
    if len(centres) == 1 and stored is None:
        raise GridError(
            f"{_name(array)}: one pixel along {dim} does not say how large it is",
            "set it: array.rio.write_transform(...)",
        )
    step = float(centres[-1] - centres[0]) / (len(centres) - 1) if len(centres) > 1 else stored[1] if stored else 0.0
    off = np.abs(centres - (centres[0] + step * np.arange(len(centres))))
    if not step or not float(off.max()) <= _TOLERANCE_PX * abs(step):  # NaN compares as False
        raise GridError(
            f"{_name(array)}: the coordinates along {dim} are not evenly spaced"
            f" (from {centres[0]:.9g} to {centres[-1]:.9g}, up to {float(off.max()):.3g} off)",
            "bring the array to a regular grid: array.rio.reproject(...), or .interp(...)",
        )
    edge = float(centres[0]) - step / 2
    if stored is None:
        return edge, step
    shift = (edge - stored[0]) / stored[1] if stored[1] else math.inf
    fits = abs(stored[1] - step) * len(centres) <= _TOLERANCE_PX * abs(step)
    if fits and abs(shift - round(shift)) <= _TOLERANCE_PX:
        return stored[0] + round(shift) * stored[1], stored[1]
    return edge, step


def _nodata(array: DataArray, rules: Validity) -> tuple[float | None, str]:
    """The number that means nothing, None where there is none, and where it comes from.

    Raises:
        UsageError: No pixel can be the number that the user gives.
    """
    if rules.nodata is None:
        value, reason = None, "--nodata none: every finite number is data"
    elif rules.nodata == "auto":
        value, reason = _stated_nodata(array)
    else:
        value, reason = float(rules.nodata), f"--nodata {rules.nodata:g}"
        if array.dtype.kind != "f" and not can_hold(array.dtype, value):
            raise UsageError(
                f"--nodata {value:g}: no {array.dtype} number can be that", "give the number that fills the empty parts"
            )
    if rules.combine == "any":
        reason += "; valid where any band is (--valid any)"
    if not rules.keeps_saturated:
        reason += "; saturated numbers are lost" if array.dtype.kind != "f" else "; floats do not tell saturation"
    return value, reason


def _stated_nodata(array: DataArray) -> tuple[float | None, str]:
    encoded = array.encoding.get("_FillValue")
    if encoded is not None and array.dtype.kind == "f":
        return None, f"NaN, which stands for the nodata number {float(encoded):g}"
    value = _attribute_nodata(array) if encoded is None else encoded
    if value is None:
        return None, "no nodata number: every finite number is data"
    note = "" if can_hold(array.dtype, float(value)) or array.dtype.kind == "f" else f", which no {array.dtype} can be"
    return float(value), f"nodata number {float(value):g} of the array{note}"


def _attribute_nodata(array: DataArray) -> Any:
    """What the accessor or the attributes say; rioxarray refuses numbers that the dtype cannot hold."""
    try:
        return array.rio.nodata
    except (OverflowError, ValueError):
        return array.attrs.get("_FillValue", array.attrs.get("nodata"))


def _packings(array: DataArray) -> tuple[_Packing, _Packing]:
    """What the attributes say, of numbers that are still packed, and the encoding, of numbers that are not any more.

    Raises:
        RadiometryError: Neither a number, nor one for each band.
    """

    def packing(held: Mapping[Any, Any]) -> _Packing:
        """Scale and offset of each band, 1 and 0 where nothing is said."""
        names = (("scale_factor", "scales", 1.0), ("add_offset", "offsets", 0.0))
        each = (held.get(one, held.get(many, default)) for one, many, default in names)
        return _Packing(*(_per_band(array, value) for value in each))

    return packing(array.attrs), packing(array.encoding)


def _per_band(array: DataArray, value: Any) -> tuple[float, ...]:
    try:
        numbers = np.atleast_1d(np.asarray(value, np.float64))
        return tuple(float(number) for number in np.broadcast_to(numbers, (array.shape[0],)))
    except (TypeError, ValueError) as error:
        raise RadiometryError(
            f"{_name(array)}: the scale or offset {value!r:.60} is not one number, nor one for each of the"
            f" {array.shape[0]} bands",
            'correct array.attrs["scale_factor"] and ["add_offset"]',
        ) from error


def _stored(array: DataArray, packed: _Packing, unpacked: _Packing, choice: str) -> _Packing:
    """The scale and offset that are still to be applied.

    Raises:
        RadiometryError: It cannot be told whether they are applied, and the user does not say what the numbers mean.
    """
    nothing = _Packing((1.0,) * array.shape[0], (0.0,) * array.shape[0])
    if choice != "auto":
        return packed
    if packed.says_something and unpacked.says_something:
        _refuse_unclear(array, "both its attributes and its encoding hold a scale")
    # Opened with a mask but without scaling: floats, whose encoding still tells the file's type.
    is_of_file = any(key in array.encoding for key in ("dtype", "rasterio_dtype"))
    if packed.says_something and array.dtype.kind == "f" and not is_of_file:
        _refuse_unclear(array, "it holds floats with a scale, and arithmetic keeps such attributes")
    if unpacked.says_something and array.dtype.kind != "f":
        _refuse_unclear(array, f"its encoding says that a scale was applied, but it holds {array.dtype}")
    return nothing if unpacked.says_something else packed


def _refuse_unclear(array: DataArray, evidence: str) -> None:
    raise RadiometryError(
        f"{_name(array)}: it cannot be told whether scale and offset are applied: {evidence}",
        'if they are, remove them: array.attrs.pop("scale_factor", None), array.attrs.pop("add_offset", None); or say'
        ' what the numbers mean: SceneOptions(radiometry="reflectance"), "dn" or "dn-1000"',
    )


def gather_evidence(source: ArraySource, array: DataArray, match: BandMatch, stored: _Packing) -> Evidence:
    """What the array says about its numbers."""
    places = [number - 1 for number in match.held_numbers]
    scales, offsets = ([values[place] for place in places] for values in (stored.scales, stored.offsets))
    dtypes = (array.dtype.name,) * len(places)
    # Rooted, so that the name of the working directory says nothing about the numbers.
    path = Path("/", _name(array))
    return Evidence(path, match.held_names, dtypes, tuple(scales), tuple(offsets), source.sample)


def _name(array: DataArray) -> Path:
    """What the array was opened from, or else what it is called."""
    opened = array.encoding.get("source")
    if isinstance(opened, str) and opened:
        return Path(redacted(opened)) if is_remote(opened) else Path(opened)
    return Path(f"DataArray {array.name}" if array.name is not None else "DataArray")


def _source_file(array: DataArray) -> Path | None:
    """The file below an array that is not in memory, which must not change while it is read."""
    opened = array.encoding.get("source")
    if _is_in_memory(array) or not isinstance(opened, str) or is_remote(opened) or not Path(opened).is_file():
        return None
    return Path(opened).absolute()


def _is_in_memory(array: DataArray) -> bool:
    return bool(getattr(array.variable, "_in_memory", False))


def _block_shape(array: DataArray) -> BlockShape:
    """Rows and columns of the chunks in which an array is computed or stored; rows where nothing says."""
    _, y, x = array.dims
    if array.chunks is not None:
        return BlockShape(max(array.chunks[1]), max(array.chunks[2]))
    stated = array.encoding.get("preferred_chunks") or {}
    if _is_in_memory(array):
        return BlockShape(array.shape[1], array.shape[2])
    if not isinstance(stated, Mapping) or y not in stated or x not in stated:
        return BlockShape(1, array.shape[2])
    return BlockShape(min(int(stated[y]), array.shape[1]), min(int(stated[x]), array.shape[2]))


def _refuse_giants(array: DataArray, max_bytes: int | None) -> None:
    if max_bytes is not None and array.nbytes > max_bytes:
        raise InputError(
            f"{_name(array)} holds {array.nbytes} bytes; up to {max_bytes} are accepted",
            "cut it with .isel(...), or raise SceneOptions.max_bytes",
        )


def _words(dims: Sequence[Any]) -> str:
    return ", ".join(map(str, dims))
