"""Small runs that are put through faults: what they start from, what they must end with.

The model's answer is the class that the scene was drawn with (``tests/failures/scenes.py``), so numpy knows the map.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geoseg_cli.cli import main
from tests.engines.pixelwise import write_pixelwise_bundle
from tests.failures.scenes import NEAREST, draw, write_red
from tests.faults.shim import Act, Shim

HEIGHT, WIDTH = 150, 100
OLD_EPOCH, NEW_EPOCH = "1700000000", "1767312000"
MAP, SURE = "map.tif", "sure.tif"
BESIDE = {MAP: ("map.tif.aux.xml", "map.qml", "map.json")}
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Stage:
    """A run.

    Attributes:
        name: For tables.
        root: Holds the scenes, the model and ``start``, the folder that every try begins with a copy of.
        arguments: Of the command line, with ``{root}`` and ``{out}``.
        maps: Each map and what lies beside it; other outputs stand alone.
        old, new: Visible outputs before the run and after it.
        failed_codes: Exit codes of a run that met an error of the disk.
    """

    name: str
    root: Path
    arguments: tuple[str, ...]
    maps: Mapping[str, tuple[str, ...]]
    old: Files = field(default_factory=dict)
    new: Files = field(default_factory=dict)
    failed_codes: tuple[int, ...] = (74,)

    @property
    def start(self) -> Path:
        """What lies there before the run."""
        return self.root / "start" / "out"

    def prepare(self, out: Path) -> Path:
        """A fresh output folder."""
        shutil.copytree(self.start, out, symlinks=True)
        return out

    def run(self, out: Path, epoch: str = NEW_EPOCH) -> None:
        """The command, in this process, to the process's end."""
        os.environ["SOURCE_DATE_EPOCH"] = epoch
        words = [word.format(root=self.root, out=out) for word in self.arguments]
        main([*words, *COMMON, "--model", str(self.root / "model")], "geoseg")


COMMON = ("--engine", "onnx", "--device", "cpu", "--batch", "1", "--tile", "64", "--overlap", "16", "-q")
ONE = ("cloudmask", "{root}/in/scene.tif", "-o", "{out}/map.tif", "--confidence", "{out}/sure.tif")
MANY = ("cloudmask", "{root}/many", "--out-dir", "{out}", "--max-memory", "2GB")


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, a negative one for a signal, and what it said."""

    code: int
    said: str


def in_child(body: Callable[[], Any], log: Path, kill_after_s: float | None = None) -> Ended:
    """Run in a forked process."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
            body()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            os._exit(code)
    os.close(descriptor)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, 9)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))


