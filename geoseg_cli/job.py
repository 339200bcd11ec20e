"""A scene and a bundle brought together: what was asked, what was resolved, and how the tiles lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.area import Area, cropped_grid
from geoseg_cli.batches import piece_width
from geoseg_cli.bundle import Bundle
from geoseg_cli.catalog import Legend
from geoseg_cli.cloud_masking import CloudMasking, HiddenAs
from geoseg_cli.engines.turned import Augmentation
from geoseg_cli.errors import GridError, UsageError
from geoseg_cli.grid import Grid
from geoseg_cli.memory import Load, MemoryPlan, fair_share_bytes, plan_memory, refuse_excess
from geoseg_cli.mosaic import Blend
from geoseg_cli.orientation import Orientation
from geoseg_cli.results.clean_map import Cleaning, cleaning_bytes
from geoseg_cli.results.creation_options import RasterFormat
from geoseg_cli.results.maps import Kind
from geoseg_cli.results.polygon_options import PolygonOptions
from geoseg_cli.results.sample_counts import Accuracy
from geoseg_cli.scenes import Scene, SceneOptions, check_resolution, open_scene
from geoseg_cli.scenes.network import redacted
from geoseg_cli.scenes.resample import Gsd, Resampled, choose_gsd, show_at
from geoseg_cli.tiles import TilePlan

if TYPE_CHECKING:
    from xarray import DataArray


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
        probabilities, confidence, entropy, seams: Further rasters to write.
        polygons: Vector file to write of the finished map: .gpkg, .fgb, .geojson or .parquet.
        polygon_options: How; the confidence is that of the run where it is written too.
        sidecars: Whether attribute table, QGIS style and STAC item are written beside the map.
        max_memory_bytes: What the run may take beside interpreter, libraries and weights; None for a fair share of what
            is free.
        cleaning: What is done to the finished class map; its mapping must be from the map's own legend.
        cloud_threshold: Cloud is where the probabilities of all cloud classes sum to this or more; None for the most
            probable class.
        accuracy: Table of sampled places (.csv), report of an evaluation (.json), or ``card`` for the counts in the
            bundle's card: adds error-adjusted areas.
        format: ``cog``, or ``gtiff`` for a plain tiled GeoTIFF with overviews.
        creation_options: GDAL creation options of the outputs; case does not matter.
        overwrite: Whether existing outputs may be replaced.
        written_at: Time stamp in the outputs; None is now.
        resume: Whether the run goes on where an equal one was killed, and can be gone on with itself. Never changes the
            map.
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
    entropy: Path | None = None
    seams: Path | None = None
    polygons: Path | None = None
    polygon_options: PolygonOptions = field(default_factory=PolygonOptions)
    sidecars: bool = True
    max_memory_bytes: int | None = None
    cleaning: Cleaning = field(default_factory=Cleaning)
    cloud_threshold: float | None = None
    accuracy: Accuracy | None = None
    format: RasterFormat = "cog"
    creation_options: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    written_at: datetime | None = None
    resume: bool = True

    @property
    def needs_probabilities(self) -> bool:
        """Whether rows must carry the probabilities of all classes."""
        return any(wish is not None for wish in (self.probabilities, self.entropy, self.cloud_threshold))


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
        clouds: The same scene brought together with the cloud bundle that masks it; None where nothing does.
        masking: What becomes of what lies below clouds.
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
    clouds: Job | None = None
    masking: CloudMasking | None = None

    @property
    def grid(self) -> Grid:
        """Where the outputs' pixels lie: the scene's grid, or the part that is not cropped."""
        if self.options.crop and self.area is not None:
            return cropped_grid(self.scene.grid, self.area.window)
        return self.scene.grid

    @property
    def legend(self) -> Legend:
        """Classes of the map as the network gives it, before it is cleaned."""
        return self.bundle.legend if self.masking is None else self.masking.legend

    def memory(self, batch_tiles: int, share: float = 1.0, largest: int | None = None) -> MemoryPlan:
        """How much memory the job will take, without that of its clouds.

        Args:
            batch_tiles: Tiles that the engine likes to get together; counts unless the user said how many.
            share: How much of what the run may take is for this job.
            largest: The largest batch that is wanted where memory is; None for ``batch_tiles``.

        Raises:
            UsageError: The user allows less than the smallest plan needs.
        """
        options, plan, grid = self.options, self.plan, self.grid
        classes, rasters = len(self.bundle.legend.classes), len(targets_of(Path(), options))
        carried = (options.needs_probabilities, classes), (options.confidence, 1), (options.seams, 1)
        # Each of these makes another copy of what rows carry.
        changes = (self.resampled, self.area, self.masking, options.cloud_threshold)
        load = Load(
            width=self.view.grid.width,
            read_width=piece_width(self.view, plan),
            carried_rows=plan.rows.largest_overlap,
            tile_height=plan.tile_height,
            tile_width=plan.tile_width,
            stored_bytes=self.view.pixel_bytes,
            channels=self.bundle.input_spec.channels,
            classes=classes,
            output_bands=rasters + (classes - 1 if options.probabilities else 0),
            output_width=grid.width,
            cache_bytes=self.view.size_in_cache(plan.tile_height),
            tiles_at_once=batch_tiles,
            row_planes=sum(planes for is_asked, planes in carried if is_asked),
            row_copies=3 if any(change is not None for change in changes) else 2,
            vote_planes=classes if options.seams else 0,
            label_bytes=1 if self.legend.dtype == "uint8" else 2,
            cleaning_bytes=cleaning_bytes(options.cleaning, grid.height, grid.width),
        )
        limit = options.max_memory_bytes or fair_share_bytes()
        limit = None if limit is None else int(limit * share)
        chosen = plan_memory(load, options.batch or largest or batch_tiles, limit, options.batch is not None)
        if options.max_memory_bytes is not None:
            refuse_excess(chosen, share)
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
            "legend": self.options.cleaning.legend_of(self.legend).name,
            "cloud_threshold": self.options.cloud_threshold,
            "cleaning": self.options.cleaning.to_json(),
            "format": self.options.format,
            "warnings": list(self.warnings),
        } | self._cloud_decisions()

    def _cloud_decisions(self) -> dict[str, Any]:
        if self.clouds is None or self.masking is None:
            return {}
        kept = ("bundle", "bands", "resampled_gsd_m", "tiles", "tile_px", "overlap_px", "warnings")
        found = self.clouds.decisions()
        return {"clouds": {"hidden_as": self.masking.hidden_as} | {name: found[name] for name in kept}}


@contextmanager
def open_job(
    path: Path | DataArray, bundle: Bundle, options: PredictOptions, beside: Job | None = None
) -> Iterator[Job]:
    """Open a scene and plan its tiles; nothing is computed or written.

    Args:
        path: The scene.
        bundle: The model.
        options: As given.
        beside: A job on the same scene, whose open files are used.

    Raises:
        GeosegError: The scene cannot be read or does not fit the bundle.
    """
    extras = bundle.card.extras
    wanted_gsd_m = extras.gsd_m if isinstance(options.gsd, str) else options.gsd
    shared = beside.scene if beside is not None else None
    with open_scene(path, bundle.input_spec, options.scene, wanted_gsd_m, shared) as scene:
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


@contextmanager
def open_masked_job(
    path: Path | DataArray, bundle: Bundle, clouds: Bundle, hidden_as: HiddenAs, options: PredictOptions
) -> Iterator[Job]:
    """Open a scene for a map that clouds are masked in; both bundles read the same open files.

    Args:
        path: The scene.
        bundle: What maps the ground.
        clouds: What finds the clouds; it is run at the tiling of its own card.
        hidden_as: Whether hidden pixels are nodata, or have the classes of clouds.
        options: As given.

    Raises:
        UsageError: The legends or the options do not go together.
        GeosegError: The scene cannot be read or does not fit a bundle.
    """
    masking = CloudMasking.of(bundle.legend, clouds.legend, hidden_as)
    if options.cloud_threshold is not None:
        raise UsageError("--threshold is for a map of clouds, not for a mask of clouds", "leave it out")
    of_land = {"probabilities": "are those", "entropy": "is that", "seams": "are those"}
    for name, what in of_land.items():
        if hidden_as == "class" and getattr(options, name) is not None:
            raise UsageError(f"--{name} {what} of land cover, clouds have none", "use --clouds-as nodata")
    own = replace(options, tile_px=None, overlap_px=None, probabilities=None, entropy=None, seams=None)
    with open_job(path, bundle, options) as job, open_job(path, clouds, own, job) as cloud_job:
        if cloud_job.grid != job.grid:
            raise GridError(
                f"{job.scene.path}: {clouds.name} and {bundle.name} need bands of different pixel sizes",
                "make both maps one by one",
            )
        yield replace(job, clouds=cloud_job, masking=masking)


def targets_of(output: Path, options: PredictOptions) -> dict[Kind, Path]:
    """The rasters that were asked for and where each goes; the class map is always one of them."""
    targets: dict[Kind, Path] = {"labels": output}
    if options.probabilities is not None:
        targets["probabilities"] = options.probabilities
    if options.confidence is not None:
        targets["confidence"] = options.confidence
    if options.entropy is not None:
        targets["entropy"] = options.entropy
    if options.seams is not None:
        targets["seams"] = options.seams
    return targets


def _area(scene: Scene, options: PredictOptions) -> Area | None:
    """The part of the scene that the user asks for; None for all of it."""
    if options.area is not None and options.bounds is not None:
        raise UsageError("--area and --bounds both say what to keep", "leave out one of them")
    if options.bounds is None and options.bounds_crs is not None:
        raise UsageError("--bounds-crs without --bounds means nothing", "leave it out, or give --bounds")
    if options.area is not None:
        from geoseg_cli.aoi import load_area

        return load_area(options.area, scene.grid)
    if options.bounds is not None:
        from geoseg_cli.aoi import area_of_bounds

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
    if bundle.card.extras.calibration or not (options.confidence or options.probabilities or options.entropy):
        return ()
    text = "nobody has compared this bundle's confidence with the share of right pixels"
    return (f"{text}; fit its temperature: geoseg evaluate BUNDLE FOLDER --fit-temperature",)


def _band_table(scene: Scene) -> list[dict[str, Any]]:
    """One row per band of the network: its common name, the file's band number from 1 and the file's name for it; the
    reflectance that stands for it everywhere where the user fills it."""
    filled = dict(scene.bands.filled)
    return [
        {"band": band, "index": number, "name": scene.bands.file_names[number - 1] if number else None}
        | ({"filled": filled[band]} if band in filled else {})
        for band, number in zip(scene.bands.wanted, scene.bands.numbers, strict=True)
    ]
