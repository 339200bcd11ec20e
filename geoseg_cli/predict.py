"""The whole path on one screen: a scene and a bundle in, one georeferenced map out."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.bundle import Bundle
from geoseg_cli.catalog import Legend
from geoseg_cli.cloud_masking import HiddenAs
from geoseg_cli.engines import Engine, asset_of
from geoseg_cli.errors import InputError, UsageError
from geoseg_cli.job import Job, PredictOptions, open_job, open_masked_job, targets_of
from geoseg_cli.job_run import Clock, JobRun, Progress
from geoseg_cli.masked_run import MaskedRun
from geoseg_cli.memory import MemoryPlan
from geoseg_cli.printable import printable
from geoseg_cli.results.adjusted_areas import AdjustedAreas, adjusted_areas, samples_of
from geoseg_cli.results.areas import ClassArea
from geoseg_cli.results.beside import write_sidecars
from geoseg_cli.results.clean_map import decided, refuse_bad_cleaning
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.creation_options import check_creation_options
from geoseg_cli.results.description import ACQUIRED_TAG, legend_tags
from geoseg_cli.results.maps import Kind, MapSpec, MapWriter
from geoseg_cli.results.raster import software_tags
from geoseg_cli.results.sample_counts import SampleCounts
from geoseg_cli.results.sidecars import Sidecar, sidecar_paths
from geoseg_cli.results.stac import Asset, VectorAsset, rfc3339
from geoseg_cli.rows import Extra, SeamCounts
from geoseg_cli.scenes import block_cache
from geoseg_cli.scenes.acquired import acquisition_time
from geoseg_cli.scenes.network import address_of, redacted
from geoseg_cli.version import __version__
from geoseg_cli.work_key import work_key

if TYPE_CHECKING:
    from xarray import DataArray

    from geoseg_cli.results.polygons import PolygonReport

_LOG = logging.getLogger(__name__)
_LOGGED = ("outputs", "sidecars", "engine", "tiles_run", "valid_pixels", "not_finite_pixels", "seconds")

BAND_DESCRIPTIONS = {"land-cover": "land_cover", "cloud": "cloud_mask"}


@dataclass(frozen=True)
class CloudModel:
    """What masks a map of the ground.

    Attributes:
        bundle: A cloud bundle.
        engine: What runs it; None where nothing is computed.
        hidden_as: Whether what lies below clouds becomes nodata, or has the classes of clouds.
    """

    bundle: Bundle
    engine: Engine | None
    hidden_as: HiddenAs = "nodata"


@dataclass(frozen=True)
class PredictReport:
    """What was done; ``to_json`` is what ``--json`` prints.

    Attributes:
        outputs: ``labels`` and, where asked for, ``probabilities``, ``confidence``, ``entropy`` and ``seams``.
        polygons: What was written of the map's polygons; None where nobody asked for them.
        sidecars: ``attributes``, ``style`` and ``item`` beside the map; empty where none were wanted.
        decisions: What was resolved and why.
        engine: Name, device and precision that really ran.
        memory: What the run was planned to take, and that of the clouds where they were masked.
        tiles_run: Tiles that went through the engine.
        seconds: Wall time per stage: read (waited for), run, blend, write, commit, total.
        areas: Pixels, share of the valid pixels and hectares per class of the finished map.
        adjusted: Areas corrected for the errors of the map, or why there are none; None where nobody asked for them.
        not_finite: Pixels that became nodata because their logits were not finite.
        hidden_pixels: Pixels with land cover that were hidden below clouds; None where nobody looked for them.
        seams: How often overlapping tiles disagreed; None where nobody asked.
        continued_at: Row at which the run went on where an equal one was killed; 0 where it did all of them itself.
    """

    outputs: dict[Kind, Path]
    polygons: PolygonReport | None
    sidecars: dict[Sidecar, Path]
    decisions: dict[str, Any]
    engine: dict[str, str]
    memory: tuple[MemoryPlan, ...]
    tiles_run: int
    seconds: dict[str, float]
    areas: tuple[ClassArea, ...]
    adjusted: AdjustedAreas | InputError | None
    not_finite: int
    hidden_pixels: int | None = None
    seams: SeamCounts | None = None
    continued_at: int = 0

    @property
    def valid_pixels(self) -> int:
        """Pixels of the finished map that have a class."""
        return sum(area.pixels for area in self.areas)

    def to_json(self) -> dict[str, Any]:
        """The report in plain types."""
        return {
            "outputs": {kind: str(path) for kind, path in self.outputs.items()}
            | ({"polygons": str(self.polygons.output)} if self.polygons else {}),
            "polygons": self.polygons.to_json() if self.polygons else None,
            "sidecars": {kind: str(path) for kind, path in self.sidecars.items()},
            **self.decisions,
            "engine": self.engine,
            "memory": memory_json(self.memory),
            "tiles_run": self.tiles_run,
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
            "valid_pixels": self.valid_pixels,
            "not_finite_pixels": self.not_finite,
            "hidden_pixels": self.hidden_pixels,
            "seams": asdict(self.seams) | {"share": self.seams.share} if self.seams else None,
            "continued_at_row": self.continued_at,
            "classes": [asdict(area) for area in self.areas],
            **self._adjusted_json(),
        }

    def _adjusted_json(self) -> dict[str, Any]:
        if isinstance(self.adjusted, InputError):
            return {"adjusted": None, "not_adjusted": {"message": self.adjusted.message, "hint": self.adjusted.hint}}
        return {"adjusted": self.adjusted.to_json() if self.adjusted else None}


def predict_scene(
    path: Path | str | DataArray,
    output: Path | str,
    bundle: Bundle,
    engine: Engine,
    options: PredictOptions | None = None,
    progress: Progress | None = None,
    announce: Callable[[Job], None] | None = None,
    clouds: CloudModel | None = None,
    publishing: Callable[[Mapping[Path, Path]], None] | None = None,
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
        clouds: What masks the map; None for no mask.
        publishing: Called with where each output will be and where it lies, finished, just before it gets its name.

    Raises:
        GeosegError: Anything that a user can do something about.
    """
    path, output = Path(path) if isinstance(path, str) else path, Path(output)
    options = options or PredictOptions()
    clock = Clock("read", "run", "blend", "write", "commit", "total")
    targets, sidecars = targets_of(output, options), _sidecars(output, options)
    with ExitStack() as stack:
        stack.enter_context(clock("total"))
        job = stack.enter_context(open_for(path, bundle, options, clouds))
        transaction = stack.enter_context(_transaction(output, options, _inputs(job)))
        samples = _refuse_early(job)
        if announce:
            announce(job)
        _LOG.info("resolved", extra={"fields": {"decisions": job.decisions()}})
        run = _run_of(job, engine, clouds, clock)
        stack.enter_context(block_cache(sum(plan.cache_bytes for plan in run.plans)))
        spec = _map_spec(job, engine, clouds)
        writer = stack.enter_context(MapWriter(spec, targets, transaction, _key_of(job, output, engine, clouds)))
        continued_at = writer.row
        if continued_at:
            run.continue_at(continued_at, writer.state)
        with run.rows(progress) as finished:
            for rows in decided(finished, job.legend, job.options.cloud_threshold):
                with clock("write"):
                    writer.write(rows, run.state_at(rows.row + len(rows.labels)))
        with clock("commit"):
            writer.finish()
            job.scene.refuse_change()
            polygons = _polygons(options, output, transaction)
            if sidecars:
                assets: list[Asset | VectorAsset] = [*writer.assets(), *_vector_assets(options, transaction)]
                write_sidecars(writer.describe(), assets, address_of(job.scene.path), transaction)
            if publishing:
                publishing({target: transaction.path(target) for target in transaction.targets})
            transaction.commit()
        areas, decisions = writer.areas(), job.decisions()
    report = PredictReport(
        outputs=targets,
        polygons=polygons,
        sidecars=sidecars,
        decisions=decisions,
        engine={"name": engine.name, "device": engine.device, "precision": engine.precision},
        memory=run.plans,
        tiles_run=run.tiles_run,
        seconds=clock.seconds | run.further_seconds,
        areas=areas,
        adjusted=_adjusted(areas, samples),
        not_finite=run.not_finite,
        hidden_pixels=run.hidden_pixels,
        seams=run.seams if job.options.seams else None,
        continued_at=continued_at,
    )
    told = report.to_json()
    _LOG.info("published", extra={"fields": {name: told[name] for name in _LOGGED}})
    return report


