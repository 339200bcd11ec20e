"""The card of a bundle in words: the README beside it says what the card says, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from geoseg_cli.bundle import INT8_GRAPH, ConfidenceCalibration, GeosegExtras, ModelCard
from geoseg_cli.printable import counted

MODEL_TITLES = {
    "network": "network",
    "forest": "random forest",
    "threshold": "threshold test",
    "s2cloudless": "s2cloudless",
}
"""What stands in a report of ``scripts/evaluate_bundles.py``, in the order of the tables."""
RIVALS = {
    "forest": "a random forest that judges each pixel alone and learned from the same data",
    "threshold": "the cloud test of Braaten, Cohen and Yang (2015, Remote Sensing of Environment 169, 128-138)",
    "s2cloudless": "s2cloudless with its own settings, where a source has its bands",
}
HEADLINES = {
    "overall_accuracy": "overall accuracy",
    "mean_iou": "mean IoU",
    "mean_f1": "macro-F1",
    "agreement": "same answer",
    "cloud_f1": "cloud F1",
    "shadow_f1": "shadow F1",
    "thin_cloud_iou": "thin-cloud IoU",
    "called_cloud": "called cloud",
    "called_shadow": "called shadow",
}
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
                ("pixel size", _pixel_size(extras)),
                ("tiles", f"{extras.tile_px} px, overlap {extras.overlap_px} px"),
                ("confidence", describe_confidence(extras.calibration)),
                ("weights' licence", properties["license"]),
                *_int8(card),
            ],
        ),
        _table(("value", "class", "colour"), [(str(c.value), c.title, c.color) for c in card.legend.classes]),
        "## Training",
        _training(extras.training),
        "## What was measured",
        _metrics(extras.metrics),
        *([_confusion(card)] if extras.confusion else []),
        "## What it is not for",
        "\n".join(f"- {limit}" for limit in extras.limits) or "Nothing is stated.",
    ]
    return "\n\n".join(parts) + "\n"


def _int8(card: ModelCard) -> list[tuple[str, str]]:
    """The row about the quantised graph; none where there is no such graph."""
    asset = card.assets.get(INT8_GRAPH)
    return [] if asset is None else [("`--precision int8`", str((asset.model_extra or {}).get("description", "yes")))]


def _confusion(card: ModelCard) -> str:
    """The table that ``--accuracy card`` takes."""
    confusion = card.extras.confusion
    assert confusion is not None, "a card without a table has no words for it"
    names = [one.title for one in card.legend.classes]
    rows = [(name, *(f"{count:,}" for count in row)) for name, row in zip(names, confusion.counts, strict=True)]
    return (
        f"What its classes are in truth, which is what `--accuracy card` takes: pixels of"
        f" {counted(confusion.places, 'place')} ({confusion.data}). Rows are called, columns"
        f" true.\n\n{_table(('', *names), rows)}"
    )


def describe_confidence(calibration: ConfidenceCalibration | None) -> str:
    """What ``--confidence`` of a bundle means, in a sentence."""
    if calibration is None:
        return "the network's own probability; nobody has compared it with the share of right pixels"
    nll, ece = calibration.nll, calibration.ece
    return (
        f"softmax of logits / {calibration.temperature:.3g}; fitted on {calibration.data}"
        f" ({counted(calibration.places, 'place')}, {calibration.pixels:,} pixels),"
        f" where the calibration error went from {ece[0]:.3f} to {ece[1]:.3f} and the"
        f" negative log-likelihood from {nll[0]:.3f} to {nll[1]:.3f}"
    )


def _beginning(record: dict[str, Any]) -> str:
    """What a training began with: other runs before it, the first one first."""
    if not (earlier := record.get("started_from")):
        return "From scratch"
    return f"{_beginning(earlier)}; {_budget(earlier)}, of which {_taken(earlier).rstrip(',')} were taken on"


def _taken(record: dict[str, Any]) -> str:
    """Which weights of a training were kept."""
    between = record.get("between")
    step = record.get("last_step") if between and between["trained"] == "last" else record.get("best_step")
    weights = f"the weights of step {step}" + (f" of {record['last_step']}" if "last_step" in record else "")
    if not between or not between["share_of_start"]:
        return weights
    share = between["share_of_start"]
    return f"{weights}, mixed {1 - share:.0%} to {share:.0%} with those that it began with,"


def _budget(options: dict[str, Any]) -> str:
    """What a training was given: steps where it was given them, else time."""
    return f"{options['minutes']:g} minutes" if options.get("steps") is None else counted(options["steps"], "step")


_SCORED_BEST = "scored best on images set apart for choosing"


def _training(record: dict[str, Any]) -> str:
    lines = []
    if data := record.get("data"):
        lines.append(_table(("data", "share of samples", "licence"), [tuple(map(str, row)) for row in data]))
    if options := record.get("options"):
        lines.append(
            f"{_beginning(record)}; {_budget(options)} on {record.get('machine', 'an unnamed machine')},"
            f" {record.get('simulated_scenes', 'an unknown number of')} different simulated scenes;"
            f" {_taken(record)} {record.get('between', {}).get('reason', _SCORED_BEST)}."
        )
    if words := record.get("in_words"):
        lines.append(words)
    if rounding := record.get("rounding"):
        matrices = f", matrices and kernels as numbers of {rounding['matrices']} too" if "matrices" in rounding else ""
        lines.append(
            f"Weights are stored as {rounding['dtype']}{matrices}; on the golden tiles"
            f" {rounding['golden_label_agreement']:.3%} of the pixels keep the class of the unrounded weights."
        )
    return "\n\n".join(lines) or "Nothing is stated."


def _metrics(report: dict[str, Any]) -> str:
    if not report:
        return "Nothing yet."
    if "network" not in report:  # a bundle of somebody else, who measured in another way
        return "\n".join(f"- {name}: {json.dumps(value)}" for name, value in report.items())
    models = [model for model in MODEL_TITLES if model in report]
    lines = [_introduction(models)]
    if aims := report.get("aims"):
        lines += ["### Aims and what was reached", _aims(aims)]
    for source, note in report["notes"].items():
        rows = {model: report[model][source] for model in models if source in report[model]}
        lines += [f"### {source}", note, _side_by_side(rows)]
        if classes := _per_class(rows):
            lines.append(classes)
        if parts := rows["network"].get("by_part"):
            lines.append(_split("part", parts, rows.get("forest", {}).get("by_part", {})))
        if by_set := report.get("band_sets", {}).get(source):
            lines.append(_split("bands", _of_model(by_set, "network"), _of_model(by_set, "forest")))
    return "\n\n".join(lines)


def _introduction(models: Sequence[str]) -> str:
    """What the tables hold."""
    beside = "; ".join(RIVALS[model] for model in models if model in RIVALS)
    return (
        f"Beside the network: {beside}. " if beside else ""
    ) + "Intervals are 95 %, from resampling whole images. Measured with `scripts/evaluate_bundles.py`."


def _aims(aims: Sequence[dict[str, Any]]) -> str:
    verdicts = {True: "yes", False: "no", None: "open"}
    rows = [
        (
            aim["aim"],
            aim["wanted"],
            "not measured" if aim["measured"] is None else f"{aim['measured']:.4g}",
            aim["where"] or "-",
            verdicts[aim["met"]],
        )
        for aim in aims
    ]
    return "Of several sources the worst one counts.\n\n" + _table(("aim", "wanted", "measured", "on", "met"), rows)


def _side_by_side(rows: dict[str, dict[str, Any]]) -> str:
    """One line per model; a model that does not know a figure shows a dash."""
    named = {model: dict(_named_figures(row)) for model, row in rows.items()}
    columns = list(named["network"])
    lines = [
        (MODEL_TITLES[model], *(figures.get(column, "-") for column in columns)) for model, figures in named.items()
    ]
    return _table(("", *columns), lines)


def _per_class(rows: dict[str, dict[str, Any]]) -> str:
    """IoU and F1 of the network's classes, and the F1 of the others; empty where the truth has no classes."""
    network = {name: one for name, one in rows["network"].get("classes", {}).items() if one["pixels"]}
    others = {model: row["classes"] for model, row in rows.items() if model != "network" and "classes" in row}
    lines = [
        (
            name,
            f"{one['pixels']:,}",
            _number(one["iou"]),
            _number(one["f1"]),
            *(_number(classes.get(name, {}).get("f1")) for classes in others.values()),
        )
        for name, one in network.items()
    ]
    header = ("class", "pixels", "IoU", "F1", *(f"F1 of the {MODEL_TITLES[model]}" for model in others))
    return _table(header, lines) if lines else ""


