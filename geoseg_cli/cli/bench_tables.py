"""The tables of ``geoseg bench``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from geoseg_cli.printable import counted, printable

if TYPE_CHECKING:
    from geoseg_cli.bench.agreement import Agreement
    from geoseg_cli.bench.figures import BenchReport, Row
    from geoseg_cli.bench.overlap import OverlapReport, OverlapRow


def bench_text(report: BenchReport) -> str:
    """Speed, stages and agreement, a row for each configuration."""
    height, width = report.size_px
    rate = height * width / 1e6 / report.read_wall_s
    machine = f"{report.machine['processor']}, {counted(report.machine['cores'], 'core')}"
    ran = [row for row in report.rows if not row.failed]
    stages = list(dict.fromkeys(stage for row in ran for stage in row.seconds))
    lines = [
        f"{report.scene}: {height} x {width} px; {report.bundle}; {machine}; {_rounds(report.rounds)}",
        f"decoding alone: {report.read_wall_s:.2f} s, {report.read_core_s:.2f} core-s, {rate:.1f} Mpx/s",
        "",
        *_table([[_configured(row), *_speeds(row)] for row in ran], _SPEEDS),
        "",
        "wall seconds of each stage, which run beside each other; read: what the engine waited for pixels",
        *_table([[_configured(row), *_stage_cells(row, stages)] for row in ran], stages),
        "",
        f"agreement with {report.reference}",
        *_table([[_configured(row), *_agreeing(row.agreement)] for row in ran], ["pixels", "lowest IoU", "class"]),
        *(f"{_configured(row)} does not run: {row.failed}" for row in report.rows if row.failed),
    ]
    return "".join(printable(line) + "\n" for line in lines)


def _rounds(count: int) -> str:
    return "one round" if count == 1 else f"medians of {count} rounds"


def _stage_cells(row: Row, stages: Sequence[str]) -> list[str]:
    return [_number(row.seconds.get(stage), 2) for stage in stages]


_SPEEDS = (
    "wall s", "Mpx/s", "core-s", "forward", "total/(f+d)", "computed", "tail", "first tile s", "peak MB", "above MB",
)  # fmt: skip


def _speeds(row: Row) -> list[str]:
    return [
        _number(row.wall_s, 2), _number(row.mpx_per_s, 2), _number(row.core_s, 2), _percent(row.forward_share, 0),
        _number(row.overhead, 3), _number(row.computed_share, 3), _percent(row.tail_share, 1),
        _number(row.first_tile_s, 2), _number(row.peak_rss_mb, 0), _number(row.rss_above_mb, 0),
    ]  # fmt: skip


def _configured(row: Row) -> str:
    batch = "auto" if row.batch is None else row.batch
    cut = f" tile {row.tile_px}/{row.overlap_px}" if row.tile_px else ""
    return f"{row.engine} {row.precision} batch {batch}{cut}"


def _agreeing(agreement: Agreement | None) -> list[str]:
    if agreement is None:
        return ["-", "-", "-"]
    return [_percent(agreement.share, 3), _number(agreement.lowest_iou, 4), agreement.lowest_class or "-"]


def overlap_text(report: OverlapReport) -> str:
    """Agreement against overlap."""
    from geoseg_cli.bench.overlap import AGREEMENTS, CONTEXT_PX, MOST_COMPUTED, SENTINEL_2_PX

    height, width = report.size_px
    around = f"every pixel {CONTEXT_PX} px or more from a tile's inner edge"
    lines = [
        f"{report.scene}: {height} x {width} px; {report.bundle} on {report.engine}",
        f"reference: tiles of {report.reference_px} px or the scene's side, {around}",
        "",
        *_table([_overlap_cells(row) for row in report.rows], _OVERLAP_TITLES),
        "",
        f"computed: pixels computed per pixel of {SENTINEL_2_PX} x {SENTINEL_2_PX}",
        f"enough: at most {MOST_COMPUTED:.2f} computed, and at least {AGREEMENTS[1]:.1%} with twice the overlap",
        "        (- where it cannot be told, because tiles do not allow twice the overlap or lie in the same places)",
    ]
    for tile in dict.fromkeys(row.tile_px for row in report.rows):
        told = (f"{share:.1%} with {_found(report.smallest(tile, share))}" for share in AGREEMENTS)
        best = _percent(report.highest(tile), 3)
        lines.append(f"tiles of {tile} px agree with the reference: {', '.join(told)}; {best} at most")
    lines += [f"tiles of {tile} px hold the scene whole and have no seams" for tile in report.seamless]
    return "".join(printable(line) + "\n" for line in lines)


_OVERLAP_TITLES = (
    "tiles", "agreement", "near seams", "lowest IoU", "with twice", "near seams", "tiles moved", "computed", "core-s",
    "enough",
)  # fmt: skip


def _overlap_cells(row: OverlapRow) -> list[str]:
    agreement, doubled = row.agreement, row.doubled
    moved = None if doubled is None else row.moved
    return [
        f"{row.tile_px}/{row.overlap_px}",
        f"{row.tiles[0]} x {row.tiles[1]}",
        _percent(agreement.share, 3), _percent(agreement.seam_share, 3), _number(agreement.lowest_iou, 4),
        _percent(doubled.share if doubled else None, 3), _percent(doubled.seam_share if doubled else None, 3),
        _yes_or_no(moved), _number(row.computed_share, 3), _number(row.core_s, 2), _yes_or_no(row.is_enough),
    ]  # fmt: skip


def _yes_or_no(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _found(overlap_px: int | None) -> str:
    return "none of these" if overlap_px is None else f"an overlap of {overlap_px} px"


def _table(rows: Sequence[Sequence[str]], titles: Sequence[str]) -> list[str]:
    """A name to the left of each row, and columns to the right of it as wide as their widest cell."""
    whole = [["", *titles], *rows]
    widths = [max(len(row[column]) for row in whole) for column in range(len(whole[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in whole
    ]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}%}"