def open_for(
    path: Path | DataArray, bundle: Bundle, options: PredictOptions, clouds: CloudModel | None
) -> AbstractContextManager[Job]:
    """The job of a scene, with its clouds where they are to be masked."""
    if clouds is None:
        return open_job(path, bundle, options)
    return open_masked_job(path, bundle, clouds.bundle, clouds.hidden_as, options)


def memory_json(plans: Sequence[MemoryPlan]) -> dict[str, Any]:
    """Memory plans of a run, and of its clouds, in plain types."""
    first, *others = plans
    return first.to_json() | ({"clouds": others[0].to_json()} if others else {})


def _run_of(job: Job, engine: Engine, clouds: CloudModel | None, clock: Clock) -> JobRun | MaskedRun:
    extras = _extras(job.options)
    if clouds is None or clouds.engine is None:
        return JobRun(job, engine, extras, clock=clock)
    return MaskedRun(job, engine, clouds.engine, extras, clock)


def _key_of(job: Job, output: Path, engine: Engine, clouds: CloudModel | None) -> str | None:
    """What makes the work of the run another run's too; None where nobody wants that, or a row of tiles is all."""
    if not job.options.resume or len(job.plan.rows.starts) == 1:
        return None
    models = [(job.bundle, engine)]
    if clouds is not None and clouds.engine is not None:
        models.append((clouds.bundle, clouds.engine))
    return work_key(job, output, models)


