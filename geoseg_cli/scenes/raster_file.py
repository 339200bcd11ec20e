"""Opens raster files that may come from anyone, GeoTIFFs above all, and reads windows of them.

The driver is pinned and files beside the raster are ignored, so a file that calls itself ``.tif`` cannot make
GDAL read another one. What GDAL raises becomes an error that names the file, the cause and the cure.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Interleaving, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.session import DummySession
from rasterio.vrt import WarpedVRT

from geoseg_cli.ahead import usable_cores
from geoseg_cli.errors import GeosegError, GridError, InputError, StorageError, UsageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.scenes.archive import verify_member
from geoseg_cli.scenes.integrity import refuse_others, refuse_others_than
from geoseg_cli.scenes.network import GDAL_OPTIONS, is_remote, network_error, redacted
from geoseg_cli.scenes.product import Driver
from geoseg_cli.scenes.sidecars import ignored_sidecars

BoolArray = npt.NDArray[np.bool_]
Nodata = float | Literal["auto"] | None

GIB = 1 << 30
MAX_BYTES = 64 * GIB
"""Largest scene, uncompressed, that is opened without being asked to."""

MAX_INFLATION = 4000
"""Largest ratio of pixels to file; deflate ends at 1032, real scenes near 10."""


_MAX_SOURCES = 10_000
"""Files of a virtual raster that are looked at; a mosaic of a continent has fewer."""


_PROCESS = os.getpid()
"""The process that imported this module; another one where it was forked since."""

_EXACT_PX = 1e-6
"""How far positions of warped pixels may be off; rasterio 1.4 takes no 0."""


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Pixels that are stored together; reading one of them decodes them all."""

    height: int
    width: int


