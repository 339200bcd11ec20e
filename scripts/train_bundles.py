"""Train one of the shipped bundles from scratch.

    python scripts/train_bundles.py landcover-lale --data ../shared/data --minutes 40 --workers 1 --out models

The data folder holds ``training/`` (see docs). The run keeps its pool of simulated chips and its checkpoint under
``runs/``; started again after a kill it goes on, and after the end it only writes the bundle again.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from left_out import SCENES, gone_without, was_trained_on, without
from precision_agreement import compare, golden_tiles, held_out_tiles
from torch import nn

from geoseg_cli.bundle import Bundle, InputSpec
from geoseg_cli.engines import EngineOptions, choose_engine
from geoseg_cli.engines.torch_engine import load_network
from geoseg_cli.errors import GeosegError, UsageError
from geoseg_cli.export import CardFields, write_bundle
from geoseg_cli.export.card import rewrite_card
from geoseg_cli.networks import create_network
from geoseg_cli.training.augment import whole_sample
from geoseg_cli.training.bundle_recipes import (
    DEVELOP_SCENES,
    DEVELOP_SEED,
    SCATTERED,
    TRAIN_SEED,
    WITHOUT_GRAPH,
    BundleRecipe,
    SceneMaker,
    data_table,
    recipe_named,
    sources,
    validation_sets,
)
from geoseg_cli.training.chips import FloatArray
from geoseg_cli.training.confidence import fit_confidence
from geoseg_cli.training.loop import Progress, Trainer, ValidationSet, score
from geoseg_cli.training.pool import ScenePool

GOLDEN_PX = 128
HELD_OUT_SCENES = 60
SHARES_OF_START = (0.0, 0.1, 0.25, 0.5, 0.75)
"""What ``--between`` tries."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="landcover-lale, cloud-lale, ...: see bundle_recipes.py")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("GEOSEG_REAL_DATA") or beside)
    parser.add_argument("--data", type=Path, default=data, help="folder that holds training/ (GEOSEG_REAL_DATA)")
    parser.add_argument("--minutes", type=float, default=40.0, help="time budget of the training itself")
    parser.add_argument("--steps", type=int, help="budget in steps instead, for runs that are compared")
    parser.add_argument("--workers", type=int, default=1, help="processes that simulate scenes")
    parser.add_argument("--threads", type=int, default=1, help="threads of the network")
    parser.add_argument("--scenes", type=int, default=2000, help="simulated scenes kept at a time")
    parser.add_argument("--first", type=int, default=200, help="simulated scenes to wait for before training")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, help="top of the curve; the recipe's if not given")
    parser.add_argument("--view-weight", type=float, help="of two views' disagreement; the recipe's if not given")
    parser.add_argument("--start", type=Path, help="folder of a bundle of the same network to start from")
    parser.add_argument("--between", action="store_true", help="also try weights between --start and the trained ones")
    parser.add_argument(
        "--bf16-within", type=float, metavar="POINTS",
        help="with --between: of weights that score at most so much mean IoU below the best, take the best that give"
        " enough of their classes in bf16",
    )  # fmt: skip
    parser.add_argument("--without", choices=SCENES, nargs="*", default=[], help="real scenes to leave out")
    parser.add_argument("--all-bands", action="store_true", help="never hide a band: for the cost of band dropout")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--validate-minutes", type=float, default=2.0)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="checkpoints and pools, not for git")
    parser.add_argument("--run-name", default=None, help="name of the run's folder; the recipe's name if not given")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder of the bundle's folder")
    parser.add_argument("--licence", default="Apache-2.0", help="SPDX identifier of the weights' licence")
    parser.add_argument("--no-bundle", action="store_true", help="train only")
    return parser.parse_args()


