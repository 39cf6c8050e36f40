"""Prometheus metrics of a serving process.

| metric | kind | labels beside service, cloud |
|---|---|---|
| llm_requests_total | counter | model_version, status (HTTP code) |
| llm_request_latency_seconds | histogram: answered and timed-out requests | model_version |
| llm_tokens_total | counter: generated tokens | model_version |
| llm_feedback_total | counter: labelled pairs | model_version |
| llm_feedback_stored_total, llm_feedback_put_failures_total, llm_feedback_dropped_total | counter | |
| llm_bleu, llm_accuracy | gauge: means over the rolling window; absent without pairs | model_version |
| llm_feedback_window_pairs | gauge: pairs in that window | model_version |
| llm_model_active | gauge: 1 for the version that answers | model_version |
| llm_model_loaded | gauge: 1 for every version that answers when it is named | model_version |
| llm_model_failed | gauge: 1 for a version of the release that cannot be loaded here | model_version |
| llm_release_revision | gauge: of the release document that is followed; absent where none is | |
| llm_follow_errors_total | counter | kind: store, document, version, status, crash |
| llm_model_bits | gauge: 32, or 8 where the 8-bit engine serves | model_version |
| llm_int8_agreement_ratio | gauge: its evaluation answers equal to fp32's; absent for fp32 | model_version |
| llm_queue_depth | gauge: requests that wait for the engine | |
| llm_cpu_utilisation_ratio | gauge: CPU time since the last scrape / (wall time * usable cores) | |
| llm_memory_usage_ratio | gauge: resident memory / memory limit | |

With PROMETHEUS_MULTIPROC_DIR set, any process that shares the folder answers for all of them: counters through
prometheus_client's own files, gauges through one small file per process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import psutil
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from training_containers.model.engines.text import usable_cores
from training_containers.serve.memory import Memory
from training_containers.serve.scores import Totals

_BUCKETS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 1.5, 2.5, 5.0, 10.0)
_MIN_INTERVAL_S: Final = 0.5  # two scrapes closer than this see the same utilisation


class Snapshot(NamedTuple):
    """One process's gauges."""

    scores: dict[str, Totals]
    active: str | None
    queue_depth: int
    engines: dict[str, tuple[str, float | None]]  # version -> precision, agreement with fp32
    revision: int = 0  # of the release document; 0 without one
    failed: tuple[str, ...] = ()


