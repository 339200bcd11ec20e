"""Maps must have the same pixels; where one has others, what can be done about it depends on how they differ."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from geoseg_cli.errors import GridError
from geoseg_cli.grid import Grid


def refuse_other_grid(path: Path, grid: Grid, example: Path, right: Grid) -> None:
    """Refuse a raster whose pixels are not those of the maps.

    Args:
        path, grid: The raster.
        example, right: A map, and where its pixels lie.

    Raises:
        GridError: They are not; the hint is a command where one helps.
    """
    if grid == right:
        return
    differences = []
    if grid.crs != right.crs:
        differences.append(f"CRS {_crs(grid)} instead of {_crs(right)}")
    if grid.transform != right.transform:
        differences.append(f"transform {list(grid.transform)[:6]} instead of {list(right.transform)[:6]}")
    if (grid.height, grid.width) != (right.height, right.width):
        differences.append(f"{grid.height} x {grid.width} px instead of {right.height} x {right.width}")
    message = f"{path} has other pixels than {example}: {'; '.join(differences)}"
    if (grid.crs is None) != (right.crs is None):
        raise GridError(message, "leave it out with --pattern: where one has no CRS nobody knows whether they meet")
    if not _overlaps(grid, right):
        raise GridError(message, "it shows another place: leave it out with --pattern, or make a composite of its own")
    raise GridError(message, _warp(path, right))


def _overlaps(one: Grid, other: Grid) -> bool:
    """Whether two grids, both with a CRS or both without one, have any ground in common."""
    left, bottom, right, top = one.bounds
    if one.crs is not None and other.crs is not None and one.crs != other.crs:
        from pyproj import Transformer

        there = Transformer.from_crs(one.crs.to_wkt(), other.crs.to_wkt(), always_xy=True)
        left, bottom, right, top = there.transform_bounds(*one.bounds)
        if not all(map(math.isfinite, (left, bottom, right, top))):
            return False
    other_left, other_bottom, other_right, other_top = other.bounds
    # Left above right crosses the 180th meridian: that two maps there do not meet is for the user to see.
    meets = (left < other_right and other_left < right) or left > right
    return meets and bottom < other_top and other_bottom < top


def _warp(path: Path, right: Grid) -> str:
    """The command that puts a raster on the maps' pixels."""
    left, bottom, east, top = right.bounds
    extent = f"-te {left:.17g} {bottom:.17g} {east:.17g} {top:.17g} -ts {right.width} {right.height}"
    srs = ""
    if right.crs is not None:
        srs = f"-t_srs {_crs(right) if right.crs.to_authority() else shlex.quote(right.crs.to_wkt())} "
    aligned = path.with_name(f"{path.stem}_aligned.tif")
    command = f"gdalwarp -r near {srs}{extent} {shlex.quote(str(path))} {shlex.quote(str(aligned))}"
    return f"{command}; then take {aligned.name} in the place of {path.name}"


def _crs(grid: Grid) -> str:
    code = grid.crs.to_authority() if grid.crs else None
    return ":".join(code) if code else "none" if grid.crs is None else "of its own"
