"""A class map as a picture: decimated, with north up, and square pixels on the ground."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geoseg_cli.catalog import Legend
from geoseg_cli.errors import InputError
from geoseg_cli.grid import Grid
from geoseg_cli.orientation import Orientation
from geoseg_cli.results.map_file import map_grid, map_legend, opened_map
from geoseg_cli.rows import LabelArray

ImageArray = npt.NDArray[np.uint8]

_SQUARE = 1.01
"""Ratio of sides up to which pixels are drawn as they are."""
_SLANT = 1e-9


@dataclass(frozen=True, slots=True)
class Frame:
    """How the ground of a grid is shown.

    Attributes:
        grid: The file's grid.
        height, width: What its rows and columns are read as.
        shown: Grid of the picture, north-up wherever the file says where north is.
    """

    grid: Grid
    height: int
    width: int
    shown: Grid

    @classmethod
    def fit(cls, grid: Grid, max_px: int) -> Frame:
        """Show all of a grid.

        Args:
            grid: The file's.
            max_px: Longest side of the picture. Smaller grids keep their size.
        """
        height_m, width_m = grid.gsd_m() or (1.0, 1.0)
        if max(height_m, width_m) <= _SQUARE * min(height_m, width_m):
            height_m = width_m = 1.0
        step_m = max(min(height_m, width_m), grid.height * height_m / max_px, grid.width * width_m / max_px)
        height = max(1, round(grid.height * height_m / step_m))
        width = max(1, round(grid.width * width_m / step_m))
        stored = Grid(grid.crs, grid.transform @ Affine.scale(grid.width / width, grid.height / height), height, width)
        return cls(grid, height, width, _unslanted(stored, max_px) if _is_slanted(grid) else _turned(stored))

    def show(self, pixels: npt.NDArray[Any], empty: int) -> npt.NDArray[Any]:
        """Turn pixels north-up.

        Args:
            pixels: (..., height, width) in the order of the file.
            empty: What the corners around a slanted grid become.

        Returns:
            (..., H, W) of :attr:`shown`.
        """
        if not _is_slanted(self.grid):
            return np.asarray(Orientation.of(self.grid).turn(pixels))
        out = np.full((*pixels.shape[:-2], self.shown.height, self.shown.width), empty, pixels.dtype)
        scale = Affine.scale(self.grid.width / self.width, self.grid.height / self.height)
        reproject(
            np.ascontiguousarray(pixels),
            out,
            src_transform=self.grid.transform @ scale,
            dst_transform=self.shown.transform,
            src_crs=self.grid.crs,
            dst_crs=self.grid.crs,
            resampling=Resampling.nearest,
            init_dest_nodata=False,
        )
        return out

    def show_image(self, rgba: ImageArray) -> ImageArray:
        """(height, width, 4) in the order of the file -> (H, W, 4) north-up, transparent around a slanted grid."""
        return np.ascontiguousarray(np.moveaxis(self.show(np.moveaxis(rgba, -1, 0), 0), 0, -1))


@dataclass(frozen=True, slots=True)
class MapPicture:
    """A class map to look at.

    Attributes:
        frame: How it is shown.
        labels: (H,W), north-up.
        legend: What they mean.
    """

    frame: Frame
    labels: LabelArray
    legend: Legend

    def colors(self) -> ImageArray:
        """(H,W,4) uint8: the colours of the classes, transparent where there is no answer."""
        colors = np.zeros((self.legend.value_count, 4), np.uint8)
        for value, color in self.legend.palette().items():
            colors[value] = color
        return colors[self.labels]


def read_picture(path: Path, max_px: int) -> MapPicture:
    """Read a class map through its overviews, which hold nothing but classes.

    Args:
        path: A map that geoseg wrote.
        max_px: Longest side of the picture. Smaller maps keep their size.

    Raises:
        InputMissingError: There is no such file.
        InputError: It is no class map of geoseg, or holds values that its legend does not.
        AccessError, StorageError: It cannot be read.
    """
    with opened_map(path) as file:
        legend, frame = map_legend(path, file), Frame.fit(map_grid(file), max_px)
        stored = file.read(1, out_shape=(frame.height, frame.width), resampling=Resampling.nearest)
    strange = sorted(set(np.unique(stored).tolist()) - set(legend.palette()))
    if strange:
        raise InputError(f"{path} holds {strange}, which are no classes of its legend", "make the map again")
    return MapPicture(frame, np.ascontiguousarray(frame.show(stored, legend.nodata)), legend)


def _is_slanted(grid: Grid) -> bool:
    """Whether rows and columns run neither along nor across the map's axes."""
    t = grid.transform
    is_straight = abs(t.b) <= _SLANT * abs(t.a) and abs(t.d) <= _SLANT * abs(t.e)
    is_swapped = abs(t.a) <= _SLANT * abs(t.b) and abs(t.e) <= _SLANT * abs(t.d)
    return grid.crs is not None and not is_straight and not is_swapped


def _turned(stored: Grid) -> Grid:
    """The grid of pixels that an :class:`Orientation` turned."""
    turn = Orientation.of(stored)
    height, width = turn.shape(stored.height, stored.width)
    to_stored = Affine(0, 1, 0, 1, 0, 0) if turn.swap else Affine.identity()
    if turn.flip_rows:
        to_stored = to_stored @ Affine(1, 0, 0, 0, -1, height)
    if turn.flip_cols:
        to_stored = to_stored @ Affine(-1, 0, width, 0, 1, 0)
    return Grid(stored.crs, stored.transform @ to_stored, height, width)


def _unslanted(stored: Grid, max_px: int) -> Grid:
    """A north-up grid around a slanted one, with pixels that are square on the ground."""
    corners = [stored.transform @ (col, row) for col in (0, stored.width) for row in (0, stored.height)]
    x, y = [corner[0] for corner in corners], [corner[1] for corner in corners]
    middle = Affine.translation((min(x) + max(x)) / 2, (min(y) + max(y)) / 2)
    metres = Grid(stored.crs, middle @ Affine(1, 0, -0.5, 0, -1, 0.5), 1, 1).gsd_m() or (1.0, 1.0)
    height_m, width_m = (max(y) - min(y)) * metres[0], (max(x) - min(x)) * metres[1]
    step_m = max(min(stored.gsd_m() or (1.0, 1.0)), height_m / max_px, width_m / max_px)
    height, width = max(1, round(height_m / step_m)), max(1, round(width_m / step_m))
    transform = Affine((max(x) - min(x)) / width, 0, min(x), 0, -(max(y) - min(y)) / height, max(y))
    return Grid(stored.crs, transform, height, width)
