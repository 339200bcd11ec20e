"""An evaluation as a picture and as a page: SVG and HTML written by hand, without a script or a foreign file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from geoseg_cli.calibration import BINS, Reliability
from geoseg_cli.evaluate import EvaluationReport, Group, interval_note

_SIDE, _LEFT, _TOP, _SHARE_HEIGHT = 300, 56, 40, 70
_WIDTH, _HEIGHT = _LEFT + _SIDE + 20, _TOP + _SIDE + 30 + _SHARE_HEIGHT + 50
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}"
)


def reliability_svg(sure: Reliability, title: str) -> str:
    """The reliability diagram: accuracy per bin of confidence, the diagonal, and below it the share of pixels.

    Args:
        sure: The counts.
        title: What is written above, such as the bundle's and the folder's name.

    Returns:
        A whole SVG document; a dot stands at the mean confidence and the accuracy of each bin that has pixels.
    """
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 16, title, size=13),
        _text(_LEFT, 32, _headline(sure)),
        *_frame(_TOP, _SIDE, "accuracy", "1"),
        *_bars(sure),
        f'<path d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}" stroke="#888" stroke-dasharray="4 3" fill="none"/>',
        *_dots(sure),
        *_frame(_share_top(), _SHARE_HEIGHT, "pixels", "100 %"),
        *_shares(sure),
        *(_text(_x(tick), _share_top() + _SHARE_HEIGHT + 15, f"{tick:g}", "middle") for tick in (0, 0.5, 1)),
        _text(_x(0.5), _share_top() + _SHARE_HEIGHT + 32, "confidence", "middle"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def report_html(report: EvaluationReport) -> str:
    """The evaluation as one HTML page with all tables and the reliability diagram."""
    total, title = report.total(), f"{report.bundle} on {report.folder}"
    names = [one.title for one in report.legend.classes]
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(_facts(report, total))}</p>",
        "<h2>Figures</h2>",
        _table(group_header(), [group_row("all", total)]),
        *(
            f"<h2>By {key}</h2>\n" + _table(group_header(), [group_row(n, g) for n, g in report.by(key).items()])
            for key in ("sensor", "bands", "place")
        ),
        "<h2>Classes</h2>",
        _table(class_header(), class_rows(total, names)),
        "<h2>Confusion: rows are true, columns predicted</h2>",
        _table(("", *names), confusion_rows(total, names)),
        "<h2>Confidence</h2>",
        reliability_svg(total.scores.reliability, title),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def group_header() -> tuple[str, ...]:
    """Column titles of :func:`group_row`."""
    return ("", "images", "places", "pixels", "accuracy", "mean IoU", "mean F1", "ECE", "confidence")


def group_row(name: str, group: Group) -> tuple[str, ...]:
    """The figures of a group as a row of a table, 95 % intervals in brackets."""
    table, sure = group.scores.confusion, group.scores.reliability
    return (
        name,
        str(group.images),
        str(group.places),
        f"{table.pixels:,}",
        with_interval(table.overall_accuracy, group.intervals, "overall_accuracy"),
        with_interval(table.mean_iou, group.intervals, "mean_iou"),
        with_interval(table.mean_f1, group.intervals, "mean_f1"),
        with_interval(sure.expected_error, group.intervals, "ece"),
        number_text(sure.mean_confidence),
    )


def class_header() -> tuple[str, ...]:
    """Column titles of :func:`class_rows`."""
    return ("class", "pixels", "called", "IoU", "F1", "precision", "recall")


def class_rows(group: Group, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The figures of each class as rows of a table; classes that neither occur nor are called are left out."""
    table = group.scores.confusion
    return [
        (
            name,
            f"{table.truth[k]:,}",
            f"{table.predicted[k]:,}",
            with_interval(float(table.iou[k]), group.intervals, f"iou {k}"),
            with_interval(float(table.f1[k]), group.intervals, f"f1 {k}"),
            number_text(float(table.precision[k])),
            number_text(float(table.recall[k])),
        )
        for k, name in enumerate(names)
        if table.truth[k] or table.predicted[k]
    ]


