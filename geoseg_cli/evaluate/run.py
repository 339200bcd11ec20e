"""A bundle runs over labelled images, and its answers are counted or a temperature is fitted to them.

Scenes run through the same tiles, blending and reading as ``classify``; labels are read beside the finished rows, so
memory is that of a map with probabilities. Axes: K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg_cli.bundle import Bundle, ConfidenceCalibration, InputSpec
from geoseg_cli.calibration import LEAST_PROBABILITY, calibrate, reliability
from geoseg_cli.catalog import Legend
from geoseg_cli.engines import Engine, asset_of
from geoseg_cli.errors import BandError, InputError
from geoseg_cli.evaluate.intervals import SEED
from geoseg_cli.evaluate.report import UNKNOWN_SENSOR, EvaluationReport, PairScores
from geoseg_cli.evaluate.scores import Scores, total_scores
from geoseg_cli.grid import Window
from geoseg_cli.job import Job, PredictOptions, open_job
from geoseg_cli.job_run import JobRun, Progress
from geoseg_cli.labels import LabelFile, LabelledPair, find_pairs
from geoseg_cli.metrics import confusion
from geoseg_cli.rows import LabelArray, Rows
from geoseg_cli.scenes import block_cache
from geoseg_cli.scenes.bands import fitting_sensors

FIT_PIXELS = 20_000
"""Labelled pixels of an image that a temperature is fitted on, drawn evenly, so that no image outweighs the others."""

_ROWS_AT_ONCE = 64

ProgressOf = Callable[[LabelledPair], AbstractContextManager[Progress | None]]
"""Shows the progress of a pair while it runs."""


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How a folder is evaluated.

    Attributes:
        predict: How scenes are predicted; outputs and bounds are not used.
        ignore: Label values that mean that nothing is known, beside 255 and the file's nodata.
    """

    predict: PredictOptions = field(default_factory=PredictOptions)
    ignore: tuple[int, ...] = ()


def evaluate_folder(
    folder: Path,
    bundle: Bundle,
    engine: Engine,
    options: EvaluateOptions | None = None,
    progress_of: ProgressOf | None = None,
) -> EvaluationReport:
    """Run a bundle over labelled images and compare.

    Args:
        folder: Images and labels; see :func:`geoseg_cli.labels.find_pairs`.
        bundle: The model.
        engine: What runs it; made from the same bundle.
        options: How; defaults when None.
        progress_of: Shows the progress of each pair.

    Raises:
        GeosegError: A pair cannot be used; told before anything is computed. Nothing is labelled.
    """
    options = options or EvaluateOptions()
    pairs = find_pairs(folder)
    count_labels(pairs, bundle, options)
    scored = tuple(score_pair(pair, bundle, engine, options, progress_of) for pair in pairs)
    return EvaluationReport(
        bundle=bundle.name,
        weights_sha256=bundle.sha256(asset_of(engine.name, engine.precision)),
        engine={"name": engine.name, "device": engine.device, "precision": engine.precision},
        folder=folder.resolve().name,
        legend=bundle.legend,
        settings=_settings(bundle, options),
        scored=scored,
    )


def count_labels(pairs: Sequence[LabelledPair], bundle: Bundle, options: EvaluateOptions) -> list[int]:
    """Open every pair and read its labels once: labelled pixels of each; nothing is computed.

    Raises:
        GeosegError: A scene or a label cannot be used, or no pixel of any is labelled.
    """
    counts = []
    for pair in pairs:
        with _open_pair(pair, bundle, options) as (_, labels):
            counts.append(labels.labelled_pixels())
    if not any(counts):
        raise InputError(
            f"no pixel of the {len(pairs)} labels below {pairs[0].label.parent} has a class",
            f"give labels with some of the values {', '.join(map(str, bundle.legend.values))}",
        )
    return counts


