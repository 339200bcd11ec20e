"""The rasters of one run: labels always, probabilities, confidence, entropy and seams where asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import NODATA, Legend
from geoseg_cli.grid import Grid
from geoseg_cli.results.areas import ClassArea, class_areas
from geoseg_cli.results.clean_map import Cleaning, cleaned, refuse_bad_cleaning
from geoseg_cli.results.cog import write_cog
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.creation_options import RasterFormat, check_creation_options
from geoseg_cli.results.description import CLEANING_TAG, FORMAT_TAG, PIXELS_TAG, MapDescription, legend_tags
from geoseg_cli.results.entropy import normalised_entropy
from geoseg_cli.results.geotiff import write_geotiff
from geoseg_cli.results.raster import RasterSpec, WorkRaster
from geoseg_cli.results.stac import Asset

if TYPE_CHECKING:
    from geoseg_cli.rows import Rows

Kind = Literal["labels", "probabilities", "confidence", "entropy", "seams"]

WRITERS: Mapping[RasterFormat, Callable[[WorkRaster, Path, Mapping[str, str]], None]] = {
    "cog": write_cog,
    "gtiff": write_geotiff,
}

PROBABILITY_STEPS = 250
"""Probabilities are stored as uint8 round(p x 250): 0 to 250, which keeps 255 free for nodata."""

ENTROPY_TAG, SEAMS_TAG = "GEOSEG_ENTROPY", "GEOSEG_SEAMS"
"""Say what a raster of entropy, or of seams, holds."""


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What the maps of a run are, apart from their pixels.

    Attributes:
        grid: Where the outputs' pixels lie: the scene's grid, or a part of it.
        legend: Classes of the rows, and of the probabilities.
        description: Band description of the label map.
        tags: Provenance, in the default metadata domain.
        creation_options: GDAL creation options of the outputs.
        cleaning: What is done to the finished label map.
        format: What the outputs are.
    """

    grid: Grid
    legend: Legend
    description: str
    tags: Mapping[str, str]
    creation_options: Mapping[str, str]
    cleaning: Cleaning = field(default_factory=Cleaning)
    format: RasterFormat = "cog"

    @property
    def map_legend(self) -> Legend:
        """Classes of the label map."""
        return self.cleaning.legend_of(self.legend)

    def raster(self, kind: Kind) -> RasterSpec:
        """What one of the rasters is when it is published."""
        tags = {**self.tags, **({} if self.format == "cog" else {FORMAT_TAG: self.format})}
        if kind == "labels":
            return RasterSpec(
                self.grid,
                descriptions=(self.description,),
                nodata=self.map_legend.nodata,
                palette=self.map_legend.palette(),
                tags=tags | self._cleaning_tags(),
            )
        names = [f"prob_{c.name}" for c in self.legend.classes] if kind == "probabilities" else [kind]
        meanings: dict[Kind, dict[str, str]] = {
            "entropy": {ENTROPY_TAG: f"-sum(p ln p) / ln {len(self.legend.classes)}"},
            "seams": {SEAMS_TAG: "share of the tiles that answered and named another class than the blended answer"},
        }
        return RasterSpec(
            self.grid,
            bands=len(names),
            descriptions=tuple(names),
            tags={**tags, **meanings.get(kind, {})},
            scale=1 / PROBABILITY_STEPS,
            overview_resampling="AVERAGE",
        )

    def _cleaning_tags(self) -> dict[str, str]:
        if not self.cleaning.is_wanted:
            return {}
        return {CLEANING_TAG: json.dumps(self.cleaning.to_json())} | legend_tags(self.map_legend)