def visible(out: Path) -> dict[str, bytes]:
    """The files that a user sees, by name."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if not path.name.startswith(".")}


def hidden(out: Path) -> list[str]:
    """All else, but for the journal of a folder."""
    return [path.name for path in out.iterdir() if path.name.startswith(".") and path.name != ".geoseg"]


def make_inputs(root: Path) -> None:
    """Two scenes of the same name, and the model; in a process of its own, which opens data sets."""
    for folder, seed in (("in", 2), ("older", 1)):
        write_red(root / folder / "scene.tif", draw(HEIGHT, WIDTH, seed))
    for seed, name in enumerate(("a.tif", "b.tif")):
        write_red(root / "many" / name, draw(60, 50, seed + 3))
    write_pixelwise_bundle(root / "model", NEAREST)


def check_answers(out: Path, answers: Mapping[str, int], shape: tuple[int, int]) -> None:
    """Maps are right and pass ``verify``; in a process of its own."""
    import rasterio

    from geoseg_cli.results.verify import verify_map

    for name, seed in answers.items():
        with rasterio.open(out / name) as file:
            np.testing.assert_array_equal(file.read(1), draw(*shape, seed))
        verdict = verify_map(out / name)
        assert verdict.is_intact, verdict.problems


def over_an_older_map(root: Path) -> Stage:
    """A map, its confidence and what lies beside it, over an older set."""
    stage = Stage("over an older map", root, (*ONE, "--overwrite"), BESIDE)
    stage.start.mkdir(parents=True)
    older = (*(word.replace("/in/", "/older/") for word in ONE), "--overwrite")
    return _finished(stage, older, {MAP: 2}, (HEIGHT, WIDTH), {MAP: 1})


def where_nothing_was(root: Path) -> Stage:
    """The same where there is no older map, and none may be replaced."""
    stage = Stage("where nothing was", root, ONE, BESIDE)
    stage.start.mkdir(parents=True)
    return _finished(stage, None, {MAP: 2}, (HEIGHT, WIDTH), {})


def gone_on_with(root: Path) -> Stage:
    """A run that goes on behind the rows that an interrupted one left."""
    stage = over_an_older_map(root)
    stage = Stage("gone on with", root, stage.arguments, stage.maps, stage.old, stage.new)

    names = operations(stage, root / "counted" / "out")
    *_, entry = [at for at, name in enumerate(names, start=1) if name == "write checkpoint"][:3]

    def interrupted() -> None:
        Shim(stage.start, entry + 1, "TERM").install()
        stage.run(stage.start)

    ended = in_child(interrupted, root / "log")
    left = hidden(stage.start)
    assert ended.code == 143, ended
    assert [".part-0-" in name for name in left] == [True], left
    return stage


def many_with_a_journal(root: Path) -> Stage:
    """Two scenes of a folder, with a journal."""
    maps = ("a_cloudmask.tif", "b_cloudmask.tif")
    beside = {name: tuple(name.replace(".tif", end) for end in (".tif.aux.xml", ".qml", ".json")) for name in maps}
    stage = Stage("many with a journal", root, MANY, beside, failed_codes=(1, 74))
    stage.start.mkdir(parents=True)
    return _finished(stage, None, {"a_cloudmask.tif": 3, "b_cloudmask.tif": 4}, (60, 50), {})


def _finished(
    stage: Stage, older: tuple[str, ...] | None, answers: Mapping[str, int], shape: tuple[int, int],
    older_answers: Mapping[str, int],
) -> Stage:  # fmt: skip
    """The stage with what it starts from and must end with, both checked against numpy and by ``verify``."""
    log = stage.root / "log"
    if older is not None:
        before = Stage("", stage.root, older, {})
        _expect(in_child(lambda: before.run(stage.start, OLD_EPOCH), log))
        _expect(in_child(lambda: check_answers(stage.start, older_answers, shape), log))
    whole = stage.prepare(stage.root / "whole" / "out")
    _expect(in_child(lambda: stage.run(whole), log))
    _expect(in_child(lambda: check_answers(whole, answers, shape), log))
    old, new = visible(stage.start), visible(whole)
    shutil.rmtree(whole.parent)
    assert all(old.get(name) != content for name, content in new.items() if not name.endswith(".qml"))
    return Stage(stage.name, stage.root, stage.arguments, stage.maps, old, new, stage.failed_codes)


def _expect(ended: Ended) -> None:
    assert ended.code == 0, ended.said


STAGES: tuple[Callable[[Path], Stage], ...] = (
    over_an_older_map, where_nothing_was, gone_on_with, many_with_a_journal,
)  # fmt: skip


def operations(stage: Stage, out: Path) -> list[str]:
    """Names of the file operations of an undisturbed run."""
    names = stage.root / "names"

    def counted() -> None:
        shim = Shim(stage.prepare(out))
        shim.install()
        try:
            stage.run(out)
        finally:
            descriptor = os.open(names, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.write(descriptor, "\n".join(shim.done).encode())
            os.close(descriptor)

    _expect(in_child(counted, stage.root / "log"))
    shutil.rmtree(out)
    return names.read_text().splitlines()


def disturbed(stage: Stage, out: Path, at: int, act: Act, log: Path) -> Ended:
    """A run whose operation number ``at`` goes wrong."""

    def body() -> None:
        Shim(out, at, act).install()
        stage.run(out)

    return in_child(body, log)
