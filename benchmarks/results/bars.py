"""A horizontal bar chart as one SVG file that looks the same wherever it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 760
LABEL: Final = 230  # pixels for the names
VALUE: Final = 90  # pixels for the numbers behind the bars
ROW: Final = 26
OURS: Final = "#0f766e"
OTHERS: Final = "#9aa4b0"


@dataclass(frozen=True)
class Bar:
    """A name, its value, the text behind the bar; `ours` is drawn in the project's colour."""

    name: str
    value: float
    text: str
    ours: bool = False


def chart(title: str, bars: Sequence[Bar], limit: float | None = None) -> str:
    """The bars in the order given, from 0; values beyond `limit` are cut there and marked by an arrow."""
    top = 34
    height = top + ROW * len(bars) + 8
    most = limit or max((bar.value for bar in bars), default=0.0) or 1.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title, quote=True)}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="20" font-size="14" font-weight="600" fill="#1d2127">{escape(title)}</text>',
    ]
    for row, bar in enumerate(bars):
        y = top + ROW * row
        wide = (WIDTH - LABEL - VALUE) * min(1.0, max(0.0, bar.value / most))
        text = f"{bar.text} →" if bar.value > most * 1.0001 else bar.text
        weight = ' font-weight="600"' if bar.ours else ""
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end" fill="#1d2127"{weight}>{escape(bar.name)}</text>',
            f'<rect x="{LABEL}" y="{y + 3}" width="{wide:.1f}" height="{ROW - 9}" rx="2" '
            f'fill="{OURS if bar.ours else OTHERS}"/>',
            f'<text x="{LABEL + wide + 6:.1f}" y="{y + 15}" fill="#5d6673"{weight}>{escape(text)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
