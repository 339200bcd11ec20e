"""Put the int8 graph of a bundle into the bundle, with what was measured of it in every engine that runs it."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geoseg_cli.bundle import CARD_FILE, INT8_GRAPH, Bundle
from geoseg_cli.engines import Engine, available_engines
from geoseg_cli.engines.fidelity import METRIC, Fidelity, compare_labels
from geoseg_cli.errors import EngineError, ModelError, UsageError
from geoseg_cli.export.card import describe_asset, rewrite_card
from geoseg_cli.export.parity import Parity, Sample
from geoseg_cli.export.single_file import ExportOptions, ExportReport, export_file
from geoseg_cli.export.source import Source
from geoseg_cli.results.storage import storage_trouble

GRAPH_FILE = "model-int8.onnx"

_ENGINES = ("onnx", "openvino")
_ROUNDS, _TIMED_TILES, _NAMED_SCENES = 5, 4, 5


@dataclass(frozen=True, slots=True)
class Int8Figures:
    """What was measured of an int8 graph in one engine.

    Attributes:
        engine: ``onnx`` or ``openvino``.
        fidelity: How far its classes of tiles that had no part in the calibration are torch's in fp32.
        tiles: How many tiles these are.
        speed: How many times as fast as the same engine in fp32.
    """

    engine: str
    fidelity: Fidelity
    tiles: int
    speed: float

    @property
    def row(self) -> dict[str, Any]:
        """As the card holds it."""
        return asdict(self.fidelity) | {"tiles": self.tiles, "speed": round(self.speed, 3)}


@dataclass(frozen=True, slots=True)
class Int8Report:
    """What was put into a bundle.

    Attributes:
        export: Of the graph.
        figures: Of each engine that runs it; none where it was calibrated with golden tiles alone.
        obstacles: Engine -> why it does not run it here.
    """

    export: ExportReport
    figures: tuple[Int8Figures, ...]
    obstacles: dict[str, str]


def put_int8_into(source: Source, options: ExportOptions) -> Int8Report:
    """Quantise a bundle's network, measure it, and make the graph a file of the bundle that its card names.

    An older int8 graph is replaced. Only tiles of scenes that had no part in the calibration give figures that
    ``--precision auto`` goes by.

    Args:
        source: A bundle that has a graph in fp32: what int8 makes infinite is computed with it.
        options: Of ``int8``.

    Raises:
        UsageError: It is no bundle, or another precision.
        ModelError: The bundle has no graph in fp32, or the new one answers too differently.
        AccessError, StorageError: The folder of the bundle does not take the file.
    """
    bundle = source.bundle
    if bundle is None or (options.format, options.precision) != ("onnx", "int8"):
        raise UsageError("--into-bundle puts an int8 graph into a bundle", "give a bundle and --precision int8")
    if "onnx" not in bundle.card.assets:
        raise ModelError(
            f"bundle {bundle.name} has no graph in fp32, with which tiles are computed that int8 makes infinite",
            "leave --into-bundle away, or use a bundle with model.onnx",
        )
    target = bundle.folder / GRAPH_FILE
    with storage_trouble(target):  # a folder that may not be written to is found now, not after the export
        part = tempfile.TemporaryDirectory(prefix=".part-", dir=bundle.folder)
    with part as name:
        graph = Path(name) / GRAPH_FILE
        report = export_file(source, graph, replace(options, overwrite=False))
        asset = describe_asset(INT8_GRAPH, graph, bundle.input_spec)
        asset["description"] = _describe(source, report, options.calibration)
        figures, obstacles = _measure(_stage(bundle, graph, asset), report.held_out)

        def change(item: dict[str, Any]) -> None:
            item["assets"][INT8_GRAPH] = asset
            _put_figures(item, figures)

        rewrite_card(bundle, change, {target: graph})
    return Int8Report(replace(report, files=(target,)), figures, obstacles)


def _describe(source: Source, report: ExportReport, scenes: Sequence[Path]) -> str:
    """What the card says of the graph, a sentence."""
    named = ", ".join(path.name.replace("|", "_") for path in scenes[:_NAMED_SCENES])
    more = f" and {len(scenes) - _NAMED_SCENES} more" if len(scenes) > _NAMED_SCENES else ""
    calibration = report.calibration + (f" (scenes: {named}{more})" if scenes else "")
    return f"{calibration}; {_agreement(source, report.parity)}"


def _agreement(source: Source, parity: Parity) -> str:
    shares = zip(parity.classes, source.classes, strict=True)
    worst, name = min((share, name) for share, name in shares if share is not None)
    return f"{parity.labels:.3%} of {parity.pixels:,} pixels keep the class of fp32, of {name} {worst:.2%}"


def _stage(bundle: Bundle, graph: Path, asset: dict[str, Any]) -> Bundle:
    """The bundle with its new graph beside copies of what engines need, so that they are measured as they will run."""
    folder = graph.parent
    shutil.copyfile(bundle.file("onnx"), folder / bundle.card.assets["onnx"].href)
    item = json.loads((bundle.folder / CARD_FILE).read_text(encoding="utf-8"))
    item["assets"] = {"onnx": item["assets"]["onnx"], INT8_GRAPH: asset}
    (folder / CARD_FILE).write_text(json.dumps(item), encoding="utf-8")
    return Bundle.open(folder)


def _measure(bundle: Bundle, samples: Sequence[Sample]) -> tuple[tuple[Int8Figures, ...], dict[str, str]]:
    """Figures of every engine that runs the graph, and why the others do not."""
    there = {status.name: status for status in available_engines() if status.name in _ENGINES}
    figures, obstacles = [], {name: one.reason for name, one in there.items() if not one.runs}
    for name in _ENGINES:
        if name in obstacles:
            continue
        with ExitStack() as opened:
            try:
                reduced, exact = (opened.enter_context(closing(_open(bundle, name, one))) for one in ("int8", "fp32"))
            except EngineError as error:
                obstacles[name] = error.message
                continue
            if samples:
                same = _compare(reduced, bundle, samples)
                figures.append(Int8Figures(name, same, len(samples), _gain(reduced, exact, samples)))
    return tuple(figures), obstacles


def _open(bundle: Bundle, name: str, precision: str) -> Engine:
    if name == "onnx":
        from geoseg_cli.engines.onnx_engine import OnnxEngine

        return OnnxEngine(bundle, "cpu", precision)
    from geoseg_cli.engines.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(bundle, "cpu", precision)


def _compare(engine: Engine, bundle: Bundle, samples: Sequence[Sample]) -> Fidelity:
    """How far an engine's classes are those of torch in fp32 where tiles hold pixels of a scene."""
    bands, wanted, found = len(bundle.input_spec.bands), [], []
    for sample in samples:
        # Normalised pixels that are not valid are 0 in every band.
        counts = sample.pixels[:, :bands].any(axis=1)
        wanted.append(sample.wanted.argmax(1)[counts])
        found.append(engine.run(sample.pixels).argmax(1)[counts])
    return compare_labels(np.concatenate(wanted), np.concatenate(found), len(bundle.legend.classes))


