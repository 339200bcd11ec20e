"""A finished class map against a reference: goes through both in strips, and counts.

Memory is that of a strip of rows and of the counts of each block, whatever the map's height. Axes: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from geoseg_cli import shape_file
from geoseg_cli.errors import InputError, UsageError
from geoseg_cli.evaluate.classes import ReferenceOptions
from geoseg_cli.evaluate.map_counts import UnitArray, UnitCounts, table_columns
from geoseg_cli.evaluate.map_report import MapReport
from geoseg_cli.evaluate.rasters import MapFile, RasterReference
from geoseg_cli.evaluate.shapes import ShapeReference
from geoseg_cli.grid import Grid, Window
from geoseg_cli.memory import free_memory_bytes
from geoseg_cli.scenes import block_cache

TOLERANCE_PX, BLOCK_PX = 2, 128
"""Defaults: how far boundaries may lie apart, and the side of the blocks that intervals draw."""

MOST_UNITS = 100_000
MOST_TOLERANCE_PX = 64
_STRIP_PX, _STRIP_ROWS = 2**21, 64
_CACHE_BYTES = 64 * 2**20
_FREE_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """How a map is compared.

    Attributes:
        legend: What the map's values mean, as ``--legend`` says it; None for what its tags say.
        reference: What the reference's values mean.
        ignore_unknown: Whether values that nothing says the class of are left out instead of refused.
        tolerance_px: How far boundaries may lie apart.
        block_px: Side of the blocks that intervals draw.
        strip_rows: Rows that are read at a time; None for as many as memory allows. Figures do not depend on it.
    """

    legend: str | None = None
    reference: ReferenceOptions = field(default_factory=ReferenceOptions)
    ignore_unknown: bool = False
    tolerance_px: int = TOLERANCE_PX
    block_px: int = BLOCK_PX
    strip_rows: int | None = None


def compare_map(map_path: Path, reference_path: Path, options: CompareOptions | None = None) -> MapReport:
    """Compare a class map with a reference.

    Args:
        map_path: GeoTIFF of classes.
        reference_path: GeoTIFF of classes on any grid, or ``.geojson``, ``.json`` or ``.gpkg`` with points or polygons.
        options: How; defaults when None.

    Raises:
        GeosegError: One of them cannot be used, holds values that nothing says the class of, or no pixel has a class
            in both.
    """
    options = options or CompareOptions()
    if not 0 < options.tolerance_px <= MOST_TOLERANCE_PX:
        raise UsageError(f"--tolerance {options.tolerance_px} is not 1 to {MOST_TOLERANCE_PX}", "give it in pixels")
    with block_cache(_CACHE_BYTES), closing(MapFile(map_path, options.legend)) as map_file:
        grid = map_file.grid
        with _opened(reference_path, map_file, options.reference) as reference:
            comparison = _Comparison(map_file, reference, options)
            for start, stop in _strips(grid, options.strip_rows):
                comparison.add(start, stop)
            _refuse_strangers(map_file, reference, options.ignore_unknown)
            return comparison.report()


@contextmanager
def _opened(path: Path, map_file: MapFile, options: ReferenceOptions) -> Iterator[RasterReference | ShapeReference]:
    has_shapes = path.suffix.lower() in (*shape_file.SUFFIXES, *shape_file.OTHER_SUFFIXES)
    kind = ShapeReference if has_shapes else RasterReference
    with closing(kind(path, map_file.grid, map_file.classes, options)) as reference:
        yield reference


class _Comparison:
    """Counts that grow strip by strip, from top to bottom."""

    def __init__(self, map_file: MapFile, reference: RasterReference | ShapeReference, options: CompareOptions) -> None:
        self._map, self._reference, self._options = map_file, reference, options
        self._grid = map_file.grid
        # Shapes cover parts of the map, and their edges are those of fields, not of classes.
        self._has_boundaries = isinstance(reference, RasterReference)
        self._by_shape = isinstance(reference, ShapeReference) and reference.count <= MOST_UNITS
        classes = len(map_file.classes.legend.classes)
        _refuse_excess(self._unit_count(), classes)
        self._counts = UnitCounts(self._unit_count(), classes)

    def add(self, start: int, stop: int) -> None:
        """Count the rows from ``start`` to ``stop``."""
        halo = self._options.tolerance_px + 1 if self._has_boundaries else 0
        top, bottom = max(0, start - halo), min(self._grid.height, stop + halo)
        window, inside = Window(top, 0, bottom - top, self._grid.width), slice(start - top, stop - top)
        called = self._map.read(window, inside)
        if isinstance(self._reference, ShapeReference):
            truth, shapes = self._reference.read_units(window, inside)
            units = shapes if self._by_shape else self._blocks(start, stop)
        else:
            truth, units = self._reference.read(window, inside), self._blocks(start, stop)
        self._counts.add(truth[inside], called[inside], units)
        if self._has_boundaries:
            self._counts.add_boundaries(truth, called, units, inside, self._options.tolerance_px)

    def report(self) -> MapReport:
        """What all strips came to.

        Raises:
            InputError: No pixel has a class in both.
        """
        counts, options, reference = self._counts, self._options, self._reference
        table = counts.occupied()
        if not len(table):
            raise InputError(
                f"no pixel has a class in {self._map.path} and in {reference.path}",
                "check that they cover the same ground and that --ignore leaves something",
            )
        return MapReport(
            map=self._map.path.name,
            reference=reference.path.name,
            legend=self._map.classes.legend,
            table=table,
            unit=("shapes" if self._by_shape else f"blocks of {options.block_px} x {options.block_px} px"),
            tolerance_px=options.tolerance_px if self._has_boundaries else None,
            unanswered=counts.unanswered,
            untold=counts.untold,
            left_out={
                f"{kind} in the {where}": dict(sorted(found.items()))
                for where, tally in (("map", self._map.tally), ("reference", reference.tally))
                for kind, found in (("ignored", tally.ignored), ("unknown", tally.unknown))
                if found
            },
            notes=reference.notes,
        )

    def _unit_count(self) -> int:
        if isinstance(self._reference, ShapeReference) and self._by_shape:
            return self._reference.count
        side = self._options.block_px
        blocks = -(-self._grid.height // side) * -(-self._grid.width // side) if side > 0 else 0
        if not 0 < blocks <= MOST_UNITS:
            raise UsageError(
                f"--block {side} makes {blocks:,} blocks, 1 to {MOST_UNITS:,} are possible", "give larger blocks"
            )
        return blocks

    def _blocks(self, start: int, stop: int) -> UnitArray:
        """(h, W) int32 number of the block of each pixel."""
        side, width = self._options.block_px, self._grid.width
        rows = np.arange(start, stop, dtype=np.int32) // side * -(-width // side)
        return rows[:, None] + np.arange(width, dtype=np.int32) // side


def _refuse_excess(units: int, classes: int) -> None:
    """Refuse a table of counts that the memory does not hold, twice since empty units are taken out in the end."""
    free, needed = free_memory_bytes(), 2 * units * table_columns(classes) * 8
    if free is not None and needed > _FREE_SHARE * free:
        raise UsageError(
            f"{classes} classes in {units:,} parts of the map are too much to count: about {needed / 2**30:.1f} GiB,"
            f" and {free / 2**30:.1f} GiB are free",
            "give larger blocks with --block, or compare fewer classes with --legend",
        )


def _strips(grid: Grid, rows: int | None) -> Iterator[tuple[int, int]]:
    step = rows or max(1, _STRIP_PX // (grid.width * _STRIP_ROWS)) * _STRIP_ROWS
    for start in range(0, grid.height, step):
        yield start, min(grid.height, start + step)


def _refuse_strangers(map_file: MapFile, reference: RasterReference | ShapeReference, is_ignored: bool) -> None:
    map_file.tally.refuse_unknown(map_file.path, "px", "name all its classes with --legend", map_file.classes)
    if is_ignored:
        return
    reference.tally.refuse_unknown(
        reference.path,
        reference.unit,
        'map them: --map "11=10,12=40"; or leave them out: --ignore VALUE,VALUE or --ignore-unknown',
        map_file.classes,
    )
