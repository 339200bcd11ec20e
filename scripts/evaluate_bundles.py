"""Measure a bundle on images that had no part in its training, beside what else could be used.

    python scripts/evaluate_bundles.py models/landcover-lale --data ../shared/data --out metrics.json
    python scripts/evaluate_bundles.py models/cloud-lale --data ../shared/data --s2cloudless PEER/bin/python

Beside the network stand a random forest trained on the same data, for clouds a published threshold test and, where a
source has its bands, s2cloudless (benchmarks/peers/run_s2cloudless.py says how to install it). Images are run whole,
padded to a multiple of 32 px, not in overlapping tiles.

A training scene can be measured on by a bundle that left it out:

    python scripts/evaluate_bundles.py FOLDER --data ../shared/data --leave-out ukis-landsat5 --out without-5.json
    python scripts/evaluate_bundles.py models/cloud-lale --data ../shared/data --left-out without-5.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from aims import Report, aims_of
from band_sets import UNCHANGED, headline, measure_band_sets
from figures import Model, Predict, Row, answer, measure, total
from left_out import MEASURED_WITHOUT, NOT_LEARNED, SCENES, left_out_case, was_trained_on
from rivals import ForestOptions, forest, normalised, s2cloudless, threshold_test
from validation_cases import NOTES, Case, UInt8Array, cloud_cases, land_cover_cases

from geoseg_cli.bundle import CARD_FILE, README_FILE, Bundle, CardConfusion
from geoseg_cli.engines import Engine, EngineOptions, choose_engine
from geoseg_cli.engines.fidelity import METRIC
from geoseg_cli.errors import GeosegError, UsageError
from geoseg_cli.export.card import store_confusion
from geoseg_cli.export.readme import MODEL_TITLES, describe_in_words
from geoseg_cli.training.bundle_recipes import BundleRecipe, recipe_named

SIZE_MULTIPLE_PX = 32
CONFUSION_SOURCES = {"land-cover": ("eurosat", "germany"), "cloud": ("cs12-scribbles",)}
"""Real images whose truth knows all classes that occur, and is no coarse map; see ``NOTES``."""
QUICK_SCENES, QUICK_CASES_PER_SOURCE = 4, 2
QUICK_FOREST = ForestOptions(scenes=4, samples=60)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured and on what.

    Attributes:
        bundle: The bundle.
        recipe: What it was made by.
        cases: All cases.
        arguments: The command line.
    """

    bundle: Bundle
    recipe: BundleRecipe
    cases: list[Case]
    arguments: argparse.Namespace


def main() -> int:
    """Measure, print and write; returns the exit code."""
    arguments = parse_arguments()
    try:
        if arguments.update_confusion:
            print(update_confusion(arguments).model_dump_json())
            return 0
        report = evaluate(arguments)
        print_report(report)
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if arguments.update_card:
            update_card(arguments.bundle, report)
    except GeosegError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds training/ and validation/")
    parser.add_argument("--engine", choices=("auto", "torch", "onnx", "openvino"), default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=60, help="simulated scenes to measure on")
    parser.add_argument("--no-forest", action="store_true", help="leave the random forest out")
    parser.add_argument("--no-band-sets", action="store_true", help="measure with all bands only")
    parser.add_argument("--s2cloudless", type=Path, metavar="PYTHON", help="interpreter that has s2cloudless")
    parser.add_argument("--leave-out", choices=tuple(SCENES), help="measure on this training scene alone")
    parser.add_argument(
        "--left-out", type=Path, nargs="*", default=[], metavar="JSON", help="reports of --leave-out to add"
    )
    parser.add_argument(
        "--full-bands", type=Path, nargs="+", default=[], metavar="JSON",
        help="report of a bundle that was trained on full bands only, and that of the one it is compared with (this one"
        " if not given)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a few images only: to see that everything works")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the forest's scenes are kept")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--update-card", action="store_true", help="write the figures into the bundle's card")
    parser.add_argument(
        "--update-confusion", action="store_true", help="measure and write the card's confusion matrix, nothing else"
    )
    arguments = parser.parse_args()
    if arguments.update_card and (arguments.quick or arguments.leave_out):
        parser.error("--update-card needs all images: leave --quick and --leave-out away")
    return arguments