class RasterFile:
    """One open raster file. :meth:`read` may be called by many threads at once: a lock lets one in at a time.

    Attributes:
        path: Absolute path.
        grid: Where the pixels lie.
        descriptions: Name of each band, None where it has none.
        dtypes: Numpy name of each band's dtype.
        tags: Metadata of the default domain.
        scales, offsets: Tags of each band; 1 and 0 where there are none.
        nodata: Number that means nothing in each band; None where every number means something.
        nodata_reason: Where validity comes from, as a sentence.
        block_shape: Pixels that are stored together.
        warnings: What the user should know.
        decodes_beside: Whether blocks are decoded beside each other in as many threads as :meth:`limit_threads` says,
            as those of JPEG 2000. Local GeoTIFFs have a thread for each core, which all of them share.
    """

    def __init__(self, dataset: Any, path: Path, nodata: Nodata, says: str = "--nodata") -> None:
        self.path = path
        self._dataset = dataset
        self._lock, self._users = threading.Lock(), 1
        self.grid = _grid(dataset, path)
        self.descriptions: tuple[str | None, ...] = tuple(dataset.descriptions)
        self.dtypes: tuple[str, ...] = tuple(dataset.dtypes)
        self.tags: dict[str, str] = dict(dataset.tags())
        self.scales: tuple[float, ...] = tuple(dataset.scales)
        self.offsets: tuple[float, ...] = tuple(dataset.offsets)
        self.nodata, self.nodata_reason = _nodata(dataset, nodata, says)
        self.block_shape = BlockShape(*dataset.block_shapes[0])
        self.warnings = (*grid_warnings(self.grid), *ignored_sidecars(path))
        self._alpha = _alpha_band(dataset)
        flags = dataset.mask_flag_enums[0]
        self._is_masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        if self._alpha or self._is_masked:
            self.nodata_reason += ", and the alpha band" if self._alpha else ", and the mask band"
        # GDAL decodes blocks of JPEG 2000 beside each other, with a thread for each core unless it is told otherwise.
        self.decodes_beside = dataset.driver == "JP2OpenJPEG"
        self._threads: int | None = None
        # GDAL 3.10 looks for it in all boxes of a JPEG 2000 file, for ever where one has a crafted length; all bands of
        # such a block are decoded together anyway.
        self._is_pixel_interleaved = self.decodes_beside or dataset.interleaving == Interleaving.pixel

    def share(self) -> RasterFile:
        """The same open file for one more user, who closes it as well: what one decodes is in GDAL's cache for all."""
        with self._lock:
            self._users += 1
        return self

    def limit_threads(self, count: int) -> None:
        """Let GDAL decode blocks with at most ``count`` threads; counts before the first read."""
        self._threads = count

    def warped(self, grid: Grid) -> RasterFile:
        """The file on another grid: each pixel is the stored one in which its centre lies, invalid outside.

        Positions are exact, so the window that is read cannot change a pixel. Both are to be closed, this one last.

        Args:
            grid: Where to; with a CRS, as this file's.

        Raises:
            GridError: Nothing leads from one CRS to the other.
        """
        assert self.grid.crs is not None
        assert grid.crs is not None
        try:
            with _gdal(), self._lock:
                dataset = WarpedVRT(
                    self._dataset,
                    **grid.profile(),
                    resampling=Resampling.nearest,
                    add_alpha=not self._alpha,
                    tolerance=_EXACT_PX,
                )
        except (RasterioError, CPLE_BaseError) as error:
            raise GridError(
                f"nothing leads from the CRS of {self.path} to {grid.crs.to_string()[:60]}",
                "write the right CRS into the files, or bring one to the other's yourself: gdalwarp -r near -t_srs",
            ) from error
        return RasterFile(dataset, self.path, self.nodata[0])

    def close(self) -> None:
        """Close the file once its last user does."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._dataset.close()

    def dtype_of(self, numbers: Sequence[int]) -> np.dtype[Any]:
        """Of what :meth:`read` gives: that of the bands where they have one in common, or else float32."""
        return _common_dtype(self.dtypes, numbers)

    def read(
        self,
        numbers: tuple[int, ...],
        window: Window,
        keeps_saturated: bool = True,
        out: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], BoolArray]:
        """Read a window.

        Args:
            numbers: Band numbers, from 1.
            window: Pixels inside the grid.
            keeps_saturated: Whether the largest number of an integer type means something.
            out: (P, H, W) of :meth:`dtype_of` these bands, filled and returned; a new array when None. One smaller
                than the window takes the nearest number for each of its pixels, through overviews in the file.

        Returns:
            (P, H, W) stored numbers in the file's dtype (float32 where the bands' dtypes differ), and (H, W)
            bool: where no band is nodata, masked, NaN or infinite.

        Raises:
            StorageError: The file is truncated or damaged there.
        """
        pixels, mask = self._read_stored(numbers, window, out)
        valid = valid_in_all(pixels, self._nodata_of(numbers), keeps_saturated)
        if mask is not None:
            valid &= mask
        return pixels, valid

    def read_each(
        self, numbers: tuple[int, ...], window: Window, keeps_saturated: bool = True
    ) -> tuple[npt.NDArray[Any], BoolArray]:
        """As :meth:`read`, with the validity of each band: (P, H, W) bool."""
        pixels, mask = self._read_stored(numbers, window)
        valid = valid_numbers(pixels, self._nodata_of(numbers), keeps_saturated)
        return pixels, valid if mask is None else np.asarray(valid & mask)

    def _read_stored(
        self, numbers: tuple[int, ...], window: Window, out: npt.NDArray[Any] | None = None
    ) -> tuple[npt.NDArray[Any], BoolArray | None]:
        """(P, H, W) stored numbers, and what the file's own mask says of them, (H, W), where it has one."""
        assert window.intersection(self.grid.window) == window, f"{window} leaves the grid"
        where = window.to_rasterio()
        with self._lock, _gdal(threads=self._threads), _read_errors(self.path, window):
            pixels = read_bands(self._dataset, numbers, window, out)
            # GDAL's masks honour alpha only in files of 2 or 4 bands without nodata, so it is read as a band.
            # An RGB photometric tag declares any fourth band an alpha band, also near infrared.
            if self._alpha and self._alpha not in numbers:
                return pixels, self._dataset.read(self._alpha, window=where, out_shape=pixels.shape[1:]) > 0
            if self._is_masked:
                return pixels, self._dataset.read_masks(numbers[0], window=where, out_shape=pixels.shape[1:]) > 0
        return pixels, None

    def _nodata_of(self, numbers: tuple[int, ...]) -> list[float | None]:
        return [self.nodata[number - 1] for number in numbers]

    def bytes_in_cache(self, numbers: tuple[int, ...], rows: int) -> int:
        """Bytes of all blocks that ``rows`` successive pixel rows can touch."""
        block = self.block_shape
        block_rows = min(-(-self.grid.height // block.height), -(-(rows - 1) // block.height) + 1)
        block_cols = -(-self.grid.width // block.width)
        # Pixel interleaving decodes all bands of a block together, wanted or not.
        decoded = range(1, len(self.dtypes) + 1) if self._is_pixel_interleaved else set(numbers)
        pixel_bytes = sum(np.dtype(self.dtypes[number - 1]).itemsize for number in decoded)
        return block_rows * block.height * block_cols * block.width * pixel_bytes


def open_geotiff(path: Path, nodata: Nodata = "auto", max_pixels: int | None = None) -> RasterFile:
    """Open a GeoTIFF.

    Args:
        path: A file.
        nodata: The number that means nothing; None for "every number means something", ``"auto"`` for what
            the file says.
        max_pixels: Largest rows x columns; None for :data:`MAX_BYTES` and :data:`MAX_INFLATION`.

    Raises:
        InputMissingError: There is no such file.
        AccessError: It may not be read.
        InputError: It is no TIFF, or is larger than allowed.
        GridError: It lies on no map grid.
        StorageError: It is truncated or damaged.
    """
    return open_raster(str(path.absolute()), "GTiff", nodata, max_pixels)


def open_raster(
    name: str, driver: Driver, nodata: Nodata = "auto", max_pixels: int | None = None, says: str = "--nodata"
) -> RasterFile:
    """Open a file of a product.

    Args:
        name: What GDAL opens: an absolute path, or ``/vsizip/ARCHIVE/MEMBER``.
        driver: The only driver that may open it.
        nodata, max_pixels: As of :func:`open_geotiff`.
        says: Who says what ``nodata`` is, where it is a number.

    Raises:
        GeosegError: As :func:`open_geotiff` does.
    """
    path = Path(name)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path}: its name is not UTF-8, and GDAL opens no other", "rename it, or give a link with another name"
        ) from error
    if name.startswith("/vsizip/"):
        verify_member(name)
    if name.startswith("/vsi"):
        return _open(name, driver, None, (nodata, says), max_pixels)
    path = path.absolute()
    size_bytes = refuse_others(path) if driver == "GTiff" else refuse_others_than(path, driver)
    return _open(str(path), driver, size_bytes, (nodata, says), max_pixels)


def _open(
    name: str, driver: Driver, size_bytes: int | None, nodata: tuple[Nodata, str], max_pixels: int | None
) -> RasterFile:
    path = Path(redacted(name))
    with _gdal(driver), _open_errors(path):
        dataset = rasterio.open(name, driver=driver, sharing=False, **_decoders(name, driver))
        try:
            _refuse_giants(dataset, path, size_bytes, max_pixels)
            return RasterFile(dataset, path, *nodata)
        except BaseException:
            dataset.close()
            raise


def vrt_sources(path: Path) -> tuple[Path, ...]:
    """The files that a GDAL virtual raster is made of, itself first, and theirs where one is virtual as well.

    Files that are not on this machine's disks, or not there, are left out.
    """
    found: dict[Path, None] = {}
    waiting = [path.absolute()]
    while waiting and len(found) < _MAX_SOURCES:
        source = waiting.pop(0)
        if source in found or not source.is_file():
            continue
        found[source] = None
        with source.open("rb") as stream:
            is_virtual = b"<VRTDataset" in stream.read(1024)
        if is_virtual:
            with _gdal(), _open_errors(source), rasterio.open(source, driver="VRT", sharing=False) as dataset:
                waiting += [Path(name).absolute() for name in dataset.files]
    return tuple(found)


def read_bands(
    dataset: Any, numbers: Sequence[int], window: Window, out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """Read bands of a rasterio dataset.

    Args:
        dataset: Open for reading.
        numbers: Band numbers, from 1.
        window: Pixels inside it.
        out: (P, H, W) of the dtype that is returned, filled and returned; a new array when None. Its height and width
            may be smaller than the window's.

    Returns:
        (P, H, W) in the bands' common dtype, or float32 where their dtypes differ.
    """
    where = window.to_rasterio()
    dtype = _common_dtype(dataset.dtypes, numbers)
    if out is None:
        out = np.empty((len(numbers), window.height, window.width), dtype)
    assert out.dtype == dtype, f"{dtype} numbers into {out.dtype}"
    if len({dataset.dtypes[number - 1] for number in numbers}) == 1:
        # All bands in one call: those of a pixel-interleaved block are decoded together.
        return np.asarray(dataset.read(list(numbers), window=where, out=out))
    for plane, number in zip(out, numbers, strict=True):
        # Numpy converts: GDAL would turn what is too large for float32 into its largest finite number.
        plane[:] = dataset.read(number, window=where, out_shape=plane.shape).astype(np.float32)
    return out


def _common_dtype(dtypes: Sequence[str], numbers: Sequence[int]) -> np.dtype[Any]:
    kinds = {dtypes[number - 1] for number in numbers}
    return np.dtype(kinds.pop() if len(kinds) == 1 else np.float32)


def valid_numbers(pixels: npt.NDArray[Any], nodata: Sequence[float | None], keeps_saturated: bool = True) -> BoolArray:
    """Which numbers mean something.

    Args:
        pixels: (P, H, W) stored numbers.
        nodata: The number that means nothing in each of the P bands, or None.
        keeps_saturated: Whether the largest number of an integer type does.

    Returns:
        (P, H, W) bool: not the band's nodata, not NaN, not infinite.
    """
    valid = np.ones(pixels.shape, dtype=np.bool_)
    for plane, is_valid, value in zip(pixels, valid, nodata, strict=True):
        _strike_out(plane, value, keeps_saturated, is_valid)
    return valid


def valid_in_all(pixels: npt.NDArray[Any], nodata: Sequence[float | None], keeps_saturated: bool = True) -> BoolArray:
    """Where the numbers of all bands mean something: (H, W) bool, ``valid_numbers(...).all(axis=0)`` without the
    array of all bands in between."""
    valid = np.ones(pixels.shape[1:], dtype=np.bool_)
    for plane, value in zip(pixels, nodata, strict=True):
        _strike_out(plane, value, keeps_saturated, valid)
    return valid


def _strike_out(plane: npt.NDArray[Any], nodata: float | None, keeps_saturated: bool, valid: BoolArray) -> None:
    """Make ``valid`` (H, W) False where the numbers of one band, (H, W), mean nothing."""
    if plane.dtype.kind == "f":
        valid &= np.isfinite(plane)
    if nodata is not None and can_hold(plane.dtype, nodata):
        valid &= plane != plane.dtype.type(nodata)
    if not keeps_saturated and plane.dtype.kind != "f":
        valid &= plane != np.iinfo(plane.dtype).max


def can_hold(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a pixel of this dtype can equal ``value``; NaN equals nothing."""
    if np.isnan(value):
        return False
    if dtype.kind == "f":
        return True
    info = np.iinfo(dtype)
    return float(value).is_integer() and info.min <= value <= info.max


def _decoders(name: str, driver: Driver) -> dict[str, int]:
    """GDAL's open options that let it decode blocks of a local GeoTIFF beside each other.

    Its threads do not follow into a forked process, which would wait for them for ever.
    """
    is_beside = driver == "GTiff" and not name.startswith("/vsi") and os.getpid() == _PROCESS
    return {"num_threads": usable_cores()} if is_beside else {}


@contextmanager
def _gdal(driver: str = "GTiff", threads: int | None = None) -> Iterator[None]:
    """GDAL with nothing but the named file: no siblings, no credentials, warnings to rasterio's logger.

    An ENVI file is nothing without its header, which lies beside it. What GDAL may fetch is decided before; here are
    the bounds on its time and tries.
    """
    siblings = "TRUE" if driver == "ENVI" else "EMPTY_DIR"
    options = {"GDAL_DISABLE_READDIR_ON_OPEN": siblings, "GDAL_PAM_ENABLED": "NO", **GDAL_OPTIONS}
    if threads is not None:
        options["GDAL_NUM_THREADS"] = str(threads)
    with rasterio.Env(session=DummySession(), **options):
        yield


@contextmanager
def _open_errors(path: Path) -> Iterator[None]:
    """Whatever goes wrong between a TIFF's signature and its pixels is damage: name it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    except GeosegError:
        raise
    except (RasterioError, CPLE_BaseError, ValueError, OverflowError) as error:
        if is_remote(str(path)):
            raise network_error(path, error) from error
        raise StorageError(
            f"{path}: this raster cannot be opened, it is truncated or damaged ({error})",
            "copy or download it again and compare sizes",
        ) from error


@contextmanager
def _read_errors(path: Path, window: Window) -> Iterator[None]:
    try:
        yield
    except (RasterioError, CPLE_BaseError, ValueError) as error:
        if is_remote(str(path)):
            raise network_error(path, error.__cause__ or error) from error
        raise StorageError(
            f"{path}: cannot read rows {window.row} to {window.row_stop - 1}, columns {window.col} to"
            f" {window.col_stop - 1}: the file is truncated or damaged ({error.__cause__ or error})",
            "copy or download it again and compare sizes",
        ) from error


def _refuse_giants(dataset: Any, path: Path, size_bytes: int | None, max_pixels: int | None) -> None:
    """A file of some kilobytes can declare terabytes; a plan for it would fill the disk.

    ``size_bytes`` is None where nobody knows it, as inside an archive.
    """
    pixel_bytes = sum(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
    declared = dataset.height * dataset.width * pixel_bytes
    inflated = MAX_BYTES if size_bytes is None else max(GIB, MAX_INFLATION * size_bytes)
    limit, count_px = min(MAX_BYTES, inflated), dataset.height * dataset.width
    if declared <= limit if max_pixels is None else count_px <= max_pixels:
        return
    stored = "" if size_bytes is None else f" in a file of {size_bytes / GIB:.3g} GiB"
    accepted = f"{limit / GIB:.3g} GiB" if max_pixels is None else f"{max_pixels} pixels (--max-pixels)"
    raise InputError(
        f"{path} declares {dataset.height} x {dataset.width} px x {dataset.count} bands ="
        f" {declared / GIB:.1f} GiB{stored}; up to {accepted} are accepted",
        f"if the file is right, add --max-pixels {count_px}, or cut it with gdal_translate -srcwin",
    )


def _grid(dataset: Any, path: Path) -> Grid:
    crs, transform = dataset.crs, dataset.transform
    points = len(dataset.gcps[0])
    if (points or dataset.rpcs) and (crs is None or transform.is_identity):
        kind = f"{points} ground control points" if points else "rational polynomial coefficients"
        option = "-tps" if points else "-rpc"
        anyway = "; to map it as it lies, without a place on Earth: gdal_translate -nogcp" if points else ""
        raise GridError(
            f"{path} is not on a map grid: it carries only {kind}",
            f"warp it first: gdalwarp {option} -t_srs EPSG:NNNN -r near {path.name} warped.tif{anyway}",
        )
    if transform.is_degenerate or not all(math.isfinite(number) for number in transform[:6]):
        raise GridError(
            f"{path}: its transform {tuple(transform)[:6]} maps all pixels onto a line",
            "write a right one: gdal_edit.py -a_ullr LEFT TOP RIGHT BOTTOM FILE",
        )
    return Grid(crs, transform, dataset.height, dataset.width)


def _nodata(dataset: Any, wanted: Nodata, says: str) -> tuple[tuple[float | None, ...], str]:
    """Nodata of each band and where it comes from."""
    if wanted is None:
        return (None,) * dataset.count, f"{says} none: every finite number is data"
    if wanted != "auto":
        _refuse_impossible_nodata(dataset, float(wanted))
        return (float(wanted),) * dataset.count, f"{says} {wanted:g}"
    values = tuple(dataset.nodatavals)
    stated = [f"{value:g}" for value in dict.fromkeys(values) if value is not None]
    if not stated:
        return values, "no nodata tag: every finite number is data"
    dtype = np.dtype(dataset.dtypes[0])
    is_idle = dtype.kind != "f" and not any(can_hold(dtype, v) for v in values if v is not None)
    note = f", which no {dtype} number can be" if is_idle else ""
    return values, f"nodata tag {', '.join(stated)}{note}"


def _refuse_impossible_nodata(dataset: Any, wanted: float) -> None:
    """A number that no pixel can be would quietly turn the file's own nodata into data."""
    whole = [dtype for dtype in map(np.dtype, dataset.dtypes) if dtype.kind != "f"]
    if len(whole) == dataset.count and not any(can_hold(dtype, wanted) for dtype in whole):
        raise UsageError(
            f"--nodata {wanted:g}: no {whole[0]} number can be that", "give the number that fills the empty parts"
        )


def _alpha_band(dataset: Any) -> int | None:
    """Number, from 1, of the alpha band."""
    kinds = list(dataset.colorinterp)
    return kinds.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in kinds else None


def grid_warnings(grid: Grid) -> tuple[str, ...]:
    """What the user should know of a scene's grid: that it has no CRS, or is stored south-up."""
    if grid.crs is None:
        return ("the scene has no CRS: neither has the output, and the pixel size cannot be checked",)
    if grid.transform.determinant > 0:
        return ("the scene is stored upside down (south-up): the model sees it mirrored",)
    return ()
