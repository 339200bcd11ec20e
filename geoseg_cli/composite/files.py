"""Which files are maps: those that the user names must be, of those in folders it is found out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from geoseg_cli.errors import GeosegError, InputError, InputMissingError, UsageError
from geoseg_cli.grid import Window
from geoseg_cli.results.description import ACQUIRED_TAG, COUNTS_TAG, PIXELS_TAG
from geoseg_cli.results.map_file import OwnMap, opened_map
from geoseg_cli.results.stac import rfc3339
from geoseg_cli.results.verify_raster import further_kind
from geoseg_cli.scenes.integrity import refuse_others

DEFAULT_PATTERN = "*.tif"


@dataclass(frozen=True, slots=True)
class MapInput:
    """One map.

    Attributes:
        path: The file.
        pixels_sha256, scene, model: What its tags say; ``model`` is name and hash.
        acquired: When its scene was taken, RFC 3339 in UTC; None where it does not tell.
        rank: How recent it is; see ``votes.ranks_of``.
        confidence, clouds: The rasters that belong to it, where any are used.
    """

    path: Path
    pixels_sha256: str
    scene: str
    model: tuple[str, str] | None
    acquired: str | None
    rank: int = 0
    confidence: Path | None = None
    clouds: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that is read for it."""
        return tuple(path for path in (self.path, self.confidence, self.clouds) if path is not None)


Failed = tuple[Path, GeosegError]


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in the folders, and what was named.

    Attributes:
        opened: Every map, each once.
        skipped: Files that plainly are no class maps to count.
        failed: Files that cannot be used, and why.
    """

    opened: tuple[tuple[MapInput, OwnMap], ...]
    skipped: int
    failed: tuple[Failed, ...]


def open_all(paths: Sequence[Path], pattern: str, masks: Path | None, mask_suffix: str | None) -> Found:
    """Look at every file; masks are no maps.

    Args:
        paths: Maps, and folders that hold some at any depth.
        pattern: Which files of folders are looked at.
        masks: A folder of cloud masks, if there is one.
        mask_suffix: What the stems of cloud masks end with, if that is how they are told.

    Raises:
        GeosegError: A file that was named is no map, or is damaged.
    """
    opened: dict[Path, tuple[MapInput, OwnMap]] = {}
    failed: dict[Path, Failed] = {}
    skipped, left_out = 0, masks.resolve() if masks else None
    for path, is_named in files_in(paths, pattern):
        real = path.resolve()
        if real in opened or (not is_named and left_out in real.parents):
            continue
        if mask_suffix and not is_named and path.stem.endswith(mask_suffix):
            continue
        try:
            opened[real] = as_input(path)
        except GeosegError as error:
            if is_named:
                raise
            if isinstance(error, InputError) and _is_other_raster(path):
                skipped += 1
            else:
                failed[real] = path, error
    return Found(tuple(opened.values()), skipped, tuple(failed.values()))


def files_in(paths: Sequence[Path], pattern: str) -> Iterator[tuple[Path, bool]]:
    """Files, and whether the user named them; hidden ones in folders are somebody's unfinished work.

    Raises:
        UsageError: The pattern is none.
    """
    for path in paths:
        if not path.is_dir():
            yield path, True
            continue
        try:
            inside = sorted(path.rglob(pattern))
        except (ValueError, NotImplementedError) as error:
            raise UsageError(f"--pattern {pattern!r} matches no names: {error}", "use one such as '*.tif'") from error
        for found in inside:
            hidden = any(part.startswith(".") for part in found.relative_to(path).parts)
            if found.is_file() and not hidden:
                yield found, False


def as_input(path: Path) -> tuple[MapInput, OwnMap]:
    """A map, and what it says of itself.

    Raises:
        InputMissingError: There is no such file.
        InputError: It is no class map of geoseg, or a composite.
        AccessError, StorageError: It cannot be read, or ends too early.
    """
    # GDAL opens a file whose tags are lost as one that never had any.
    refuse_others(path)
    with opened_map(path) as file:
        own = OwnMap.of(path, file)
        # Files are written from top to bottom: what ends too early lacks its last block, and that is told now.
        file.read(1, window=Window(own.grid.height - 1, own.grid.width - 1, 1, 1).to_rasterio())
    tags = own.tags
    if COUNTS_TAG in tags:
        raise InputError(f"{path} is a composite itself", "give the maps that it was made from")
    model = (tags["GEOSEG_MODEL"], tags["GEOSEG_MODEL_SHA256"]) if "GEOSEG_MODEL_SHA256" in tags else None
    moment = _moment(tags.get(ACQUIRED_TAG))
    return MapInput(path, tags[PIXELS_TAG], tags.get("GEOSEG_INPUT", ""), model, moment), own


def beside(path: Path, suffix: str) -> Path:
    """The raster that belongs to a map: the suffix stands behind its stem, or in the place of the stem's last part.

    ``A_landcover.tif`` and ``_confidence``: ``A_landcover_confidence.tif`` where there is one, or ``A_confidence.tif``.

    Raises:
        InputMissingError: There is neither.
    """
    stems = [path.stem + suffix, path.stem.rpartition("_")[0] + suffix]
    candidates = [path.with_name(stem + path.suffix) for stem in stems if stem != suffix]
    for candidate in candidates:
        if os.path.isfile(candidate) and candidate != path:
            return candidate
    names = " nor ".join(one.name for one in candidates)
    raise InputMissingError(
        f"{path}: beside it there is neither {names}" if len(candidates) > 1 else f"{path}: beside it is no {names}",
        "make it, or leave the map out with --pattern",
    )


def _is_other_raster(path: Path) -> bool:
    """Whether a file plainly is no map: a composite, a run's raster of numbers, or pixels that nobody drew as classes.

    A single band with a colour table may be a map whose tags were lost.
    """
    try:
        with opened_map(path) as file:
            if COUNTS_TAG in file.tags() or further_kind(file) is not None:
                return True
            is_drawn = file.count == 1 and file.colorinterp[0].name == "palette"
            return PIXELS_TAG not in file.tags() and not is_drawn
    except GeosegError:
        return False


def _moment(text: str | None) -> str | None:
    try:
        return rfc3339(datetime.fromisoformat(text)) if text else None
    except ValueError:
        return None
