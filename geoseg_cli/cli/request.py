"""What ``classify`` and ``cloudmask`` share: from options to scenes, outputs, and what is done to each."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.cli import fleet, to_stdout
from geoseg_cli.cli.map_options import accuracy_of, cleaning_of
from geoseg_cli.cli.options import read_gsd, read_size, scene_options
from geoseg_cli.errors import OutputError, StorageError, UsageError

if TYPE_CHECKING:
    from geoseg_cli.batch.tasks import Recipe, SceneTask
    from geoseg_cli.bundle import Bundle
    from geoseg_cli.catalog import Legend
    from geoseg_cli.engines import EngineOptions
    from geoseg_cli.job import PredictOptions

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
    """

    given: dict[str, Any]
    task: str
    default_model: str
    suffix: str

    @classmethod
    def of(cls, given: dict[str, Any], *, task: str, default_model: str, suffix: str) -> Request:
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
        for name in ("out_dir", "name_template"):
            if given["output"] and given.get(name):
                raise UsageError(f"--output and --{name.replace('_', '-')} exclude each other", "give one of them")
        for name in ONE_FILE:
            refuse_no_name(f"--{name}", given[name])
        if given.get("skip_existing") and given["overwrite"]:
            raise UsageError("--skip-existing and --overwrite exclude each other", "give one of them")
        fleet.refuse_idle_options(given)
        _refuse_files_for_many(given, "several scenes" if len(given["scenes"]) > 1 else "")
        if given["output"] in to_stdout.NAMES:
            to_stdout.refuse_to_mix(given)
            given = given | {"no_sidecar": True, "no_resume": True}
        return cls(dict(given), task, default_model, suffix)

    @property
    def model(self) -> str:
        """Name or folder of the bundle."""
        return str(self.given["model"] or self.default_model)

    def tasks(self) -> list[SceneTask]:
        """The scenes with their outputs; those of several, or of a folder or a list, with a journal.

        Raises:
            UsageError: Two scenes have the same output, or one output was named for several.
            InputMissingError: A folder or a list holds no scene.
        """
        from geoseg_cli.batch.inputs import STDIN, find_scenes
        from geoseg_cli.batch.naming import DEFAULT_TEMPLATE, Naming

        given = self.given
        template = given.get("name_template") or DEFAULT_TEMPLATE
        naming = Naming(self.suffix, Path(self.model).name, given["out_dir"], template, not given["no_sidecar"])
        if (folder := given["out_dir"]) is not None and not os.path.isdir(folder):
            raise OutputError(f"--out-dir {folder}: there is no such folder", f"make it first: mkdir -p {folder}")
        # A shell can close it: `<&-`.
        listed = sys.stdin.buffer.read() if STDIN in given["scenes"] and sys.stdin is not None else None
        found = find_scenes(given["scenes"], given.get("pattern") or (), listed, given["out_dir"])
        units = found.units
        _refuse_files_for_many(given, "the folder or list holds several scenes" if len(units) > 1 else "")
        if given["output"]:
            units = tuple(replace(unit, output=given["output"]) for unit in units)
        # A part of a run, and what runs elsewhere, is told in a journal even where it is one scene.
        keep_journal = found.is_batch or bool(given.get("shard") or given.get("scheduler"))
        return naming.tasks(units, keep_journal)

    def recipe(self) -> Recipe:
        """What is done to each scene; what cannot be used ends the command before its first scene.

        Raises:
            GeosegError: A bundle or an option cannot be used.
        """
        from geoseg_cli.batch.tasks import CloudRecipe, Recipe
        from geoseg_cli.predict import refuse_bad_options

        given = self.given
        bundle = self.bundle()
        options = self.predict_options(bundle.legend)
        refuse_bad_options(options, bundle.legend)
        if given["trust"] is not None and not bundle.holds_program:
            raise UsageError(f"--trust means nothing: bundle {bundle.name} holds no program", "leave it out")
        clouds = None
        if given.get("mask_clouds"):
            masks = _bundle_for("cloud", given["cloud_model"] or DEFAULT_CLOUD_MODEL, "--cloud-model")
            clouds = CloudRecipe(masks.folder.absolute(), given["clouds_as"])
        return Recipe(
            bundle.folder.absolute(), self.engine_options(), options, clouds, bool(given.get("skip_existing"))
        )

    def bundle(self) -> Bundle:
        """The bundle to run.

        Raises:
            GeosegError: There is none, or it does not fit the command.
        """
        return _bundle_for(self.task, self.model)

    def engine_options(self) -> EngineOptions:
        """What is asked of the engine.

        Raises:
            UsageError: A name is unknown.
        """
        from geoseg_cli.engines import EngineOptions

        given = self.given
        return EngineOptions(
            given["engine"], given["device"], given["precision"], given.get("threads", 0), given["trust"]
        )

    def predict_options(self, legend: Legend | None = None) -> PredictOptions:
        """The options of the library that say the same.

        Args:
            legend: Classes of the bundle; None where it is not known yet.
        """
        from geoseg_cli.job import PredictOptions
        from geoseg_cli.results.polygon_options import PolygonOptions

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
            resume=not given["no_resume"],
            written_at=_source_date(),
        )


def refuse_no_name(option: str, path: Path | None) -> None:
    """Refuse ``.``, which nothing can be written to.

    Raises:
        OutputError: The path has no last part.
    """
    if path is not None and not path.name:
        raise OutputError(f"{option} {path} is a folder", "name a file in it")


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


def _bundle_for(task: str, name: str, option: str = "--model") -> Bundle:
    from geoseg_cli.bundle import find_bundle

    bundle = find_bundle(name)
    if bundle.card.extras.task != task:
        raise UsageError(
            f"bundle {bundle.name} is for {bundle.card.extras.task}, not for {task}",
            f"choose another {option}, or the other command",
        )
    return bundle


def read_batch(text: str) -> int | None:
    """Tiles in a batch as ``--batch`` says; None for auto."""
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1 and len(text) < 9):
        raise UsageError(f"--batch {text!r} is neither auto nor a number above 0", "use --batch auto")
    return int(text)


def _refuse_files_for_many(given: dict[str, Any], why: str) -> None:
    """Names of single files cannot be those of several maps."""
    for name in ONE_FILE:
        if why and given[name]:
            raise UsageError(f"--{name} names one file, and there are several: {why}", "use --out-dir")


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
