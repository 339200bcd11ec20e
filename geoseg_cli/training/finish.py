"""A trained network becomes a bundle: golden tiles, card and learning curves."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError

from geoseg_cli.bundle import Bundle
from geoseg_cli.errors import ModelError, StorageError
from geoseg_cli.export import CardFields, write_bundle
from geoseg_cli.printable import counted
from geoseg_cli.results.storage import storage_trouble
from geoseg_cli.training.augment import Sample
from geoseg_cli.training.chips import FloatArray
from geoseg_cli.training.confidence import fit_confidence
from geoseg_cli.training.curves import draw_curves
from geoseg_cli.training.loop import Trainer
from geoseg_cli.training.plan import Plan, WholeSamples
from geoseg_cli.training.ranks import Ranks
from geoseg_cli.training.split import Part

CURVES_FILE: Final = "curves.svg"
SIZE_MULTIPLE: Final = 32
_GOLDEN_PX: Final = 128
_PAPERS: Final = {
    "lale": "LALE (arXiv 2606.02092)",
    "mscloudcam": "MSCloudCAM (arXiv 2510.10802)",
    "chromaformer": "ChromaFormer (arXiv 2503.08534)",
    "lemevit": "LeMeViT (arXiv 2405.09789)",
}
_PARTS: Final[tuple[Part, ...]] = ("train", "develop", "test")


def finish(plan: Plan, trainer: Trainer, ranks: Ranks, out: Path) -> Bundle:
    """Write the bundle of a run that is over.

    Args:
        plan: What was done.
        trainer: Its weights and history.
        ranks: The processes that did it.
        out: Folder of the bundle.

    Raises:
        ModelError: The training diverged, or the exported graph does not answer as the network does.
        StorageError: The bundle cannot be written, such as on a full disk; the run is kept.
    """
    network, step, best_score = trainer.best()
    if not math.isfinite(best_score):
        raise ModelError(
            f"no validation of {len(trainer.history)} gave a score: the training diverged",
            "lower train.learning_rate, or look at the labels of the develop part",
        )
    table = plan.preview.config.bundle
    fields = CardFields(
        name=table.name,
        title=table.title or table.name,
        description=table.description or f"Trained on own data with `geoseg train`, {counted(len(plan.rows), 'chip')}.",
        task=table.task,
        architecture=f"{_PAPERS[plan.preview.network.split('-')[0]]}, variant {plan.preview.network}",
        network=plan.preview.network,
        config=plan.preview.network_config,
        input_spec=plan.spec,
        legend=plan.preview.legend,
        licence=table.licence,
        gsd_m=table.gsd_m,
        tile_px=table.tile_px,
        overlap_px=table.overlap_px,
        size_multiple=SIZE_MULTIPLE,
        training=training_record(plan, trainer, ranks, step, best_score),
        limits=table.limits,
        calibration=fit_confidence(
            network.to("cpu"), chain.from_iterable(one.samples for one in plan.validation()), "the develop part"
        ),
    )
    with _naming(out):
        bundle = write_bundle(out, network, fields, golden_pixels(plan))
    with _naming(out / CURVES_FILE):
        (out / CURVES_FILE).write_text(draw_curves(trainer.history, step), encoding="utf-8")
    return bundle


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Name what could not be written, and say that the training is not lost."""
    try:
        with storage_trouble(target):
            try:
                yield
            except SafetensorError as error:  # a full disk comes as this, and not as an error of the system
                raise OSError(str(error)) from error
    except StorageError as error:
        hint = f"{error.hint}; then give the same command with --resume: it trains no further step"
        raise StorageError(error.message, hint) from error


def golden_pixels(plan: Plan) -> FloatArray:
    """Two tiles (2, C, 128, 128) float32 of chips that chose the weights, the second without optional bands."""
    chips = plan.chips("develop")
    samples = WholeSamples([chips[0], chips[len(chips) // 2]], plan.spec)
    whole, bare = (_tile(sample) for sample in samples)
    for band in plan.spec.optional:
        bare[plan.spec.bands.index(band)] = 0
    bare[len(plan.spec.bands) :] = 0
    return np.stack([whole, bare])


def _tile(sample: Sample) -> FloatArray:
    """The upper left of a sample, mirrored where it is too small."""
    pixels = sample.pixels[:, :_GOLDEN_PX, :_GOLDEN_PX]
    missing = [(0, 0), *((0, _GOLDEN_PX - length) for length in pixels.shape[1:])]
    return np.pad(pixels, missing, mode="symmetric")


def training_record(plan: Plan, trainer: Trainer, ranks: Ranks, step: int, best_score: float) -> dict[str, Any]:
    """What the card says about the training; the places of the test part are named, and were not read."""
    preview, last = plan.preview, trainer.history[-1]["step"]
    names = [one.name for one in preview.legend.classes]
    return {
        "in_words": _in_words(plan, ranks, step, last),
        "data": _data_table(plan),
        "split": {part: preview.places(part) for part in _PARTS},
        "class_pixels": {part: dict(zip(names, plan.pixels(part), strict=True)) for part in _PARTS[:2]},
        "notes": list(plan.notes),
        "machine": machine(ranks),
        "config": preview.config.model_dump(mode="json", exclude={"data", "bundle", "start"}, exclude_none=True),
        "resolved": {"train": asdict(plan.options), "augment": asdict(plan.augment)},
        "best_step": step,
        "last_step": last,
        "best_score": round(best_score, 4),
        # JSON has no number for a loss that was not finite.
        "history": [row | {"loss": row["loss"] if math.isfinite(row["loss"]) else None} for row in trainer.history],
    }


def machine(ranks: Ranks) -> str:
    """What computed, for people."""
    if ranks.device == "cpu":
        each = f"{torch.get_num_threads()} of {os.cpu_count()} CPU cores"
    else:
        each = torch.cuda.get_device_name(ranks.device)
    return each if ranks.size == 1 else f"{ranks.size} processes, each on {each}"


def _in_words(plan: Plan, ranks: Ranks, step: int, last: int) -> str:
    start = plan.preview.start
    places = ", ".join(f"{len(plan.preview.places(part))} {part}" for part in _PARTS)
    split = f" Places: {places}; those of the test were not read." if plan.preview.parts else ""
    return (
        f"{'From scratch' if start is None else f'From the weights of {start.name}'}; {last} steps on {machine(ranks)};"
        f" the weights of step {step} scored best on chips of the develop part, set apart for choosing.{split}"
    )


def _data_table(plan: Plan) -> list[list[str]]:
    """Rows of description, share of the samples and licence."""
    data = plan.preview.config.data
    tables = [*data.pairs, *data.vectors, *([data.simulator] if data.simulator else [])]
    kinds = ["pairs of images and labels"] * len(data.pairs) + ["points and polygons on scenes"] * len(data.vectors)
    kinds += ["scenes simulated from measured spectra"] * (len(tables) - len(kinds))
    total = sum(table.share for table in tables)
    return [
        [table.title or kind, f"{table.share / total:.0%}", table.licence or "not stated"]
        for table, kind in zip(tables, kinds, strict=True)
    ]
