"""Real ground under simulated skies: tiles corrected to the surface, and their textures on simulated layouts.

Simulated fields are mixed of spectra from laboratories by guesses; where a field wears the pixels of a real tile of its
class, its colours and its grain are not guessed. Trials could not show that it helps (docs/simulator.md).

Axes: P bands, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
from rasterio import features

from geoseg_cli.training.atmosphere import Atmosphere
from geoseg_cli.training.chips import DN_NODATA, DN_PER_REFLECTANCE, Chip, TargetArray
from geoseg_cli.training.imagers import IMAGERS
from geoseg_cli.training.lazy import LazySequence

PASTED_SHARE: Final = 0.8
"""Share of the regions of a simulated chip that wear a real texture."""
MIN_REGION_PX: Final = 24
"""Smaller regions keep what was simulated: they would show no texture."""
MIN_CERTAIN_SHARE: Final = 0.5
"""A tile lends its pixels to a class that at least this share of them is for certain."""
_AIR_TRIES: Final = 12

Places = npt.NDArray[np.intp]


def at_surface(chip: Chip, rng: np.random.Generator) -> Chip:
    """A clear Sentinel-2 chip at the top of the atmosphere as surface reflectance, through air drawn for it.

    Both hold (P, H, W) reflectance times 10 000. Only air that leaves every band of the darkest pixels above zero is
    possible; where none of a dozen draws is, the chip is returned as it came.
    """
    imager = IMAGERS["sentinel-2"]
    channel = {names[0]: number for names, number in zip(imager.bands, imager.channels, strict=True)}
    channels = [channel[band] for band in chip.bands]
    top = chip.dn.astype(np.float32) / np.float32(DN_PER_REFLECTANCE)
    darkest = np.percentile(top.reshape(len(top), -1), 1, axis=1).astype(np.float32)[:, None, None]
    lit = np.array([band not in ("cirrus", "nir09") for band in chip.bands])
    for _ in range(_AIR_TRIES):
        air = Atmosphere(
            sun_zenith_rad=float(np.radians(rng.uniform(25, 60))),
            aerosol_depth=float(np.clip(rng.lognormal(np.log(0.1), 0.7), 0.02, 0.6)),
            angstrom=float(rng.uniform(0.9, 1.7)),
            vapour_cm=float(rng.uniform(0.5, 3.0)),
            ground_m=float(rng.uniform(0, 600)),
        )
        if (air.to_surface(darkest, channels)[lit] > 0).all():
            dn = np.rint(air.to_surface(top, channels) * DN_PER_REFLECTANCE)
            return replace(chip, dn=np.clip(dn, DN_NODATA + 1, 32767).astype(np.int16))
    return chip


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
