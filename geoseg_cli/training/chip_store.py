"""Chips in a folder, read when they are drawn: memory does not grow with the data, and processes share them.

``index.json`` is written last, so a folder with an index is whole. Axes: P bands, H rows, W columns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, overload

import numpy as np

from geoseg_cli.errors import StorageError
from geoseg_cli.training.chips import Chip
from geoseg_cli.training.split import Part

INDEX: Final = "index.json"


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


class StoredChips(Sequence[Chip]):
    """Chips of a folder as a sequence.

    Args:
        folder: Where they lie.
        rows: Which of them.
    """

    def __init__(self, folder: Path, rows: Sequence[ChipRow]) -> None:
        self._folder, self.rows = folder, tuple(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Chip: ...
    @overload
    def __getitem__(self, place: slice) -> list[Chip]: ...
    def __getitem__(self, place: int | slice) -> Chip | list[Chip]:
        """Chips, mapped into memory and read where they are used."""
        if isinstance(place, slice):
            return [self._read(row) for row in self.rows[place]]
        return self._read(self.rows[place])

    def _read(self, row: ChipRow) -> Chip:
        try:
            dn, target = (np.load(path, mmap_mode="r") for path in _files(self._folder, row.number))
        except (OSError, ValueError) as error:
            raise StorageError(
                f"chip {row.number} of {self._folder} cannot be read: {error}", "start anew with --restart"
            ) from error
        return Chip(row.kind, row.bands, dn, target)


def write_chip(folder: Path, number: int, chip: Chip) -> None:
    """Write a chip under its number."""
    for path, array in zip(_files(folder, number), (chip.dn, chip.target), strict=True):
        np.save(path, array)


def write_index(folder: Path, rows: Sequence[ChipRow], notes: Sequence[str]) -> None:
    """Say that all chips of a folder are there."""
    text = json.dumps({"notes": list(notes), "chips": [asdict(row) for row in rows]})
    unfinished = folder / f".{INDEX}"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(folder / INDEX)


def read_index(folder: Path) -> tuple[list[ChipRow], list[str]] | None:
    """Chips of a folder and what was noted when they were cut; None where they are not all there."""
    path = folder / INDEX
    if not path.is_file():
        return None
    table = json.loads(path.read_text(encoding="utf-8"))
    rows = [ChipRow(**row | {key: tuple(row[key]) for key in ("bands", "pixels")}) for row in table["chips"]]
    return rows, table["notes"]


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:07d}-pixels.npy", folder / f"{number:07d}-labels.npy"