def score_pair(
    pair: LabelledPair,
    bundle: Bundle,
    engine: Engine,
    options: EvaluateOptions,
    progress_of: ProgressOf | None = None,
) -> PairScores:
    """Predict one image and count; memory is that of a strip of tiles, whatever the image's height."""
    scores = Scores.empty(bundle.legend)
    with _open_pair(pair, bundle, options) as (job, labels):
        run = JobRun(job, engine, ["confidence", "probabilities"])
        with (
            block_cache(run.memory.cache_bytes),
            (progress_of or _silence)(pair) as progress,
            run.rows(progress) as finished,
        ):
            for rows in finished:
                scores = total_scores((scores, *_score(rows, labels, bundle.legend)))
        job.scene.refuse_change()
        scene = job.scene
        return PairScores(pair, _sensor(scene.bands.file_names), scene.bands.held_names, scores, job.warnings)


def fit_bundle(
    folder: Path,
    bundle: Bundle,
    engine: Engine,
    options: EvaluateOptions | None = None,
    progress_of: ProgressOf | None = None,
) -> ConfidenceCalibration:
    """Fit the temperature of a bundle to labelled images; the bundle is left as it is.

    Each labelled pixel counts once, with the logits of the tile in whose core it lies, before any temperature.

    Args:
        folder: Images and labels that had no part in training and whose figures will not be reported.
        bundle, engine, options, progress_of: As for :func:`evaluate_folder`.

    Raises:
        GeosegError: A pair cannot be used, or no temperature fits best.
    """
    options = options or EvaluateOptions()
    # Blended probabilities have no temperature of their own; `trim` keeps each pixel the answer of one tile.
    options = replace(options, predict=replace(options.predict, blend="trim"))
    pairs = find_pairs(folder)
    counts = count_labels(pairs, bundle, options)
    parts = [
        _sample_logits(pair, bundle, engine, options, min(1.0, FIT_PIXELS / count), progress_of)
        for pair, count in zip(pairs, counts, strict=True)
        if count
    ]
    logits = np.concatenate([part for part, _ in parts], axis=1).T
    targets = np.concatenate([part for _, part in parts])
    return calibrate(logits, targets, folder.resolve().name, len({pair.place for pair in pairs}))


def training_warning(
    pairs: Sequence[LabelledPair], bundle: Bundle, parts: Sequence[str] = ("train", "develop")
) -> str | None:
    """What is wrong with figures on places that the card says the bundle has seen; None where it names none of them.

    Args:
        pairs: Images whose places are compared by name with ``training.split`` of the card.
        bundle: The model.
        parts: Parts of the split that count: ``train`` taught the network, ``develop`` chose its weights.
    """
    split = bundle.card.extras.training.get("split")
    if not isinstance(split, dict):
        return None
    places = {pair.place for pair in pairs}
    seen = {part: len(places.intersection(split.get(part) or ())) for part in parts}
    said = {"train": "were trained on", "develop": "chose the weights"}
    named = " and ".join(f"{count} {said[part]}" for part, count in seen.items() if count)
    return f"of {len(places)} places, the card says, {named}: figures on these flatter the bundle" if named else None


def bands_left_out(spec: InputSpec, only: Sequence[str]) -> tuple[str, ...]:
    """Bands of a network that are not among ``only``.

    Raises:
        BandError: ``only`` lacks a band that the network needs, or names one that it does not know.
    """
    unknown = [name for name in only if name not in spec.bands]
    missing = [name for name in spec.required if name not in only]
    if unknown or missing:
        trouble = f"the model has no band {', '.join(unknown)}" if unknown else f"the model needs {', '.join(missing)}"
        raise BandError(f"--bands-only: {trouble}", f"its bands are {', '.join(spec.bands)}")
    return tuple(name for name in spec.bands if name not in only)


@contextmanager
def _open_pair(pair: LabelledPair, bundle: Bundle, options: EvaluateOptions) -> Iterator[tuple[Job, LabelFile]]:
    with (
        open_job(pair.image, bundle, options.predict) as job,
        LabelFile(pair.label, job.scene.grid, bundle.legend.values, options.ignore) as labels,
    ):
        yield job, labels


