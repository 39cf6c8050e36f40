"""What the use cases are given: settings, clouds, metrics, policy. Built once, in functions.bootstrap.

A use case works on `deps.guarded(seconds)`: then every call of a cloud has a wall-clock limit, whatever a cloud does is
an error of this project's, and a service that was silent once is asked nothing more; without its documents, a cloud.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shared.contracts import Cloud
from shared.deadline import Deadline, bounded
from shared.errors import OpportuneError, UnavailableError
from shared.ports import CloudServices, MetricsSource
from shared.settings import Settings
from shared.state import State

if TYPE_CHECKING:
    from policy.policies import Policy

log = logging.getLogger("opportune.functions")

#: the longest that one call of a cloud may take, however long its library would wait
CALL_S: Final = 8.0
#: of those calls that carry a part of a model or a data set, or copy a file; at most half of what the run has left
LONG_CALL_S: Final = 20.0
_LONG: Final = frozenset(
    ("objects", method) for method in ("get", "put", "get_range", "put_part", "finish_parts", "copy")
)
#: what a listing gives is asked for so many at a time, at most a page of either store
_LISTED: Final = 1000
#: a call that failed after so long was no refusal but silence: the rest of the run does without that service
SILENT_AFTER_S: Final = 1.5
#: where these are silent, nobody there is expected to answer
_CLOUD: Final = "documents"


@dataclass(frozen=True)
class Deps:
    """Dependencies of the tick and of the training use cases."""

    settings: Settings
    clouds: Mapping[Cloud, CloudServices]
    metrics: Callable[[], MetricsSource]
    policy: Callable[[], Policy]
    #: what this run may still take; replaced by `guarded`
    deadline: Deadline = field(default_factory=lambda: Deadline(float("inf")))
    call_s: float = CALL_S
    long_call_s: float = LONG_CALL_S
    #: clouds are read side by side
    parallel: bool = True

    @property
    def own(self) -> CloudServices:
        """The cloud this function runs in."""
        return self.clouds[self.settings.cloud]

    @property
    def home(self) -> Cloud:
        """The active scheduler's cloud: decisions and the training lock are settled in its table."""
        return self.settings.scheduler if self.settings.scheduler in self.clouds else self.settings.cloud

    def state(self, cloud: Cloud) -> State:
        """A cloud's documents."""
        return State(self.clouds[cloud].documents)

    def guarded(self, seconds: float) -> Deps:
        """The same for one run that must be over in `seconds`."""
        deadline = Deadline(seconds)
        guards = {cloud: Guard(cloud, deadline, self.call_s, self.long_call_s) for cloud in self.clouds}
        clouds = {cloud: guards[cloud].services(services) for cloud, services in self.clouds.items()}
        return dataclasses.replace(self, clouds=clouds, deadline=deadline)

    def settling(self) -> list[Cloud]:
        """Where races are settled, in the order to try: at home, then here, then anywhere."""
        order = [self.home, self.settings.cloud, *self.clouds]
        return list(dict.fromkeys(order))

    def reachable(self, what: str) -> Iterator[Attempt]:
        """Each cloud in turn, own first; what one of them does not do is logged and does not stop the others.

        Use as `for attempt in deps.reachable("…"): with attempt as cloud: …`.
        """
        for cloud in sorted(self.clouds, key=lambda c: c != self.settings.cloud):
            yield Attempt(self.clouds[cloud], what)


class Attempt:
    """One cloud's turn: what goes wrong with it is logged, not raised."""

    def __init__(self, cloud: CloudServices, what: str) -> None:
        self._cloud = cloud
        self._what = what

    def __enter__(self) -> CloudServices:
        return self._cloud

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, OpportuneError):
            return False
        log.warning(
            "skipped a cloud",
            extra={"action": self._what, "cloud": self._cloud.cloud, "reason": str(error)},
        )
        return True


class Guard:
    """One cloud during one run: limits each call's time, and remembers which of its services fell silent."""

    def __init__(self, cloud: Cloud, deadline: Deadline, call_s: float, long_call_s: float) -> None:
        self.cloud = cloud
        #: port -> why it is not asked again
        self.silent: dict[str, str] = {}
        self._deadline = deadline
        self._call_s = call_s
        self._long_call_s = long_call_s

    def services(self, services: CloudServices) -> CloudServices:
        """The cloud's ports, each call of which goes through `call`."""
        ports: dict[str, Any] = {
            name: _GuardedPort(self, name, port) for name, port in services._asdict().items() if name != "cloud"
        }
        return services._replace(**ports)

    def call(self, port: str, method: str, call: Callable[[], Any]) -> Any:
        """What the call returns.

        Raises:
            OpportuneError: whatever went wrong. An answer nobody can make sense of is an UnavailableError too.
        """
        what = f"{self.cloud} {port}"
        if why := self.silent.get(port) or self.silent.get(_CLOUD):
            raise UnavailableError(what, f"not asked again in this run: {why}")
        left_s = self._deadline.left()
        seconds = min(self._long_call_s, left_s / 2) if (port, method) in _LONG else min(self._call_s, left_s)
        if seconds <= 0.0:
            raise UnavailableError(what, "the run's time is over")
        started_s = time.monotonic()
        try:
            return bounded(f"{what}.{method}", seconds, call)
        except OpportuneError as exc:
            if isinstance(exc, UnavailableError) and time.monotonic() - started_s >= min(SILENT_AFTER_S, self._call_s):
                self.silent[port] = str(exc)
            raise
        except Exception as exc:  # the one place where any answer of a cloud becomes an error of this project's
            reason = f"an answer that cannot be used: {type(exc).__name__}: {exc}"
            raise UnavailableError(f"{what}.{method}", reason[:500]) from exc


class _GuardedPort:
    """A port whose methods go through a Guard."""

    def __init__(self, guard: Guard, name: str, port: Any) -> None:
        self._guard, self._name, self._port = guard, name, port

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found = self._guard.call(self._name, method, lambda: getattr(self._port, method)(*args, **kwargs))
            return self._pages(method, found) if isinstance(found, Iterator) else found

        return call

    def _pages(self, method: str, found: Iterator[Any]) -> Iterator[Any]:
        """What is listed as it is asked for, each page a call of its own."""
        while page := self._guard.call(self._name, method, lambda: list(itertools.islice(found, _LISTED))):
            yield from page
