"""Areas of classes corrected for the errors of the map, with 95 % intervals.

The stratified estimator of Olofsson et al. (2014), "Good practices for estimating area and assessing accuracy of land
change", Remote Sensing of Environment 148, sections 4.2 and 4.3 (equations 1 to 11): the classes of the map are the
strata, and in each of them places were drawn at random and their true class looked up. Axes: K classes, i those of the
map, j those of the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.bundle import Bundle
from geoseg_cli.catalog import Legend
from geoseg_cli.errors import InputError
from geoseg_cli.grid import Grid
from geoseg_cli.results.areas import ClassArea, pixel_areas_m2
from geoseg_cli.results.sample_counts import Accuracy, Origin, SampleCounts

FloatArray = npt.NDArray[np.float64]

NOTE = (
    "Error-adjusted after Olofsson et al. (2014); holds where the places were drawn at random within each class of this"
    " very map."
)
NOTE_OF_PIXELS = (
    "Error-adjusted after Olofsson et al. (2014), from all pixels of evaluation images: they were not drawn at random"
    " from this map, and neighbours are alike, so the areas are an indication and the intervals are too narrow."
)
NOTE_OF_CARD = (
    "Error-adjusted after Olofsson et al. (2014), from the confusion matrix in the bundle's card. It describes other"
    " places than this map, without threshold or cleaning, and neighbouring pixels are alike: the areas are an"
    " indication, the intervals too narrow."
)
NOTES: Mapping[Origin, str] = {"places": NOTE, "pixels": NOTE_OF_PIXELS, "card": NOTE_OF_CARD}

Z_95 = 1.96
"""Half the width of a 95 % interval in standard errors, as the paper has it."""


@dataclass(frozen=True, slots=True)
class AdjustedArea:
    """One class.

    Attributes:
        value, name, title: As in the legend.
        samples: Sampled places that the map calls this class.
        mapped_ha: What the map says.
        adjusted_ha: What it says once its errors are taken into account.
        standard_error_ha: Standard error of ``adjusted_ha``.
        low_ha, high_ha: 95 % interval of the area; never below 0.
        users_accuracy, users_accuracy_95: Share of right places among those that the map calls this class, and half the
            width of its 95 % interval; None without a place.
        producers_accuracy, producers_accuracy_95: Share of the class's true area that the map finds, and half the width
            of its 95 % interval; None where the class has no area.
    """

    value: int
    name: str
    title: str
    samples: int
    mapped_ha: float
    adjusted_ha: float
    standard_error_ha: float
    low_ha: float
    high_ha: float
    users_accuracy: float | None
    users_accuracy_95: float | None
    producers_accuracy: float | None
    producers_accuracy_95: float | None


@dataclass(frozen=True, slots=True)
class AdjustedAreas:
    """All classes of a map.

    Attributes:
        classes: In the order of the legend.
        overall_accuracy, overall_accuracy_95: Share of the area that is mapped right, and half its 95 % interval.
        source: Where the sampled places are from.
        note: What the figures rest on.
    """

    classes: tuple[AdjustedArea, ...]
    overall_accuracy: float
    overall_accuracy_95: float
    source: str
    note: str

    def to_json(self) -> dict[str, Any]:
        """The figures in plain types."""
        return asdict(self) | {"classes": [asdict(one) for one in self.classes]}


def samples_of(accuracy: Accuracy, bundle: Bundle, legend: Legend, grid: Grid) -> SampleCounts:
    """Sampled places for a map that is not there yet.

    Raises:
        InputMissingError: There is no such file.
        InputError: It does not fit the map's legend, or the map will have no areas.
        ModelError: The bundle's card is asked for, and has none.
        UsageError: It has, but for other classes.
    """
    if pixel_areas_m2(grid) is None:
        raise _placeless()
    return SampleCounts.read(accuracy, legend) if isinstance(accuracy, Path) else SampleCounts.of_card(bundle, legend)


def adjusted_areas(areas: Sequence[ClassArea], samples: SampleCounts) -> AdjustedAreas:
    """Correct the areas of a map for its errors.

    Args:
        areas: What the map says, every class of it.
        samples: Sampled places.

    Raises:
        InputError: The map does not tell hectares, or a class that it has was sampled at fewer than two places.
    """
    mapped_ha = _mapped(areas, samples)
    counts = samples.counts.astype(np.float64)
    drawn, total_ha = counts.sum(axis=1), float(mapped_ha.sum())
    weight = mapped_ha / total_ha
    share = np.divide(counts, drawn[:, None], out=np.zeros_like(counts), where=drawn[:, None] > 0)
    spread = share * (1 - share) / np.maximum(drawn - 1, 1)[:, None]
    cells = weight[:, None] * share
    found = cells.sum(axis=0)  # equation 9
    error = np.sqrt((weight[:, None] ** 2 * spread).sum(axis=0))  # equation 10
    hits, hit_spread = np.diag(share), np.diag(spread)
    producers, producers_error = _producers(weight, share, spread)
    classes = tuple(
        AdjustedArea(
            area.value,
            area.name,
            area.title,
            int(drawn[k]),
            float(mapped_ha[k]),
            float(found[k] * total_ha),
            float(error[k] * total_ha),
            max(0.0, float((found[k] - Z_95 * error[k]) * total_ha)),
            float((found[k] + Z_95 * error[k]) * total_ha),
            float(hits[k]) if drawn[k] else None,
            float(Z_95 * np.sqrt(hit_spread[k])) if drawn[k] > 1 else None,
            float(producers[k]) if found[k] else None,
            float(Z_95 * producers_error[k]) if found[k] else None,
        )
        for k, area in enumerate(areas)
    )
    note = NOTES[samples.origin] + (f" Counted on: {samples.data}" if samples.data else "")
    overall_error = float(np.sqrt((weight**2 * hit_spread).sum()))  # equation 5
    return AdjustedAreas(classes, float((weight * hits).sum()), Z_95 * overall_error, samples.source, note)


def _producers(weight: FloatArray, share: FloatArray, spread: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(K,) producer's accuracy and its standard error (equations 3 and 7, with areas in place of pixel counts)."""
    found = (weight[:, None] * share).sum(axis=0)
    known = np.where(found > 0, found, 1)  # of no area everything is 0
    accuracy = weight * np.diag(share) / known
    own = weight**2 * (1 - accuracy) ** 2 * np.diag(spread)
    everything = (weight[:, None] ** 2 * spread).sum(axis=0)
    others = accuracy**2 * (everything - weight**2 * np.diag(spread))
    return accuracy, np.sqrt((own + others) / known**2)


def _mapped(areas: Sequence[ClassArea], samples: SampleCounts) -> FloatArray:
    """(K,) hectares on the map of the classes that were sampled."""
    assert tuple(area.value for area in areas) == samples.values, "areas and samples are of one legend"
    if any(area.hectares is None for area in areas):
        raise _placeless()
    hectares = np.array([area.hectares for area in areas], np.float64)
    drawn = samples.counts.sum(axis=1)
    few = [area.name for area, n in zip(areas, drawn, strict=True) if area.pixels and n < 2]
    if few or not hectares.sum():
        raise InputError(
            f"{samples.source}: on the map, but with fewer than two sampled places: {', '.join(few) or 'no class'}",
            "sample at least two places of each class that the map has; the paper advises 50 or more",
        )
    return hectares


def _placeless() -> InputError:
    return InputError("the map does not tell where on Earth it lies, so it has no areas", "give it a CRS")
