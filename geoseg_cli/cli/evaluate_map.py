"""``geoseg evaluate MAP REFERENCE``: a finished class map against a raster, points or polygons."""

from __future__ import annotations

import json as json_format
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.cli.console import Messages
from geoseg_cli.cli.request import put
from geoseg_cli.cli.tables import text_table
from geoseg_cli.errors import UsageError
from geoseg_cli.printable import counted, printable

if TYPE_CHECKING:
    from geoseg_cli.evaluate import CompareOptions, MapReport

_MOST_DRAWN = 64
"""Classes of a picture; with more it is too large to look at."""

_TOTALS = {
    "overall_accuracy": "accuracy",
    "kappa": "kappa",
    "mean_iou": "mean IoU",
    "mean_f1": "mean F1",
    "mean_precision": "mean precision",
    "mean_recall": "mean recall",
    "mean_boundary_f1": "mean boundary F1",
}
_BY_CLASS = {"iou": "IoU", "f1": "F1", "precision": "precision", "recall": "recall", "boundary_f1": "boundary F1"}


def evaluate_map(given: dict[str, Any]) -> None:
    """Carry out the command.

    Args:
        given: Its parameters by name.
    """
    from geoseg_cli.evaluate import compare_map
    from geoseg_cli.results.commit import OutputTransaction

    options, messages = _compare_options(given), Messages(given["quiet"], given["verbose"])
    json_file = Path(given["json"]) if given["json"] not in (None, "-") else None
    targets = [path for path in (json_file, given["csv"], given["png"]) if path]
    map_path, reference_path = Path(given["subject"]), given["truth"]
    with ExitStack() as stack:
        transaction = None
        if targets:
            inputs = [map_path, reference_path]
            transaction = stack.enter_context(OutputTransaction(targets, given["overwrite"], inputs))
        report = compare_map(map_path, reference_path, options)
        for note in report.notes:
            messages.note(f"{reference_path.name}: {note}")
        if transaction:
            for path, content in ((json_file, _json_text), (given["csv"], _csv_text), (given["png"], _png)):
                if path:
                    transaction.path(path).write_bytes(content(report))
            transaction.commit()
    put(_json_text(report).decode() if given["json"] == "-" else _tables(report))


def _compare_options(given: dict[str, Any]) -> CompareOptions:
    """The options of the library that say the same."""
    from geoseg_cli.evaluate import CompareOptions, ReferenceOptions, read_mapping

    for name, option in (
        ("legend", "legend"),
        ("mapping", "map"),
        ("attribute", "attribute"),
        ("ignore", "ignore"),
        ("json", "json"),
    ):
        if given[name] is not None and not given[name].strip():
            raise UsageError(f"--{option} is empty", "give a value, or leave the option out")
    ignored = frozenset(part.strip() for part in (given["ignore"] or "").split(",") if part.strip())
    return CompareOptions(
        legend=given["legend"],
        reference=ReferenceOptions(
            mapping=read_mapping(given["mapping"]) if given["mapping"] else None,
            ignored=ignored,
            attribute=given["attribute"],
        ),
        ignore_unknown=given["ignore_unknown"],
        tolerance_px=given["tolerance"],
        block_px=given["block"],
    )


def _json_text(report: MapReport) -> bytes:
    return (json_format.dumps(report.to_json(), indent=2, allow_nan=False) + "\n").encode()


def _csv_text(report: MapReport) -> bytes:
    return report.matrix_csv().encode()


def _png(report: MapReport) -> bytes:
    import numpy as np

    from geoseg_cli.matrix_picture import matrix_png

    table = report.confusion
    there = [k for k in range(len(table.values)) if table.truth[k] or table.predicted[k]]
    if len(there) > _MOST_DRAWN:
        raise UsageError(f"--png draws at most {_MOST_DRAWN} classes, {len(there)} occur", "take --csv")
    titles = [report.legend.classes[k].title for k in there]
    return matrix_png(table.counts[np.ix_(there, there)], titles, f"{report.map} against {report.reference}")


def _tables(report: MapReport) -> str:
    """All tables, as text."""
    from geoseg_cli.evaluation_page import with_interval

    figures, sure = report.figures, report.intervals
    totals = [(title, with_interval(figures[name], sure, name)) for name, title in _TOTALS.items() if name in figures]
    titles = [printable(one.title) for one in report.legend.classes]
    parts = [
        printable(f"{report.map} against {report.reference}: {counted(report.confusion.pixels, 'pixel')} compared"),
        _not_compared(report),
        text_table(("", "figure"), totals),
        f"{report.interval_note}.",
        _class_table(report, titles),
        "Confusion: rows are true, columns predicted",
        text_table(("", *titles), _matrix_rows(report, titles)),
    ]
    if report.tolerance_px is not None:
        parts.insert(5, f"Boundary F1: boundary pixels at most {report.tolerance_px} px apart.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _not_compared(report: MapReport) -> str:
    without = f"{counted(report.unanswered, 'pixel')} of the reference without a class in the map"
    lines = [f"Not compared: {without}, {report.untold:,} of the map without one in the reference."]
    for kind, found in report.left_out.items():
        values = ", ".join(f"{value} ({count:,})" for value, count in found.items())
        lines.append(printable(f"Left out, {kind}: {values}"))
    return "\n".join(lines)


def _class_table(report: MapReport, titles: list[str]) -> str:
    from geoseg_cli.evaluation_page import with_interval

    table, figures = report.confusion, report.figures
    shown = {name: title for name, title in _BY_CLASS.items() if f"{name} 0" in figures}
    rows = [
        (
            title,
            f"{table.truth[k]:,}",
            f"{table.predicted[k]:,}",
            *(with_interval(figures[f"{name} {k}"], report.intervals, f"{name} {k}") for name in shown),
        )
        for k, title in enumerate(titles)
        if table.truth[k] or table.predicted[k]
    ]
    return text_table(("class", "pixels", "called", *shown.values()), rows)


def _matrix_rows(report: MapReport, titles: list[str]) -> list[tuple[str, ...]]:
    counts = report.confusion.counts
    return [(title, *(f"{count:,}" for count in row)) for title, row in zip(titles, counts, strict=True)]
