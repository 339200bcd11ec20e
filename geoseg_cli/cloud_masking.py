"""Two maps of one scene become one: land cover where the cloud mask is clear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from geoseg_cli.catalog import Legend
from geoseg_cli.errors import UsageError
from geoseg_cli.rows import Rows, only_where, part_of

HiddenAs = Literal["nodata", "class"]

CLEAR = "clear"
"""Name of the class of a cloud legend below which land cover shows."""


@dataclass(frozen=True, slots=True)
class CloudMasking:
    """What becomes of each value of a cloud mask in a map of something else.

    Attributes:
        legend: Classes of the masked map: those of the land, and those of the clouds where they are kept.
        clear: Value of the cloud mask below which the land shows.
        hidden_as: Whether hidden pixels are nodata, or keep the cloud mask's value.
    """

    legend: Legend
    clear: int
    hidden_as: HiddenAs

    @classmethod
    def of(cls, land: Legend, clouds: Legend, hidden_as: HiddenAs) -> CloudMasking:
        """Join two legends.

        Raises:
            UsageError: The cloud legend has no clear class, or both legends use a value or a name.
        """
        clear = [one.value for one in clouds.classes if one.name == CLEAR]
        if len(clear) != 1:
            raise UsageError(
                f"legend {clouds.name} has no class called {CLEAR}, so it cannot mask a map", "use another cloud bundle"
            )
        if hidden_as == "nodata":
            return cls(land, clear[0], hidden_as)
        kept = tuple(one for one in clouds.classes if one.value != clear[0])
        values = {one.value for one in land.classes} & {one.value for one in kept}
        names = {one.name for one in land.classes} & {one.name for one in kept}
        if values or names or land.nodata in {one.value for one in kept}:
            raise UsageError(
                f"legends {land.name} and {clouds.name} share {', '.join(map(str, sorted(values) + sorted(names)))}",
                "hide clouds as nodata instead",
            )
        return cls(Legend(f"{land.name}+{clouds.name}", (*land.classes, *kept), land.nodata), clear[0], hidden_as)

    def apply(self, land: Rows, clouds: Rows) -> Rows:
        """Hide what lies below clouds in rows of the same pixels.

        Where the cloud mask has no answer nobody knows whether the land is seen, so the map has none either.
        """
        shows = clouds.valid & (clouds.labels == self.clear)
        if self.hidden_as == "nodata":
            valid = land.valid & shows
            labels = np.where(valid, land.labels, land.labels.dtype.type(self.legend.nodata))
            confidence = only_where(valid, land.confidence)
        else:
            is_cloud = clouds.valid & ~shows
            valid = (land.valid & shows) | is_cloud
            known = np.where(is_cloud, clouds.labels, land.labels).astype(self.legend.dtype, copy=False)
            labels = np.where(valid, known, known.dtype.type(self.legend.nodata))
            confidence = None
            if land.confidence is not None and clouds.confidence is not None:
                confidence = only_where(valid, np.where(is_cloud, clouds.confidence, land.confidence))
        probabilities, seams = (only_where(valid & shows, values) for values in (land.probabilities, land.seams))
        return replace(
            land, labels=labels, confidence=confidence, probabilities=probabilities, valid=valid, seams=seams
        )


class MaskedRows:
    """Land hidden below clouds, rows by rows; an iterator.

    Args:
        land, clouds: Rows of the same grid, the same first and last ones, in pieces of any height.
        masking: What becomes of hidden pixels.
        hidden: Pixels that were hidden in the rows above the first.

    Attributes:
        hidden: Pixels of the land that were hidden so far.
    """

    def __init__(self, land: Iterator[Rows], clouds: Iterator[Rows], masking: CloudMasking, hidden: int = 0) -> None:
        self._pairs, self._masking, self.hidden = _in_step(land, clouds), masking, hidden

    def __iter__(self) -> MaskedRows:
        return self

    def __next__(self) -> Rows:
        land, clouds = next(self._pairs)
        masked = self._masking.apply(land, clouds)
        self.hidden += int(np.count_nonzero(land.valid & (masked.labels != land.labels)))
        return masked


def _in_step(first: Iterator[Rows], second: Iterator[Rows]) -> Iterator[tuple[Rows, Rows]]:
    """The same rows of both, in pieces that end wherever a piece of either ends."""
    one, other = next(first, None), next(second, None)
    while one is not None and other is not None:
        assert one.row == other.row, f"rows {one.row} and {other.row} do not belong together"
        count = min(len(one.labels), len(other.labels))
        yield part_of(one, 0, count), part_of(other, 0, count)
        one = part_of(one, count, len(one.labels)) if count < len(one.labels) else next(first, None)
        other = part_of(other, count, len(other.labels)) if count < len(other.labels) else next(second, None)
    assert one is other is None, "one map has more rows than the other"
