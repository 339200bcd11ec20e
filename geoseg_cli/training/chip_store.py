"""Chips in a folder, read when they are drawn: memory does not grow with the data, and processes share them.

``index.json`` is written last, so a folder with an index is whole. Axes: P bands, H rows, W columns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from geoseg_cli.errors import StorageError
from geoseg_cli.results.storage import storage_trouble
from geoseg_cli.training.chips import Chip
from geoseg_cli.training.lazy import LazySequence
from geoseg_cli.training.split import Part

INDEX: Final = "index.json"
ANEW: Final = "--restart drops the run and trains anew"
"""What to do about a damaged file of a run."""


@dataclass(frozen=True, slots=True)
class ChipRow:
    """A chip of the folder.

    Attributes:
        number: Name of its files.
        source: Number of the table of the configuration that it comes from, among those of its kind.
        kind: ``pairs`` or ``vectors``.
        part: Of the split.
        bands: Common names of its bands.
        height_px, width_px: Its size.
        pixels: Labelled pixels of each class, in the order of the legend.
    """

    number: int
    kind: str
    source: int
    part: Part
    bands: tuple[str, ...]
    height_px: int
    width_px: int
    pixels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Index:
    notes: list[str]
    chips: list[ChipRow]


_INDEX: Final = TypeAdapter(_Index)


class StoredChips(LazySequence[Chip]):
    """Chips of a folder as a sequence.

    Args:
        folder: Where they lie.
        rows: Which of them.
    """

    def __init__(self, folder: Path, rows: Sequence[ChipRow]) -> None:
        self._folder, self.rows = folder, tuple(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def _make(self, place: int) -> Chip:
        """The chip, mapped into memory and read where it is used."""
        row = self.rows[place]
        paths = _files(self._folder, row.number)
        try:
            dn, target = (np.load(path, mmap_mode="r") for path in paths)
        except (OSError, EOFError, ValueError) as error:
            names = " or ".join(path.name for path in paths)
            raise StorageError(f"{names} in {self._folder} cannot be read or is damaged", ANEW) from error
        return Chip(row.kind, row.bands, dn, target)


def write_chip(folder: Path, number: int, chip: Chip) -> None:
    """Write a chip under its number.

    Raises:
        StorageError: It cannot be written, such as on a full disk.
    """
    for path, array in zip(_files(folder, number), (chip.dn, chip.target), strict=True):
        with storage_trouble(path):
            np.save(path, array)


def write_index(folder: Path, rows: Sequence[ChipRow], notes: Sequence[str]) -> None:
    """Say that all chips of a folder are there.

    Raises:
        StorageError: It cannot be written, such as on a full disk.
    """
    text = json.dumps({"notes": list(notes), "chips": [asdict(row) for row in rows]})
    unfinished = folder / f".{INDEX}"
    with storage_trouble(folder / INDEX):
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(folder / INDEX)


def read_index(folder: Path) -> tuple[list[ChipRow], list[str]] | None:
    """Chips of a folder and what was noted when they were cut; None where they are not all there.

    Raises:
        StorageError: The index cannot be read, or is cut or damaged.
    """
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        index = _INDEX.validate_json(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}", ANEW) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StorageError(f"{path} is damaged: {where}{': ' * bool(where)}{first['msg']}", ANEW) from error
    return index.chips, index.notes


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:07d}-pixels.npy", folder / f"{number:07d}-labels.npy"
