"""What classes cover, as text in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoseg_cli.results.adjusted_areas import AdjustedAreas
    from geoseg_cli.results.areas import ClassArea


def mapped_table(areas: Sequence[ClassArea]) -> str:
    """Pixels, share and hectares of each class."""
    rows = [
        (str(one.value), one.title, f"{one.pixels:,}", f"{one.share:.1%}", _hectares(one.hectares)) for one in areas
    ]
    return _table(("value", "class", "pixels", "share", "hectares"), rows)


def adjusted_table(adjusted: AdjustedAreas) -> str:
    """Areas with their intervals, accuracies, and what the figures rest on."""
    rows = [
        (
            str(one.value),
            one.title,
            f"{one.samples:,}",
            _hectares(one.mapped_ha),
            _hectares(one.adjusted_ha),
            f"{_hectares(one.low_ha)} to {_hectares(one.high_ha)}",
            _share(one.users_accuracy, one.users_accuracy_95),
            _share(one.producers_accuracy, one.producers_accuracy_95),
        )
        for one in adjusted.classes
    ]
    header = ("value", "class", "places", "mapped ha", "adjusted ha", "95 % interval", "user's", "producer's")
    overall = _share(adjusted.overall_accuracy, adjusted.overall_accuracy_95)
    return f"{_table(header, rows)}Overall accuracy {overall}. {adjusted.note}\n"


def _hectares(hectares: float | None) -> str:
    return "-" if hectares is None else f"{hectares:,.2f}"


def _share(share: float | None, margin: float | None) -> str:
    if share is None:
        return "-"
    return f"{share:.1%}" if margin is None else f"{share:.1%} +- {margin:.1%}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, classes to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if column == 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)
