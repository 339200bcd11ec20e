"""Overlapping tiles of logits to rows of labels: the mosaic of a run against the plain way to do it.

    python benchmarks/stitching.py [--classes 9] [--tile 512] [--overlap 64] [--side 4096] [--rounds 5]
    python benchmarks/stitching.py --bundle landcover-lale --scene SCENE [--radiometry dn]

The plain way: softmax of every tile, times a weight per pixel, summed up over a strip as high as a tile, divided by the
sum of the weights, and the largest class looked for. Each round runs every case both ways, one after the other. Figures
are medians of CPU milliseconds of this process per million pixels; numpy computes on one thread. Logits are smooth
fields with noise that differs between tiles, or a bundle's answers to a scene. "Same labels" counts the pixels on which
both ways agree; "off" is the largest difference between probabilities, or between confidences.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.batches import Cutter
from geoseg_cli.bundle import find_bundle
from geoseg_cli.catalog import LandClass, Legend
from geoseg_cli.engines import choose_engine
from geoseg_cli.job import PredictOptions, open_job
from geoseg_cli.mosaic import Blend, Mosaic
from geoseg_cli.mosaic.seams import Seams
from geoseg_cli.rows import Extra, Rows
from geoseg_cli.scenes import SceneOptions
from geoseg_cli.tiles import Tile, TilePlan

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

EXTRAS: dict[str, tuple[Extra, ...]] = {
    "labels": (),
    "and confidence": ("confidence",),
    "and probabilities": ("confidence", "probabilities"),
}
POOL = 12
"""Different tiles of synthetic logits: more than a processor's cache holds."""

HEADER = "| blend | made | plain, ms/Mpx of tiles | ours, of tiles | of the scene | speed | same labels | off |"


@dataclass(frozen=True)
class Answers:
    """What a network said: logits (K,T,T) and validity (T,T) of each tile, taken in turn where there are fewer."""

    plan: TilePlan
    legend: Legend
    tiles: list[tuple[Tile, FloatArray, BoolArray]]

    @property
    def tile_mpx(self) -> float:
        """Million pixels of all tiles, without padding."""
        return sum(tile.window.height * tile.window.width for tile, _, _ in self.tiles) / 1e6

    @property
    def scene_mpx(self) -> float:
        """Million pixels of the scene."""
        return self.plan.rows.size * self.plan.cols.size / 1e6


@dataclass
class Case:
    """A way to blend, and the CPU seconds of each round."""

    blend: Blend
    made: str
    plain_s: list[float] = field(default_factory=list)
    ours_s: list[float] = field(default_factory=list)
    same: float = 0.0
    off: float = 0.0


class PlainMosaic:
    """Softmax, weighted sum, division and largest class, for every pixel of every tile."""

    def __init__(self, plan: TilePlan, legend: Legend, blend: Blend, extras: tuple[Extra, ...]) -> None:
        """Prepare sums of one tile height."""
        self._plan, self._legend, self._extras = plan, legend, extras
        self._row_weights, self._col_weights = (Seams(axis, blend).weights for axis in (plan.rows, plan.cols))
        height, width = min(plan.tile_height, plan.rows.size), plan.cols.size
        self._sums = np.zeros((len(legend.classes), height, width), np.float32)
        self._weights = np.zeros((height, width), np.float32)
        self._row = 0

    def add(self, tile: Tile, logits: FloatArray, valid: BoolArray) -> Iterator[Rows]:
        """Sum up a tile; yields what is finished."""
        yield from self._release(tile.window.row)
        logits, valid = logits[:, : tile.window.height, : tile.window.width], valid[: tile.window.height]
        finite = np.isfinite(logits).all(axis=0)
        weights = np.outer(self._row_weights[tile.row_index], self._col_weights[tile.col_index])
        weights = np.where(valid[:, : tile.window.width] & finite, weights, np.float32(0))
        shifted = logits - logits.max(axis=0)
        np.exp(shifted, out=shifted)
        shifted /= shifted.sum(axis=0)
        rows = slice(tile.window.row - self._row, tile.window.row_stop - self._row)
        self._sums[:, rows, tile.window.cols] += shifted * weights
        self._weights[rows, tile.window.cols] += weights

    def finish(self) -> Iterator[Rows]:
        """Yield what is left."""
        yield from self._release(self._plan.rows.size)

    def _release(self, stop: int) -> Iterator[Rows]:
        while self._row < stop:
            count = min(stop - self._row, len(self._weights))
            yield self._rows(count)
            for held in (*self._sums, self._weights):
                held[:-count] = held[count:]
                held[-count:] = 0
            self._row += count

    def _rows(self, count: int) -> Rows:
        valid = self._weights[:count] > 0
        scale = np.divide(1, self._weights[:count], out=np.zeros_like(self._weights[:count]), where=valid)
        best, largest = np.zeros(valid.shape, np.uint8), self._sums[0, :count].copy()
        for number, plane in enumerate(self._sums[1:, :count], start=1):
            best[plane > largest] = number
            np.maximum(largest, plane, out=largest)
        labels = np.where(valid, np.asarray(self._legend.values, np.uint8)[best], np.uint8(self._legend.nodata))
        confidence = np.minimum(largest * scale, np.float32(1)) if "confidence" in self._extras else None
        probabilities = self._sums[:, :count] * scale if "probabilities" in self._extras else None
        return Rows(self._row, labels, confidence, probabilities, valid)


