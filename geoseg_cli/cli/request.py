"""What ``classify`` and ``cloudmask`` share: options to a request, the request over its scenes, one after the other."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.cli import logs
from geoseg_cli.cli.console import Messages, tame
from geoseg_cli.cli.map_options import accuracy_of, cleaning_of
from geoseg_cli.cli.options import read_gsd, read_size, scene_options
from geoseg_cli.cli.scene_paths import is_product, place_and_stem, scenes_in, shown
from geoseg_cli.errors import GeosegError, InputMissingError, StorageError, UsageError

if TYPE_CHECKING:
    from geoseg_cli.bundle import Bundle
    from geoseg_cli.catalog import Legend
    from geoseg_cli.engines import Engine
    from geoseg_cli.job import Job, PredictOptions
    from geoseg_cli.predict import CloudModel, PredictReport

SOME_FAILED_EXIT_CODE = 1
DEFAULT_CLOUD_MODEL = "cloud-lale"
ONE_FILE = ("output", "probabilities", "confidence", "entropy", "seams", "polygons")
"""Options that name one file, so that they go with one scene alone."""


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        given: The command's parameters by name.
        task: Task of the bundles that fit the command.
        default_model: Bundle to run when none is named.
        suffix: Ends the stem of outputs.
        folders: Whether a folder stands for the scenes in it.
    """

    given: dict[str, Any]
    task: str
    default_model: str
    suffix: str
    folders: bool = False

    @classmethod
    def of(cls, given: dict[str, Any], *, task: str, default_model: str, suffix: str, folders: bool = False) -> Request:
        """Take a command's parameters and refuse those that contradict each other.

        Raises:
            UsageError: Options do not go together.
        """
        for name in ("bounds", "bounds_crs", "model", "bands", "sensor"):
            if given[name] is not None and not given[name].strip():
                raise UsageError(f"--{name.replace('_', '-')} is empty", "give a value, or leave the option out")
        _refuse_contradicting_areas(given)
        _refuse_idle_cloud_options(given)
        for name in ("simplify", "min_area"):
            if given.get(name) is not None and given["polygons"] is None:
                raise UsageError(f"--{name.replace('_', '-')} without --polygons means nothing", "add --polygons FILE")
        if given.get("legend") and given.get("clouds_as") == "class":
            raise UsageError("--legend cannot turn the classes of clouds into others", "use --clouds-as nodata")
        many = len(given["scenes"]) > 1
        if given["output"] and given["out_dir"]:
            raise UsageError("--output and --out-dir exclude each other", "give one of them")
        for name in ONE_FILE:
            if many and given[name]:
                raise UsageError(f"--{name} names one file, but there are several scenes", "use --out-dir")
        return cls(dict(given), task, default_model, suffix, folders)

    def scenes(self) -> list[Path]:
        """The scenes to run, folders opened, each once.

        Raises:
            UsageError: Two scenes have the same output, or one output was named for several.
            InputMissingError: A folder holds no scene.
        """
        found: dict[Path, None] = {}
        for path in self.given["scenes"]:
            # os.path.isdir says no where Path.is_dir raises; opening the scene then tells why.
            if self.folders and os.path.isdir(path) and not is_product(path):
                found.update(dict.fromkeys(self._inside(path)))
            else:
                found[path] = None
        self._refuse_common_outputs(list(found))
        return list(found)

    def _inside(self, folder: Path) -> list[Path]:
        """The scenes in a folder; at least one."""
        inside = scenes_in(folder)
        if not inside:
            raise InputMissingError(
                f"no GeoTIFF, JPEG 2000, Sentinel-2, Landsat or HLS scenes in folder {folder}",
                "give a folder that holds *.tif or *.jp2 files, SAFE folders or zips, Landsat or HLS folders",
            )
        for name in ONE_FILE:
            if len(inside) > 1 and self.given[name]:
                raise UsageError(f"--{name} names one file, but the folder holds several scenes", "use --out-dir")
        return inside

    def _refuse_common_outputs(self, scenes: list[Path]) -> None:
        """One map must not replace another of the same run."""
        owners: dict[Path, Path] = {}
        inputs = {scene.absolute() for scene in scenes}
        for scene in scenes:
            output = self.output_of(scene).absolute()
            if output in inputs and output != scene.absolute():
                raise UsageError(f"the map of {scene} would replace the scene {output}", "use --out-dir or --output")
            if output in owners:
                raise UsageError(
                    f"{owners[output]} and {scene} would both be written to {output}",
                    "run them one by one with --output, or into different folders",
                )
            owners[output] = scene

    def output_of(self, scene: Path) -> Path:
        """Where the map of a scene goes."""
        if self.given["output"]:
            return Path(self.given["output"])
        folder, stem = place_and_stem(scene)
        return Path(self.given["out_dir"] or folder) / f"{stem}_{self.suffix}.tif"

    def predict_options(self, legend: Legend | None = None) -> PredictOptions:
        """The options of the library that say the same.

        Args:
            legend: Classes of the bundle; None where it is not known yet.
        """
        from geoseg_cli.job import PredictOptions
        from geoseg_cli.results.polygons import PolygonOptions

        given = self.given
        return PredictOptions(
            tile_px=given["tile"],
            overlap_px=given["overlap"],
            blend=given["blend"],
            tta=given["tta"],
            batch=read_batch(given["batch"]),
            scene=scene_options(given),
            gsd=read_gsd(given["gsd"]),
            bounds=_bounds(given["bounds"]) if given["bounds"] else None,
            bounds_crs=_crs(given["bounds_crs"]),
            area=given["area"],
            crop=given["crop"],
            probabilities=given["probabilities"],
            confidence=given["confidence"],
            entropy=given["entropy"],
            seams=given["seams"],
            polygons=given["polygons"],
            polygon_options=PolygonOptions(given["simplify"], given["min_area"]),
            sidecars=not given["no_sidecar"],
            max_memory_bytes=read_size(given["max_memory"]),
            cleaning=cleaning_of(given, legend),
            cloud_threshold=given.get("threshold"),
            accuracy=accuracy_of(given["accuracy"]),
            format=given["format"],
            creation_options=_creation_options(given["co"] or ()),
            overwrite=given["overwrite"],
            written_at=_source_date(),
        )


