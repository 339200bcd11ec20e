"""Meets all attacks with the real command line in this process, and prints what each one did: ``meet.py FOLDER``.

An audit hook of the interpreter sees every connection, process and file that Python code begins, and a listing before
and after sees files that libraries touch.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from geoseg_cli.cli import main
from tests.hostile.attacks import ATTACKS
from tests.hostile.corpus import MARKER, build

FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
             "pickle.find_class")  # fmt: skip


class Watch:
    """What happened since :meth:`begin`."""

    def __init__(self) -> None:
        self.events: list[str] | None = None
        sys.addaudithook(self._see)

    def begin(self) -> None:
        self.events = []

    def end(self) -> list[str]:
        events, self.events = self.events or [], None
        return events

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.events is not None and event in FORBIDDEN:
            self.events.append(f"{event} {arguments!r}"[:200])


def listing(folder: Path) -> dict[str, list[int]]:
    """Size and time of every file below a folder, the output folder left out."""
    found = {}
    for place, folders, names in os.walk(folder):
        if "out" in folders:
            folders.remove("out")
        for name in (*folders, *names):
            status = os.lstat(os.path.join(place, name))
            found[os.path.relpath(os.path.join(place, name), folder)] = [status.st_size, status.st_mtime_ns]
    return found


def call(words: list[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stderr
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(words)
    except SystemExit as stop:
        return int(stop.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.stderr = before
    return 0, out.getvalue(), err.getvalue()


def meet_all(root: Path) -> None:
    """One JSON line for each attack."""
    watch = Watch()
    for number, attack in enumerate(ATTACKS):
        folder = root / f"{number:02}"
        words = build(attack, folder)
        (folder / "out").mkdir()
        os.chdir(folder)
        output = ["-o", str(folder / "out" / "map.tif"), "--device", "cpu"]
        place = words.index("--") if "--" in words else len(words)
        before = listing(root)
        watch.begin()
        code, _, err = call([*words[:place], *output, *words[place:]])
        events = watch.end()
        after = listing(root)
        touched = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        left = sorted(os.listdir(folder / "out"))
        is_marked = any(MARKER in names for _, *both in os.walk(root) for names in both)
        print(json.dumps([attack.name, code, err, touched, events, left, is_marked]), flush=True)


if __name__ == "__main__":
    meet_all(Path(sys.argv[1]))
