"""Windows of all maps in turn: memory depends on the window and the number of classes, not on maps or height."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.ahead import ahead
from geoseg_cli.composite.files import DEFAULT_PATTERN, MapInput
from geoseg_cli.composite.find import Stack, find_maps
from geoseg_cli.composite.votes import Votes, bytes_per_pixel
from geoseg_cli.errors import InputError, UsageError
from geoseg_cli.grid import Grid, Window
from geoseg_cli.memory import MIB
from geoseg_cli.printable import counted
from geoseg_cli.results.areas import ClassArea
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.composite_file import MOST_COUNTED, CompositeSpec, CompositeWriter
from geoseg_cli.results.description import COMPOSITE_TAG, FIRST_TAG, LAST_TAG
from geoseg_cli.results.raster import BLOCK_PX, software_tags
from geoseg_cli.results.raster_pool import RasterPool
from geoseg_cli.results.sidecars import Sidecar, sidecar_paths
from geoseg_cli.scenes import block_cache
from geoseg_cli.version import __version__

ByteArray = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

DEFAULT_MEMORY_BYTES = 256 * MIB
CACHE_BYTES = 64 * MIB
"""GDAL's block cache: windows are whole blocks, so nothing in it is wanted twice but a COG's last blocks."""
UNNAMED_BAND = "classes"
"""What the first band is called where that of the maps has no name, as after a warp by some tools."""
TIES = "weight, votes, most recent, smaller value"


@dataclass(frozen=True, slots=True)
class CompositeOptions:
    """How maps become one.

    Attributes:
        pattern: Which files of folders are looked at.
        confidence_suffix: Ends the stems of the confidence rasters that weigh votes; None for equal votes.
        clouds: A folder of cloud masks, or what their stems end with; None for maps that are masked.
        min_count: Pixels that were seen clearly less often have no class.
        max_memory_bytes: For the votes; a single block of 512 x 512 px is counted in any case.
        sidecars: Whether attribute table, style and catalogue entry are written.
        creation_options: GDAL creation options of the COG.
        overwrite: Whether the output may exist.
        written_at: Time stamp of the output; now if None.
    """

    pattern: str = DEFAULT_PATTERN
    confidence_suffix: str | None = None
    clouds: str | None = None
    min_count: int = 1
    max_memory_bytes: int = DEFAULT_MEMORY_BYTES
    sidecars: bool = True
    creation_options: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    written_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CompositeReport:
    """What was done.

    Attributes:
        output: The composite.
        sidecars: What lies beside it.
        stack: What it was made of.
        options: How.
        areas: What each class covers.
        never_seen: Pixels that no map shows clearly.
        too_rarely: Pixels that were seen, but less often than was asked for.
        most_seen: Largest count of clear observations, at most ``MOST_COUNTED``.
    """

    output: Path
    sidecars: Mapping[Sidecar, Path]
    stack: Stack
    options: CompositeOptions
    areas: tuple[ClassArea, ...]
    never_seen: int
    too_rarely: int
    most_seen: int

    def to_json(self) -> dict[str, Any]:
        """The report in plain types."""
        return {
            "output": str(self.output),
            "sidecars": {kind: str(path) for kind, path in self.sidecars.items()},
            **_how(self.stack, self.options),
            "skipped": self.stack.skipped,
            "failed": [
                {"map": str(path), "error": {"message": e.message, "hint": e.hint, "exit_code": e.exit_code}}
                for path, e in self.stack.failed
            ],
            "maps_sha256": self.stack.list_sha256,
            "never_seen_pixels": self.never_seen,
            "too_rarely_seen_pixels": self.too_rarely,
            "most_clear_observations": self.most_seen,
            "valid_pixels": sum(area.pixels for area in self.areas),
            "classes": [asdict(area) for area in self.areas],
        }


def compose(
    paths: Sequence[Path],
    output: Path,
    options: CompositeOptions | None = None,
    progress: Progress | None = None,
    announce: Callable[[Stack], None] | None = None,
) -> CompositeReport:
    """Write the most frequent class of every pixel over many maps, and how often it was seen.

    Args:
        paths: Maps of one grid and legend, and folders that hold some.
        output: The Cloud Optimized GeoTIFF: classes, and the count of clear observations (254 for 254 and more).
        options: How; defaults when None.
        progress: Called with the pixels of all maps that are done, and how many there are.
        announce: Called once the maps are found and fit each other.

    Raises:
        GeosegError: Anything that a user can do something about.
    """
    options = options or CompositeOptions()
    if options.min_count < 1:
        raise UsageError(f"--min-count {options.min_count} is no number of observations", "use 1 or more")
    stack = find_maps(paths, options.pattern, options.confidence_suffix, options.clouds)
    if announce:
        announce(stack)
    sidecars = sidecar_paths(output) if options.sidecars else {}
    files = [path for one in stack.maps for path in one.files]
    beside = [path for one in stack.maps for path in sidecar_paths(one.path).values() if os.path.lexists(path)]
    seen = np.zeros(256, np.int64)
    with (
        block_cache(CACHE_BYTES),
        OutputTransaction([output, *sidecars.values()], options.overwrite, [*files, *beside]) as transaction,
        CompositeWriter(_spec(stack, options), output, transaction) as writer,
    ):
        for row, labels, counts in _composed(stack, options, progress):
            seen += np.bincount(counts.ravel(), minlength=256)
            writer.write(row, labels, counts)
        writer.finish(options.sidecars)
        transaction.commit()
        areas = writer.areas()
    answered = sum(area.pixels for area in areas)
    most_seen = int(np.flatnonzero(seen).max())
    too_rarely = int(seen[1:].sum()) - answered
    return CompositeReport(output, sidecars, stack, options, areas, int(seen[0]), too_rarely, most_seen)


def windows_of(grid: Grid, classes: int, memory_bytes: int) -> list[list[Window]]:
    """The grid in rows of windows: as wide as memory allows, whole blocks, at least one."""
    blocks = max(1, memory_bytes // (bytes_per_pixel(classes) * BLOCK_PX * BLOCK_PX))
    width = min(blocks * BLOCK_PX, grid.width)
    return [
        [
            Window(row, col, min(BLOCK_PX, grid.height - row), min(width, grid.width - col))
            for col in range(0, grid.width, width)
        ]
        for row in range(0, grid.height, BLOCK_PX)
    ]


def _composed(
    stack: Stack, options: CompositeOptions, progress: Progress | None
) -> Iterator[tuple[int, ByteArray, ByteArray]]:
    """Rows of blocks from top to bottom: first row, (h, W) classes, (h, W) counts."""
    plan = windows_of(stack.grid, len(stack.counted.classes), options.max_memory_bytes)
    largest = plan[0][0]
    votes = Votes(stack.counted.values, largest.height * largest.width)
    done, total = 0, stack.grid.height * stack.grid.width * len(stack.maps)
    with ahead(_readings(stack, [window for row in plan for window in row]), 2, "maps") as readings:
        for row in plan:
            shape = (row[0].height, stack.grid.width)
            labels, counts = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
            for window in row:
                votes.begin(window.height * window.width)
                for _ in stack.maps:
                    votes.add(*next(readings))
                    done += window.height * window.width
                    if progress:
                        progress(done, total)
                found = votes.result(options.min_count, stack.counted.nodata, MOST_COUNTED)
                for plane, values in zip((labels, counts), found, strict=True):
                    plane[:, window.cols] = values.reshape(window.height, window.width)
            yield row[0].row, labels, counts


def _readings(
    stack: Stack, windows: Sequence[Window]
) -> Generator[tuple[ByteArray, int, ByteArray | None], None, None]:
    """Labels, rank and weights of every map in every window, flat, what lies below clouds as nodata."""
    known = np.zeros(256, bool)
    known[[*stack.legend.values, stack.legend.nodata]] = True
    clear = None
    if stack.clear is not None:
        clear = np.zeros(256, bool)
        clear[list(stack.clear)] = True
    with RasterPool() as pool:
        for window in windows:
            for one in stack.maps:
                labels = pool.read(one.path, window).ravel()
                if not known[labels].all():
                    raise InputError(
                        f"{one.path}: {np.unique(labels[~known[labels]])[:5].tolist()} are no classes of its legend",
                        "make the map again; geoseg verify tells more",
                    )
                if clear is not None and one.clouds is not None:
                    is_clear = clear[pool.read(one.clouds, window).ravel()]
                    labels = np.where(is_clear, labels, np.uint8(stack.legend.nodata))
                weights = None if one.confidence is None else pool.read(one.confidence, window).ravel()
                yield labels, one.rank, weights


def _how(stack: Stack, options: CompositeOptions) -> dict[str, Any]:
    """What the composite is, in plain types."""
    return {
        "maps": len(stack.maps),
        "weights": "equal" if options.confidence_suffix is None else "confidence",
        "cloud_masks": stack.clear is not None,
        "min_count": options.min_count,
        "ties": TIES,
        "most_counted": MOST_COUNTED,
    }


def _spec(stack: Stack, options: CompositeOptions) -> CompositeSpec:
    tags = software_tags(f"geoseg {__version__}", options.written_at or datetime.now(UTC)) | {
        "GEOSEG_VERSION": __version__,
        "GEOSEG_INPUT": counted(len(stack.maps), "map"),
        COMPOSITE_TAG: json.dumps(_how(stack, options)),
        "GEOSEG_COMPOSITE_SHA256": stack.list_sha256,
        **_common_tags(stack.maps),
    }
    return CompositeSpec(stack.grid, stack.counted, stack.band or UNNAMED_BAND, tags, options.creation_options)


def _common_tags(maps: Sequence[MapInput]) -> dict[str, str]:
    """The model, where all maps have the same; the first and the last moment, where all maps tell theirs."""
    tags: dict[str, str] = {}
    models = {one.model for one in maps}
    if len(models) == 1 and (model := next(iter(models))) is not None:
        tags |= {"GEOSEG_MODEL": model[0], "GEOSEG_MODEL_SHA256": model[1]}
    moments = [one.acquired for one in maps if one.acquired is not None]
    if len(moments) == len(maps):
        tags |= {FIRST_TAG: min(moments), LAST_TAG: max(moments)}
    return tags
