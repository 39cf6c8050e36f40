"""One address with metrics: queries with a deadline, the proof of who asks, every failure a MetricsUnavailableError."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from shared.adapters.metric_proofs import Identities, proof_of
from shared.addresses import parted, shown
from shared.contracts import Cloud
from shared.deadline import Deadline, bounded
from shared.errors import ConfigurationError, MetricsUnavailableError, RefusedError, UnavailableError
from shared.promql import METRIC
from shared.settings import MetricStore

T = TypeVar("T")

#: Prometheus refuses queries of more than 11,000 points
_MOST_POINTS: Final = 10_000
#: a window of many parts may take the time of this many at most
_MOST_PARTS: Final = 12


class Sample(NamedTuple):
    """One series' value now."""

    name: str  # the query's, see `shared.promql.together`
    labels: dict[str, str]
    value: float


class PrometheusStore:
    """Nothing is contacted before the first query. No query takes longer than `timeout_s`, wall time, whatever happens.

    A user and password in the address are used as such, and shown nowhere.

    Raises:
        ConfigurationError: the address is none, or its proof lacks something.
    """

    def __init__(self, place: MetricStore, identities: Identities | None = None, timeout_s: float = 5.0) -> None:
        self.cloud: Cloud | None = place.cloud
        self.url, user = address_of(place.url.rstrip("/"), place.variable("URL"))
        self._timeout_s = timeout_s
        self._check = f"check {place.variable('URL')}"
        proof, advice = proof_of(place, user, identities or Identities())
        retry = Retry(
            total=1,
            backoff_factor=0.2,
            status_forcelist=(502, 503, 504),
            allowed_methods=("POST",),
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        self._client = PrometheusConnect(
            self.url,
            auth=proof,
            retry=retry,
            session=_Session(self.url, self._check, advice),
            timeout=math.ceil(timeout_s),
        )

    def series(self, promql: str, start_s: float, end_s: float, step_s: float) -> dict[str, dict[float, float]]:
        """Each query's values by time, as Prometheus says them, those that are no number included.

        Raises:
            MetricsUnavailableError: the store refused, took too long, or answered with something else than samples.
        """
        found: dict[str, dict[float, float]] = {}
        # in as many parts as Prometheus allows points; counted back from the end, so that the last is the present
        first = int((end_s - start_s) / step_s)
        whole = Deadline(self._timeout_s * min(_MOST_PARTS, 1 + max(0, first) // _MOST_POINTS))
        while first >= 0:
            last = max(0, first - _MOST_POINTS + 1)
            start, end = end_s - first * step_s, end_s - last * step_s
            for name, values in self._points(promql, start, end, step_s, whole.left()):
                found.setdefault(name, {}).update(values)
            first = last - 1
        return found

    def now(self, promql: str, at_s: float) -> list[Sample]:
        """Each series' value at a moment, those left out that are no number. Raises as `series`."""

        def ask() -> list[Sample]:
            result: Any = self._client.custom_query(promql, params={"time": f"{at_s:.3f}"})
            found = [Sample(str(one["metric"][METRIC]), dict(one["metric"]), float(one["value"][1])) for one in result]
            return [one for one in found if math.isfinite(one.value)]

        return self._within(self._timeout_s, ask)

    def _points(
        self, promql: str, start_s: float, end_s: float, step_s: float, left_s: float
    ) -> list[tuple[str, dict[float, float]]]:
        # the client rounds to whole seconds; round outwards, so that nothing is lost when slots are short
        start, end = (dt.datetime.fromtimestamp(at, dt.UTC) for at in (math.floor(start_s), math.ceil(end_s)))

        def ask() -> list[tuple[str, dict[float, float]]]:
            result: Any = self._client.custom_query_range(promql, start, end, step=f"{step_s:g}")
            return [
                (str(entry["metric"][METRIC]), {float(at): float(value) for at, value in entry["values"]})
                for entry in result
            ]

        return self._within(min(self._timeout_s, left_s), ask)

    def _within(self, seconds: float, ask: Callable[[], T]) -> T:
        """What a query answers in that time, second tries and a body that drips included."""

        def translated() -> T:
            with self._translated():
                return ask()

        try:
            return bounded("Prometheus", seconds, translated)
        except UnavailableError:  # only the bound is left as one
            raise MetricsUnavailableError(self.url, f"no whole answer within {seconds:.1f} s") from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Whatever goes wrong with one query, as one clear error."""
        try:
            yield
        except _NoMetricsError as exc:
            raise MetricsUnavailableError(self.url, str(exc)) from exc
        except requests.exceptions.JSONDecodeError as exc:
            raise MetricsUnavailableError(self.url, f"not JSON; {self._check}") from exc
        except (PrometheusApiClientException, requests.RequestException) as exc:
            raise MetricsUnavailableError(self.url, _short(exc)) from exc
        except (UnavailableError, RefusedError) as exc:  # no identity to prove
            raise MetricsUnavailableError(self.url, str(exc)) from exc
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise MetricsUnavailableError(self.url, f"not a Prometheus answer: {_short(exc)}") from exc


class _NoMetricsError(Exception):
    """Something answered that is not Prometheus with samples; says what, and what to check."""


class _Session(requests.Session):
    """Asks in the body of a POST: a long query in an address is encoded letter by letter, three times over.

    What the environment says of proxies and certificates is looked up once, not before each request. `address` says
    what to do when somebody else answers, `proof` when the server wants to know who asks.
    """

    def __init__(self, url: str, address: str, proof: str) -> None:
        super().__init__()
        self._address, self._proof = address, proof
        found = self.merge_environment_settings(url, {}, None, None, None)
        self.proxies, self.verify = found["proxies"], found["verify"]
        self.trust_env = False

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """The request with its parameters as a form."""
        request.method, request.data, request.params = "POST", request.params, {}
        return super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """The answer, where it is one to a query: a redirect is not followed, as the query would not come along."""
        answer = super().send(request, **{**kwargs, "allow_redirects": False})
        if problem := self._problem(answer):
            raise _NoMetricsError(problem)
        return answer

    def _problem(self, answer: requests.Response) -> str:
        """What came instead of an answer to the query, and what to check."""
        status, body = answer.status_code, answer.content.lstrip()
        if 300 <= status < 400:
            to = shown(urljoin(answer.url, answer.headers.get("Location", "")))
            return (
                f"HTTP {status}, a redirect to {to}; {self._address} (is there a login before it?), and {self._proof}"
            )
        if status in (401, 403):
            return f"HTTP {status}, {'who asks is not known' if status == 401 else 'who asks may not'}; {self._proof}"
        if status == 404:
            return f"HTTP 404, no Prometheus there; {self._address}"
        if body.startswith(b"<") or "html" in answer.headers.get("Content-Type", ""):
            named = re.search(rb"<title[^>]*>\s*([^<]{1,80})", body[:10_000], re.IGNORECASE)
            title = f" ({' '.join(named.group(1).decode(errors='replace').split())})" if named else ""
            return f"HTTP {status}, a web page{title} instead of JSON; {self._address}, and {self._proof}"
        if status == 200:
            return ""
        try:
            told = f": {msgspec.json.decode(body)['error']!s:.200}"
        except (msgspec.DecodeError, KeyError, TypeError):
            told = ""
        return f"HTTP {status}{told}"


def address_of(url: str, variable: str) -> tuple[str, tuple[str, str] | None]:
    """The address without user and password, and these.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        address, user = parted(url)
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return address, user
    except ValueError:
        pass
    allowed = "an http:// or https:// address; in a password, / ? # and @ are written %2F %3F %23 and %40"
    raise ConfigurationError(variable, shown(url), allowed) from None


def _short(exc: Exception) -> str:
    """An error in a line: the innermost reason, without the query and the object addresses that libraries print."""
    reason = getattr(exc.args[0], "reason", exc) if exc.args else exc
    text = " ".join(str(reason).split()).rsplit(": ", 1)[-1] if reason is not exc else " ".join(str(exc).split())
    return f"{type(reason).__name__}: {text[:200]}"
