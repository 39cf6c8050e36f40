"""Small SVG charts over one shared time axis: lines, stacked areas, bars and markers. Colours are CSS classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH: Final = 960
LEFT: Final = 62  # room for the labels of the y axis
RIGHT: Final = 18
TOP: Final = 12
BOTTOM: Final = 34  # room for the labels of the x axis


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers in [low, high]."""
    raw = (high - low) / max(1, count)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round((first + n) * step, 10) for n in range(int((high - low) / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick label without trailing zeros."""
    return f"{value:.10g}" if abs(value) < 1000 else f"{value:,.0f}"


@dataclass(slots=True)
class Chart:
    """One chart. x is in simulated minutes from 0 to `minutes`, y from `low` to `high` in `unit`."""

    minutes: float
    high: float
    unit: str
    low: float = 0.0
    height: int = 190
    x_label: bool = True
    _parts: list[str] = field(default_factory=list)

    def x(self, minute: float) -> float:
        """Pixels from the left edge."""
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(minute / self.minutes, 0.0), 1.0)

    def y(self, value: float) -> float:
        """Pixels from the top edge."""
        share = (value - self.low) / (self.high - self.low)
        return TOP + (self.height - TOP - BOTTOM) * (1 - min(max(share, 0.0), 1.0))

    def line(self, x: Floats, y: Floats, css: str) -> Chart:
        """A line; it breaks where y is NaN, and a lone point becomes a dot."""
        for run in _runs(y):
            points = [f"{self.x(x[i]):.1f},{self.y(y[i]):.1f}" for i in run]
            if len(points) == 1:
                cx, cy = points[0].split(",")
                self._parts.append(f'<circle class="dot {css}" cx="{cx}" cy="{cy}" r="1.8"/>')
            else:
                self._parts.append(f'<polyline class="line {css}" points="{" ".join(points)}"/>')
        return self

    def area(self, x: Floats, low: Floats, high: Floats, css: str) -> Chart:
        """The area between two curves, without gaps."""
        there = [f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x, high, strict=True)]
        back = [f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x[::-1], low[::-1], strict=True)]
        self._parts.append(f'<polygon class="area {css}" points="{" ".join(there + back)}"/>')
        return self

    def stack(self, x: Floats, layers: Sequence[tuple[Floats, str]]) -> Chart:
        """Areas on top of each other, the first at the bottom."""
        floor = np.zeros(len(x))
        for values, css in layers:
            self.area(x, floor, floor + values, css)
            floor = floor + values
        return self

    def marker(self, minute: float, value: float, css: str, title: str) -> Chart:
        """A dot with a tooltip."""
        self._parts.append(
            f'<circle class="marker {css}" cx="{self.x(minute):.1f}" cy="{self.y(value):.1f}" r="4.5">'
            f"<title>{escape(title)}</title></circle>"
        )
        return self

    def event(self, minute: float, css: str) -> Chart:
        """A vertical rule, drawn behind the data."""
        x = f"{self.x(minute):.1f}"
        rule = f'<line class="event {css}" x1="{x}" x2="{x}" y1="{TOP}" y2="{self.height - BOTTOM}"/>'
        self._parts.insert(0, rule)
        return self

    def svg(self, label: str) -> str:
        """The chart as an <svg> element; `label` is what a screen reader says."""
        axis = []
        for tick in ticks(self.low, self.high, 4):
            y = f"{self.y(tick):.1f}"
            axis.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
            axis.append(
                f'<text class="tick" x="{LEFT - 8}" y="{y}" dy="0.32em" text-anchor="end">{number(tick)}</text>'
            )
        middle = (TOP + self.height - BOTTOM) / 2
        axis.append(
            f'<text class="unit" transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.unit)}</text>"
        )
        return _svg(self.height, [*axis, *_x_axis(self, self.height, self.x_label), *self._parts], label)


@dataclass(slots=True)
class Lanes:
    """A time line of named lanes with bars and pins: what happened when."""

    minutes: float
    names: Sequence[str]
    _parts: list[str] = field(default_factory=list)

    LANE: Final = 30

    def x(self, minute: float) -> float:
        """Pixels from the left edge; lanes need more room for their names."""
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(minute / self.minutes, 0.0), 1.0)

    @property
    def height(self) -> int:
        """Pixels."""
        return TOP + self.LANE * len(self.names) + BOTTOM

    def bar(self, lane: int, start: float, end: float, css: str, text: str, title: str) -> Lanes:
        """A bar from `start` to `end`, with a text inside when it fits."""
        x0, x1 = self.x(start), self.x(end)
        top = TOP + self.LANE * lane + 5
        wide = max(3.0, x1 - x0)
        self._parts.append(
            f'<g><title>{escape(title)}</title><rect class="bar {css}" x="{x0:.1f}" y="{top}" width="{wide:.1f}" '
            f'height="{self.LANE - 10}" rx="3"/>'
        )
        if wide > 7 * len(text):
            middle = f'x="{(x0 + wide / 2):.1f}" y="{top + (self.LANE - 10) / 2}"'
            self._parts.append(f'<text class="inbar" {middle} dy="0.34em" text-anchor="middle">{escape(text)}</text>')
        self._parts.append("</g>")
        return self

    def pin(self, lane: int, minute: float, css: str, text: str) -> Lanes:
        """A dot with its text beside it."""
        y = TOP + self.LANE * (lane + 0.5)
        x = self.x(minute)
        left = x > WIDTH * 0.8
        self._parts.append(
            f'<circle class="marker {css}" cx="{x:.1f}" cy="{y}" r="4.5"/>'
            f'<text class="pin" x="{x + (-9 if left else 9):.1f}" y="{y}" dy="0.34em" '
            f'text-anchor="{"end" if left else "start"}">{escape(text)}</text>'
        )
        return self

    def svg(self, label: str) -> str:
        """The time line as an <svg> element."""
        rows = []
        for lane, name in enumerate(self.names):
            y = TOP + self.LANE * (lane + 0.5)
            rows.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
            rows.append(
                f'<text class="tick" x="{LEFT - 8}" y="{y}" dy="0.34em" text-anchor="end">{escape(name)}</text>'
            )
        return _svg(self.height, [*rows, *_x_axis(self, self.height, True), *self._parts], label)


def _x_axis(chart: Chart | Lanes, height: int, labelled: bool) -> list[str]:
    base = height - BOTTOM
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>']
    for tick in ticks(0, chart.minutes, 10):
        x = f"{chart.x(tick):.1f}"
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{base}" y2="{base + 4}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{base + 16}" text-anchor="middle">{number(tick)}</text>')
    if labelled:
        parts.append(
            f'<text class="unit" x="{WIDTH - RIGHT}" y="{height - 3}" text-anchor="end">simulated minutes</text>'
        )
    return parts


def _svg(height: int, parts: list[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label, quote=True)}">'
        + "".join(parts)
        + "</svg>"
    )


def _runs(y: Floats) -> list[list[int]]:
    """Index runs without NaN."""
    runs: list[list[int]] = [[]]
    for i, value in enumerate(y):
        if np.isnan(value):
            runs.append([])
        else:
            runs[-1].append(i)
    return [run for run in runs if run]
