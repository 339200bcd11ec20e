"""Chips to training samples: cut, scale, turn, cloud over, disturb, hide, normalise.

A sample looks as a user's scene may look: another ground sampling distance, another side up, haze or a shadow, a small
radiometric error, an edge of the swath, fewer bands. ``InputSpec.apply`` normalises, the same code as in prediction.

Axes: N batch, P bands, C input channels, H rows, W columns, T side of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from geoseg_cli.bundle import InputSpec
from geoseg_cli.training.air import other_air
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
SNOW = 0.9
"""Reflectance of fresh snow in the visible: nothing on the ground is much brighter."""


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
        is_scattered: A mosaic is laid of squares as large as a chip, and each of them holds pixels of one piece of a
            chip in no order: their spectra stay, texture and shapes go.
        brighten: Largest factor by which a sample is made brighter, for ground that keeps its label in any light.
    """

    chips: Sequence[Chip]
    share: float = 1.0
    weight: float = 1.0
    zoom: tuple[float, float] = (1.0, 1.0)
    is_mosaic: bool = False
    piece_px: tuple[int, int] | None = None
    is_scattered: bool = False
    brighten: float = 1.0


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
        air: Share of samples that are seen through more or less air than the image was.
        shift_px: How far apart the two views of one piece of ground may lie, along rows and along columns.
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
    air: float = 0.0
    shift_px: int = 32


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


@dataclass(frozen=True, slots=True)
class Views:
    """One piece of ground, seen twice: in other light, through other air, amid other surroundings.

    Attributes:
        first, second: Two samples of one size with the same bands.
        shift: Rows and columns by which the second lies further down and right than the first.
    """

    first: Sample
    second: Sample
    shift: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Ground:
    """A square before it is disturbed: (P, T, T) reflectance, (T, T) valid and target, and the bands that it has."""

    reflectance: FloatArray
    valid: BoolArray
    target: TargetArray
    bands: tuple[str, ...]
    present: tuple[str, ...]

    def window(self, row: int, column: int, size_px: int) -> _Ground:
        """A square of it."""
        part = np.s_[row : row + size_px, column : column + size_px]
        reflectance = self.reflectance[:, part[0], part[1]]
        return replace(self, reflectance=reflectance, valid=self.valid[part], target=self.target[part])

    def sample(self, held: frozenset[str], spec: InputSpec, weight: float) -> Sample:
        """Normalise the bands that are held."""
        order = [self.bands.index(band) for band in spec.bands if band in held]
        present = tuple(band in held for band in spec.bands)
        pixels = spec.apply(np.ascontiguousarray(self.reflectance[order]), self.valid, present)
        return Sample(pixels, np.where(self.valid, self.target, 0).astype(self.target.dtype), weight)


def draw_sample(
    source: Source, size_px: int, spec: InputSpec, options: AugmentOptions, rng: np.random.Generator
) -> Sample:
    """Draw one sample of side ``size_px`` from a source."""
    seen = _disturbed(_draw_ground(source, size_px, spec, options, rng), options, rng)
    return seen.sample(_kept_bands(seen.present, spec, options, rng), spec, source.weight)


def draw_views(
    source: Source, size_px: int, spec: InputSpec, options: AugmentOptions, rng: np.random.Generator
) -> Views:
    """Draw two views of side ``size_px`` of one piece of ground from a source."""
    ground = _draw_ground(source, size_px + options.shift_px, spec, options, rng)
    (row, column), (other_row, other_column) = rng.integers(options.shift_px + 1, size=(2, 2)).tolist()
    first = _disturbed(ground.window(row, column, size_px), options, rng)
    second = _disturbed(ground.window(other_row, other_column, size_px), options, rng)
    held = _kept_bands(ground.present, spec, options, rng)
    shift = (other_row - row, other_column - column)
    return Views(first.sample(held, spec, source.weight), second.sample(held, spec, source.weight), shift)


def whole_sample(chip: Chip, spec: InputSpec) -> Sample:
    """The whole chip as it is, with all its bands: for measuring, not for training. Pixels are (C, H, W)."""
    dn = np.asarray(chip.dn)
    reflectance, valid = _to_reflectance(dn, chip.bands, spec.required)
    ground = _Ground(reflectance, valid, chip.target, chip.bands, _present(dn, chip.bands, spec))
    return ground.sample(frozenset(ground.present), spec, 1.0)


def scattered(chip: Chip, side_px: int, rng: np.random.Generator) -> Chip:
    """A chip of the same size that holds pixels of one square piece of it in no order: spectra without texture.

    Args:
        chip: The chip.
        side_px: Side of the piece; it lies anywhere in the chip, and each of its pixels may come several times.
        rng: Of all chance.
    """
    dn, target = _window(chip, side_px, rng)
    chosen = rng.integers(side_px**2, size=chip.target.shape)
    return replace(chip, dn=dn.reshape(len(dn), -1)[:, chosen], target=target.reshape(-1)[chosen])