def evaluate(arguments: argparse.Namespace) -> Report:
    """Measure a bundle and its rivals."""
    bundle = Bundle.open(arguments.bundle)
    # A recipe may have moved on since its bundle was made; the forest gets the bands that the network gets.
    recipe = replace(recipe_named(bundle.name), spec=bundle.input_spec)
    if arguments.leave_out and recipe.task != "cloud":
        raise UsageError(f"{arguments.leave_out} shows clouds, {bundle.name} does not", "measure a bundle of clouds")
    subject = Subject(bundle, recipe, all_cases(recipe, arguments), arguments)
    engine, reason = choose_engine(bundle, EngineOptions(engine=arguments.engine, threads=arguments.threads))
    with closing(engine):
        models = [Model("network", network(subject, engine)), *rivals(subject)]
        report: Report = {"bundle": bundle.name, "engine": reason, "weights_sha256": bundle.sha256("weights")}
        report |= {"steps": bundle.card.extras.training.get("last_step")}
        report |= measure_all(subject, models)
    if arguments.leave_out:
        trained_on = was_trained_on(bundle.card.extras.training, arguments.leave_out)
        return report | {"left_out": arguments.leave_out, "was_trained_on": trained_on}
    for path in arguments.left_out:
        add_left_out(report, read_report(path))
    if arguments.full_bands:
        full, ours = [*map(read_report, arguments.full_bands), report][:2]
        report["lost_to_full_bands"] = lost_to(ours, full)
    return report | {"aims": aims_of(report, recipe.task)}


def update_confusion(arguments: argparse.Namespace) -> CardConfusion:
    """Count what a bundle calls pixels of real images that had no part in its training, and write it into its card."""
    bundle = Bundle.open(arguments.bundle)
    recipe = replace(recipe_named(bundle.name), spec=bundle.input_spec)
    wanted = argparse.Namespace(**vars(arguments) | {"scenes": 0})
    cases = [case for case in all_cases(recipe, wanted) if case.source in CONFUSION_SOURCES[recipe.task]]
    engine, _ = choose_engine(bundle, EngineOptions(engine=arguments.engine, threads=arguments.threads))
    with closing(engine):
        predict = network(Subject(bundle, recipe, cases, arguments), engine)
        table = total([answer(case, predict(case), bundle.legend).table for case in cases])
    told = " ".join(NOTES[source] for source in CONFUSION_SOURCES[recipe.task])
    confusion = CardConfusion(data=told, places=len(cases), counts=table.counts.T.tolist())
    store_confusion(bundle, confusion)
    return confusion


def all_cases(recipe: BundleRecipe, arguments: argparse.Namespace) -> list[Case]:
    """What to measure on."""
    if arguments.leave_out:
        return [left_out_case(arguments.leave_out, arguments.data / "training")]
    make = land_cover_cases if recipe.task == "land-cover" else cloud_cases
    cases = make(recipe, arguments.data, QUICK_SCENES if arguments.quick else arguments.scenes)
    if not arguments.quick:
        return cases
    by_source: dict[str, list[Case]] = {}
    for case in cases:
        by_source.setdefault(case.source, []).append(case)
    return [case for several in by_source.values() for case in several[:QUICK_CASES_PER_SOURCE]]


def network(subject: Subject, engine: Engine) -> Predict:
    """The bundle itself."""
    spec, values = subject.bundle.input_spec, np.array(subject.bundle.legend.values, np.uint8)

    def predict(case: Case) -> UInt8Array:
        height, width = case.truth.shape
        rest = ((0, 0), (0, -height % SIZE_MULTIPLE_PX), (0, -width % SIZE_MULTIPLE_PX))
        padded = np.pad(normalised(case, spec), rest, mode="reflect")
        logits = engine.run(np.ascontiguousarray(padded)[None])[0]
        predicted: UInt8Array = values[logits.argmax(axis=0)[:height, :width]]
        return predicted

    return predict


def rivals(subject: Subject) -> list[Model]:
    """What stands beside the network."""
    arguments, recipe, found = subject.arguments, subject.recipe, []
    if not arguments.no_forest:
        options = QUICK_FOREST if arguments.quick else ForestOptions(threads=arguments.threads)
        # What the bundle did without, its rival does without.
        gone = [*subject.bundle.card.extras.training.get("left_out", [])]
        if arguments.leave_out and arguments.leave_out not in gone:
            gone.append(arguments.leave_out)
        found.append(forest(recipe, arguments.data / "training", arguments.runs, options, gone))
    if recipe.task == "cloud":
        found.append(threshold_test())
        if arguments.s2cloudless is not None:
            found.append(s2cloudless(subject.cases, arguments.s2cloudless))
    return found


