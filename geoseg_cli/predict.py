"""The whole path on one screen: a scene and a bundle in, one georeferenced map out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from geoseg_cli.ahead import ahead
from geoseg_cli.aoi import Area, area_of_bounds, cropped, cropped_grid, load_area, only_inside
from geoseg_cli.batches import Batch, FloatArray, batches
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import Engine
from geoseg_cli.engines.turned import Augmentation, TurnedEngine
from geoseg_cli.errors import EngineError, UsageError
from geoseg_cli.grid import Grid
from geoseg_cli.memory import Load, MemoryPlan, fair_share_bytes, plan_memory, refuse_excess
from geoseg_cli.mosaic import Blend, Mosaic
from geoseg_cli.orientation import Orientation
from geoseg_cli.printable import printable
from geoseg_cli.results.areas import ClassArea
from geoseg_cli.results.beside import write_sidecars
from geoseg_cli.results.cog import check_creation_options
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.description import ACQUIRED_TAG
from geoseg_cli.results.maps import Kind, MapSpec, MapWriter
from geoseg_cli.results.raster import software_tags
from geoseg_cli.results.sidecars import Sidecar, sidecar_paths
from geoseg_cli.results.stac import rfc3339
from geoseg_cli.rows import Rows
from geoseg_cli.scenes import Scene, SceneOptions, block_cache, check_resolution, open_scene
from geoseg_cli.scenes.acquired import acquisition_time
from geoseg_cli.scenes.network import address_of, redacted
from geoseg_cli.scenes.resample import AreaOfView, Gsd, Resampled, choose_gsd, show_at
from geoseg_cli.tiles import TilePlan
from geoseg_cli.version import __version__

if TYPE_CHECKING:
    from xarray import DataArray

MAX_NOT_FINITE = 0.001
"""Share of valid pixels with non-finite logits above which a map is refused (reliability rule R6)."""

BAND_DESCRIPTIONS = {"land-cover": "land_cover", "cloud": "cloud_mask"}

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with the pixels finished and the pixels of the scene."""


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How a scene is predicted; the command line's options map onto these one to one.

    Attributes:
        tile_px, overlap_px: None takes what the bundle's card states.
        blend: How overlapping tiles are merged.
        tta: Test-time augmentation: answers averaged over four (``flip``) or eight (``d4``) views of each tile.
        batch: Tiles that go through the engine together; None lets the engine choose. Never changes the map.
        scene: How the scene is read.
        gsd: Pixel size that the network sees: metres, ``auto`` (the model's where the scene's differs by more than
            25 %) or ``native``. The output has the scene's own pixels in any case.
        bounds: (left, bottom, right, top); pixels outside become nodata.
        bounds_crs: What ``bounds`` are in; None for the scene's CRS.
        area: File of polygons; pixels outside become nodata.
        crop: Outputs end where ``bounds`` or ``area`` end.
        probabilities, confidence: Further rasters to write.
        sidecars: Whether attribute table, QGIS style and STAC item are written beside the map.
        max_memory_bytes: What the run may take beside interpreter, libraries and weights; None for a fair share of what
            is free.
        creation_options: GDAL creation options of the COG, case kept.
        overwrite: Whether existing outputs may be replaced.
        written_at: Time stamp in the outputs; None is now.
    """

    tile_px: int | None = None
    overlap_px: int | None = None
    blend: Blend = "hann"
    tta: Augmentation = "none"
    batch: int | None = None
    scene: SceneOptions = field(default_factory=SceneOptions)
    gsd: Gsd = "auto"
    bounds: tuple[float, float, float, float] | None = None
    bounds_crs: str | None = None
    area: Path | None = None
    crop: bool = False
    probabilities: Path | None = None
    confidence: Path | None = None
    sidecars: bool = True
    max_memory_bytes: int | None = None
    creation_options: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    written_at: datetime | None = None


@dataclass(frozen=True)
class Job:
    """A scene that was opened, understood and cut into tiles, before anything is computed or written.

    Attributes:
        scene: As it is stored.
        view: As the network sees it: at another pixel size, or the same as ``scene``.
        resampled: What brings answers on the view back to the scene; None where they are the same.
        bundle: The model.
        plan: Tiles on the view.
        orientation: How each tile is turned north-up.
        area: Part of the scene that gets an answer; None for all of it.
        options: As given.
        warnings: What the user should know.
    """

    scene: Scene
    view: Scene
    resampled: Resampled | None
    bundle: Bundle
    plan: TilePlan
    orientation: Orientation
    area: Area | None
    options: PredictOptions
    warnings: tuple[str, ...]

    @property
    def grid(self) -> Grid:
        """Where the outputs' pixels lie: the scene's grid, or the part that is not cropped."""
        if self.options.crop and self.area is not None:
            return cropped_grid(self.scene.grid, self.area.window)
        return self.scene.grid

    def memory(self, batch_tiles: int) -> MemoryPlan:
        """How much memory the job will take.

        Args:
            batch_tiles: Tiles that the engine likes to get together; counts unless the user said how many.

        Raises:
            UsageError: The user allows less than the smallest plan needs.
        """
        options, plan = self.options, self.plan
        classes, rasters = len(self.bundle.legend.classes), len(_targets(Path(), options))
        load = Load(
            width=self.view.grid.width,
            tile_height=plan.tile_height,
            tile_width=plan.tile_width,
            stored_bytes=self.view.pixel_bytes,
            channels=self.bundle.input_spec.channels,
            classes=classes,
            output_bands=rasters + (classes if options.probabilities else 0),
            output_width=self.grid.width,
            cache_bytes=self.view.size_in_cache(plan.tile_height),
        )
        limit = options.max_memory_bytes or fair_share_bytes()
        chosen = plan_memory(load, options.batch or batch_tiles, limit, options.batch is not None)
        if options.max_memory_bytes is not None:
            refuse_excess(chosen)
        return chosen

    def decisions(self) -> dict[str, Any]:
        """What was resolved and why, in plain types."""
        scene = self.scene
        return {
            "scene": redacted(str(scene.path)),
            "bundle": self.bundle.name,
            "size_px": [scene.grid.height, scene.grid.width],
            "crs": scene.grid.crs.to_string() if scene.grid.crs else None,
            "gsd_m": _steps(scene.grid),
            "resampled_gsd_m": _steps(self.view.grid) if self.resampled else None,
            "orientation": str(self.orientation),
            "area": _area_words(self.options),
            "output_size_px": [self.grid.height, self.grid.width],
            "bands": _band_table(scene),
            "radiometry": {
                "rung": scene.radiometry.rung,
                "scale": scene.radiometry.scale,
                "offset": scene.radiometry.offset,
                "reason": scene.radiometry.reason,
            },
            "nodata": scene.nodata_reason,
            "tiles": len(self.plan),
            "tile_px": [self.plan.tile_height, self.plan.tile_width],
            "overlap_px": self.plan.rows.overlap,
            "blend": self.options.blend,
            "tta": self.options.tta,
            "temperature": self.bundle.card.extras.temperature,
            "batch": self.options.batch or "auto",
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class PredictReport:
    """What was done; ``to_json`` is what ``--json`` prints.

    Attributes:
        outputs: ``labels`` and, where asked for, ``probabilities`` and ``confidence``.
        sidecars: ``attributes``, ``style`` and ``item`` beside the map; empty where none were wanted.
        decisions: What was resolved and why.
        engine: Name, device and precision that really ran.
        memory: What the run was planned to take.
        tiles_run: Tiles that went through the engine.
        seconds: Wall time per stage: read (waited for), run, blend, write, commit, total.
        areas: Pixels, share of the valid pixels and hectares per class.
        not_finite: Pixels that became nodata because their logits were not finite.
    """

    outputs: dict[Kind, Path]
    sidecars: dict[Sidecar, Path]
    decisions: dict[str, Any]
    engine: dict[str, str]
    memory: MemoryPlan
    tiles_run: int
    seconds: dict[str, float]
    areas: tuple[ClassArea, ...]
    valid_pixels: int
    not_finite: int

    def to_json(self) -> dict[str, Any]:
        """The report in plain types."""
        return {
            "outputs": {kind: str(path) for kind, path in self.outputs.items()},
            "sidecars": {kind: str(path) for kind, path in self.sidecars.items()},
            **self.decisions,
            "engine": self.engine,
            "memory": self.memory.to_json(),
            "tiles_run": self.tiles_run,
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
            "valid_pixels": self.valid_pixels,
            "not_finite_pixels": self.not_finite,
            "classes": [asdict(area) for area in self.areas],
        }


@contextmanager
def open_job(path: Path | DataArray, bundle: Bundle, options: PredictOptions) -> Iterator[Job]:
    """Open a scene and plan its tiles; nothing is computed or written.

    Raises:
        GeosegError: The scene cannot be read or does not fit the bundle.
    """
    extras = bundle.card.extras
    wanted_gsd_m = extras.gsd_m if isinstance(options.gsd, str) else options.gsd
    with open_scene(path, bundle.input_spec, options.scene, wanted_gsd_m) as scene:
        gsd_m = choose_gsd(scene.grid, extras.gsd_m, options.gsd, str(scene.path), extras.gsd_range_m)
        view, resampled = show_at(scene, gsd_m)
        orientation = Orientation.of(scene.grid)
        area = _area(scene, options)
        tile = options.tile_px or extras.tile_px
        overlap = min(extras.overlap_px, tile // 2) if options.overlap_px is None else options.overlap_px
        plan = orientation.plan(view.grid.height, view.grid.width, tile, overlap, extras.size_multiple)
        warnings = (
            *orientation.still_true(view.warnings),
            *check_resolution(view.grid, extras.gsd_m, str(scene.path), extras.gsd_range_m),
            *(area.warnings if area else ()),
            *_doubts(bundle, options),
        )
        yield Job(scene, view, resampled, bundle, plan, orientation, area, options, warnings)


class JobRun:
    """A job on its way through engine and mosaic.

    Args:
        job: The scene and its tiles.
        engine: What runs the network; made from the job's bundle.
        with_probabilities: Whether rows carry the probabilities of all classes.
        temperature: Probabilities are softmax(logits / temperature); None takes what the card states.
        clock: Counts the seconds of the stages read, run and blend.

    Attributes:
        memory: What the job is planned to take; decides how long the queues are.
        tiles_run: Tiles that went through the engine so far.
    """

    def __init__(
        self,
        job: Job,
        engine: Engine,
        with_probabilities: bool = False,
        temperature: float | None = None,
        clock: _Clock | None = None,
    ) -> None:
        if temperature is None:
            temperature = job.bundle.card.extras.temperature
        self._job = job
        self._engine = engine if job.options.tta == "none" else TurnedEngine(engine, job.options.tta)
        self._clock = clock or _Clock("read", "run", "blend")
        self._mosaic = Mosaic(job.plan, job.bundle.legend, job.options.blend, with_probabilities, temperature)
        self._answered = 0
        self.memory = job.memory(engine.batch_tiles)
        self.tiles_run = 0

    @property
    def not_finite(self) -> int:
        """Pixels that became nodata because their logits were not finite, counted as the network sees them."""
        return self._mosaic.not_finite

    @contextmanager
    def rows(self, progress: Progress | None = None) -> Iterator[Iterator[Rows]]:
        """Finished rows of the job's output grid, from first to last, once; the block closes the reader behind them.

        Raises:
            EngineError: The engine failed, or gave more than a few non-finite numbers; told after the last row.
        """
        # Closed here and not when it is collected: its reader must be done before the scene is closed.
        with closing(self._counted(progress)) as finished:
            yield finished

    def _counted(self, progress: Progress | None) -> Generator[Rows, None, None]:
        grid = self._job.grid
        for rows in self._on_output_grid(self._finished()):
            yield rows
            if progress:
                progress((rows.row + rows.labels.shape[0]) * grid.width, grid.height * grid.width)
        if self.not_finite > MAX_NOT_FINITE * (self._answered + self.not_finite):
            raise EngineError(
                f"{self._job.scene.path}: {self._job.bundle.name} gave non-finite numbers for {self.not_finite} pixels",
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
        for rows in seen:
            self._answered += int(np.count_nonzero(rows.valid))
            yield rows

    def _finished(self) -> Iterator[Rows]:
        clock, turn_back = self._clock, self._job.orientation.turn_back
        with ahead(self._answers(), self.memory.waiting, "geoseg-run") as answers:
            for batch, logits in answers:
                self.tiles_run += len(batch.tiles)
                for tile, tile_logits, valid in zip(batch.tiles, logits, batch.valid, strict=True):
                    answer = turn_back(tile_logits, tile.window), turn_back(valid, tile.window)
                    yield from clock.iterate("blend", self._mosaic.add(tile, *answer))
        yield from clock.iterate("blend", self._mosaic.finish())

    def _answers(self) -> Generator[tuple[Batch, FloatArray], None, None]:
        """What the engine says to each batch; the next batches are made beside it."""
        with ahead(self._batches(), self.memory.waiting, "geoseg-cut") as made:
            for batch in self._clock.iterate("read", made):
                with self._clock("run"):
                    logits = self._engine.run(batch.pixels)
                yield batch, logits

    def _batches(self) -> Generator[Batch, None, None]:
        job = self._job
        keep = AreaOfView(job.area, job.resampled) if job.area is not None and job.resampled is not None else job.area
        yield from batches(job.view, job.plan, job.bundle.input_spec, self.memory.batch, keep, job.orientation)


def predict_scene(
    path: Path | str | DataArray,
    output: Path | str,
    bundle: Bundle,
    engine: Engine,
    options: PredictOptions | None = None,
    progress: Progress | None = None,
    announce: Callable[[Job], None] | None = None,
) -> PredictReport:
    """Predict one scene and write its map as a Cloud Optimized GeoTIFF.

    The output appears under its name only when it is complete and was read back; whatever goes wrong before leaves
    an older output as it was and no other file.

    Args:
        path: The scene: a file, a folder, an address, or an array (see ``scenes.array_scene``).
        output: Where the class map goes: uint8, the scene's grid (cropped where asked), nodata 255.
        bundle: The model.
        engine: What runs it; made from the same bundle.
        options: How; defaults when None.
        progress: Called after every finished row of tiles.
        announce: Called once everything about the scene is resolved, before anything is computed.

    Raises:
        GeosegError: Anything that a user can do something about.
    """
    path, output = Path(path) if isinstance(path, str) else path, Path(output)
    options = options or PredictOptions()
    clock = _Clock("read", "run", "blend", "write", "commit", "total")
    targets, sidecars = _targets(output, options), _sidecars(output, options)
    with ExitStack() as stack:
        stack.enter_context(clock("total"))
        job = stack.enter_context(open_job(path, bundle, options))
        transaction = stack.enter_context(_transaction(job, output))
        if announce:
            announce(job)
        run = JobRun(job, engine, options.probabilities is not None, clock=clock)
        stack.enter_context(block_cache(run.memory.cache_bytes))
        writer = stack.enter_context(MapWriter(_map_spec(job, engine), targets, transaction))
        with run.rows(progress) as finished:
            for rows in finished:
                with clock("write"):
                    writer.write(rows)
        with clock("commit"):
            writer.finish()
            job.scene.refuse_change()
            if sidecars:
                write_sidecars(writer.describe(), writer.assets(), address_of(job.scene.path), transaction)
            transaction.commit()
        areas, valid_pixels, decisions = writer.areas(), writer.valid_pixels, job.decisions()
    return PredictReport(
        outputs=targets,
        sidecars=sidecars,
        decisions=decisions,
        engine={"name": engine.name, "device": engine.device, "precision": engine.precision},
        memory=run.memory,
        tiles_run=run.tiles_run,
        seconds=clock.seconds,
        areas=areas,
        valid_pixels=valid_pixels,
        not_finite=run.not_finite,
    )


def check_outputs(job: Job, output: Path) -> None:
    """Refuse outputs that a run would refuse before it computes anything; nothing is written.

    Raises:
        GeosegError: An output exists, has no folder, is an input, or a creation option cannot be used.
    """
    check_creation_options(job.options.creation_options)
    with _transaction(job, output):
        pass


def _transaction(job: Job, output: Path) -> OutputTransaction:
    """What publishes the job's outputs: the rasters, then what describes them."""
    targets = [*_targets(output, job.options).values(), *_sidecars(output, job.options).values()]
    return OutputTransaction(targets, overwrite=job.options.overwrite, inputs=_inputs(job))


