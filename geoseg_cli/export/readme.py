"""The card of a bundle in words: the README beside it says what the card says, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from geoseg_cli.bundle import ConfidenceCalibration, ModelCard

README_FILE = "README.md"
INTRODUCTION = (
    "Beside the network stands a random forest that judges each pixel alone and learned from the same data. Intervals"
    " are 95 %, from resampling whole images. Measured with `scripts/evaluate_bundles.py`."
)
COMMANDS = {"land-cover": "classify", "cloud": "cloudmask"}


def describe_in_words(card: ModelCard) -> str:
    """The README of a bundle, Markdown.

    Args:
        card: Its card.
    """
    extras, properties = card.extras, card.properties.model_extra or {}
    spec = card.input_spec
    parts = [
        f"# {card.id}",
        f"{properties['title']}. {properties['description']}",
        f"    geoseg {COMMANDS[extras.task]} --model {card.id} SCENE.tif",
        "## Input and output",
        _table(
            ("", ""),
            [
                ("network", f"{card.properties.architecture}, {card.properties.total_parameters:,} parameters"),
                ("bands it needs", ", ".join(spec.required)),
                ("bands it can use", ", ".join(spec.optional) or "-"),
                ("pixel size", f"{extras.gsd_m:g} m"),
                ("tiles", f"{extras.tile_px} px, overlap {extras.overlap_px} px"),
                ("confidence", describe_confidence(extras.calibration)),
                ("weights' licence", properties["license"]),
            ],
        ),
        _table(("value", "class", "colour"), [(str(c.value), c.title, c.color) for c in card.legend.classes]),
        "## Training",
        _training(extras.training),
        "## What was measured",
        _metrics(extras.metrics),
        "## What it is not for",
        "\n".join(f"- {limit}" for limit in extras.limits) or "Nothing is stated.",
    ]
    return "\n\n".join(parts) + "\n"


def describe_confidence(calibration: ConfidenceCalibration | None) -> str:
    """What ``--confidence`` of a bundle means, in a sentence."""
    if calibration is None:
        return "the network's own probability; nobody has compared it with the share of right pixels"
    nll, ece = calibration.nll, calibration.ece
    return (
        f"softmax of logits / {calibration.temperature:.3g}; fitted on {calibration.data} ({calibration.places} places,"
        f" {calibration.pixels:,} pixels), where the calibration error went from {ece[0]:.3f} to {ece[1]:.3f} and the"
        f" negative log-likelihood from {nll[0]:.3f} to {nll[1]:.3f}"
    )


def _beginning(record: dict[str, Any]) -> str:
    """What a training began with: other runs before it, the first one first."""
    if not (earlier := record.get("started_from")):
        return "From scratch"
    return (
        f"{_beginning(earlier)}; {earlier['minutes']:g} minutes, of which the weights of step {earlier['best_step']}"
        " were taken on"
    )


def _training(record: dict[str, Any]) -> str:
    lines = []
    if data := record.get("data"):
        lines.append(_table(("data", "share of samples", "licence"), [tuple(map(str, row)) for row in data]))
    if options := record.get("options"):
        lines.append(
            f"{_beginning(record)}; {options['minutes']:g} minutes on {record.get('machine', 'an unnamed machine')},"
            f" {record.get('simulated_scenes', 'an unknown number of')} different simulated scenes; the weights of step"
            f" {record.get('best_step')} of {record.get('last_step')} scored best on images set apart for choosing."
        )
    if words := record.get("in_words"):
        lines.append(words)
    if rounding := record.get("rounding"):
        lines.append(
            f"Weights are stored as {rounding['dtype']}; on the golden tiles"
            f" {rounding['golden_label_agreement']:.3%} of the pixels keep the class of the unrounded weights."
        )
    return "\n\n".join(lines) or "Nothing is stated."


def _metrics(report: dict[str, Any]) -> str:
    if not report:
        return "Nothing yet."
    if "network" not in report:  # a bundle of somebody else, who measured in another way
        return "\n".join(f"- {name}: {json.dumps(value)}" for name, value in report.items())
    lines = [INTRODUCTION]
    for source, note in report["notes"].items():
        rows = [
            (model, *_figures(report[model][source]))
            for model in ("network", "forest")
            if source in report.get(model, {})
        ]
        header = ("", *(name for name, _ in _named_figures(report["network"][source])))
        lines += [f"### {source}", note, _table(header, rows)]
        if classes := report["network"][source].get("classes"):
            lines.append(_per_class(classes, report.get("forest", {}).get(source, {}).get("classes", {})))
    return "\n\n".join(lines)


def _per_class(network: dict[str, Any], forest: dict[str, Any]) -> str:
    rows = [
        (name, f"{row['pixels']:,}", _number(row["iou"]), _number(row["f1"]), _number(forest.get(name, {}).get("f1")))
        for name, row in network.items()
        if row["pixels"]
    ]
    return _table(("class", "pixels", "IoU", "F1", "F1 of the forest"), rows)


def _figures(row: dict[str, Any]) -> list[str]:
    return [text for _, text in _named_figures(row)]


def _named_figures(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures that a source has, named."""
    found = [("images", f"{row['n']} ({row['unit']}s)"), ("pixels", f"{row['pixels']:,}")]
    if "overall_accuracy" in row:
        found.append(("overall accuracy", _with_interval(row["overall_accuracy"], row.get("overall_accuracy_95"))))
        found.append(("mean IoU", _with_interval(row["mean_iou"], row.get("mean_iou_95"))))
    if "cloud" in row:
        found.append(("cloud F1", _with_interval(row["cloud"]["f1"], row["cloud"].get("f1_95"))))
    if "called_cloud" in row:
        found += [("called cloud", f"{row['called_cloud']:.1%}"), ("called shadow", f"{row['called_shadow']:.1%}")]
    if "called" in row:
        found += [(f"called {name}", f"{share:.1%}") for name, share in row["called"].items()]
    return found


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    return _number(value) + (f" ({interval[0]:.2f}-{interval[1]:.2f})" if interval else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
