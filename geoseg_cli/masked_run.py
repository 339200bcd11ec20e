"""One pass for two maps: land cover and clouds run beside each other over blocks that are read once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from geoseg_cli.cloud_masking import MaskedRows
from geoseg_cli.engines import Engine
from geoseg_cli.job import Job
from geoseg_cli.job_run import Clock, JobRun, Progress
from geoseg_cli.memory import MemoryPlan
from geoseg_cli.rows import Extra, Rows, SeamCounts


class MaskedRun:
    """Two runs in step: rows of the one are masked with the same rows of the other.

    Both jobs share their open files, and neither gets further ahead than its queues are long, so a block that one
    has decoded is still in GDAL's cache when the other needs it. Used as :class:`geoseg_cli.job_run.JobRun`.

    Args:
        job: The scene with its clouds, as :func:`geoseg_cli.job.open_masked_job` gives it.
        engine: What runs the job's bundle.
        cloud_engine: What runs the bundle of its clouds.
        extras: What rows carry beside labels and validity.
        clock: Counts the seconds of the land's stages.

    Attributes:
        hidden_pixels: Pixels with land cover that were hidden, once all rows were made.
    """

    def __init__(
        self,
        job: Job,
        engine: Engine,
        cloud_engine: Engine,
        extras: Collection[Extra] = (),
        clock: Clock | None = None,
    ) -> None:
        assert job.clouds is not None, "a job without clouds needs no masked run"
        assert job.masking is not None, "a job with clouds says what becomes of them"
        self.hidden_pixels: int | None = None
        self._masked: MaskedRows | None = None
        self._hidden_before = 0
        self._masking, self._cloud_clock = job.masking, Clock("read", "run", "blend")
        kept: list[Extra] = ["confidence"] if "confidence" in extras and job.masking.hidden_as == "class" else []
        self._land = JobRun(job, engine, extras, clock=clock, memory_share=0.5)
        self._clouds = JobRun(job.clouds, cloud_engine, kept, clock=self._cloud_clock, memory_share=0.5)

    @property
    def plans(self) -> tuple[MemoryPlan, ...]:
        """What both runs are planned to take."""
        return (*self._land.plans, *self._clouds.plans)

    @property
    def tiles_run(self) -> int:
        """Tiles that went through either engine so far."""
        return self._land.tiles_run + self._clouds.tiles_run

    @property
    def not_finite(self) -> int:
        """Pixels of either map that became nodata because their logits were not finite."""
        return self._land.not_finite + self._clouds.not_finite

    @property
    def further_seconds(self) -> dict[str, float]:
        """Seconds of the stages of the clouds."""
        return {f"clouds_{stage}": seconds for stage, seconds in self._cloud_clock.seconds.items()}

    def state_at(self, row: int) -> Any:
        """As that of a ``JobRun``."""
        land, clouds = self._land.state_at(row), self._clouds.state_at(row)
        if self._masked is None or land is None or clouds is None:
            return None
        return {"land": land, "clouds": clouds, "hidden": self._masked.hidden}

    def continue_at(self, row: int, state: Any) -> None:
        """As that of a ``JobRun``."""
        self._land.continue_at(row, state["land"])
        self._clouds.continue_at(row, state["clouds"])
        self._hidden_before = state["hidden"]

    @property
    def seams(self) -> SeamCounts:
        """How often overlapping tiles of the land disagreed so far."""
        return self._land.seams

    @contextmanager
    def rows(self, progress: Progress | None = None) -> Iterator[Iterator[Rows]]:
        """Finished, masked rows of the job's output grid, from the first one wanted to the last, once.

        Raises:
            EngineError: An engine failed, or gave more than a few non-finite numbers.
        """
        with self._land.rows(progress) as land, self._clouds.rows() as clouds:
            self._masked = MaskedRows(land, clouds, self._masking, self._hidden_before)
            yield self._masked
            self.hidden_pixels = self._masked.hidden
