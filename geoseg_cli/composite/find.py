"""Which maps a composite is made of: they are found, put in order, and must have the same pixels and classes."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from geoseg_cli.catalog import Legend
from geoseg_cli.composite.votes import MOST_MAPS, ranks_of
from geoseg_cli.errors import GridError, InputError, InputMissingError, UsageError
from geoseg_cli.grid import Grid
from geoseg_cli.results.class_map import LabelRaster
from geoseg_cli.results.description import ACQUIRED_TAG, CLOUD_CLASSES, COUNTS_TAG, PIXELS_TAG
from geoseg_cli.results.map_file import OwnMap, opened_map
from geoseg_cli.results.stac import rfc3339

DEFAULT_PATTERN = "*.tif"

HIDDEN_CLASSES = CLOUD_CLASSES | {"cloud_shadow", "saturated_defective", "not_usable"}
"""Names of classes that say that the ground was not seen, in every legend that geoseg knows."""
_OF_MASKS = {"clear", "usable"}
"""A legend with one of these is of clouds, not of the ground."""


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


@dataclass(frozen=True, slots=True)
class Stack:
    """Maps that fit each other.

    Attributes:
        maps: Ascending in rank.
        grid: Where the pixels of all of them lie.
        legend: Their classes, those of clouds included.
        counted: The classes that count: all of a cloud mask, those of the ground of other maps.
        band: Description of their band.
        clear: Values of the cloud masks below which the ground is seen; None where there are no masks.
        skipped: TIFFs in the folders that are no class maps, or are composites themselves.
    """

    maps: tuple[MapInput, ...]
    grid: Grid
    legend: Legend
    counted: Legend
    band: str
    clear: tuple[int, ...] | None
    skipped: int

    @property
    def list_sha256(self) -> str:
        """One hash for what the maps' tags say of their pixels and times, whatever the files are called."""
        lines = sorted(f"{one.pixels_sha256} {one.acquired or '-'}\n" for one in self.maps)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_maps(paths: Sequence[Path], pattern: str, confidence_suffix: str | None, clouds: str | None) -> Stack:
    """Find maps and what belongs to them.

    Args:
        paths: Maps, and folders that hold some at any depth.
        pattern: Which files of folders are looked at.
        confidence_suffix: Ends the stems of confidence rasters; see ``beside``. None for votes of equal weight.
        clouds: A folder of cloud masks, or what their stems end with; None for maps that are masked.

    Raises:
        InputMissingError: There is no map, or one lacks its mask or confidence.
        InputError, GridError: Maps do not fit each other.
    """
    folder = Path(clouds) if clouds and os.path.isdir(clouds) else None
    if folder is None and clouds is not None and not _is_ending(clouds):
        raise InputMissingError(f"--clouds {clouds}: there is no such folder", "name a folder, or an ending of names")
    if confidence_suffix is not None and not _is_ending(confidence_suffix):
        raise UsageError(f"--confidence-suffix {confidence_suffix!r} ends no name", "give one such as _confidence")
    opened, skipped = _open_all(paths, pattern, folder, clouds if folder is None else None)
    if not opened:
        raise InputMissingError(
            f"no class map of geoseg in {', '.join(map(str, paths))}",
            f"give maps, or folders with files {pattern}; --pattern looks for others",
        )
    if len(opened) > MOST_MAPS:
        raise UsageError(f"{len(opened):,} maps are too many; {MOST_MAPS:,} can be counted", "composite parts of them")
    grid, first = _common(opened)
    inputs = [one for one, _ in opened]
    if confidence_suffix is not None:
        inputs = [replace(one, confidence=_confidence(one, confidence_suffix, grid)) for one in inputs]
    clear = None
    if clouds is not None:
        masks = _masks_in(folder) if folder else None
        inputs, clear = _with_masks(inputs, masks, clouds, grid)
    ranks = ranks_of([one.acquired for one in inputs])
    ranked = [replace(one, rank=rank) for one, rank in zip(inputs, ranks, strict=True)]
    ranked.sort(key=lambda one: (one.rank, one.pixels_sha256))
    return Stack(tuple(ranked), grid, first.legend, _counted(first.legend), first.band, clear, skipped)


def _is_ending(text: str) -> bool:
    return bool(text) and Path(text).name == text


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


def _open_all(
    paths: Sequence[Path], pattern: str, masks: Path | None, mask_suffix: str | None
) -> tuple[list[tuple[MapInput, OwnMap]], int]:
    """Every map, each once; how many other TIFFs the folders hold. Masks are no maps."""
    opened: dict[Path, tuple[MapInput, OwnMap]] = {}
    skipped, left_out = 0, masks.resolve() if masks else None
    for path, is_named in _files(paths, pattern):
        real = path.resolve()
        if real in opened or (not is_named and left_out in real.parents):
            continue
        if mask_suffix and not is_named and path.stem.endswith(mask_suffix):
            continue
        try:
            opened[real] = _opened(path)
        except InputError:
            if is_named:
                raise
            skipped += 1
    return list(opened.values()), skipped


def _files(paths: Sequence[Path], pattern: str) -> Iterator[tuple[Path, bool]]:
    """Files, and whether the user named them; hidden ones in folders are somebody's unfinished work."""
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


def _opened(path: Path) -> tuple[MapInput, OwnMap]:
    with opened_map(path) as file:
        own = OwnMap.of(path, file)
    tags = own.tags
    if COUNTS_TAG in tags:
        raise InputError(f"{path} is a composite itself", "give the maps that it was made from")
    model = (tags["GEOSEG_MODEL"], tags["GEOSEG_MODEL_SHA256"]) if "GEOSEG_MODEL_SHA256" in tags else None
    moment = _moment(tags.get(ACQUIRED_TAG))
    return MapInput(path, tags[PIXELS_TAG], tags.get("GEOSEG_INPUT", ""), model, moment), own


