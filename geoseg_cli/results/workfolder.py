"""The hidden folder beside an output in which it is made; on the same file system, so that a rename publishes it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from geoseg_cli.results.storage import storage_trouble

PREFIX_BYTES = 120
"""Bytes of an output's name that its work folder's name takes over; file systems allow 255 in all."""
LONG_NAME_BYTES = 200
PARTS = ("new", "scratch", "aside")
NOBODY = 0
"""Stands for the process in the name of a folder that was left on purpose."""


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """``.<name>.part-<process>-<machine><random>`` with one folder each for new, temporary and old files.

    The process is 0 where an interrupted one left the folder on purpose.
    """

    path: Path

    @classmethod
    def beside(cls, target: Path) -> WorkFolder:
        """Name one for an output; it is not made yet."""
        return cls._of(target, os.getpid())

    @classmethod
    def _of(cls, target: Path, process: int) -> WorkFolder:
        return cls(target.with_name(f"{_prefix(target)}{process}-{_machine_key()}{secrets.token_hex(4)}"))

    def make(self, target: Path) -> None:
        """Make the folder.

        Args:
            target: The output that error messages name.

        Raises:
            AccessError, StorageError: The file system refuses.
        """
        with storage_trouble(target):
            self.path.mkdir(mode=0o700)
            for part in PARTS:
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

    @property
    def checkpoint(self) -> Path:
        """The file that says how far the work is; the next run for the same output may go on where it is there."""
        return self.path / "checkpoint"

    def take(self, dead: WorkFolder, target: Path) -> None:
        """Become the folder that a dead process left, but for what it was about to publish.

        Raises:
            AccessError, StorageError: The file system refuses.
        """
        with storage_trouble(target):
            os.rename(dead.path, self.path)  # its name is that of a living process from here on
            for part in ("new", "aside"):
                shutil.rmtree(self.path / part, ignore_errors=True)
            for part in PARTS:  # the dead one may have been about to remove them all
                (self.path / part).mkdir(exist_ok=True)

    def leave(self, target: Path) -> None:
        """Keep the folder for the next run, though this process may go on without it."""
        for part in ("new", "aside"):
            shutil.rmtree(self.path / part, ignore_errors=True)
            (self.path / part).mkdir(exist_ok=True)
        os.rename(self.path, self._of(target, NOBODY).path)

    def remove(self) -> None:
        """Delete everything; what cannot be deleted stays for a later run."""
        shutil.rmtree(self.path, ignore_errors=True)


def has_leftovers(target: Path, names: Iterable[str]) -> bool:
    """Whether the names of a folder's files tell of work for an output, of a living run or a dead one."""
    return any(name.startswith(_prefix(target)) for name in names)


def remove_dead_work(target: Path, *, keep_resumable: bool = False) -> None:
    """Remove the work folders of an output whose process is gone.

    Args:
        target: The output.
        keep_resumable: Whether those with a checkpoint stay.
    """
    for folder in dead_work(target):
        if not (keep_resumable and folder.checkpoint.exists()):
            folder.remove()


def dead_work(target: Path) -> list[WorkFolder]:
    """The work folders of an output whose process is gone.

    Only those made on this machine (and in this container) are looked at, because a process number says
    nothing about another one's processes.
    """
    pattern = re.compile(re.escape(_prefix(target)) + r"(\d{1,9})-" + _machine_key() + "[0-9a-f]{8}")
    with storage_trouble(target):
        found = [(entry, pattern.fullmatch(entry.name)) for entry in target.parent.iterdir()]
    return [WorkFolder(entry) for entry, match in found if match and not _is_running(int(match[1]))]


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
    if process == NOBODY:
        return False
    if os.name != "posix":
        return True  # os.kill(pid, 0) would end the process there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
