"""Scenes: what is on disk becomes named bands in reflectance, and where they are valid.

with open_scene(path, bundle.input_spec, SceneOptions()) as scene:
    patch = scene.read(window)
    reflectance = scene.to_reflectance(patch.pixels)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from geoseg_cli.arrays import NUMPY, Array, Arrays
from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import BandError, GridError, StorageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.scenes.bands import BandMatch, drop_bands, match_bands, match_filled, named_by_sensor
from geoseg_cli.scenes.integrity import FileIdentity
from geoseg_cli.scenes.network import is_remote
from geoseg_cli.scenes.product import Product, Statement
from geoseg_cli.scenes.radiometry import Claim, Evidence, Radiometry, decide_radiometry

if TYPE_CHECKING:
    from xarray import DataArray

    from geoseg_cli.scenes.raster_file import BlockShape
    from geoseg_cli.scenes.stack import Stack

BoolArray = npt.NDArray[np.bool_]

NEAR_GSD = 1.25
"""Ratio of pixel sizes up to which a model is used without a word."""

FAR_GSD = 4.0
"""Ratio of pixel sizes above which a model is not used: what it learned to see is no longer there."""

SQUARE = 1.05
"""Ratio of pixel height and width up to which pixels count as square."""


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """How to read a scene where it does not say enough itself.

    Attributes:
        bands: Names of the file's bands in file order, ``-`` for a band to skip; None to take the file's.
        radiometry: ``auto``, ``reflectance``, ``dn`` or ``dn-1000``.
        nodata: The number that means nothing, NaN included; None for none; ``"auto"`` for what the file says.
        max_pixels: Largest rows x columns of a file that is opened; None for a guard against absurd files.
        drop: Common names of optional bands to read the scene without, as if it lacked them.
        fill: Bands that the scene lacks, and the reflectance to read everywhere instead.
        sensor: Name in ``data/sensors.toml``: whose the band names are, or, where the file names none and has as many
            bands as the sensor, which bands they are.
        valid: ``all`` for pixels where every used band means something, ``any`` where one of them does; a missing
            number is then read as the average of the training data.
        saturated: Whether pixels count in which a band holds the largest number of its integer type.
        allow_network: Whether addresses may be read.
        sidecars: Whether ``.aux.xml`` and world files beside a GeoTIFF or JPEG 2000 file say what it lacks.
        drivers: GDAL drivers to allow beyond the safe ones: ``VRT``.
        require_crs: Whether a scene without a coordinate reference system is refused.
    """

    bands: tuple[str, ...] | None = None
    radiometry: str = "auto"
    nodata: float | Literal["auto"] | None = "auto"
    max_pixels: int | None = None
    drop: tuple[str, ...] = ()
    fill: tuple[tuple[str, float], ...] = ()
    sensor: str | None = None
    valid: Literal["all", "any"] = "all"
    saturated: bool = True
    allow_network: bool = False
    drivers: tuple[str, ...] = ()
    require_crs: bool = False
    sidecars: bool = False


@dataclass(frozen=True, slots=True)
class Patch:
    """A window of a scene.

    Attributes:
        pixels: (P, H, W) stored numbers of the present bands in the network's order, in the file's dtype.
        valid: (H, W) bool, where every band means something.
    """

    pixels: npt.NDArray[Any]
    valid: BoolArray


class Source(Protocol):
    """Pixels of the wanted bands; :class:`geoseg_cli.scenes.stack.Stack` is the first."""

    @property
    def grid(self) -> Grid:
        """Where the pixels lie."""

    @property
    def nodata_reason(self) -> str:
        """Where validity comes from, as a sentence."""

    @property
    def block_shape(self) -> BlockShape:
        """Pixels that are stored together."""

    @property
    def column_step(self) -> int | None:
        """Windows that begin and end at multiples of so many columns decode no block twice; None for whole rows."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know."""

    def read(self, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
        """(P, H, W) numbers of the wanted bands and (H, W) bool validity; safe to call from many threads."""

    @property
    def number_bytes(self) -> int:
        """Bytes of each number that ``read`` gives."""

    @property
    def working_bytes(self) -> int:
        """Bytes per pixel that ``read`` takes beside what it gives."""

    def bytes_in_cache(self, rows: int) -> int:
        """Bytes that GDAL's block cache needs for ``rows`` successive pixel rows."""

    def close(self) -> None:
        """Close all files."""


@dataclass(frozen=True, slots=True)
class Scene:
    """An open scene; a context manager. :meth:`read` may be called by many threads at once.

    Attributes:
        product: What the layout says.
        source: The open files.
        bands: Which band of the product is which.
        radiometry: What the stored numbers mean, and why.
        identities: Size and time of each of the product's files when it was opened.
        instead: Reflectance per stored band that stands for a missing number; empty where none may be missing.
    """

    product: Product
    source: Source
    bands: BandMatch
    radiometry: Radiometry
    identities: Mapping[Path, FileIdentity]
    instead: tuple[float, ...] = ()

    @property
    def path(self) -> Path:
        """Absolute path."""
        return self.product.path

    @property
    def grid(self) -> Grid:
        """Where the pixels lie on Earth."""
        return self.source.grid

    @property
    def present(self) -> tuple[bool, ...]:
        """One flag per band of the network's input: whether the scene has it, or a number was given for it."""
        return self.bands.present

    @property
    def nodata_reason(self) -> str:
        """What decides which pixels are valid, as a sentence."""
        return self.source.nodata_reason

    @property
    def block_shape(self) -> BlockShape:
        """Pixels that are stored together."""
        return self.source.block_shape

    @property
    def column_step(self) -> int | None:
        """Windows that begin and end at multiples of so many columns decode no block twice; None for whole rows."""
        return self.source.column_step

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know before trusting the result."""
        return (*self.product.warnings, *self.source.warnings, *self.radiometry.warnings)

    def read(self, window: Window) -> Patch:
        """Read a window that lies inside the grid; rows come as stored, also in south-up scenes.

        Raises:
            StorageError: The file is truncated or damaged there.
        """
        return Patch(*self.source.read(window))

    def to_reflectance(self, pixels: Array, arrays: Arrays = NUMPY) -> Array:
        """Turn stored numbers into reflectance.

        Args:
            pixels: (..., P, H, W) as :meth:`read` gives them, among ``arrays``.
            arrays: What computes, and where.

        Returns:
            (..., Q, H, W) float32 of the present bands, 1.0 is a perfectly white surface; meaningless where a pixel is
            invalid. Q is more than P by the bands that are filled.
        """
        reflectance = self.radiometry.apply(pixels, arrays)
        if self.instead:
            instead = arrays.put(np.asarray(self.instead, np.float32)[:, None, None])
            reflectance = arrays.module.where(arrays.module.isnan(reflectance), instead, reflectance)
        return self.bands.with_filled(reflectance, arrays)

    @property
    def pixel_bytes(self) -> int:
        """Bytes that a pixel of :meth:`read` takes, its validity and what reading it takes included."""
        return self.source.number_bytes * len(self.bands.held_names) + 1 + self.source.working_bytes

    def size_in_cache(self, rows: int = 1) -> int:
        """Bytes of GDAL's block cache with which ``rows`` successive rows are decoded only once."""
        return self.source.bytes_in_cache(rows)

    def refuse_change(self) -> None:
        """Make sure that the files are those that were opened.

        Raises:
            StorageError: One changed since.
        """
        for path, identity in self.identities.items():
            if FileIdentity.of(path) != identity:
                raise StorageError(f"{path} changed while it was read", "run again when nobody writes it")

    def close(self) -> None:
        """Close the scene's files."""
        self.source.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_scene(
    path: Path | DataArray,
    input_spec: InputSpec,
    options: SceneOptions | None = None,
    gsd_m: float = 10.0,
    beside: Scene | None = None,
) -> Scene:
    """Open a scene and decide what its bands and numbers are.

    Args:
        path: A file or folder of one of the layouts of :func:`geoseg_cli.scenes.layouts.find_product`, or an array for
            :func:`geoseg_cli.scenes.array_scene.open_array`.
        input_spec: Bands that the network wants.
        options: What the user says about the scene.
        gsd_m: Pixel size that the network was trained on; decides which of several stored sizes is used.
        beside: The same scene, open for another network: files that both read are opened once, and what one decodes is
            in GDAL's block cache for the other.

    Returns:
        The open scene; close it, or use it in a ``with`` statement.

    Raises:
        InputMissingError: There is no such file.
        AccessError: It may not be read.
        InputError: It is of no known layout, or (as a subclass) its grid, bands or numbers cannot be used.
        StorageError: It is truncated or damaged.
    """
    options = options or SceneOptions()
    if not isinstance(path, Path):
        from geoseg_cli.scenes.array_scene import open_array

        scene = open_array(path, input_spec, options, gsd_m)
        _refuse_missing_crs(scene.grid, scene.path, options)
        return scene
    from geoseg_cli.scenes.layouts import find_product
    from geoseg_cli.scenes.parts import Validity
    from geoseg_cli.scenes.stack import Stack, open_stack

    path = path if is_remote(str(path)) else path.absolute()
    product = find_product(path, options)
    match = match_product(product, input_spec, options)
    rules = Validity(options.nodata, options.valid, options.saturated)
    shared = beside.source if beside is not None and isinstance(beside.source, Stack) else None
    stack = open_stack(product, match.held_numbers, gsd_m, rules, options.max_pixels, shared)
    try:
        _refuse_missing_crs(stack.grid, product.path, options)
        identities = {member: FileIdentity.of(member) for member in product.members}
        radiometry = decide_radiometry(options.radiometry, gather_evidence(product, match, stack))
        means = [input_spec.mean[input_spec.bands.index(name)] for name in match.held_names]
        return Scene(product, stack, match, radiometry, identities, tuple(means) if options.valid == "any" else ())
    except BaseException:
        stack.close()
        raise


def _refuse_missing_crs(grid: Grid, path: Path, options: SceneOptions) -> None:
    if options.require_crs and grid.crs is None:
        raise GridError(
            f"{path} has no CRS",
            "write the right one into it: gdal_edit.py -a_srs EPSG:NNNN FILE; or drop --require-crs",
        )


def match_product(product: Product, spec: InputSpec, options: SceneOptions) -> BandMatch:
    """Find the wanted bands among the layers of a product, as the user's options say.

    Raises:
        BandError: Names are missing, doubled or ambiguous, or a required band is absent.
    """
    where = str(product.path)
    names: Sequence[str | None] = [layer.name or None for layer in product.layers]
    if options.sensor is not None:
        names = named_by_sensor(options.sensor, names, where)
    sensor = sensor_of(product, options)
    if options.fill:
        match = match_filled(spec, names, options, where, sensor)
    else:
        match = match_bands(spec, names, options.bands, where, sensor)
    return drop_bands(match, spec, options.drop, where) if options.drop else match


def sensor_of(product: Product, options: SceneOptions) -> str | None:
    """Whose the band names are, as the product or the user says; None where neither does.

    Raises:
        BandError: The product names another sensor than the user.
    """
    if options.sensor is not None and product.sensor is not None and options.sensor != product.sensor:
        raise BandError(
            f"{product.path} is a scene of {product.sensor}, --sensor says {options.sensor}",
            "leave out --sensor; or, if the bands are others than the product says, name them with --bands",
        )
    return options.sensor or product.sensor


def gather_evidence(product: Product, match: BandMatch, stack: Stack) -> Evidence:
    """What product and files say about the numbers of the matched bands."""
    return Evidence(
        product.path / product.name if product.name else product.path,
        match.held_names,
        stack.dtypes,
        stack.scales,
        stack.offsets,
        stack.sample,
        _stated(product.statement, match.held_numbers),
    )


def _stated(statement: Statement | None, numbers: tuple[int, ...]) -> Claim | None:
    """What the metadata says of the wanted bands; None where it does not speak of each of them."""
    if statement is None:
        return None
    scales = [statement.scales[number - 1] for number in numbers]
    offsets = [statement.offsets[number - 1] for number in numbers]
    if None in scales or None in offsets:
        return None
    numbers_of = tuple(map(float, scales)), tuple(map(float, offsets))  # type: ignore[arg-type]
    return Claim(statement.rung, statement.reason, *numbers_of, statement.contradiction)


def size_ratio(steps: tuple[float, float], gsd_m: float, gsd_range_m: tuple[float, float] | None = None) -> float:
    """How many times pixels of ``steps`` metres are larger or smaller than those of a model; 1 inside its range."""
    low, high = gsd_range_m or (gsd_m, gsd_m)
    return max(max(step / high, low / step, 1.0) for step in steps)


def sizes_told(gsd_m: float, gsd_range_m: tuple[float, float] | None = None) -> str:
    """The pixel sizes of a model's training data, as messages call them: ``10 m``, ``10 to 30 m``."""
    low, high = gsd_range_m or (gsd_m, gsd_m)
    return f"{low:g} m" if low == high else f"{low:g} to {high:g} m"


def check_resolution(
    grid: Grid, gsd_m: float, where: str = "the scene", gsd_range_m: tuple[float, float] | None = None
) -> tuple[str, ...]:
    """Compare a scene's pixels with those that a model was trained on.

    Args:
        grid: The scene's grid.
        gsd_m: Ground sampling distance of the training data in metres.
        gsd_range_m: Smallest and largest one of them, where they had several.
        where: What the error message calls the scene.

    Returns:
        Warnings: pixels that are not square or differ by more than 25 %; none for a grid without a CRS.

    Raises:
        GridError: The pixels are more than four times too large or too small.
    """
    steps = grid.gsd_m()
    if steps is None:
        return ()
    height_m, width_m = steps
    stated = f"pixels of {height_m:.4g} x {width_m:.4g} m (height x width)"
    ratio, learned = size_ratio(steps, gsd_m, gsd_range_m), sizes_told(gsd_m, gsd_range_m)
    if ratio > FAR_GSD:
        raise GridError(
            f"{where} has {stated}, the model needs {learned}",
            f"let the model see it at its own: --gsd {gsd_m:g}; small things may be lost, or are not there",
        )
    warnings = []
    if ratio > NEAR_GSD:
        warnings.append(f"the scene has {stated}, the model was trained on {learned}: expect more errors")
    if max(steps) > SQUARE * min(steps):
        warnings.append(f"the scene has {stated}: they are not square")
    return tuple(warnings)


class _Cache:
    """GDAL's block cache, which all threads share: as large as all of their shares together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shares: list[int] = []
        self._before: Any = None

    @contextmanager
    def share(self, size_bytes: int) -> Iterator[None]:
        from rasterio._env import get_gdal_config  # rasterio.Env would give back what another thread still needs

        with self._lock:
            if not self._shares:
                self._before = get_gdal_config("GDAL_CACHEMAX", normalize=False)
            self._shares.append(size_bytes)
            self._resize()
        try:
            yield
        finally:
            with self._lock:
                self._shares.remove(size_bytes)
                self._resize()

    def _resize(self) -> None:
        from rasterio._env import set_gdal_config

        set_gdal_config("GDAL_CACHEMAX", sum(self._shares) if self._shares else self._before, normalize=False)


_CACHE = _Cache()


@contextmanager
def block_cache(size_bytes: int) -> Iterator[None]:
    """Give GDAL's block cache a size; without it GDAL takes 5 % of the machine's memory.

    Runs in several threads add up.
    """
    import rasterio
    from rasterio.session import DummySession

    # Without a session of ours rasterio would look for credentials in the environment.
    with rasterio.Env(session=DummySession()), _CACHE.share(size_bytes):
        yield