def _refuse_wide(path: Path, legend: Legend) -> None:
    if legend.dtype != "uint8":
        raise InputError(
            f"{path} holds classes as {legend.dtype}, composites are made of maps in uint8",
            "use a bundle of at most 255 classes with values up to 254",
        )


def _moment(text: str | None) -> str | None:
    try:
        return rfc3339(datetime.fromisoformat(text)) if text else None
    except ValueError:
        return None


def _common(opened: Sequence[tuple[MapInput, OwnMap]]) -> tuple[Grid, OwnMap]:
    """The grid that most maps have, and what the first map with it says; all others must say the same.

    Raises:
        GridError, InputError: A map has other pixels or classes.
    """
    kinds = Counter(_key(own.grid) for _, own in opened)
    most = max(kinds.values())
    example, right = next((one, own) for one, own in opened if kinds[_key(own.grid)] == most)
    for one, own in opened:
        _refuse_wide(one.path, own.legend)
        _refuse_other_grid(one.path, own.grid, example.path, right.grid)
        if _counted(own.legend).stac_classes() != _counted(right.legend).stac_classes():
            raise InputError(
                f"{one.path} has other classes ({own.legend.name}) than {example.path} ({right.legend.name})",
                "choose maps of one kind with --pattern, or classify with --legend",
            )
    # The legend with clouds, where some maps have them: their values must be known.
    fullest = max((own for _, own in opened), key=lambda own: len(own.legend.classes))
    return right.grid, fullest


def _key(grid: Grid) -> tuple[object, ...]:
    return (grid.crs.to_wkt() if grid.crs else None, tuple(grid.transform), grid.height, grid.width)


def _refuse_other_grid(path: Path, grid: Grid, example: Path, right: Grid) -> None:
    if grid == right:
        return
    differences = []
    if grid.crs != right.crs:
        differences.append(f"CRS {_crs(grid)} instead of {_crs(right)}")
    if grid.transform != right.transform:
        differences.append(f"transform {list(grid.transform)[:6]} instead of {list(right.transform)[:6]}")
    if (grid.height, grid.width) != (right.height, right.width):
        differences.append(f"{grid.height} x {grid.width} px instead of {right.height} x {right.width}")
    left, bottom, top_right, top = right.bounds
    extent = f"-te {left:.17g} {bottom:.17g} {top_right:.17g} {top:.17g} -ts {right.width} {right.height}"
    raise GridError(
        f"{path} has other pixels than {example}: {'; '.join(differences)}",
        f"gdalwarp -r near -t_srs {_crs(right)} {extent} {path.name} {path.stem}_aligned.tif",
    )


def _crs(grid: Grid) -> str:
    code = grid.crs.to_authority() if grid.crs else None
    return ":".join(code) if code else "none" if grid.crs is None else "of its own"


def _counted(legend: Legend) -> Legend:
    """The classes that count."""
    if any(one.name in _OF_MASKS for one in legend.classes):
        return legend
    kept = tuple(one for one in legend.classes if one.name not in HIDDEN_CLASSES)
    return legend if len(kept) == len(legend.classes) else Legend(legend.name.split("+")[0], kept, legend.nodata)


def _confidence(one: MapInput, suffix: str, grid: Grid) -> Path:
    path = beside(one.path, suffix)
    _refuse_other_grid(path, LabelRaster.open(path).grid, one.path, grid)
    return path


def _masks_in(folder: Path) -> dict[str, Path]:
    """Scene -> the cloud mask of it."""
    masks: dict[str, Path] = {}
    for path, _ in _files([folder], DEFAULT_PATTERN):
        try:
            mask, own = _opened(path)
        except InputError:
            continue
        if _is_mask(own.legend):
            if mask.scene in masks:
                raise InputError(
                    f"{masks[mask.scene]} and {path} are both of scene {mask.scene}",
                    "leave one of them, or put masks beside the maps and give --clouds a suffix",
                )
            masks[mask.scene] = path
    return masks


def _is_mask(legend: Legend) -> bool:
    return any(one.name in HIDDEN_CLASSES for one in legend.classes)


def _with_masks(
    inputs: Sequence[MapInput], masks: dict[str, Path] | None, clouds: str, grid: Grid
) -> tuple[list[MapInput], tuple[int, ...]]:
    """Maps with their masks, and the values of these that are clear; all masks must have the same classes."""
    found: list[MapInput] = []
    legend: Legend | None = None
    for one in inputs:
        path = masks.get(one.scene) if masks is not None else beside(one.path, clouds)
        if path is None:
            raise InputMissingError(
                f"{one.path}: folder {clouds} holds no cloud mask of its scene {one.scene}",
                "make it with geoseg cloudmask, or leave the map out with --pattern",
            )
        with opened_map(path) as file:
            own = OwnMap.of(path, file)
        _refuse_wide(path, own.legend)
        _refuse_other_grid(path, own.grid, one.path, grid)
        if not _is_mask(own.legend) or (legend is not None and own.legend.stac_classes() != legend.stac_classes()):
            raise InputError(f"{path} ({own.legend.name}) is no cloud mask like the others", "use masks of one schema")
        legend = own.legend
        found.append(replace(one, clouds=path))
    assert legend is not None, "there is at least one map"
    return found, tuple(cls.value for cls in legend.classes if cls.name not in HIDDEN_CLASSES)
