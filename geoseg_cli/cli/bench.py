"""``geoseg bench``: how fast a scene is mapped here, what that costs, and which overlap a bundle needs."""

from __future__ import annotations

import json as json_format
import tempfile
import warnings
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoseg_cli.cli import options as o
from geoseg_cli.cli.bench_tables import bench_text, overlap_text
from geoseg_cli.cli.console import Messages, tame
from geoseg_cli.cli.logs import LogFile, LogFormat
from geoseg_cli.cli.request import put, read_batch
from geoseg_cli.errors import GeosegError, UsageError

if TYPE_CHECKING:
    from geoseg_cli.bench.overlap import SweepOptions
    from geoseg_cli.bench.run import BenchOptions, Configuration
    from geoseg_cli.bundle import Bundle
    from geoseg_cli.job import PredictOptions

DEFAULT_MODEL = "landcover-lale"
WHAT = "What is measured"

MaybeScene = Annotated[
    Path | None,
    typer.Argument(readable=False, metavar="SCENE", help="A file or product folder.", show_default=False),
]
Synthetic = Annotated[
    int | None,
    typer.Option(
        "--synthetic",
        metavar="SIDE",
        min=64,
        help="Make a scene of 13 bands with so many columns and rows; 10980 is a Sentinel-2 tile.",
        rich_help_panel=WHAT,
        show_default=False,
    ),
]
Height = Annotated[
    int | None,
    typer.Option(
        "--height",
        metavar="ROWS",
        min=64,
        help="Rows of the made scene, where they differ.",
        rich_help_panel=WHAT,
        show_default=False,
    ),
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="NAME|all",
        help="What runs the network; may be repeated; all: every engine that runs here.",
        rich_help_panel=o.MODEL,
        show_default="auto",
    ),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar="auto|fp32|fp16|bf16|int8",
        help="Arithmetic of the network; may be repeated.",
        rich_help_panel=o.MODEL,
        show_default="auto",
    ),
]
Batches = Annotated[
    list[str] | None,
    typer.Option(
        "--batch",
        metavar="N|auto",
        help="Tiles that travel together; may be repeated.",
        rich_help_panel=o.MODEL,
        show_default="auto",
    ),
]
Tiles = Annotated[
    list[int] | None,
    typer.Option(
        "--tile",
        metavar="PX",
        min=1,
        help="Side of a tile; may be repeated. The bundle's if not given; with --overlap also twice that.",
        rich_help_panel=o.MODEL,
        show_default=False,
    ),
]
OverlapPx = Annotated[
    int | None,
    typer.Option(
        "--overlap-px",
        metavar="PX",
        min=0,
        help="Pixels that neighbouring tiles share at least; the bundle's if not given.",
        rich_help_panel=o.MODEL,
        show_default=False,
    ),
]
Overlap = Annotated[
    bool,
    typer.Option(
        "--overlap",
        help="Instead compare maps at several overlaps with a reference of wide context.",
        rich_help_panel=WHAT,
    ),
]
Rounds = Annotated[
    int,
    typer.Option(
        "--rounds", metavar="N", min=1, help="How often each is measured; medians are told.", rich_help_panel=WHAT
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def command(
    scene: MaybeScene = None,
    synthetic: Synthetic = None,
    height: Height = None,
    overlap: Overlap = False,
    rounds: Rounds = 3,
    model: o.Model = None,
    engine: Engines = None,
    device: o.Device = "auto",
    precision: Precisions = None,
    batch: Batches = None,
    tile: Tiles = None,
    overlap_px: OverlapPx = None,
    blend: o.BlendName = "hann",
    bands: o.Bands = None,
    radiometry: o.RadiometryName = "auto",
    nodata: o.Nodata = "auto",
    sensor: o.SensorName = None,
    fill: o.Fill = None,
    valid: o.Valid = "all",
    saturated: o.Saturated = "keep",
    gsd: o.GsdName = "auto",
    json: AsJson = False,
    log_file: LogFile = None,
    log_format: LogFormat = "json",
    quiet: o.Quiet = False,
) -> None:
    """Measure how fast SCENE, or a synthetic one, is mapped on this machine.

    Every engine, precision, batch and tile is run in processes of its own, in
    interleaved rounds; the figures are medians. Maps and synthetic scenes lie in
    a temporary folder (TMPDIR) and are removed. Core-seconds are processor time
    of all threads; total/(f+d) is that of the run by that of the forward pass
    and the decoding alone. Agreement is with the first map in fp32.
    """
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    given = dict(locals())
    _refuse_contradictions(given)
    try:
        put(_measure(given, Messages(quiet=quiet, verbose=0)))
    except GeosegError as error:
        tame(error)
        raise


def _refuse_contradictions(given: dict[str, Any]) -> None:
    if (given["scene"] is None) == (given["synthetic"] is None):
        raise UsageError("a scene is measured: one that exists, or a synthetic one", "give SCENE, or --synthetic SIDE")
    if given["height"] is not None and given["synthetic"] is None:
        raise UsageError("--height is that of a synthetic scene", "give --synthetic SIDE with it")
    if not given["overlap"]:
        return
    if given["overlap_px"] is not None:
        raise UsageError("--overlap tries several overlaps, --overlap-px is one", "give one of them")
    for name in ("engine", "precision", "batch"):
        if len(given[name] or ()) > 1 or "all" in (given[name] or ()):
            raise UsageError(f"--overlap runs one network in one way, there are several --{name}", "give one")


def _measure(given: dict[str, Any], messages: Messages) -> str:
    """What stdout gets."""
    from geoseg_cli.bench.overlap import sweep_overlaps
    from geoseg_cli.bench.run import bench_scene, synthesise
    from geoseg_cli.bundle import find_bundle

    bundle = find_bundle(given["model"] or DEFAULT_MODEL)
    options = _predict_options(given)
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder, scene = Path(name), given["scene"]
        if scene is None:
            rows, cols = given["height"] or given["synthetic"], given["synthetic"]
            messages.note(f"making a scene of {rows} x {cols} px")
            scene = synthesise(folder, rows, cols)
        if given["overlap"]:
            swept = sweep_overlaps(scene, _sweep_options(given, bundle, options), folder, messages.note)
            return json_format.dumps(swept.to_json()) + "\n" if given["json"] else overlap_text(swept)
        report = bench_scene(scene, _bench_options(given, bundle, options), folder, messages.note)
        return json_format.dumps(report.to_json()) + "\n" if given["json"] else bench_text(report)


def _predict_options(given: dict[str, Any]) -> PredictOptions:
    from geoseg_cli.job import PredictOptions

    return PredictOptions(
        overlap_px=given["overlap_px"],
        blend=given["blend"],
        scene=o.scene_options(given),
        gsd=o.read_gsd(given["gsd"]),
    )


def _configurations(given: dict[str, Any]) -> tuple[Configuration, ...]:
    from geoseg_cli.bench.run import Configuration, engines_that_run
    from geoseg_cli.engines import EngineOptions

    engines: list[str] = []
    for name in given["engine"] or ["auto"]:
        engines += engines_that_run() if name == "all" else [name]
    batches = [read_batch(text) for text in given["batch"] or ["auto"]]
    return tuple(
        Configuration(EngineOptions(engine, given["device"], precision), batch, tile)
        for engine, precision, batch, tile in product(
            dict.fromkeys(engines), given["precision"] or ["auto"], batches, given["tile"] or [None]
        )
    )


def _bench_options(given: dict[str, Any], bundle: Bundle, options: PredictOptions) -> BenchOptions:
    from geoseg_cli.bench.run import BenchOptions

    return BenchOptions(bundle, _configurations(given), given["rounds"], options)


def _sweep_options(given: dict[str, Any], bundle: Bundle, options: PredictOptions) -> SweepOptions:
    from geoseg_cli.bench.overlap import SweepOptions

    own = bundle.card.extras.tile_px
    configuration = _configurations(given | {"tile": None})[0]
    tiles = tuple(dict.fromkeys(given["tile"] or (own, 2 * own)))
    return SweepOptions(bundle, configuration.engine, tiles, options)
