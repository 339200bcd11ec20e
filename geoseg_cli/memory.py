"""How much memory a run will take, planned before anything is allocated.

Everything that grows with the scene grows with its width alone; the parts are counted here one by one, so that
queues, batch and GDAL's block cache can be chosen to fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geoseg_cli.arrays import PIECE_PX
from geoseg_cli.errors import UsageError

MIB = 2**20
FAIR_SHARE = 0.5
"""Share of the free memory that a run plans with unless it is told how much it may take."""

MIN_CACHE_BYTES, MAX_CACHE_BYTES = 64 * MIB, 512 * MIB
"""Bounds of GDAL's block cache; beyond the upper one a scene is read slower, not with more memory."""

LEAST_CACHE_BYTES = 16 * MIB
"""What the cache shrinks to where memory is short: blocks are then decoded more than once."""

SPARE_CACHE_BYTES = 32 * MIB
"""Room in the cache for the blocks that are being written."""

NETWORK_BYTES_PER_PX = 1_000
"""Working memory of a network per pixel of each tile that it runs at a time; 240 (LALE, ONNX Runtime) to 960
(ChromaFormer, torch) were measured for the shipped bundles."""

JUDGED_BYTES_PER_PX = 40
"""What comparing votes with the label takes per pixel that is worked on at once: four sums of 8 bytes, and flags."""

CLEANING = "cleaning, afterwards"
STAYS = ("network", "blending", "what rows carry beside labels", "block cache")
"""Parts that are still taken while the finished map is cleaned."""

MOST_WAITING = 2
"""Batches that wait for the engine, and answers that wait to be blended, where there is room for them."""

LARGE_BATCH_BYTES = 64 * MIB
"""Of batches larger than this none waits: while one is used the next is made, which was measured to cost no time on a
CPU; not measured on a GPU."""


@dataclass(frozen=True, slots=True)
class Load:
    """What decides how much memory a run takes.

    Attributes:
        width: Columns of the scene as the network sees it.
        read_width: Columns that are read together.
        carried_rows: Most rows that a row of tiles shares with the one below it.
        tile_height, tile_width: Pixels of a tile.
        stored_bytes: Bytes per pixel of the bands that are read, with their validity.
        channels: Planes of the network's input.
        classes: Planes of its answer.
        output_bands: Planes that are written.
        output_width: Columns of the outputs.
        cache_bytes: Block cache with which no block is decoded twice.
        tiles_at_once: Tiles that the engine runs at the same time, however many it gets together.
        row_planes: Planes of float32 that rows carry beside their labels: probabilities, confidence, seams.
        row_copies: How many of each there are at once, with the one that the mosaic holds.
        vote_planes: Planes of uint8 with which the mosaic counts what tiles named.
        label_bytes: Of a class value that is written.
        cleaning_bytes: What is taken to clean the finished map.
    """

    width: int
    read_width: int
    carried_rows: int
    tile_height: int
    tile_width: int
    stored_bytes: int
    channels: int
    classes: int
    output_bands: int
    output_width: int
    cache_bytes: int
    tiles_at_once: int
    row_planes: int = 0
    row_copies: int = 2
    vote_planes: int = 0
    label_bytes: int = 1
    cleaning_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a run will take at most, apart from the interpreter, the libraries and the weights.

    Attributes:
        load: What is to be done.
        batch: Tiles that travel together.
        waiting: Batches that may wait for the engine, beside the one that is ready, and answers that may wait alike.
        cache_bytes: GDAL's block cache.
        limit_bytes: What the run may take; None where nobody knows how much is free.
    """

    load: Load
    batch: int
    waiting: int
    cache_bytes: int
    limit_bytes: int | None

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by what they are for; those for cleaning come when strips, batches and answers are gone."""
        load = self.load
        strip_px = load.tile_height * load.width
        one_tile_px = load.tile_height * load.tile_width
        tile_px = one_tile_px * self.batch
        # Beside those that wait one is being made and one is being used.
        held = self.waiting + 2
        beside = self._beside_labels(strip_px)
        written_px = (load.tile_height + 512) * load.output_width
        return {
            "what is read of the scene": self._read_px * load.stored_bytes,
            "batches": held * self.batch_bytes,
            "answers": held * tile_px * 4 * load.classes,
            "network": one_tile_px * min(self.batch, load.tiles_at_once) * NETWORK_BYTES_PER_PX,
            "blending": 4 * load.classes * (strip_px + min(strip_px, PIECE_PX)) + 5 * load.label_bytes * strip_px,
            **({"what rows carry beside labels": beside} if beside else {}),
            "rows being written": written_px * (load.output_bands + 6 * load.label_bytes),
            "block cache": self.cache_bytes,
            **({CLEANING: load.cleaning_bytes} if load.cleaning_bytes else {}),
        }

    @property
    def batch_bytes(self) -> int:
        """Pixels of one batch as the network takes them, float32, and which of them are valid."""
        return self.batch * self.load.tile_height * self.load.tile_width * (4 * self.load.channels + 1)

    @property
    def _read_px(self) -> int:
        """One piece being read, one that waits and the two that a tile may lie in; never more than two whole rows."""
        load = self.load
        carried = 2 * load.carried_rows * load.width if load.read_width < load.width else 0
        return load.tile_height * min(4 * load.read_width, 2 * load.width) + carried

    def _beside_labels(self, strip_px: int) -> int:
        load = self.load
        counting = JUDGED_BYTES_PER_PX * min(strip_px, PIECE_PX) if load.vote_planes else 0
        return strip_px * (4 * load.row_planes * load.row_copies + load.vote_planes) + counting

    @property
    def total_bytes(self) -> int:
        """What is taken at once at most: all parts but that for cleaning, or that with what stays until then."""
        parts = self.parts
        cleaning = parts.pop(CLEANING, 0)
        return max(sum(parts.values()), cleaning + sum(parts.get(part, 0) for part in STAYS))

    @property
    def fits(self) -> bool:
        """Whether the sum is within the limit."""
        return self.limit_bytes is None or self.total_bytes <= self.limit_bytes

    def to_json(self) -> dict[str, Any]:
        """The plan in plain types."""
        return {
            "limit_bytes": self.limit_bytes,
            "total_bytes": self.total_bytes,
            "parts_bytes": self.parts,
            "batch": self.batch,
            "waiting_batches": self.waiting,
        }