def _score(rows: Rows, labels: LabelFile, legend: Legend) -> Iterator[Scores]:
    """Counts of finished rows, a few rows at a time."""
    assert rows.confidence is not None
    assert rows.probabilities is not None
    for start in range(0, rows.labels.shape[0], _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        truth = _truth(rows, labels, part)
        known = truth != labels.unknown
        judged = known & rows.valid[part]
        true, predicted = truth[judged], rows.labels[part][judged]
        sure = reliability(
            rows.confidence[part][judged],
            true == predicted,
            _of_true_class(rows.probabilities[:, part][:, judged], true, legend),
        )
        table = confusion(true, predicted, legend.values, labels.unknown)
        yield Scores(table, sure, int(np.count_nonzero(known) - np.count_nonzero(judged)))


def _truth(rows: Rows, labels: LabelFile, part: slice) -> LabelArray:
    height, width = rows.labels[part].shape
    return labels.read(Window(rows.row + part.start, 0, height, width))


def _of_true_class(probabilities: npt.NDArray[np.float32], true: LabelArray, legend: Legend) -> npt.NDArray[np.float32]:
    """(N,) probability of the true class out of (K, N)."""
    found: npt.NDArray[np.float32] = np.take_along_axis(probabilities, _numbers(true, legend)[None], axis=0)[0]
    return found


def _numbers(values: LabelArray, legend: Legend) -> npt.NDArray[np.intp]:
    """Number of the network's output for each class value."""
    table = np.zeros(legend.value_count, np.intp)
    table[list(legend.values)] = np.arange(len(legend.values))
    numbers: npt.NDArray[np.intp] = table[values]
    return numbers


def _sample_logits(
    pair: LabelledPair,
    bundle: Bundle,
    engine: Engine,
    options: EvaluateOptions,
    share: float,
    progress_of: ProgressOf | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp]]:
    """(K, N) logits, up to a constant per pixel, and (N,) true outputs of a share of the labelled pixels."""
    rng = np.random.default_rng(SEED)
    drawn, targets = [], []
    with _open_pair(pair, bundle, options) as (job, labels):
        run = JobRun(job, engine, ["probabilities"], temperature=1.0)
        with (
            block_cache(run.memory.cache_bytes),
            (progress_of or _silence)(pair) as progress,
            run.rows(progress) as finished,
        ):
            for rows in finished:
                assert rows.probabilities is not None
                truth = _truth(rows, labels, slice(0, rows.labels.shape[0]))
                chosen = (truth != labels.unknown) & rows.valid & (rng.random(truth.shape) < share)
                drawn.append(np.log(np.maximum(rows.probabilities[:, chosen], np.float32(LEAST_PROBABILITY))))
                targets.append(_numbers(truth[chosen], bundle.legend))
        job.scene.refuse_change()
    return np.concatenate(drawn, axis=1), np.concatenate(targets)


def _silence(pair: LabelledPair) -> AbstractContextManager[Progress | None]:
    return nullcontext()


def _sensor(file_names: Sequence[str]) -> str:
    titles = [sensor.title for sensor in fitting_sensors(file_names)]
    says_nothing = len(titles) in (0, len(fitting_sensors(())))
    return UNKNOWN_SENSOR if says_nothing else " or ".join(titles)


def _settings(bundle: Bundle, options: EvaluateOptions) -> dict[str, Any]:
    extras, predict = bundle.card.extras, options.predict
    tile = predict.tile_px or extras.tile_px
    return {
        "tile_px": tile,
        "overlap_px": min(extras.overlap_px, tile // 2) if predict.overlap_px is None else predict.overlap_px,
        "blend": predict.blend,
        "radiometry": predict.scene.radiometry,
        "dropped_bands": list(predict.scene.drop),
        "ignored_values": list(options.ignore),
        "temperature": extras.temperature,
    }