def main() -> int:
    """Train and write; returns the exit code."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    try:
        recipe = recipe_named(arguments.recipe)
        train_options = replace(
            recipe.train, minutes=arguments.minutes, steps=arguments.steps, seed=arguments.seed,
            precision=arguments.precision, validate_minutes=arguments.validate_minutes,
            learning_rate=arguments.learning_rate or recipe.train.learning_rate,
            view_weight=recipe.train.view_weight if arguments.view_weight is None else arguments.view_weight,
        )  # fmt: skip
        recipe = replace(recipe, train=train_options)
        if arguments.all_bands:
            recipe = replace(recipe, augment=replace(recipe.augment, set_share=0.0, drop_share=0.0))
        trainer, made = train(recipe, arguments)
        if not arguments.no_bundle:
            folder = write(recipe, trainer, made, arguments)
            print(f"wrote {folder}")
    except GeosegError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def train(recipe: BundleRecipe, arguments: argparse.Namespace) -> tuple[Trainer, int]:
    """Run or resume the training; returns the trainer and the number of different simulated scenes."""
    training = arguments.data / "training"
    run = arguments.runs / (arguments.run_name or recipe.name)
    torch.manual_seed(arguments.seed)
    network = start_network(recipe, arguments.start)
    if arguments.start is not None:
        check_unseen(arguments.start, arguments.without)
    trainer = Trainer(network, recipe.spec, recipe.train, recipe.augment, run / "checkpoint.pt")
    maker = SceneMaker(recipe.name, training, has_tiles=True)
    kept = arguments.runs / f"pool-{recipe.task}-{maker.fingerprint()}"
    pool = ScenePool(kept, maker, arguments.scenes, TRAIN_SEED, arguments.workers)
    with pool:
        start = time.monotonic()
        pool.fill(arguments.first)
        validation = validation_sets(recipe, training)
        print(f"{len(pool)} scenes, {len(validation)} validation sets, {time.monotonic() - start:.0f} s", flush=True)
        on_step = pool.pump if arguments.workers else lambda: None
        learned = without(sources(recipe, training, pool), arguments.without)
        for progress in trainer.run(learned, validation, on_step):
            print(line(progress, pool), flush=True)
        return trainer, pool.made


def line(progress: Progress, pool: ScenePool) -> str:
    """One line of the log."""
    scores = "  ".join(f"{name} {value:.4f}" for name, value in progress.scores.items())
    return (
        f"{progress.share:6.1%}  step {progress.step:6d}  loss {progress.loss:.4f}  lr {progress.learning_rate:.2e}"
        f"  mIoU {scores}  scenes {pool.made}{'  best' if progress.is_best else ''}"
    )


def write(recipe: BundleRecipe, trainer: Trainer, made: int, arguments: argparse.Namespace) -> Path:
    """Write the bundle with the best weights."""
    network, step, best_score = trainer.best()
    training = arguments.data / "training"
    validation, golden = validation_sets(recipe, training), golden_pixels(recipe, SceneMaker(recipe.name, training))
    record = training_record(recipe, trainer, made, (step, best_score), arguments.without) | earlier_run(
        arguments.start
    )
    fields = partial(card_fields, recipe, validation=validation, record=record, licence=arguments.licence)
    if arguments.between:
        if arguments.start is None:
            raise UsageError("--between needs weights to go from", "give --start")
        start = start_network(recipe, arguments.start)
        tried = {"best": network, "last": trainer.averaged}
        accepts = partial(keeps_classes_in_bf16, fields=fields, golden=golden, training=training)
        network, record["between"] = best_between(start, tried, validation, accepts, arguments.bf16_within)
    bundle = write_bundle(arguments.out / recipe.name, network, fields(network), golden)
    if recipe.name in WITHOUT_GRAPH:
        drop_graph(bundle)
    return bundle.folder


def card_fields(
    recipe: BundleRecipe, network: nn.Module, validation: Sequence[ValidationSet], record: Mapping[str, Any],
    licence: str,
) -> CardFields:  # fmt: skip
    """What the card says of a network of the recipe; its confidence is fitted here."""
    chosen_with = [sample for one in validation if one.name != SCATTERED for sample in one.samples]
    return CardFields(
        name=recipe.name,
        title=recipe.title,
        description=recipe.description,
        task=recipe.task,
        architecture=recipe.architecture,
        network=recipe.network,
        config=dict(recipe.config),
        input_spec=recipe.spec,
        legend=recipe.legend,
        licence=licence,
        gsd_m=recipe.gsd_m,
        gsd_range_m=recipe.gsd_range_m,
        tile_px=recipe.tile_px,
        overlap_px=recipe.overlap_px,
        size_multiple=recipe.size_multiple,
        training=dict(record),
        limits=recipe.limits,
        calibration=fit_confidence(network, chosen_with, "simulated scenes and EuroSAT tiles that chose the weights"),
    )


def keeps_classes_in_bf16(
    network: nn.Module, fields: Callable[[nn.Module], CardFields], golden: FloatArray, training: Path
) -> bool:
    """Whether OpenVINO gives enough of the network's classes in bf16, on golden tiles and held-out scenes."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(Path(folder) / "tried", network, fields(network), golden)
        classes = len(bundle.legend.classes)
        with closing(choose_engine(bundle, EngineOptions("openvino", "cpu", "bf16"))[0]) as engine:
            if compare(engine, golden_tiles(bundle), classes).trouble:
                return False
            return not compare(engine, held_out_tiles(bundle, training, HELD_OUT_SCENES), classes).trouble