def main() -> None:
    """Make logits, measure and print."""
    options = parse_options()
    answers = scene_answers(options) if options.scene else synthetic_answers(options)
    cases = [Case(blend, made) for blend in ("hann", "linear", "trim") for made in EXTRAS]
    for _ in range(options.rounds):
        for case in cases:
            measure(case, answers)
    print(f"{len(answers.legend.classes)} classes, {answers.plan.cols.size} px wide, {answers.plan}")
    print(f"medians of {options.rounds} rounds\n")
    print("\n".join([HEADER, "|---|---" + "|---:" * 6 + "|", *(render(case, answers) for case in cases)]))


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument("--tile", type=int, default=512, help="side of a tile (default: %(default)s)")
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--side", type=int, default=4096, help="rows and columns (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scene", help="a real scene instead")
    parser.add_argument("--bundle", default="landcover-lale", help="what answers it")
    parser.add_argument("--radiometry", default="auto", help="as for classify (default: %(default)s)")
    return parser.parse_args()


def synthetic_answers(options: argparse.Namespace) -> Answers:
    """Logits of a network that is sure in fields and unsure at their borders."""
    plan = TilePlan.cover(options.side, options.side, options.tile, options.overlap)
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[: plan.tile_height, : plan.tile_width].astype(np.float32) / 40
    pool = []
    for _ in range(POOL):
        phases = rng.uniform(0, 6, (options.classes, 2, 1, 1)).astype(np.float32)
        waves = 4 * np.sin(rows + phases[:, 0]) * np.cos(cols + phases[:, 1])
        pool.append(waves + rng.normal(0, 1, waves.shape).astype(np.float32))
    valid = np.ones((plan.tile_height, plan.tile_width), np.bool_)
    classes = tuple(LandClass(k, f"class{k}", f"Class {k}", "#000000") for k in range(options.classes))
    return Answers(plan, Legend("bench", classes), [(tile, pool[tile.index % POOL], valid) for tile in plan])


def scene_answers(options: argparse.Namespace) -> Answers:
    """A bundle's logits of a scene, all of them in memory."""
    bundle = find_bundle(options.bundle)
    predict = PredictOptions(options.tile, options.overlap, scene=SceneOptions(radiometry=options.radiometry))
    with ExitStack() as stack:
        job = stack.enter_context(open_job(Path(options.scene), bundle, predict))
        engine, _ = choose_engine(bundle)
        made = []
        for batch in Cutter(job.view, job.plan, bundle.input_spec, job.orientation).batches(1):
            (tile,) = batch.tiles
            (logits,) = engine.run(batch.pixels)
            made.append((tile, *(job.orientation.turn_back(one, tile.window) for one in (logits, batch.valid[0]))))
        return Answers(job.plan, bundle.legend, made)


def measure(case: Case, answers: Answers) -> None:
    """One round of both ways; the first one compares what they made."""
    extras = EXTRAS[case.made]
    plain = PlainMosaic(answers.plan, answers.legend, case.blend, extras)
    ours = Mosaic(answers.plan, answers.legend, case.blend, extras=extras)
    if not case.plain_s:
        compare(case, stitch(plain, answers), stitch(ours, answers))
        plain = PlainMosaic(answers.plan, answers.legend, case.blend, extras)
        ours = Mosaic(answers.plan, answers.legend, case.blend, extras=extras)
    case.plain_s.append(cpu_seconds(lambda: sum(rows.row for rows in stitch(plain, answers))))
    case.ours_s.append(cpu_seconds(lambda: sum(rows.row for rows in stitch(ours, answers))))


def stitch(mosaic: Any, answers: Answers) -> Iterator[Rows]:
    """All rows."""
    for tile, logits, valid in answers.tiles:
        yield from mosaic.add(tile, logits, valid)
    yield from mosaic.finish()


def compare(case: Case, plain: Iterator[Rows], ours: Iterator[Rows]) -> None:
    """Share of equal labels among pixels with an answer, and the largest difference of a probability."""
    same = pixels = 0
    for one, other in zip(plain, ours, strict=True):
        assert np.array_equal(one.valid, other.valid)
        same += int(np.count_nonzero((one.labels == other.labels) & one.valid))
        pixels += int(np.count_nonzero(one.valid))
        for wanted, found in ((one.confidence, other.confidence), (one.probabilities, other.probabilities)):
            if wanted is not None and found is not None:
                case.off = max(case.off, float(np.abs(wanted - found).max()))
    case.same = same / pixels


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def render(case: Case, answers: Answers) -> str:
    """A row of the table."""
    plain, ours = (1e3 * statistics.median(seconds) for seconds in (case.plain_s, case.ours_s))
    per_tile = [f"{ms / answers.tile_mpx:.1f}" for ms in (plain, ours)]
    off = f"{case.off:.0e}" if EXTRAS[case.made] else ""
    cells = [case.blend, case.made, *per_tile, f"{ours / answers.scene_mpx:.1f}", f"{plain / ours:.1f} x"]
    return f"| {' | '.join([*cells, f'{case.same:.7%}', off])} |"


if __name__ == "__main__":
    main()
