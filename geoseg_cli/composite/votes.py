"""What the pixels of a window were seen as, summed over maps.

The class of a pixel is the one with the largest sum of weights; of equal ones that with more votes, of those the one
seen last, of those the one with the smaller value. Nothing depends on the names of files or on who came first among
maps of one moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from geoseg_cli.catalog import NODATA

ByteArray = npt.NDArray[np.uint8]

_VOTE_BITS, _RANK_BITS = 18, 18
MOST_MAPS = 2**_VOTE_BITS - 1
"""So many votes, with weights up to 254 each and the rank of the last, are 62 bits: one integer to compare."""

_SCORE_BYTES, _RANK_BYTES, _WORK_BYTES = 8, 4, 64
"""Per pixel and class; and per pixel beside them: labels that wait, places and results."""


def bytes_per_pixel(classes: int) -> int:
    """Memory that votes of so many classes take for each pixel."""
    return (classes + 1) * (_SCORE_BYTES + _RANK_BYTES) + _WORK_BYTES


class Votes:
    """Counts of one window; used again for the next one.

    Attributes:
        values: The classes that count, ascending.
    """

    def __init__(self, values: Iterable[int], most_pixels: int) -> None:
        """Make room.

        Args:
            values: The classes that count; every other value counts as not seen.
            most_pixels: Pixels of the largest window.
        """
        self.values = np.array(sorted(values), np.uint8)
        # One row more, for what does not count: cheaper than to leave pixels out.
        self._scores = np.empty((len(self.values) + 1) * most_pixels, np.uint64)
        self._ranks = np.empty(len(self._scores), np.uint32)
        self._channels = np.full(256, len(self.values), np.int64)
        self._channels[self.values] = np.arange(len(self.values))
        self._pixels = 0
        self._places: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def begin(self, pixels: int) -> None:
        """Forget everything and count a window of so many pixels."""
        self._pixels, self._places = pixels, np.arange(pixels)
        used = (len(self.values) + 1) * pixels
        self._scores[:used] = 0
        self._ranks[:used] = 0

    def add(self, labels: ByteArray, rank: int, weights: ByteArray | None = None) -> None:
        """Count one map; maps must come in ascending order of their ranks.

        Args:
            labels: (P,) classes.
            rank: How recent the map is, from 1; the same for maps of one moment.
            weights: (P,) what each vote weighs, 0 to 250; ``NODATA`` weighs nothing. None where all weigh the same.
        """
        places = (self._channels * self._pixels)[labels] + self._places
        if weights is None:
            self._scores[places] += np.uint64(1)
        else:
            weighed = np.where(weights == NODATA, 0, weights).astype(np.uint64)
            self._scores[places] += (weighed << np.uint64(_VOTE_BITS)) | np.uint64(1)
        self._ranks[places] = rank

    def result(self, least: int, nodata: int, most_counted: int) -> tuple[ByteArray, ByteArray]:
        """The class of each pixel, and how often it was seen.

        Args:
            least: Pixels that were seen less often have no class.
            nodata: Value of pixels without a class.
            most_counted: Where the count saturates.

        Returns:
            (P,) uint8 classes and (P,) uint8 counts.
        """
        classes = len(self.values)
        scores = self._scores[: classes * self._pixels].reshape(classes, -1)
        ranks = self._ranks[: classes * self._pixels].reshape(classes, -1)
        counts = np.zeros(self._pixels, np.uint32)
        best, best_key = np.full(self._pixels, nodata, np.uint8), np.zeros(self._pixels, np.uint64)
        for value, score, rank in zip(self.values, scores, ranks, strict=True):
            counts += (score & np.uint64(MOST_MAPS)).astype(np.uint32)
            key = (score << np.uint64(_RANK_BITS)) | rank
            is_better = key > best_key  # strictly: the smaller value came first
            best[is_better] = value
            best_key[is_better] = key[is_better]
        best[counts < max(1, least)] = nodata
        return best, np.minimum(counts, most_counted).astype(np.uint8)


def ranks_of(moments: Sequence[str | None]) -> list[int]:
    """How recent each map is, from 1, the same for the same moment; maps that tell none come before all others.

    Args:
        moments: RFC 3339 in UTC.
    """
    order = {moment: rank for rank, moment in enumerate(sorted({moment or "" for moment in moments}), start=1)}
    return [order[moment or ""] for moment in moments]
