"""``geoseg evaluate BUNDLE FOLDER``: a bundle's figures on labelled images, and the temperature of its confidence."""

from __future__ import annotations

import json as json_format
import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.cli import options as o
from geoseg_cli.cli.console import Messages
from geoseg_cli.cli.request import put, read_batch
from geoseg_cli.cli.tables import text_table
from geoseg_cli.errors import AccessError, UsageError

if TYPE_CHECKING:
    from geoseg_cli.bundle import Bundle
    from geoseg_cli.calibration import Reliability
    from geoseg_cli.engines import Engine
    from geoseg_cli.evaluate import EvaluateOptions, EvaluationReport
    from geoseg_cli.job_run import Progress
    from geoseg_cli.labels import LabelledPair

_BAR = 40
_GROUPS = ("sensor", "bands", "place")


def evaluate_bundle(given: dict[str, Any]) -> None:
    """Carry out the command.

    Args:
        given: Its parameters by name.
    """
    _refuse_contradictions(given)
    # Said in our own words with the other warnings about a scene.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    _Evaluation(given).run()


class _Evaluation:
    """One call of the command."""

    def __init__(self, given: dict[str, Any]) -> None:
        from geoseg_cli.bundle import find_bundle

        self._given = given
        self._messages = Messages(given["quiet"], given["verbose"])
        self._bundle = find_bundle(given["subject"])
        if given["fit_temperature"]:
            _refuse_to_change_a_shipped_one(given["subject"], self._bundle)
        self._options = _evaluate_options(given, self._bundle)

    def run(self) -> None:
        """Fit, or evaluate and write; everything that can be refused is refused before anything is computed."""
        from geoseg_cli.labels import find_pairs
        from geoseg_cli.results.commit import OutputTransaction

        given = self._given
        pairs = find_pairs(given["truth"])
        inputs = [*self._bundle.files, *(path for pair in pairs for path in (pair.image, pair.label))]
        json_file = Path(given["json"]) if given["json"] not in (None, "-") else None
        targets = [path for path in (json_file, given["report"]) if path]
        with ExitStack() as stack:
            transaction = None
            if targets:
                transaction = stack.enter_context(OutputTransaction(targets, given["overwrite"], inputs))
            self._warn_of_training(pairs)
            engine = self._choose_engine()
            stack.callback(engine.close)
            if given["fit_temperature"]:
                self._fit(engine)
                return
            report = self._evaluate(engine)
            if transaction:
                for path in targets:
                    text = _json_text(report) if path == json_file else _page_text(report, path)
                    transaction.path(path).write_text(text, encoding="utf-8")
                transaction.commit()
        put(_json_text(report) if given["json"] == "-" else _tables(report, given["per"]))

    def _warn_of_training(self, pairs: Sequence[LabelledPair]) -> None:
        from geoseg_cli.evaluate import training_warning

        parts = ("train",) if self._given["fit_temperature"] else ("train", "develop")
        warning = training_warning(pairs, self._bundle, parts)
        if warning:
            self._messages.note(f"warning: {warning}")

    def _choose_engine(self) -> Engine:
        from geoseg_cli.engines import EngineOptions, choose_engine

        given = self._given
        options = EngineOptions(given["engine"], given["device"], given["precision"], given["threads"])
        engine, reason = choose_engine(self._bundle, options)
        self._messages.note(f"bundle {self._bundle.name}; engine {reason}")
        return engine

    def _evaluate(self, engine: Engine) -> EvaluationReport:
        from geoseg_cli.evaluate import evaluate_folder

        report = evaluate_folder(self._given["truth"], self._bundle, engine, self._options, self._progress)
        for one in report.scored:
            for warning in one.warnings:
                self._messages.note(f"{one.pair.image.name}: warning: {warning}")
        return report

    def _fit(self, engine: Engine) -> None:
        from geoseg_cli.evaluate import fit_bundle
        from geoseg_cli.export.card import store_calibration
        from geoseg_cli.export.readme import describe_confidence

        found = fit_bundle(self._given["truth"], self._bundle, engine, self._options, self._progress)
        store_calibration(self._bundle, found)
        self._messages.note(f"{self._bundle.folder}: {describe_confidence(found)}")
        self._messages.note("figures on these images now flatter the bundle's calibration: report others")
        put(f"{found.temperature:g}\n")

    def _progress(self, pair: LabelledPair) -> AbstractContextManager[Progress | None]:
        return self._messages.progress(pair.image.name)