def plan_memory(load: Load, batch: int, limit_bytes: int | None, is_batch_fixed: bool = False) -> MemoryPlan:
    """Choose queues, batch and cache so that a run fits into its memory.

    Large batches do not wait. First the queues shrink, then the batch, which changes speed alone; then the
    cache, where blocks are decoded again. Tiles never do: they change the map.

    Args:
        load: What is to be done.
        batch: Tiles that travel together if there is room.
        limit_bytes: What the run may take; None for no limit.
        is_batch_fixed: Whether the user asked for this batch.

    Returns:
        The first plan that fits, or the smallest; see :attr:`MemoryPlan.fits`.
    """
    wanted = min(max(load.cache_bytes + SPARE_CACHE_BYTES, MIN_CACHE_BYTES), MAX_CACHE_BYTES)
    chosen = MemoryPlan(load, batch, MOST_WAITING, wanted, limit_bytes)
    if chosen.batch_bytes > LARGE_BATCH_BYTES:
        chosen = replace(chosen, waiting=0)
    for smaller in _ever_smaller(chosen, is_batch_fixed):
        chosen = smaller
        if chosen.fits:
            break
    return chosen


def _ever_smaller(plan: MemoryPlan, is_batch_fixed: bool) -> Iterator[MemoryPlan]:
    yield plan
    while plan.waiting:
        plan = replace(plan, waiting=plan.waiting - 1)
        yield plan
    while plan.batch > 1 and not is_batch_fixed:
        plan = replace(plan, batch=plan.batch // 2)
        yield plan
    while plan.cache_bytes > LEAST_CACHE_BYTES:
        plan = replace(plan, cache_bytes=max(LEAST_CACHE_BYTES, plan.cache_bytes // 2))
        yield plan


def refuse_excess(plan: MemoryPlan, share: float = 1.0) -> None:
    """Stop where even the smallest plan is above what the user allowed.

    Args:
        plan: Of a job.
        share: How much of what the user allowed is for this job.

    Raises:
        UsageError: It is; the message names what it would need.
    """
    if plan.fits or plan.limit_bytes is None:
        return
    largest = max(plan.parts, key=lambda part: plan.parts[part])
    enough = math.ceil(plan.total_bytes / share / MIB)
    raise UsageError(
        f"--max-memory {_as_given(round(plan.limit_bytes / share))} is too little: at the least"
        f" {enough} MiB are needed, most of it for {largest}",
        f"use --max-memory {enough}M or more, or a smaller --tile, which may change the map",
    )


def _as_given(size_bytes: int) -> str:
    """A size as the option takes it, in the largest unit of which there is at least one."""
    unit, letter = (MIB, "M") if size_bytes >= MIB else (1024, "K") if size_bytes >= 1024 else (1, "")
    return f"{size_bytes / unit:.0f}{letter}"


def fair_share_bytes() -> int | None:
    """What a run may take where nobody says how much; None where the system does not tell what is free."""
    free = free_memory_bytes()
    return None if free is None else int(free * FAIR_SHARE)


def free_memory_bytes() -> int | None:
    """Memory that could be taken now: what the system calls available, or what is left of a container's limit."""
    known = [size for size in (_available(), _left_in_container()) if size is not None]
    return min(known) if known else None


def _available(path: Path = Path("/proc/meminfo")) -> int | None:
    """``MemAvailable`` of Linux (proc(5))."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _left_in_container(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Limit less use of the control group (Linux cgroup v2); file pages that nobody uses can be had at once."""
    try:
        limit, used, stat = (
            (folder / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current", "memory.stat")
        )
        idle = [line.split()[1] for line in stat.splitlines() if line.startswith("inactive_file ")]
        return None if limit.strip() == "max" else max(0, int(limit) - int(used) + sum(map(int, idle)))
    except (OSError, ValueError):
        return None
