"""Which endpoint gets a request: penalised peak-EWMA latency, a soft choice, a circuit breaker. Knows no network.

Function instances are many, often cold, and share no memory. So the choice is soft (many instances with the same
stale numbers would otherwise herd onto one endpoint), a few requests explore, and every count is the instance's own.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.contracts import Endpoint
from shared.ports import Clock

#: cost of an endpoint nobody measured yet, before its requests in flight
UNMEASURED: Final = 1_000_000.0


def smoothed(estimate: float | None, sample: float, elapsed_s: float, tau_s: float) -> float:
    """Peak-EWMA: a slower sample counts at once, a faster one by how long ago the last sample was."""
    if estimate is None or sample > estimate:
        return sample
    kept = math.exp(-elapsed_s / tau_s)
    return estimate * kept + sample * (1.0 - kept)


def cost(estimate: float | None, in_flight: int) -> float:
    """What one more request costs: the latency, once for each request that is waiting and for this one."""
    return UNMEASURED + in_flight if estimate is None else estimate * (in_flight + 1)


@dataclass
class _Measured:
    """What this instance knows of one endpoint."""

    latency_s: float | None = None
    sampled_s: float = 0.0
    in_flight: int = 0
    failures: int = 0  # in a row
    open_until_s: float | None = None  # breaker open (or, once passed, half-open); None = closed
    open_for_s: float = 0.0
    probing: bool = False


class Router:
    """Orders the endpoints for each request and learns from how they answer. Safe to share between threads."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        tau_s: float = 10.0,
        temperature: float = 0.1,
        exploration: float = 0.02,
        failures_to_open: int = 3,
        open_s: float = 5.0,
        longest_open_s: float = 60.0,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._tau_s = tau_s
        self._temperature = temperature  # an endpoint slower by this share of the fastest gets 1/e of its chance
        self._exploration = exploration
        self._failures_to_open = failures_to_open
        self._open_s = open_s
        self._longest_open_s = longest_open_s
        self._known: dict[str, _Measured] = {}
        self._lock = threading.Lock()

    def order(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """Every endpoint that may take the request, the chosen one first, the rest as fallbacks, cheapest first.

        When all breakers are open (or nothing is healthy) all endpoints are tried: a guess beats a refusal.
        """
        with self._lock:
            now = self._clock()
            usable = [e for e in endpoints if e.weight > 0 and e.healthy] or list(endpoints)
            for endpoint in usable:
                self._seed(endpoint, now)
            closed = [e for e in usable if self._of(e).open_until_s is None]
            probes = [e for e in usable if self._may_probe(self._of(e), now)]
            if probes:
                self._of(probes[0]).probing = True
                return [probes[0], *self._cheapest_first(closed)]
            if not closed:
                return self._cheapest_first(usable)
            chosen = self._choose(closed)
            return [chosen, *self._cheapest_first([e for e in closed if e is not chosen])]

    def started(self, endpoint: Endpoint) -> None:
        """A request was sent."""
        with self._lock:
            self._of(endpoint).in_flight += 1

    def answered(self, endpoint: Endpoint, latency_s: float) -> None:
        """It answered: the breaker closes."""
        with self._lock:
            known = self._finish(endpoint, latency_s)
            known.failures, known.open_until_s, known.open_for_s = 0, None, 0.0

    def failed(self, endpoint: Endpoint, latency_s: float) -> None:
        """It failed. `latency_s` is what the failure cost the caller at worst: one that fails fast must look slow."""
        with self._lock:
            known = self._finish(endpoint, latency_s)
            known.failures += 1
            if known.failures >= self._failures_to_open or known.open_for_s:
                known.open_for_s = min(known.open_for_s * 2 or self._open_s, self._longest_open_s)
                # Jitter, or all instances would probe a recovering endpoint in the same moment.
                known.open_until_s = self._clock() + known.open_for_s * self._rng.uniform(0.8, 1.2)

    def latency_s(self, endpoint: Endpoint) -> float | None:
        """The smoothed latency."""
        return self._of(endpoint).latency_s

    def is_open(self, endpoint: Endpoint) -> bool:
        """Whether its breaker is open or half-open."""
        return self._of(endpoint).open_until_s is not None

    def _of(self, endpoint: Endpoint) -> _Measured:
        return self._known.setdefault(endpoint.url, _Measured())

    def _seed(self, endpoint: Endpoint, now: float) -> None:
        known = self._of(endpoint)
        if known.latency_s is None and endpoint.latency_s is not None:
            known.latency_s, known.sampled_s = endpoint.latency_s, now

    def _finish(self, endpoint: Endpoint, latency_s: float) -> _Measured:
        known, now = self._of(endpoint), self._clock()
        known.latency_s = smoothed(known.latency_s, latency_s, now - known.sampled_s, self._tau_s)
        known.sampled_s = now
        known.in_flight = max(0, known.in_flight - 1)
        known.probing = False
        return known

    @staticmethod
    def _may_probe(known: _Measured, now: float) -> bool:
        return known.open_until_s is not None and now >= known.open_until_s and not known.probing

    def _cost(self, endpoint: Endpoint) -> float:
        known = self._of(endpoint)
        return cost(known.latency_s, known.in_flight)

    def _cheapest_first(self, endpoints: list[Endpoint]) -> list[Endpoint]:
        return sorted(endpoints, key=self._cost)

    def _choose(self, endpoints: list[Endpoint]) -> Endpoint:
        weights = [e.weight or 1.0 for e in endpoints]
        if self._rng.random() >= self._exploration:
            costs = [self._cost(e) for e in endpoints]
            fastest = max(min(costs), 1e-9)
            weights = [
                weight * math.exp(-(c / fastest - 1.0) / self._temperature)
                for weight, c in zip(weights, costs, strict=True)
            ]
        return self._rng.choices(endpoints, weights)[0]
