"""A job on its way through its stages: cut, run, blend, and put back on the output's grid."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from geoseg_cli.ahead import ahead
from geoseg_cli.area import cropped, only_inside
from geoseg_cli.arrays import Array
from geoseg_cli.batch_size import BatchSize, KnownSizes, most_to_try, sizes_to_try
from geoseg_cli.batches import Batch, BoolArray, Cutter
from geoseg_cli.engines import Engine, asset_of
from geoseg_cli.engines.turned import TurnedEngine
from geoseg_cli.errors import EngineError
from geoseg_cli.grid import Window
from geoseg_cli.job import Job
from geoseg_cli.memory import MemoryPlan
from geoseg_cli.mosaic import Mosaic
from geoseg_cli.printable import counted
from geoseg_cli.recycling import RECYCLER
from geoseg_cli.rows import Extra, Rows, SeamCounts, from_row
from geoseg_cli.scenes.resample import AreaOfView
from geoseg_cli.tiles import Tile
from geoseg_cli.version import __version__

MAX_NOT_FINITE = 0.001
"""Share of valid pixels with non-finite logits above which a map is refused (reliability rule R6)."""

MOST_IDLE = 1 / 16
"""Share of a run's tiles that the other cores may be without while the first one runs alone; they read meanwhile. On
two cores that is from 16 tiles on: there it was measured to cost no time."""

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with the pixels finished and the pixels of the scene."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place where a run can be taken up again.

    Attributes:
        view_row: Row of what the network sees; those above it are finished.
        output_row: Row of the output; those above it are made of the finished ones alone.
        answered: Pixels, as the network sees them, that were answered in the finished rows.
    """

    view_row: int = 0
    output_row: int = 0
    answered: int = 0


