"""Which maps a composite is made of: they are found, put in order, and must have the same pixels and classes."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geoseg_cli.catalog import Legend
from geoseg_cli.composite.files import DEFAULT_PATTERN, Failed, MapInput, as_input, beside, files_in, open_all
from geoseg_cli.composite.fit import refuse_other_grid
from geoseg_cli.composite.votes import MOST_MAPS, ranks_of
from geoseg_cli.errors import InputError, InputMissingError, UsageError
from geoseg_cli.grid import Grid
from geoseg_cli.results.class_map import LabelRaster
from geoseg_cli.results.description import CLOUD_CLASSES
from geoseg_cli.results.map_file import OwnMap, opened_map

HIDDEN_CLASSES = CLOUD_CLASSES | {"cloud_shadow", "saturated_defective", "not_usable"}
"""Names of classes that say that the ground was not seen, in every legend that geoseg knows."""
_OF_MASKS = {"clear", "usable"}
"""A legend with one of these is of clouds, not of the ground."""


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
        skipped: Files in the folders that plainly are no class maps to count.
        failed: Files in the folders that cannot be used, and why.
    """

    maps: tuple[MapInput, ...]
    grid: Grid
    legend: Legend
    counted: Legend
    band: str
    clear: tuple[int, ...] | None
    skipped: int
    failed: tuple[Failed, ...] = ()

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
        GeosegError: Not one of the files can be used.
    """
    folder = Path(clouds) if clouds and os.path.isdir(clouds) else None
    if folder is None and clouds is not None and not _is_ending(clouds):
        raise InputMissingError(f"--clouds {clouds}: there is no such folder", "name a folder, or an ending of names")
    if confidence_suffix is not None and not _is_ending(confidence_suffix):
        raise UsageError(f"--confidence-suffix {confidence_suffix!r} ends no name", "give one such as _confidence")
    found = open_all(paths, pattern, folder, clouds if folder is None else None)
    opened = found.opened
    if not opened and found.failed:
        raise found.failed[0][1]
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
    return Stack(
        maps=tuple(ranked),
        grid=grid,
        legend=first.legend,
        counted=_counted(first.legend),
        band=first.band,
        clear=clear,
        skipped=found.skipped,
        failed=found.failed,
    )


def _is_ending(text: str) -> bool:
    return bool(text) and Path(text).name == text


def _refuse_wide(path: Path, legend: Legend) -> None:
    if legend.dtype != "uint8":
        raise InputError(
            f"{path} holds classes as {legend.dtype}, composites are made of maps in uint8",
            "use a bundle of at most 255 classes with values up to 254",
        )


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
        refuse_other_grid(one.path, own.grid, example.path, right.grid)
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


def _counted(legend: Legend) -> Legend:
    """The classes that count."""
    if any(one.name in _OF_MASKS for one in legend.classes):
        return legend
    kept = tuple(one for one in legend.classes if one.name not in HIDDEN_CLASSES)
    return legend if len(kept) == len(legend.classes) else Legend(legend.name.split("+")[0], kept, legend.nodata)


def _confidence(one: MapInput, suffix: str, grid: Grid) -> Path:
    path = beside(one.path, suffix)
    refuse_other_grid(path, LabelRaster.open(path).grid, one.path, grid)
    return path


def _masks_in(folder: Path) -> dict[str, Path]:
    """Scene -> the cloud mask of it."""
    masks: dict[str, Path] = {}
    for path, _ in files_in([folder], DEFAULT_PATTERN):
        try:
            mask, own = as_input(path)
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
        refuse_other_grid(path, own.grid, one.path, grid)
        if not _is_mask(own.legend) or (legend is not None and own.legend.stac_classes() != legend.stac_classes()):
            raise InputError(f"{path} ({own.legend.name}) is no cloud mask like the others", "use masks of one schema")
        legend = own.legend
        found.append(replace(one, clouds=path))
    assert legend is not None, "there is at least one map"
    return found, tuple(cls.value for cls in legend.classes if cls.name not in HIDDEN_CLASSES)
