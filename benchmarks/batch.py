"""A folder of many small scenes, some of them bad: are all others right, and what does a run cost beyond the scenes?

    python benchmarks/batch.py --scenes 1000 --bad 50

Told are the outcomes, wall and processor time of the run, of a second run that finds everything done, and of the bare
path: ``predict_scene`` in a loop in one process over the good scenes. The engine is one that gives back its input, so
that every map is known and what is measured is everything but the network.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine

from geoseg_cli import engines
from geoseg_cli.batch.inputs import find_scenes
from geoseg_cli.batch.models import Models
from geoseg_cli.batch.naming import Naming
from geoseg_cli.batch.run import run_batch
from geoseg_cli.batch.scene_run import SceneRunner
from geoseg_cli.batch.tasks import Outcome, Recipe
from geoseg_cli.batch.todo import RunOptions
from geoseg_cli.bundle import Bundle
from geoseg_cli.engines import EngineOptions
from geoseg_cli.engines.fake_engine import IdentityEngine
from geoseg_cli.job import PredictOptions
from geoseg_cli.predict import predict_scene

CARD = Path(__file__).resolve().parents[1] / "models" / "cloud-lale" / "item.json"
STEP = 0.5
BAD = ("text", "torn", "empty", "without the band", "gone")


class Silence:
    """A watch that tells nothing."""

    def note(self, text: str) -> None: ...
    def begin(self, task: Any) -> None: ...
    def announce(self, task: Any, job: Any) -> None: ...
    def progress(self, task: Any, done_px: int, total_px: int) -> None: ...
    def finished(self, task: Any, report: Any) -> None: ...


def main() -> None:
    """Make the scenes, run them, compare, and print."""
    asked = _arguments()
    engines.choose_engine = lambda bundle, options=None: (IdentityEngine(4), "fake")  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(prefix="geoseg-batch-", dir=asked.work) as name:
        work = Path(name)
        bundle = make_bundle(work / "model")
        expected = make_scenes(work / "in", asked.scenes, asked.bad, asked.side)
        figures: dict[str, Any] = {"scenes": asked.scenes, "bad": asked.bad, "side_px": asked.side}
        bare, batch = [], []
        for _ in range(asked.rounds):
            bare.append(timed(lambda: run_bare(work, bundle, expected))[1])
            shutil.rmtree(work / "out", ignore_errors=True)
            outcomes, cost = timed(lambda: run_folder(work, bundle, asked.at_once))
            batch.append(cost)
        figures["bare_s"], figures["run_s"] = bare, batch
        figures["statuses"] = dict(Counter(outcome.status for outcome in outcomes))
        figures["exit_codes"] = dict(Counter(one.failure.exit_code for one in outcomes if one.failure))
        figures["wrong_maps"] = wrong_maps(work, expected)
        again, figures["rerun_s"] = timed(lambda: run_folder(work, bundle, asked.at_once))
        figures["rerun_statuses"] = dict(Counter(outcome.status for outcome in again))
        wall = min(one[0] for one in batch) - min(one[0] for one in bare)
        cores = min(one[1] for one in batch) - min(one[1] for one in bare)
        figures["overhead_ms_per_scene"] = {
            "wall": 1000 * wall / asked.scenes,
            "processor": 1000 * cores / asked.scenes,
        }
        figures["rerun_ms_per_scene"] = 1000 * figures["rerun_s"][0] / asked.scenes
        print(json.dumps(figures, indent=1))
        sys.exit(bool(figures["wrong_maps"]) or figures["statuses"].get("failed", 0) != asked.bad)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--bad", type=int, default=50)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2, choices=(1, 2))
    parser.add_argument("--work", type=Path, default=None, help="where temporary folders go")
    return parser.parse_args()


def timed(run: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What a function returns, and its seconds of wall and of processor time."""
    wall, cores = time.perf_counter(), time.process_time()
    result = run()
    return result, (round(time.perf_counter() - wall, 3), round(time.process_time() - cores, 3))


def make_bundle(folder: Path) -> Path:
    """A card whose only band is red, normalised so that the class of a pixel reaches the engine as its number."""
    card = json.loads(CARD.read_text())
    source = card["properties"]["mlm:input"][0]
    source["bands"], source["input"]["shape"] = ["red"], [-1, 1, -1, -1]
    source["value_scaling"] = [{"type": "z-score", "mean": 0.0, "stddev": STEP}]
    card["properties"]["mlm:hyperparameters"]["geoseg"].pop("calibration", None)
    folder.mkdir()
    (folder / "item.json").write_text(json.dumps(card))
    return folder


def make_scenes(folder: Path, count: int, bad: int, side: int) -> dict[Path, npt.NDArray[np.int_]]:
    """Write scenes in ten folders, ``bad`` of them spoiled in several ways; classes of the good ones by path."""
    rng = np.random.default_rng(7)
    spoiled = set(rng.choice(count, bad, replace=False).tolist())
    good, transform = {}, Affine(10, 0, 600_000, 0, -10, 5_700_000)
    for number in range(count):
        path = folder / f"{number % 10}" / f"scene_{number:05}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = rng.integers(0, 4, (side, side))
        profile = {"crs": "EPSG:32631", "transform": transform, "height": side, "width": side}
        kind = BAD[number % len(BAD)] if number in spoiled else ""
        with rasterio.open(path, "w", driver="GTiff", count=1, dtype="uint16", **profile) as file:
            file.write((labels * 5000).astype(np.uint16), 1)
            file.set_band_description(1, "nir" if kind == "without the band" else "red")
            file.scales, file.offsets = (1e-4,), (0.0,)
        _spoil(path, kind)
        if not kind:
            good[path] = labels
    return good


def _spoil(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("this is no scene")
    elif kind == "torn":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "gone":
        path.unlink()
        path.symlink_to("nowhere.tif")


def run_bare(work: Path, bundle: Path, scenes: dict[Path, npt.NDArray[np.int_]]) -> None:
    """The good scenes, one after the other, without anything around them."""
    folder = work / "bare"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    opened, engine = Bundle.open(bundle), IdentityEngine(4)
    for scene in scenes:
        predict_scene(scene, folder / f"{scene.stem}.tif", opened, engine, PredictOptions())


def run_folder(work: Path, bundle: Path, at_once: int) -> list[Outcome]:
    """The folder, from looking what is in it to the last outcome."""
    out = work / "out"
    out.mkdir(exist_ok=True)
    units = find_scenes([work / "in"]).units
    tasks = Naming("cloudmask", out_dir=out).tasks(units, keep_journal=True)
    watch = Silence()
    runner = SceneRunner(Models(Recipe(bundle, EngineOptions(), PredictOptions()), watch), watch)
    try:
        return list(run_batch(tasks, runner, RunOptions(at_once=at_once)))
    finally:
        runner.close()


def wrong_maps(work: Path, expected: dict[Path, npt.NDArray[np.int_]]) -> list[str]:
    """Good scenes whose map is not what it should be, and maps that should not be there."""
    wrong, made = [], {path.relative_to(work / "out") for path in (work / "out").rglob("*.tif")}
    for scene, labels in expected.items():
        name = scene.relative_to(work / "in").with_name(f"{scene.stem}_cloudmask.tif")
        if name not in made:
            wrong.append(f"{name} is missing")
            continue
        made.discard(name)
        with rasterio.open(work / "out" / name) as file:
            if not np.array_equal(file.read(1), labels):
                wrong.append(str(name))
    return [*wrong, *(f"{name} should not be there" for name in made)]


if __name__ == "__main__":
    main()
