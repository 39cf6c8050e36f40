"""Why a metric has no samples, told from what its store knows of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from shared.contracts import MetricWindow
from shared.promql import RATES, SOURCE

#: names of services that are listed
_MOST_NAMES: Final = 5


def why(name: str, facts: Mapping[str, Mapping[str, float]], window: MetricWindow) -> str:
    """Why a metric has no samples, and what to do."""
    source, step_s = SOURCE[name], window.step_s

    def fact(kind: str) -> float:
        return next(iter(facts.get(f"{name}.{kind}", {}).values()), math.nan)

    recent, every_s, age_s = fact("recent"), fact("every"), window.end_s - fact("newest")
    if recent >= (2 if name in RATES else 1):
        return _unused(name)
    if renamed := facts.get(".renamed"):
        return (
            f"another tool has set the label service of these samples to {_names(renamed)}, and ours is their "
            "exported_service: set honorLabels: true in the ServiceMonitor (honor_labels in a scrape configuration)"
        )
    if every_s > step_s and age_s <= 2.0 * every_s + step_s:
        return (
            f"{source} is scraped every {every_s:.3g} s or so, a decision slot is {step_s:g} s, and a rate needs two "
            f"samples in two slots: set Prometheus' scrape_interval to {step_s:g} s or less, or "
            f"OPPORTUNE_SLOT_SECONDS to {math.ceil(every_s)} or more"
        )
    if fact("samples") == 1.0 and age_s <= 2.0 * step_s:
        return f"{source} was scraped only once so far; wait"
    if fact("samples") >= 1.0:
        return f"{source} was last scraped {age_s:.0f} s ago: does the serving container run, and is it still scraped?"
    if facts.get(".serving"):
        return _unused(name)
    if services := facts.get(".services"):
        return (
            f"nothing of service {window.service} is there, but of {_names(services)}: check OPPORTUNE_SERVICE, and "
            "is the serving container scraped?"
        )
    return "no service at all has these metrics; is the serving container scraped?"


def _unused(name: str) -> str:
    """Why a metric has no value although its service is scraped."""
    if name in RATES:
        return "no requests: the serving container is scraped, and nobody asked it anything in the last two slots"
    if name in ("bleu", "accuracy"):
        return "no labelled answers: the serving container is scraped, and has none in its window; send it feedback"
    return f"the serving container is scraped, and does not say its {SOURCE[name]}; is it ours?"


def _names(services: Mapping[str, float]) -> str:
    """Some names of services, the largest first."""
    ordered = sorted(services, key=lambda name: (-services[name], name))
    listed = ", ".join(repr(name) for name in ordered[:_MOST_NAMES])
    return listed + (" and others" if len(ordered) > _MOST_NAMES else "")
