"""How much faster are several workers, and what does a cluster cost beyond them?

    python benchmarks/clusters.py workers --scenes 12 --rounds 3
    python benchmarks/clusters.py tasks --tasks 10000
    python benchmarks/clusters.py journal --tasks 100000

``workers``: copies of a sample scene through a shipped model whose engine has one thread, by one local worker, by two,
and by two workers of a Dask cluster on this machine. The parties take turns; told are, for each round, the seconds of
the whole run, those from the first finished scene to the last, which leave out the start of the processes, and
core-seconds: of all processes, and of this one alone, which schedules. Seconds are compared within a round: other load
on the machine falls on all of a round alike. ``--side`` repeats the sample: what a cluster costs is a matter of how
large a scene is.

``tasks``: tasks that do nothing, through the code that hands out scenes: what the scheduler costs.

``journal``: reading the journal of so many finished scenes, as every process does when it begins.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from batch import Silence

from geoseg_cli.batch.dask_cluster import ClusterOptions, connected
from geoseg_cli.batch.dask_run import DaskOptions, DaskRun
from geoseg_cli.batch.dask_worker import do_nothing
from geoseg_cli.batch.journal import FOLDER, Journal
from geoseg_cli.batch.models import Models
from geoseg_cli.batch.scene_run import SceneRunner
from geoseg_cli.batch.tasks import Outcome, Recipe, SceneTask
from geoseg_cli.batch.todo import RunOptions
from geoseg_cli.batch.workers import Around, run_workers
from geoseg_cli.engines import EngineOptions
from geoseg_cli.job import PredictOptions

ROOT = Path(__file__).resolve().parents[1]
SCENE = ROOT / "sample_scenes" / "l2a_12_bands.tif"
PARTIES = ("1 worker", "2 workers", "dask, 2 workers")


def main() -> None:
    """Measure and print."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="geoseg-clusters-", dir=asked.work) as name:
        load = os.getloadavg()
        measure = {"workers": measure_workers, "tasks": measure_tasks, "journal": measure_journal}[asked.part]
        print(json.dumps({"load_before": load} | measure(Path(name), asked), indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("workers", "tasks", "journal"))
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=512, help="rows and columns of a scene: a multiple of 512")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--model", default="cloud-lale")
    parser.add_argument("--work", type=Path, default=None, help="where temporary folders go")
    return parser.parse_args()


