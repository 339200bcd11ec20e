"""Painters: each lays one kind of land over what is already on the canvas, in the order of `PAINTERS`.

Axis letters: H rows, W columns of the canvas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from geoseg_cli.training.fields import FloatArray, hash_integers, quantile, unit_interval
from geoseg_cli.training.layouts import Canvas, GridStyle, Parcels, blob_distance, draw_parcels, meander_distance
from geoseg_cli.training.materials import BUILT_UP, TREE, WATER, Palette
from geoseg_cli.training.recipes import Range, Recipe

IdArray = NDArray[np.int32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sketch:
    """A landscape while it is painted.

    Attributes:
        canvas: sample points.
        palette: materials.
        recipe: kind of landscape.
        rng: source of chance.
        ids: (H, W) int32, material of each sample; painters change it.
        stripes: (H, W) float32, relative brightness of tracks of machines; painters change it.
        height: (H, W) float32, elevation without a unit, deviation about 1.
    """

    canvas: Canvas
    palette: Palette
    recipe: Recipe
    rng: np.random.Generator
    ids: IdArray
    stripes: FloatArray
    height: FloatArray

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def within(self, bounds: Range) -> float:
        """A number between two bounds."""
        return float(self.rng.uniform(*bounds))

    def pick(self, names: str) -> str:
        """One of some words; a word that stands twice is twice as likely."""
        words = names.split()
        return words[int(self.rng.integers(len(words)))]

    def cover(self, where: Mask, name: str) -> None:
        """Give all samples of `where` (H, W) one material of the kind `name`, without stripes."""
        np.copyto(self.ids, np.int32(self.palette.one(name, self.rng)), where=where)
        np.copyto(self.stripes, np.float32(0), where=where)

    def patches(self, share: float, outer_m: float, exponent: float) -> Mask:
        """Ragged patches (H, W) over about `share` of the canvas; a low exponent frays them."""
        if share < 0.004 or share > 0.996:
            return np.full(self.canvas.shape, share > 0.5)
        field = self.canvas.field(self.rng, exponent, outer_m)
        return field > np.float32(quantile(field, 1 - share))

    def window(self, where: Mask) -> tuple[Sketch, tuple[slice, slice]]:
        """The part around all samples of `where` (H, W), and its place; what is painted on it lies on the whole."""
        # Blocks of 16: sizes that Fourier transforms like.
        rows, columns = np.flatnonzero(where.any(axis=1)) // 16 * 16, np.flatnonzero(where.any(axis=0)) // 16 * 16
        box = slice(int(rows[0]), int(rows[-1]) + 16), slice(int(columns[0]), int(columns[-1]) + 16)
        part = replace(
            self, canvas=self.canvas.window(*box), ids=self.ids[box], stripes=self.stripes[box], height=self.height[box]
        )
        return part, box

    def code_is(self, code: int) -> Mask:
        """Samples (H, W) whose material has this land-cover id."""
        return np.take(np.array(self.palette.codes) == code, self.ids)


def _paint_farmland(sketch: Sketch) -> None:
    share = sketch.within(sketch.recipe.farmland)
    if share < 0.03:
        return
    rng, canvas, palette = sketch.rng, sketch.canvas, sketch.palette
    width = float(np.exp(rng.normal(np.log(180), 0.6)))
    bend = float(rng.choice([0.0, rng.uniform(5, 60)]))
    style = GridStyle(width, width * rng.uniform(1.2, 4), rng.uniform(800, 4000), rng.uniform(0.2, 1), bend)
    parcels = draw_parcels(canvas, rng, style)
    lot = unit_interval(hash_integers(parcels.key, parcels.key, 17))
    chosen = palette.by_key("crop", parcels.key)
    meadow_share, wood_share = _pastures(sketch), rng.uniform(0.0, 0.1)
    if sketch.chance(0.3):
        orchard_end = np.float32(meadow_share + (1 - meadow_share) * rng.uniform(0.1, 1.0))
        np.copyto(chosen, palette.by_key("orchard", parcels.key), where=lot < orchard_end)
    np.copyto(chosen, palette.by_key("meadow", parcels.key), where=lot < np.float32(meadow_share))
    np.copyto(chosen, np.int32(palette.one("forest", rng)), where=lot > np.float32(1 - wood_share))
    _paint_margins(sketch, parcels, chosen)
    where = _farmed(sketch, parcels, share)
    np.copyto(sketch.ids, chosen, where=where)
    _plough(sketch, parcels, where & (lot > np.float32(meadow_share)))
    if sketch.chance(0.05 if sketch.recipe.dryness[0] < 0.5 else 0.6):
        _paint_pivots(sketch, parcels)


def _pastures(sketch: Sketch) -> float:
    """Share of the parcels that are grazed or mown: few on good soils, nearly all where cattle is kept."""
    return sketch.within((0.6, 1.0) if sketch.chance(0.25) else (0.0, 0.4))


def _farmed(sketch: Sketch, parcels: Parcels, share: float) -> Mask:
    """Which samples belong to parcels in use (H, W): whole parcels, more of them where a slow field is high."""
    if share > 0.95:
        return np.ones(sketch.canvas.shape, bool)
    field = sketch.canvas.field(sketch.rng, 4.0, 2000.0)
    lot = unit_interval(hash_integers(parcels.key, parcels.key, 29)) - np.float32(0.5)
    score = field + lot * np.float32(sketch.rng.uniform(0.0, 3.0))
    return score > np.float32(quantile(score, 1 - share))


def _paint_margins(sketch: Sketch, parcels: Parcels, chosen: IdArray) -> None:
    """Grass strips, hedges or tracks between parcels, in `chosen` (H, W)."""
    margin = float(sketch.rng.choice([0.0, 2.5, 4.0, 7.0, 12.0], p=[0.3, 0.25, 0.2, 0.15, 0.1]))
    if margin == 0:
        return
    material = sketch.palette.one(sketch.pick("meadow meadow forest forest track"), sketch.rng)
    # Hedges have gaps: the width follows a field that dips below zero.
    uneven = sketch.canvas.field(sketch.rng, 2.0, 250.0) * np.float32(sketch.rng.uniform(0.1, 0.8)) + 1
    np.copyto(chosen, np.int32(material), where=parcels.edge_m < uneven * np.float32(margin / 2))


def _plough(sketch: Sketch, parcels: Parcels, where: Mask) -> None:
    """Working widths of machines as stripes along the parcels, 18 to 60 m wide, some fields more than others."""
    strength = unit_interval(parcels.key) ** 2 * np.float32(sketch.rng.uniform(0.0, 0.12))
    wavenumber = np.float32(2 * np.pi / sketch.rng.uniform(18, 60))
    np.copyto(sketch.stripes, strength * np.sin(parcels.across_m * wavenumber), where=where)


def _paint_pivots(sketch: Sketch, parcels: Parcels) -> None:
    """Circles of centre-pivot irrigation on a regular grid."""
    diameter = np.float32(sketch.rng.choice([400.0, 800.0]) * sketch.rng.uniform(0.8, 1.1))
    rows, columns = parcels.across_m / diameter, parcels.along_m / diameter
    row, column = np.floor(rows), np.floor(columns)
    inside = (rows - row - np.float32(0.5)) ** 2 + (columns - column - np.float32(0.5)) ** 2 < np.float32(0.225)
    key = hash_integers(row.astype(np.int32), column.astype(np.int32), int(sketch.rng.integers(2**31)))
    used = inside & (unit_interval(key) < np.float32(0.8))
    np.copyto(sketch.ids, sketch.palette.by_key("crop", key), where=used)
    np.copyto(sketch.stripes, np.float32(0), where=used)


def _paint_forest(sketch: Sketch) -> None:
    share = sketch.within(sketch.recipe.forest)
    if share > 0.7 and sketch.chance(0.5):
        share = 1.0  # large forests reach beyond the scene on every side
    exponent = sketch.within((2.8, 4.4))
    where = sketch.patches(share, sketch.within((500, 6000)), exponent)
    if share > 0.004:
        sketch.cover(where, "forest")
        if sketch.chance(0.5):
            sketch.cover(where & sketch.patches(0.4, 1200.0, 3.4), "forest")
    if sketch.recipe.forest[1] > 0 and sketch.chance(0.3):  # single trees and groups in the open
        sketch.cover(sketch.patches(sketch.within((0.0, 0.06)), 90.0, 2.2), "forest")
    if share > 0.3 and sketch.chance(0.35):
        _paint_clearings(sketch, where)


def _paint_clearings(sketch: Sketch, forest: Mask) -> None:
    """Cut some parcels out of the forest: felled, replanted or burnt."""
    parcels = draw_parcels(sketch.canvas, sketch.rng, GridStyle(150.0, 250.0, 3000.0, 1.0, 40.0))
    felled = forest & (unit_interval(parcels.key) < np.float32(sketch.within((0.02, 0.15))))
    sketch.cover(felled, sketch.pick("meadow meadow steppe steppe steppe open_soil open_soil burnt"))


def _paint_bare(sketch: Sketch) -> None:
    share = sketch.within(sketch.recipe.bare)
    if sketch.recipe.bare[1] <= 0.05 and sketch.chance(0.75):
        share = 0.0  # plants close over most ground where it rains
    if share > 0.05 and sketch.chance(0.6):
        score = sketch.height + np.float32(0.4) * sketch.canvas.field(sketch.rng, 2.4, 600.0)
        where = score > np.float32(quantile(score, 1 - share))
    else:
        where = sketch.patches(share, 700.0, sketch.within((2.6, 3.8)))
    if share > 0.004:
        sketch.cover(where, sketch.pick("rock open_soil sand"))
    if sketch.chance(0.12):
        pit = blob_distance(sketch.canvas, sketch.rng, sketch.within((60, 300)), 0.2) < 0
        sketch.cover(pit, sketch.pick("sand rock open_soil salt"))
    if sketch.chance(0.03):
        scar = blob_distance(sketch.canvas, sketch.rng, sketch.within((300, 1200)), 0.5) < 0
        sketch.cover(scar, "burnt")


def _paint_water(sketch: Sketch) -> None:
    rng, canvas = sketch.rng, sketch.canvas
    if sketch.chance(sketch.recipe.river):
        distance = meander_distance(canvas, rng, sketch.within((500, 3500)), sketch.within((0.01, 0.14)))
        half_width = np.float32(10 ** rng.uniform(0.6, 2.1))
        wobble = canvas.field(rng, 2.8, 400.0) * np.float32(0.15)
        _flood(sketch, (np.abs(distance) / half_width + wobble - 1) * half_width)
    if sketch.chance(sketch.recipe.lake):
        surface = sketch.height + np.float32(0.1) * canvas.field(rng, 3.0, 400.0)
        level = np.float32(quantile(surface, rng.uniform(0.01, 0.3)))
        _flood(sketch, (surface - level) * np.float32(300))  # about 300 m from one deviation of height to the next
    if sketch.chance(sketch.recipe.coast):
        distance = meander_distance(canvas, rng, sketch.within((1500, 8000)), sketch.within((0.0, 0.1)))
        _flood(sketch, distance + canvas.field(rng, 3.2, 600.0) * np.float32(rng.choice([5.0, 30.0, 120.0])))


def _flood(sketch: Sketch, shore_m: FloatArray) -> None:
    """Fill with water where the distance to the shore (H, W) is negative; some shores get a rim."""
    if sketch.chance(0.5):
        rim = shore_m < np.float32(sketch.within((8, 50)))
        sketch.cover(rim, sketch.pick("sand sand forest meadow open_soil"))
    sketch.cover(shore_m < 0, "water")
    if sketch.chance(0.5):
        sketch.cover((shore_m < 0) & (shore_m > -np.float32(sketch.within((10, 60)))), "shallow")


def _paint_snow(sketch: Sketch) -> None:
    if not sketch.chance(sketch.recipe.snow):
        return
    rng, palette, ids = sketch.rng, sketch.palette, sketch.ids
    share = float(rng.choice([1.0, rng.uniform(0.6, 1.0), rng.uniform(0.05, 0.6)]))
    score = sketch.height + np.float32(0.4) * sketch.canvas.field(rng, 2.6, 600.0)
    snowy = score >= np.float32(quantile(score, 1 - share))
    trees, water, built = sketch.code_is(TREE), sketch.code_is(WATER), sketch.code_is(BUILT_UP)
    if sketch.chance(0.6):
        _exchange(ids, snowy & trees, palette.starts["forest"], palette.starts["snowy_forest"])
    frozen = snowy & water
    # Some roofs and streets are cleared or have thawed.
    thawed = built & (ids % 5 < 2)
    ground = snowy & ~trees & ~water & ~thawed
    # Each ground keeps its own kind of snow, so that fields stay visible below it.
    np.copyto(ids, palette.starts["snow"][0] + ids % np.int32(palette.starts["snow"][1]), where=ground)
    np.copyto(sketch.stripes, np.float32(0), where=ground)
    if sketch.chance(0.4):
        sketch.cover(frozen, sketch.pick("ice snow"))


def _exchange(ids: IdArray, where: Mask, old: tuple[int, int], new: tuple[int, int]) -> None:
    """Replace materials of one kind by those of another with as many variants, in place."""
    assert old[1] == new[1], "kinds with as many variants"
    np.copyto(ids, ids + np.int32(new[0] - old[0]), where=where & (ids >= old[0]) & (ids < old[0] + old[1]))


PAINT_NATURE: Final[tuple[Callable[[Sketch], None], ...]] = (_paint_farmland, _paint_forest, _paint_bare)
PAINT_WATER: Final[tuple[Callable[[Sketch], None], ...]] = (_paint_water, _paint_snow)
