"""Counts the file operations of this process below a folder, and lets one of them go wrong.

Python's operations are seen by an audit hook (open, rename, link, unlink, mkdir, rmdir, listing, utime, chmod, flock),
by replacements of ``os.fsync`` and ``os.write``, and by a file class for every write. What GDAL writes is not seen: a
full disk, a limit on the size of files and kills at random times meet that. Nothing is undone: only for processes that
end soon.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

Act = Literal["ENOSPC", "EIO", "KILL", "TERM"]
ACTS: tuple[Act, ...] = ("ENOSPC", "EIO", "KILL", "TERM")

SEEN = frozenset({
    "open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "os.utime",
    "os.chmod", "os.truncate", "fcntl.flock",
})  # fmt: skip


class Shim:
    """Watches a folder from when it is installed.

    Args:
        folder: Operations below it count.
        at: Number of the operation that goes wrong, from 1; 0 for none.
        act: What happens there.

    Attributes:
        done: Names of the operations so far, with the file's where that is known.
    """

    def __init__(self, folder: Path, at: int = 0, act: Act = "EIO") -> None:
        self._folder, self._at, self._act = os.path.realpath(folder), at, act
        self.done: list[str] = []

    def install(self) -> None:
        """Begin to watch; the process cannot be rid of it."""
        self._replace("fsync", os.fsync)
        self._replace("write", os.write)
        builtins.open = io.open = self._opener(io.open)  # type: ignore[assignment]
        sys.addaudithook(self._hook)

    def count(self, name: str, what: Any, before: Callable[[], Any] = lambda: None) -> None:
        """Count an operation on a path or open file; ``before`` is what a fault leaves half done."""
        self.done.append(f"{name} {os.path.basename(_path_of(what))}")
        if len(self.done) != self._at:
            return
        before()
        if self._act == "KILL":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._act == "TERM":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            number = getattr(errno, self._act)
            raise OSError(number, os.strerror(number))

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in SEEN and self._is_below(arguments[0]):
            self.count(event, arguments[0])

    def _is_below(self, what: Any) -> bool:
        """Whether a path or an open file lies in the folder; what rmtree names is relative to an open folder."""
        path = _path_of(what)
        if not os.path.isabs(path):
            return path != ""
        return path == self._folder or path.startswith(self._folder + os.sep)

    def _replace(self, name: str, real: Callable[..., Any]) -> None:
        def counted(descriptor: int, *more: Any) -> Any:
            if self._is_below(descriptor):
                self.count(name, descriptor)
            return real(descriptor, *more)

        setattr(os, name, counted)

    def _opener(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wxa+") or not self._is_below(file):
                return real(file, mode, buffering, *more, **named)
            raw = _CountedFile(self, os.fspath(file), mode.replace("b", "").replace("t", ""))
            if buffering == 0:
                return raw
            buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffer if "b" in mode else io.TextIOWrapper(buffer, *more, **named)

        return opened


def _path_of(what: Any) -> str:
    """The path of what an operation names; empty for what is no file."""
    if isinstance(what, int):
        try:
            return os.readlink(f"/proc/self/fd/{what}")
        except OSError:
            return ""
    return os.fsdecode(what) if isinstance(what, str | bytes | os.PathLike) else ""


class _CountedFile(io.FileIO):
    """A file whose every write counts; one that fails has taken half of its bytes before."""

    def __init__(self, shim: Shim, path: str, mode: str) -> None:
        self._shim = shim
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        whole = memoryview(data).cast("B")
        self._shim.count("write", self.name, lambda: super(_CountedFile, self).write(whole[: len(whole) // 2]))
        return super().write(whole) or 0
