"""A finished class map -> polygons with attributes, one for each connected part of a class.

Two passes over the map: the first finds its parts and how large they are, the second traces their outlines strip by
strip. No polygon is cut where a strip, a block or a tile ends. Without simplification the polygons cover exactly the
pixels of the map; simplification moves the line between two polygons once, for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from geoseg_cli.catalog import Legend
from geoseg_cli.errors import GridError, InputError, StorageError, UsageError
from geoseg_cli.grid import Grid
from geoseg_cli.results.areas import M2_PER_HECTARE, pixel_areas_m2
from geoseg_cli.results.class_map import ClassMap, LabelRaster
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.components import NONE, Components, Numbers, component_strips, find_components
from geoseg_cli.results.mean_confidence import MeanConfidence
from geoseg_cli.results.outlines import GeometryArray, Outlines, OutlineTracer
from geoseg_cli.results.parquet_file import Columns
from geoseg_cli.results.polygon_options import PolygonOptions
from geoseg_cli.results.sieve import merge_small
from geoseg_cli.results.simplify import Simplification
from geoseg_cli.results.storage import READ_BACK_HINT
from geoseg_cli.results.vector_file import VectorFormat, Writer, format_of, vector_writer

FloatArray = npt.NDArray[np.float64]

MAX_STRAIGHT_PX = 100
"""Longest line that becomes a straight one in longitude and latitude: of 1 km at 10 m, which errs by 2 cm."""
SAME_RUN = (
    "GEOSEG_MODEL_SHA256", "GEOSEG_INPUT", "GEOSEG_INPUT_BYTES", "GEOSEG_BANDS", "GEOSEG_RADIOMETRY", "GEOSEG_GSD",
    "GEOSEG_TILE", "GEOSEG_OVERLAP", "GEOSEG_BLEND", "GEOSEG_TTA", "GEOSEG_CLOUD_THRESHOLD",
    "GEOSEG_CLOUD_MODEL_SHA256",
)  # fmt: skip
"""Tags that a map and its confidence have in common."""
_FINEST_PX = 4096
"""Points between corners lie on 1/4096 px, the same ones for both neighbours whatever the rounding."""


@dataclass(frozen=True, slots=True)
class ClassPolygons:
    """The polygons of one class.

    Attributes:
        value, name, title: As in the legend.
        polygons: How many.
        pixels: The pixels that they were made of.
        hectares: Ground area of these pixels; None where the map does not tell where on Earth it lies.
    """

    value: int
    name: str
    title: str
    polygons: int
    pixels: int
    hectares: float | None


@dataclass(frozen=True, slots=True)
class PolygonReport:
    """What was written.

    Attributes:
        output: The file.
        polygons, points: All polygons, and their points.
        merged: Parts of the map that were too small and became part of others.
        classes: Per class, absent ones included.
    """

    output: Path
    polygons: int
    points: int
    merged: int
    classes: tuple[ClassPolygons, ...]

    def to_json(self) -> dict[str, Any]:
        """The report in plain types."""
        return asdict(self) | {"output": str(self.output), "classes": [asdict(one) for one in self.classes]}


def write_polygons(path: Path, out: Path, options: PolygonOptions | None = None) -> PolygonReport:
    """Write the polygons of a class map; the file appears under its name when it is complete and was read back.

    Args:
        path: The map: a GeoTIFF of classes.
        out: A .gpkg, .fgb, .geojson or .parquet file.
        options: How; defaults when None.

    Raises:
        GeosegError: Anything that a user can do something about.
    """
    options = options or PolygonOptions()
    run = _Run(ClassMap.open(path, options.legend), options, out)
    inputs = [path, *([options.confidence] if options.confidence else [])]
    with OutputTransaction([out], options.overwrite, inputs) as transaction:
        report = run.write(vector_writer(transaction, out, run.form, run.map.raster.grid, run.map.raster.tags))
        if not report.polygons:
            raise InputError(f"{path} has no pixel of {run.wanted}", "choose other --classes, or another map")
        transaction.commit()
    return report


def add_polygons(path: Path, out: Path, options: PolygonOptions, transaction: OutputTransaction) -> PolygonReport:
    """Write the polygons of a map that the same transaction will publish; a map without a class has none.

    Args:
        path: Where the map lies now.
        out: As for :func:`write_polygons`; one of the transaction's targets.
        options: How.
        transaction: Publishes both.

    Raises:
        GeosegError: Anything that a user can do something about.
    """
    run = _Run(ClassMap.open(path), options, out)
    return run.write(vector_writer(transaction, out, run.form, run.map.raster.grid, run.map.raster.tags))


def refuse_bad_polygons(out: Path, grid: Grid, options: PolygonOptions) -> None:
    """Refuse what cannot be written of any map on a grid, before there is one.

    Raises:
        UsageError: The file's ending, a number, or a package that is not installed.
        GridError: The grid does not tell what the options or the format need.
    """
    format_of(out, grid)
    _least_units(grid, options.min_area_ha)
    _simplification(grid, options.simplify_m)


class _Run:
    """One map on its way to a vector file; what can be refused is refused before any pixel is read."""

    def __init__(self, class_map: ClassMap, options: PolygonOptions, out: Path) -> None:
        self.map, self._options, self._out = class_map, options, out
        grid = class_map.raster.grid
        self.form: VectorFormat = format_of(out, grid)
        self._chosen = _chosen_values(class_map.legend, options.classes)
        self._row_units, self._unit_m2 = _pixel_units(grid)
        self._least = _least_units(grid, options.min_area_ha)
        self._simplification = _simplification(grid, options.simplify_m)
        self._confidence = _opened_confidence(options.confidence, class_map.raster)
        self._means: MeanConfidence | None = None

    @property
    def wanted(self) -> str:
        """Names of the classes that are written."""
        return ", ".join(one.name for one in self.map.legend.classes if one.value in self._chosen)

    def write(self, writer: Writer) -> PolygonReport:
        """Find the parts of the map, trace them, write them and read them back."""
        nodata = self.map.legend.nodata
        found = find_components(self.map.strips, nodata, self._row_units, self._least)
        components = merge_small(found, self._least) if self._least else found
        features = self._traced(components)
        for outlines in self._simplification.applied(features) if self._simplification else features:
            writer.write(self._on_map(outlines.polygons), self._columns(components, outlines.components))
        if not writer.features:
            writer.write(np.empty(0, object), self._columns(components, np.empty(0, np.int64)))
        tags = self.map.raster.tags
        writer.finish({name: text for name, text in tags.items() if name.startswith("GEOSEG_")})
        classes = self._classes(components)
        self._check(writer, classes)
        return PolygonReport(
            self._out, writer.features, writer.points, len(found.values) - len(components.values), classes
        )

    def _traced(self, components: Components) -> Iterator[Outlines]:
        """Outlines in pixels of the components that were chosen; their confidence is summed on the way."""
        nodata, grid = self.map.legend.nodata, self.map.raster.grid
        is_chosen = np.append(np.isin(components.values, self._chosen), False)  # NONE finds the last one
        keep_corners = self._simplification is not None or self.form.is_lon_lat
        tracer = OutlineTracer(grid.width, components.last_rows, keep_corners)
        if self._confidence:
            self._means = MeanConfidence(self._confidence, len(components.values))
        for row, _, numbers in component_strips(self.map.strips, nodata, components):
            if self._means:
                self._means.add(row, numbers)
            yield from tracer.add(np.where(is_chosen[numbers], numbers, np.int32(NONE)))
        yield from tracer.finish()

    def _on_map(self, polygons: GeometryArray) -> GeometryArray:
        """Polygons in pixels -> in map coordinates, outer rings counter-clockwise."""
        t = self.map.raster.grid.transform
        if self.form.is_lon_lat:
            polygons = shapely.segmentize(polygons, MAX_STRAIGHT_PX)
            polygons = shapely.transform(polygons, lambda xy: np.rint(xy * _FINEST_PX) / _FINEST_PX)

        def placed(xy: FloatArray) -> FloatArray:
            x, y = xy.T
            return np.stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f], axis=1)

        oriented: GeometryArray = shapely.orient_polygons(shapely.transform(polygons, placed))
        return oriented

    def _columns(self, components: Components, numbers: Numbers) -> Columns:
        """The attributes of some components."""
        classes = {one.value: one for one in self.map.legend.classes}
        values = [classes[int(value)] for value in components.values[numbers]]
        columns: dict[str, npt.NDArray[Any]] = {
            "value": components.values[numbers].astype(np.int32),
            "name": np.array([one.name for one in values], object),
            "title": np.array([one.title for one in values], object),
            "pixels": components.pixels[numbers],
        }
        if self._unit_m2 is not None:
            columns["area_ha"] = components.sizes[numbers] * (self._unit_m2 / M2_PER_HECTARE)
        if self._means:
            columns["mean_prob"] = self._means.of(numbers)
        return columns

    def _classes(self, components: Components) -> tuple[ClassPolygons, ...]:
        found = []
        for one in self.map.legend.classes:
            mine = (components.values == one.value) & (one.value in self._chosen)
            size = int(components.sizes[mine].sum())
            hectares = None if self._unit_m2 is None else size * self._unit_m2 / M2_PER_HECTARE
            pixels = int(components.pixels[mine].sum())
            found.append(ClassPolygons(one.value, one.name, one.title, int(mine.sum()), pixels, hectares))
        return tuple(found)

    def _check(self, writer: Writer, classes: tuple[ClassPolygons, ...]) -> None:
        """Compare what the file holds with the map.

        Raises:
            StorageError: Polygons are missing, or cover something else than their pixels.
        """
        count = self.map.legend.value_count
        pixels, areas = np.zeros(count, np.int64), np.zeros(count)
        for polygons, columns in writer.read_back(["value", "pixels"]):
            np.add.at(pixels, columns["value"], columns["pixels"])
            np.add.at(areas, columns["value"], shapely.area(polygons))
        pixel_area = abs(self.map.raster.grid.transform.determinant)
        keeps_area = self._simplification is None and not self.form.is_lon_lat
        for one in classes:
            is_covered = not keeps_area or np.isclose(areas[one.value], one.pixels * pixel_area, rtol=1e-6, atol=0)
            if pixels[one.value] != one.pixels or not is_covered:
                raise StorageError(f"{self._out}: class {one.name} came back with another area", READ_BACK_HINT)


def _chosen_values(legend: Legend, wanted: tuple[str, ...] | None) -> tuple[int, ...]:
    if wanted is None:
        return legend.values
    by_word = {one.name: one.value for one in legend.classes} | {str(one.value): one.value for one in legend.classes}
    for word in wanted:
        if word.strip() not in by_word:
            names = ", ".join(f"{one.value} {one.name}" for one in legend.classes)
            raise UsageError(f"--classes {word!r} is no class of the map", f"choose from {names}")
    return tuple(sorted({by_word[word.strip()] for word in wanted}))


def _pixel_units(grid: Grid) -> tuple[Numbers, float | None]:
    """(H,) int64 ground area of a pixel of each row in whole units, and the unit in square metres.

    Whole numbers, so that sums do not depend on their order; units so small that rounding is below 1e-9 of any area.
    """
    row_m2 = pixel_areas_m2(grid)
    if row_m2 is None:
        return np.ones(grid.height, np.int64), None
    unit_m2 = float(row_m2.sum()) * grid.width / 2.0**60
    return np.rint(row_m2 / unit_m2).astype(np.int64), unit_m2


def _least_units(grid: Grid, min_area_ha: float | None) -> int:
    """Smallest size of a component that stays, in the units of ``_pixel_units``; 0 keeps all."""
    if min_area_ha is None:
        return 0
    unit_m2 = _pixel_units(grid)[1]
    if unit_m2 is None:
        raise GridError(
            "the map does not say how large its pixels are, so --min-area means nothing", "leave out --min-area"
        )
    if not min_area_ha > 0:
        raise UsageError(f"--min-area {min_area_ha:g} is no area", "give hectares above 0")
    return int(min(min_area_ha * M2_PER_HECTARE / unit_m2, 2.0**62))


def _simplification(grid: Grid, tolerance_m: float | None) -> Simplification | None:
    if tolerance_m is None:
        return None
    if not tolerance_m > 0:
        raise UsageError(f"--simplify {tolerance_m:g} is no distance", "give metres above 0, such as twice the pixel")
    steps_m = grid.gsd_m()
    if steps_m is None:
        raise GridError("the map does not say how large its pixels are, so --simplify means nothing", "leave it out")
    return Simplification(tolerance_m, *steps_m)


def _opened_confidence(path: Path | None, class_map: LabelRaster) -> LabelRaster | None:
    """The confidence of a map, once nothing speaks against it being that."""
    if path is None:
        return None
    raster, remedy = LabelRaster.open(path), "give the confidence that was written together with the map"
    if raster.grid != class_map.grid:
        raise InputError(f"{path} has other pixels than the map", remedy)
    if raster.band != "confidence" or raster.scale == 1:
        raise InputError(f"{path} is no raster of confidence that geoseg wrote", remedy)
    # A map of another origin says none of this.
    other = [name for name in SAME_RUN if name in class_map.tags and raster.tags.get(name) != class_map.tags[name]]
    if other:
        raise InputError(f"{path} is the confidence of another map, which differs in {', '.join(other)}", remedy)
    return raster