def run_request(request: Request) -> None:
    """Run a command over its scenes; results go to stdout, everything else to stderr.

    One bad scene of several does not stop the others: it is named, and the exit code is 1.
    """
    # Said in our own words, once, with the other warnings about the scene.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    request.predict_options()  # wrong values end the run before its first scene
    messages = Messages(quiet=request.given["quiet"], verbose=request.given["verbose"])
    scenes = request.scenes()
    runner = _Runner(request, messages)
    failed = 0
    for scene in scenes:
        logs.about(shown(scene))
        try:
            put(runner.run(scene))
        except Exception as error:
            # A mistake of ours in one scene must not cost the others their maps.
            if not isinstance(error, GeosegError) and (len(scenes) == 1 or request.given["verbose"] > 1):
                raise
            named = error if isinstance(error, GeosegError) else _as_bug(error)
            if request.given["json"]:
                put(json.dumps(_failure(scene, named)) + "\n")
            if len(scenes) == 1:
                tame(named)
                raise
            failed += 1
            messages.failure(Path(shown(scene)), named)
    if failed:
        messages.note(f"{failed} of {len(scenes)} scenes failed")
        sys.exit(SOME_FAILED_EXIT_CODE)


def put(text: str) -> None:
    """Write a result to stdout.

    Raises:
        StorageError: It does not take it; the maps are where they should be.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the pipeline left; the maps are wanted all the same.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, UnicodeEncodeError) as error:
        raise StorageError(f"standard output does not take the result: {error}", "see where it is sent to") from error


def _refuse_report_in_sidecar(output: Path) -> None:
    """Refuse a report that the shell writes where a sidecar goes: publishing the sidecar would lose it."""
    from geoseg_cli.results.sidecars import sidecar_paths

    try:
        stdout = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return
    for path in sidecar_paths(output).values():
        if os.path.exists(path) and os.path.samestat(stdout, os.stat(path)):
            raise UsageError(
                f"standard output goes to {path}, which lies beside the map and is written by the run itself",
                "send it to a file of another name, or add --no-sidecar",
            )


def _as_bug(error: Exception) -> GeosegError:
    return GeosegError(
        f"internal error: {type(error).__name__}: {error}", "run this scene alone with -vv and report it"
    )


def _bundle_for(task: str, name: str, option: str = "--model") -> Bundle:
    from geoseg_cli.bundle import find_bundle

    bundle = find_bundle(name)
    if bundle.card.extras.task != task:
        raise UsageError(
            f"bundle {bundle.name} is for {bundle.card.extras.task}, not for {task}",
            f"choose another {option}, or the other command",
        )
    return bundle


class _Runner:
    """One bundle on one engine, run over scenes."""

    def __init__(self, request: Request, messages: Messages) -> None:
        self._request, self._messages = request, messages
        self._is_dry = request.given["dry_run"]
        self._bundle = _bundle_for(request.task, request.given["model"] or request.default_model)
        self._options = self._checked_options()
        self._engine = None if self._is_dry else self._choose_engine(self._bundle)
        for loss in self._options.cleaning.to_json().get("legend", {}).get("losses", ()):
            messages.note(f"lost: {loss}")
        self._clouds = self._cloud_model() if request.given.get("mask_clouds") else None

    def _checked_options(self) -> PredictOptions:
        """The library's options; what cannot be used ends the command before its first scene."""
        from geoseg_cli.predict import refuse_bad_options

        options = self._request.predict_options(self._bundle.legend)
        refuse_bad_options(options, self._bundle.legend)
        return options

    def _cloud_model(self) -> CloudModel:
        from geoseg_cli.predict import CloudModel

        given = self._request.given
        bundle = _bundle_for("cloud", given["cloud_model"] or DEFAULT_CLOUD_MODEL, "--cloud-model")
        return CloudModel(bundle, None if self._is_dry else self._choose_engine(bundle), given["clouds_as"])

    def run(self, scene: Path) -> str:
        """What stdout gets for a scene: a path, a report, or nothing."""
        if not self._request.given["no_sidecar"]:
            _refuse_report_in_sidecar(self._request.output_of(scene))
        report = self._plan(scene) if self._is_dry else self._predict(scene)
        if self._request.given["json"]:
            return json.dumps(report) + "\n"
        return "" if self._is_dry else report["outputs"]["labels"] + "\n"

    def _choose_engine(self, bundle: Bundle) -> Engine:
        from geoseg_cli.engines import EngineOptions, choose_engine

        given = self._request.given
        engine, reason = choose_engine(
            bundle,
            EngineOptions(engine=given["engine"], device=given["device"], precision=given["precision"]),
        )
        self._messages.note(f"bundle {bundle.name}; engine {reason}")
        return engine

    def _plan(self, scene: Path) -> dict[str, Any]:
        from geoseg_cli.ahead import usable_cores
        from geoseg_cli.predict import check_outputs, memory_json, open_for

        output, options = self._request.output_of(scene), self._options
        with open_for(scene, self._bundle, options, self._clouds) as job:
            check_outputs(job, output)
            self._announce(job, scene, output)
            jobs = (job,) if job.clouds is None else (job, job.clouds)
            plans = [one.memory(usable_cores(), 1 / len(jobs)) for one in jobs]
            for plan in plans:
                self._messages.memory(plan)
            return {"output": str(output), **job.decisions(), "memory": memory_json(plans), **_scene_field(scene)}

    def _predict(self, scene: Path) -> dict[str, Any]:
        from geoseg_cli.predict import predict_scene

        output = self._request.output_of(scene)
        assert self._engine is not None, "a dry run predicts nothing"
        with self._messages.progress(shown(scene).rpartition("/")[2]) as progress:
            report = predict_scene(
                scene,
                output,
                self._bundle,
                self._engine,
                self._options,
                progress=progress,
                announce=lambda job: self._announce(job, scene, output),
                clouds=self._clouds,
            )
        self._messages.areas(report)
        self._tell_adjusted(report)
        return report.to_json() | _scene_field(scene)

    def _tell_adjusted(self, report: PredictReport) -> None:
        from geoseg_cli.cli.area_tables import adjusted_table

        if isinstance(report.adjusted, GeosegError):
            self._messages.note(f"warning: no adjusted areas: {report.adjusted.message}; {report.adjusted.hint}")
        elif report.adjusted is not None:
            self._messages.note(adjusted_table(report.adjusted).rstrip())

    def _announce(self, job: Job, scene: Path, output: Path) -> None:
        decisions = job.decisions()
        self._messages.decisions(decisions, Path(shown(scene)), output)
        for line in _further_decisions(decisions):
            self._messages.note(f"  {line}")


