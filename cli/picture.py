"""Line plots as one self-contained SVG file, so that no plotting library is needed."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: distinguishable with the common colour blindnesses (Okabe & Ito)
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#999999")
_WIDTH, _LEFT, _PLOT, _ROW = 960, 150, 780, 16
_LINES = 180


@dataclass(frozen=True)
class Line:
    """One policy on one panel: its quality at each step, and the steps and clouds (0, 1) of its retrains."""

    name: str
    values: Sequence[float]
    marks: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Panel:
    """One trace: quality over time above, one row of retrain marks per policy below."""

    title: str
    lines: Sequence[Line]
    x_label: str = "hours"
    x_per_step: float = 1.0

    @property
    def height(self) -> int:
        """Pixels."""
        return 34 + _LINES + 34 + _ROW * len(self.lines) + 14


def svg(panels: Sequence[Panel], heading: str) -> str:
    """The panels one below the other. Circles are retrains on AWS, squares on Azure."""
    top, body = 40, []
    for panel in panels:
        body.append(_panel(panel, top))
        top += panel.height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{_WIDTH}" height="{top}" fill="white"/>'
        f'<text x="12" y="24" font-size="15">{html.escape(heading)}</text>' + "".join(body) + "</svg>\n"
    )


def _panel(panel: Panel, top: int) -> str:
    steps = max(len(line.values) for line in panel.lines)
    finite = [v for line in panel.lines for v in line.values if math.isfinite(v)] or [0.0, 1.0]
    low, high = max(0.0, min(finite) - 0.02), min(1.0, max(finite) + 0.02)
    high = max(high, low + 1e-6)
    chart = top + 30

    def x(step: float) -> float:
        return _LEFT + _PLOT * step / max(1, steps - 1)

    def y(value: float) -> float:
        return chart + _LINES * (high - value) / (high - low)

    parts = [f'<text x="{_LEFT}" y="{top + 18}" font-weight="bold">{html.escape(panel.title)}</text>']
    for tick in range(5):
        value = low + (high - low) * tick / 4
        parts.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + _PLOT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e5e5e5"/>'
            f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>'
        )
        step = (steps - 1) * tick / 4
        parts.append(
            f'<text x="{x(step):.1f}" y="{chart + _LINES + 15}" text-anchor="middle">{step * panel.x_per_step:.3g}'
            f"{' ' + panel.x_label if tick == 4 else ''}</text>"
        )
    for row, line in enumerate(panel.lines):
        colour = COLOURS[row % len(COLOURS)]
        dash = ' stroke-dasharray="5 3"' if row >= len(COLOURS) else ""
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(line.values) if math.isfinite(v))
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6"{dash} points="{points}"/>')
        level = chart + _LINES + 34 + _ROW * row
        parts.append(
            f'<text x="{_LEFT - 8}" y="{level + 4}" text-anchor="end" fill="{colour}">{html.escape(line.name)}</text>'
            f'<line x1="{_LEFT}" x2="{_LEFT + _PLOT}" y1="{level}" y2="{level}" stroke="#eeeeee"/>'
        )
        parts.extend(_mark(x(step), level, cloud, colour) for step, cloud in line.marks)
    return "".join(parts)


def _mark(x: float, y: float, cloud: int, colour: str) -> str:
    if cloud == 0:
        return f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{colour}"/>'
    return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5}" width="7" height="7" fill="{colour}"/>'
