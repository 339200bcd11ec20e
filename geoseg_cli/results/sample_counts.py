"""Tables of sampled places: what the map calls them, and what they are in truth."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from geoseg_cli.bundle import Bundle
from geoseg_cli.catalog import Legend, find_mapping
from geoseg_cli.errors import InputError, InputMissingError, ModelError

MAX_BYTES = 10_000_000

Origin = Literal["places", "pixels", "card"]
FROM_CARD: Final = "card"
"""What stands in place of a file for the table in the bundle's card."""

Accuracy = Path | Literal["card"]

_MAP_WORDS, _REFERENCE_WORDS = ("map", "mapped", "predicted"), ("reference", "true", "truth")


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """How many sampled places of each class of a map are of which class in truth.

    Attributes:
        values: (K) class values.
        counts: (K, K) int64, ``counts[i, j]`` places that the map calls ``values[i]`` and that are ``values[j]``.
        source: Where they are from, for messages.
        origin: ``places`` that were drawn at random, all ``pixels`` of some images, or those of other places that a
            bundle's ``card`` counts.
        data: What they show, where a card tells.
    """

    values: tuple[int, ...]
    counts: npt.NDArray[np.int64]
    source: str
    origin: Origin = "places"
    data: str = ""

    @classmethod
    def read(cls, path: Path, legend: Legend) -> SampleCounts:
        """Read a table from a .csv file, or the report of ``geoseg evaluate --json`` from a .json file.

        Raises:
            InputMissingError: There is no such file.
            InputError: The table is not one of counts of the legend's classes.
        """
        text = _text(path)
        if path.suffix.lower() == ".json":
            return cls._of_report(text, path, legend)
        return cls._of_csv(text, path, legend)

    @classmethod
    def of_card(cls, bundle: Bundle, legend: Legend) -> SampleCounts:
        """What a bundle's card counts, for a map of its classes or of those that they can be turned into.

        Raises:
            ModelError: The card has no such table.
            UsageError: The map's classes are not made of the bundle's.
        """
        confusion, values = bundle.card.extras.confusion, bundle.legend.values
        if confusion is None:
            raise ModelError(
                f"the card of {bundle.name} has no confusion matrix",
                "give a table of your own, --accuracy FILE.csv, or the report of geoseg evaluate --json",
            )
        became = {value: value for value in values}
        if legend.name != bundle.legend.name:
            became = find_mapping(bundle.legend.name, legend.name).table()
        place = {value: number for number, value in enumerate(legend.values)}
        counts = np.zeros((len(place), len(place)), np.int64)
        for value, row in zip(values, confusion.counts, strict=True):
            for true, count in zip(values, row, strict=True):
                if became[value] in place and became[true] in place:
                    counts[place[became[value]], place[became[true]]] += count
        return cls(legend.values, counts, f"the card of {bundle.name}", "card", confusion.data)

    @classmethod
    def _of_csv(cls, text: str, path: Path, legend: Legend) -> SampleCounts:
        r"""A table whose first cell says what rows and columns are: ``map\reference``, or ``reference\map``.

        The first row and the first column hold classes by name, title or value, in any order. Classes that are not
        there have no places.
        """
        rows = _cells(text, path)
        names = [*rows[0][1:]], [row[0] for row in rows[1:]]
        columns, lines = (_class_numbers(words, legend, path) for words in names)
        counts = np.zeros((len(legend.classes), len(legend.classes)), np.int64)
        for line, row in zip(lines, rows[1:], strict=True):
            if len(row) != len(rows[0]):
                raise _unusable(path, f"the row of {row[0]} has {len(row)} cells, the first row {len(rows[0])}")
            for column, cell in zip(columns, row[1:], strict=True):
                counts[line, column] = _count(cell, path)
        is_turned = _is_turned(rows[0][0], path)
        return cls(legend.values, counts.T.copy() if is_turned else counts, str(path))

    @classmethod
    def _of_report(cls, text: str, path: Path, legend: Legend) -> SampleCounts:
        """The pixels of an evaluation; the rows of its table are the truth."""
        try:
            report = json.loads(text)
            values = [str(int(row["value"])) for row in report["classes"]]
            table = np.array(report["total"]["confusion"], np.int64)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise _unusable(path, "it is no report of geoseg evaluate") from error
        numbers = _class_numbers(values, legend, path)
        if table.shape != (len(numbers), len(numbers)) or (table < 0).any():
            raise _unusable(path, "its table does not fit its classes")
        counts = np.zeros((len(legend.classes), len(legend.classes)), np.int64)
        counts[np.ix_(numbers, numbers)] = table.T
        return cls(legend.values, counts, str(path), origin="pixels")


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputMissingError(f"there is no file {path}", "give the path of a .csv file")
    if path.stat().st_size > MAX_BYTES:
        raise _unusable(path, "it is too large")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, str(error)) from error


def _cells(text: str, path: Path) -> list[list[str]]:
    first = text.partition("\n")[0]
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=";" if ";" in first else ",") if any(row)]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise _unusable(path, "it has no table")
    return rows


def _is_turned(corner: str, path: Path) -> bool:
    """Whether rows are the reference and columns the map, as the first cell says."""
    words = [word.strip().casefold() for word in re.split(r"[\\/|]", corner)]
    if len(words) == 2:
        if words[0] in _MAP_WORDS and words[1] in _REFERENCE_WORDS:
            return False
        if words[0] in _REFERENCE_WORDS and words[1] in _MAP_WORDS:
            return True
    raise _unusable(path, f"its first cell, {corner!r}, does not say what rows and columns are")


def _class_numbers(words: Sequence[str], legend: Legend, path: Path) -> list[int]:
    """Place of each class in the legend."""
    known = {
        key.casefold(): number
        for number, one in enumerate(legend.classes)
        for key in (one.name, one.title, str(one.value))
    }
    found = []
    for word in words:
        if word.strip().casefold() not in known:
            raise _unusable(path, f"{word!r} is no class of {legend.name}")
        found.append(known[word.strip().casefold()])
    if len(set(found)) != len(found):
        raise _unusable(path, "a class is named twice")
    return found


def _count(text: str, path: Path) -> int:
    if not re.fullmatch(r"\s*\d{1,15}\s*", text, re.ASCII):
        raise _unusable(path, f"{text!r} is no number of places")
    return int(text)


def _unusable(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} cannot be used as a table of sampled places: {why}",
        r"begin the first row with map\reference and the classes' names, then give every class of the map its counts",
    )
