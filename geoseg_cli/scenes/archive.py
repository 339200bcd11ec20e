"""Lists zip archives that may come from anyone, and reads small members of them.

Nothing is ever unpacked. GDAL reads the images through ``/vsizip/``; Python reads the metadata, with a bound.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from geoseg_cli.errors import AccessError, InputError, StorageError

GIB = 1 << 30

MAX_MEMBERS = 1000
"""A Sentinel-2 product has fewer than 200."""

MAX_TOTAL_BYTES = 16 * GIB
"""All members, unpacked; a Sentinel-2 product has about 1 GiB."""

MAX_RATIO = 100
"""Unpacked to packed bytes of a member that is read by :meth:`Archive.read`; XML is near 10."""

_MAX_READ_BYTES = 4 * 2**20
"""Bound of one read of the archive itself, so that its directory cannot fill the memory."""

_CHUNK_BYTES = 2**20

_ENCRYPTED = 0x41
"""Flag bits of encryption, simple and strong (APPNOTE 4.4.4)."""

_AGAIN = "download the product again, from a source that you trust"


class _BoundedFile(io.FileIO):
    """A file of which nobody can ask for gigabytes at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes.

        Raises:
            zipfile.BadZipFile: More was asked for than the directory of an honest archive takes.
        """
        wanted = _MAX_READ_BYTES + 1 if size is None or size < 0 else size
        data = super().read(wanted) if wanted <= _MAX_READ_BYTES + 1 else None
        if data is None or len(data) > _MAX_READ_BYTES:
            raise zipfile.BadZipFile(f"its directory is larger than {_MAX_READ_BYTES} bytes")
        return data


@dataclass(frozen=True, slots=True)
class Archive:
    """What a zip file says it holds.

    Attributes:
        path: Absolute path of the file.
        members: All entries, folders included, in the file's order.
    """

    path: Path
    members: tuple[zipfile.ZipInfo, ...]

    @property
    def names(self) -> frozenset[str]:
        """Names of all entries."""
        return frozenset(member.filename for member in self.members)

    def gdal_name(self, name: str) -> str:
        """What GDAL opens to read a member."""
        return f"/vsizip/{self.path}/{name}"

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read a member.

        Args:
            name: One of :attr:`names`.
            max_bytes: Largest size, unpacked.

        Raises:
            InputError: It is larger, or packed more than :data:`MAX_RATIO` times smaller.
            StorageError: It is damaged.
        """
        member = next(member for member in self.members if member.filename == name)
        if member.file_size > min(max_bytes, MAX_RATIO * member.compress_size):
            raise InputError(
                f"{self.path}: {name} would unpack from {member.compress_size} to {member.file_size} bytes", _AGAIN
            )
        with _zip_errors(self.path), _open(self.path) as file, file.open(member) as stream:
            # zipfile gives no more than the size it states, which is bounded above.
            return b"".join(iter(lambda: stream.read(_CHUNK_BYTES), b""))


def list_archive(path: Path) -> Archive | None:
    """List a zip file without judging what it holds.

    Args:
        path: Absolute path of a regular file.

    Returns:
        None where it is no zip file, or its directory is damaged, cut off or larger than any product's.

    Raises:
        AccessError: It may not be read.
        StorageError: The disk fails.
    """
    try:
        with _open(path) as file:
            return Archive(path, tuple(file.infolist()))
    except PermissionError as error:
        raise AccessError(f"{path}: no permission to read it", "ask for it, or chmod +r") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror})", "check the path and the disk") from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
        return None


def refuse_unsafe(archive: Archive) -> None:
    """Refuse an archive that no honest packer makes.

    Raises:
        InputError: It has too many members, is too large, or a member leaves the archive, is a link or a device, is
            there twice, is encrypted, or packed by another method than store and deflate.
    """
    if len(archive.members) > MAX_MEMBERS:
        raise InputError(f"{archive.path} has {len(archive.members)} members, more than {MAX_MEMBERS}", _AGAIN)
    total = sum(member.file_size for member in archive.members)
    if total > MAX_TOTAL_BYTES:
        raise InputError(f"{archive.path} would unpack to {total / GIB:.1f} GiB", _AGAIN)
    seen: set[str] = set()
    for member in archive.members:
        name = member.filename.rstrip("/")
        flaw = _flaw(member) or ("is there twice" if name in seen else None)
        if flaw:
            raise InputError(f"{archive.path}: its member {member.orig_filename[:120]!r} {flaw}", _AGAIN)
        seen.add(name)


def _flaw(member: zipfile.ZipInfo) -> str | None:
    """What is wrong with a member, as a part of a sentence; None where nothing is."""
    # zipfile cuts names at NUL; judge the name as it is stored.
    name = member.orig_filename
    parts = name.removesuffix("/").split("/")
    if "\\" in name or ":" in name or not name.isprintable() or any(part in ("", ".", "..") for part in parts):
        return "has a name that may lead out of the archive"
    # Packers other than Unix ones leave the mode 0.
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is packed by method {member.compress_type}, not by store or deflate"
    return None


def verify_member(gdal_name: str) -> None:
    """Compare a member with the checksum that the archive states: GDAL does not, and shows damage as pixels.

    Args:
        gdal_name: ``/vsizip/ARCHIVE/MEMBER``.

    Raises:
        StorageError: The member is damaged.
    """
    rest = gdal_name.removeprefix("/vsizip/")
    for place in (place for place, sign in enumerate(rest) if sign == "/" and place):
        path, name = rest[:place], rest[place + 1 :]
        if path.lower().endswith(".zip") and os.path.isfile(path):
            status = os.stat(path)
            _verify(path, name, status.st_size, status.st_mtime_ns)
            return


@lru_cache(maxsize=256)
def _verify(path: str, name: str, size_bytes: int, mtime_ns: int) -> None:
    """Once for each member of an archive that nobody changed."""
    try:
        with _open(Path(path)) as file, file.open(name) as stream:
            while stream.read(_CHUNK_BYTES):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise StorageError(f"{path}: its member {name} is damaged ({error})", "copy or download it again") from error
    except KeyError as error:
        raise StorageError(f"{path} has no member {name}", "copy or download it again") from error


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    with _BoundedFile(path) as stream, zipfile.ZipFile(stream) as file:
        yield file


@contextmanager
def _zip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise StorageError(f"{path} is truncated or damaged ({error})", "copy or download it again") from error
