"""Says in a finished TIFF that the band beside a palette is no transparency, which GDAL takes it for when it copies.

GDAL's GTiff and COG drivers mark the second band of a file with a palette as unassociated alpha whatever the source
says. Only the two bytes of that mark are changed, at their place in each directory, so no offset and nothing of a
COG's layout moves.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

EXTRA_SAMPLES, SHORT, UNSPECIFIED = 338, 3, 0
"""TIFF 6.0, section 18: the tag, its type, and its value for a band of unknown meaning."""


class _Layout(NamedTuple):
    """How a flavour of TIFF stores a directory: struct formats of its count, its entries and its offsets."""

    entries: str
    entry: str
    offset: str
    first: int


_CLASSIC, _BIG = _Layout("H", "HHI4s", "I", 4), _Layout("Q", "HHQ8s", "Q", 8)


def mark_no_alpha(path: Path) -> None:
    """Call the second band of every directory one of unspecified meaning.

    Args:
        path: A TIFF of two bands, classic or big, of either byte order.

    Raises:
        OSError: It cannot be read or written.
        ValueError: It is no TIFF.
    """
    with open(path, "rb+") as file:
        order = {b"II": "<", b"MM": ">"}.get(file.read(2))
        if order is None:
            raise ValueError(f"{path} is no TIFF")
        layout = _BIG if struct.unpack(f"{order}H", file.read(2))[0] == 43 else _CLASSIC
        file.seek(layout.first)
        place = _number(file, order + layout.offset)
        while place:
            file.seek(place)
            place = _mark_directory(file, order, layout)


def _mark_directory(file: BinaryIO, order: str, layout: _Layout) -> int:
    """Change the directory that begins here; where the next one begins, 0 after the last."""
    size = struct.calcsize(order + layout.entry)
    for _ in range(_number(file, order + layout.entries)):
        entry = file.read(size)
        tag, kind, count, _ = struct.unpack(order + layout.entry, entry)
        if (tag, kind, count) == (EXTRA_SAMPLES, SHORT, 1):
            after = file.tell()
            file.seek(after - struct.calcsize(layout.offset))  # a value this short stands where an offset would
            file.write(struct.pack(f"{order}H", UNSPECIFIED))
            file.seek(after)
    return _number(file, order + layout.offset)


def _number(file: BinaryIO, form: str) -> int:
    return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])
