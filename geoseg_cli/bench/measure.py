"""What one process measures: a run from scene to map, the forward pass alone, or the decoding alone.

Core-seconds are those of the process, all threads together: they hardly depend on what else the machine does, as wall
time does. On a GPU they hold nothing of the network.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from geoseg_cli.arrays import Array
from geoseg_cli.bench.plain import read_plainly
from geoseg_cli.bundle import find_bundle
from geoseg_cli.engines import Engine, EngineOptions, choose_engine
from geoseg_cli.engines.fake_engine import FakeEngine
from geoseg_cli.job import Job, PredictOptions, open_job
from geoseg_cli.job_run import JobRun
from geoseg_cli.predict import predict_scene
from geoseg_cli.recycling import RECYCLER

FloatArray = npt.NDArray[np.float32]

FORWARD_TILES = 256
"""Tiles from which the time of the forward pass is taken; more make the measurement longer, not better."""


@dataclass(frozen=True, slots=True)
class Case:
    """One scene, one network, one way to run it.

    Attributes:
        scene: A file or folder.
        model: Name or folder of the bundle.
        engine: What runs the network.
        options: How the scene is predicted.
        output: Where the map goes; replaced where it exists.
        started: ``time.time()`` when the process was asked for; the time to the first tile counts from it.
    """

    scene: Path
    model: str
    engine: EngineOptions
    options: PredictOptions
    output: Path
    started: float = 0.0


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A run as :func:`geoseg_cli.predict.predict_scene` makes it; start-up and loading of the model do not count.

    Attributes:
        engine, device, precision: What really ran.
        size_px: Rows and columns of the scene.
        tile_px: Rows and columns of a tile.
        overlap_px: What neighbouring tiles share at least.
        tiles: Tiles that went through the engine; those without a valid pixel do not.
        pixels_computed: Pixels of these tiles, padding included.
        wall_s, core_s: From opening the scene to the finished map.
        seconds: Wall time per stage as the run reports it; ``read`` is what the engine waited for.
        forward_wall_s: Wall time inside the engine.
        tail_s: Wall time after the last tile left the engine.
        first_tile_s: From asking for the process until the first tile left the engine.
        peak_rss_bytes: Largest resident set; None where the system does not tell.
    """

    engine: str
    device: str
    precision: str
    size_px: tuple[int, int]
    tile_px: tuple[int, int]
    overlap_px: int
    tiles: int
    pixels_computed: int
    wall_s: float
    core_s: float
    seconds: dict[str, float]
    forward_wall_s: float
    tail_s: float
    first_tile_s: float
    peak_rss_bytes: int | None


@dataclass(frozen=True, slots=True)
class ForwardFigures:
    """The forward pass alone, inputs ready.

    Attributes:
        tiles: Tiles that were timed: all, or whole rows of tiles spread evenly over a large scene.
        wall_s, core_s: Inside the engine.
        ready_rss_bytes: Largest resident set when scene and network were open and one batch had run.
    """

    tiles: int
    wall_s: float
    core_s: float
    ready_rss_bytes: int | None


@dataclass(frozen=True, slots=True)
class ReadFigures:
    """The decoding alone: ``wall_s`` and ``core_s``."""

    wall_s: float
    core_s: float


