"""Real ground under simulated skies: tiles corrected to the surface, their textures on simulated layouts, and whole
tiles below simulated air and clouds.

Simulated fields are mixed of spectra from laboratories by guesses; where a field wears the pixels of a real tile of its
class, its colours and its grain are not guessed. Land cover takes the textures; trials could not show that they help.
Clouds need no classes of the ground: they take whole tiles (docs/simulator.md).

Axes: P bands, B bands of a simulated scene, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
from rasterio import features

from geoseg_cli.training.air import UNLIT, channels_of_bands, removable_air
from geoseg_cli.training.chips import DN_NODATA, DN_PER_REFLECTANCE, Chip, TargetArray
from geoseg_cli.training.fields import FloatArray, block_mean
from geoseg_cli.training.imagers import IMAGERS
from geoseg_cli.training.lazy import LazySequence
from geoseg_cli.training.materials import UNKNOWN
from geoseg_cli.training.spectra import WAVELENGTH_NM
from geoseg_cli.training.surfaces import Ground, GroundOptions

PASTED_SHARE: Final = 0.8
"""Share of the regions of a simulated chip that wear a real texture."""
MIN_REGION_PX: Final = 24
"""Smaller regions keep what was simulated: they would show no texture."""
MIN_CERTAIN_SHARE: Final = 0.5
"""A tile lends its pixels to a class that at least this share of them is for certain."""
PIECE_PX: Final = (64, 128, 256)
"""Sides of the squares in which whole tiles are laid; beyond the edge of a tile it is mirrored."""
COARSE_GSD_M: Final = 20.0
"""From this pixel size on tiles are laid with two by two pixels made one: more would leave little of their texture."""

Places = npt.NDArray[np.intp]


def at_surface(chip: Chip, rng: np.random.Generator) -> Chip:
    """A clear Sentinel-2 chip at the top of the atmosphere as surface reflectance, through air drawn for it.

    Both hold (P, H, W) reflectance times 10 000. Only air that leaves every band of the darkest pixels above zero is
    possible; where none of a dozen draws is, the chip is returned as it came.
    """
    top = chip.dn.astype(np.float32) / np.float32(DN_PER_REFLECTANCE)
    air = removable_air(top, chip.bands, rng)
    if air is None:
        return chip
    dn = np.rint(air.to_surface(top, channels_of_bands(chip.bands)) * DN_PER_REFLECTANCE)
    return replace(chip, dn=np.clip(dn, DN_NODATA + 1, 32767).astype(np.int16))


class Textures:
    """Tiles that lend their pixels to simulated ground.

    Args:
        tiles: Chips with all the bands that may be asked for; a tile lends to the class that most of it certainly is.
    """

    def __init__(self, tiles: Sequence[Chip]) -> None:
        self._lenders: dict[int, list[Chip]] = {}
        for tile in tiles:
            bits, counts = np.unique(tile.target, return_counts=True)
            most = int(bits[counts.argmax()])
            if most and most & (most - 1) == 0 and counts.max() >= MIN_CERTAIN_SHARE * tile.target.size:
                self._lenders.setdefault(most, []).append(tile)

    def paste(self, chip: Chip, rng: np.random.Generator) -> Chip:
        """Lay pixels of tiles, and what is known of them, over regions of a simulated chip of the same class."""
        dn, target = np.array(chip.dn), chip.target.copy()
        held = [band for band, plane in enumerate(dn) if (plane != DN_NODATA).any()]
        for bit, rows, columns in _regions(chip.target, tuple(self._lenders)):
            if rng.random() >= PASTED_SHARE or len(rows) < MIN_REGION_PX:
                continue
            tiles = self._lenders[bit]
            tile = tiles[int(rng.integers(len(tiles)))]
            from_rows, from_columns = (
                _mirrored(places, length, rng)
                for places, length in zip((rows, columns), tile.target.shape, strict=True)
            )
            for band in held:
                dn[band][rows, columns] = tile.dn[tile.bands.index(chip.bands[band])][from_rows, from_columns]
            target[rows, columns] = tile.target[from_rows, from_columns]
        return replace(chip, dn=dn, target=target)


class PastedChips(LazySequence[Chip]):
    """Simulated chips in which regions of one class wear the pixels of real tiles of that class.

    Args:
        simulated: Land-cover chips, (P, H, W).
        textures: What the chip at a place of ``simulated`` is pasted with; None leaves it as it is.
        seed: Of all chance: the chip at a place is always the same.
    """

    def __init__(self, simulated: Sequence[Chip], textures: Callable[[int], Textures | None], seed: int) -> None:
        self._simulated, self._textures, self._seed = simulated, textures, seed

    def __len__(self) -> int:
        return len(self._simulated)

    def _make(self, place: int) -> Chip:
        chip, textures = self._simulated[place], self._textures(place)
        return chip if textures is None else textures.paste(chip, np.random.default_rng((self._seed, place)))


class TileGround:
    """Ground made of whole tiles, for scenes whose clouds alone are to be known.

    A tile has Sentinel-2's bands; what other instruments see lies between them by wavelength.

    Args:
        tiles: Sentinel-2 chips of surface reflectance without clouds and nodata, squares of one size.
    """

    def __init__(self, tiles: Sequence[Chip]) -> None:
        imager = IMAGERS["sentinel-2"]
        lit = [(name, WAVELENGTH_NM[at]) for (name, *_), at in zip(imager.bands, imager.channels, strict=True)]
        lit = [(name, centre) for name, centre in lit if name not in UNLIT]
        full = np.float32(DN_PER_REFLECTANCE)
        self._tiles: list[FloatArray] = [
            np.stack([chip.dn[chip.bands.index(name)] for name, _ in lit]).astype(np.float32) / full for chip in tiles
        ]
        self._centres_nm = np.array([centre for _, centre in lit])

    def make(self, options: GroundOptions, rng: np.random.Generator) -> Ground:
        """Lay tiles side by side, each turned and in other light; flat, and of unknown land cover."""
        side, bands = int(rng.choice(PIECE_PX)), self._mixing(options.channels)
        height, width = options.shape
        image = np.empty((len(options.channels), height, width), np.float32)
        # The first piece may lie half outside.
        first_row, first_col = -rng.integers(side, size=2)
        for row in range(first_row, height, side):
            for col in range(first_col, width, side):
                piece = self._piece(side, options.gsd_m, rng)
                top, left = max(-row, 0), max(-col, 0)
                piece = piece[:, top : height - row, left : width - col]
                light = rng.lognormal(0, 0.2) * rng.lognormal(0, 0.05, len(options.channels))
                laid = np.einsum("bp,phw->bhw", bands * light[:, None].astype(np.float32), piece)
                image[:, row + top : row + top + laid.shape[1], col + left : col + left + laid.shape[2]] = laid
        flat = np.zeros((2, height, width), np.float32)
        return Ground(np.clip(image, 0.001, 1.05), np.full((height, width), UNKNOWN, np.uint8), flat)

    def _piece(self, side: int, gsd_m: float, rng: np.random.Generator) -> FloatArray:
        """A tile (P, side, side), turned, mirrored on beyond its edge."""
        tile = self._tiles[int(rng.integers(len(self._tiles)))]
        if gsd_m >= COARSE_GSD_M:
            tile = np.stack([block_mean(band, 2) for band in tile])
        tile = np.rot90(tile, int(rng.integers(4)), (1, 2))
        tile = tile[:, ::-1] if rng.random() < 0.5 else tile
        rows, columns = (_mirrored(np.arange(side), length, rng) for length in tile.shape[1:])
        return tile[:, rows][:, :, columns]

    def _mixing(self, channels: Sequence[int]) -> FloatArray:
        """Weights (B, P) that interpolate a tile's bands to channels of the spectra."""
        wanted, each = WAVELENGTH_NM[list(channels)], np.eye(len(self._centres_nm))
        return np.stack([np.interp(wanted, self._centres_nm, row) for row in each], 1).astype(np.float32)


def _regions(target: TargetArray, bits: Sequence[int]) -> Iterator[tuple[int, Places, Places]]:
    """Each region of pixels of one class that touch by their sides: the class's bit, its rows and its columns."""
    wanted = np.where(np.isin(target, bits), target, 0).astype(np.uint8)
    found = list(features.shapes(wanted, mask=wanted > 0, connectivity=4))
    if not found:
        return
    outlines = [(outline, number) for number, (outline, _) in enumerate(found, 1)]
    numbers = features.rasterize(outlines, out_shape=wanted.shape, dtype="int32").ravel()
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(1, len(found) + 1))
    for (_, bit), places in zip(found, np.split(order, starts)[1:], strict=True):
        rows, columns = np.unravel_index(places, wanted.shape)
        yield int(bit), rows, columns


def _mirrored(places: Places, length: int, rng: np.random.Generator) -> Places:
    """Where along a tile of ``length`` a region's rows or columns come from; beyond its edge it is mirrored."""
    path: Places = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    along: Places = path[(places - places.min() + int(rng.integers(len(path)))) % len(path)]
    return along
