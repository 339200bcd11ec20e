"""All cleaning of a class map in its one order.

Small cloud objects go and clouds grow while the map still tells thick from thin cloud; then its classes become those
of another legend; then stray pixels and small components of what will be published go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from geoseg_cli.catalog import Legend, LegendMapping
from geoseg_cli.errors import UsageError
from geoseg_cli.results.cleaning import dilate, majority, recode, thresholded
from geoseg_cli.results.components import LabelSource
from geoseg_cli.results.description import CLOUD_CLASSES
from geoseg_cli.results.sieve import drop_small_objects, sieve
from geoseg_cli.rows import Rows

STRIP_ROWS = 512
STRIP_BYTES_PER_PX: Mapping[str, int] = {"min_object_px": 24, "dilate_px": 28, "majority_px": 30, "sieve_px": 25}
BYTES_PER_PART: Mapping[str, int] = {"min_object_px": 80, "sieve_px": 300}
"""What filters take per pixel of a strip and, to know them apart, per part of the map: measured with tracemalloc on
patches, patches with 1 % of stray pixels, and noise, of up to 2048 x 3000 pixels."""
PX_PER_PART = 100
"""Taken for planning: patches with 1 % of stray pixels have a part per 80 to 120, pure noise one per 2."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What is done to a finished map; nothing by default.

    Attributes:
        min_object_px: Cloud objects of fewer pixels become clear; see ``sieve.drop_small_objects``.
        dilate_px: How far clouds grow; see ``cleaning.dilate``.
        mapping: What the classes become.
        majority_px: Side of the window of the majority filter; see ``cleaning.majority``.
        sieve_px: Components of fewer pixels take the class of their largest neighbour; see ``sieve.sieve``.
        objects: Names of the classes that cloud objects consist of and that grow, the most important first.
        clear: Name of the class that small objects become.
    """

    min_object_px: int | None = None
    dilate_px: int | None = None
    mapping: LegendMapping | None = None
    majority_px: int | None = None
    sieve_px: int | None = None
    objects: tuple[str, ...] = ("thick_cloud", "thin_cloud")
    clear: str = "clear"

    @property
    def is_wanted(self) -> bool:
        """Whether anything is done."""
        return bool(self.to_json())

    def legend_of(self, legend: Legend) -> Legend:
        """Classes of the map once it is cleaned."""
        return legend if self.mapping is None else self.mapping.target

    def to_json(self) -> dict[str, Any]:
        """What is done, in plain types and in the order of the filters; what is not done is not there."""
        legend = None
        if self.mapping is not None:
            legend = {
                "from": self.mapping.source.name,
                "to": self.mapping.target.name,
                "losses": list(self.mapping.losses),
            }
        steps = {
            "min_object_px": self.min_object_px,
            "dilate_px": self.dilate_px,
            "legend": legend,
            "majority_px": self.majority_px,
            "sieve_px": self.sieve_px,
        }
        return {name: value for name, value in steps.items() if value is not None}


def cleaning_bytes(cleaning: Cleaning, height: int, width: int) -> int:
    """About what cleaning a map takes at most; more where it falls into more parts than one per ``PX_PER_PART`` pixels.

    Args:
        cleaning: What is to be done.
        height, width: Of the map, in pixels.
    """
    parts = height * width / PX_PER_PART
    reach = {"dilate_px": cleaning.dilate_px or 0, "majority_px": (cleaning.majority_px or 0) // 2}
    asked = [name for name in STRIP_BYTES_PER_PX if getattr(cleaning, name) is not None]
    strips = [STRIP_BYTES_PER_PX[name] * (STRIP_ROWS + 2 * reach.get(name, 0)) * width for name in asked]
    tables = sum(BYTES_PER_PART.get(name, 0) * parts for name in asked)
    # A filter works while the one that feeds it does, and the others wait for both.
    return int(sum(sorted(strips)[-2:]) + tables)


def cleaned(source: LabelSource, height: int, legend: Legend, cleaning: Cleaning) -> tuple[LabelSource, Legend]:
    """Put the filters behind each other.

    Args:
        source: The map; it is read once for each pass, more than once where small parts are looked for.
        height: Its rows.
        legend: Its classes.
        cleaning: What is to be done.

    Returns:
        The cleaned map, and its legend. Nothing is read before the map is.

    Raises:
        UsageError: A number cannot be used, or cloud options meet a legend without clouds.
    """
    _refuse_senseless(cleaning, legend)
    nodata, values = legend.nodata, {one.name: one.value for one in legend.classes}
    if cleaning.min_object_px is not None:
        objects = tuple(values[name] for name in cleaning.objects)
        source = drop_small_objects(source, height, nodata, objects, cleaning.min_object_px, values[cleaning.clear])
    if cleaning.dilate_px is not None:
        source = dilate(source, nodata, [values[name] for name in cleaning.objects], cleaning.dilate_px)
    if cleaning.mapping is not None:
        source, legend = recode(source, cleaning.mapping.table(), nodata), cleaning.mapping.target
    if cleaning.majority_px is not None:
        source = majority(source, legend.nodata, legend.values, cleaning.majority_px)
    if cleaning.sieve_px is not None:
        source = sieve(source, height, legend.nodata, cleaning.sieve_px)
    return source, legend


def refuse_bad_cleaning(legend: Legend, cleaning: Cleaning) -> None:
    """Refuse what ``cleaned`` would refuse, before there is a map.

    Raises:
        UsageError: A number cannot be used, or cloud options meet a legend without clouds.
    """
    cleaned(lambda: iter(()), 1, legend, cleaning)


def decided(finished: Iterator[Rows], legend: Legend, cloud_threshold: float | None) -> Iterator[Rows]:
    """Rows in which cloud is what its summed probability says; as they are without a threshold.

    Args:
        finished: Rows, with the probabilities of all classes where there is a threshold.
        legend: What each probability belongs to.
        cloud_threshold: See ``cleaning.thresholded``.

    Raises:
        UsageError: The threshold cannot be used, or the legend has no clouds. Told at once, not with the first rows.
    """
    if cloud_threshold is None:
        return finished
    clouds = [one.value for one in legend.classes if one.name in CLOUD_CLASSES]
    if not clouds:
        raise UsageError(f"--threshold is for clouds, and {legend.name} has none", "leave it out")
    return thresholded(finished, legend, clouds, cloud_threshold)


def _refuse_senseless(cleaning: Cleaning, legend: Legend) -> None:
    names = {one.name for one in legend.classes}
    for option, size in (("--min-size", cleaning.min_object_px), ("--sieve", cleaning.sieve_px)):
        if size is not None and size < 1:
            raise UsageError(f"{option} {size} is no number of pixels", "use 1 or more")
    needs_clouds = cleaning.min_object_px is not None or cleaning.dilate_px is not None
    if needs_clouds and not {*cleaning.objects, cleaning.clear} <= names:
        raise UsageError(
            f"--min-size and --dilate are for clouds, and {legend.name} has none",
            "use --sieve and --majority for land cover",
        )
    if cleaning.mapping is not None:
        mapping = cleaning.mapping
        if mapping.target.nodata != legend.nodata or not set(legend.values) <= set(mapping.source.values):
            raise UsageError(
                f"{mapping} does not fit a map of {legend.name}", "use a mapping from the map's own legend"
            )