def _inputs(job: Job) -> list[Path]:
    """Every file that the job reads and no output may replace."""
    area = [job.options.area] if job.options.area else []
    return [job.scene.path, *job.scene.identities, *area, *job.bundle.files]


def _targets(output: Path, options: PredictOptions) -> dict[Kind, Path]:
    targets: dict[Kind, Path] = {"labels": output}
    if options.probabilities is not None:
        targets["probabilities"] = options.probabilities
    if options.confidence is not None:
        targets["confidence"] = options.confidence
    return targets


def _sidecars(output: Path, options: PredictOptions) -> dict[Sidecar, Path]:
    return sidecar_paths(output) if options.sidecars else {}


def _area(scene: Scene, options: PredictOptions) -> Area | None:
    """The part of the scene that the user asks for; None for all of it."""
    if options.area is not None and options.bounds is not None:
        raise UsageError("--area and --bounds both say what to keep", "leave out one of them")
    if options.bounds is None and options.bounds_crs is not None:
        raise UsageError("--bounds-crs without --bounds means nothing", "leave it out, or give --bounds")
    if options.area is not None:
        return load_area(options.area, scene.grid)
    if options.bounds is not None:
        return area_of_bounds(options.bounds, scene.grid, options.bounds_crs, str(scene.path))
    if options.crop:
        raise UsageError("--crop needs to know what to keep", "give --area or --bounds with it")
    return None