def measure_workers(work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Whole and steady seconds of each party in each round, and ratios of rounds."""
    (work / "in").mkdir()
    write_scene(work / "scene.tif", asked.side)
    for number in range(asked.scenes):
        os.link(work / "scene.tif", work / "in" / f"s{number:03}.tif")
    recipe = Recipe(ROOT / "models" / asked.model, EngineOptions(device="cpu", threads=1), PredictOptions(batch=1))
    rounds = [{party: run(work, party, recipe, asked.scenes) for party in PARTIES} for _ in range(asked.rounds)]

    def ratio(above: str, below: str, key: str) -> list[float]:
        return [round(one[above][key] / one[below][key], 3) for one in rounds]

    ratios = {
        f"{what}_{key}": ratio(*parties, key)
        for what, parties in {"two_workers_speedup": PARTIES[:2], "dask_to_workers": (PARTIES[2], PARTIES[1])}.items()
        for key in ("whole_s", "steady_s_per_scene", "core_s")
    }
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    return {"scenes": asked.scenes, "side": asked.side, "rounds": rounds, "ratios": ratios, "medians": medians}


def write_scene(path: Path, side: int) -> None:
    """The sample scene, repeated up to a size."""
    with rasterio.open(SCENE) as source:
        pixels, profile, source_tags = (
            source.read(),
            source.profile,
            (source.descriptions, source.scales, source.offsets),
        )
    times = side // pixels.shape[1]
    with rasterio.open(path, "w", **profile | {"height": side, "width": side}) as file:
        file.write(np.tile(pixels, (1, times, times)))
        file.descriptions, file.scales, file.offsets = source_tags


def run(work: Path, party: str, recipe: Recipe, scenes: int) -> dict[str, float]:
    """A party's seconds over all scenes."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    tasks = [SceneTask(work / "in" / f"s{n:03}.tif", out / f"m{n:03}.tif", out) for n in range(scenes)]
    watch = Silence()
    before, own = _core_s(resource.RUSAGE_CHILDREN), _core_s(resource.RUSAGE_SELF)
    started, ends = time.perf_counter(), []
    with (
        closing(SceneRunner(Models(recipe, watch), watch)) as runner,
        closing(_outcomes(party, tasks, recipe, runner)) as outcomes,
    ):
        for outcome in outcomes:
            assert outcome.status == "done", outcome
            ends.append(time.perf_counter() - started)
    own = _core_s(resource.RUSAGE_SELF) - own
    cores = _core_s(resource.RUSAGE_CHILDREN) - before + own
    at_once = 1 if party.startswith("1") else 2
    # The first outcome of each worker is the end of its start.
    steady = (ends[-1] - ends[at_once - 1]) / (scenes - at_once)
    return {"whole_s": round(ends[-1], 2), "steady_s_per_scene": round(steady, 4), "core_s": round(cores, 2),
            "own_core_s": round(own, 2)}  # fmt: skip


def _core_s(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


def _outcomes(party: str, tasks: list[SceneTask], recipe: Recipe, runner: SceneRunner) -> Iterator[Outcome]:
    watch = Silence()
    if party.startswith("dask"):
        with connected(ClusterOptions("local", workers=2)) as client:
            yield from DaskRun(client, recipe, runner, watch).outcomes(tasks, RunOptions())
    else:
        yield from run_workers(tasks, [recipe] * int(party[0]), Around(watch, runner), RunOptions())


def measure_tasks(work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of wall and of this process, and memory, for tasks that do nothing."""
    recipe, watch = Recipe(ROOT / "models" / asked.model, EngineOptions(), PredictOptions()), Silence()
    tasks = (SceneTask(SCENE, work / f"{number}.tif", work) for number in range(asked.tasks))
    runner = SceneRunner(Models(recipe, watch), watch)
    with connected(ClusterOptions("local", workers=2)) as client:
        wall, cores, memory = time.perf_counter(), time.process_time(), _peak_mib()
        run = DaskRun(client, recipe, runner, watch)
        outcomes = run.outcomes(tasks, RunOptions(), DaskOptions(function=do_nothing))
        done = sum(outcome.status == "done" for outcome in outcomes)
        wall, cores = time.perf_counter() - wall, time.process_time() - cores
    assert done == asked.tasks, f"{done} of {asked.tasks} came back"
    return {
        "tasks": done, "wall_s": round(wall, 2), "client_and_scheduler_core_s": round(cores, 2),
        "wall_ms_per_task": round(1000 * wall / done, 3), "core_ms_per_task": round(1000 * cores / done, 3),
        "peak_grew_mib": round(_peak_mib() - memory, 1),
    }  # fmt: skip


def measure_journal(work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds and memory of reading, and the size on the disk."""
    (work / FOLDER).mkdir()
    sidecars = (".tif", ".tif.aux.xml", ".qml", ".json")
    with open(work / FOLDER / "journal-20260101T000000-1-00000000.jsonl", "w") as file:
        for number in range(asked.tasks):
            name = f"{number % 1000:03}/scene_{number:07}"
            files = {f"{name}{ending}": {"sha256": f"{number:064x}", "size": 1000} for ending in sidecars}
            head = {"v": 1, "time": float(number), "scene": f"/in/{name}.tif", "output": f"{name}.tif"}
            head |= {"key": f"{number:064x}", "process": 1, "host": "one"}
            for event in ("started", "publishing", "done"):
                told = head | {"event": event} | ({} if event == "started" else {"files": files})
                file.write(json.dumps(told) + "\n")
    size = sum(path.stat().st_size for path in (work / FOLDER).iterdir())
    wall, cores, memory = time.perf_counter(), time.process_time(), _peak_mib()
    journal = Journal(work)
    assert len(journal.outputs()) == asked.tasks
    return {
        "scenes": asked.tasks, "journal_mib": round(size / 2**20, 1), "wall_s": round(time.perf_counter() - wall, 2),
        "core_s": round(time.process_time() - cores, 2), "peak_grew_mib": round(_peak_mib() - memory, 1),
    }  # fmt: skip


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
