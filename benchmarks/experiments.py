"""The papers' claims at small scale: train every arm of every experiment with several seeds, then write the page.

    python benchmarks/experiments.py --data ../shared/data [--only sdm cam] [--seeds 3] [--steps 20] [--write]

The data folder holds ``training/spectra``. Data sets are simulated once and every run's figures are appended to a file,
both under --runs, so a run that was killed goes on where it was. ``--write`` runs nothing: it writes
docs/experiments.md from the figures. One thread, so that times are those of one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from baselines import SwinSegmenter
from experiment_arms import EXPERIMENTS, SWIN, Arm
from experiment_data import DataSet, TaskName, load_data
from experiment_page import Table, describe_tasks, render_page
from torch import nn

from geoseg_cli.networks import create_network
from geoseg_cli.training.augment import AugmentOptions, Source, whole_sample
from geoseg_cli.training.loop import Trainer, TrainOptions, score

PAGE = Path(__file__).resolve().parents[1] / "docs" / "experiments.md"
TIMED_STEPS, UNTIMED_STEPS = 12, 3
# Crops, turns and small radiometric errors; no wedges, for the test scenes have none.
AUGMENT = AugmentOptions(wedge=0.0)


def main() -> None:
    """Run what is missing, or write the page."""
    options = parse_options()
    torch.set_num_threads(1)
    data = Shelf(options.runs, options.data / "training" / "spectra")
    book = options.runs / "results.jsonl"
    wanted = list(list_runs(options.only, options.seeds, options.steps))
    if options.write:
        write_page(data, book, options)
        return
    for number, (arm, seed) in enumerate(wanted, start=1):
        if find_run(read_runs(book), arm, seed, data[arm.task].digest) is None:
            result = run_arm(arm, seed, data[arm.task])
            with book.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            figures = ", ".join(f"{name} {value:.3f}" for name, value in result["scores"].items())
            print(f"{number}/{len(wanted)} {arm.network} {arm.label}, seed {seed}: {figures}, {result['cpu_s']:.0f} s",
                  flush=True)  # fmt: skip


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds training/spectra")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/experiments"), help="data sets and figures, not for git"
    )
    parser.add_argument("--only", nargs="+", choices=tuple(EXPERIMENTS), default=list(EXPERIMENTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm, at least 2 for a page (default: 3)")
    parser.add_argument("--steps", type=int, help="budget of every arm, for a quick look")
    parser.add_argument("--write", action="store_true", help="write the page from the runs that are there")
    return parser.parse_args()


class Shelf(dict[TaskName, DataSet]):
    """Data sets, loaded when first asked for."""

    def __init__(self, folder: Path, spectra: Path) -> None:
        super().__init__()
        self.folder, self.spectra = folder, spectra

    def __missing__(self, name: TaskName) -> DataSet:
        self[name] = load_data(self.folder, name, self.spectra)
        return self[name]


def list_runs(names: list[str], seeds: int, steps: int | None) -> Iterator[tuple[Arm, int]]:
    """Pair the arms of some experiments with seeds 1, 2, ...; experiment by experiment, seed by seed."""
    for name in names:
        for seed in range(1, seeds + 1):
            for arm in EXPERIMENTS[name].arms:
                yield shorten(arm, steps), seed


def shorten(arm: Arm, steps: int | None) -> Arm:
    """The arm with another budget, if there is one."""
    return arm if steps is None else replace(arm, steps=steps, seconds=0.0)


def read_runs(book: Path) -> list[dict[str, Any]]:
    """Read the figures of all runs; a last line that a kill cut short is dropped."""
    lines = book.read_text(encoding="utf-8").split("\n")[:-1] if book.is_file() else []
    return [json.loads(line) for line in lines]


def find_run(runs: list[dict[str, Any]], arm: Arm, seed: int, digest: str) -> dict[str, Any] | None:
    """Find the run of an arm and a seed on a data set; None if there is none."""
    wanted = {"arm": arm.key(), "seed": seed, "data": digest}
    return next((run for run in runs if all(run[name] == value for name, value in wanted.items())), None)


def build(arm: Arm, classes: int) -> nn.Module:
    """Create an arm's network with random weights."""
    if arm.network == SWIN:
        return SwinSegmenter(len(arm.bands), classes, **arm.config)
    return create_network(arm.network, len(arm.bands), classes, **arm.config)