class JobRun:
    """A job on its way through engine and mosaic.

    Args:
        job: The scene and its tiles.
        engine: What runs the network; made from the job's bundle.
        extras: What rows carry beside labels.
        temperature: Probabilities are softmax(logits / temperature); None takes what the card states.
        clock: Counts the seconds of the stages read, run and blend.
        memory_share: How much of what the job may take is for this run.

    Attributes:
        memory: What the job is planned to take; decides how long the queues are.
        tiles_run: Tiles that went through the engine so far.
    """

    def __init__(
        self,
        job: Job,
        engine: Engine,
        extras: Collection[Extra] = (),
        temperature: float | None = None,
        clock: Clock | None = None,
        memory_share: float = 1.0,
    ) -> None:
        if temperature is None:
            temperature = job.bundle.card.extras.temperature
        self._job = job
        self._engine = engine if job.options.tta == "none" else TurnedEngine(engine, job.options.tta)
        self._clock = clock or Clock("read", "run", "blend")
        # The seam between host and device: who cuts and who blends work where the engine does.
        self._arrays = engine.arrays
        self._mosaic = Mosaic(job.plan, job.bundle.legend, job.options.blend, temperature, extras, self._arrays)
        self._start, self._marks, self._first_row = Mark(), [Mark()], 0
        self._counts_seams = "seams" in extras
        self._interrupted = threading.Event()
        self._batch_size = _batch_size(job, engine, memory_share)
        self.memory = job.memory(engine.batch_tiles, memory_share, self._batch_size.largest)
        self.tiles_run = 0

    @property
    def plans(self) -> tuple[MemoryPlan, ...]:
        """What is planned to be taken."""
        return (self.memory,)

    @property
    def hidden_pixels(self) -> int | None:
        """Pixels hidden below clouds: nobody looked for them."""
        return None

    @property
    def further_seconds(self) -> dict[str, float]:
        """Seconds of stages that the clock does not know: none."""
        return {}

    @property
    def not_finite(self) -> int:
        """Pixels that became nodata because their logits were not finite, counted as the network sees them."""
        return self._mosaic.not_finite

    def state_at(self, row: int) -> Any:
        """What another run must know to go on at a row of the output that this one has given; None where none can.

        A run that met non-finite numbers cannot be gone on with, nor one that counts where tiles disagree: pixels
        would be counted twice.
        """
        while len(self._marks) > 1 and self._marks[1].output_row <= row:
            del self._marks[0]
        return None if self.not_finite or self._counts_seams else asdict(self._marks[0])

    def continue_at(self, row: int, state: Any) -> None:
        """Leave out the rows of the output above ``row``: before ``rows``.

        Args:
            row: A row of the output.
            state: What ``state_at(row)`` of an equal run said.
        """
        self._start = Mark(**state)
        self._marks, self._first_row = [self._start], row

    @property
    def seams(self) -> SeamCounts:
        """How often overlapping tiles disagreed so far, counted as the network sees the scene."""
        return SeamCounts(self._mosaic.shared, self._mosaic.disputed)

    @contextmanager
    def rows(self, progress: Progress | None = None) -> Iterator[Iterator[Rows]]:
        """Finished rows of the job's output grid, from the first one wanted to the last, once.

        The block closes the reader behind them.

        Raises:
            EngineError: The engine failed, or gave more than a few non-finite numbers; told after the last row.
        """
        # Closed here and not when it is collected: its reader must be done before the scene is closed.
        with RECYCLER.run(), closing(self._counted(progress)) as finished:
            try:
                yield finished
            except (KeyboardInterrupt, SystemExit):
                self._interrupted.set()
                raise

    def _counted(self, progress: Progress | None) -> Generator[Rows, None, None]:
        grid = self._job.grid
        for rows in from_row(self._on_output_grid(self._finished()), self._first_row):
            yield rows
            if progress:
                progress((rows.row + rows.labels.shape[0]) * grid.width, grid.height * grid.width)
        if self.not_finite > MAX_NOT_FINITE * (self._marks[-1].answered + self.not_finite):
            raise EngineError(
                f"{self._job.scene.path}: {self._job.bundle.name} gave non-finite numbers for"
                f" {counted(self.not_finite, 'pixel')}",
                "run with --precision fp32; if it happens there too, the weights or the input values are broken",
            )

    def _on_output_grid(self, seen: Iterator[Rows]) -> Iterator[Rows]:
        """Rows as the network sees them become rows of the output."""
        job, nodata = self._job, self._job.bundle.legend.nodata
        rows = self._count_answers(seen)
        if job.resampled is not None:
            rows = job.resampled.restore(rows, nodata)
        if job.area is not None:
            rows = only_inside(rows, job.area, nodata)
            if job.options.crop:
                rows = cropped(rows, job.area.window)
        return rows

    def _count_answers(self, seen: Iterator[Rows]) -> Iterator[Rows]:
        for rows in from_row(seen, self._start.view_row):
            stop = rows.row + len(rows.labels)
            answered = self._marks[-1].answered + int(np.count_nonzero(rows.valid))
            self._marks.append(Mark(stop, self._output_row(stop), answered))
            yield rows

    def _output_row(self, view_row: int) -> int:
        """One past the last row of the output that is made of what the network sees above ``view_row``."""
        job, row = self._job, view_row
        if job.resampled is not None:
            row = job.resampled.stored_window(Window(0, 0, view_row, 1)).row_stop
        if job.area is not None and job.options.crop:
            row = min(max(row - job.area.window.row, 0), job.area.window.height)
        return row

    def _first_tiles(self) -> int:
        """The first row of tiles that answers a row that is still to come."""
        return self._job.plan.rows.first_reaching(self._start.view_row)

    def _finished(self) -> Iterator[Rows]:
        clock, turn_back, arrays = self._clock, self._job.orientation.turn_back, self._arrays
        rows, first = self._job.plan.rows, self._first_tiles()
        self._mosaic.begin_at(rows.extent(first)[0] if first < len(rows.starts) else rows.size)
        with ahead(self._answers(), self.memory.waiting, "geoseg-run", self._interrupted) as answers:
            for tiles, logits, shown in answers:
                self.tiles_run += len(tiles)
                for tile, tile_logits, valid in zip(tiles, logits, shown, strict=True):
                    answer = turn_back(tile_logits, tile.window, arrays), turn_back(valid, tile.window)
                    yield from clock.iterate("blend", self._mosaic.add(tile, *answer))
        yield from clock.iterate("blend", self._mosaic.finish())

    def _answers(self) -> Generator[tuple[tuple[Tile, ...], Array, BoolArray], None, None]:
        """What the engine says to each batch, and what of it is valid; the next batches are made beside it."""
        with ahead(self._batches(), self.memory.waiting, "geoseg-cut") as made:
            while (batch := self._next(made)) is not None:
                answer = batch.tiles, self._run(batch), batch.valid
                del batch  # the pixels are large, and nobody needs them while the answer waits
                yield answer

    def _next(self, made: Iterator[Batch]) -> Batch | None:
        with self._clock("read"):
            return next(made, None)

    def _run(self, batch: Batch) -> Array:
        """The engine's answer; its time is taken while the best size of a batch is being found out."""
        is_timed = not self._batch_size.is_found
        with self._clock("run"):
            started = time.perf_counter()
            logits = self._engine.run(batch.pixels)
            if is_timed:
                self._arrays.settle()
                self._batch_size.record(len(batch.tiles), time.perf_counter() - started)
        return logits

    def _batches(self) -> Generator[Batch, None, None]:
        job = self._job
        keep = AreaOfView(job.area, job.resampled) if job.area is not None and job.resampled is not None else job.area
        cutter = Cutter(job.view, job.plan, job.bundle.input_spec, job.orientation, self._arrays)
        yield from cutter.batches(self._sizes().__next__, keep, self._first_tiles())

    def _sizes(self) -> Iterator[int]:
        """Tiles of each batch. A CPU begins with one alone while the next are read, where that matters little."""
        begins_early = self._engine.device == "cpu" and self._job.options.batch is None
        is_large = self._engine.batch_tiles - 1 <= MOST_IDLE * len(self._job.plan)
        return chain([1] if begins_early and is_large else [], iter(self._batch_size.next, None))


def _batch_size(job: Job, engine: Engine, memory_share: float) -> BatchSize:
    """The size that the user names or an earlier run found, or a search for one, within the memory that there is."""
    if job.options.batch is not None:
        return BatchSize.fixed(job.options.batch)
    usual, known = engine.batch_tiles, KnownSizes(_batch_key(job, engine))
    found, most = known.load(), most_to_try(usual, engine.name, engine.device)
    largest = min(most, job.memory(usual, memory_share, min(found or most, most)).batch)
    if found is not None:
        return BatchSize.fixed(min(found, largest))
    return BatchSize(usual, sizes_to_try(usual, largest, len(job.plan)), known.keep)


def _batch_key(job: Job, engine: Engine) -> list[str]:
    """What the fastest size of a batch depends on."""
    model = job.bundle.sha256(asset_of(engine.name, engine.precision))
    tile = f"{job.plan.tile_height}x{job.plan.tile_width}"
    return [__version__, platform.node(), model, engine.name, engine.device, engine.precision, job.options.tta,
            str(engine.batch_tiles), tile]  # fmt: skip


class Clock:
    """Wall seconds per stage."""

    def __init__(self, *stages: str) -> None:
        self.seconds = dict.fromkeys(stages, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def iterate(self, stage: str, source: Iterator[T]) -> Iterator[T]:
        """Iterate and count the time spent waiting for each item."""
        while True:
            with self(stage):
                item = next(source, None)
            if item is None:
                return
            yield item