class ServingMetrics:
    """Counters to increment, and the page to scrape."""

    def __init__(
        self, service: str, cloud: str, snapshot: Callable[[], Snapshot], multiprocess_dir: Path | None = None
    ) -> None:
        """`multiprocess_dir` is PROMETHEUS_MULTIPROC_DIR, which prometheus_client itself reads when it is imported."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        own, by_version = ["service", "cloud"], ["service", "cloud", "model_version"]
        self._labels = (service, cloud)
        self._requests = Counter(
            "llm_requests", "Answered prediction requests.", [*by_version, "status"], registry=registry
        )
        self._latency = Histogram(
            "llm_request_latency_seconds", "Time to answer.", by_version, buckets=_BUCKETS, registry=registry
        )
        self._tokens = Counter("llm_tokens", "Generated tokens.", by_version, registry=registry)
        self._feedback = Counter("llm_feedback", "Labelled pairs received.", by_version, registry=registry)
        self._stored = Counter(
            "llm_feedback_stored", "Labelled pairs in the training data store.", own, registry=registry
        )
        self._failures = Counter("llm_feedback_put_failures", "Failed writes to the store.", own, registry=registry)
        self._dropped = Counter("llm_feedback_dropped", "Pairs given up, the buffer was full.", own, registry=registry)
        self._follow_errors = Counter(
            "llm_follow_errors", "What went wrong in following the release.", [*own, "kind"], registry=registry
        )
        gauges = _Gauges(service, cloud, snapshot, multiprocess_dir)
        if multiprocess_dir is None:
            registry.register(gauges)
            self._page = registry
        else:
            self._page = CollectorRegistry()
            self._page.register(gauges)  # first: it clears dead processes away
            MultiProcessCollector(self._page, str(multiprocess_dir))  # type: ignore[no-untyped-call]

    def request(self, version: str | None, status: int, latency_s: float, tokens: int = 0) -> None:
        """Count one prediction request; `version` None when no model was reached."""
        labels = (*self._labels, version or "none")
        self._requests.labels(*labels, str(status)).inc()
        if status in (200, 504):
            self._latency.labels(*labels).observe(latency_s)
        if tokens:
            self._tokens.labels(*labels).inc(tokens)

    def feedback(self, version: str) -> None:
        """Count one labelled pair."""
        self._feedback.labels(*self._labels, version).inc()

    def stored(self, pairs: int) -> None:
        """Count pairs that reached the store."""
        self._stored.labels(*self._labels).inc(pairs)

    def put_failed(self) -> None:
        """Count a failed write."""
        self._failures.labels(*self._labels).inc()

    def dropped(self, pairs: int) -> None:
        """Count pairs that were given up."""
        self._dropped.labels(*self._labels).inc(pairs)

    def follow_error(self, kind: str) -> None:
        """Count something that went wrong in following the release."""
        self._follow_errors.labels(*self._labels, kind).inc()

    def page(self) -> bytes:
        """The scrape, in Prometheus text format."""
        return generate_latest(self._page)


class _Gauges(Collector):
    """Gauges are computed at the scrape, so that what is gone disappears instead of keeping its last value."""

    def __init__(self, service: str, cloud: str, snapshot: Callable[[], Snapshot], shared_dir: Path | None) -> None:
        self._labels = [service, cloud]
        self._snapshot = snapshot
        self._shared_dir = shared_dir
        self._usage = _Usage()

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: registering must not scrape."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every gauge; versions without a window have no quality sample."""
        snapshots = self._snapshots()
        scores: dict[str, Totals] = {}
        for snapshot in snapshots.values():
            for version, totals in snapshot.scores.items():
                scores[version] = totals.plus(scores[version]) if version in scores else totals
        means = {v: (t.bleu1_sum / t.pairs, t.exact_match_sum / t.pairs, float(t.pairs)) for v, t in scores.items()}
        yield self._by_version("llm_bleu", "BLEU-1 over the rolling window.", {v: m[0] for v, m in means.items()})
        yield self._by_version("llm_accuracy", "Exact match over the window.", {v: m[1] for v, m in means.items()})
        yield self._by_version("llm_feedback_window_pairs", "Pairs in the window.", {v: m[2] for v, m in means.items()})
        active = {s.active: 1.0 for s in snapshots.values() if s.active is not None}
        yield self._by_version("llm_model_active", "1 for the version that answers.", active)
        engines = {v: engine for s in snapshots.values() for v, engine in s.engines.items()}
        yield self._by_version("llm_model_loaded", "1 for a version that answers.", dict.fromkeys(engines, 1.0))
        failed = {version: 1.0 for s in snapshots.values() for version in s.failed}
        yield self._by_version("llm_model_failed", "1 for a version that cannot be loaded.", failed)
        if revision := min(s.revision for s in snapshots.values()):
            yield self._own("llm_release_revision", "Of the release that is followed.", revision)
        bits = {version: 8.0 if precision == "int8" else 32.0 for version, (precision, _) in engines.items()}
        yield self._by_version("llm_model_bits", "Bits of the weights that serve.", bits)
        agreement = {version: share for version, (_, share) in engines.items() if share is not None}
        yield self._by_version("llm_int8_agreement_ratio", "8-bit answers equal to fp32's.", agreement)
        yield self._own("llm_queue_depth", "Requests waiting.", sum(s.queue_depth for s in snapshots.values()))
        cpu, memory = self._usage.ratios(list(snapshots))
        if cpu is not None:
            yield self._own("llm_cpu_utilisation_ratio", "CPU time of the serving processes / usable cores.", cpu)
        yield self._own("llm_memory_usage_ratio", "Resident memory / memory limit.", memory)

    def _own(self, name: str, help_text: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, help_text, labels=["service", "cloud"])
        family.add_metric(self._labels, value)
        return family

    def _by_version(self, name: str, help_text: str, values: dict[str, float]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, help_text, labels=["service", "cloud", "model_version"])
        for version, value in sorted(values.items()):
            family.add_metric([*self._labels, version], value)
        return family

    def _snapshots(self) -> dict[int, Snapshot]:
        """Process id -> snapshot: this process's, and those its living peers wrote last."""
        mine = self._snapshot()
        found = {os.getpid(): mine}
        if self._shared_dir is None:
            return found
        own = self._shared_dir / f"opportune_{os.getpid()}.json"
        partial = own.with_suffix(".partial")
        partial.write_text(json.dumps(mine))
        partial.replace(own)
        for path in self._shared_dir.glob("opportune_*.json"):
            pid = int(path.stem.removeprefix("opportune_"))
            if not psutil.pid_exists(pid):
                path.unlink(missing_ok=True)
                mark_process_dead(pid, str(self._shared_dir))  # type: ignore[no-untyped-call]
            elif pid != os.getpid():
                scores, *rest = json.loads(path.read_text())
                found[pid] = Snapshot({v: Totals(*t) for v, t in scores.items()}, *rest)
        return found


class _Usage:
    """CPU and memory of serving processes relative to what they may use."""

    def __init__(self) -> None:
        self._cores = usable_cores()
        self._memory_bytes = Memory().limit_bytes()
        self._last = (time.monotonic(), _cpu_s([os.getpid()]))
        self._cpu: float | None = None

    def ratios(self, pids: list[int]) -> tuple[float | None, float]:
        """(CPU utilisation since the last scrape or None before the first interval, memory usage)."""
        now, used = time.monotonic(), _cpu_s(pids)
        then, before = self._last
        if now - then >= _MIN_INTERVAL_S:
            self._last = (now, used)
            # a peer that came or went would show as a jump
            self._cpu = min(1.0, max(0.0, used - before) / ((now - then) * self._cores))
        resident = sum(p.memory_info().rss for p in _living(pids))
        return self._cpu, resident / self._memory_bytes


def _living(pids: list[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        try:
            yield psutil.Process(pid)
        except psutil.NoSuchProcess:
            continue


def _cpu_s(pids: list[int]) -> float:
    return sum(sum(p.cpu_times()[:2]) for p in _living(pids))