class MapWriter:
    """Takes finished rows and leaves rasters where a transaction will publish them.

    A context manager: leaving it by an exception closes what is unfinished.
    """

    def __init__(self, spec: MapSpec, targets: Mapping[Kind, Path], transaction: OutputTransaction) -> None:
        """Create the work rasters.

        Raises:
            UsageError: A creation option or the cleaning cannot be used.
            StorageError: The disk cannot hold the outputs, or does not take them.
            GridError: The scene's CRS does not fit a GeoTIFF.
        """
        self._spec, self._targets, self._transaction = spec, targets, transaction
        check_creation_options(spec.creation_options, spec.format)  # refused now rather than after the inference
        refuse_bad_cleaning(spec.legend, spec.cleaning)
        self._digest = hashlib.sha256()
        rasters = {kind: spec.raster(kind) for kind in targets}
        _require_space(transaction, {target: rasters[kind].worst_case_bytes() for kind, target in targets.items()})
        if spec.cleaning.is_wanted:
            rasters["labels"] = RasterSpec(spec.grid, nodata=spec.legend.nodata)
        self._works = {
            kind: WorkRaster(transaction.scratch(f"{kind}.tif"), rasters[kind], target)
            for kind, target in targets.items()
        }

    def write(self, rows: Rows) -> None:
        """Append finished rows to every raster."""
        if not self._spec.cleaning.is_wanted:
            self._digest.update(rows.labels.tobytes())
        for kind, work in self._works.items():
            work.write(rows.row, _pixels(kind, rows))

    def finish(self) -> None:
        """Clean the label map, turn the work rasters into what is published, and read that back.

        Raises:
            StorageError: The disk does not take them, or gives back other pixels.
            UsageError: The map falls into more parts than fit into the free memory.
        """
        if self._spec.cleaning.is_wanted:
            self._clean()
        self._works["labels"].add_tags({PIXELS_TAG: self._digest.hexdigest()})
        for kind, work in self._works.items():
            work.close()
            write = WRITERS[self._spec.format]
            write(work, self._transaction.path(self._targets[kind]), self._spec.creation_options)
            work.path.unlink()

    def _clean(self) -> None:
        """Put a work raster of the cleaned labels in the place of that of the rows, which goes."""
        spec, raw = self._spec, self._works["labels"]
        raw.close()
        source, _ = cleaned(raw.strips, spec.grid.height, spec.legend, spec.cleaning)
        work = WorkRaster(self._transaction.scratch("cleaned.tif"), spec.raster("labels"), self._targets["labels"])
        self._works["labels"] = work
        for row, labels in source():
            self._digest.update(labels.tobytes())
            work.write(row, labels[None])
        raw.path.unlink()

    def areas(self) -> tuple[ClassArea, ...]:
        """What each class covers in the finished map."""
        return class_areas(self._works["labels"].counts, self._spec.map_legend)

    def describe(self) -> MapDescription:
        """What the finished label map says of itself."""
        spec, target = self._spec, self._targets["labels"]
        tags = {**self._works["labels"].spec.tags, PIXELS_TAG: self._digest.hexdigest()}
        return MapDescription(target.name, spec.grid, spec.map_legend, spec.description, tags, self.areas())

    def assets(self) -> tuple[Asset, ...]:
        """The finished rasters, the label map first."""
        return tuple(
            Asset(kind, target, self._transaction.path(target), self._works[kind].spec, self._spec.format)
            for kind, target in self._targets.items()
        )

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for work in self._works.values():
                work.abandon()


def _require_space(transaction: OutputTransaction, needs: Mapping[Path, int]) -> None:
    """Check every disk for the sum of what will be written there."""
    disks: dict[int, list[Path]] = {}
    for target in needs:
        disks.setdefault(target.absolute().parent.stat().st_dev, []).append(target)
    for there in disks.values():
        transaction.require_space(sum(needs[target] for target in there), there[0])


def _pixels(kind: Kind, rows: Rows) -> npt.NDArray[np.uint8]:
    """(B, H, W) uint8 of one kind of raster."""
    if kind == "labels":
        return rows.labels[None]
    values = {"confidence": rows.confidence, "seams": rows.seams}.get(kind, rows.probabilities)
    assert values is not None, f"rows without {kind} cannot fill a raster of it"
    if kind == "entropy":
        values = normalised_entropy(values)
    steps = np.rint(values * PROBABILITY_STEPS)
    # NaN fails as well: no conversion says that a number did not fit.
    if not (steps.min() >= 0 and steps.max() <= PROBABILITY_STEPS):
        raise ValueError(f"{kind} of {values.min()} to {values.max()} in rows from {rows.row} are no shares of 1")
    return np.where(rows.valid, steps.astype(np.uint8), np.uint8(NODATA)).reshape(-1, *rows.labels.shape)