def measure_all(subject: Subject, models: Sequence[Model]) -> Report:
    """Figures of all models, with all bands and with fewer."""
    recipe = subject.recipe
    report: Report = {model.name: measure(subject.cases, model, recipe.legend, recipe.task) for model in models}
    notes = NOTES | {name: scene.note for name, scene in SCENES.items()}
    report["notes"] = {name: notes[name] for name in report["network"]}
    if not subject.arguments.no_band_sets:
        able = [model for model in models if not model.is_binary]
        known = subject.bundle.input_spec.bands
        sets = measure_band_sets(subject.cases, able, recipe.legend, recipe.task, known)
        for source, by_set in sets.items():
            by_set[UNCHANGED] = {model.name: headline(report[model.name][source]) for model in able}
        report["band_sets"] = sets
    return report


def add_left_out(report: Report, other: Report) -> None:
    """Take over what another bundle, trained without a scene, reaches on it.

    Raises:
        UsageError: It was trained on the scene, or is of another recipe, or the report is of something else.
    """
    scene = other.get("left_out")
    if scene is None or other["bundle"] != report["bundle"]:
        raise UsageError(
            f"not a report of {report['bundle']} with a scene left out", "pass files that --leave-out wrote"
        )
    if other["was_trained_on"]:
        raise UsageError(f"that bundle was trained on {scene}", "train one without it")
    for part in (*MODEL_TITLES, "notes", "band_sets"):
        if part in report and scene in other.get(part, {}):
            report[part][scene] = other[part][scene]
    is_same = other["weights_sha256"] == report["weights_sha256"]
    report["notes"][scene] += NOT_LEARNED if is_same else MEASURED_WITHOUT.format(steps=other["steps"])


def lost_to(report: Report, other: Report) -> dict[str, float]:
    """Mean IoU on simulated Sentinel-2 scenes, with all their bands, that another bundle has more.

    Raises:
        UsageError: The last runs of the two were not equally long.
    """
    if report.get("steps") != other.get("steps"):
        raise UsageError(
            f"{other.get('steps')} steps on full bands cannot be compared with {report.get('steps')} steps",
            "train both for the same number of steps",
        )

    def mean_iou(one: Report) -> float:
        row = one["network"]["simulated"]
        return float(row.get("by_part", {}).get("sentinel-2", row)["mean_iou"])

    where = f"simulated, Sentinel-2; two runs of {report['steps']:,} steps from the same weights"
    return {where: round(mean_iou(other) - mean_iou(report), 4)}


def read_report(path: Path) -> Report:
    """Read a report that this script wrote.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        report: Report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"no report in {path}: {error}", "pass a file that --out wrote") from error
    return report


def print_report(report: Report) -> None:
    """Print the aims, then one line per source and model."""
    print(f"{report['bundle']} ({report['engine']})")
    if "was_trained_on" in report:
        verdict = "was trained on this scene: no measure of anything" if report["was_trained_on"] else "left it out"
        print(f"{report['left_out']}: by its card, the bundle {verdict}")
    for aim in report.get("aims", []):
        verdict = {True: "met", False: "NOT met", None: "open"}[aim["met"]]
        print(f"  {verdict:8} {aim['aim']} {aim['wanted']}: {aim['measured']} ({aim['where']})")
    for source, note in report["notes"].items():
        print(f"\n{source}: {note}")
        for model in MODEL_TITLES:
            if source in report.get(model, {}):
                print(f"  {model:12} {summary(report[model][source])}")
        for name, by_model in report.get("band_sets", {}).get(source, {}).items():
            print(f"    {name}: {by_model}")


def summary(row: Row) -> str:
    """The figures of a source in one line."""
    parts = [f"n={row['n']} {row['unit']}s, {row['pixels']} px", str(headline(row))]
    if classes := {name: one["f1"] for name, one in row.get("classes", {}).items() if one["pixels"]}:
        parts.append(f"F1 {classes}")
    if "cloud_inside" in row:
        parts.append(f"cloud F1 far from edges {row['cloud_inside']['f1']}")
    for part, one in row.get("by_part", {}).items():
        known = {key: value for key, value in one.items() if value is not None}
        parts.append(f"\n      {part}: {known}")
    return "; ".join(parts)


def update_card(folder: Path, report: Report) -> None:
    """Write the figures into the card and the README; checksums are of other files and stay true."""
    path = folder / CARD_FILE
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    extras = card["properties"]["mlm:hyperparameters"]["geoseg"]
    # What another script measured of reduced precisions stays, as long as the weights are the same.
    old = extras.get("metrics", {})
    is_same = old.get("weights_sha256") == report["weights_sha256"]
    kept = {METRIC: old[METRIC]} if is_same and METRIC in old else {}
    extras["metrics"] = {**kept, **report}
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
    (folder / README_FILE).write_text(describe_in_words(Bundle.open(folder).card), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
