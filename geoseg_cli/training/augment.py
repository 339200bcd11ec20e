"""Chips to training samples: cut, scale, turn, cloud over, disturb, hide, normalise.

A sample looks as a user's scene may look: another ground sampling distance, another side up, haze or a shadow, a small
radiometric error, an edge of the swath, fewer bands. ``InputSpec.apply`` normalises, the same code as in prediction.

Axes: N batch, P bands, C input channels, H rows, W columns, T side of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from geoseg_cli.bundle import InputSpec
from geoseg_cli.training.chips import (
    DN_NODATA,
    DN_PER_REFLECTANCE,
    BoolArray,
    Chip,
    FloatArray,
    Int16Array,
    TargetArray,
)
from geoseg_cli.training.overcast import cloud_over

BandSets = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Chips that are drawn from in one way.

    Attributes:
        chips: At least one chip.
        share: Share of the samples, relative to the other sources.
        weight: Weight of a sample's loss, 0 to 1; low for labels that are often wrong.
        zoom: Range of the ground sampling distance of samples relative to the chip's own; 2 halves the detail.
        is_mosaic: Chips smaller than a sample are laid side by side; else the sample shows less than was asked.
        piece_px: Range of the sides of the squares that a mosaic is laid of, each from any place of any chip: small
            pieces take the neighbours away, so that a pixel's own spectrum must do. None lays whole chips.
    """

    chips: Sequence[Chip]
    share: float = 1.0
    weight: float = 1.0
    zoom: tuple[float, float] = (1.0, 1.0)
    is_mosaic: bool = False
    piece_px: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """How strongly samples are disturbed.

    Attributes:
        gain: Largest relative error that all bands share.
        band_gain: Largest relative error of a single band.
        offset: Largest offset, reflectance.
        noise: Largest standard deviation of a pixel's noise, reflectance.
        wedge: Share of samples with an invalid wedge.
        band_sets: Optional bands that typical sensors have; one set is chosen in ``set_share`` of the samples.
        set_share: Share of samples that keep only the optional bands of a set.
        drop_share: Share of samples that drop each optional band with a chance of a half.
        clouds: Share of samples that get simulated clouds; for land cover alone, as labels stay those of the ground.
        cloud_gsd_m: Pixel size at which the clouds are drawn.
    """

    gain: float = 0.1
    band_gain: float = 0.03
    offset: float = 0.01
    noise: float = 0.003
    wedge: float = 0.1
    band_sets: BandSets = ((),)
    set_share: float = 0.35
    drop_share: float = 0.25
    clouds: float = 0.0
    cloud_gsd_m: float = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the loss needs of one image.

    Attributes:
        pixels: (C, T, T) float32, as ``InputSpec.apply`` makes them.
        target: (T, T) uint8 or int64, bit k set where the pixel may be class k, 0 where nothing is known or valid.
        weight: Weight of the loss.
    """

    pixels: FloatArray
    target: TargetArray
    weight: float


def draw_sample(
    source: Source, size_px: int, spec: InputSpec, options: AugmentOptions, rng: np.random.Generator
) -> Sample:
    """Draw one sample of side ``size_px`` from a source."""
    dn, target, bands = _cut(source, size_px, rng)
    reflectance, valid = _to_reflectance(dn, bands, spec.required)
    reflectance, valid, target = _zoomed(reflectance, valid, target, size_px)
    reflectance, valid, target = _turned(reflectance, valid, target, rng)
    if options.clouds and rng.random() < options.clouds:
        reflectance, is_hidden = cloud_over(reflectance, bands, options.cloud_gsd_m, rng)
        target = np.where(is_hidden, 0, target).astype(target.dtype)
    reflectance = _disturbed(reflectance, options, rng)
    if rng.random() < options.wedge:
        valid = valid & ~_wedge(size_px, rng)
    held = _kept_bands(_present(dn, bands, spec), spec, options, rng)
    order = [bands.index(band) for band in spec.bands if band in held]
    present = tuple(band in held for band in spec.bands)
    pixels = spec.apply(np.ascontiguousarray(reflectance[order]), valid, present)
    return Sample(pixels, np.where(valid, target, 0).astype(target.dtype), source.weight)


def whole_sample(chip: Chip, spec: InputSpec) -> Sample:
    """The whole chip as it is, with all its bands: for measuring, not for training. Pixels are (C, H, W)."""
    dn = np.asarray(chip.dn)
    reflectance, valid = _to_reflectance(dn, chip.bands, spec.required)
    held = _present(dn, chip.bands, spec)
    order = [chip.bands.index(band) for band in spec.bands if band in held]
    present = tuple(band in held for band in spec.bands)
    pixels = spec.apply(np.ascontiguousarray(reflectance[order]), valid, present)
    return Sample(pixels, np.where(valid, chip.target, 0).astype(chip.target.dtype), 1.0)


def draw_batch(
    sources: Sequence[Source], count: int, size_px: int, spec: InputSpec, options: AugmentOptions,
    rng: np.random.Generator,
) -> list[Sample]:  # fmt: skip
    """Draw ``count`` samples of side ``size_px``; each comes from a source chosen by its share."""
    shares = np.array([source.share if len(source.chips) else 0.0 for source in sources])
    places = rng.choice(len(sources), size=count, p=shares / shares.sum())
    return [draw_sample(sources[place], size_px, spec, options, rng) for place in places]


def _cut(source: Source, size_px: int, rng: np.random.Generator) -> tuple[Int16Array, TargetArray, tuple[str, ...]]:
    """Cut a square of ``size_px`` times a random zoom out of one chip, or out of a mosaic of chips."""
    chip = source.chips[int(rng.integers(len(source.chips)))]
    zoom = math.exp(rng.uniform(math.log(source.zoom[0]), math.log(source.zoom[1])))
    side = max(1, round(size_px * zoom))
    shorter = min(chip.height_px, chip.width_px)
    if side <= shorter:
        return *_window(chip, side, rng), chip.bands
    if source.is_mosaic:
        return *_mosaic(source, side, rng), chip.bands
    return *_window(chip, shorter, rng), chip.bands


def _window(chip: Chip, side: int, rng: np.random.Generator) -> tuple[Int16Array, TargetArray]:
    row = int(rng.integers(chip.height_px - side + 1))
    col = int(rng.integers(chip.width_px - side + 1))
    part = np.s_[row : row + side, col : col + side]
    return chip.dn[:, part[0], part[1]], chip.target[part]


def _mosaic(source: Source, side: int, rng: np.random.Generator) -> tuple[Int16Array, TargetArray]:
    """Lay squares of one size, whole chips or pieces of them, side by side and cut a square at a random place."""
    cell = source.chips[0].height_px
    if source.piece_px:
        low, high = source.piece_px
        cell = min(cell, round(math.exp(rng.uniform(math.log(low), math.log(high)))))
    count = -(-side // cell) + 1
    rows = []
    for _ in range(count):
        chosen = rng.integers(len(source.chips), size=count)
        line = [_window(source.chips[int(place)], cell, rng) for place in chosen]
        rows.append([np.concatenate(planes, axis=-1) for planes in zip(*line, strict=True)])
    dn, target = (np.concatenate(planes, axis=-2) for planes in zip(*rows, strict=True))
    row, col = (int(start) for start in rng.integers(cell, size=2))
    return dn[:, row : row + side, col : col + side], target[row : row + side, col : col + side]


def _to_reflectance(dn: Int16Array, bands: Sequence[str], required: Sequence[str]) -> tuple[FloatArray, BoolArray]:
    """Reflectance (P, H, W) float32 with 0 for what means nothing, and where the required bands mean something."""
    known = dn != DN_NODATA
    valid = known[[bands.index(band) for band in required]].all(axis=0)
    return np.where(known, dn, 0).astype(np.float32) / np.float32(DN_PER_REFLECTANCE), valid


def _present(dn: Int16Array, bands: Sequence[str], spec: InputSpec) -> tuple[str, ...]:
    """Bands of ``spec`` that the chip has: the required ones, and optional ones that are not empty."""
    return tuple(
        band
        for band in spec.bands
        if band in spec.required or (band in bands and bool((dn[bands.index(band)] != DN_NODATA).any()))
    )


def _zoomed(
    reflectance: FloatArray, valid: BoolArray, target: TargetArray, size_px: int
) -> tuple[FloatArray, BoolArray, TargetArray]:
    """Bring a square to side ``size_px``: areas are averaged, details interpolated, labels never mixed."""
    side = valid.shape[0]
    if side == size_px:
        return reflectance, valid, target
    mode = "area" if side > size_px else "bilinear"
    # Invalid pixels hold 0 and would darken their neighbours: a new pixel is valid only if all it saw was.
    planes = torch.from_numpy(np.concatenate([reflectance, valid[None].astype(np.float32)]))[None]
    scaled = F.interpolate(planes, size=(size_px, size_px), mode=mode)[0].numpy()
    place = (np.arange(size_px) + 0.5) * side / size_px
    nearest = np.minimum(place.astype(np.intp), side - 1)
    return scaled[:-1], scaled[-1] > 0.999, target[nearest[:, None], nearest[None, :]]


def _turned(
    reflectance: FloatArray, valid: BoolArray, target: TargetArray, rng: np.random.Generator
) -> tuple[FloatArray, BoolArray, TargetArray]:
    """One of the eight ways to lay a square on itself."""
    quarter, is_mirrored = int(rng.integers(4)), bool(rng.integers(2))

    def turn(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        turned = np.rot90(array, quarter, axes=(-2, -1))
        return turned[..., ::-1] if is_mirrored else turned

    return turn(reflectance), turn(valid), turn(target)  # type: ignore[return-value]


def _disturbed(reflectance: FloatArray, options: AugmentOptions, rng: np.random.Generator) -> FloatArray:
    """Add radiometric errors to (P, H, W) reflectance."""
    size = (reflectance.shape[0], 1, 1)
    gain = (1 + rng.uniform(-options.gain, options.gain)) * (
        1 + rng.uniform(-options.band_gain, options.band_gain, size)
    )
    offset = rng.uniform(-options.offset, options.offset) + rng.uniform(-0.3, 0.3, size) * options.offset
    result: FloatArray = reflectance * gain.astype(np.float32) + offset.astype(np.float32)
    sigma = np.float32(rng.uniform(0, options.noise))
    result += sigma * rng.standard_normal(reflectance.shape, dtype=np.float32)
    return result


def _wedge(size_px: int, rng: np.random.Generator) -> BoolArray:
    """A half plane that covers up to about half of the square: (T, T) bool."""
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, size_px)
    distance = axis[:, None] * np.sin(angle) + axis[None, :] * np.cos(angle)
    wedge: BoolArray = distance > rng.uniform(0.0, 0.6)
    return wedge


def _kept_bands(
    present: tuple[str, ...], spec: InputSpec, options: AugmentOptions, rng: np.random.Generator
) -> frozenset[str]:
    """Bands that the sample keeps: all, those of a typical sensor, or a random choice."""
    optional = [band for band in present if band in spec.optional]
    dice = rng.random()
    if dice < options.set_share:
        chosen = set(options.band_sets[int(rng.integers(len(options.band_sets)))])
        optional = [band for band in optional if band in chosen]
    elif dice < options.set_share + options.drop_share:
        keep = rng.random(len(optional)) < 0.5
        optional = [band for band, is_kept in zip(optional, keep, strict=True) if is_kept]
    return frozenset(spec.required) | frozenset(optional)
