"""Painters of what people build: settlements, industry, farmsteads and roads.

Axis letters: H rows, W columns of the canvas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from geoseg_cli.training.fields import FloatArray, hash_integers, unit_interval
from geoseg_cli.training.layouts import GridStyle, Parcels, blob_distance, draw_parcels, meander_distance
from geoseg_cli.training.painting import IdArray, Mask, Sketch


def _paint_towns(sketch: Sketch) -> None:
    rng, canvas = sketch.rng, sketch.canvas
    area = (canvas.shape[0] * canvas.shape[1] * canvas.step_m**2) / 2500.0**2
    for _ in range(min(int(rng.poisson(sketch.recipe.towns * area)), 4 + int(area))):
        is_industry = sketch.chance(0.25)
        radius_m = sketch.within(sketch.recipe.town_radius_m) * (0.45 if is_industry else 1.0)
        distance = blob_distance(canvas, rng, radius_m, rng.uniform(0.15, 0.4))
        where = distance < 0
        if not where.any():
            continue
        draw = _industry if is_industry else _houses
        part, box = sketch.window(where)  # streets of the whole canvas for every village would take most of the time
        np.copyto(part.ids, draw(part, distance[box]), where=where[box])
        np.copyto(part.stripes, np.float32(0), where=where[box])
    if sketch.recipe.farmland[1] > 0 and sketch.chance(0.4):
        for _ in range(int(rng.integers(1, 6))):
            _paint_farmstead(sketch)


def _houses(sketch: Sketch, distance: FloatArray) -> IdArray:
    """Street blocks with houses, gardens and trees, denser towards the centre: material ids (H, W).

    `distance` (H, W) is -1 in the centre and 0 at the edge of the town.
    """
    rng, palette = sketch.rng, sketch.palette
    quarter = GridStyle(rng.uniform(45, 110), rng.uniform(70, 220), rng.uniform(600, 2000), 0.4, rng.choice([0, 15]))
    streets = draw_parcels(sketch.canvas, rng, quarter)
    lot = _lots(streets, float(rng.uniform(9, 22)), int(rng.integers(2**31)))
    share = unit_interval(lot)
    ids = np.where(_wooded(sketch), np.int32(palette.one("forest", rng)), palette.by_key("garden", streets.key))
    lawn = lot % np.uint32(8) == 0
    np.copyto(ids, palette.by_key("meadow", lot), where=lawn)
    density = _density(sketch, streets, distance)
    np.copyto(ids, np.int32(palette.one("street", rng)), where=share < density + np.float32(0.08))
    # Houses of one quarter were built together and share their roofs.
    same = unit_interval(lot * np.uint32(0x9E3779B1)) < np.float32(rng.uniform(0.5, 0.95))
    np.copyto(ids, palette.by_key("roof", np.where(same, streets.key, lot)), where=share < density)
    park = unit_interval(streets.key) < np.float32(rng.uniform(0.0, 0.12))
    np.copyto(ids, np.int32(palette.one("meadow", rng)), where=park)
    np.copyto(ids, np.int32(palette.one("forest", rng)), where=park & (share < np.float32(0.4)))
    street = streets.edge_m < np.float32(rng.uniform(2.5, 6.0))
    np.copyto(ids, np.int32(palette.one("street", rng)), where=street)
    return ids


def _density(sketch: Sketch, streets: Parcels, distance: FloatArray) -> FloatArray:
    """Share of roofs, (H, W) float32 0.05..0.85: falls outwards, and varies by quarter and by street block."""
    rng = sketch.rng
    density = np.float32(rng.uniform(0.05, 0.42)) - np.float32(0.2) * distance
    density += np.float32(rng.uniform(0.08, 0.25)) * sketch.canvas.field(rng, 3.0, float(rng.uniform(300, 900)))
    density += np.float32(rng.uniform(0.1, 0.5)) * (unit_interval(streets.key) - np.float32(0.5))
    return np.asarray(np.clip(density, 0.05, 0.85), np.float32)


def _wooded(sketch: Sketch) -> Mask:
    """Which gardens are under trees (H, W): groves and old quarters, not single squares."""
    return sketch.patches(sketch.within((0.02, 0.25)), sketch.within((80, 400)), 2.4)


def _lots(streets: Parcels, side_m: float, salt: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
    """One number per square of `side_m` along the streets, (H, W) uint32."""
    row = np.floor(streets.across_m / np.float32(side_m)).astype(np.int32)
    column = np.floor(streets.along_m / np.float32(side_m)).astype(np.int32)
    return hash_integers(row, column, salt)


def _industry(sketch: Sketch, distance: FloatArray) -> IdArray:
    """Large halls, yards and verges: material ids (H, W); greener where `distance` nears 0, the edge."""
    rng, palette = sketch.rng, sketch.palette
    lots = draw_parcels(sketch.canvas, rng, GridStyle(rng.uniform(50, 150), rng.uniform(70, 260), 2500.0, 0.9))
    share = unit_interval(hash_integers(lots.key, lots.key, 5))
    green = share > np.float32(0.85) - np.float32(0.1) * np.clip(distance, -1, 0)
    hall = (share < np.float32(rng.uniform(0.4, 0.65))) & (lots.edge_m > np.float32(rng.uniform(4, 10)))
    ids = np.where(green, palette.by_key("meadow", lots.key), np.int32(palette.one("street", rng)))
    np.copyto(ids, palette.by_key("hall", lots.key), where=hall)
    return ids


def _paint_farmstead(sketch: Sketch) -> None:
    """A lone group of a yard, roofs and trees."""
    origin = sketch.canvas.random_point(sketch.rng)
    along, across = sketch.canvas.rotated(sketch.rng.uniform(0, np.pi), origin)
    size = np.float32(sketch.within((8, 28)))
    sketch.cover(np.maximum(np.abs(along), np.abs(across) * 1.5) < size * np.float32(1.8), "meadow")
    sketch.cover(np.maximum(np.abs(along), np.abs(across) * 2) < size, "roof")
    sketch.cover(np.abs(along - size * np.float32(1.5)) + np.abs(across) < size * np.float32(0.6), "forest")


def _paint_roads(sketch: Sketch) -> None:
    for _ in range(int(sketch.rng.poisson(sketch.recipe.roads))):
        bend = float(sketch.rng.choice([0.0, 0.02, 0.08]))
        distance = np.abs(meander_distance(sketch.canvas, sketch.rng, sketch.within((1500, 6000)), bend))
        width = float(sketch.rng.choice([5.0, 8.0, 12.0, 28.0], p=[0.35, 0.35, 0.2, 0.1]))
        if width > 10:
            sketch.cover(distance < np.float32(width), "meadow")
        kind = "street" if width > 10 or sketch.chance(0.7) else "track"
        sketch.cover(distance < np.float32(width / 2), kind)


PAINT_TOWNS: Final[tuple[Callable[[Sketch], None], ...]] = (_paint_towns, _paint_roads)
