"""One run for one output: a lock file beside it says who works on it, and goes when the work is done.

``.map.tif.lock`` holds the process, its machine, when it began and a number of the run. Where the file system knows
``flock`` the lock is the system's: it ends with the process, however that dies, and the next run takes the file over.
Locks of other machines may be invisible on a shared folder. So the file's time is renewed while the run works, and a
file of another machine is respected until it has not been renewed for ``STALE_AFTER_S``; without ``flock`` creating the
file is the lock. The clocks of the machines must agree to within a minute.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from geoseg_cli.errors import BusyError
from geoseg_cli.results.storage import storage_trouble

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # no POSIX system
    LOCK_EX = LOCK_NB = 0  # type: ignore[misc]

    def flock(fd: int, operation: int, /) -> None:  # type: ignore[misc]
        """Stand for a system without such locks."""
        raise OSError(errno.ENOSYS, "no flock here")


RENEWED_EVERY_S = 20.0
"""Seconds between two signs of life."""
STALE_AFTER_S = 120.0
"""Seconds without a sign of life after which another machine's lock is taken over."""
LONG_NAME_BYTES = 240
"""Names of outputs up to this length keep it in the name of the lock; file systems allow 255 in all."""
MOST_ATTEMPTS = 100
"""Each attempt but the last met a holder that left at that very moment."""

_OPEN_FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_NO_FLOCK = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}

_log = logging.getLogger(__name__)


