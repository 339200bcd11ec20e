"""Medians and ratios of what the processes measured, one row per configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from geoseg_cli.bench.agreement import Agreement
from geoseg_cli.bench.measure import ForwardFigures, ReadFigures, RunFigures

MEGA = 1e6


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured of one configuration, beside a plain read of the same round."""

    run: RunFigures
    forward: ForwardFigures
    read: ReadFigures

    @property
    def forward_core_s(self) -> float | None:
        """Core-seconds of the forward pass of all tiles of the run; None without a tile."""
        if not self.forward.tiles:
            return None
        return self.forward.core_s / self.forward.tiles * self.run.tiles

    @property
    def overhead(self) -> float | None:
        """Core-seconds of the run by those of forward pass and decoding alone; None where it cannot be told."""
        forward = self.forward_core_s
        # A GPU's work is in no core-second.
        if forward is None or self.run.device != "cpu":
            return None
        return self.run.core_s / (forward + self.read.core_s)

    @property
    def rss_above_bytes(self) -> int | None:
        """Peak memory above that of the open scene, the network and its runtime once one batch has run.

        Both are processes of their own; 0 where the run needed less than that one batch.
        """
        peak, ready = self.run.peak_rss_bytes, self.forward.ready_rss_bytes
        return None if peak is None or ready is None else max(0, peak - ready)


@dataclass(frozen=True, slots=True)
class Row:
    """A configuration: medians over its rounds.

    Attributes:
        engine, device, precision: What ran; where nothing did, what was asked for.
        batch: Tiles that travelled together; None for the engine's choice.
        tile_px, overlap_px, tiles: How the scene was cut.
        wall_s, core_s: From opening the scene to the finished map.
        mpx_per_s: Megapixels of the scene per second of wall time.
        seconds: Wall time per stage.
        forward_share: Share of the wall time inside the engine.
        forward_core_s: Core-seconds of the forward pass alone, for all tiles.
        overhead: Core-seconds of the run by those of forward pass and decoding alone; of each round, then the median.
        computed_share: Pixels computed per pixel of the scene.
        tail_s, tail_share: Wall time after the last tile left the engine, and its share of all.
        first_tile_s: From the start of the process until the first tile left the engine.
        peak_rss_mb, rss_above_mb: Peak memory, and what of it is above open scene, network and runtime.
        agreement: With the reference; None where nothing ran.
        failed: Why the configuration did not run; empty where it did.
    """

    engine: str
    device: str
    precision: str
    batch: int | None
    tile_px: int | None = None
    overlap_px: int | None = None
    tiles: int = 0
    wall_s: float | None = None
    core_s: float | None = None
    mpx_per_s: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    forward_share: float | None = None
    forward_core_s: float | None = None
    overhead: float | None = None
    computed_share: float | None = None
    tail_s: float | None = None
    tail_share: float | None = None
    first_tile_s: float | None = None
    peak_rss_mb: float | None = None
    rss_above_mb: float | None = None
    agreement: Agreement | None = None
    failed: str = ""


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What was measured.

    Attributes:
        scene: What was mapped.
        size_px: Rows and columns.
        bundle: The model.
        machine: Versions, processor and cores.
        rounds: Rounds of which the figures are medians.
        read_wall_s, read_core_s: A plain read of the scene.
        reference: What the agreement compares with, such as ``onnx fp32``.
        rows: The configurations in the order asked for.
    """

    scene: str
    size_px: tuple[int, int]
    bundle: str
    machine: dict[str, Any]
    rounds: int
    read_wall_s: float
    read_core_s: float
    reference: str
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """The report in plain types."""
        return asdict(self)


def make_row(rounds: Sequence[Round], batch: int | None, agreement: Agreement | None) -> Row:
    """Medians over the rounds of one configuration.

    Args:
        rounds: At least one.
        batch: As asked for.
        agreement: Of the map of the first round.
    """
    run = rounds[0].run
    scene_px = run.size_px[0] * run.size_px[1]
    return Row(
        engine=run.engine,
        device=run.device,
        precision=run.precision,
        batch=batch,
        tile_px=max(run.tile_px),
        overlap_px=run.overlap_px,
        tiles=run.tiles,
        wall_s=_median(rounds, lambda one: one.run.wall_s),
        core_s=_median(rounds, lambda one: one.run.core_s),
        mpx_per_s=_median(rounds, lambda one: scene_px / MEGA / one.run.wall_s),
        seconds={stage: median(one.run.seconds[stage] for one in rounds) for stage in run.seconds},
        forward_share=_median(rounds, lambda one: one.run.forward_wall_s / one.run.wall_s),
        forward_core_s=_median(rounds, lambda one: one.forward_core_s),
        overhead=_median(rounds, lambda one: one.overhead),
        computed_share=run.pixels_computed / scene_px,
        tail_s=_median(rounds, lambda one: one.run.tail_s),
        tail_share=_median(rounds, lambda one: one.run.tail_s / one.run.wall_s),
        first_tile_s=_median(rounds, lambda one: one.run.first_tile_s),
        peak_rss_mb=_median(rounds, lambda one: _mega(one.run.peak_rss_bytes)),
        rss_above_mb=_median(rounds, lambda one: _mega(one.rss_above_bytes)),
        agreement=agreement,
    )


def _median(rounds: Sequence[Round], figure: Callable[[Round], float | None]) -> float | None:
    known = [value for one in rounds if (value := figure(one)) is not None]
    return median(known) if len(known) == len(rounds) else None


def _mega(count: int | None) -> float | None:
    return None if count is None else count / MEGA
