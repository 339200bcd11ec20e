"""What became of each scene of a folder: append-only lines of JSON in ``.geoseg/journal-*.jsonl``.

Every process that writes has a file of its own, so lines of several never mix; readers take all of them together, in
the order of their times. A line counts once it ends in a line feed: what a killed process left behind is skipped.

====================  ==============================================================================
event                 meaning
====================  ==============================================================================
``started``           the scene is being worked on by ``process`` on ``host``
``publishing``        the finished files have these hashes and are about to get their names
``done``              they have
``kept``              a map that was there was looked at and left (``--skip-existing``)
``failed``            there is no new map, and why
====================  ==============================================================================
"""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from geoseg_cli.batch.tasks import SceneTask, shown
from geoseg_cli.errors import OutputError
from geoseg_cli.results.storage import storage_trouble

FOLDER = ".geoseg"
MOST_PROCESSES = 1 << 31
"""No system numbers its processes further."""
Event = Literal["started", "publishing", "done", "kept", "failed"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that was published.

    Attributes:
        sha256: Of its content, lower-case hex.
        size_bytes: Its length.
    """

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One line.

    Attributes:
        event: What happened.
        time_s: When, in seconds since 1970 of the writer's clock.
        scene: What messages call the scene.
        output: Its map, absolute.
        key: Identity of scene, model and options; empty where it could not be told.
        files: Published files by absolute path.
        seconds: How long it took.
        error: Kind, exit code, message and hint of a failure.
        process, host: Who wrote the line.
    """

    event: Event
    time_s: float
    scene: str
    output: Path
    key: str = ""
    files: Mapping[Path, StoredFile] = field(default_factory=dict)
    seconds: float = 0.0
    error: Mapping[str, Any] = field(default_factory=dict)
    process: int = 0
    host: str = ""

    @property
    def is_own(self) -> bool:
        """Whether this process wrote it."""
        return self.process == os.getpid() and self.host == platform.node()


@dataclass(slots=True)
class History:
    """What is known of one output.

    Attributes:
        last: The newest line.
        published: The newest line with hashes that a run of ours gave the output; None where none did.
        hashes: Every hash that each file was ever published with.
    """

    last: Entry
    published: Entry | None = None
    hashes: dict[Path, set[str]] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether the newest line is of a run that did not tell how it ended."""
        return self.last.event in ("started", "publishing")

    def add(self, entry: Entry) -> None:
        """Take in a line; several processes' lines come in any order, the newest by its time counts."""
        if entry.time_s >= self.last.time_s:
            self.last = entry
        if entry.event in ("publishing", "done"):
            if self.published is None or entry.time_s >= self.published.time_s:
                self.published = entry
            for path, stored in entry.files.items():
                self.hashes.setdefault(path, set()).add(stored.sha256)


class Journal:
    """The journal of a folder; :meth:`write` may be called by several threads.

    Args:
        home: The folder; nothing is made in it before the first line is written.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self._lock = threading.Lock()
        self._stream: Any = None
        self._histories: dict[Path, History] = {}
        self._read_bytes: dict[Path, int] = {}
        self._own: Path | None = None
        self.reload()

    def reload(self) -> None:
        """Read what other processes wrote since the last time.

        Every file is opened: on network file systems only that shows what other machines wrote.
        """
        with self._lock:
            for path in sorted((self.home / FOLDER).glob("journal-*.jsonl")):
                if path == self._own or not path.is_file():  # a pipe would be waited for
                    continue
                entries, self._read_bytes[path] = _entries_from(path, self._read_bytes.get(path, 0), self.home)
                for entry in entries:
                    _take(self._histories, entry)

    def of(self, output: Path) -> History | None:
        """What is known of an output; None where nothing is."""
        with self._lock:
            return self._histories.get(output)

    def outputs(self) -> list[Path]:
        """Every output that any line names, sorted."""
        with self._lock:
            return sorted(self._histories)

    def write(self, task: SceneTask, event: Event, **fields: Any) -> None:
        """Append a line and wait until it is on the disk.

        Args:
            task: The scene.
            event: What happened.
            fields: ``key``, ``files``, ``seconds`` and ``error`` of :class:`Entry`.

        Raises:
            AccessError, StorageError: The folder does not take it.
        """
        task = task.for_any_process()
        with self._lock, storage_trouble(self.home / FOLDER):
            entry = Entry(
                event, self._now(task.output), shown(task.scene), task.output,
                process=os.getpid(), host=platform.node(), **fields,
            )  # fmt: skip
            self._append((json.dumps(self._fields(entry), allow_nan=False) + "\n").encode("ascii"))
            _take(self._histories, entry)

    def close(self) -> None:
        """Close the file of this process."""
        with self._lock:
            if self._stream is not None:
                self._stream.close()
                self._stream = None

    def _append(self, line: bytes) -> None:
        if self._stream is None:
            self._stream = self._open()
        try:
            while line:  # a disk that is nearly full takes a part
                line = line[self._stream.write(line) or 0 :]
            os.fsync(self._stream.fileno())
        except BaseException:
            # The next line begins a file of its own: behind half a line it would be lost as well.
            self._stream.close()
            self._stream = None
            raise

    def _now(self, output: Path) -> float:
        """The time of a new line: later than all that is known of the output, though a clock was set back."""
        known = self._histories.get(output)
        return max(time.time(), math.nextafter(known.last.time_s, math.inf)) if known else time.time()

    def _open(self) -> Any:
        if not self.home.is_dir():
            raise OutputError(f"there is no folder {self.home}", f"make it first: mkdir -p {self.home}")
        folder = self.home / FOLDER
        folder.mkdir(exist_ok=True)
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}-{secrets.token_hex(4)}"
        self._own = folder / f"journal-{stamp}.jsonl"
        # Unbuffered: a line reaches the system in one write.
        stream = open(self._own, "xb", buffering=0)  # noqa: SIM115 - open for the whole run
        if os.name == "posix":
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return stream

    def _fields(self, entry: Entry) -> dict[str, Any]:
        files = {
            self._name(path): {"sha256": stored.sha256, "size": stored.size_bytes}
            for path, stored in entry.files.items()
        }
        known = {
            "key": entry.key,
            "files": files,
            "seconds": round(entry.seconds, 3),
            "error": dict(entry.error),
            "process": entry.process,
            "host": entry.host,
        }
        head = {"v": 1, "time": entry.time_s, "event": entry.event, "scene": self._name_of_scene(entry.scene)}
        return head | {"output": self._name(entry.output)} | {name: value for name, value in known.items() if value}

    def _name(self, path: Path) -> str:
        """Relative to the folder where it lies below it, so that the whole may be moved."""
        return path.relative_to(self.home).as_posix() if path.is_relative_to(self.home) else str(path)

    def _name_of_scene(self, scene: str) -> str:
        return self._name(Path(scene)) if os.path.isabs(scene) else scene


def merged(histories: Sequence[History]) -> History | None:
    """What several journals know of one output; None where none knows it."""
    if not histories:
        return None
    oldest, *others = sorted(histories, key=lambda history: history.last.time_s)
    found = History(oldest.last, oldest.published, {path: set(known) for path, known in oldest.hashes.items()})
    for other in others:
        found.last = other.last
        if other.published and (found.published is None or other.published.time_s > found.published.time_s):
            found.published = other.published
        for path, known in other.hashes.items():
            found.hashes.setdefault(path, set()).update(known)
    return found


def _entries_from(path: Path, start: int, home: Path) -> tuple[list[Entry], int]:
    """The whole lines of a file from a byte on, and where they end; what is torn or not understood is left out."""
    with storage_trouble(path, "read"), open(path, "rb") as stream:
        stream.seek(start)
        data = stream.read()
    whole = data[: data.rfind(b"\n") + 1]
    found = (_parsed(line, home) for line in whole.splitlines())
    return [entry for entry in found if entry is not None], start + len(whole)


def _parsed(line: bytes, home: Path) -> Entry | None:
    try:
        fields = json.loads(line)
        if fields["v"] != 1 or fields["event"] not in get_args(Event):
            return None
        files = {
            home / name: StoredFile(str(stored["sha256"]), int(stored["size"]))
            for name, stored in fields.get("files", {}).items()
        }
        entry = Entry(
            fields["event"], float(fields["time"]), str(fields["scene"]), home / str(fields["output"]),
            str(fields.get("key", "")), files, float(fields.get("seconds", 0)), dict(fields.get("error", {})),
            int(fields.get("process", 0)), str(fields.get("host", "")),
        )  # fmt: skip
    except (ArithmeticError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return entry if math.isfinite(entry.time_s) and 0 <= entry.process < MOST_PROCESSES else None


def _take(histories: dict[Path, History], entry: Entry) -> None:
    histories.setdefault(entry.output, History(entry)).add(entry)