def _refuse_to_change_a_shipped_one(subject: str, bundle: Bundle) -> None:
    """A name means the bundle that came with geoseg, which all its users share; a folder is its owner's.

    Raises:
        AccessError: The bundle came with geoseg, and was named.
    """
    from geoseg_cli.shipped import bundle_folders

    if bundle.folder.resolve() in {one.resolve() for one in bundle_folders()} and not os.path.isdir(subject):
        raise AccessError(
            f"--fit-temperature would change bundle {bundle.name}, which came with geoseg",
            f"copy it first, and give the copy: cp -r {bundle.folder} my-{bundle.name}",
        )


def _refuse_contradictions(given: dict[str, Any]) -> None:
    for name in ("drop_bands", "bands_only", "bands", "ignore", "json"):
        if given[name] is not None and not given[name].strip():
            raise UsageError(f"--{name.replace('_', '-')} is empty", "give a value, or leave the option out")
    if given["drop_bands"] and given["bands_only"]:
        raise UsageError("--drop-bands and --bands-only exclude each other", "give one of them")
    if given["fit_temperature"]:
        told = [name for name in ("json", "report", "per") if given[name]]
        if told:
            raise UsageError(
                f"--fit-temperature reports nothing, so --{told[0]} has no meaning",
                "fit on one folder, then evaluate on another",
            )
    page = given["report"]
    if page and page.suffix.lower() not in (".svg", ".html"):
        raise UsageError(f"--report {page} is neither .svg nor .html", "give the file one of these endings")


def _evaluate_options(given: dict[str, Any], bundle: Bundle) -> EvaluateOptions:
    """The options of the library that say the same."""
    from geoseg_cli.evaluate import EvaluateOptions, bands_left_out
    from geoseg_cli.job import PredictOptions

    drop = tuple(_names(given["drop_bands"]))
    if given["bands_only"]:
        drop = bands_left_out(bundle.input_spec, _names(given["bands_only"]))
    return EvaluateOptions(
        PredictOptions(
            tile_px=given["tile"],
            overlap_px=given["overlap"],
            blend=given["blend"],
            batch=read_batch(given["batch"]),
            scene=o.scene_options(given, drop),
        ),
        ignore=_values(given["ignore"]),
    )


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",")] if text else []


def _values(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _names(text))
    except ValueError as error:
        raise UsageError(f"--ignore {text!r} are not whole numbers", "for example --ignore 0,99") from error


def _json_text(report: EvaluationReport) -> str:
    return json_format.dumps(report.to_json(), indent=2, allow_nan=False) + "\n"


def _page_text(report: EvaluationReport, path: Path) -> str:
    from geoseg_cli.evaluation_page import reliability_svg, report_html

    if path.suffix.lower() == ".html":
        return report_html(report)
    return reliability_svg(report.total().scores.reliability, f"{report.bundle} on {report.folder}")


def _tables(report: EvaluationReport, per: str | None) -> str:
    """All tables, as text."""
    from geoseg_cli.evaluate import interval_note
    from geoseg_cli.evaluation_page import class_header, class_rows, confusion_rows, group_header, group_row

    total, names = report.total(), [one.title for one in report.legend.classes]
    rows = [group_row("all", total)]
    for key in _GROUPS:
        groups = report.by(key)
        if key == per or (key != "place" and len(groups) > 1):
            rows += [group_row(name, group) for name, group in groups.items()]
    engine, temperature = report.engine, report.settings["temperature"]
    parts = [
        f"{report.bundle} on {report.folder}: {engine['name']} on {engine['device']}, temperature {temperature:g}",
        text_table(group_header(), rows),
        f"{interval_note(total)}.",
        text_table(class_header(), class_rows(total, names)),
        "Confusion: rows are true, columns predicted",
        text_table(("", *names), confusion_rows(total, names)),
        _reliability_table(total.scores.reliability),
    ]
    if total.scores.unanswered:
        parts.insert(3, f"{total.scores.unanswered:,} labelled pixels got no answer: the scene has no value there.")
    return "\n\n".join(parts) + "\n"


def _reliability_table(sure: Reliability) -> str:
    from geoseg_cli.evaluation_page import bin_rows

    header = ("confidence", "pixels", "mean", "accuracy", "# accuracy, | mean confidence".ljust(_BAR + 1))
    rows = [
        (name, f"{pixels:,}", f"{confidence:.3f}", f"{accuracy:.3f}", _bar(accuracy, confidence))
        for name, pixels, confidence, accuracy in bin_rows(sure)
    ]
    title = f"Confidence: calibration error {sure.expected_error:.3f}, negative log-likelihood {sure.mean_nll:.3f}"
    return f"{title}\n\n" + text_table(header, rows)


def _bar(accuracy: float, confidence: float) -> str:
    cells = ["#" if cell < round(accuracy * _BAR) else " " for cell in range(_BAR + 1)]
    cells[round(confidence * _BAR)] = "|"
    return "".join(cells)
