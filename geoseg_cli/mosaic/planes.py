"""Arithmetic on one plane per class: numpy's, or any module's that has the same functions, torch's for example.

Functions work in place on a piece of a tile, with the few functions that both modules spell alike. Axes: K classes,
H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from geoseg_cli.arrays import Array, Arrays
from geoseg_cli.grid import Window


@dataclass(frozen=True, slots=True)
class CodeType:
    """What codes of classes, numbers or values of a legend, are held as while they are found.

    Attributes:
        dtype: The type.
        no_answer: Code of pixels without an answer; those of classes are below.
    """

    dtype: str
    no_answer: int


NARROW = CodeType("uint8", 255)
WIDE = CodeType("int32", 65_535)
"""For more classes than uint8 holds. Modules of arrays can do less with uint16, torch for example."""

_LEAST_TOTAL = 1e-30
"""Stands in for a sum of nothing, far below any product of weights, so that 0 / 0 does not occur."""


@dataclass(slots=True)
class Piece:
    """A few rows of a tile while they are worked on.

    Attributes:
        planes: (K, H, W) float32 logits, then what becomes of them.
        top: (H, W) float32, the largest of the planes.
        total: (H, W) float32, their sum.
        best: (H, W) code of the plane that is largest.
        flags: (H, W) bool, for comparisons.
        marks: (H, W) of the type of ``best``, for codes where flags are set.
        is_narrow: Whether the marks are the memory of the flags.
        valid: (H, W) bool, None where all pixels are.
    """

    planes: Array
    top: Array
    total: Array
    best: Array
    flags: Array
    marks: Array
    is_narrow: bool = True
    valid: Array | None = None

    def mark(self, xp: Any, code: int) -> Array:
        """(H, W) the code where ``flags`` is set and 0 elsewhere; these are used up."""
        if not self.is_narrow:
            self.marks[...] = self.flags
        xp.multiply(self.marks, code, out=self.marks)
        return self.marks


class Workbench:
    """Room for one piece, used again and again."""

    def __init__(self, arrays: Arrays, classes: int, codes: CodeType = NARROW) -> None:
        """Make room for ``arrays.piece_px`` pixels."""
        size = arrays.piece_px
        self._planes = arrays.full((classes * size,), 0, "float32")
        self._floats = arrays.full((2, size), 0, "float32")
        self._best = arrays.full((size,), 0, codes.dtype)
        self._flags = arrays.full((size,), 0, "bool")
        self._is_narrow = codes is NARROW
        self._marks = self._flags.view(arrays.module.uint8) if codes is NARROW else arrays.full((size,), 0, codes.dtype)
        self._arrays, self._classes = arrays, classes

    def load(self, planes: Array, valid: Array | None = None) -> Piece:
        """Copy (K, H, W) planes onto the bench, where they lie side by side whatever their strides were."""
        height, width = planes.shape[1:]
        size, shape = height * width, (height, width)
        piece = Piece(
            self._planes[: self._classes * size].reshape(self._classes, *shape),
            self._floats[0, :size].reshape(shape),
            self._floats[1, :size].reshape(shape),
            self._best[:size].reshape(shape),
            self._flags[:size].reshape(shape),
            self._marks[:size].reshape(shape),
            self._is_narrow,
            valid,
        )
        piece.planes[...] = self._arrays.put(planes)
        return piece


def pieces(window: Window, most_px: int) -> Iterator[Window]:
    """Cut a window into parts of at most ``most_px`` pixels, whole rows where they fit."""
    width = min(window.width, most_px)
    height = max(1, most_px // width)
    for row in range(window.row, window.row_stop, height):
        for col in range(window.col, window.col_stop, width):
            yield Window(row, col, min(height, window.row_stop - row), min(width, window.col_stop - col))


def drop_non_finite(xp: Any, piece: Piece) -> int:
    """Make pixels invalid where a plane is not finite, their planes and ``top`` 0; returns how many were valid."""
    # The smallest and the largest number tell, without a mask, that nothing has to be done: NaN is passed on by both.
    if math.isfinite(xp.min(piece.planes)) and math.isfinite(xp.max(piece.top)):
        return 0
    finite = xp.isfinite(piece.planes).all(0)
    lost = ~finite if piece.valid is None else piece.valid & ~finite
    piece.planes[:, ~finite] = 0
    piece.top[~finite] = 0
    piece.valid = finite if piece.valid is None else piece.valid & finite
    return int(lost.sum())


def maximum(xp: Any, piece: Piece) -> None:
    """Set ``top``."""
    xp.amax(piece.planes, 0, out=piece.top)


def first_maximum(xp: Any, piece: Piece, codes: Sequence[int]) -> None:
    """Set ``top`` and ``best``: of equal planes the first, as argmax.

    Args:
        xp: What computes.
        piece: The planes.
        codes: A rising number for each plane, below that of no answer.
    """
    piece.best[...] = codes[0]
    piece.top[...] = piece.planes[0]
    for plane, code in zip(piece.planes[1:], codes[1:], strict=True):
        xp.greater(plane, piece.top, out=piece.flags)
        # Codes rise, so the last plane that was larger has the largest one: no masked assignment, which is slow.
        xp.maximum(piece.best, piece.mark(xp, code), out=piece.best)
        xp.maximum(piece.top, plane, out=piece.top)


def exponentials(xp: Any, piece: Piece, temperature: float) -> None:
    """Logits and their ``top`` become exp((logits - top) / temperature), 1 for the largest, and ``total`` their sum."""
    xp.subtract(piece.planes, piece.top, out=piece.planes)
    if temperature != 1:
        xp.multiply(piece.planes, 1 / temperature, out=piece.planes)
    xp.exp(piece.planes, out=piece.planes)
    xp.sum(piece.planes, 0, out=piece.total)


def weighted_softmax(xp: Any, piece: Piece, temperature: float, row_weights: Array, col_weights: Array) -> None:
    """Logits with their ``top`` become probabilities times weights of (H,) rows and (W,) columns, 0 where invalid."""
    exponentials(xp, piece, temperature)
    xp.divide(row_weights[:, None], piece.total, out=piece.total)
    xp.multiply(piece.total, col_weights, out=piece.total)
    if piece.valid is not None:
        xp.multiply(piece.total, piece.valid, out=piece.total)
    xp.multiply(piece.planes, piece.total, out=piece.planes)


def add_votes(piece: Piece, codes: Sequence[int], votes: Array) -> None:
    """Count for (K, H, W) uint8 ``votes`` the class that ``best`` names, where the piece is valid."""
    for plane, code in zip(votes, codes, strict=True):
        is_named = piece.best == code
        plane += is_named if piece.valid is None else is_named & piece.valid


def dissent(xp: Any, best: Array, codes: Sequence[int], votes: Array) -> tuple[Array, Array]:
    """Compare votes with what came out of them.

    Args:
        xp: What computes.
        best: (H, W) code of the class that each pixel got.
        codes: Of each of the K classes.
        votes: (K, H, W) uint8, how many tiles named each class.

    Returns:
        (H, W) float32, share of the votes for other classes, 0 where there are none; and (2, H, W) bool: where several
        tiles voted, and where these named different classes.
    """
    answers, lost = votes.sum(0), votes.sum(0)
    for plane, code in zip(votes, codes, strict=True):
        lost -= plane * (best == code)
    several = answers > 1
    divided = several & (xp.amax(votes, 0) < answers)
    return lost / xp.clip(answers, 1, None), xp.stack([several, divided])


def mark_unanswered(xp: Any, piece: Piece, no_answer: int) -> None:
    """Set ``best`` to ``no_answer`` where ``flags`` is set; these are used up."""
    xp.maximum(piece.best, piece.mark(xp, no_answer), out=piece.best)


def divide_by_total(xp: Any, piece: Piece, with_planes: bool) -> None:
    """Divide ``top``, and perhaps the planes, by ``total``: 0 where invalid and where all planes are 0."""
    xp.clip(piece.total, _LEAST_TOTAL, None, out=piece.total)
    xp.reciprocal(piece.total, out=piece.total)
    if piece.valid is not None:
        xp.multiply(piece.total, piece.valid, out=piece.total)
    xp.multiply(piece.top, piece.total, out=piece.top)
    if with_planes:
        xp.multiply(piece.planes, piece.total, out=piece.planes)
