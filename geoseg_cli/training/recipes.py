"""Kinds of landscape as numbers: what share of a scene is farmed, wooded, built, flooded or under snow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Shares and chances that make one kind of landscape; shares are ranges to draw from.

    Attributes:
        base: kinds of ground that the scene may start from.
        farmland, forest, bare: shares of the scene, 0..1.
        towns: mean number of settlements per 2.5 km square, of `town_radius_m`.
        lake, river, coast, snow: chances, 0..1.
        roads: mean number.
        relief: deviation of slope, rise over run.
        dryness: of the climate, 0 lush to 1 desert.
        pans, drainage, greenhouses, wind: chances of salt pans, dry stream beds, plastic roofs, and of dunes and
            streaks in sand or snow, 0..1.
    """

    base: tuple[str, ...]
    farmland: Range = (0.0, 0.0)
    forest: Range = (0.0, 0.0)
    bare: Range = (0.0, 0.0)
    towns: float = 0.0
    town_radius_m: Range = (150.0, 500.0)
    lake: float = 0.0
    river: float = 0.0
    coast: float = 0.0
    snow: float = 0.0
    roads: float = 1.0
    relief: Range = (0.0, 0.05)
    dryness: Range = (0.0, 0.5)
    pans: float = 0.0
    drainage: float = 0.0
    greenhouses: float = 0.0
    wind: float = 0.0


RECIPES: Final[dict[str, Recipe]] = {
    "farmland": Recipe(
        base=("meadow",), farmland=(0.8, 1.0), forest=(0.0, 0.2), bare=(0.0, 0.02), towns=0.6, lake=0.1, river=0.15,
        roads=2.0,
    ),
    "mosaic": Recipe(
        base=("meadow",), farmland=(0.3, 0.8), forest=(0.15, 0.5), bare=(0.0, 0.05), towns=0.6, lake=0.2, river=0.25,
        roads=1.5, relief=(0.0, 0.15),
    ),
    "forest": Recipe(
        base=("meadow", "steppe"), farmland=(0.0, 0.1), forest=(0.6, 1.0), bare=(0.0, 0.05), towns=0.1, lake=0.25,
        river=0.25, roads=0.7, relief=(0.0, 0.25), dryness=(0.0, 0.3),
    ),
    "grassland": Recipe(
        base=("meadow", "steppe"), farmland=(0.0, 0.15), forest=(0.0, 0.15), bare=(0.0, 0.2), towns=0.1, lake=0.15,
        river=0.2, roads=0.7, relief=(0.0, 0.15), dryness=(0.0, 0.9),
    ),
    "town": Recipe(
        base=("meadow",), farmland=(0.1, 0.8), forest=(0.0, 0.25), bare=(0.0, 0.05), towns=2.5,
        town_radius_m=(500.0, 2000.0), lake=0.15, river=0.3, coast=0.1, roads=3.0,
    ),
    "coast": Recipe(
        base=("meadow", "steppe"), farmland=(0.0, 0.6), forest=(0.0, 0.5), bare=(0.0, 0.2), towns=0.5, coast=1.0,
        roads=0.7, dryness=(0.0, 0.7),
    ),
    "mountain": Recipe(
        base=("meadow", "steppe", "rock"), forest=(0.0, 0.6), bare=(0.1, 0.7), lake=0.15, river=0.2, snow=0.5,
        roads=0.2, relief=(0.2, 0.6),
    ),
    "desert": Recipe(
        base=("open_soil", "sand", "rock", "salt"), farmland=(0.0, 0.2), bare=(0.2, 0.7), towns=0.15, river=0.15,
        roads=0.4, relief=(0.0, 0.2), dryness=(0.7, 1.0),
    ),
    "winter": Recipe(
        base=("meadow",), farmland=(0.0, 0.9), forest=(0.0, 0.7), bare=(0.0, 0.1), towns=0.3, lake=0.3, river=0.3,
        snow=1.0, relief=(0.0, 0.3), dryness=(0.0, 0.3),
    ),
    "water": Recipe(base=("water",), roads=0.0),
    "single": Recipe(
        base=("forest", "meadow", "steppe", "sand", "rock", "snow", "open_soil", "crop"), roads=0.2, relief=(0.0, 0.3)
    ),
    # Ground that is as bright as cloud without being cloud.
    "bright_desert": Recipe(
        base=("dune", "dune", "chalk", "sand", "playa"), farmland=(0.0, 0.04), bare=(0.0, 0.4), towns=0.15, lake=0.05,
        river=0.1, roads=0.4, relief=(0.0, 0.15), dryness=(0.85, 1.0), pans=0.35, drainage=0.5, greenhouses=0.1,
        wind=0.8,
    ),
    "salt_flat": Recipe(
        base=("playa", "playa", "playa_mud", "dune"), bare=(0.0, 0.15), lake=0.15, roads=0.3, relief=(0.0, 0.01),
        dryness=(0.85, 1.0), pans=0.7, drainage=0.4, wind=0.5,
    ),
    "greenhouses": Recipe(
        base=("meadow", "steppe", "open_soil"), farmland=(0.2, 0.8), bare=(0.0, 0.15), towns=1.0, lake=0.05, river=0.15,
        coast=0.2, roads=2.0, relief=(0.0, 0.1), dryness=(0.3, 0.9), drainage=0.15, greenhouses=1.0,
    ),
    "snow_plain": Recipe(
        base=("snow",), farmland=(0.0, 0.5), forest=(0.0, 0.12), towns=0.15, lake=0.2, river=0.1, snow=1.0, roads=0.5,
        relief=(0.0, 0.03), dryness=(0.0, 0.3), wind=0.7,
    ),
}  # fmt: skip
BRIGHT_LANDSCAPES: Final = ("bright_desert", "salt_flat", "greenhouses", "snow_plain")

# Share of scenes: land where people live and work is over-represented, as it is in what people map.
RECIPE_WEIGHTS: Final = {
    "farmland": 0.20, "mosaic": 0.18, "forest": 0.10, "grassland": 0.09, "town": 0.14, "coast": 0.06,
    "mountain": 0.07, "desert": 0.06, "winter": 0.05, "water": 0.02, "single": 0.03,
    "bright_desert": 0.025, "salt_flat": 0.015, "greenhouses": 0.015, "snow_plain": 0.02,
}  # fmt: skip
