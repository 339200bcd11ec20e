"""Whether somebody works on an output, without getting in the way."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

from geoseg_cli.results.lock import STALE_AFTER_S, lock_path
from geoseg_cli.results.storage import storage_trouble

try:
    from fcntl import LOCK_NB, LOCK_SH, flock
except ImportError:  # no POSIX system
    LOCK_NB = LOCK_SH = 0  # type: ignore[misc]

    def flock(fd: int, operation: int, /) -> None:  # type: ignore[misc]
        """Stand for a system without such locks: the signs of life decide."""


def is_held(target: Path) -> bool:
    """Whether a run holds an output.

    A run of this machine holds it while the system says so; one of another machine also while it gave a sign of life
    within ``STALE_AFTER_S``. Looking takes the lock for a moment, in a way that several lookers share.

    Raises:
        AccessError, StorageError: The lock file cannot be read.
    """
    path = lock_path(target)
    with storage_trouble(path, "read"):
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            return False
        try:
            return _is_held(descriptor)
        finally:
            os.close(descriptor)


def _is_held(descriptor: int) -> bool:
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # no such locks here: the signs of life decide
    age_s = time.time() - os.fstat(descriptor).st_mtime
    try:
        host = json.loads(os.read(descriptor, 4096)).get("host")
    except (ValueError, AttributeError):
        return False
    return host != platform.node() and age_s < STALE_AFTER_S