def _extras(options: PredictOptions) -> list[Extra]:
    """What rows must carry beside labels."""
    asked: dict[Extra, bool] = {
        "probabilities": options.needs_probabilities,
        "confidence": options.confidence is not None,
        "seams": options.seams is not None,
    }
    return [extra for extra, is_asked in asked.items() if is_asked]


def check_outputs(job: Job, output: Path) -> None:
    """Refuse outputs that a run would refuse before it computes anything; nothing is written.

    Raises:
        GeosegError: An output exists, has no folder, is an input, or an option that says what becomes of the map cannot
            be used.
    """
    check_targets(output, job.options, _inputs(job))
    _refuse_early(job)


def check_targets(output: Path, options: PredictOptions, inputs: Sequence[Path]) -> None:
    """Refuse names that nothing can be written to; nothing is opened or written.

    Args:
        output: Where the class map goes.
        options: How; they name the other outputs.
        inputs: Files that no output may replace.

    Raises:
        GeosegError: An output exists, has no folder, or is an input.
    """
    _transaction(output, options, inputs).check()


def refuse_bad_options(options: PredictOptions, legend: Legend) -> None:
    """Refuse options that say what becomes of a map of these classes, and cannot be used.

    Raises:
        UsageError: A creation option, a number, or options that do not go together or are for other classes.
    """
    check_creation_options(options.creation_options, options.format)
    if options.seams is not None and options.blend == "trim":
        raise UsageError(
            "--seams with --blend trim has nothing to compare: each pixel has one tile", "use --blend hann"
        )
    refuse_bad_cleaning(legend, options.cleaning)
    decided(iter(()), legend, options.cloud_threshold)


def _refuse_early(job: Job) -> SampleCounts | None:
    """Refuse what would otherwise be refused after the inference; the sampled places, where there are any."""
    options = job.options
    refuse_bad_options(options, job.legend)
    if options.polygons is not None:
        from geoseg_cli.results.polygons import refuse_bad_polygons

        refuse_bad_polygons(options.polygons, job.grid, options.polygon_options)
    if options.accuracy is None:
        return None
    return samples_of(options.accuracy, job.bundle, options.cleaning.legend_of(job.legend), job.grid)


def _polygons(options: PredictOptions, output: Path, transaction: OutputTransaction) -> PolygonReport | None:
    """Polygons of the finished map, which is not published yet; with its confidence, where that is written too."""
    if options.polygons is None:
        return None
    from geoseg_cli.results.polygons import add_polygons

    sure = transaction.path(options.confidence) if options.confidence else None
    wanted = replace(options.polygon_options, confidence=sure)
    return add_polygons(transaction.path(output), options.polygons, wanted, transaction)


