"""A composite as a file: classes with their palette, and the count of clear observations as a second band."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import Legend
from geoseg_cli.grid import Grid
from geoseg_cli.results.areas import ClassArea, class_areas
from geoseg_cli.results.beside import write_sidecars
from geoseg_cli.results.cog import write_cog
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.creation_options import check_creation_options
from geoseg_cli.results.description import COUNTS_TAG, PIXELS_TAG, MapDescription, legend_tags
from geoseg_cli.results.raster import RasterSpec, WorkRaster
from geoseg_cli.results.stac import Asset

COUNT_BAND, MOST_COUNTED = "clear_observations", 254
"""Name of the second band, and where it saturates: a GeoTIFF has one nodata number for all bands, 255."""


@dataclass(frozen=True, slots=True)
class CompositeSpec:
    """What a composite is, apart from its pixels.

    Attributes:
        grid: Where its pixels lie.
        legend: Its classes.
        band: Description of the first band.
        tags: Provenance.
        creation_options: GDAL creation options.
    """

    grid: Grid
    legend: Legend
    band: str
    tags: Mapping[str, str]
    creation_options: Mapping[str, str]

    def raster(self) -> RasterSpec:
        """The file's two bands."""
        return RasterSpec(
            self.grid,
            bands=2,
            descriptions=(self.band, COUNT_BAND),
            nodata=self.legend.nodata,
            palette=self.legend.palette(),
            tags={**self.tags, **legend_tags(self.legend)},
        )


class CompositeWriter:
    """Takes rows of a composite and leaves a COG where a transaction will publish it; a context manager."""

    def __init__(self, spec: CompositeSpec, target: Path, transaction: OutputTransaction) -> None:
        """Create the work raster.

        Raises:
            UsageError: A creation option cannot be used.
            StorageError: The disk cannot hold the output, or does not take it.
        """
        check_creation_options(spec.creation_options)
        raster = spec.raster()
        transaction.require_space(raster.worst_case_bytes(), target)
        self._spec, self._target, self._transaction = spec, target, transaction
        self._digests = {PIXELS_TAG: hashlib.sha256(), COUNTS_TAG: hashlib.sha256()}
        self._work = WorkRaster(transaction.scratch("labels.tif"), raster, target)

    def write(self, row: int, labels: npt.NDArray[np.uint8], counts: npt.NDArray[np.uint8]) -> None:
        """Append rows: (h, W) uint8 classes, and (h, W) uint8 observations of 0 to ``MOST_COUNTED``."""
        for digest, plane in zip(self._digests.values(), (labels, counts), strict=True):
            digest.update(plane.tobytes())
        self._work.write(row, np.stack((labels, counts)))

    def finish(self, with_sidecars: bool) -> None:
        """Write the COG, read it back, and describe it.

        Raises:
            StorageError: The disk does not take it, or gives back other pixels.
        """
        self._work.add_tags(self._hashes())
        self._work.close()
        self._transaction.require_space(self._work.spec.finished_bytes(), self._target)
        out = self._transaction.path(self._target)
        write_cog(self._work, out, self._spec.creation_options)
        self._work.path.unlink()
        if with_sidecars:
            asset = Asset("labels", self._target, out, self._work.spec)
            write_sidecars(self._describe(), [asset], None, self._transaction)

    def areas(self) -> tuple[ClassArea, ...]:
        """What each class covers."""
        return class_areas(self._work.counts, self._spec.legend)

    def _hashes(self) -> dict[str, str]:
        return {tag: digest.hexdigest() for tag, digest in self._digests.items()}

    def _describe(self) -> MapDescription:
        spec, tags = self._spec, {**self._work.spec.tags, **self._hashes()}
        return MapDescription(self._target.name, spec.grid, spec.legend, spec.band, tags, self.areas())

    def __enter__(self) -> CompositeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._work.abandon()
