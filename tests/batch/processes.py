"""Runs in processes of their own, and what is left of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]


def environment(folder: Path, **more: str) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1700000000", "OMP_NUM_THREADS": "1",
        "GEOSEG_TEST_LOG": str(folder / "log.txt"),
    } | more  # fmt: skip


def begin(folder: Path, *arguments: object, **more: str) -> subprocess.Popen[str]:
    """Begin ``cloudmask`` over ``folder/in``, into ``folder/out``, with the bundle ``folder/model``."""
    (folder / "out").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.fakes.batch_tool", "cloudmask", folder / "in", "--out-dir", folder / "out",
               "--model", folder / "model", "--json", *arguments]  # fmt: skip
    return subprocess.Popen(
        [str(part) for part in command], env=environment(folder, **more), cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def statuses(process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
    """What a run told of each scene, by its name."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err, err
    return {Path(line["scene"]).stem: line for line in map(json.loads, out.splitlines())}


def made(folder: Path, word: str = "made") -> Counter[str]:
    """How often each scene's map was made, or ``begun``."""
    lines = [line.split() for line in (folder / "log.txt").read_text().splitlines()]
    return Counter(Path(words[1]).stem for words in lines if words[0] == word)


def wait_for(what: Callable[[], Any], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.02)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes that a process began, whatever depth."""
    return psutil.Process(process.pid).children(recursive=True)


def survivors(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    return psutil.wait_procs(processes, timeout=seconds)[1]


def map_of(folder: Path, stem: str) -> Path:
    return folder / "out" / f"{stem}_cloudmask.tif"
