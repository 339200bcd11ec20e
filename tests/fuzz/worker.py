"""Runs cases one after the other in a process with limits, and says of each how it ended."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import resource
import shutil
import signal
import sys
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import rasterio

from geoseg_cli.errors import GeosegError
from geoseg_cli.scenes import open_scene
from tests.engines.pixelwise import draw_network, write_pixelwise_bundle
from tests.fuzz.kinds import KINDS, MOST_PX, SPEC, Kind, right_map, words_of
from tests.fuzz.mutate import mutate
from tests.fuzz.oracle import Unjudged, Wrong, require

ALARM_S = 20
ADDRESS_SPACE = 4 << 30
COMMAND_EVERY = 16
"""One in so many of the cases that can goes through the whole command line as well."""

CODES = {65, 66, 69, 73, 74, 77, 78}

Outcome = Literal["equal", "refused", "unjudged", "wrong", "traceback", "crash", "hang"]
BAD: tuple[Outcome, ...] = ("wrong", "traceback", "crash", "hang")


def serve(pipe: Connection, folder: Path, seed: int, cases: list[int]) -> None:
    """Run cases; before and after each one a message goes through the pipe."""
    limit_process()
    runner = Runner(folder, seed)
    for case in cases:
        pipe.send((case, "begun", ""))
        # The default action ends the process even where it sits in a library.
        signal.alarm(ALARM_S)
        outcome, detail = runner.run(case)
        signal.alarm(0)
        pipe.send((case, outcome, detail))
    pipe.close()


def limit_process() -> None:
    """Memory and time are bounded, and nothing is printed."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


class Runner:
    """Good files of each kind in a folder, and what becomes of damaged ones."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._seed, self._folder = seed, folder
        self._seeds = {kind.name: _make_seeds(kind, folder / kind.name.replace(" ", "_")) for kind in KINDS}
        self._model = write_pixelwise_bundle(folder / "model", draw_network()).folder
        _teach_torch_the_convolution()

    def run(self, case: int) -> tuple[Outcome, str]:
        """How a case ends, and what to say of it if badly."""
        kind = KINDS[case % len(KINDS)]
        rng = random.Random(f"{self._seed}:{case}")
        path, good = rng.choice(self._seeds[kind.name])
        data = mutate(good, rng, kind.is_text)
        # A name of its own: libraries remember archives by their names.
        damaged = path if kind.keeps_name else path.with_name(f"case{case}{path.suffix}")
        damaged.write_bytes(data)
        try:
            outcome, detail = judge(kind, damaged)
            if kind.options and outcome not in BAD and case // len(KINDS) % COMMAND_EVERY == 0:
                outcome, detail = self._through_command(kind, damaged, outcome)
        finally:
            path.write_bytes(good) if kind.keeps_name else damaged.unlink()
        return outcome, detail

    def damaged(self, case: int) -> tuple[Kind, bytes]:
        """The bytes of a case, to be looked at or kept."""
        kind = KINDS[case % len(KINDS)]
        rng = random.Random(f"{self._seed}:{case}")
        _, good = rng.choice(self._seeds[kind.name])
        return kind, mutate(good, rng, kind.is_text)

    def _through_command(self, kind: Kind, path: Path, before: Outcome) -> tuple[Outcome, str]:
        """Run the command line in this process, and judge its exit code, its words, its files and its map."""
        assert kind.options is not None
        if before == "equal" and is_large(path, kind):
            return before, ""
        output = self._folder / "out" / "map.tif"
        output.parent.mkdir()
        model = ["--model", str(self._model), "-o", str(output), "--engine", "onnx", "--no-sidecar", "-q"]
        try:
            code, err = run_command(["cloudmask", str(path), *words_of(kind.options), *model])
            left = sorted(one.name for one in output.parent.iterdir())
            if code == 0 and left == [output.name]:
                return judge_map(output, path, kind)
            is_named = code in CODES and err.startswith("geoseg: ") and "Traceback" not in err
            if is_named and not left:
                return before, ""
            return "traceback", f"exit {code}, left {left}: {err[-800:]}"
        finally:
            shutil.rmtree(output.parent)


def _make_seeds(kind: Kind, folder: Path) -> list[tuple[Path, bytes]]:
    folder.mkdir()
    return [(path, path.read_bytes()) for path in kind.make(folder)]


def is_large(path: Path, kind: Kind) -> bool:
    """Whether its map would take longer than a case may."""
    assert kind.options is not None
    with open_scene(path, SPEC, kind.options) as scene:
        return scene.grid.height * scene.grid.width > MOST_PX


def judge_map(output: Path, path: Path, kind: Kind) -> tuple[Outcome, str]:
    """Whether a map has the class that numpy finds for each pixel."""
    assert kind.options is not None
    right, is_tie = right_map(path, kind.options)
    with rasterio.open(output) as file:
        found = file.read(1)
    try:
        require(found.shape == right.shape, f"map of {found.shape} for {right.shape}")
        require(bool(((found == right) | is_tie).all()), f"{int((found != right).sum())} pixels of the map")
    except Wrong as error:
        return "wrong", str(error)
    return "equal", ""


def judge(kind: Kind, path: Path) -> tuple[Outcome, str]:
    """Read a damaged file and compare."""
    try:
        kind.check(path)
    except GeosegError as error:
        return ("refused", "") if error.message else ("traceback", "a refusal without a word")
    except Unjudged as error:
        return "unjudged", str(error)
    except Wrong as error:
        return "wrong", str(error)
    except BaseException:
        return "traceback", traceback.format_exc(limit=-6)
    return "equal", ""


def run_command(arguments: list[str]) -> tuple[int, str]:
    """Exit code and standard error of the command line."""
    from geoseg_cli.cli import main

    err, before = io.StringIO(), sys.stderr
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stop:
            return int(stop.code or 0), err.getvalue()
        except BaseException:
            return -1, traceback.format_exc()
        finally:
            sys.stderr = before
    return 0, err.getvalue()


def _teach_torch_the_convolution() -> None:
    """The torch engine builds one convolution for what the card calls pixelwise."""
    from torch import nn

    from geoseg_cli.engines import torch_engine

    def create(name: str, bands: int, classes: int, **config: object) -> nn.Module:
        return nn.Conv2d(bands, classes, 1)

    torch_engine.create_network = create
