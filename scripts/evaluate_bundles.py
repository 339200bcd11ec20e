"""Measure a bundle on images that had no part in its training, beside a random forest.

    python scripts/evaluate_bundles.py models/landcover-lale --data ../shared/data --out metrics.json

The forest judges each pixel by itself; it learns from the same simulated scenes and real samples, disturbed alike.
Images are run whole, padded to a multiple of 32 px, not in overlapping tiles. Intervals are percentiles of 1000
resamplings of whole images (never of pixels); fewer than 5 images give none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from validation_cases import NOTES, Case, UInt8Array, cloud_cases, land_cover_cases

from geoseg_cli.bundle import CARD_FILE, Bundle, InputSpec
from geoseg_cli.engines import EngineOptions, choose_engine
from geoseg_cli.errors import GeosegError
from geoseg_cli.export.readme import README_FILE, describe_in_words
from geoseg_cli.metrics import Confusion, confusion
from geoseg_cli.training.augment import draw_batch
from geoseg_cli.training.bundle_recipes import TRAIN_SEED, BundleRecipe, SceneMaker, recipe_named, sources
from geoseg_cli.training.chips import values_from_targets
from geoseg_cli.training.pool import ScenePool

Predict = Callable[[Case], UInt8Array]
"""Class values (H, W) uint8 of a case."""

CLOUD_GROUPS = ((0, 3), (1, 2))
"""Clear, shadow included, against cloud."""
FALSE_ALARM_SOURCES = ("cs12-clear", "terramesh-clear", "eurosat-clear")
FOREST_SAMPLES, FOREST_PIXELS_PER_SAMPLE, FOREST_SCENES = 800, 150, 300


def main() -> int:
    """Measure, print and write; returns the exit code."""
    arguments = parse_arguments()
    try:
        report = evaluate(arguments)
    except GeosegError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    print_table(report)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if arguments.update_card:
        update_card(arguments.bundle, report)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds training/ and validation/")
    parser.add_argument("--engine", choices=("auto", "torch", "onnx"), default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=60, help="simulated scenes to measure on")
    parser.add_argument("--no-forest", action="store_true", help="leave the random forest out")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the forest's scenes are kept")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--update-card", action="store_true", help="write the figures into the bundle's card")
    return parser.parse_args()


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a bundle, and a forest unless it is left out."""
    bundle = Bundle.open(arguments.bundle)
    recipe = recipe_named(bundle.name)
    cases = (land_cover_cases if recipe.task == "land-cover" else cloud_cases)(recipe, arguments.data, arguments.scenes)
    engine, reason = choose_engine(bundle, EngineOptions(engine=arguments.engine, threads=arguments.threads))
    spec, values = bundle.input_spec, np.array(bundle.legend.values, np.uint8)

    def predict(case: Case) -> UInt8Array:
        pixels = normalised(case, spec)
        height, width = case.truth.shape
        padded = np.pad(pixels, ((0, 0), (0, -height % 32), (0, -width % 32)), mode="reflect")
        predicted: UInt8Array = values[
            engine.run(np.ascontiguousarray(padded)[None])[0].argmax(axis=0)[:height, :width]
        ]
        return predicted

    report: dict[str, Any] = {"bundle": bundle.name, "engine": reason, "weights_sha256": bundle.sha256("weights")}
    report["network"] = measure(cases, predict, recipe)
    engine.close()
    if not arguments.no_forest:
        report["forest"] = measure(cases, train_forest(recipe, arguments), recipe)
    report["notes"] = {name: NOTES[name] for name in report["network"]}
    return report