class OutputLock:
    """Context manager that holds outputs for one run.

    Usage::

        with OutputLock([out]):
            work()

    Entering never waits: outputs that another run holds are refused at once.

    Attributes:
        targets: The outputs, which need not exist; their folders must.
    """

    def __init__(self, targets: Iterable[Path]) -> None:
        """Name what is to be held; nothing is touched."""
        # In one order for everybody: of two runs with common outputs one always gets all of them.
        self.targets = tuple(sorted({Path(target).absolute() for target in targets}))
        self._held: list[_Held] = []
        self._done = threading.Event()
        self._renewing: threading.Thread | None = None

    def __enter__(self) -> OutputLock:
        """Take the outputs.

        Raises:
            BusyError: Another run holds one of them.
            AccessError, StorageError: A lock file cannot be made.
        """
        try:
            for target in self.targets:
                held = _Held(target)
                self._held.append(held)
                held.take()
            self._done.clear()
            self._renewing = threading.Thread(target=self._renew, name="geoseg-lock", daemon=True)
            self._renewing.start()
            return self
        except BaseException:
            self.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the outputs up and remove the lock files; safe to call again."""
        try:
            self._release()
        except BaseException:  # a signal in the middle of it: finish, then go
            self._release()
            raise

    def _release(self) -> None:
        self._done.set()
        # One that a signal kept from being started cannot be waited for.
        if self._renewing is not None and self._renewing.is_alive():
            self._renewing.join()
        self._renewing = None
        while self._held:
            self._held[-1].give_up()
            self._held.pop()

    def _renew(self) -> None:
        while not self._done.wait(RENEWED_EVERY_S):
            for held in list(self._held):
                held.renew()


def lock_path(target: Path) -> Path:
    """The lock file of an output."""
    name = target.name
    if len(os.fsencode(name)) > LONG_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return target.with_name(f".{name}.lock")


class _Held:
    """The lock file of one output, from when it is opened until it is removed."""

    def __init__(self, target: Path) -> None:
        self._target, self._path = target, lock_path(target)
        self._descriptor: int | None = None
        self._is_opening = self._is_ours = False

    def take(self) -> None:
        with storage_trouble(self._target):
            for _ in range(MOST_ATTEMPTS):
                if self._attempt():
                    return
        raise self._busy({})

    def renew(self) -> None:
        with contextlib.suppress(OSError):
            os.utime(self._path)

    def give_up(self) -> None:
        if self._is_opening and self._descriptor is None:  # a signal came before the number of the open file was noted
            self._is_opening = False
            with contextlib.suppress(OSError):
                self._descriptor = os.open(self._path, _OPEN_FLAGS)
        # Removed while it is still locked: whoever opened it meanwhile finds that the name is no longer its own.
        if self._is_ours or self._is_nobodys():
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._is_ours = False
        self._close()

    def _is_nobodys(self) -> bool:
        """Whether a signal came between creating the file and writing to it, and nobody else has it."""
        try:
            return self._descriptor is not None and self._flock() and self._is_named() and not self._holder()
        except (OSError, BusyError):
            return False

    def _close(self) -> None:
        # Forgotten before it is closed: closing twice would hit another file of that number.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _attempt(self) -> bool:
        """Try once; False where the file came, went or was replaced between two steps."""
        is_new = self._open()
        if self._descriptor is None:
            return False
        try:
            if self._flock():
                if not self._is_named():
                    self._close()
                    return False
                self._refuse_living(has_flock=True)
            elif not is_new:
                self._refuse_living(has_flock=False)
                self._move_away()
                return False
            self._is_ours = True
            self._write()
        except (BusyError, OSError):
            if not self._is_ours:
                self._close()
            raise
        return True

    def _open(self) -> bool:
        """Open the file; whether it was created. None is open where it was removed between two steps."""
        self._is_opening = True
        try:
            self._descriptor = os.open(self._path, _OPEN_FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
            is_new = True
        except FileExistsError:
            is_new = False
            with contextlib.suppress(FileNotFoundError):
                self._descriptor = os.open(self._path, _OPEN_FLAGS)
        self._is_opening = False
        return is_new

    def _flock(self) -> bool:
        """Lock the open file; False where nobody can.

        Raises:
            BusyError: Somebody has.
        """
        assert self._descriptor is not None
        try:
            flock(self._descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise self._busy(self._holder()) from None
        except OSError as error:
            if error.errno in _NO_FLOCK:
                return False
            raise
        return True

    def _is_named(self) -> bool:
        """Whether the open file is still the one of that name."""
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def _refuse_living(self, has_flock: bool) -> None:
        """Look at what another run left in the file; returns where that run is dead.

        Raises:
            BusyError: It may live.
        """
        assert self._descriptor is not None
        holder, age_s = self._holder(), time.time() - os.fstat(self._descriptor).st_mtime
        if has_flock and not holder:
            return  # new, or its maker was killed before the first word: the system's lock decides
        if holder.get("host") == platform.node():
            is_alive = not has_flock and not _is_gone(holder)
        else:
            is_alive = age_s < STALE_AFTER_S
        if is_alive:
            raise self._busy(holder)
        _log.info("%s: took over the lock of process %s, which is gone", self._target, holder.get("pid", "unknown"))

    def _move_away(self) -> None:
        """Remove a dead run's file where only creating one excludes others; never a living run's."""
        assert self._descriptor is not None
        dead, aside = os.fstat(self._descriptor), self._path.with_name(f".{secrets.token_hex(8)}.lock")
        try:
            os.rename(self._path, aside)
            # The dead one is still open, so no new file can have its number.
            if not os.path.samestat(os.lstat(aside), dead):  # somebody was faster, and this is his
                with contextlib.suppress(OSError):
                    os.link(aside, self._path)
            aside.unlink()
        except FileNotFoundError:
            pass
        finally:
            self._close()

    def _write(self) -> None:
        assert self._descriptor is not None
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = {"pid": os.getpid(), "host": platform.node(), "since": since, "run": secrets.token_hex(8)}
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, (json.dumps(text) + "\n").encode())

    def _holder(self) -> dict[str, Any]:
        """What the open file says; empty where it says nothing yet."""
        assert self._descriptor is not None
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        try:
            said = json.loads(os.read(self._descriptor, 4096))
        except (ValueError, RecursionError):
            return {}
        return said if isinstance(said, dict) else {}

    def _busy(self, holder: dict[str, Any]) -> BusyError:
        who = "another run"
        if holder:
            who = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
        return BusyError(
            f"{self._target} is held by {who}", "wait until that run has ended, or choose another name for the output"
        )


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the process of this machine that holds a lock has ended."""
    process = holder.get("pid")
    if os.name != "posix" or not isinstance(process, int) or process <= 0:
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # no system has a process of such a number
        return True
    except PermissionError:
        pass
    return False