class _Watched:
    """An engine, and when and how much it ran."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision
        self.batch_tiles, self.arrays = engine.batch_tiles, engine.arrays
        self.wall_s, self.pixels = 0.0, 0
        self.first_at = self.last_at = 0.0
        self._engine, self._lock = engine, Lock()

    def run(self, pixels: Array) -> Array:
        started = time.perf_counter()
        logits = self._engine.run(pixels)
        self.arrays.fetch(logits[:1, :1, :1, :1])  # a device answers only when it is done
        with self._lock:
            self.last_at = time.perf_counter()
            self.first_at = self.first_at or self.last_at
            self.wall_s += self.last_at - started
            self.pixels += len(pixels) * pixels.shape[2] * pixels.shape[3]
        return logits

    def close(self) -> None:
        self._engine.close()


def measure_run(case: Case) -> RunFigures:
    """Predict a scene.

    Raises:
        GeosegError: As :func:`geoseg_cli.predict.predict_scene`.
    """
    bundle = find_bundle(case.model)
    watched = _Watched(choose_engine(bundle, case.engine)[0])
    waited, began, core = time.time() - case.started, time.perf_counter(), time.process_time()
    report = predict_scene(case.scene, case.output, bundle, watched, replace(case.options, overwrite=True))
    ended, core = time.perf_counter(), time.process_time() - core
    decided = report.decisions
    (height, width), (tile_height, tile_width) = decided["size_px"], decided["tile_px"]
    return RunFigures(
        engine=watched.name,
        device=watched.device,
        precision=watched.precision,
        size_px=(height, width),
        tile_px=(tile_height, tile_width),
        overlap_px=decided["overlap_px"],
        tiles=report.tiles_run,
        pixels_computed=watched.pixels,
        wall_s=ended - began,
        core_s=core,
        seconds={stage: value for stage, value in report.seconds.items() if stage != "total"},
        forward_wall_s=watched.wall_s,
        tail_s=ended - (watched.last_at or began),
        first_tile_s=waited + max(watched.first_at - began, 0.0),
        peak_rss_bytes=peak_rss_bytes(),
    )


def measure_forward(case: Case) -> ForwardFigures:
    """Run the tiles of a scene through the engine and nothing else.

    Raises:
        GeosegError: The scene, bundle or engine cannot be used.
    """
    bundle = find_bundle(case.model)
    with open_job(case.scene, bundle, case.options) as job, RECYCLER.run():
        engine, _ = choose_engine(bundle, case.engine)
        size = case.options.batch or engine.batch_tiles
        shape = job.orientation.shape(job.plan.tile_height, job.plan.tile_width)
        # The first call of an engine sets things up that later ones find ready.
        engine.run(np.zeros((size, bundle.input_spec.channels, *shape), np.float32))
        ready = peak_rss_bytes()
        tiles, wall, core = 0, 0.0, 0.0
        for pixels in _strip_inputs(job, len(bundle.legend.classes)):
            began, core_began = time.perf_counter(), time.process_time()
            for first in range(0, len(pixels), size):
                engine.run(pixels[first : first + size])
            wall += time.perf_counter() - began
            core += time.process_time() - core_began
            tiles += len(pixels)
        engine.close()
    return ForwardFigures(tiles, wall, core, ready)


def measure_reading(case: Case) -> ReadFigures:
    """Decode the bands that the network uses, each block once; opening and understanding the scene does not count.

    Raises:
        GeosegError: The scene or bundle cannot be used.
    """
    with open_job(case.scene, find_bundle(case.model), case.options) as job:
        began, core = time.perf_counter(), time.process_time()
        read_plainly(job.scene)
        return ReadFigures(time.perf_counter() - began, time.process_time() - core)


def peak_rss_bytes() -> int | None:
    """Largest resident set of this process so far; None where the system does not tell."""
    try:
        # Not getrusage: on Linux its peak begins with that of the process that started this one.
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return _peak_of_usage()
    stated = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(stated[0]) * 1024 if stated else None


def _peak_of_usage() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _strip_inputs(job: Job, classes: int) -> Iterator[FloatArray]:
    """(N, C, T, T) network inputs of one row of tiles after another; of large scenes a part, spread evenly."""
    starts, across = job.plan.rows.starts, len(job.plan.cols.starts)
    wanted = min(len(starts), -(-FORWARD_TILES // across))
    for index in np.unique(np.linspace(0, len(starts) - 1, wanted).round().astype(int)):
        plan = replace(job.plan, rows=replace(job.plan.rows, starts=(starts[index],)))
        recorder = _Recorder(classes)
        alone = replace(job, plan=plan, options=replace(job.options, batch=across))
        with JobRun(alone, recorder).rows() as rows:
            next(rows, None)  # rows come only after the batch that holds all tiles of this one
        yield from recorder.inputs


class _Recorder(FakeEngine):
    """Keeps what an engine would get."""

    def __init__(self, classes: int) -> None:
        self.inputs: list[FloatArray] = []
        super().__init__(classes, self._record)

    def _record(self, pixels: FloatArray) -> FloatArray:
        self.inputs.append(pixels)
        return np.zeros((len(pixels), self.classes, *pixels.shape[2:]), np.float32)
