"""Metrics of a service from one Prometheus, or from one per cloud: asked side by side, the answers added up.

A store that is silent is a missing cloud and not zero: the window is of the other one alone, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec

from shared.adapters.metric_proofs import Identities
from shared.adapters.metric_reasons import why
from shared.adapters.prometheus_store import PrometheusStore
from shared.contracts import CLOUDS, Cloud, MetricWindow, Series
from shared.errors import MetricsUnavailableError
from shared.promql import METRICS, SOURCE, Parts, part, query_by_cloud, query_facts, query_parts
from shared.settings import Settings
from shared.values import Served

T = TypeVar("T")

#: a series that ended this many slots before its window did is looked into as one that is empty
_ENDED_SLOTS: Final = 3.0
#: what every serving container says at every scrape: without it nothing of its cloud arrives
_ALIVE: Final = "memory"

#: what a store answered: part -> values by time
Answer = Mapping[str, Mapping[float, float]]


class PrometheusMetrics:
    """MetricsSource over one store with every cloud's metrics, or one store per cloud."""

    def __init__(self, service: str, stores: Sequence[PrometheusStore]) -> None:
        self._service, self._stores = service, tuple(stores)
        #: the stores that did not answer the last window: in the same tick they are not asked again
        self._mute: frozenset[PrometheusStore] = frozenset()

    def window(self, start_s: float, end_s: float, step_s: float, names: Collection[str] = METRICS) -> MetricWindow:
        """The metrics over [start_s, end_s], one point per step; a metric without samples has an empty series.

        Raises:
            MetricsUnavailableError: no store answered with samples.
        """
        names = list(names)
        self._mute = frozenset()

        def ask(store: PrometheusStore) -> Answer:
            promql = query_parts(names, self._service, step_s, store.cloud)
            return store.series(promql, start_s, end_s, step_s)

        answers, failures = self._each(ask)
        if not answers:
            raise self._nobody(failures)
        self._mute = frozenset(failures)
        silent: dict[str, str] = {store.cloud: str(exc) for store, exc in failures.items() if store.cloud is not None}
        for store, answer in answers.items():
            if store.cloud is not None and _ALIVE in names and _ended(answer, end_s, step_s):
                silent[store.cloud] = f"{store.url} has no {SOURCE[_ALIVE]} of the last {_ENDED_SLOTS:g} slots"
        return MetricWindow(
            service=self._service,
            start_s=start_s,
            end_s=end_s,
            step_s=step_s,
            series={name: _made(name, list(answers.values())) for name in names},
            silent=silent,
        )

    def explained(self, window: MetricWindow) -> MetricWindow:
        """The window, with why a metric that a decision needs has no samples where one has none: one more query then.

        Nothing is raised: where no store tells, the reason stays unknown.
        """
        newest_s = {
            name: one.timestamps_s[-1] if len(one.timestamps_s) else -math.inf for name, one in window.series.items()
        }
        ended_s = window.end_s - _ENDED_SLOTS * window.step_s
        gone = [name for name in SOURCE if newest_s.get(name, math.inf) < ended_s]
        quiet = [store.cloud for store in self._stores if store.cloud in window.silent and store not in self._mute]
        asked = sorted({*gone, *([_ALIVE] if quiet else [])})
        if not asked:
            return window

        def ask(store: PrometheusStore) -> dict[str, str]:
            facts: dict[str, dict[str, float]] = {}
            for sample in store.now(query_facts(asked, window.service, window.step_s, store.cloud), window.end_s):
                facts.setdefault(sample.name, {})[sample.labels.get("service", "")] = sample.value
            return {name: why(name, facts, window) for name in asked}

        answers, _ = self._each(ask)
        told = {store.cloud: reasons for store, reasons in answers.items()}
        if not told:
            return window
        silent = window.silent | {cloud: told[cloud][_ALIVE] for cloud in quiet if cloud is not None and cloud in told}
        missing = {name: _joined({cloud: reasons[name] for cloud, reasons in told.items()}, silent) for name in gone}
        return msgspec.structs.replace(window, missing=missing, silent=silent)

    def served(self, now_s: float, step_s: float) -> dict[Cloud, Served]:
        """Each cloud's latency and last sign of life; a cloud whose store is silent is not there.

        Raises:
            MetricsUnavailableError: as `window`.
        """
        answers, failures = self._each(
            lambda store: store.now(query_by_cloud(self._service, step_s, store.cloud), now_s)
        )
        if not answers:
            raise self._nobody(failures)
        found: dict[str, dict[str, float]] = {"latency": {}, "seen": {}}
        for samples in answers.values():
            for sample in samples:
                found.setdefault(sample.name, {})[sample.labels.get("cloud", "")] = sample.value
        latency, seen = found["latency"], found["seen"]
        return {
            cloud: Served(latency.get(cloud), seen.get(cloud)) for cloud in CLOUDS if cloud in latency or cloud in seen
        }

    def _each(
        self, ask: Callable[[PrometheusStore], T]
    ) -> tuple[dict[PrometheusStore, T], dict[PrometheusStore, MetricsUnavailableError]]:
        """What each store answers, side by side, and why others do not; each has its own time."""
        asked = [store for store in self._stores if store not in self._mute]

        def attempt(store: PrometheusStore) -> T | MetricsUnavailableError:
            try:
                return ask(store)
            except MetricsUnavailableError as exc:
                return exc

        if len(asked) == 1:
            outcomes = [attempt(asked[0])]
        else:
            with ThreadPoolExecutor(len(asked)) as threads:
                outcomes = list(threads.map(attempt, asked))
        answers: dict[PrometheusStore, T] = {}
        failures: dict[PrometheusStore, MetricsUnavailableError] = {}
        for store, outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, MetricsUnavailableError):
                failures[store] = outcome
            else:
                answers[store] = outcome
        return answers, failures

    def _nobody(self, failures: Mapping[PrometheusStore, MetricsUnavailableError]) -> MetricsUnavailableError:
        if len(failures) == 1:
            return next(iter(failures.values()))
        reasons = "; ".join(f"{store.cloud}: {exc.reason}" for store, exc in failures.items())
        return MetricsUnavailableError(" and ".join(store.url for store in failures), reasons)


