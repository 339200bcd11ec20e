"""What ``classify`` and ``cloudmask`` share: options to a request, the request over its scenes, one after the other."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoseg_cli.cli.console import Messages
from geoseg_cli.errors import GeosegError, InputMissingError, StorageError, UsageError

if TYPE_CHECKING:
    from geoseg_cli.engines import Engine
    from geoseg_cli.predict import PredictOptions

SCENE_SUFFIXES = (".tif", ".tiff")
OUTPUT_STEMS = ("_landcover", "_cloudmask")
SOME_FAILED_EXIT_CODE = 1


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
        for name in ("bounds", "model", "bands"):
            if given[name] is not None and not given[name].strip():
                raise UsageError(f"--{name} is empty", "give a value, or leave the option out")
        many = len(given["scenes"]) > 1
        if given["output"] and given["out_dir"]:
            raise UsageError("--output and --out-dir exclude each other", "give one of them")
        for name in ("output", "probabilities", "confidence"):
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
            if self.folders and path.is_dir():
                inside = _scenes_in(path)
                if not inside:
                    raise InputMissingError(
                        f"no GeoTIFF scenes in folder {path}", "give a folder that holds *.tif files"
                    )
                if len(inside) > 1 and self.given["output"]:
                    raise UsageError("--output names one file, but the folder holds several scenes", "use --out-dir")
                found.update(dict.fromkeys(inside))
            else:
                found[path] = None
        self._refuse_common_outputs(list(found))
        return list(found)

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
        folder = self.given["out_dir"] or scene.parent
        return Path(folder) / f"{scene.stem}_{self.suffix}.tif"

    def predict_options(self) -> PredictOptions:
        """The options of the library that say the same."""
        from geoseg_cli.predict import PredictOptions
        from geoseg_cli.scenes import SceneOptions

        given = self.given
        names = tuple(name.strip() for name in given["bands"].split(",")) if given["bands"] else None
        return PredictOptions(
            tile_px=given["tile"],
            overlap_px=given["overlap"],
            blend=given["blend"],
            batch=read_batch(given["batch"]),
            scene=SceneOptions(bands=names, radiometry=given["radiometry"], nodata=read_nodata(given["nodata"])),
            bounds=_bounds(given["bounds"]) if given["bounds"] else None,
            probabilities=given["probabilities"],
            confidence=given["confidence"],
            creation_options=dict(_creation_option(item) for item in given["co"] or ()),
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
                raise
            failed += 1
            messages.failure(scene, named)
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


def _as_bug(error: Exception) -> GeosegError:
    return GeosegError(
        f"internal error: {type(error).__name__}: {error}", "run this scene alone with -vv and report it"
    )


class _Runner:
    """One bundle on one engine, run over scenes."""

    def __init__(self, request: Request, messages: Messages) -> None:
        from geoseg_cli.bundle import find_bundle

        self._request, self._messages = request, messages
        self._bundle = find_bundle(request.given["model"] or request.default_model)
        if self._bundle.card.extras.task != request.task:
            raise UsageError(
                f"bundle {self._bundle.name} is for {self._bundle.card.extras.task}, not for {request.task}",
                "choose another --model, or the other command",
            )
        if not request.given["dry_run"]:
            self._engine = self._choose_engine()

    def run(self, scene: Path) -> str:
        """What stdout gets for a scene: a path, a report, or nothing."""
        report = self._plan(scene) if self._request.given["dry_run"] else self._predict(scene)
        if self._request.given["json"]:
            return json.dumps(report) + "\n"
        return "" if self._request.given["dry_run"] else report["outputs"]["labels"] + "\n"

    def _choose_engine(self) -> Engine:
        from geoseg_cli.engines import EngineOptions, choose_engine

        given = self._request.given
        engine, reason = choose_engine(
            self._bundle,
            EngineOptions(engine=given["engine"], device=given["device"], precision=given["precision"]),
        )
        self._messages.note(f"bundle {self._bundle.name}; engine {reason}")
        return engine

    def _plan(self, scene: Path) -> dict[str, Any]:
        from geoseg_cli.predict import check_outputs, open_job

        output, options = self._request.output_of(scene), self._request.predict_options()
        check_outputs(scene, output, self._bundle, options)
        with open_job(scene, self._bundle, options) as job:
            self._messages.decisions(job.decisions(), scene, output)
            return {"output": str(output), **job.decisions()}

    def _predict(self, scene: Path) -> dict[str, Any]:
        from geoseg_cli.predict import predict_scene

        output = self._request.output_of(scene)
        options = self._request.predict_options()
        with self._messages.progress(scene.name) as progress:
            report = predict_scene(
                scene,
                output,
                self._bundle,
                self._engine,
                options,
                progress=progress,
                announce=lambda job: self._messages.decisions(job.decisions(), scene, output),
            )
        self._messages.areas(report)
        return report.to_json()


def _scenes_in(folder: Path) -> list[Path]:
    """GeoTIFFs directly in a folder by name, without geoseg's own outputs."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SCENE_SUFFIXES
        and path.is_file()
        and not path.stem.endswith(OUTPUT_STEMS)
        and not path.name.startswith(".")
    )


def _failure(scene: Path, error: GeosegError) -> dict[str, Any]:
    return {
        "scene": str(scene),
        "error": {"message": error.message, "hint": error.hint, "exit_code": error.exit_code},
    }


def read_batch(text: str) -> int | None:
    """Tiles in a batch as ``--batch`` says; None for auto."""
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1 and len(text) < 9):
        raise UsageError(f"--batch {text!r} is neither auto nor a number above 0", "use --batch auto")
    return int(text)


def read_nodata(text: str) -> float | Literal["auto"] | None:
    """The number that means nothing as ``--nodata`` says."""
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--nodata {text!r} is no number", "use auto, none, nan or a number") from error


def _bounds(text: str) -> tuple[float, float, float, float]:
    """``left bottom right top`` with blanks, commas or a JSON list between, as rio reads it."""
    try:
        left, bottom, right, top = (float(part) for part in re.split(r"[\s,]+", text.strip(" []")))
    except ValueError as error:
        raise UsageError(f"--bounds {text!r} are not four numbers", 'use --bounds "LEFT BOTTOM RIGHT TOP"') from error
    if not (-math.inf < left < right < math.inf and -math.inf < bottom < top < math.inf):
        raise UsageError(f"--bounds {text!r} are empty", "left must be below right, and bottom below top")
    return left, bottom, right, top


def _creation_option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"--co {text!r} is not NAME=VALUE", "for example --co COMPRESS=ZSTD")
    return name, value


def _source_date() -> datetime | None:
    """Time stamp for reproducible outputs (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"SOURCE_DATE_EPOCH={text!r} is no number of seconds", "unset it, or correct it") from error
