"""What an :class:`xarray.DataArray` says of itself: its bands, grid, nodata number, and what was done to its numbers.

What xarray has done to the numbers follows from where their scale stands: CF conventions 1.11, section 8.1, know
``scale_factor`` and ``add_offset`` as attributes of packed numbers, and xarray moves both to ``encoding`` when it
unpacks them. Arithmetic may keep attributes but drops the encoding, so floats with such attributes and nothing that
tells of a file may or may not be unpacked: they are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from affine import Affine
from rasterio.errors import CRSError

from geoseg_cli.errors import GridError, InputError, RadiometryError, UsageError
from geoseg_cli.grid import Grid
from geoseg_cli.scenes.bands import known_names
from geoseg_cli.scenes.network import is_remote, redacted
from geoseg_cli.scenes.parts import Validity
from geoseg_cli.scenes.raster_file import can_hold

if TYPE_CHECKING:
    from xarray import DataArray

_TOLERANCE_PX: Final = 0.05
"""How far a coordinate may be off its place; float32 northings of 10 m pixels are off by up to 0.03."""


@dataclass(frozen=True, slots=True)
class Packing:
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


def ordered_array(array: DataArray) -> DataArray:
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
    where = name_of_array(array)
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


def band_names(array: DataArray) -> list[str]:
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


def grid_of_array(array: DataArray) -> tuple[Grid, tuple[str, ...]]:
    """Where the pixels lie, and what to warn of.

    Raises:
        GridError: Coordinates are missing or not regular, or the CRS cannot be understood.
    """
    where = name_of_array(array)
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
            f"{name_of_array(array)} is not on a map grid: it carries only ground control points",
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
            f"{name_of_array(array)}: one pixel along {dim} does not say how large it is",
            "set it: array.rio.write_transform(...)",
        )
    step = float(centres[-1] - centres[0]) / (len(centres) - 1) if len(centres) > 1 else stored[1] if stored else 0.0
    off = np.abs(centres - (centres[0] + step * np.arange(len(centres))))
    if not step or not float(off.max()) <= _TOLERANCE_PX * abs(step):  # NaN compares as False
        raise GridError(
            f"{name_of_array(array)}: the coordinates along {dim} are not evenly spaced"
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


def nodata_of_array(array: DataArray, rules: Validity) -> tuple[float | None, str]:
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


def packings(array: DataArray) -> tuple[Packing, Packing]:
    """What the attributes say, of numbers that are still packed, and the encoding, of numbers that are not any more.

    Raises:
        RadiometryError: Neither a number, nor one for each band.
    """

    def packing(held: Mapping[Any, Any]) -> Packing:
        """Scale and offset of each band, 1 and 0 where nothing is said."""
        names = (("scale_factor", "scales", 1.0), ("add_offset", "offsets", 0.0))
        each = (held.get(one, held.get(many, default)) for one, many, default in names)
        return Packing(*(_per_band(array, value) for value in each))

    return packing(array.attrs), packing(array.encoding)


def _per_band(array: DataArray, value: Any) -> tuple[float, ...]:
    try:
        numbers = np.atleast_1d(np.asarray(value, np.float64))
        return tuple(float(number) for number in np.broadcast_to(numbers, (array.shape[0],)))
    except (TypeError, ValueError) as error:
        raise RadiometryError(
            f"{name_of_array(array)}: the scale or offset {value!r:.60} is not one number, nor one for each of the"
            f" {array.shape[0]} bands",
            'correct array.attrs["scale_factor"] and ["add_offset"]',
        ) from error


def stored_packing(array: DataArray, packed: Packing, unpacked: Packing, choice: str) -> Packing:
    """The scale and offset that are still to be applied.

    Raises:
        RadiometryError: It cannot be told whether they are applied, and the user does not say what the numbers mean.
    """
    nothing = Packing((1.0,) * array.shape[0], (0.0,) * array.shape[0])
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
        f"{name_of_array(array)}: it cannot be told whether scale and offset are applied: {evidence}",
        'if they are, remove them: array.attrs.pop("scale_factor", None), array.attrs.pop("add_offset", None); or say'
        ' what the numbers mean: SceneOptions(radiometry="reflectance"), "dn" or "dn-1000"',
    )


def name_of_array(array: DataArray) -> Path:
    """What the array was opened from, or else what it is called."""
    opened = array.encoding.get("source")
    if isinstance(opened, str) and opened:
        return Path(redacted(opened)) if is_remote(opened) else Path(opened)
    return Path(f"DataArray {array.name}" if array.name is not None else "DataArray")


def file_below(array: DataArray) -> Path | None:
    """The file below an array that is not in memory, which must not change while it is read."""
    opened = array.encoding.get("source")
    if is_in_memory(array) or not isinstance(opened, str) or is_remote(opened) or not Path(opened).is_file():
        return None
    return Path(opened).absolute()


def is_in_memory(array: DataArray) -> bool:
    """Whether all of its numbers are there: neither dask chunks nor a file that is still to be read."""
    return bool(getattr(array.variable, "_in_memory", False))


def _words(dims: Sequence[Any]) -> str:
    return ", ".join(map(str, dims))
