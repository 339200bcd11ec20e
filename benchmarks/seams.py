"""Whether tiles show in a map: borders between classes on the lines where tiles meet, against elsewhere.

    python benchmarks/seams.py [--data FOLDER] [--bundle landcover-lale] [--grids 6] [--tile 256] [--overlap 64]

Real scenes differ from place to place far more than any seam does. So each scene is run several times with the tiles
moved, and the borders on a line are compared with those at the same place in the maps whose lines lie elsewhere:
"same place" is their ratio, 1 where tiles do not show. "Same map" is the plain ratio, of the borders on all lines to
those in the rest of the same maps, per pair of neighbours. Lines are the edges of tiles and the middles between them;
with `trim` the map changes hands at the middles, and the edges are a check that nothing shows where nothing is done.
Intervals are 95 % and come from drawing lines anew 1000 times; lines of one scene are not wholly independent.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from geoseg_cli.batches import Cutter
from geoseg_cli.bundle import find_bundle
from geoseg_cli.engines import Engine, choose_engine
from geoseg_cli.job import Job, PredictOptions, open_job
from geoseg_cli.mosaic import Blend, Mosaic
from geoseg_cli.scenes import SceneOptions
from geoseg_cli.tiles import Axis, TilePlan

LabelArray = npt.NDArray[np.uint8]
CountArray = npt.NDArray[np.int64]
Kind = Literal["edges", "middles"]

BLENDS: tuple[Blend, ...] = ("hann", "linear", "trim")
KINDS: tuple[Kind, ...] = ("edges", "middles")
DRAWS = 1000
NEAR_PX = 2
"""Pairs as near to a line are not compared with: a border may have moved by a pixel."""

HEADER = "| scene | bands | blend | lines | number | borders on them | same place | 95 % | same map | 95 % |"


@dataclass(frozen=True)
class Shown:
    """A scene and how it is read.

    Attributes:
        path: Below ``scenes`` of the real data.
        options: What the file does not say.
    """

    path: str
    options: SceneOptions

    @property
    def bands(self) -> str:
        """What is left out, for the table."""
        return f"without {' '.join(self.options.drop)}" if self.options.drop else "all"


@dataclass(frozen=True)
class Line:
    """Borders on a line, and as many as the same place in other maps, and the rest of this map, let expect."""

    borders: float
    same_place: float
    same_map: float


DN = SceneOptions(radiometry="dn")
VISIBLE_NIR = replace(DN, drop=("swir16", "swir22"))

SCENES = (
    Shown("s2_l2a_alberta_20190522/S2_L2A_20190522_alberta.tif", DN),
    Shown("s2_l2a_alberta_20190522/S2_L2A_20190522_alberta.tif", VISIBLE_NIR),
    Shown("s2_toa_boa_belgium_20190411/S2_TOA_20190411.tif", DN),
    Shown("s2_toa_boa_belgium_20190411/S2_BOA_iCOR_20190411.tif", DN),
    Shown("s2_l2a_boadella/Boadella_2020-01-23.tif", DN),
    Shown("s2_l2a_boadella/Boadella_2020-01-23.tif", VISIBLE_NIR),
    Shown("landsat/LC80200392015216LGN00", SceneOptions()),
)


def main() -> None:
    """Run, compare and print."""
    options = parse_options()
    bundle = find_bundle(options.bundle)
    engine, _ = choose_engine(bundle)
    every: dict[tuple[Blend, Kind], list[Line]] = defaultdict(list)
    print("\n".join([HEADER, "|---" * 4 + "|---:" * 6 + "|"]))
    for shown in SCENES:
        found: dict[tuple[Blend, Kind], list[Line]] = defaultdict(list)
        predict = PredictOptions(options.tile, options.overlap, scene=shown.options, gsd="native")
        with open_job(options.data / "scenes" / shown.path, bundle, predict) as job:
            plans = [moved_plan(job.plan, number, options.grids) for number in range(options.grids)]
            maps = [maps_of(replace(job, plan=plan), engine) for plan in plans]
        for blend, axis in product(BLENDS, (0, 1)):
            for kind, line in lines_of(plans, [one[blend] for one in maps], axis):
                found[blend, kind].append(line)
        for key, lines in found.items():
            every[key] += lines
            print(render(Path(shown.path).stem, shown.bands, *key, lines), flush=True)
    for key, lines in every.items():
        print(render("all", "all", *key, lines))


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GEOSEG_REAL_DATA") or beside))
    parser.add_argument("--bundle", default="landcover-lale")
    parser.add_argument("--grids", type=int, default=6, help="times that a scene is run (default: %(default)s)")
    parser.add_argument("--tile", type=int, help="what the bundle's card states, if not given")
    parser.add_argument("--overlap", type=int)
    return parser.parse_args()


def moved_plan(plan: TilePlan, number: int, grids: int) -> TilePlan:
    """The plan with its inner tiles moved by another share of their distance for each number."""
    return TilePlan(moved_axis(plan.rows, number, grids), moved_axis(plan.cols, number, grids))


def moved_axis(axis: Axis, number: int, grids: int) -> Axis:
    """Tiles as far from each other as the overlap allows, but for the first and the last."""
    if axis.size <= axis.tile:
        return axis
    distance, last = axis.tile - axis.overlap, axis.size - axis.tile
    first = max(1, round((number + 0.5) * distance / grids))
    return replace(axis, starts=(0, *range(first, last, distance), last))


def maps_of(job: Job, engine: Engine) -> dict[Blend, LabelArray]:
    """(H, W) labels for each way to blend; the network runs once."""
    mosaics = {blend: Mosaic(job.plan, job.bundle.legend, blend) for blend in BLENDS}
    parts: dict[Blend, list[LabelArray]] = {blend: [] for blend in BLENDS}
    for batch in Cutter(job.view, job.plan, job.bundle.input_spec, job.orientation).batches(engine.batch_tiles):
        for tile, logits, valid in zip(batch.tiles, engine.run(batch.pixels), batch.valid, strict=True):
            answer = [job.orientation.turn_back(one, tile.window) for one in (logits, valid)]
            for blend, mosaic in mosaics.items():
                parts[blend] += [rows.labels for rows in mosaic.add(tile, *answer)]
    for blend, mosaic in mosaics.items():
        parts[blend] += [rows.labels for rows in mosaic.finish()]
    return {blend: np.concatenate(labels) for blend, labels in parts.items()}


def line_places(axis: Axis) -> dict[Kind, list[int]]:
    """First pixel behind each line."""
    tiles = range(len(axis.starts))
    return {
        "edges": sorted({*axis.starts[1:], *(sum(axis.extent(index)) for index in tiles[:-1])}),
        "middles": [axis.core(index)[1] for index in tiles[:-1]],
    }


def lines_of(plans: Sequence[TilePlan], maps: Sequence[LabelArray], axis: int) -> Iterator[tuple[Kind, Line]]:
    """All lines across one axis of all maps of a scene."""
    places = [line_places(plan.rows if axis == 0 else plan.cols) for plan in plans]
    borders, pairs = zip(*(border_counts(labels if axis else labels.T) for labels in maps), strict=True)
    near = [
        {place + off for kind in KINDS for place in one[kind] for off in range(-NEAR_PX, NEAR_PX + 1)} for one in places
    ]
    for number, kind in product(range(len(plans)), KINDS):
        rest = np.setdiff1d(np.arange(1, len(borders[number])), [*near[number]])
        density = borders[number][rest].sum() / max(1, pairs[number][rest].sum())
        for place in places[number][kind]:
            others = [borders[other][place] for other in range(len(plans)) if place not in near[other]]
            if others:
                expected = density * float(pairs[number][place])
                yield kind, Line(float(borders[number][place]), float(np.mean(others)), float(expected))


def border_counts(labels: LabelArray) -> tuple[CountArray, CountArray]:
    """For each column x of (H, W): rows in which x - 1 and x differ, and rows in which both have an answer."""
    known = (labels[:, 1:] != 255) & (labels[:, :-1] != 255)
    differ = known & (labels[:, 1:] != labels[:, :-1])
    counts, pairs = (np.concatenate([[0], np.count_nonzero(one, axis=0)]) for one in (differ, known))
    return counts, pairs


def render(scene: str, bands: str, blend: Blend, kind: Kind, lines: Sequence[Line]) -> str:
    """A row of the table."""
    table = np.array([[line.borders, line.same_place, line.same_map] for line in lines])
    times = np.random.default_rng(0).multinomial(len(lines), np.full(len(lines), 1 / len(lines)), size=DRAWS)
    cells = [scene, bands, blend, kind, str(len(lines)), f"{table[:, 0].sum():,.0f}"]
    for column in (1, 2):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = table[:, 0].sum() / table[:, column].sum()
            drawn = (times @ table[:, 0]) / (times @ table[:, column])
        low, high = np.nanpercentile(drawn, [2.5, 97.5])
        cells += [f"{ratio:.3f}", f"{low:.3f} to {high:.3f}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