def _split(title: str, network: dict[str, dict[str, Any]], forest: dict[str, dict[str, Any]]) -> str:
    """Figures of the network for each part of a source or each set of bands, and the main one of the forest.

    Args:
        title: What the rows are.
        network, forest: Name of the row -> figures; the forest may have none.
    """
    keys = [key for key in HEADLINES if any(key in row for row in network.values())]
    main = "cloud_f1" if "cloud_f1" in keys else keys[0]
    header = [title, "images", *(HEADLINES[key] for key in keys)]
    lines = [
        [name, str(row["n"]), *(_with_interval(row.get(key), row.get(f"{key}_95")) for key in keys)]
        for name, row in network.items()
    ]
    if forest:
        header.append(f"{HEADLINES[main]} of the random forest")
        for line in lines:
            line.append(_number(forest.get(line[0], {}).get(main)))
    return _table(tuple(header), [tuple(line) for line in lines])


def _of_model(by_set: dict[str, dict[str, Any]], model: str) -> dict[str, dict[str, Any]]:
    return {name: by_model[model] for name, by_model in by_set.items() if model in by_model}


def _named_figures(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures that a source has, named."""
    found = [("images", f"{row['n']} ({row['unit']}s)"), ("pixels", f"{row['pixels']:,}")]
    for key in ("overall_accuracy", "mean_iou", "mean_f1"):
        if key in row:
            found.append((HEADLINES[key], _with_interval(row[key], row.get(f"{key}_95"))))
    if "cloud" in row:
        found.append(("cloud F1", _with_interval(row["cloud"]["f1"], row["cloud"].get("f1_95"))))
    if "cloud_inside" in row:
        found.append(("cloud F1, over 2 px from an edge", _number(row["cloud_inside"]["f1"])))
    if "agreement" in row:
        worst = min(row["agreement_by_image"])
        found += [("same answer", f"{row['agreement']:.1%}"), (f"worst {row['unit']}", f"{worst:.1%}")]
    if "called_cloud" in row:
        worst = max(row.get("called_cloud_by_image", [row["called_cloud"]]))
        found += [("called cloud", f"{row['called_cloud']:.2%}"), (f"worst {row['unit']}", f"{worst:.1%}")]
    if "called_shadow" in row:
        found.append(("called shadow", f"{row['called_shadow']:.2%}"))
    if "called" in row:
        found += [(f"called {name}", f"{share:.1%}") for name, share in row["called"].items()]
    return found


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    return _number(value) + (f" ({interval[0]:.2f}-{interval[1]:.2f})" if interval else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _pixel_size(extras: GeosegExtras) -> str:
    if extras.gsd_range_m is None:
        return f"{extras.gsd_m:g} m"
    low, high = extras.gsd_range_m
    return f"{extras.gsd_m:g} m; {low:g} to {high:g} m are run as they are"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