def normalised(case: Case, spec: InputSpec) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Network input (C, H, W) float32 of a case."""
    present = tuple(band in case.bands for band in spec.bands)
    held = [case.bands.index(band) for band in spec.bands if band in case.bands]
    return spec.apply(np.ascontiguousarray(case.reflectance[held]), case.valid, present)


def measure(cases: Sequence[Case], predict: Predict, recipe: BundleRecipe) -> dict[str, Any]:
    """Figures of every source."""
    tables: dict[str, list[Confusion]] = {}
    answers: dict[str, list[UInt8Array]] = {}
    for case in cases:
        predicted = predict(case)
        truth = case.truth
        if case.source == "eurosat-tiles":
            predicted, truth = majority(predicted), truth[:1, :1]
        answers.setdefault(case.source, []).append(predicted[truth != 255])
        tables.setdefault(case.source, []).append(confusion(truth, predicted, recipe.legend.values))
    names = [one.name for one in recipe.legend.classes]
    units = {case.source: case.unit for case in cases}
    return {
        source: {"unit": units[source]} | figures(source, several, answers[source], names, recipe)
        for source, several in tables.items()
    }


def figures(
    source: str, tables: list[Confusion], answers: list[UInt8Array], names: list[str], recipe: BundleRecipe
) -> dict[str, Any]:
    """Figures of one source: what can be said depends on what its truth knows."""
    total = sum(tables[1:], tables[0])
    result: dict[str, Any] = {"n": len(tables), "pixels": total.pixels}
    if source in FALSE_ALARM_SOURCES:
        called = total.counts[0] / max(total.pixels, 1)
        return result | {
            "called_cloud": round(float(called[1] + called[2]), 4),
            "called_shadow": round(float(called[3]), 4),
            "called_cloud_by_image": [round(float(t.counts[0, 1:3].sum() / max(t.pixels, 1)), 4) for t in tables],
        }
    if source == "germany-opensoil":
        shares = np.concatenate(answers)
        return result | {
            "called": {n: round(float((shares == v).mean()), 4) for n, v in zip(names, total.values, strict=True)}
        }
    if source != "oncloudn":
        result |= total.as_dict(names) | {
            "overall_accuracy_95": interval(tables, lambda table: table.overall_accuracy),
            "mean_iou_95": interval(tables, lambda table: table.mean_iou),
        }
    if recipe.task == "cloud":
        merged = [table.merged(CLOUD_GROUPS) for table in tables]
        result["cloud"] = sum(merged[1:], merged[0]).as_dict(["clear", "cloud"])["classes"]["cloud"]
        result["cloud"]["f1_95"] = interval(merged, lambda table: float(table.f1[1]))
        result["cloud"]["f1_by_image"] = [none_if_nan(float(table.f1[1])) for table in merged]
    return result


def majority(predicted: UInt8Array) -> UInt8Array:
    """The most frequent value, (1, 1) uint8."""
    return np.full((1, 1), np.bincount(predicted.ravel()).argmax(), np.uint8)


def interval(tables: Sequence[Confusion], figure: Callable[[Confusion], float]) -> list[float] | None:
    """95 % interval of a figure, from resampling whole images; None for fewer than 5."""
    if len(tables) < 5:
        return None
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(1000):
        chosen = [tables[place] for place in rng.integers(len(tables), size=len(tables))]
        drawn.append(figure(sum(chosen[1:], chosen[0])))
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return [round(float(low), 4), round(float(high), 4)]


def none_if_nan(value: float) -> float | None:
    """A value that JSON can hold."""
    return None if np.isnan(value) else round(value, 4)


def train_forest(recipe: BundleRecipe, arguments: argparse.Namespace) -> Predict:
    """Train a random forest on single pixels of the samples that the network would get."""
    from sklearn.ensemble import RandomForestClassifier

    training = arguments.data / "training"
    maker = SceneMaker(recipe.name, training / "spectra")
    pool = ScenePool(
        arguments.runs / f"pool-forest-{recipe.name}-{maker.fingerprint()}", maker, FOREST_SCENES, TRAIN_SEED
    )
    pool.fill(FOREST_SCENES)
    rng = np.random.default_rng(0)
    features, labels = [], []
    for sample in draw_batch(sources(recipe, training, pool), FOREST_SAMPLES, 64, recipe.spec, recipe.augment, rng):
        truth = values_from_targets(sample.target, recipe.legend.values).ravel()
        known = np.flatnonzero(truth != 255)
        chosen = rng.permutation(known)[:FOREST_PIXELS_PER_SAMPLE]
        features.append(sample.pixels.reshape(len(sample.pixels), -1)[:, chosen].T)
        labels.append(truth[chosen])
    forest = RandomForestClassifier(60, min_samples_leaf=3, max_depth=22, random_state=0, n_jobs=arguments.threads)
    forest.fit(np.concatenate(features), np.concatenate(labels))

    def predict(case: Case) -> UInt8Array:
        pixels = normalised(case, recipe.spec)
        predicted = forest.predict(pixels.reshape(len(pixels), -1).T)
        return np.asarray(predicted, np.uint8).reshape(case.truth.shape)

    return predict


def print_table(report: dict[str, Any]) -> None:
    """Print one line per source and model."""
    print(f"{report['bundle']} ({report['engine']})")
    for source, note in report["notes"].items():
        print(f"\n{source}: {note}")
        for model in ("network", "forest"):
            if model in report:
                print(f"  {model:8} {summary(report[model][source])}")


def summary(row: dict[str, Any]) -> str:
    """The figures of a source in one line."""
    parts = [f"n={row['n']} {row['unit']}s, {row['pixels']} px"]
    for key in ("called_cloud", "called_shadow", "called_cloud_by_image", "called"):
        if key in row and not (key == "called_cloud_by_image" and row["n"] > 6):
            parts.append(f"{key} {row[key]}")
    if "overall_accuracy" in row:
        parts.append(f"OA {row['overall_accuracy']} {row['overall_accuracy_95']}")
        parts.append(f"mIoU {row['mean_iou']} {row['mean_iou_95']}")
        parts.append(" ".join(f"{name}:{one['iou']}" for name, one in row["classes"].items() if one["pixels"]))
    if "cloud" in row:
        parts.append(f"cloud F1 {row['cloud']['f1']} {row['cloud']['f1_95']} by image {row['cloud']['f1_by_image']}")
    return "; ".join(parts)


def update_card(folder: Path, report: dict[str, Any]) -> None:
    """Write the figures into the card and the README; checksums are of other files and stay true."""
    path = folder / CARD_FILE
    card = json.loads(path.read_text(encoding="utf-8"))
    card["properties"]["mlm:hyperparameters"]["geoseg"]["metrics"] = report
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
    (folder / README_FILE).write_text(describe_in_words(Bundle.open(folder).card), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
