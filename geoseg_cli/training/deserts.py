"""Painters of bright ground: pans of salt, dry river beds, greenhouses, and what wind writes into sand and snow.

Axis letters: H rows, W columns of the canvas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from geoseg_cli.training.fields import FieldOptions, FloatArray, fractal_field, hash_integers, quantile, unit_interval
from geoseg_cli.training.layouts import GridStyle, draw_parcels
from geoseg_cli.training.materials import BARE, SNOW
from geoseg_cli.training.painting import Sketch


def _paint_pans(sketch: Sketch) -> None:
    """Salt in the lowest places, with a rim of mud and rings where the water stood."""
    if not sketch.chance(sketch.recipe.pans):
        return
    rng, canvas = sketch.rng, sketch.canvas
    level = sketch.height + np.float32(sketch.within((0.02, 0.3))) * canvas.field(rng, 2.8, 500.0)
    shore = np.float32(quantile(level, sketch.within((0.1, 0.8))))
    depth = shore - level
    sketch.cover(depth > -np.float32(sketch.within((0.0, 0.15))), "playa_mud")
    sketch.cover(depth > 0, "playa")
    if sketch.chance(0.4):
        sketch.cover(depth > np.float32(sketch.within((0.1, 1.0))), sketch.pick("playa playa_mud"))
    rings = np.sin(depth * np.float32(sketch.within((3, 25)))) * np.float32(sketch.within((0.0, 0.08)))
    np.copyto(sketch.stripes, rings, where=depth > 0)


def _paint_drainage(sketch: Sketch) -> None:
    """Beds of streams that seldom flow: a net of lines along the zeros of a field, wider in the valleys."""
    if not sketch.chance(sketch.recipe.drainage):
        return
    rng, canvas = sketch.rng, sketch.canvas
    for _ in range(int(rng.integers(1, 4))):
        outer_m = sketch.within((500, 3000))
        field = canvas.field(rng, sketch.within((2.6, 3.4)), outer_m)
        # A field changes by about one deviation over a sixth of its longest wave.
        width = np.float32(6 * sketch.within((8, 60)) / outer_m)
        valley = np.clip(np.float32(1) - np.float32(0.6) * sketch.height, 0, 2)
        sketch.cover(np.abs(field) < width * valley, sketch.pick("playa dune chalk open_soil playa_mud"))


def _paint_greenhouses(sketch: Sketch) -> None:
    """Plastic roofs of greenhouses and white halls, on most parcels of some districts."""
    if not sketch.chance(sketch.recipe.greenhouses):
        return
    rng = sketch.rng
    style = GridStyle(sketch.within((25, 80)), sketch.within((50, 200)), sketch.within((600, 2500)), 0.6)
    parcels = draw_parcels(sketch.canvas, rng, style)
    share = unit_interval(hash_integers(parcels.key, parcels.key, 41))
    district = sketch.patches(sketch.within((0.08, 0.6)), sketch.within((400, 2500)), 3.4)
    used = district & (share < np.float32(sketch.within((0.3, 0.95)))) & (parcels.edge_m > np.float32(2.5))
    np.copyto(sketch.ids, sketch.palette.by_key("plastic", parcels.key), where=used)
    halls = used & (share < np.float32(0.06))
    np.copyto(sketch.ids, sketch.palette.by_key("white_hall", parcels.key), where=halls)
    np.copyto(sketch.stripes, np.float32(0), where=used)


def _paint_wind(sketch: Sketch) -> None:
    """Dunes and streaks of wind on bare ground and snow, as differences of brightness."""
    if not sketch.chance(sketch.recipe.wind):
        return
    angle = sketch.within((0, np.pi))
    pattern = np.zeros(sketch.canvas.shape, np.float32)
    if sketch.chance(0.6):
        pattern += _dunes(sketch, angle)
    if sketch.chance(0.7):
        pattern += _streaks(sketch, angle)
    open_ground = sketch.code_is(BARE) | sketch.code_is(SNOW)
    np.add(sketch.stripes, pattern, out=sketch.stripes, where=open_ground)


def _dunes(sketch: Sketch, angle_rad: float) -> FloatArray:
    """Lit and shaded sides of dunes, (H, W) float32 of relative brightness, in fields with gaps."""
    rng, canvas = sketch.rng, sketch.canvas
    spacing_m = max(float(rng.lognormal(np.log(350), 0.7)), 4 * canvas.step_m)
    _, across = canvas.rotated(angle_rad, canvas.random_point(rng))
    bend = canvas.field(rng, 3.4, spacing_m * sketch.within((3, 12))) * np.float32(
        spacing_m * sketch.within((0.1, 0.9))
    )
    phase = (across + bend) * np.float32(2 * np.pi / spacing_m)
    # The second harmonic makes one side steep.
    profile = np.sin(phase) + np.float32(0.35) * np.sin(2 * phase)
    extent = np.clip(canvas.field(rng, 3.0, spacing_m * 8) + np.float32(sketch.within((-0.5, 1.5))), 0, 1.5)
    return np.asarray(profile * extent * np.float32(sketch.within((0.05, 0.25))), np.float32)


def _streaks(sketch: Sketch, angle_rad: float) -> FloatArray:
    """Long tails of sand or drifted snow, (H, W) float32 of relative brightness."""
    options = FieldOptions(
        sketch.within((2.4, 3.2)), sketch.within((100, 600)) / sketch.canvas.step_m, sketch.within((5, 20)), angle_rad
    )
    return fractal_field(sketch.rng, sketch.canvas.shape, options) * np.float32(sketch.within((0.01, 0.08)))


PAINT_BRIGHT: Final[tuple[Callable[[Sketch], None], ...]] = (_paint_pans, _paint_drainage, _paint_greenhouses)
PAINT_WIND: Final[tuple[Callable[[Sketch], None], ...]] = (_paint_wind,)