def drop_graph(bundle: Bundle) -> None:
    """Take the ONNX graph out of a bundle, the card first."""
    graph = bundle.file("onnx")
    rewrite_card(bundle, lambda item: item["assets"].pop("onnx"))
    graph.unlink()


def golden_pixels(recipe: BundleRecipe, maker: SceneMaker) -> FloatArray:
    """Two tiles (2, C, 128, 128) float32 of scenes that were used to choose the weights, one without optional bands.

    They are those two that show most of the class of which they show least: engines are compared class by class.
    """
    scenes = [whole_sample(maker(DEVELOP_SEED + number), recipe.spec) for number in range(DEVELOP_SCENES)]
    targets = np.stack([scene.target[:GOLDEN_PX, :GOLDEN_PX] for scene in scenes])
    counts = np.stack([(targets == 1 << one).sum((1, 2)) for one in range(len(recipe.legend.classes))], 1)
    pairs = itertools.combinations(range(len(scenes)), 2)
    first, second = max(pairs, key=lambda pair: sorted((counts[pair[0]] + counts[pair[1]]).tolist()))
    whole, bare = (scenes[number].pixels[:, :GOLDEN_PX, :GOLDEN_PX] for number in (first, second))
    bare = bare.copy()
    for band in recipe.spec.optional:
        bare[recipe.spec.bands.index(band)] = 0
    bare[len(recipe.spec.bands) :] = 0
    return np.stack([whole, bare])


def training_record(
    recipe: BundleRecipe, trainer: Trainer, made: int, best: tuple[int, float], left_out: Sequence[str]
) -> dict[str, Any]:
    """What the card says about the training; the best step and its score are those of the weights."""
    step, best_score = best
    return {
        "left_out": list(left_out),
        "data": data_table(recipe, gone_without(left_out)),
        "machine": f"{torch.get_num_threads()} of {os.cpu_count()} CPU cores, shared with other work",
        "options": asdict(recipe.train),
        "augment": asdict(recipe.augment),
        "simulated_scenes": made,
        "best_step": step,
        "last_step": trainer.history[-1]["step"],
        "best_score": round(best_score, 4),
        "history": trainer.history,
    }


def start_network(recipe: BundleRecipe, start: Path | None) -> nn.Module:
    """The recipe's network with the weights of a bundle, or with random ones."""
    network = create_network(recipe.network, recipe.spec.channels, len(recipe.legend.classes), **recipe.config)
    if start is not None:
        begin_with(network, recipe.spec, Bundle.open(start))
    return network


