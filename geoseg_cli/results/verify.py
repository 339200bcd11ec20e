"""Does a map still say what geoseg wrote? Its structure, legend, pixels, sidecars and catalogue entry are compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from geoseg_cli.results.areas import ClassCounts
from geoseg_cli.results.creation_options import RasterFormat
from geoseg_cli.results.description import COUNTS_TAG, FORMAT_TAG, PIXELS_TAG, MapDescription
from geoseg_cli.results.map_file import opened_map, read_map, row_windows
from geoseg_cli.results.maps import Kind
from geoseg_cli.results.raster import BLOCK_PX, palette_of
from geoseg_cli.results.read_back import has_tiles
from geoseg_cli.results.sidecars import sidecar_paths, sidecars
from geoseg_cli.results.storage import storage_trouble
from geoseg_cli.results.verify_beside import SIDECAR_CHECKS

Problems = tuple[str, ...]

PROVENANCE = (
    "GEOSEG_VERSION", "GEOSEG_MODEL", "GEOSEG_MODEL_SHA256", "GEOSEG_INPUT", "GEOSEG_BANDS", "GEOSEG_RADIOMETRY",
    "GEOSEG_TILE", "GEOSEG_OVERLAP", "GEOSEG_ENGINE", "GEOSEG_DEVICE", "GEOSEG_PRECISION", "GEOSEG_LEGEND",
    "TIFFTAG_SOFTWARE", "TIFFTAG_DATETIME",
)  # fmt: skip
"""Tags that every map of geoseg has."""

COMPOSITE_PROVENANCE = (
    "GEOSEG_VERSION", "GEOSEG_INPUT", "GEOSEG_COMPOSITE", "GEOSEG_COMPOSITE_SHA256", "GEOSEG_LEGEND",
    "TIFFTAG_SOFTWARE", "TIFFTAG_DATETIME",
)  # fmt: skip
"""Tags that every map has that was made from maps."""

LEAST_BLOCK_PX = 128
"""Smallest side of a COG's blocks; strips are lower."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was looked at, and what is wrong.

    Attributes:
        path: The map.
        checks: Name of each check that was made, in order.
        problems: What is wrong, by check; empty for a map that is as it was written.
        absent: Sidecars that are not there, which is no mistake.
        format: What the file says that it is.
        kind: ``labels`` for a class map, or which of the further rasters of a run it is.
    """

    path: Path
    checks: tuple[str, ...]
    problems: Mapping[str, Problems]
    absent: tuple[str, ...]
    format: RasterFormat = "cog"
    kind: Kind = "labels"

    @property
    def is_intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The verdict in plain types."""
        return {
            "map": str(self.path),
            "kind": self.kind,
            "intact": self.is_intact,
            "format": self.format,
            "checks": list(self.checks),
            "problems": {check: list(found) for check, found in self.problems.items()},
            "absent": list(self.absent),
        }


def verify_map(path: Path) -> Verdict:
    """Check a class map that geoseg wrote, and what lies beside it. Nothing is changed.

    Args:
        path: The map.

    Raises:
        InputMissingError: There is no such file.
        InputError: It is no class map of geoseg.
        AccessError, StorageError: It cannot be read to its end.
    """
    # The file alone: what lies beside it is looked at afterwards, and not by GDAL.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        with opened_map(path) as file:
            description, counts, digest = read_map(path, file)
            found = {
                "structure": structure(file, _format(description)),
                "provenance": _provenance(description),
                "legend": _palette(file, description),
                "pixels": _pixels(description, counts, digest),
            }
            if COUNTS_TAG in description.tags:
                found["counts"] = _counts(file, description)
            levels = len(file.overviews(1))
        found["overviews"] = tuple(text for level in range(levels) for text in _overview(path, level, description))
    found["neighbours"] = _neighbours(path)
    absent = []
    for kind, sidecar in sidecar_paths(path).items():
        if not os.path.lexists(sidecar):
            absent.append(sidecar.name)
        elif not found["provenance"]:
            found[f"{kind} ({sidecar.name})"] = SIDECAR_CHECKS[kind](sidecar, path, description)
    problems = {check: what for check, what in found.items() if what}
    return Verdict(path, tuple(found), problems, tuple(absent), _format(description))


