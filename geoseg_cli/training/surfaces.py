"""Landscapes: farmland, forest, towns, water and snow laid out on a canvas and turned into ground reflectance.

The canvas is twice as fine as the scene, so borders become mixed pixels. Axis letters: H, W of the scene; 2H, 2W of
the canvas; M materials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from geoseg_cli.training.deserts import PAINT_BRIGHT, PAINT_WIND
from geoseg_cli.training.fields import FloatArray, block_mean
from geoseg_cli.training.layouts import Canvas
from geoseg_cli.training.materials import BUILT_UP, LAND_COVER_IDS, UNKNOWN, WATER, Climate, Palette, mix_palette
from geoseg_cli.training.painting import PAINT_NATURE, PAINT_WATER, IdArray, Sketch
from geoseg_cli.training.recipes import Recipe
from geoseg_cli.training.spectra import SpectralLibrary
from geoseg_cli.training.towns import PAINT_TOWNS

OVERSAMPLING: Final = 2

# A pixel counts as built-up where roofs and streets fill this share of its surroundings of about 50 m: gardens and
# verges are part of a settlement in 10 m land-cover products.
TOWN_BUILT_SHARE: Final = 0.30


@dataclass(frozen=True, slots=True)
class Ground:
    """What the satellite would see without air, clouds and sensor.

    Attributes:
        reflectance: (B, H, W) float32, 0..1.05.
        land_cover: (H, W) uint8, WorldCover ids, 255 unknown (burnt).
        slope: (2, H, W) float32, rise per run eastward and southward; zero on water.
    """

    reflectance: FloatArray
    land_cover: NDArray[np.uint8]
    slope: FloatArray


@dataclass(frozen=True, slots=True)
class GroundOptions:
    """What a landscape is to be.

    Attributes:
        shape: (H, W) of the scene.
        gsd_m: pixel size.
        climate: season and dryness.
        recipe: kind of landscape.
        channels: columns of the spectra that become the B bands of the scene.
    """

    shape: tuple[int, int]
    gsd_m: float
    climate: Climate
    recipe: Recipe
    channels: tuple[int, ...]


def make_ground(library: SpectralLibrary, options: GroundOptions, rng: np.random.Generator) -> Ground:
    """Draw a landscape with the materials of one place and season."""
    sketch = _start(library, options, rng)
    for paint in (*PAINT_NATURE, *PAINT_BRIGHT, *PAINT_TOWNS, *PAINT_WATER, *PAINT_WIND):
        paint(sketch)
    land_cover = _majority(sketch.palette, sketch.ids)
    slope = _slope(sketch) * (land_cover != WATER)
    return Ground(_render(sketch, options.channels), land_cover, slope.astype(np.float32, copy=False))


def _start(library: SpectralLibrary, options: GroundOptions, rng: np.random.Generator) -> Sketch:
    """An empty canvas with materials, relief and the base of the recipe."""
    fine = (options.shape[0] * OVERSAMPLING, options.shape[1] * OVERSAMPLING)
    canvas = Canvas.create(rng, fine, options.gsd_m / OVERSAMPLING)
    palette = mix_palette(library, options.climate, rng)
    height = canvas.field(rng, float(rng.uniform(3.6, 4.4)), float(rng.uniform(800, 4000)))
    if rng.random() < 0.4:
        height = np.float32(1.2) - np.abs(height) * np.float32(1.5)  # ridges instead of round hills
    base = options.recipe.base[int(rng.integers(len(options.recipe.base)))]
    ids = np.full(fine, palette.one(base, rng), np.int32)
    return Sketch(canvas, palette, options.recipe, rng, ids, np.zeros(fine, np.float32), height)


def _slope(sketch: Sketch) -> FloatArray:
    """(2, H, W) rise per run eastward and southward, scaled so that its deviation is what the recipe asks for."""
    height = block_mean(sketch.height, OVERSAMPLING)
    slope = np.zeros((2, *height.shape), np.float32)
    slope[0, :, 1:-1] = height[:, 2:] - height[:, :-2]
    slope[1, 1:-1] = height[2:] - height[:-2]
    deviation = max(float(np.sqrt((slope[:, ::4, ::4] ** 2).mean())), 1e-9)
    slope *= np.float32(sketch.within(sketch.recipe.relief) / deviation)
    return slope


def _majority(palette: Palette, ids: IdArray) -> NDArray[np.uint8]:
    """Land cover by the largest share of each pixel and a little of its neighbours, (H, W) uint8.

    Roofs and streets also claim the gardens between them, see TOWN_BUILT_SHARE.
    """
    codes = np.take(np.array(palette.codes, np.uint8), ids)
    present = [code for code in (*LAND_COVER_IDS, UNKNOWN) if (codes == code).any()]
    shares = np.stack([_blur(block_mean((codes == code).astype(np.float32), OVERSAMPLING), 0.1) for code in present])
    labels = np.array(present, np.uint8)[shares.argmax(axis=0)]
    if BUILT_UP in present:
        around = shares[present.index(BUILT_UP)]
        for _ in range(3):
            around = _blur(around, 0.25)
        labels[(around > TOWN_BUILT_SHARE) & (labels != WATER)] = BUILT_UP
    return np.asarray(labels)


def _blur(image: FloatArray, side: float) -> FloatArray:
    """Smooth (H, W) by the kernel (side, 1 - 2 side, side) along both axes; edges repeat."""
    padded = np.pad(image, 1, mode="edge")
    middle, outer = np.float32(1 - 2 * side), np.float32(side)
    columns = padded[:, 1:-1] * middle + (padded[:, :-2] + padded[:, 2:]) * outer
    return np.asarray(columns[1:-1] * middle + (columns[:-2] + columns[2:]) * outer, np.float32)


def _render(sketch: Sketch, channels: Sequence[int]) -> FloatArray:
    """Reflectance (B, H, W) of the materials with their textures, averaged from the canvas to pixels."""
    canvas, rng = sketch.canvas, sketch.rng
    ids = sketch.ids.astype(np.intp)  # once, or every take below converts them again
    spectra, drifts = np.concatenate(sketch.palette.spectra).T, np.concatenate(sketch.palette.drifts).T
    spectra, drifts = np.ascontiguousarray(spectra), np.ascontiguousarray(drifts)
    brightness = np.take(np.array(sketch.palette.grains, np.float32), ids)
    brightness *= canvas.field(rng, float(rng.uniform(0.8, 2.0)), 120.0)
    brightness += sketch.stripes + 1
    np.clip(brightness, 0.3, 2.0, out=brightness)
    slow = np.clip(canvas.field(rng, float(rng.uniform(2.0, 2.8)), float(rng.uniform(300, 1500))), -2.5, 2.5)
    ground = np.empty((len(channels), ids.shape[0] // OVERSAMPLING, ids.shape[1] // OVERSAMPLING), np.float32)
    value, base = np.empty_like(brightness), np.empty_like(brightness)
    for band, channel in enumerate(channels):
        np.take(drifts[channel], ids, out=value, mode="clip")
        np.take(spectra[channel], ids, out=base, mode="clip")
        value *= slow
        value += base
        value *= brightness
        ground[band] = block_mean(value, OVERSAMPLING)
    return np.clip(ground, 0.0, 1.05, out=ground)
