"""Prometheus' text format, version 0.0.4: families of samples as one page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Family:
    """One metric: its samples, in the order in which they were added. A family without samples is left out."""

    name: str
    kind: Literal["counter", "gauge", "summary"]
    help: str
    samples: list[tuple[str, dict[str, str], float]] = field(default_factory=list)

    def add(self, value: float, suffix: str = "", **labels: str) -> None:
        """One sample; `suffix` is that of a summary's `_sum` or `_count`."""
        self.samples.append((suffix, labels, value))


def page(families: Iterable[Family], labels: Mapping[str, str]) -> str:
    """The families, every sample with `labels` before its own."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            lines.append(f"# HELP {family.name} {_escaped(family.help, quotes=False)}")
            lines.append(f"# TYPE {family.name} {family.kind}")
        for suffix, own, value in family.samples:
            told = ",".join(f'{name}="{_escaped(text)}"' for name, text in {**labels, **own}.items())
            lines.append(f"{family.name}{suffix}{{{told}}} {_number(value)}")
    return "\n".join([*lines, ""])


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(float(value))


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text