def _area_words(options: PredictOptions) -> str | None:
    if options.area is not None:
        return options.area.name
    if options.bounds is None:
        return None
    stated = " ".join(f"{number:.15g}" for number in options.bounds)
    return f"{stated} in {options.bounds_crs}" if options.bounds_crs else stated


def _steps(grid: Grid) -> list[float] | None:
    """Height and width of a pixel in metres, rounded to millimetres."""
    steps = grid.gsd_m()
    return [round(step, 3) for step in steps] if steps else None


def _doubts(bundle: Bundle, options: PredictOptions) -> tuple[str, ...]:
    """What the user should know about the rasters that were asked for."""
    if bundle.card.extras.calibration or not (options.confidence or options.probabilities):
        return ()
    text = "nobody has compared this bundle's confidence with the share of right pixels"
    return (f"{text}; fit its temperature: geoseg evaluate BUNDLE FOLDER --fit-temperature",)


def _map_spec(job: Job, engine: Engine) -> MapSpec:
    description = BAND_DESCRIPTIONS[job.bundle.card.extras.task]
    tags = _tags(job, engine)
    return MapSpec(job.grid, job.bundle.legend, description, tags, job.options.creation_options)


def _band_table(scene: Scene) -> list[dict[str, Any]]:
    """One row per band of the network: its common name, the file's band number from 1 and the file's name for it."""
    return [
        {"band": band, "index": number, "name": scene.bands.file_names[number - 1] if number else None}
        for band, number in zip(scene.bands.wanted, scene.bands.numbers, strict=True)
    ]