def metrics_of(
    settings: Settings, identities: Identities | None = None, *, timeout_s: float = 5.0
) -> PrometheusMetrics:
    """The metrics that the settings name.

    Raises:
        ConfigurationError: an address is none, or its proof lacks something.
    """
    stores = [PrometheusStore(place, identities, timeout_s) for place in settings.metric_stores()]
    return PrometheusMetrics(settings.service, stores)


def _made(name: str, answers: Sequence[Answer]) -> Series:
    """A metric from what every store answered: the first of its ways that has samples, moment by moment."""
    values: dict[float, float] = {}
    for way, parts in enumerate(METRICS[name]):
        for at, value in _way(name, way, parts, answers).items():
            values.setdefault(at, value)
    known = sorted((at, value) for at, value in values.items() if math.isfinite(value))
    return Series(tuple(at for at, _ in known), tuple(value for _, value in known))


def _way(name: str, way: int, parts: Parts, answers: Sequence[Answer]) -> dict[float, float]:
    """One way's values by time: its parts added up over the stores, then divided."""
    totals: dict[float, float] = {}
    weights: dict[float, float] = {}
    for answer in answers:
        of_total = answer.get(part(name, way, "total"), {})
        of_weight = answer.get(part(name, way, "weight"), {}) if parts.weight else dict.fromkeys(of_total, 1.0)
        for at, total in of_total.items():
            if at in of_weight:
                totals[at] = parts.over_stores(totals[at], total) if at in totals else total
                weights[at] = weights[at] + of_weight[at] if at in weights else of_weight[at]
    if not parts.weight:
        return totals
    return {at: total / weights[at] if weights[at] else math.nan for at, total in totals.items()}


def _ended(answer: Answer, end_s: float, step_s: float) -> bool:
    """Whether nothing of the store's containers has come for some slots."""
    return max(answer.get(part(_ALIVE, 0, "total"), ()), default=-math.inf) < end_s - _ENDED_SLOTS * step_s


def _joined(reasons: Mapping[Cloud | None, str], silent: Mapping[str, str]) -> str:
    """Why a metric is missing everywhere, each cloud's own reason."""
    if list(reasons) == [None]:
        return reasons[None]
    others = {cloud: why for cloud, why in silent.items() if cloud not in reasons}
    return "; ".join(f"{cloud}: {why}" for cloud, why in [*reasons.items(), *others.items()])
