"""Rows of a result on their way from the mosaic to the file, and what cuts, masks or enlarges them in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

LabelArray = npt.NDArray[np.uint8 | np.uint16]
"""Class values: uint8, or uint16 where the legend needs it."""
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

Extra = Literal["confidence", "probabilities", "seams"]
"""What rows can carry beside labels and validity, where somebody asks for it."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Finished rows of the result at the scene's full width.

    Attributes:
        row: First row in the scene.
        labels: (H, W) legend values, of the legend's dtype; the legend's nodata where there is no answer.
        confidence: (H, W) float32, probability of the label, 0 to 1; 0 where there is no answer; None unless asked
            for.
        probabilities: (K, H, W) float32 that sum to 1 over K, 0 where there is no answer; None unless asked for.
        valid: (H, W) bool, where there is an answer.
        seams: (H, W) float32, share of the tiles that answered the pixel and named another class than the label, before
            anything was done to it; 0 where one tile answered or none; None unless asked for.
    """

    row: int
    labels: LabelArray
    confidence: FloatArray | None
    probabilities: FloatArray | None
    valid: BoolArray
    seams: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class SeamCounts:
    """How often overlapping tiles disagreed.

    Attributes:
        shared: Pixels that several tiles answered.
        disputed: Those of them that these tiles gave different classes.
    """

    shared: int
    disputed: int

    @property
    def share(self) -> float | None:
        """Disputed pixels per shared one; None where none was shared."""
        return self.disputed / self.shared if self.shared else None


def is_one_of(labels: LabelArray, values: Sequence[int]) -> BoolArray:
    """Where labels of any shape are one of some values."""
    wanted = np.zeros(np.iinfo(labels.dtype).max + 1, bool)
    wanted[list(values)] = True
    return wanted[labels]


def only_where(valid: BoolArray, values: FloatArray | None) -> FloatArray | None:
    """(..., H, W) values with 0 where (H, W) ``valid`` is False; None where there are none."""
    return None if values is None else np.where(valid, values, np.float32(0))


def part_of(rows: Rows, start: int, stop: int) -> Rows:
    """Some of the rows, counted from the first of them."""
    if (start, stop) == (0, len(rows.labels)):
        return rows
    part = slice(start, stop)

    def cut(planes: FloatArray | None) -> FloatArray | None:
        return None if planes is None else planes[..., part, :]

    planes = cut(rows.confidence), cut(rows.probabilities)
    return Rows(rows.row + start, rows.labels[part], *planes, rows.valid[part], cut(rows.seams))


def from_row(finished: Iterator[Rows], first: int) -> Iterator[Rows]:
    """Only the rows from ``first`` on."""
    for rows in finished:
        stop = len(rows.labels)
        if rows.row + stop > first:
            yield part_of(rows, max(0, first - rows.row), stop)
