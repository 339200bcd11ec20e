"""The rasters of one run: labels always, probabilities, confidence, entropy and seams where asked for."""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from geoseg_cli.catalog import NODATA, Legend
from geoseg_cli.errors import StorageError
from geoseg_cli.grid import Grid
from geoseg_cli.results.areas import ClassArea, class_areas
from geoseg_cli.results.checkpoint import CheckpointLog, Entry, entries_in
from geoseg_cli.results.clean_map import Cleaning, cleaned, refuse_bad_cleaning
from geoseg_cli.results.cog import write_cog
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.creation_options import RasterFormat, check_creation_options
from geoseg_cli.results.description import CLEANING_TAG, FORMAT_TAG, PIXELS_TAG, MapDescription, legend_tags
from geoseg_cli.results.entropy import normalised_entropy
from geoseg_cli.results.geotiff import write_geotiff
from geoseg_cli.results.raster import PixelArray, RasterSpec, WorkRaster, palette_of
from geoseg_cli.results.stac import Asset
from geoseg_cli.results.storage import storage_trouble

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

_log = logging.getLogger(__name__)


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
                palette=palette_of(self.map_legend),
                dtype=self.map_legend.dtype,
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

    Attributes:
        state: What stood beside the last rows that a killed run left; None where this run starts at the first row.
    """

    def __init__(
        self, spec: MapSpec, targets: Mapping[Kind, Path], transaction: OutputTransaction, key: str | None = None
    ) -> None:
        """Create the work rasters, or go on with those of a killed run.

        Args:
            spec: What the maps are.
            targets: Where each goes.
            transaction: What publishes them.
            key: Of what the maps are made: everything that decides a pixel. A run of the same key can go on where this
                one is killed. None for a run that neither goes on nor can be gone on with.

        Raises:
            UsageError: A creation option or the cleaning cannot be used.
            StorageError: The disk cannot hold the outputs, or does not take them.
            GridError: The scene's CRS does not fit a GeoTIFF.
        """
        self._spec, self._targets, self._transaction = spec, targets, transaction
        check_creation_options(spec.creation_options, spec.format)  # refused now rather than after the inference
        refuse_bad_cleaning(spec.legend, spec.cleaning)
        self._digest = hashlib.sha256()
        self._log: CheckpointLog | None = None
        self.state: Any = None
        self._rasters = {kind: spec.raster(kind) for kind in targets}
        needs = {targets[kind]: raster.worst_case_bytes() for kind, raster in self._rasters.items()}
        if spec.cleaning.is_wanted:
            self._rasters["labels"] = RasterSpec(spec.grid, nodata=spec.legend.nodata, dtype=spec.legend.dtype)
        left = transaction.adopt(key)
        if left is not None and key is not None and self._continue(left, key):
            return
        _require_space(transaction, needs)
        self._works = self._open_works(again=False)
        if key is not None:
            with storage_trouble(targets["labels"]):
                self._log = CheckpointLog(transaction.checkpoint(), key)

    @property
    def row(self) -> int:
        """The row that is to be written next."""
        return self._works["labels"].rows

    def write(self, rows: Rows, state: Any = None) -> None:
        """Append finished rows to every raster.

        Args:
            rows: The rows.
            state: What a run must know to go on behind them, in plain types; None where it cannot.
        """
        crc: dict[str, int] = {}
        for kind, work in self._works.items():
            pixels = _pixels(kind, rows)
            work.write(rows.row, pixels)
            crc[kind] = zlib.crc32(np.ascontiguousarray(pixels).data) if self._log is not None else 0
        self._add_to_digest(rows.labels)
        if self._log is None:
            return
        with storage_trouble(self._targets["labels"]):
            if state is None:  # from here on nothing can be gone on with
                self._log.close()
                self._log = None
                return
            self._log.append(Entry(self.row, crc, state))
            if self._log.is_sync_due:
                self._log.sync(work.sync for work in self._works.values())

    def _open_works(self, again: bool) -> dict[Kind, WorkRaster]:
        return {
            kind: WorkRaster(self._transaction.scratch(f"{kind}.tif"), raster, self._targets[kind], again=again)
            for kind, raster in self._rasters.items()
        }

    def _continue(self, left: Path, key: str) -> bool:
        """Take the rows that a killed run left; False where none of them can be used, and nothing is left then."""
        try:
            self._works = self._open_works(again=True)
            entries = self._restore(left)
            if entries:
                self._log = CheckpointLog(left, key, entries)
        except (StorageError, OSError):
            entries = 0
        height, target = self._spec.grid.height, self._targets["labels"]
        if not entries:
            _log.info("%s: starts anew, what an earlier run left is not whole", target)
            self._digest = hashlib.sha256()
            self._transaction.disown()
            return False
        _log.info("%s: continues at row %d of %d, left by a run that was killed", target, self.row, height)
        return True

    def _restore(self, left: Path) -> int:
        """Take the rows of all entries whose pixels are there; how many entries that are."""
        taken = 0
        for entry in entries_in(left):
            first, height = self.row, entry.rows - self.row
            if entry.rows > self._spec.grid.height:
                break
            pixels = {kind: work.stored(first, height) for kind, work in self._works.items()}
            if entry.crc != {kind: zlib.crc32(part.data) for kind, part in pixels.items()}:
                break
            for kind, work in self._works.items():
                work.restore(first, pixels[kind])
            self._add_to_digest(pixels["labels"][0])
            self.state, taken = entry.state, taken + 1
        return taken

    def _add_to_digest(self, labels: PixelArray) -> None:
        if not self._spec.cleaning.is_wanted:
            self._digest.update(labels.tobytes())

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
            # Somebody else may have filled the disk since; a run that went on with another one's rows never looked.
            self._transaction.require_space(work.spec.finished_bytes(), self._targets[kind])
            write = WRITERS[self._spec.format]
            write(work, self._transaction.path(self._targets[kind]), self._spec.creation_options)
            self._drop(work)

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
        self._drop(raw)

    def _drop(self, work: WorkRaster) -> None:
        """Make room; what a next run could go on with stays until all is published."""
        if self._log is None:
            work.path.unlink()

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
        if self._log is not None:
            self._log.close()
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


def _pixels(kind: Kind, rows: Rows) -> PixelArray:
    """(B, H, W) of one kind of raster: the labels, or uint8."""
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
