"""SVG line charts over one time axis: lines, stacked areas, bars and markers; alone in a file, or inside a page.

`Chart` and `Lanes` draw the report's pictures, whose colours and fonts are the page's CSS classes. They are half a
page wide, so that the same drawing is readable on a telephone. `picture` puts charts into one file of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH: Final = 480
LEFT: Final = 62  # room for the labels of the y axis
NAMES: Final = 86  # room for the names of lanes
RIGHT: Final = 18
TOP: Final = 26  # room for the unit of the y axis
LANES_TOP: Final = 12
BOTTOM: Final = 40  # room for the labels of the x axis
#: units of the drawing that a letter takes where the page makes it largest, which is on a telephone
LETTER: Final = 9.5
#: distinguishable with the common colour blindnesses (Okabe & Ito)
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#999999")


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
    """One chart. x is from 0 to `minutes`, y from `low` to `high` in `unit`."""

    minutes: float
    high: float
    unit: str
    low: float = 0.0
    height: int = 204
    x_unit: str = "simulated minutes"
    width: int = WIDTH
    left: int = LEFT
    _parts: list[str] = field(default_factory=list)

    def x(self, minute: float) -> float:
        """Units from the left edge."""
        return _x(self, minute)

    def y(self, value: float) -> float:
        """Units from the top edge."""
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

    def parts(self) -> list[str]:
        """The elements of the drawing: axes first, then what was drawn."""
        axis = []
        for tick in ticks(self.low, self.high, 4):
            y = f"{self.y(tick):.1f}"
            axis.append(f'<line class="grid" x1="{self.left}" x2="{self.width - RIGHT}" y1="{y}" y2="{y}"/>')
            axis.append(
                f'<text class="tick" x="{self.left - 8}" y="{y}" dy="0.32em" text-anchor="end">{number(tick)}</text>'
            )
        axis.append(f'<text class="unit" x="2" y="14">{escape(self.unit)}</text>')
        return [*axis, *_x_axis(self), *self._parts]

    def svg(self, label: str) -> str:
        """The chart as an <svg> element; `label` is what a screen reader says."""
        return _svg(self.width, self.height, self.parts(), label)


@dataclass(slots=True)
class Lanes:
    """A time line of named lanes with bars and pins: what happened when."""

    minutes: float
    names: Sequence[str]
    x_unit: str = "simulated minutes"
    width: int = WIDTH
    left: int = NAMES
    lane: int = 30
    colours: Sequence[str] = ()  # CSS classes of the names
    _parts: list[str] = field(default_factory=list)
    _pins: list[tuple[int, float, str, str]] = field(default_factory=list)

    def x(self, minute: float) -> float:
        """Units from the left edge."""
        return _x(self, minute)

    @property
    def height(self) -> int:
        """Units."""
        return LANES_TOP + self.lane * len(self.names) + BOTTOM

    def bar(self, lane: int, start: float, end: float, css: str, text: str, title: str) -> Lanes:
        """A bar from `start` to `end`, with a text inside when it fits."""
        x0, x1 = self.x(start), self.x(end)
        top = LANES_TOP + self.lane * lane + 5
        wide = max(3.0, x1 - x0)
        self._parts.append(
            f'<g><title>{escape(title)}</title><rect class="bar {css}" x="{x0:.1f}" y="{top}" width="{wide:.1f}" '
            f'height="{self.lane - 10}" rx="3"/>'
        )
        if wide > LETTER * len(text):
            middle = f'x="{(x0 + wide / 2):.1f}" y="{top + (self.lane - 10) / 2}"'
            self._parts.append(f'<text class="inbar" {middle} dy="0.34em" text-anchor="middle">{escape(text)}</text>')
        self._parts.append("</g>")
        return self

    def pin(self, lane: int, minute: float, css: str, text: str) -> Lanes:
        """A dot with its text beside it, shortened to the room before the lane's next pin."""
        self._pins.append((lane, minute, css, text))
        return self

    def mark(self, lane: int, minute: float, css: str, square: bool) -> Lanes:
        """A small circle or square."""
        x, y = self.x(minute), LANES_TOP + self.lane * (lane + 0.5)
        self._parts.append(
            f'<rect class="{css}" x="{x - 3.5:.1f}" y="{y - 3.5}" width="7" height="7"/>'
            if square
            else f'<circle class="{css}" cx="{x:.1f}" cy="{y}" r="4"/>'
        )
        return self

    def parts(self, axis: bool = True) -> list[str]:
        """The elements of the drawing."""
        rows = []
        for lane, name in enumerate(self.names):
            y = LANES_TOP + self.lane * (lane + 0.5)
            rows.append(f'<line class="grid" x1="{self.left}" x2="{self.width - RIGHT}" y1="{y}" y2="{y}"/>')
            css = f"tick {self.colours[lane]}" if self.colours else "tick"
            rows.append(
                f'<text class="{css}" x="{self.left - 8}" y="{y}" dy="0.34em" text-anchor="end">{escape(name)}</text>'
            )
        return [*rows, *(_x_axis(self) if axis else []), *self._parts, *self._pinned()]

    def svg(self, label: str) -> str:
        """The time line as an <svg> element."""
        return _svg(self.width, self.height, self.parts(), label)

    def _pinned(self) -> list[str]:
        drawn = []
        for lane, minute, css, text in self._pins:
            x, y = self.x(minute), LANES_TOP + self.lane * (lane + 0.5)
            later = [self.x(m) for other, m, _, _ in self._pins if other == lane and m > minute]
            letters = int((min(later, default=float(self.width)) - x - 18) / LETTER)
            shown = text if len(text) <= letters else text[: max(0, letters - 1)].rstrip() + "…"
            drawn.append(
                f'<g><title>{escape(text)}</title><circle class="marker {css}" cx="{x:.1f}" cy="{y}" r="4.5"/>'
                f'<text class="pin" x="{x + 9:.1f}" y="{y}" dy="0.34em">{escape(shown)}</text></g>'
            )
        return drawn