def confusion_rows(group: Group, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The confusion matrix as rows of a table: true classes, then how many pixels were called each class."""
    counts = group.scores.confusion.counts
    return [(name, *(f"{count:,}" for count in row)) for name, row in zip(names, counts, strict=True)]


def bin_rows(sure: Reliability) -> list[tuple[str, int, float, float]]:
    """Bins that have pixels: range of confidence, pixels, mean confidence, accuracy."""
    return [
        (
            f"{b / BINS:.2f}-{(b + 1) / BINS:.2f}",
            int(sure.counts[b]),
            float(sure.confidence[b] / sure.counts[b]),
            float(sure.hits[b] / sure.counts[b]),
        )
        for b in range(BINS)
        if sure.counts[b]
    ]


def _facts(report: EvaluationReport, total: Group) -> str:
    engine, settings = report.engine, report.settings
    facts = [
        f"{engine['name']} on {engine['device']} in {engine['precision']}",
        f"tiles of {settings['tile_px']} px, overlap {settings['overlap_px']} px, {settings['blend']} blend",
        f"temperature {settings['temperature']:g}",
    ]
    if settings["dropped_bands"]:
        facts.append(f"without {', '.join(settings['dropped_bands'])}")
    return f"{'; '.join(facts)}. {interval_note(total)}."


def with_interval(value: float, intervals: Mapping[str, tuple[float, float]], figure: str) -> str:
    """A figure for a table, with its 95 % interval in brackets where it has one."""
    if figure not in intervals:
        return number_text(value)
    low, high = intervals[figure]
    return f"{number_text(value)} ({low:.2f}-{high:.2f})"


def number_text(value: float) -> str:
    """A figure for a table; a dash where there was nothing to divide."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def _headline(sure: Reliability) -> str:
    return (
        f"ECE {number_text(sure.expected_error)}, mean confidence {number_text(sure.mean_confidence)}, accuracy"
        f" {number_text(sure.hits.sum() / sure.pixels if sure.pixels else math.nan)}, {sure.pixels:,} px"
    )


def _x(value: float) -> float:
    return round(_LEFT + value * _SIDE, 2)


def _y(value: float) -> float:
    return round(_TOP + (1 - value) * _SIDE, 2)


def _share_top() -> int:
    return _TOP + _SIDE + 30


def _frame(top: float, height: float, label: str, largest: str) -> list[str]:
    middle = top + height / 2
    return [
        f'<rect x="{_LEFT}" y="{top}" width="{_SIDE}" height="{height}" fill="none" stroke="#444"/>',
        _text(_LEFT - 6, top + 10, largest, "end"),
        _text(_LEFT - 6, top + height, "0", "end"),
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{label}</text>',
    ]


def _bars(sure: Reliability) -> list[str]:
    return [
        f'<rect x="{_x(b / BINS)}" y="{_y(sure.hits[b] / sure.counts[b])}" width="{_SIDE / BINS:.2f}"'
        f' height="{_SIDE * sure.hits[b] / sure.counts[b]:.2f}" fill="#9ecae1" stroke="white"/>'
        for b in range(BINS)
        if sure.counts[b]
    ]


def _dots(sure: Reliability) -> list[str]:
    return [
        f'<circle cx="{_x(confidence)}" cy="{_y(accuracy)}" r="3.5" fill="#08519c"><title>{name}: {pixels:,} px,'
        f" confidence {confidence:.3f}, accuracy {accuracy:.3f}</title></circle>"
        for name, pixels, confidence, accuracy in bin_rows(sure)
    ]


def _shares(sure: Reliability) -> list[str]:
    bottom = _share_top() + _SHARE_HEIGHT
    heights = [_SHARE_HEIGHT * count / max(sure.pixels, 1) for count in sure.counts]
    return [
        f'<rect x="{_x(b / BINS)}" y="{bottom - height:.2f}" width="{_SIDE / BINS:.2f}" height="{height:.2f}"'
        ' fill="#bdbdbd" stroke="white"/>'
        for b, height in enumerate(heights)
        if height
    ]


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
