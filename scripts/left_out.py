"""Real training scenes that a bundle may leave out, so that it can be measured on them.

A bundle trained without a scene says so in its card: ``training.left_out`` lists the names of `SCENES`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from validation_cases import Case, from_chip

from geoseg_cli.catalog import NODATA
from geoseg_cli.training.augment import Source
from geoseg_cli.training.bundle_recipes import PROVENANCE
from geoseg_cli.training.chips import Chip, UInt8Array
from geoseg_cli.training.real_chips import alberta_chips, ukis_chips


@dataclass(frozen=True, slots=True)
class Scene:
    """A training scene that can be left out.

    Attributes:
        source: The chips' source, as in `PROVENANCE`.
        index: Which of the source's chips it is.
        note: What its truth is worth.
    """

    source: str
    index: int
    note: str


_UKIS_NOTE: Final = (
    " scene of 512 px, top-of-atmosphere reflectance, six bands, with sharp hand-drawn masks of cloud and shadow and no"
    " thin class."
)
SCENES: Final = {
    "ukis-landsat5": Scene("ukis", 0, "One Landsat-5" + _UKIS_NOTE),
    "ukis-landsat7": Scene("ukis", 1, "One Landsat-7" + _UKIS_NOTE),
    "alberta": Scene(
        "alberta",
        0,
        "One Sentinel-2 L2A scene, five bands; the truth is what Sen2Cor and s2cloudless agree on, two programs that"
        " can be wrong together.",
    ),
}
MEASURED_WITHOUT: Final = (
    " Not these weights were measured, but others of the same recipe that were trained without this scene; their last"
    " run took {steps:,} steps (docs/simulator.md)."
)
NOT_LEARNED: Final = " The bundle learned nothing from it."
CLEAR, CLOUD, SHADOW = 0, 1, 3


def left_out_case(name: str, training: Path) -> Case:
    """The case of a scene.

    Args:
        name: One of `SCENES`.
        training: Folder of the real training files.

    Returns:
        A case with truth clear, cloud (as thick cloud: the thickness is unknown) and shadow.
    """
    scene = SCENES[name]
    chip = {"ukis": ukis_chips, "alberta": alberta_chips}[scene.source](training)[scene.index]
    return from_chip(chip, name, "scene", _truth(chip))


def without(sources: Sequence[Source], names: Collection[str]) -> list[Source]:
    """What is left of a recipe's sources without some scenes; a source that has no other chip goes."""
    gone = {(SCENES[name].source, SCENES[name].index) for name in names}
    kept = []
    for source in sources:
        name = source.chips[0].source
        if name not in {scene for scene, _ in gone}:
            kept.append(source)
        elif chips := [chip for place, chip in enumerate(source.chips) if (name, place) not in gone]:
            kept.append(replace(source, chips=chips))
    return kept


def gone_without(names: Collection[str]) -> set[str]:
    """Sources of which nothing is left without some scenes."""
    every = {scene.source for scene in SCENES.values()}
    return every - {scene.source for name, scene in SCENES.items() if name not in names}


def was_trained_on(training: dict[str, Any], name: str) -> bool:
    """Whether a bundle learned from a scene, by the training record of its card."""
    learned = {row[0] for row in training.get("data", [])}
    return PROVENANCE[SCENES[name].source][0] in learned and name not in training.get("left_out", [])


def _truth(chip: Chip) -> UInt8Array:
    """(H, W) uint8 values of targets that tell clear, cloud of any thickness and shadow."""
    table = np.full(256, NODATA, np.uint8)
    table[[1 << 0, 1 << 1 | 1 << 2, 1 << 3]] = CLEAR, CLOUD, SHADOW
    return table[chip.target]