def _x(chart: Chart | Lanes, minute: float) -> float:
    return chart.left + (chart.width - chart.left - RIGHT) * min(max(minute / chart.minutes, 0.0), 1.0)


def _x_axis(chart: Chart | Lanes) -> list[str]:
    base, right = chart.height - BOTTOM, chart.width - RIGHT
    parts = [f'<line class="axis" x1="{chart.left}" x2="{right}" y1="{base}" y2="{base}"/>']
    for tick in ticks(0, chart.minutes, 8):
        x = f"{chart.x(tick):.1f}"
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{base}" y2="{base + 4}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{base + 18}" text-anchor="middle">{number(tick)}</text>')
    parts.append(
        f'<text class="unit" x="{right}" y="{chart.height - 3}" text-anchor="end">{escape(chart.x_unit)}</text>'
    )
    return parts


def _svg(width: int, height: int, parts: list[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label, quote=True)}">'
        + "".join(parts)
        + "</svg>"
    )


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


def picture(panels: Sequence[Panel], heading: str) -> str:
    """The panels one below the other, as one SVG file. Circles are retrains on AWS, squares on Azure."""
    top, body = 40, [f'<text x="12" y="24" font-size="15">{escape(heading)}</text>']
    for panel in panels:
        body.append(f'<text x="150" y="{top + 18}" font-weight="bold">{escape(panel.title)}</text>')
        top += 24
        for drawing, height in _drawings(panel):
            body.append(f'<g transform="translate(0 {top})">{"".join(drawing)}</g>')
            top += height
    style = [
        ".tick, .unit { fill: #444 } .grid { stroke: #e5e5e5 } .axis { stroke: #999 }",
        ".line { fill: none; stroke-width: 1.6 } .later { stroke-dasharray: 5 3 }",
        *(f".line.c{n} {{ stroke: {c} }} :not(.line).c{n} {{ fill: {c} }}" for n, c in enumerate(COLOURS)),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {top}" width="960" height="{top}" '
        f'font-family="sans-serif" font-size="12"><style>{" ".join(style)}</style>'
        f'<rect width="960" height="{top}" fill="white"/>' + "".join(body) + "</svg>\n"
    )


def _drawings(panel: Panel) -> list[tuple[list[str], int]]:
    """(elements, height) of the chart and of its rows of marks."""
    steps = max(len(line.values) for line in panel.lines)
    length = max(1, steps - 1) * panel.x_per_step
    finite = [v for line in panel.lines for v in line.values if math.isfinite(v)] or [0.0, 1.0]
    low, high = max(0.0, min(finite) - 0.02), min(1.0, max(finite) + 0.02)
    chart = Chart(length, max(high, low + 1e-6), "", low, height=232, x_unit=panel.x_label, width=960, left=150)
    colours = [f"c{row % len(COLOURS)}" for row in range(len(panel.lines))]
    rows = Lanes(length, [line.name for line in panel.lines], width=960, left=150, lane=16, colours=colours)
    for row, line in enumerate(panel.lines):
        colour = colours[row]
        values = np.array([v if math.isfinite(v) else math.nan for v in line.values], dtype=np.float64)
        chart.line(
            panel.x_per_step * np.arange(len(values), dtype=np.float64),
            values,
            colour + (" later" if row >= len(COLOURS) else ""),
        )
        for step, cloud in line.marks:
            rows.mark(row, step * panel.x_per_step, colour, square=cloud == 1)
    return [(chart.parts(), chart.height), (rows.parts(axis=False), rows.height - BOTTOM + 14)]


def _runs(y: Floats) -> list[list[int]]:
    """Index runs without NaN."""
    runs: list[list[int]] = [[]]
    for i, value in enumerate(y):
        if np.isnan(value):
            runs.append([])
        else:
            runs[-1].append(i)
    return [run for run in runs if run]
