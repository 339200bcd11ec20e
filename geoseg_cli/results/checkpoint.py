"""Which rows of the work rasters are finished: a file that only grows, so that the next run can go on where one died.

The first line says what the work is for, every further one how far it is: the rows that are finished, a CRC-32 of what
each raster got since the line before, and what the run must know to go on from there. A line begins with its own
CRC-32. Nothing is believed: the first line that is torn, or whose pixels are not in the work raster, ends the list.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYNC_EVERY_S = 5.0
"""Least seconds between two times of waiting for the disk; only a loss of power makes the difference."""
SYNC_SHARE = 0.01
"""Share of a run that waiting for the disk may take."""
MAX_LINE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One line.

    Attributes:
        rows: Rows of the output that are finished.
        crc: For each raster's name, the CRC-32 of its (B, h, W) pixels since the entry before.
        state: What the run must know to go on, in plain types.
    """

    rows: int
    crc: Mapping[str, int]
    state: Any


class CheckpointLog:
    """The file of a run that is going on."""

    def __init__(self, path: Path, key: str, entries: int | None = None) -> None:
        """Begin the file, or go on after its first ``entries`` entries.

        Args:
            path: The file.
            key: What the work is for.
            entries: How many entries stay; None for a new file.

        Raises:
            OSError: The disk does not take it.
        """
        kept = [] if entries is None else path.read_bytes().splitlines(keepends=True)[: 1 + entries]
        self._file = open(path, "wb" if entries is None else "r+b", buffering=0)  # noqa: SIM115 - see close()
        if entries is None:
            self._append({"key": key})
        else:
            self._file.seek(sum(map(len, kept)))
            self._file.truncate()
        self._synced_at, self._pause_s = time.monotonic(), SYNC_EVERY_S

    def append(self, entry: Entry) -> None:
        """Add an entry; it outlives the process as soon as this returns."""
        self._append({"rows": entry.rows, "crc": dict(entry.crc), "state": entry.state})

    @property
    def is_sync_due(self) -> bool:
        """Whether it is time to wait for the disk."""
        return time.monotonic() - self._synced_at >= self._pause_s

    def sync(self, works: Iterable[Callable[[], None]]) -> None:
        """Wait for the disk: for the work first, then for this file.

        Args:
            works: Each waits for one raster.
        """
        started = time.monotonic()
        for wait in works:
            wait()
        os.fsync(self._file.fileno())
        self._synced_at = time.monotonic()
        self._pause_s = max(SYNC_EVERY_S, (self._synced_at - started) / SYNC_SHARE)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        while line:
            line = line[self._file.write(line) or 0 :]


def key_in(path: Path) -> str | None:
    """What the work of a checkpoint file is for; None for no such file, or one without a whole first line."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        content = _content(file.readline(MAX_LINE_BYTES))
        if content is not None and isinstance(content.get("key"), str):
            return str(content["key"])
    return None


def entries_in(path: Path) -> Iterator[Entry]:
    """The entries up to the first that is torn, or does not go on where the last one ended."""
    rows = 0
    with path.open("rb") as file:
        file.readline(MAX_LINE_BYTES)
        while (content := _content(file.readline(MAX_LINE_BYTES))) is not None:
            entry = Entry(content["rows"], content["crc"], content["state"])
            if entry.rows <= rows:
                return
            rows = entry.rows
            yield entry


def _content(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is torn."""
    stated, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or stated != b"%08x" % zlib.crc32(text):
        return None
    content = json.loads(text)
    return content if isinstance(content, dict) else None
