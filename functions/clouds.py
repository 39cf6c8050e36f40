"""What the use cases are given: settings, clouds, metrics, policy. Built once, in functions.bootstrap."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.contracts import Cloud
from shared.errors import NotFoundError, UnavailableError
from shared.ports import CloudServices, MetricsSource, Notifier
from shared.records import State
from shared.settings import Settings

if TYPE_CHECKING:
    from policy.policies import Policy

log = logging.getLogger("opportune.functions")


@dataclass(frozen=True)
class Deps:
    """Dependencies of the tick and of the training use cases."""

    settings: Settings
    clouds: Mapping[Cloud, CloudServices]
    metrics: Callable[[], MetricsSource]
    policy: Callable[[], Policy]
    notifier: Notifier | None
    #: other clouds that did not answer -> when to ask them again (monotonic seconds)
    silent: dict[Cloud, float] = field(default_factory=dict)

    @property
    def own(self) -> CloudServices:
        """The cloud this function runs in."""
        return self.clouds[self.settings.cloud]

    @property
    def home(self) -> CloudServices:
        """The active scheduler's cloud: decisions and the training lock are settled in its table."""
        return self.clouds.get(self.settings.scheduler, self.own)

    def state(self, cloud: Cloud) -> State:
        """A cloud's documents."""
        return State(self.clouds[cloud].documents)

    def reachable(self, what: str) -> Iterator[Attempt]:
        """Each cloud in turn, own first; one that does not answer is logged, and skipped for half a slot.

        Use as `for attempt in deps.reachable("…"): with attempt as cloud: …`. Waiting for the same time-out in every
        step of a tick would cost the tick.
        """
        for cloud in sorted(self.clouds, key=lambda c: c != self.settings.cloud):
            if not self._is_silent(cloud):
                yield Attempt(self, self.clouds[cloud], what)

    def fell_silent(self, cloud: Cloud) -> None:
        """Remember that another cloud did not answer."""
        if cloud != self.settings.cloud:
            self.silent[cloud] = time.monotonic() + self.settings.slot_seconds / 2

    def _is_silent(self, cloud: Cloud) -> bool:
        return time.monotonic() < self.silent.get(cloud, 0.0)

    def at_home(self) -> tuple[State, State]:
        """(where to settle races, where to settle them if that cloud does not answer)."""
        return self.state(self.home_now), State(self.own.documents)

    @property
    def home_now(self) -> Cloud:
        """Where races are settled: at home, unless that cloud just did not answer."""
        return self.settings.cloud if self._is_silent(self.home.cloud) else self.home.cloud


class Attempt:
    """One cloud's turn: that it does not answer, or lacks what is asked for, is logged, not raised."""

    def __init__(self, deps: Deps, cloud: CloudServices, what: str) -> None:
        self._deps = deps
        self._cloud = cloud
        self._what = what

    def __enter__(self) -> CloudServices:
        return self._cloud

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, UnavailableError | NotFoundError):
            return False
        if isinstance(error, UnavailableError):
            self._deps.fell_silent(self._cloud.cloud)
        log.warning(
            "skipped a cloud that does not answer",
            extra={"action": self._what, "cloud": self._cloud.cloud, "reason": str(error)},
        )
        return True
