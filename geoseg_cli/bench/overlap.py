"""Which overlap of tiles a bundle needs: maps at several overlaps against a reference of wide context.

The reference is made by the same network over tiles so large that every pixel is taken from where it has at least
:data:`CONTEXT_PX` pixels of the scene on all sides, or the scene's edge.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from geoseg_cli.bench.agreement import Agreement, Seams, compare_maps
from geoseg_cli.bench.apart import run_apart
from geoseg_cli.bench.measure import Case
from geoseg_cli.bench.run import Note, describe_machine
from geoseg_cli.bundle import Bundle, find_bundle
from geoseg_cli.catalog import Legend
from geoseg_cli.engines import EngineOptions, choose_engine
from geoseg_cli.errors import UsageError
from geoseg_cli.job import Job, PredictOptions
from geoseg_cli.predict import predict_scene
from geoseg_cli.printable import counted
from geoseg_cli.tiles import Axis, TilePlan

OVERLAPS_PX = (0, 16, 32, 64, 96, 128)
CONTEXT_PX = 256
REFERENCE_PX = 4 * CONTEXT_PX
"""Side of the reference's tiles: half of it overlaps, and neighbours share the overlap at its middle."""

SENTINEL_2_PX = 10_980
"""Side of a Sentinel-2 tile at 10 m, for which the computed pixels are counted."""

AGREEMENTS = (0.999, 0.995)
MOST_COMPUTED = 1.20


@dataclass(frozen=True, slots=True)
class MapMade:
    """A map of the sweep.

    Attributes:
        path: Where it lies.
        engine, precision: What ran.
        size_px: Rows and columns of the scene.
        plan: The tiles, as the network saw them.
        seams: Where the map passes from tile to tile.
        core_s: Core-seconds from scene to map.
    """

    path: Path
    engine: str
    precision: str
    size_px: tuple[int, int]
    plan: TilePlan
    seams: Seams
    core_s: float


@dataclass(frozen=True, slots=True)
class OverlapRow:
    """One side of tiles and one overlap.

    Attributes:
        tile_px, overlap_px: As asked for.
        computed_share: Pixels computed per pixel of a scene of 10 980 x 10 980.
        core_s: Core-seconds from this scene to its map.
        agreement: With the reference.
        doubled: With the map at twice the overlap; None where tiles do not allow it.
        tiles: Rows and columns of tiles on this scene.
        moved: Whether tiles lie elsewhere at twice the overlap. Where they do not, only the width of the blending
            differs; where they do, each pixel also has other surroundings in its tile.
    """

    tile_px: int
    overlap_px: int
    computed_share: float
    core_s: float
    agreement: Agreement
    doubled: Agreement | None
    tiles: tuple[int, int]
    moved: bool = False

    @property
    def is_enough(self) -> bool | None:
        """At most 1.20 pixels computed per pixel, and at least 99.5 % agreement with twice the overlap.

        None where the second cannot be told: there is no such map, or it has the same tiles.
        """
        if self.computed_share > MOST_COMPUTED:
            return False
        share = self.doubled.share if self.doubled else None
        if share is None or (share >= AGREEMENTS[1] and not self.moved):
            return None
        return share >= AGREEMENTS[1]


