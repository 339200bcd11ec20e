"""Fidelity: whether a reduced precision gives the classes of fp32 closely enough to be chosen without being asked for.

Two things must show it. The card tells how many pixels of held-out simulated tiles got the same class where the bundle
was measured (``scripts/precision_agreement.py``): golden tiles are too few to tell. The golden tiles tell, on the
user's own machine, that its processor and version of the engine do as those did. The second answer is kept in the
user's cache folder, where nothing depends on it: without it the golden tiles run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

from geoseg_cli.bundle import Bundle
from geoseg_cli.engines.golden import read_golden
from geoseg_cli.engines.graph import graph_asset
from geoseg_cli.version import __version__

if TYPE_CHECKING:
    from geoseg_cli.engines.onnx_engine import OnnxEngine
    from geoseg_cli.engines.openvino_engine import OpenVinoEngine

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.integer]

LEAST_SAME, LEAST_IOU = 0.999, 0.99
METRIC = "precisions"
"""Name of the held-out figures in a card's metrics: "engine precision" -> fields of :class:`Fidelity`, and how many
times as fast as fp32 it was, ``speed``, where that was measured."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far the classes of a reduced precision are those of fp32.

    Attributes:
        same: Share of pixels with the same class, 0 to 1.
        least_iou: Intersection over union of the two answers for the class where it is least, 0 to 1.
    """

    same: float
    least_iou: float

    @property
    def trouble(self) -> str:
        """What is not enough; empty where all is."""
        # Not `same < least`: NaN is not enough either.
        if not self.same >= LEAST_SAME:
            return f"{floor_percent(self.same)} of the pixels as in fp32, less than {100 * LEAST_SAME:g} %"
        if not self.least_iou >= LEAST_IOU:
            return (
                f"the IoU of a class with fp32 is {np.floor(1e3 * self.least_iou) / 1e3:.3f}, less than {LEAST_IOU:g}"
            )
        return ""


def floor_percent(share: float, digits: int = 2) -> str:
    """A share in per cent, rounded down, so that none seems to reach a limit that it misses."""
    return f"{np.floor(share * 10 ** (digits + 2)) / 10**digits:.{digits}f} %"


def compare_labels(wanted: LabelArray, found: LabelArray, classes: int) -> Fidelity:
    """Compare two answers for the same pixels.

    Args:
        wanted, found: Class numbers 0 to ``classes`` - 1 in any shape, the same in both; at least one pixel.
        classes: How many classes there are. Those that neither answer has do not count.
    """
    table = np.bincount((wanted.astype(np.int64) * classes + found).ravel(), minlength=classes**2)
    table = table.reshape(classes, classes)
    both, either = table.diagonal(), table.sum(axis=0) + table.sum(axis=1) - table.diagonal()
    return Fidelity(float(both.sum() / table.sum()), float((both[either > 0] / either[either > 0]).min()))


def held_out_fidelity(bundle: Bundle, engine: str, precision: str) -> Fidelity | None:
    """What a card says of held-out tiles; None where it says nothing that can be understood."""
    return _read_fidelity(bundle.card.extras.metrics.get(METRIC, {}), f"{engine} {precision}")


def held_out_speed(bundle: Bundle, engine: str, precision: str) -> float | None:
    """How many times as fast as fp32 a card says an engine is; None where it does not say."""
    table = bundle.card.extras.metrics.get(METRIC, {})
    row = table.get(f"{engine} {precision}") if isinstance(table, dict) else None
    speed = row.get("speed") if isinstance(row, dict) else None
    return float(speed) if isinstance(speed, float | int) else None


def kept_fidelity(engine: OpenVinoEngine | OnnxEngine, bundle: Bundle, folder: Path | None = None) -> Fidelity | None:
    """What :func:`golden_fidelity` found earlier with the same arguments; None where no answer is kept."""
    return _load(_place(engine, bundle, folder))


def golden_fidelity(engine: OpenVinoEngine | OnnxEngine, bundle: Bundle, folder: Path | None = None) -> Fidelity:
    """How far an engine's classes of the golden tiles are those of fp32, measured once per machine and version.

    Args:
        engine: The engine in reduced precision.
        bundle: Its bundle, with golden tiles.
        folder: Where the answer is kept; None for the user's cache folder.

    Raises:
        EngineError: The engine failed.
        ModelError: The golden tiles cannot be read.
    """
    path = _place(engine, bundle, folder)
    kept = _load(path)
    if kept is None:
        pixels, wanted = read_golden(bundle)
        kept = compare_labels(wanted.argmax(1), engine.run(pixels).argmax(1), wanted.shape[1])
        _keep(path, kept)
    return kept


def _place(engine: OpenVinoEngine | OnnxEngine, bundle: Bundle, folder: Path | None) -> Path:
    """The file of an answer; another one for whatever its digits depend on."""
    folder = user_cache_path("geoseg") / "fidelity" if folder is None else folder
    key = [__version__, engine.name, engine.precision, engine.fingerprint,
           bundle.sha256(graph_asset(engine.precision)), bundle.sha256("golden")]  # fmt: skip
    return folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"


def _load(path: Path) -> Fidelity | None:
    """A kept answer; None where there is none, or none that can be understood."""
    try:
        return _read_fidelity({"kept": json.loads(path.read_text(encoding="utf-8"))}, "kept")
    except (OSError, ValueError, RecursionError):
        return None


def _keep(path: Path, fidelity: Fidelity) -> None:
    """Keep an answer where that is possible; two processes may do so at the same time."""
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(asdict(fidelity)) + "\n", encoding="utf-8")
        unfinished.replace(path)


def _read_fidelity(table: object, name: str) -> Fidelity | None:
    row = table.get(name) if isinstance(table, dict) else None
    if not isinstance(row, dict):
        return None
    same, least_iou = row.get("same"), row.get("least_iou")
    if not (isinstance(same, float | int) and isinstance(least_iou, float | int)):
        return None
    return Fidelity(float(same), float(least_iou)) if 0 <= same <= 1 and 0 <= least_iou <= 1 else None
