"""Whether a file is a TIFF, and whether all that describes its pixels is there.

GDAL opens a TIFF whose last bytes are gone and ignores, with a warning, the tags that lay there: a lost nodata
tag or mask turns nothing into data. So the directories are walked once, by the TIFF 6.0 and BigTIFF layouts,
before GDAL sees the file. Lost pixels need no such care: reading them fails loudly.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from geoseg_cli.errors import AccessError, InputError, InputMissingError, StorageError

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JP2_SIGNATURES = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
"""Of the boxed format, and of a bare code stream."""
_OTHER_SIGNATURES = {
    b"\0\0\0\x0cjP": "a JPEG 2000 image",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89HDF": "an HDF5 or netCDF file",
    b"CDF": "a netCDF file",
    b"PK": "a zip archive",
    b"<VRT": "a GDAL virtual raster",
    b"<": "an XML or HTML text",
}

_TYPE_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), start=1)) | {16: 8, 17: 8, 18: 8}
_MAX_DIRECTORIES = 256
"""More than any pyramid with masks needs; a chain that is longer is left to GDAL."""

_AGAIN = "copy or download it again and compare sizes"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Field sizes of a TIFF flavour, as ``struct`` formats."""

    header: str
    count: str
    entry: str
    link: str
    inline_bytes: int


_CLASSIC = _Layout("4xI", "H", "HHI4x", "I", 4)
_BIG = _Layout("8xQ", "Q", "HHQ8x", "Q", 8)


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells that a file is still the one that was opened."""

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        """Identity of the file that lies at ``path`` now.

        Raises:
            InputMissingError: There is none.
            AccessError: Its folder may not be read.
            StorageError: The disk fails.
        """
        with _file_errors(path):
            status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


def first_bytes(path: Path, count: int = 64) -> bytes:
    """The first ``count`` bytes of a regular file.

    Raises:
        GeosegError: There is none, it may not be read, or it is a device or a pipe.
    """
    with _file_errors(path):
        status = path.stat()
        # A named pipe would block on open.
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is no regular file", "name a file")
        with path.open("rb") as stream:
            return stream.read(count)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False where there is nothing.

    Raises:
        AccessError: Nobody may look there.
        StorageError: The system takes no such name, or the disk fails.
    """
    with _file_errors(path):
        return path.is_dir()


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins so is a TIFF or a BigTIFF."""
    return head.startswith(_TIFF_SIGNATURES)


def is_jpeg2000(head: bytes) -> bool:
    """Whether a file that begins so is a JPEG 2000 image."""
    return head.startswith(_JP2_SIGNATURES)


def refuse_others(path: Path) -> int:
    """Refuse what is no readable TIFF.

    Args:
        path: Absolute path.

    Returns:
        Size of the file in bytes.

    Raises:
        InputMissingError: There is no such file.
        AccessError: It may not be read.
        InputError: It is a folder, a device or another format.
        StorageError: The disk fails, or the TIFF ends before its last tag.
    """
    with _file_errors(path):
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path} is a folder, not a GeoTIFF", "name a file inside it")
        # A named pipe would block on open.
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is no regular file", "name a GeoTIFF file")
        with path.open("rb") as stream:
            _refuse_other_formats(path, stream.read(64))
            lost = _first_loss(stream, status.st_size)
    if lost:
        raise StorageError(f"{path} is truncated: {lost}, the file has {status.st_size} bytes", _AGAIN)
    return status.st_size


def refuse_others_than(path: Path, driver: str) -> int:
    """Refuse what is no regular file, and what does not begin as files of a GDAL driver do.

    Args:
        path: Absolute path.
        driver: ``JP2OpenJPEG`` is checked by its signature; other drivers have none that is sure.

    Returns:
        Size of the file in bytes.

    Raises:
        GeosegError: As :func:`refuse_others` does.
    """
    head = first_bytes(path)
    if driver == "JP2OpenJPEG" and not head.startswith(_JP2_SIGNATURES):
        text = head.lstrip()
        kinds = (kind for magic, kind in _OTHER_SIGNATURES.items() if text.startswith(magic))
        kind = "a TIFF" if head.startswith(_TIFF_SIGNATURES) else next(kinds, "of another format" if head else "empty")
        raise InputError(f"{path} is no JPEG 2000 image: it is {kind}", "download the product again")
    return FileIdentity.of(path).size_bytes


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise AccessError(f"{path}: no permission to read it", "ask for it, or chmod +r") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputMissingError(f"{path}: there is no such file", "check the path") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror})", "check the path and the disk") from error


def _refuse_other_formats(path: Path, head: bytes) -> None:
    if head.startswith(_TIFF_SIGNATURES):
        return
    text = head.lstrip()
    kinds = (kind for magic, kind in _OTHER_SIGNATURES.items() if text.startswith(magic))
    kind = next(kinds, "of another format") if head else "empty"
    hint = "give a GeoTIFF; gdal_translate can make one"
    if kind == "a zip archive":
        hint = f"unpack it; or name the file in it that is the scene: /vsizip/{path}/MEMBER.tif"
    raise InputError(f"{path} is no TIFF: it is {kind}", hint)


def _first_loss(stream: BinaryIO, size_bytes: int) -> str | None:
    """What is described but lies behind the end of the file; None where all is there."""
    stream.seek(0)
    head = stream.read(16)
    order = "<" if head.startswith(b"II") else ">"
    layout = _BIG if b"+" in head[:4] else _CLASSIC
    if len(head) < struct.calcsize(order + layout.header):
        return "the header is incomplete"
    (offset,) = struct.unpack_from(order + layout.header, head)
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(offset)
        entry_bytes, link_bytes = struct.calcsize(order + layout.entry), struct.calcsize(order + layout.link)
        count = _unpack_at(stream, order + layout.count, offset)
        start = offset + struct.calcsize(order + layout.count)
        end = start + (count or 0) * entry_bytes + link_bytes
        if count is None or end > size_bytes:
            return f"its directory at byte {offset} ends behind the end of the file"
        stream.seek(start)
        lost = _lost_tag(stream.read(count * entry_bytes), order, layout, size_bytes)
        if lost is not None:
            return f"its tag {lost} ends behind the end of the file"
        offset = _unpack_at(stream, order + layout.link, end - link_bytes) or 0
    return None


def _unpack_at(stream: BinaryIO, layout: str, offset: int) -> int | None:
    """One number at ``offset``, or None behind the end of the file."""
    try:
        stream.seek(offset)
    except (OSError, OverflowError, ValueError):
        return None
    data = stream.read(struct.calcsize(layout))
    return int(struct.unpack(layout, data)[0]) if len(data) == struct.calcsize(layout) else None


def _lost_tag(entries: bytes, order: str, layout: _Layout, size_bytes: int) -> int | None:
    """The first tag whose value lies, even in part, behind the end of the file."""
    size = struct.calcsize(order + layout.entry)
    for start in range(0, len(entries), size):
        tag, kind, count = struct.unpack_from(order + layout.entry, entries, start)
        value_bytes = _TYPE_BYTES.get(kind, 1) * count
        (offset,) = struct.unpack_from(order + layout.link, entries, start + size - layout.inline_bytes)
        if value_bytes > layout.inline_bytes and offset + value_bytes > size_bytes:
            return int(tag)
    return None