@dataclass(frozen=True, slots=True)
class OverlapReport:
    """Agreement against overlap.

    Attributes:
        scene: What was mapped.
        size_px: Rows and columns.
        bundle: The model.
        engine: What ran, such as ``onnx fp32``.
        machine: Versions, processor and cores.
        reference_px: Side of the reference's tiles; the scene's own side where that is smaller.
        rows: By tile, then by overlap.
        seamless: Sides of tiles that hold the scene whole: nothing can be told about them here.
    """

    scene: str
    size_px: tuple[int, int]
    bundle: str
    engine: str
    machine: dict[str, Any]
    reference_px: int
    rows: tuple[OverlapRow, ...]
    seamless: tuple[int, ...]

    def smallest(self, tile_px: int, share: float) -> int | None:
        """The smallest overlap whose map agrees at least so far with the reference."""
        found = (
            row.overlap_px
            for row in self.rows
            if row.tile_px == tile_px and row.agreement.share is not None and row.agreement.share >= share
        )
        return min(found, default=None)

    def highest(self, tile_px: int) -> float | None:
        """The best agreement of any overlap with the reference."""
        shares = (row.agreement.share for row in self.rows if row.tile_px == tile_px)
        return max((share for share in shares if share is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """The report in plain types."""
        tiles = dict.fromkeys(row.tile_px for row in self.rows)
        smallest = {str(tile): {f"{share:.1%}": self.smallest(tile, share) for share in AGREEMENTS} for tile in tiles}
        rows = [asdict(row) | {"is_enough": row.is_enough} for row in self.rows]
        return asdict(self) | {"rows": rows, "smallest_overlap_px": smallest}


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """What is compared.

    Attributes:
        bundle: The model.
        engine: What runs it.
        tiles_px: Sides of tiles.
        predict: How the scene is read and tiles are merged.
    """

    bundle: Bundle
    engine: EngineOptions
    tiles_px: tuple[int, ...]
    predict: PredictOptions = field(default_factory=PredictOptions)


def sweep_overlaps(scene: Path, options: SweepOptions, folder: Path, note: Note) -> OverlapReport:
    """Map a scene at several overlaps and compare.

    Args:
        scene: A file or folder.
        options: What is compared.
        folder: For the maps; the caller removes it.
        note: Told what is being done.

    Raises:
        GeosegError: The scene cannot be read or the network not run.
        UsageError: A tile does not fit the network, or the scene fits into each of the tiles.
    """
    multiple = options.bundle.card.extras.size_multiple
    reference_px = -(-REFERENCE_PX // multiple) * multiple
    wanted = [(tile, overlap) for tile in options.tiles_px for overlap in _overlaps(tile)]
    note(f"{counted(len(wanted), 'map')}, and the reference with tiles of {reference_px} px")
    # One tile at a time: attention among all positions of so large a tile takes gigabytes.
    wide = replace(options.predict, tile_px=reference_px, overlap_px=2 * CONTEXT_PX, blend="trim", batch=1)
    cuts = [wide, *(replace(options.predict, tile_px=tile, overlap_px=overlap) for tile, overlap in wanted)]
    model = str(options.bundle.folder)
    cases = [Case(scene, model, options.engine, cut, folder / f"map_{n}.tif") for n, cut in enumerate(cuts)]
    reference, *made = run_apart(make_maps, cases)
    size_px = reference.size_px
    seamless = tuple(tile for tile in options.tiles_px if max(size_px) <= tile)
    maps = {key: one for key, one in zip(wanted, made, strict=True) if key[0] not in seamless}
    if not maps:
        raise UsageError(
            f"{scene} has {size_px[0]} x {size_px[1]} px: it fits into one tile and has no seams",
            "give a larger scene, or a smaller --tile",
        )
    note("comparing them")
    rows = _compare(reference, maps, options.bundle)
    about = scene.name, size_px, options.bundle.name, f"{reference.engine} {reference.precision}", describe_machine()
    return OverlapReport(*about, reference_px, rows, seamless)


def _compare(reference: MapMade, maps: Mapping[tuple[int, int], MapMade], bundle: Bundle) -> tuple[OverlapRow, ...]:
    """Rows from maps by tile and overlap."""
    twice = {key: maps[key[0], 2 * key[1]] for key in maps if key[1] and (key[0], 2 * key[1]) in maps}
    pairs = [(reference.path, one.path, one.seams) for one in maps.values()]
    pairs += [(wider.path, maps[key].path, maps[key].seams) for key, wider in twice.items()]
    agreements = run_apart(compare_all, pairs, bundle.legend)
    doubled = dict(zip(twice, agreements[len(maps) :], strict=True))
    return tuple(
        OverlapRow(
            *key,
            computed_share=_computed_share(*key, bundle.card.extras.size_multiple),
            core_s=one.core_s,
            agreement=agreement,
            doubled=doubled.get(key),
            tiles=(len(one.plan.rows.starts), len(one.plan.cols.starts)),
            moved=key in twice and _starts(one.plan) != _starts(twice[key].plan),
        )
        for (key, one), agreement in zip(maps.items(), agreements, strict=False)
    )


def _starts(plan: TilePlan) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return plan.rows.starts, plan.cols.starts


def make_maps(cases: Sequence[Case]) -> list[MapMade]:
    """Map one scene in several ways with one engine.

    Raises:
        GeosegError: As :func:`geoseg_cli.predict.predict_scene`.
    """
    bundle = find_bundle(cases[0].model)
    engine, _ = choose_engine(bundle, cases[0].engine)
    made = []
    for case in cases:
        jobs: list[Job] = []
        core = time.process_time()
        predict_scene(case.scene, case.output, bundle, engine, case.options, announce=jobs.append)
        core = time.process_time() - core
        (job,) = jobs
        size_px = job.scene.grid.height, job.scene.grid.width
        seams = find_seams(job)
        made.append(MapMade(case.output, engine.name, engine.precision, size_px, job.plan, seams, core))
    return made


def compare_all(pairs: Sequence[tuple[Path, Path, Seams]], legend: Legend) -> list[Agreement]:
    """Compare maps with references: pairs of a reference and a map, and the map's seams."""
    return [compare_maps(reference, judged, legend, seams) for reference, judged, seams in pairs]


def find_seams(job: Job) -> Seams:
    """Where a job passes from tile to tile, in pixels of its scene."""
    size, seen = job.scene.grid, job.view.grid
    rows, cols = _seams_along(job.plan.rows), _seams_along(job.plan.cols)
    return Seams(
        tuple(round(row * size.height / seen.height) for row in rows),
        tuple(round(col * size.width / seen.width) for col in cols),
    )


def _seams_along(axis: Axis) -> list[int]:
    return [axis.core(index)[0] for index in range(1, len(axis.starts))]


def _overlaps(tile_px: int) -> list[int]:
    """The overlaps to look at, and twice them, as far as tiles allow."""
    wanted = {*OVERLAPS_PX, *(2 * overlap for overlap in OVERLAPS_PX)}
    return sorted(overlap for overlap in wanted if overlap <= tile_px // 2)


def _computed_share(tile_px: int, overlap_px: int, multiple: int) -> float:
    return TilePlan.cover(SENTINEL_2_PX, SENTINEL_2_PX, tile_px, overlap_px, multiple).computed_share
