"""What the shipped bundles are wanted to reach, and whether a report says that they do.

Of several sources the worst one counts. What no source measures is left open: neither met nor missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from figures import FALSE_ALARM_SOURCES, SHARP_SOURCES, Row

Report = dict[str, Any]
Figures = Mapping[str, float | None]
"""Source -> figure, None where it is undefined."""

RIVALS: Final = ("forest", "threshold", "s2cloudless")
FEW_BANDS_SOURCES: Final = ("oncloudn", "cs12-scribbles")
CLOUD_SOURCES: Final = (*FEW_BANDS_SOURCES, *SHARP_SOURCES, "alberta")


def aims_of(report: Report, task: str) -> list[Row]:
    """The aims of a task, each with what was wanted, the worst that was measured, where, and whether it was met.

    Args:
        report: Models -> sources -> figures.
        task: ``land-cover`` or ``cloud``.

    Returns:
        Rows of aim, wanted, measured (None where nothing was), where, met (None where open).
    """
    rows = _land_aims(report) if task == "land-cover" else _cloud_aims(report)
    return [*rows, at_most("points lost to a bundle trained on full bands only", 0.02, _dropout(report))]


def _land_aims(report: Report) -> list[Row]:
    network = report["network"]
    germany = {source: network[source] for source in ("germany",) if source in network}
    drawn = {source: network[source] for source in ("germany", "eurosat") if source in network}
    return [
        at_least("German cities, six classes: overall accuracy", 0.80, _pick(germany, "overall_accuracy")),
        above("German cities: macro-F1, over the forest's", _margins(report, ("germany",), ("forest",), "mean_f1")),
        at_least("EuroSAT tiles set apart: right by majority", 0.90, _pick_of(network, "eurosat-tiles")),
        at_least("water F1, German cities and EuroSAT", 0.85, _pick(drawn, "classes", "water", "f1")),
        above(
            "F1 of the worst class, German cities and EuroSAT", {s: _worst_class(row) for s, row in drawn.items()}, 0.4
        ),
        at_least("same answer at L1C and L2A", 0.90, _pick_of(network, "terramesh-levels", "agreement")),
        at_least("simulated scenes: mean IoU", 0.80, _pick_of(network, "simulated", "mean_iou")),
    ]


def _cloud_aims(report: Report) -> list[Row]:
    network = report["network"]
    sharp = {source: network[source] for source in SHARP_SOURCES if source in network}
    few = {source: network[source] for source in FEW_BANDS_SOURCES if source in network}
    clear = {source: network[source] for source in FALSE_ALARM_SOURCES if source in network}
    thin = _margins(report, ("cs12-scribbles", "simulated"), RIVALS, "classes", "thin_cloud", "iou")
    tiles = network.get("eurosat-clear", {}).get("called_cloud_by_image", [])
    return [
        at_least("cloud F1, sharp masks of scenes left out", 0.90, _pick(sharp, "cloud", "f1")),
        at_least("the same, more than 2 px from a drawn edge", 0.97, _pick(sharp, "cloud_inside", "f1")),
        at_least("cloud F1, RGB and RGB-NIR", 0.85, _pick(few, "cloud", "f1")),
        above("cloud F1, over the best rival's", _margins(report, CLOUD_SOURCES, RIVALS, "cloud", "f1")),
        at_least("shadow F1, six bands", 0.75, _pick(sharp, "classes", "cloud_shadow", "f1")),
        at_least("shadow F1, RGB", 0.50, _pick_of(network, "cs12-scribbles", "classes", "cloud_shadow", "f1")),
        above("thin-cloud IoU, over the best rival's", thin),
        at_most("clear ground called cloud", 0.005, _pick(clear, "called_cloud")),
        at_most("worst EuroSAT tile called cloud", 0.05, {"eurosat-clear": max(tiles)} if tiles else {}),
        at_most("clear ground called shadow", 0.02, _pick(clear, "called_shadow")),
        at_least("simulated scenes: mean IoU of four classes", 0.75, _pick_of(network, "simulated", "mean_iou")),
    ]


def at_least(what: str, limit: float, figures: Figures) -> Row:
    """An aim that every source must reach; an undefined figure counts as 0."""
    return _aim(what, f">= {limit:g}", _extreme(figures, min), lambda value: value >= limit)


def above(what: str, figures: Figures, limit: float = 0.0) -> Row:
    """An aim that every source must surpass."""
    return _aim(what, f"> {limit:g}", _extreme(figures, min), lambda value: value > limit)


def at_most(what: str, limit: float, figures: Figures) -> Row:
    """An aim that no source may exceed."""
    return _aim(what, f"<= {limit:g}", _extreme(figures, max), lambda value: value <= limit)


def _aim(what: str, wanted: str, worst: tuple[str, float] | None, is_met: Any) -> Row:
    if worst is None:
        return {"aim": what, "wanted": wanted, "measured": None, "where": None, "met": None}
    where, value = worst
    return {"aim": what, "wanted": wanted, "measured": round(value, 4), "where": where, "met": bool(is_met(value))}


def _extreme(figures: Figures, worst_of: Any) -> tuple[str, float] | None:
    known = {source: 0.0 if value is None else value for source, value in figures.items()}
    if not known:
        return None
    source = worst_of(known, key=known.__getitem__)
    return source, known[source]


def _pick(rows: Mapping[str, Row], *path: str) -> dict[str, float | None]:
    return {source: _value(row, path) for source, row in rows.items()}


def _pick_of(rows: Mapping[str, Row], source: str, *path: str) -> dict[str, float | None]:
    return _pick({source: rows[source]}, *(path or ("overall_accuracy",))) if source in rows else {}


def _value(row: Row, path: tuple[str, ...]) -> float | None:
    """A figure inside a row; None where the row has no such figure."""
    found: Any = row
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _worst_class(row: Row) -> float:
    """Lowest F1 among the classes that occur in the truth."""
    return min(one["f1"] or 0.0 for one in row["classes"].values() if one["pixels"])


def _margins(report: Report, sources: tuple[str, ...], rivals: tuple[str, ...], *path: str) -> dict[str, float]:
    """Network minus the best rival, for each source where a rival has the figure."""
    margins = {}
    for source in sources:
        theirs = [_value(report[rival].get(source, {}), path) for rival in rivals if rival in report]
        known = [value for value in theirs if value is not None]
        if source in report["network"] and known:
            margins[source] = (_value(report["network"][source], path) or 0.0) - max(known)
    return margins


def _dropout(report: Report) -> dict[str, float]:
    """Mean IoU that a bundle trained on full bands only has more, by source."""
    return dict(report.get("lost_to_full_bands", {}))