def _format(description: MapDescription) -> RasterFormat:
    """What the map was written as: a COG that was edited must not pass for a file that never was one."""
    return "gtiff" if description.tags.get(FORMAT_TAG) == "gtiff" else "cog"


def structure(file: Any, raster_format: RasterFormat) -> Problems:
    """What is wrong with how an open file is laid out."""
    found = []
    if raster_format == "cog" and file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") != "COG":
        found.append("it is no cloud-optimized GeoTIFF, or was one before it was edited")
    block_height, block_width = file.block_shapes[0]
    large = max(file.shape) > max(BLOCK_PX, block_height, block_width) and file.width > 1
    if large and not file.overviews(1):
        found.append("it has no overviews")
    if not has_tiles(file):
        found.append("it is not tiled")
    return tuple(found)


def missing_provenance(tags: Mapping[str, str]) -> Problems:
    """Tags that every raster of geoseg has, and this one has not."""
    wanted = COMPOSITE_PROVENANCE if COUNTS_TAG in tags else PROVENANCE
    return tuple(f"the tag {name} is missing" for name in wanted if name not in tags)


def _provenance(description: MapDescription) -> Problems:
    tags = description.tags
    found = list(missing_provenance(tags))
    if not found:
        try:
            _ = description.written, description.acquired, description.acquired_between
            _ = bytes.fromhex(tags.get("GEOSEG_MODEL_SHA256", ""))
        except ValueError as error:
            found.append(f"a tag cannot be read: {error}")
    return tuple(found)


def _palette(file: Any, description: MapDescription) -> Problems:
    if palette_of(description.legend) is None:
        return ()
    try:
        colors = file.colormap(1)
    except ValueError:  # rasterio's way to say that there is none
        return ("it has no colour table",)
    return tuple(
        f"class {cls.value} ({cls.title}) has colour {_hex(colors[cls.value])} in the table, {cls.color} in the tags"
        for cls in description.legend.classes
        if colors[cls.value][:3] != cls.rgb
    )


def _hex(color: tuple[int, ...]) -> str:
    return "#{:02X}{:02X}{:02X}".format(*color)


def _pixels(description: MapDescription, counts: ClassCounts, digest: str) -> Problems:
    found = []
    stated = description.tags[PIXELS_TAG]
    if digest != stated:
        found.append(f"their SHA-256 is {digest[:16]}..., {PIXELS_TAG} says {stated[:16]}...")
    strange = _strange(np.flatnonzero(counts.pixels).tolist(), description)
    return (*found, *([f"values {strange} are no classes of the legend"] if strange else []))


def _counts(file: Any, description: MapDescription) -> Problems:
    """The second band of a composite against its hash."""
    digest = hashlib.sha256()
    for window in row_windows(file.height, file.width):
        digest.update(file.read(2, window=window.to_rasterio()).tobytes())
    stated = description.tags[COUNTS_TAG]
    if digest.hexdigest() == stated:
        return ()
    return (f"their SHA-256 is {digest.hexdigest()[:16]}..., {COUNTS_TAG} says {stated[:16]}...",)


def _overview(path: Path, level: int, description: MapDescription) -> Problems:
    values: set[int] = set()
    with storage_trouble(path, "read"), rasterio.open(path.absolute(), driver="GTiff", overview_level=level) as file:
        for window in row_windows(file.height, file.width):
            values.update(np.unique(file.read(1, window=window.to_rasterio())).tolist())
        size = f"{file.height} x {file.width}"
    strange = _strange(sorted(values), description)
    return (f"that of {size} px holds {strange}, which are no classes",) if strange else ()


def _strange(values: list[int], description: MapDescription) -> list[int]:
    known = {*description.legend.values, description.legend.nodata}
    return [value for value in values if value not in known]


def _neighbours(path: Path) -> Problems:
    attributes = sidecar_paths(path)["attributes"]
    others = [sidecar.name for sidecar in sidecars(path) if sidecar != attributes]
    return tuple(f"{name} is no file of geoseg, and readers believe it more than the map" for name in others)
