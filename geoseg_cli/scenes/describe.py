"""What geoseg makes of a scene, before any model runs: every decision with its reason, or the refusal with its remedy.

The decisions are made by the code that opens scenes for a run, so a run comes to the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError
from rasterio.warp import transform_bounds

from geoseg_cli.bundle import Bundle, InputSpec
from geoseg_cli.catalog import Sensor, common_names, sensors
from geoseg_cli.errors import BandError, GeosegError, RadiometryError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.orientation import Orientation
from geoseg_cli.scenes import SceneOptions, check_resolution, gather_evidence, match_product, sensor_of
from geoseg_cli.scenes.bands import SKIP, BandMatch, fitting_sensors, known_names, named_by_sensor
from geoseg_cli.scenes.layouts import find_product
from geoseg_cli.scenes.network import is_remote
from geoseg_cli.scenes.parts import Validity
from geoseg_cli.scenes.product import Product
from geoseg_cli.scenes.radiometry import Radiometry, decide_radiometry
from geoseg_cli.scenes.resample import Gsd, choose_gsd, resampled_grid
from geoseg_cli.scenes.stack import Stack, open_stack

_FINEST_M = 1e-3
"""Finer than any pixel: asks for the grid of the finest band."""

_SAMPLE_WINDOWS, _SAMPLE_SIDE_PX = 4, 128
"""Windows of the sample along each axis, and their side."""

_SAY_BANDS = (
    "name the bands in the order of the file: --bands NAME,NAME,... with - for a band to skip; or, where they are all"
    " those of a sensor, name it: --sensor NAME"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What could not be decided, and what to do about it."""

    message: str
    hint: str

    @classmethod
    def of(cls, error: GeosegError) -> Refusal:
        """The refusal that an error states."""
        return cls(error.message, error.hint)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a band is if the scene is of a sensor.

    Attributes:
        sensor: Name in ``data/sensors.toml``.
        common: Common names, the STAC one first.
        wavelength_nm: Centre wavelength.
    """

    sensor: str
    common: tuple[str, ...]
    wavelength_nm: float


@dataclass(frozen=True, slots=True)
class BandDescription:
    """A band of the scene.

    Attributes:
        number: From 1, in the order of the file or product.
        name: What it is called there, or by the user; ``""`` where nothing says.
        common: The common name that all its meanings share first; None where they differ or there is none.
        meanings: One per sensor that has bands of all these names.
    """

    number: int
    name: str
    common: str | None
    meanings: tuple[Meaning, ...]


@dataclass(frozen=True, slots=True)
class BundleFit:
    """Whether a bundle can run on the scene.

    Attributes:
        bundle: Its name.
        task: ``land-cover`` or ``cloud``.
        absent: Bands of the bundle that the scene lacks; all are optional where it runs.
        filled: Bands that the user's reflectances stand for.
        shown_gsd_m: Pixel size that the network sees; None for the scene's own.
        refusal: Why it cannot run; None where it can.
        warnings: What the user should know.
    """

    bundle: str
    task: str
    absent: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    shown_gsd_m: float | None = None
    refusal: Refusal | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """Windows spread over the scene.

    Attributes:
        pixels: How many pixels they have.
        valid: How many of them are valid.
    """

    pixels: int
    valid: int


@dataclass(frozen=True, slots=True)
class SceneDescription:
    """What geoseg makes of a scene.

    Attributes:
        path: Absolute path, or the address.
        layout: What it is, as a person says it.
        sensor: Name in ``data/sensors.toml`` that the product or the user states; None where only band names tell.
        grid: Of the band with the smallest pixels.
        orientation: How pixels are turned before the model sees them.
        bands: All bands of the product.
        naming: Why its bands cannot be told; None where they can.
        radiometry: What the numbers mean, or why nothing says so.
        nodata: Where validity comes from, as a sentence.
        sample: Valid pixels of a sample, in all bands that are known.
        warnings: What the user should know.
        bundles: Which bundles can run.
    """

    path: Path
    layout: str
    sensor: str | None
    grid: Grid
    orientation: str
    bands: tuple[BandDescription, ...]
    naming: Refusal | None
    radiometry: Radiometry | Refusal
    nodata: str
    sample: Sample
    warnings: tuple[str, ...]
    bundles: tuple[BundleFit, ...]

    @property
    def bounds_wgs84(self) -> tuple[float, float, float, float] | None:
        """West, south, east and north of the grid in degrees, west above east across the 180th meridian; None where the
        CRS does not tell."""
        if self.grid.crs is None:
            return None
        try:
            left, bottom, right, top = transform_bounds(self.grid.crs, "EPSG:4326", *self.grid.bounds)
        except (CRSError, CPLE_BaseError):
            return None
        return (left, bottom, right, top) if all(map(math.isfinite, (left, bottom, right, top))) else None


def describe_scene(
    path: Path, options: SceneOptions, bundles: Sequence[Bundle] = (), gsd: Gsd = "auto"
) -> SceneDescription:
    """Open a scene and tell what can be decided about it.

    Args:
        path: As for :func:`geoseg_cli.scenes.open_scene`.
        options: What the user says about the scene; ``fill`` counts for the bundles only.
        bundles: Those to try.
        gsd: Pixel size that they would see, as for :class:`geoseg_cli.job.PredictOptions`.

    Raises:
        UsageError, BandError: An option is wrong.
        GeosegError: The scene cannot be read, or its bands lie on grids that do not nest.
    """
    path = path if is_remote(str(path)) else path.absolute()
    product = find_product(path, options)
    plain = replace(options, fill=(), drop=())
    bands = _bands(product, plain)
    match, naming = _named(product, bands, plain)
    with _opened(product, match, _FINEST_M, plain) as stack:
        radiometry = _radiometry(product, match, stack, plain)
        sample = _sample(stack)
        orientation = Orientation.of(stack.grid)
        doubts = radiometry.warnings if isinstance(radiometry, Radiometry) else ()
        warnings = (*product.warnings, *orientation.still_true(stack.warnings), *doubts)
        grid, nodata = stack.grid, stack.nodata_reason
    fits = tuple(_fit(product, bundle, options, gsd, radiometry) for bundle in bundles)
    sensor = options.sensor or product.sensor
    return SceneDescription(
        path, product.layout, sensor, grid, str(orientation), bands, naming, radiometry, nodata, sample, warnings, fits
    )


def _bands(product: Product, options: SceneOptions) -> tuple[BandDescription, ...]:
    """Every band of the product with what its name means."""
    names: Sequence[str | None] = [layer.name or None for layer in product.layers]
    if options.sensor is not None:
        names = named_by_sensor(options.sensor, names, str(product.path))
    if options.bands is not None:
        names = [None if name == SKIP else name for name in options.bands]
    known = [name if name and name.casefold() in known_names() else "" for name in names]
    named = sensor_of(product, options)
    candidates = (sensors()[named],) if named is not None else fitting_sensors(known)
    return tuple(
        BandDescription(number, name or "", *_meanings(meant, candidates))
        for number, (name, meant) in enumerate(zip(names, known, strict=True), start=1)
    )


def _meanings(name: str, candidates: Sequence[Sensor]) -> tuple[str | None, tuple[Meaning, ...]]:
    """The common name that a band is known by, and what it is for each sensor that has it."""
    found = [(sensor, band) for sensor in candidates if name and (band := sensor.find(name)) is not None]
    meanings = tuple(Meaning(sensor.name, band.common, band.wavelength_nm) for sensor, band in found)
    if name.casefold() in common_names():
        return name.casefold(), meanings
    first = {meaning.common[0] for meaning in meanings}
    return (first.pop() if len(first) == 1 else None), meanings


def _named(
    product: Product, bands: Sequence[BandDescription], options: SceneOptions
) -> tuple[BandMatch, Refusal | None]:
    """The bands that are known, as a network that wants each of them would find them, and why others are not.

    Returns:
        All bands of the product without names where none is known.

    Raises:
        BandError: The user's names do not fit the file.
    """
    wanted = tuple(dict.fromkeys(band.common for band in bands if band.common is not None))
    if options.bands is not None:
        return match_product(product, _wanting(wanted or common_names()), options), None
    refusal = _unclear(product, bands)
    if wanted:
        try:
            return match_product(product, _wanting(wanted), options), refusal
        except BandError as error:
            refusal = Refusal(error.message, _SAY_BANDS)
    count = len(product.layers)
    return BandMatch(("",) * count, tuple(range(1, count + 1)), tuple(band.name for band in bands)), refusal


def _unclear(product: Product, bands: Sequence[BandDescription]) -> Refusal | None:
    """Why names do not tell bands: there are none, or they belong to several sensors; None where nothing is unclear."""
    if not any(band.common or band.meanings for band in bands):
        return Refusal(f"{product.path}: no band has a name that is known", _SAY_BANDS)
    doubt = [band for band in bands if band.meanings and band.common is None]
    if not doubt:
        return None
    able = list(dict.fromkeys(meaning.sensor for band in doubt for meaning in band.meanings))
    names = ", ".join(band.name for band in doubt)
    return Refusal(
        f"{product.path}: {names} {'are' if len(doubt) > 1 else 'is'} not the same for {', '.join(able)}",
        "say which sensor took the scene: " + " or ".join(f"--sensor {name}" for name in able),
    )


def _wanting(bands: tuple[str, ...]) -> InputSpec:
    """The input of a network that can use any of these bands."""
    return InputSpec(bands, bands, (0.0,) * len(bands), (1.0,) * len(bands))


@contextmanager
def _opened(product: Product, match: BandMatch, gsd_m: float, options: SceneOptions) -> Iterator[Stack]:
    rules = Validity(options.nodata, options.valid, options.saturated)
    stack = open_stack(product, match.held_numbers, gsd_m, rules, options.max_pixels)
    try:
        yield stack
    finally:
        stack.close()


def _radiometry(product: Product, match: BandMatch, stack: Stack, options: SceneOptions) -> Radiometry | Refusal:
    try:
        return decide_radiometry(options.radiometry, gather_evidence(product, match, stack))
    except RadiometryError as error:
        return Refusal.of(error)


def _sample(stack: Stack) -> Sample:
    """Valid pixels in windows that are spread from edge to edge and do not overlap."""
    pixels = valid = 0
    for row, height in _spread(stack.grid.height):
        for col, width in _spread(stack.grid.width):
            mask = stack.read(Window(row, col, height, width))[1]
            pixels, valid = pixels + mask.size, valid + int(np.count_nonzero(mask))
    return Sample(pixels, valid)


def _spread(size: int) -> list[tuple[int, int]]:
    """Start and length of the windows along an axis; together they are all of a short one."""
    side, count = _SAMPLE_SIDE_PX, _SAMPLE_WINDOWS
    if size <= side * count:
        return [(start, min(side, size - start)) for start in range(0, size, side)]
    return [(index * (size - side) // (count - 1), side) for index in range(count)]


def _fit(product: Product, bundle: Bundle, options: SceneOptions, gsd: Gsd, known: Radiometry | Refusal) -> BundleFit:
    """Whether a bundle can run; only where the numbers of all bands together mean nothing are its own looked at."""
    extras, spec = bundle.card.extras, bundle.input_spec
    try:
        match = match_product(product, spec, options)
        with _opened(product, match, extras.gsd_m if isinstance(gsd, str) else gsd, options) as stack:
            refused = _radiometry(product, match, stack, options) if isinstance(known, Refusal) else None
            shown_gsd_m, warnings = _shown(stack.grid, extras.gsd_m, gsd, str(product.path), extras.gsd_range_m)
    except GeosegError as error:
        return BundleFit(bundle.name, extras.task, refusal=Refusal.of(error))
    filled = tuple(name for name, _ in match.filled)
    absent = tuple(name for name, held in zip(spec.bands, match.present, strict=True) if not held)
    refusal = refused if isinstance(refused, Refusal) else None
    return BundleFit(bundle.name, extras.task, absent, filled, shown_gsd_m, refusal, warnings)


def _shown(
    grid: Grid, model_gsd_m: float, gsd: Gsd, where: str, gsd_range_m: tuple[float, float] | None
) -> tuple[float | None, tuple[str, ...]]:
    """Pixel size that the network sees, None for that of the grid, and what there is to say about it.

    Raises:
        GridError: It is too far from the model's.
    """
    gsd_m = choose_gsd(grid, model_gsd_m, gsd, where, gsd_range_m)
    shown = grid if gsd_m is None else resampled_grid(grid, gsd_m)
    return None if shown == grid else gsd_m, check_resolution(shown, model_gsd_m, where, gsd_range_m)