def best_between(
    start: nn.Module, trained: Mapping[str, nn.Module], validation: Sequence[ValidationSet],
    accepts: Callable[[nn.Module], bool] = lambda _: True, within: float | None = None,
) -> tuple[nn.Module, dict[str, Any]]:  # fmt: skip
    """The best weights on the straight lines from where a training began to where it came (arXiv 2109.01903).

    Args:
        start: The network with which it began.
        trained: Networks with which it ended, by name; of the same shape.
        validation: What chooses: the mean over the sets of the mean IoU.
        accepts: Asked of weights that score at most ``within`` below the best, the best first; the first that it
            accepts are taken, and the best where it accepts none.
        within: None takes the best and asks nothing.

    Returns:
        A network, and what the card says: whose weights, the share of the start in them, and all scores.
    """
    scores: dict[str, dict[str, float]] = {}
    mixes = []
    for name, share in itertools.product(trained, SHARES_OF_START):
        network = mixed(start, trained[name], share)
        total = float(np.mean([score(network, one.samples).mean_iou for one in validation]))
        scores.setdefault(name, {})[f"{share:.2f}"] = round(total, 4)
        mixes.append((total, name, share))
    mixes.sort(key=lambda mix: -mix[0])  # of equal scores the first that was tried
    best = total, name, share = mixes[0]
    for one in mixes if within is not None else ():
        if one[0] >= best[0] - within and accepts(mixed(start, trained[one[1]], one[2])):
            total, name, share = one
            break
    told = {"trained": name, "share_of_start": share, "score": round(total, 4)}
    if (total, name, share) != best:
        told["reason"] = (
            f"scored {total:.4f} on images set apart for choosing, where the best of {len(SHARES_OF_START)} mixes"
            f" scored {best[0]:.4f}; of those at most {within:g} below it, they are the first that keep enough classes"
            " in bf16"
        )
    return mixed(start, trained[name], share), told | {"scores": scores}


def mixed(start: nn.Module, trained: nn.Module, share: float) -> nn.Module:
    """A copy of the trained network, in evaluation mode, a share of whose weights are those of the start."""
    network, first = copy.deepcopy(trained).eval(), start.state_dict()
    weights = network.state_dict()
    network.load_state_dict({
        name: torch.lerp(value, first[name], share) if value.is_floating_point() else value
        for name, value in weights.items()
    })  # fmt: skip
    return network


def begin_with(network: nn.Module, spec: InputSpec, bundle: Bundle) -> None:
    """Take over the weights of a bundle, input plane by input plane; planes that it did not have begin at 0."""
    given, own = load_network(bundle).state_dict(), network.state_dict()
    before, now = bundle.input_spec.planes, spec.planes
    kept = [now.index(plane) for plane in before]
    for name, weight in own.items():
        if weight.shape != given[name].shape:
            assert weight.shape[1] == len(now), f"{name} does not see the input"
            weight.zero_()
            weight[:, kept] = given[name]
        else:
            weight.copy_(given[name])


def check_unseen(folder: Path, left_out: Sequence[str]) -> None:
    """Refuse to leave out a scene from which the weights to start from have learned.

    Raises:
        UsageError: They have.
    """
    record = Bundle.open(folder).card.extras.training
    if seen := [name for name in left_out if was_trained_on(record, name)]:
        raise UsageError(f"{folder} has learned from {', '.join(seen)}", "start from scratch, or from another bundle")


def earlier_run(folder: Path | None) -> dict[str, Any]:
    """What the card says about the run whose weights this one started from."""
    if folder is None:
        return {}
    record = Bundle.open(folder).card.extras.training
    kept = ("best_step", "last_step", "between", "left_out", "simulated_scenes", "history", "started_from")
    budget = {"minutes": record["options"]["minutes"], "steps": record["options"].get("steps")}
    return {"started_from": budget | {k: record[k] for k in kept if k in record}}


if __name__ == "__main__":
    sys.exit(main())