def _further_decisions(decisions: dict[str, Any]) -> list[str]:
    """What was decided about a scene that is not taken as it is stored, whole."""
    lines = []
    if decisions["resampled_gsd_m"]:
        height_m, width_m = decisions["resampled_gsd_m"]
        lines.append(f"shown to the model: pixels of {height_m:g} x {width_m:g} m; the map has the scene's own")
    if decisions["orientation"] != "as stored":
        lines.append(f"orientation: {decisions['orientation']}")
    if clouds := decisions.get("clouds"):
        bands = ", ".join(row["band"] for row in clouds["bands"] if row["index"] is not None)
        hidden = "nodata" if clouds["hidden_as"] == "nodata" else "classes of their own"
        lines.append(f"clouds: bundle {clouds['bundle']} on {bands}; clouds and shadows become {hidden}")
        lines += [
            f"warning: clouds: {warning}" for warning in clouds["warnings"] if warning not in decisions["warnings"]
        ]
    lines += _cleaning_lines(decisions)
    if decisions["area"]:
        height, width = decisions["output_size_px"]
        lines.append(f"area: {decisions['area']}; output of {height} x {width} px")
    return lines


def _cleaning_lines(decisions: dict[str, Any]) -> list[str]:
    """What is done to the finished map, in the order in which it is done."""
    words = {
        "min_object_px": "clouds of fewer than {} px become clear",
        "dilate_px": "clouds grow by {} px",
        "legend": "classes become those of {}",
        "majority_px": "majority in {} x {} px",
        "sieve_px": "parts of fewer than {} px join what they touch",
    }
    done = decisions["cleaning"]
    steps = [words[name].format(*[value["to"] if name == "legend" else value] * 2) for name, value in done.items()]
    lines = [f"cleaning: {'; '.join(steps)}"] if steps else []
    if decisions["cloud_threshold"] is not None:
        lines.insert(0, f"cloud: probability of {decisions['cloud_threshold']:g} or more")
    return lines