def _gain(reduced: Engine, exact: Engine, samples: Sequence[Sample]) -> float:
    """How many times as fast the one is: the best of rounds in turn, because machines are shared."""
    tiles = np.concatenate([sample.pixels for sample in samples if sample.pixels.shape == samples[0].pixels.shape])
    tiles = np.ascontiguousarray(tiles[:_TIMED_TILES])
    best = {reduced: np.inf, exact: np.inf}
    for engine in (reduced, exact):  # the first run of a shape also compiles
        engine.run(tiles)
    for _ in range(_ROUNDS):
        for engine in best:
            began = time.perf_counter()
            engine.run(tiles)
            best[engine] = min(best[engine], time.perf_counter() - began)
    return float(best[exact] / best[reduced])


def _put_figures(item: dict[str, Any], figures: Sequence[Int8Figures]) -> None:
    """Write the figures of this graph into a card in the place of those of an older one."""
    metrics = item["properties"]["mlm:hyperparameters"]["geoseg"].setdefault("metrics", {})
    known = metrics.get(METRIC)
    kept = known if isinstance(known, dict) else {}
    rows = {name: row for name, row in kept.items() if not name.endswith(" int8")}
    rows |= {f"{one.engine} int8": one.row for one in figures}
    if rows:
        metrics[METRIC] = rows
    else:
        metrics.pop(METRIC, None)