def draw_batch(
    sources: Sequence[Source], count: int, size_px: int, spec: InputSpec, options: AugmentOptions,
    rng: np.random.Generator,
) -> list[Sample]:  # fmt: skip
    """Draw ``count`` samples of side ``size_px``; each comes from a source chosen by its share."""
    return [draw_sample(source, size_px, spec, options, rng) for source in _chosen(sources, count, rng)]


def draw_view_batch(
    sources: Sequence[Source], count: int, size_px: int, spec: InputSpec, options: AugmentOptions,
    rng: np.random.Generator,
) -> list[Views]:  # fmt: skip
    """Draw two views each of ``count`` pieces of ground; each comes from a source chosen by its share."""
    return [draw_views(source, size_px, spec, options, rng) for source in _chosen(sources, count, rng)]


def _chosen(sources: Sequence[Source], count: int, rng: np.random.Generator) -> list[Source]:
    shares = np.array([source.share if len(source.chips) else 0.0 for source in sources])
    return [sources[place] for place in rng.choice(len(sources), size=count, p=shares / shares.sum())]


def _draw_ground(
    source: Source, size_px: int, spec: InputSpec, options: AugmentOptions, rng: np.random.Generator
) -> _Ground:
    """Cut a square out of a source, scale and turn it, and lay clouds over a share of them."""
    dn, target, bands = _cut(source, size_px, rng)
    reflectance, valid = _to_reflectance(dn, bands, spec.required)
    reflectance, valid, target = _zoomed(reflectance, valid, target, size_px)
    reflectance, valid, target = _turned(reflectance, valid, target, rng)
    if source.brighten > 1:
        reflectance = _brightened(reflectance, source.brighten, rng)
    if options.clouds and rng.random() < options.clouds:
        reflectance, is_hidden = cloud_over(reflectance, bands, options.cloud_gsd_m, rng)
        target = np.where(is_hidden, 0, target).astype(target.dtype)
    return _Ground(reflectance, valid, target, bands, _present(dn, bands, spec))


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
    if source.piece_px and not source.is_scattered:
        cell = _piece_side(source.piece_px, cell, rng)
    count = -(-side // cell) + 1
    rows = []
    for _ in range(count):
        chosen = [source.chips[int(place)] for place in rng.integers(len(source.chips), size=count)]
        line = [_laid(source, chip, cell, rng) for chip in chosen]
        rows.append([np.concatenate(planes, axis=-1) for planes in zip(*line, strict=True)])
    dn, target = (np.concatenate(planes, axis=-2) for planes in zip(*rows, strict=True))
    row, col = (int(start) for start in rng.integers(cell, size=2))
    return dn[:, row : row + side, col : col + side], target[row : row + side, col : col + side]


def _laid(source: Source, chip: Chip, cell: int, rng: np.random.Generator) -> tuple[Int16Array, TargetArray]:
    """One square of a mosaic."""
    if not source.is_scattered:
        return _window(chip, cell, rng)
    made = scattered(chip, _piece_side(source.piece_px, cell, rng) if source.piece_px else cell, rng)
    return made.dn, made.target


def _piece_side(piece_px: tuple[int, int], most: int, rng: np.random.Generator) -> int:
    low, high = piece_px
    return min(most, round(math.exp(rng.uniform(math.log(low), math.log(high)))))


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


def _brightened(reflectance: FloatArray, most: float, rng: np.random.Generator) -> FloatArray:
    """Multiply (P, H, W) reflectance by 1 to ``most``, as far as hardly a pixel of any band is brighter than snow."""
    brightest = max(float(np.percentile(band, 99)) for band in reflectance)
    gain = min(math.exp(rng.uniform(0, math.log(most))), max(1.0, SNOW / max(brightest, 1e-3)))
    return reflectance * np.float32(gain)


def _disturbed(ground: _Ground, options: AugmentOptions, rng: np.random.Generator) -> _Ground:
    """Other air, radiometric errors, and an edge of the swath."""
    reflectance, valid = ground.reflectance, ground.valid
    if options.air and rng.random() < options.air:
        reflectance = other_air(reflectance, valid, ground.bands, rng)
    reflectance = _with_errors(reflectance, options, rng)
    if rng.random() < options.wedge:
        valid = valid & ~_wedge(valid.shape[0], rng)
    return replace(ground, reflectance=reflectance, valid=valid)


def _with_errors(reflectance: FloatArray, options: AugmentOptions, rng: np.random.Generator) -> FloatArray:
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
