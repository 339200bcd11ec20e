"""Labelled chips: what training learns from, in our bands and legends.

A label says which classes a pixel may be: bit k of a target stands for output k of the network. So a hand-drawn
"cloud" without a thin class, or a forest tile with a clearing in it, teaches what it knows and nothing more.

Axes: P bands, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import sensors

UInt8Array = npt.NDArray[np.uint8]
TargetArray = npt.NDArray[np.integer[Any]]
Int16Array = npt.NDArray[np.int16]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

LAND_VALUES: Final = (10, 30, 40, 50, 60, 70, 80)
"""ESA WorldCover values of the land-cover classes, in the order of the network's outputs."""
CLOUD_VALUES: Final = (0, 1, 2, 3)
"""CloudSEN12 values of the cloud classes, in the order of the network's outputs."""

NARROW_CLASSES: Final = 8
MAX_CLASSES: Final = 62
"""Classes that a uint8 and an int64 target can name."""

DN_NODATA: Final = -32768
DN_PER_REFLECTANCE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Chip:
    """A labelled image.

    Attributes:
        source: Where it comes from, one word.
        bands: Common names of its P bands.
        dn: (P, H, W) int16, reflectance times 10 000; DN_NODATA where a pixel means nothing. A band that is
            DN_NODATA everywhere is absent.
        target: (H, W) uint8, bit k set where the pixel may be class k; 0 where nothing is known. int64 where there
            are more than 8 classes.
    """

    source: str
    bands: tuple[str, ...]
    dn: Int16Array
    target: TargetArray

    def __post_init__(self) -> None:
        """Check our own bookkeeping."""
        assert self.dn.shape == (len(self.bands), *self.target.shape)

    @property
    def height_px(self) -> int:
        """Rows."""
        return int(self.target.shape[0])

    @property
    def width_px(self) -> int:
        """Columns."""
        return int(self.target.shape[1])


class SimulatedLike(Protocol):
    """What this module needs of a simulated scene."""

    @property
    def bands(self) -> tuple[tuple[str, ...], ...]:
        """Common names of each of its B bands, all that the band may stand for."""

    @property
    def reflectance(self) -> FloatArray:
        """(B, H, W) float32 reflectance."""

    @property
    def valid(self) -> BoolArray:
        """(H, W) bool."""

    @property
    def land_cover(self) -> UInt8Array:
        """(H, W) uint8 ESA WorldCover values, 255 unknown."""

    @property
    def clouds(self) -> UInt8Array:
        """(H, W) uint8 cloud classes, 255 nodata."""


def targets_from_values(labels: UInt8Array, values: Sequence[int]) -> TargetArray:
    """Turn class values (..., ) uint8 into certain targets; values outside ``values`` become 0, unknown."""
    table: TargetArray = np.zeros(256, np.uint8 if len(values) <= NARROW_CLASSES else np.int64)
    table[list(values)] = 1 << np.arange(len(values))
    return table[labels]


def values_from_targets(target: TargetArray, values: Sequence[int], unknown: int = 255) -> UInt8Array:
    """Turn targets into class values where they are certain, ``unknown`` elsewhere."""
    if target.dtype != np.uint8:
        return _values_from_wide(target, values, unknown)
    table = np.full(256, unknown, np.uint8)
    table[1 << np.arange(len(values))] = values
    found: UInt8Array = table[target]
    return found


def _values_from_wide(target: TargetArray, values: Sequence[int], unknown: int) -> UInt8Array:
    is_certain = (target > 0) & (target & (target - 1) == 0)
    # Powers of two are exact in float64, and so are their logarithms.
    place = np.log2(np.where(is_certain, target, 1)).astype(np.intp)
    return np.where(is_certain, np.asarray(values, np.uint8)[place], np.uint8(unknown))


def simulated_chip(scene: SimulatedLike, task: str, bands: Sequence[str], has_cirrus: bool) -> Chip:
    """Cut a training chip out of a simulated scene.

    Args:
        scene: The scene.
        task: ``land-cover`` or ``cloud``.
        bands: Common names of the bands to keep; those that the scene lacks are DN_NODATA.
        has_cirrus: Whether the product has the cirrus band: surface reflectance products lack it.

    Returns:
        A chip; where thick cloud hides the ground, its land cover is unknown.
    """
    dn = np.full((len(bands), *scene.valid.shape), DN_NODATA, np.int16)
    for place, band in enumerate(bands):
        held = _place_of(scene, band)
        if held is not None and (has_cirrus or band != "cirrus"):
            dn[place] = to_dn(scene.reflectance[held : held + 1], scene.valid)[0]
    if task == "cloud":
        target = targets_from_values(scene.clouds, CLOUD_VALUES)
    else:
        target = targets_from_values(scene.land_cover, LAND_VALUES)
        target[scene.clouds == 1] = 0
    target[~scene.valid] = 0
    return Chip("simulated", tuple(bands), dn, target)


def _place_of(scene: SimulatedLike, band: str) -> int | None:
    """The scene's band for a common name: one that bears it first, or one that may stand for it."""
    ranked = [(names.index(band), place) for place, names in enumerate(scene.bands) if band in names]
    return min(ranked)[1] if ranked else None


def to_dn(reflectance: FloatArray, valid: BoolArray) -> Int16Array:
    """Store reflectance (P, H, W) float32 as int16, DN_NODATA where ``valid`` (H, W) is False."""
    scaled = np.clip(np.rint(reflectance * DN_PER_REFLECTANCE), DN_NODATA + 1, 32767).astype(np.int16)
    scaled[:, ~valid] = DN_NODATA
    return scaled


def band_names(sensor: str) -> tuple[str, ...]:
    """First common names of a sensor's bands, in its own order."""
    return tuple(band.common[0] for band in sensors()[sensor].bands)


def band_statistics(chips: Iterable[Chip], bands: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Measure mean and standard deviation of reflectance per band, every chip with the same weight.

    Args:
        chips: Chips with some of ``bands``.
        bands: Common names.

    Returns:
        Means and standard deviations, (P,) float32 each; NaN for a band that no chip has.
    """
    sums: list[list[tuple[float, float]]] = [[] for _ in bands]
    for chip in chips:
        for place, band in enumerate(bands):
            held = chip.dn[chip.bands.index(band)] if band in chip.bands else np.empty(0, np.int16)
            values = held[held != DN_NODATA] / np.float64(DN_PER_REFLECTANCE)
            if values.size:
                sums[place].append((float(values.mean()), float((values**2).mean())))
    moments = np.array([np.mean(rows, axis=0) if rows else (np.nan, np.nan) for rows in sums])
    mean, square = moments[:, 0], moments[:, 1]
    # Rounding may leave the variance of a constant just below 0.
    return mean.astype(np.float32), np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32)
