"""What an evaluation came to: counts per image, groups of images, and the whole as plain types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geoseg_cli.catalog import Legend
from geoseg_cli.evaluate.intervals import DRAWS, LEAST_PLACES
from geoseg_cli.evaluate.scores import Scores, place_intervals, total_scores
from geoseg_cli.labels import LabelledPair
from geoseg_cli.printable import counted

UNKNOWN_SENSOR = "not told by the band names"


@dataclass(frozen=True, slots=True)
class PairScores:
    """What one image came to.

    Attributes:
        pair: Its files and place.
        sensor: Sensors whose bands have its band names; :data:`UNKNOWN_SENSOR` where they fit all or none.
        bands: Common names of the bands that the network got.
        scores: Its counts.
        warnings: What was to be known about the scene.
    """

    pair: LabelledPair
    sensor: str
    bands: tuple[str, ...]
    scores: Scores
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Images that are looked at together.

    Attributes:
        images, places: How many.
        scores: Their summed counts.
        intervals: Name of a figure, as in :func:`figures`, to its 95 % interval; empty for fewer than 5 places.
    """

    images: int
    places: int
    scores: Scores
    intervals: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, scored: Sequence[PairScores]) -> Group:
        """Sum images, and resample their places."""
        places: dict[str, Scores] = {}
        for one in scored:
            places[one.pair.place] = places[one.pair.place] + one.scores if one.pair.place in places else one.scores
        return cls(len(scored), len(places), total_scores(places.values()), place_intervals(list(places.values())))

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """The figures for a JSON file; intervals are named after the figure, with ``_95``."""
        table, sure = self.scores.confusion, self.scores.reliability
        facts = {"images": self.images, "places": self.places, "unanswered_pixels": self.scores.unanswered}
        result = facts | table.as_dict(names) | {"confusion": table.counts.tolist(), "calibration": sure.as_dict()}
        for figure in ("overall_accuracy", "mean_iou", "mean_f1"):
            result[f"{figure}_95"] = self._rounded(figure)
        result["calibration"]["ece_95"] = self._rounded("ece")
        for number, name in enumerate(names):
            for figure in ("iou", "f1"):
                result["classes"][name][f"{figure}_95"] = self._rounded(f"{figure} {number}")
        return result

    def _rounded(self, figure: str) -> list[float] | None:
        return [round(end, 4) for end in self.intervals[figure]] if figure in self.intervals else None


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """A bundle's figures on a folder of labelled images.

    Attributes:
        bundle: Its name.
        weights_sha256: SHA-256 of the file that ran, lower-case hex.
        engine: Name, device and precision that ran.
        folder: Name of the folder.
        legend: The classes, in the order of the confusion matrix.
        settings: Tiles, overlap, blend, temperature and dropped bands.
        scored: One entry per image.
    """

    bundle: str
    weights_sha256: str
    engine: dict[str, str]
    folder: str
    legend: Legend
    settings: dict[str, Any]
    scored: tuple[PairScores, ...]

    def total(self) -> Group:
        """All images together."""
        return Group.of(self.scored)

    def by(self, key: str) -> dict[str, Group]:
        """Groups by ``place``, ``sensor`` or ``bands``, in the order of their names."""
        groups: dict[str, list[PairScores]] = {}
        for one in self.scored:
            names = {"place": one.pair.place, "sensor": one.sensor, "bands": " ".join(one.bands)}
            groups.setdefault(names[key], []).append(one)
        return {name: Group.of(groups[name]) for name in sorted(groups)}

    def to_json(self) -> dict[str, Any]:
        """The report in plain types; the rows of ``confusion`` are true classes, its columns predicted ones."""
        names, total = [one.name for one in self.legend.classes], self.total()
        groups = {
            title: {name: group.as_dict(names) for name, group in self.by(key).items()}
            for title, key in (("by_place", "place"), ("by_sensor", "sensor"), ("by_bands", "bands"))
        }
        return {
            "bundle": self.bundle,
            "weights_sha256": self.weights_sha256,
            "engine": self.engine,
            "folder": self.folder,
            "settings": self.settings,
            "intervals": interval_note(total),
            "classes": self.legend.stac_classes(),
            "total": total.as_dict(names),
            **groups,
            "scenes": [_scene_row(one) for one in self.scored],
        }


def interval_note(group: Group) -> str:
    """How the intervals of a group came about, or why it has none."""
    if group.places < LEAST_PLACES:
        return f"No intervals: {counted(group.places, 'place')}, {LEAST_PLACES} are needed"
    return f"Intervals are 95 %, from {DRAWS} resamplings of {counted(group.places, 'whole place')}"


def _scene_row(one: PairScores) -> dict[str, Any]:
    table, unanswered = one.scores.confusion, one.scores.unanswered
    return {
        "image": one.pair.image.name,
        "label": one.pair.label.name,
        "place": one.pair.place,
        "sensor": one.sensor,
        "bands": list(one.bands),
        "pixels": table.pixels,
        "unanswered_pixels": unanswered,
        "overall_accuracy": round(table.overall_accuracy, 4) if table.pixels else None,
        "warnings": list(one.warnings),
    }
