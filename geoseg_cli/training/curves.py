"""Learning curves of a run as an SVG picture: loss above, scores below, over steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

WIDTH_PX, PANEL_PX, MARGIN_PX = 720, 220, 56
_COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Told apart by the colour-blind: Okabe and Ito 2008, "Color Universal Design"."""

Points = list[tuple[float, float]]


def draw_curves(history: Sequence[Mapping[str, Any]], best_step: int) -> str:
    """Draw the reports of a run.

    Args:
        history: Rows with ``step``, ``loss`` and ``scores`` (name -> mean IoU, 0 to 1), at least one.
        best_step: Step of the weights that were kept.

    Returns:
        An SVG document.
    """
    losses = {"training loss": [(float(row["step"]), float(row["loss"])) for row in history]}
    names = sorted({name for row in history for name in row["scores"]})
    scores = {name: [(float(row["step"]), float(row["scores"][name])) for row in history] for name in names}
    last = max(float(row["step"]) for row in history)
    top = max((value for _, value in losses["training loss"] if math.isfinite(value)), default=1.0)
    panels = [
        _panel(losses, (last, top * 1.05 or 1.0), 0, "loss", best_step),
        _panel({f"mean IoU, {name}": points for name, points in scores.items()}, (last, 1.0), 1, "mean IoU", best_step),
    ]
    height = 2 * PANEL_PX
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{height}"'
        f' viewBox="0 0 {WIDTH_PX} {height}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{"".join(panels)}</svg>\n'
    )


def _panel(curves: Mapping[str, Points], top: tuple[float, float], place: int, title: str, best_step: int) -> str:
    """One pair of axes with its curves; ``top`` is the largest step and value."""
    left, right = MARGIN_PX, WIDTH_PX - MARGIN_PX / 2
    above, below = place * PANEL_PX + 24, (place + 1) * PANEL_PX - 28

    def at(step: float, value: float) -> tuple[float, float]:
        return left + (right - left) * step / top[0], below - (below - above) * value / top[1]

    best_x = at(best_step, 0)[0]
    parts = [
        f'<path d="M{left} {above}V{below}H{right}" fill="none" stroke="#444"/>\n',
        f'<path d="M{best_x:.1f} {above}V{below}" stroke="#999" stroke-dasharray="3 3"/>\n',
        f'<text x="{left - 6}" y="{above + 4}" text-anchor="end">{top[1]:.3g}</text>\n',
        f'<text x="{left - 6}" y="{below}" text-anchor="end">0</text>\n',
        f'<text x="{right}" y="{below + 16}" text-anchor="end">step {top[0]:.0f}</text>\n',
        f'<text x="{left}" y="{below + 16}">{escape(title)}; dashed: the step that was kept, {best_step}</text>\n',
    ]
    for number, (name, points) in enumerate(curves.items()):
        color = _COLORS[number % len(_COLORS)]
        drawn = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in points if math.isfinite(point[1]))
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{color}" stroke-width="1.5"/>\n')
        parts.append(f'<text x="{left + 8 + 220 * number}" y="{above - 8}" fill="{color}">{escape(name)}</text>\n')
    return "".join(parts)
