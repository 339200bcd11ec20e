"""The plan of overlapping tiles that covers a scene: integers only, no pixels.

Starts are spread evenly along each axis, none is repeated, and the overlap is never below what was asked. They are
multiples of the network's own step: a network that halves its input several times answers differently when the same
ground is shifted by less than that. So the last tile may reach beyond the scene by less than one step; what lies there
is padding, as in a scene that is smaller than a tile. Windows never leave the scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from geoseg_cli.errors import UsageError
from geoseg_cli.grid import Window
from geoseg_cli.printable import counted


@dataclass(frozen=True, slots=True)
class Axis:
    """Tiles along one axis of a scene.

    Attributes:
        size: Pixels of the scene along this axis.
        tile: Pixels of a tile; above ``size`` where the scene is smaller than one tile.
        overlap: Pixels that neighbours share at least.
        starts: First pixel of each tile, strictly rising; tiles at the ends may reach beyond the scene, on either side.
    """

    size: int
    tile: int
    overlap: int
    starts: tuple[int, ...]

    @classmethod
    def spread(cls, size: int, tile_px: int, overlap_px: int, multiple: int) -> Axis:
        """Spread the fewest tiles that reach the wanted overlap evenly over ``size`` pixels, at multiples of a step."""
        if size <= tile_px:
            fitted = min(tile_px, -(-size // multiple) * multiple)
            return cls(size, fitted, overlap_px, (0,))
        # A tile of one step that overlaps has no multiple to begin at.
        step = multiple if tile_px - overlap_px >= multiple else 1
        most = (tile_px - overlap_px) // step  # between two starts, in steps
        last = -(-(size - tile_px) // step)
        count = -(-last // most) + 1
        # Rounded up: so no gap grows beyond the most, and the last one shrinks.
        starts = tuple(-(-i * last // (count - 1)) * step for i in range(count))
        return cls(size, tile_px, overlap_px, starts)

    def extent(self, index: int) -> tuple[int, int]:
        """First pixel and length of tile ``index`` inside the scene."""
        first, stop = max(0, self.starts[index]), min(self.size, self.starts[index] + self.tile)
        return first, stop - first

    def first_reaching(self, pixel: int) -> int:
        """The first tile that has this pixel or a later one; the number of tiles for a pixel beyond the last one."""
        stops = (sum(self.extent(index)) for index in range(len(self.starts)))
        return next((index for index, stop in enumerate(stops) if stop > pixel), len(self.starts))

    @property
    def largest_overlap(self) -> int:
        """Most pixels that two neighbours share."""
        pairs = zip(self.starts[:-1], self.starts[1:], strict=True)
        return max((first + self.tile - second for first, second in pairs), default=0)

    def core(self, index: int) -> tuple[int, int]:
        """First and one-past-last pixel that lie nearer to this tile's middle than to its neighbours'."""
        first = 0 if index == 0 else self._seam(index - 1)
        stop = self.size if index == len(self.starts) - 1 else self._seam(index)
        return first, stop

    def _seam(self, index: int) -> int:
        return (self.starts[index] + self.tile + self.starts[index + 1]) // 2


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a plan.

    Attributes:
        index: Position in row-major order.
        row_index, col_index: Position along each axis of the plan.
        window: The tile's pixels, wholly inside the scene.
    """

    index: int
    row_index: int
    col_index: int
    window: Window


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Row-major plan of tiles; all tiles have the same shape once padded to ``(tile_height, tile_width)``."""

    rows: Axis
    cols: Axis

    @classmethod
    def cover(cls, height: int, width: int, tile_px: int, overlap_px: int, multiple: int = 1) -> TilePlan:
        """Plan tiles over a scene of ``height`` x ``width`` pixels.

        Args:
            height, width: Size of the scene in pixels, at least 1.
            tile_px: Side of a square tile.
            overlap_px: Pixels that neighbouring tiles share at least; at most half a tile.
            multiple: Tile sides are a multiple of this; ``tile_px`` must be one.

        Raises:
            UsageError: ``tile_px`` or ``overlap_px`` cannot be used.
        """
        if tile_px < 1 or tile_px % multiple:
            nearest = max(multiple, (tile_px + multiple // 2) // multiple * multiple)
            raise UsageError(
                f"a tile of {tile_px} px does not fit the model, which needs a multiple of {multiple}",
                f"use --tile {nearest}",
            )
        if not 0 <= overlap_px <= tile_px // 2:
            raise UsageError(
                f"an overlap of {overlap_px} px does not fit tiles of {tile_px} px",
                f"use --overlap between 0 and {tile_px // 2}",
            )
        return cls(
            Axis.spread(height, tile_px, overlap_px, multiple),
            Axis.spread(width, tile_px, overlap_px, multiple),
        )

    @property
    def tile_height(self) -> int:
        """Rows of a padded tile."""
        return self.rows.tile

    @property
    def tile_width(self) -> int:
        """Columns of a padded tile."""
        return self.cols.tile

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.cols.starts)

    def __iter__(self) -> Iterator[Tile]:
        for row in range(len(self.rows.starts)):
            for col in range(len(self.cols.starts)):
                yield self[row, col]

    def __getitem__(self, position: tuple[int, int]) -> Tile:
        row_index, col_index = position
        row, height = self.rows.extent(row_index)
        col, width = self.cols.extent(col_index)
        index = row_index * len(self.cols.starts) + col_index
        return Tile(index, row_index, col_index, Window(row, col, height, width))

    def core(self, tile: Tile) -> Window:
        """The part of a tile that is nearer to its middle than to any neighbour's; cores partition the scene."""
        row, row_stop = self.rows.core(tile.row_index)
        col, col_stop = self.cols.core(tile.col_index)
        return Window(row, col, row_stop - row, col_stop - col)

    @property
    def computed_share(self) -> float:
        """Pixels computed per pixel of the scene, padding included; 1.0 means no pixel twice."""
        return len(self) * self.tile_height * self.tile_width / (self.rows.size * self.cols.size)

    def __str__(self) -> str:
        rows, columns = counted(len(self.rows.starts), "row"), counted(len(self.cols.starts), "column")
        return (
            f"{counted(len(self), 'tile')} of {self.tile_height} x {self.tile_width} px"
            f" ({rows} x {columns}, overlap >= {self.rows.overlap} px,"
            f" {self.computed_share:.2f} pixels computed per pixel)"
        )