def _scene_field(scene: Path) -> dict[str, str]:
    """The scene's name for a report, as it was given: the library's is whole, and may tell the home folder."""
    return {"scene": shown(scene)}


def _failure(scene: Path, error: GeosegError) -> dict[str, Any]:
    hide = logs.redaction().text
    return {
        "scene": shown(scene),
        "error": {"message": hide(error.message), "hint": hide(error.hint), "exit_code": error.exit_code},
    }


def read_batch(text: str) -> int | None:
    """Tiles in a batch as ``--batch`` says; None for auto."""
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1 and len(text) < 9):
        raise UsageError(f"--batch {text!r} is neither auto nor a number above 0", "use --batch auto")
    return int(text)


def _refuse_contradicting_areas(given: dict[str, Any]) -> None:
    if given["area"] is not None and given["bounds"] is not None:
        raise UsageError("--area and --bounds both say what to keep", "leave out one of them")
    if given["bounds_crs"] is not None and given["bounds"] is None:
        raise UsageError("--bounds-crs without --bounds means nothing", "leave it out, or give --bounds")
    if given["crop"] and given["area"] is None and given["bounds"] is None:
        raise UsageError("--crop needs to know what to keep", "give --area or --bounds with it")


def _refuse_idle_cloud_options(given: dict[str, Any]) -> None:
    """What says how clouds are masked means nothing where they are not."""
    if given.get("mask_clouds"):
        return
    for name, idle in (("cloud_model", None), ("clouds_as", "nodata")):
        if given.get(name, idle) != idle:
            raise UsageError(f"--{name.replace('_', '-')} without --mask-clouds means nothing", "add --mask-clouds")


def _crs(text: str | None) -> str | None:
    """A CRS as ``--bounds-crs`` names it, checked."""
    if text is None:
        return None
    import pyproj

    try:
        pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError as error:
        raise UsageError(f"--bounds-crs {text!r} is no CRS", "name one such as EPSG:4326") from error
    return text


def _bounds(text: str) -> tuple[float, float, float, float]:
    """``left bottom right top`` with blanks, commas or a JSON list between, as rio reads it."""
    try:
        left, bottom, right, top = (float(part) for part in re.split(r"[\s,]+", text.strip(" []")))
    except ValueError as error:
        raise UsageError(f"--bounds {text!r} are not four numbers", 'use --bounds "LEFT BOTTOM RIGHT TOP"') from error
    # Left above right crosses the 180th meridian; whether that means anything is told where the CRS is known.
    if not (math.isfinite(left - right) and left != right and -math.inf < bottom < top < math.inf):
        raise UsageError(f"--bounds {text!r} are empty", "left must be below right, and bottom below top")
    return left, bottom, right, top


def _creation_options(items: Sequence[str]) -> dict[str, str]:
    """Options as the ``--co`` options say, in the case in which they were given."""
    options: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--co {item!r} is not NAME=VALUE", "for example --co COMPRESS=ZSTD")
        if name in options:
            raise UsageError(f"--co {name} is given twice", "give each option one value")
        options[name] = value
    return options


def _source_date() -> datetime | None:
    """Time stamp for reproducible outputs (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"SOURCE_DATE_EPOCH={text!r} is no number of seconds", "unset it, or correct it") from error