def _vector_assets(options: PredictOptions, transaction: OutputTransaction) -> list[VectorAsset]:
    if options.polygons is None:
        return []
    from geoseg_cli.results.vector_file import media_type_of

    return [VectorAsset(options.polygons, transaction.path(options.polygons), media_type_of(options.polygons))]


def _adjusted(areas: Sequence[ClassArea], samples: SampleCounts | None) -> AdjustedAreas | InputError | None:
    """Areas corrected for errors; the map is worth keeping where they cannot be."""
    try:
        return None if samples is None else adjusted_areas(areas, samples)
    except InputError as error:
        return error


def _transaction(output: Path, options: PredictOptions, inputs: Sequence[Path]) -> OutputTransaction:
    """What publishes the outputs: the rasters, their polygons, then what describes them."""
    vectors = [options.polygons] if options.polygons else []
    targets = [*targets_of(output, options).values(), *vectors, *_sidecars(output, options).values()]
    return OutputTransaction(targets, overwrite=options.overwrite, inputs=inputs)


def _inputs(job: Job) -> list[Path]:
    """Every file that the job reads and no output may replace."""
    area = [path for path in (job.options.area, job.options.accuracy) if isinstance(path, Path)]
    mask = _inputs(job.clouds) if job.clouds is not None else []
    return [job.scene.path, *job.scene.identities, *area, *job.bundle.files, *mask]


def _sidecars(output: Path, options: PredictOptions) -> dict[Sidecar, Path]:
    return sidecar_paths(output) if options.sidecars else {}


def _map_spec(job: Job, engine: Engine, clouds: CloudModel | None) -> MapSpec:
    description = BAND_DESCRIPTIONS[job.bundle.card.extras.task]
    tags = _tags(job, engine) | _cloud_tags(clouds)
    options = job.options
    return MapSpec(job.grid, job.legend, description, tags, options.creation_options, options.cleaning, options.format)


def _cloud_tags(clouds: CloudModel | None) -> dict[str, str]:
    """Provenance of the mask."""
    if clouds is None or clouds.engine is None:
        return {}
    return {
        "GEOSEG_CLOUD_MODEL": clouds.bundle.name,
        "GEOSEG_CLOUD_MODEL_SHA256": clouds.bundle.sha256(asset_of(clouds.engine.name, clouds.engine.precision)),
        "GEOSEG_CLOUD_ENGINE": f"{clouds.engine.name} {clouds.engine.device} {clouds.engine.precision}",
        "GEOSEG_CLOUDS_AS": clouds.hidden_as,
    }


def _tags(job: Job, engine: Engine) -> dict[str, str]:
    """Provenance in the default metadata domain; no paths, only names."""
    decisions, scene = job.decisions(), job.scene
    written = job.options.written_at or datetime.now(UTC)
    acquired = acquisition_time(scene.product)
    return software_tags(f"geoseg {__version__}", written) | {
        **({ACQUIRED_TAG: rfc3339(acquired)} if acquired else {}),
        "GEOSEG_VERSION": __version__,
        "GEOSEG_MODEL": job.bundle.name,
        "GEOSEG_MODEL_SHA256": job.bundle.sha256(asset_of(engine.name, engine.precision)),
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
        **_threshold_tag(job.options),
        **_trusted_tag(job, engine),
        **legend_tags(job.legend),
    }


def _trusted_tag(job: Job, engine: Engine) -> dict[str, str]:
    """The hash of a program that made the map, and that somebody trusted."""
    runs_it = job.bundle.holds_program and asset_of(engine.name, engine.precision) == "weights"
    return {"GEOSEG_TRUSTED": job.bundle.sha256("weights")} if runs_it else {}


def _threshold_tag(options: PredictOptions) -> dict[str, str]:
    """How clouds were told; of the map and of its confidence alike."""
    return {} if options.cloud_threshold is None else {"GEOSEG_CLOUD_THRESHOLD": f"{options.cloud_threshold:g}"}
