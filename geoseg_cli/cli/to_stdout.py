"""A finished map on standard output: made and checked in a folder of its own, then sent as it is."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geoseg_cli.errors import StorageError, UsageError

NAMES = (Path("-"), Path("/vsistdout/"))


def refuse_to_mix(given: dict[str, Any]) -> None:
    """Refuse what would put anything beside one map on standard output.

    Raises:
        UsageError: Reports, several scenes, or a person at a terminal.
    """
    if given["json"]:
        raise UsageError("--json and the map cannot both go to standard output", "name a file with -o")
    if len(given["scenes"]) > 1:
        raise UsageError("standard output takes one map, but there are several scenes", "use --out-dir")
    if given["dry_run"]:
        raise UsageError("--dry-run makes no map that standard output could take", "leave out -o")
    if sys.stdout.isatty():
        raise UsageError("standard output is a terminal, which cannot show a map", "send it into a file or a pipe")


@contextmanager
def folder_for_one_map() -> Iterator[Path]:
    """A folder where temporary files go, removed at the end.

    Raises:
        StorageError: There is no room for one.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="geoseg-")
    except OSError as error:
        raise StorageError(f"no folder takes temporary files: {error}", "make room, or set TMPDIR") from error
    with made as folder:
        yield Path(folder)


def send(path: Path) -> None:
    """Copy a file to standard output.

    Raises:
        StorageError: It does not take it all.
    """
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        raise StorageError("the reader of standard output left before it had the whole map", "see why") from None
    except OSError as error:
        raise StorageError(f"standard output does not take the map: {error}", "see where it is sent to") from error