def _tags(job: Job, engine: Engine) -> dict[str, str]:
    """Provenance in the default metadata domain; no paths, only names."""
    decisions, scene = job.decisions(), job.scene
    written = job.options.written_at or datetime.now(UTC)
    acquired = acquisition_time(scene.product)
    return software_tags(f"geoseg {__version__}", written) | {
        **({ACQUIRED_TAG: rfc3339(acquired)} if acquired else {}),
        "GEOSEG_VERSION": __version__,
        "GEOSEG_MODEL": job.bundle.name,
        "GEOSEG_MODEL_SHA256": job.bundle.sha256("onnx" if engine.name == "onnx" else "weights"),
        "GEOSEG_INPUT": printable(redacted(scene.path.name)),
        "GEOSEG_INPUT_BYTES": str(sum(one.size_bytes for one in scene.identities.values())),
        "GEOSEG_BANDS": json.dumps(decisions["bands"]),
        "GEOSEG_RADIOMETRY": json.dumps(decisions["radiometry"]),
        "GEOSEG_NODATA": scene.nodata_reason,
        "GEOSEG_GSD": json.dumps(decisions["resampled_gsd_m"] or decisions["gsd_m"]),
        "GEOSEG_ORIENTATION": decisions["orientation"],
        "GEOSEG_TILE": f"{job.plan.tile_height} {job.plan.tile_width}",
        "GEOSEG_OVERLAP": str(job.plan.rows.overlap),
        "GEOSEG_BLEND": job.options.blend,
        "GEOSEG_TTA": job.options.tta,
        "GEOSEG_TEMPERATURE": f"{job.bundle.card.extras.temperature:g}",
        "GEOSEG_ENGINE": engine.name,
        "GEOSEG_DEVICE": engine.device,
        "GEOSEG_PRECISION": engine.precision,
        "GEOSEG_LEGEND": job.bundle.legend.name,
        "GEOSEG_CLASSES": json.dumps(job.bundle.legend.stac_classes()),
    }


class _Clock:
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
