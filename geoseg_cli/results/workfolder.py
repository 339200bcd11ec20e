"""The hidden folder beside an output in which it is made; on the same file system, so that a rename publishes it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from geoseg_cli.results.storage import storage_trouble

PREFIX_BYTES = 120
"""Bytes of an output's name that its work folder's name takes over; file systems allow 255 in all."""
LONG_NAME_BYTES = 200


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """``.<name>.part-<process>-<machine><random>`` with one folder each for new, temporary and old files."""

    path: Path

    @classmethod
    def beside(cls, target: Path) -> WorkFolder:
        """Name one for an output; it is not made yet."""
        return cls(target.with_name(f"{_prefix(target)}{os.getpid()}-{_machine_key()}{secrets.token_hex(4)}"))

    def make(self, target: Path) -> None:
        """Make the folder.

        Args:
            target: The output that error messages name.

        Raises:
            AccessError, StorageError: The file system refuses.
        """
        with storage_trouble(target):
            self.path.mkdir(mode=0o700)
            for part in ("new", "scratch", "aside"):
                (self.path / part).mkdir()

    def new(self, name: str) -> Path:
        """Where a file is written that will be published under this name.

        Long names are replaced: GDAL needs room to append to them for its own temporary files.
        """
        if len(os.fsencode(name)) > LONG_NAME_BYTES:
            name = hashlib.sha256(os.fsencode(name)).hexdigest() + Path(name).suffix[:16]
        return self.path / "new" / name

    def scratch(self, name: str) -> Path:
        """Where a file is written that will not be published."""
        return self.path / "scratch" / name

    def aside(self, name: str) -> Path:
        """Where an old file is kept until its successor is safe."""
        return self.path / "aside" / name

    def remove(self) -> None:
        """Delete everything; what cannot be deleted stays for a later run."""
        shutil.rmtree(self.path, ignore_errors=True)


def remove_dead_work(target: Path) -> None:
    """Remove the work folders of an output whose process is gone.

    Only those made on this machine (and in this container) are looked at, because a process number says
    nothing about another one's processes.
    """
    pattern = re.compile(re.escape(_prefix(target)) + r"(\d{1,9})-" + _machine_key() + "[0-9a-f]{8}")
    with storage_trouble(target):
        for entry in target.parent.iterdir():
            match = pattern.fullmatch(entry.name)
            if match and not _is_running(int(match[1])):
                WorkFolder(entry).remove()


def _prefix(target: Path) -> str:
    # A name cut inside a character of several bytes loses that character.
    return f".{os.fsencode(target.name)[:PREFIX_BYTES].decode('utf-8', errors='ignore')}.part-"


def _machine_key() -> str:
    """Eight hex digits for the space in which a process number means something: machine and pid namespace."""
    space = platform.node()
    with contextlib.suppress(OSError):
        space += os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(space.encode()).hexdigest()[:8]


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True  # os.kill(pid, 0) would end the process there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