def run_arm(arm: Arm, seed: int, data: DataSet) -> dict[str, Any]:
    """Train and test one arm; a line of the results file."""
    steps = steps_within(arm, data) if arm.seconds else arm.steps
    trainer = make_trainer(arm, seed, data, steps)
    started = time.process_time()
    for progress in trainer.run([Source(data.share(arm.data_share, seed))], []):
        loss = progress.loss
    seconds = time.process_time() - started
    found = score(trainer.averaged, [whole_sample(chip, trainer.spec) for chip in data.test]).as_dict()
    return {
        "arm": arm.key(), "seed": seed, "data": data.digest, "torch": torch.__version__, "steps": steps,
        "cpu_s": round(seconds, 2), "loss": round(loss, 4),
        "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
        "scores": {name: found[name] for name in ("mean_iou", "mean_f1", "overall_accuracy")},
        "class_iou": {name: figures["iou"] for name, figures in found["classes"].items()},
    }  # fmt: skip


def make_trainer(arm: Arm, seed: int, data: DataSet, steps: int) -> Trainer:
    """Set an arm up: its seed decides weights and order of the data."""
    torch.manual_seed(seed)
    task = data.task
    options = TrainOptions(
        steps=steps, pixels_per_step=task.batch * task.crop_px**2, sizes_px=(task.crop_px,),
        learning_rate=arm.learning_rate, output_weights=arm.output_weights, precision="fp32",
        validate_minutes=float("inf"), seed=seed,
    )  # fmt: skip
    return Trainer(build(arm, len(task.legend.classes)), data.spec(arm.bands), options, AUGMENT)


def steps_within(arm: Arm, data: DataSet) -> int:
    """Steps that fit into an arm's processor time, from the median time of a few."""
    ends: list[float] = []
    trainer = make_trainer(arm, 0, data, UNTIMED_STEPS + TIMED_STEPS)
    for _ in trainer.run([Source(data.train)], [], on_step=lambda: ends.append(time.process_time())):
        pass
    taken = [end - begin for begin, end in zip(ends[UNTIMED_STEPS - 1 :], ends[UNTIMED_STEPS:], strict=False)]
    return max(1, round(arm.seconds / statistics.median(taken)))


def write_page(data: Shelf, book: Path, options: argparse.Namespace) -> None:
    """Write the page from complete experiments, and say which are not."""
    runs, tables, left_out = read_runs(book), [], []
    for name in options.only:
        experiment = EXPERIMENTS[name]
        found = tuple(
            tuple(
                find_run(runs, shorten(arm, options.steps), seed, data[arm.task].digest)
                for seed in range(1, options.seeds + 1)
            )
            for arm in experiment.arms
        )
        missing = sum(run is None for arm in found for run in arm)
        if missing:
            left_out.append(f"{experiment.title} ({missing} runs missing)")
        else:
            tables.append(Table(experiment, found))  # type: ignore[arg-type]
    names = dict.fromkeys(arm.task for table in tables for arm in table.experiment.arms)
    about = describe_tasks({name: data[name].digest for name in names}) | {
        "Machine": f"{platform.machine()}, one thread, torch {torch.__version__}, fp32; s is processor time of training"
    }
    if left_out:
        about["Left out"] = "; ".join(left_out)
    PAGE.write_text(render_page(tables, about), encoding="utf-8")
    print(PAGE.name)


if __name__ == "__main__":
    main()
