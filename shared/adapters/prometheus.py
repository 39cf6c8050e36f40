"""Metrics of a service from a Prometheus server: range queries with a deadline, every failure a MetricsError."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from shared.adapters.aws.session import AwsSession
from shared.addresses import parted, shown
from shared.contracts import CLOUDS, Cloud, MetricWindow, Series
from shared.deadline import Deadline, bounded
from shared.errors import ConfigurationError, MetricsUnavailableError, RefusedError, UnavailableError
from shared.promql import BY_CLOUD, METRIC, METRICS, RATES, SOURCE, query, query_by_cloud, query_facts, together
from shared.values import Served

T = TypeVar("T")

#: Prometheus refuses queries of more than 11,000 points
_MOST_POINTS: Final = 10_000
#: a window of many parts may take the time of this many at most
_MOST_PARTS: Final = 12
#: a series that ended this many slots before its window did is looked into as one that is empty
_ENDED_SLOTS: Final = 3.0
#: names of services that are listed
_MOST_NAMES: Final = 5
#: where Amazon's managed Prometheus answers; its region need not be the function's
_AMAZON: Final = re.compile(r"^aps-workspaces[\w-]*\.([a-z0-9-]+)\.")


class PrometheusMetrics:
    """MetricsSource over prometheus-api-client. Nothing is contacted before the first window.

    `session` signs where `auth` is sigv4; None = one of its own. A user and password in the address are used as such,
    and shown nowhere. No query takes longer than `timeout_s`, wall time, whatever the server does.

    Raises:
        ConfigurationError: the address is none.
    """

    def __init__(
        self,
        url: str,
        service: str,
        token: str = "",
        auth: Literal["none", "bearer", "sigv4"] = "bearer",
        timeout_s: float = 5.0,
        session: AwsSession | None = None,
    ) -> None:
        self._url, user = address_of(url.rstrip("/"))
        self._service, self._timeout_s = service, timeout_s
        headers: dict[str, str] | None = None
        proof: requests.auth.AuthBase | None = None
        check = "set OPPORTUNE_PROMETHEUS_TOKEN, or OPPORTUNE_PROMETHEUS_AUTH to sigv4"
        if auth == "sigv4":
            proof = _Signature(session or AwsSession())
            check = "check OPPORTUNE_PROMETHEUS_AUTH and this identity's right aps:QueryMetrics"
        elif user is not None:
            proof = requests.auth.HTTPBasicAuth(*(part.encode() for part in user))
            check = "check the user and password in OPPORTUNE_PROMETHEUS_URL"
        elif token and auth == "bearer":
            headers = {"Authorization": f"Bearer {token}"}
            check = "check OPPORTUNE_PROMETHEUS_TOKEN"
        retry = Retry(
            total=1,
            backoff_factor=0.2,
            status_forcelist=(502, 503, 504),
            allowed_methods=("POST",),
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        self._client = PrometheusConnect(
            self._url,
            headers=headers,
            auth=proof,
            retry=retry,
            session=_Session(self._url, check),
            timeout=math.ceil(timeout_s),
        )

    def window(self, start_s: float, end_s: float, step_s: float, names: Collection[str] = METRICS) -> MetricWindow:
        """The metrics over [start_s, end_s], one point per step; a metric without samples has an empty series.

        Raises:
            MetricsUnavailableError: Prometheus refused, timed out, or answered with something else than samples.
        """
        asked = together({name: query(name, self._service, step_s) for name in names})
        found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
        # in as many parts as Prometheus allows points; counted back from the end, so that the last is the present
        first = int((end_s - start_s) / step_s)
        whole = Deadline(self._timeout_s * min(_MOST_PARTS, 1 + max(0, first) // _MOST_POINTS))
        while first >= 0:
            last = max(0, first - _MOST_POINTS + 1)
            start, end = end_s - first * step_s, end_s - last * step_s
            for name, times, values in self._points(asked, start, end, step_s, whole.left()):
                if name in found:
                    found[name][0].extend(times)
                    found[name][1].extend(values)
            first = last - 1
        series = {name: Series(tuple(times), tuple(values)) for name, (times, values) in found.items()}
        return MetricWindow(service=self._service, start_s=start_s, end_s=end_s, step_s=step_s, series=series)

    def explained(self, window: MetricWindow) -> MetricWindow:
        """The window, with why a metric that a decision needs has no samples where one has none: one more query then.

        Nothing is raised: where Prometheus does not tell, the reason stays unknown.
        """
        newest_s = {
            name: one.timestamps_s[-1] if len(one.timestamps_s) else -math.inf for name, one in window.series.items()
        }
        ended_s = window.end_s - _ENDED_SLOTS * window.step_s
        silent = [name for name in SOURCE if newest_s.get(name, math.inf) < ended_s]
        if not silent:
            return window
        facts: dict[str, dict[str, float]] = {}
        try:
            for name, labels, value in self._now(query_facts(silent, window.service, window.step_s), window.end_s):
                facts.setdefault(name, {})[labels.get("service", "")] = value
        except MetricsUnavailableError:
            return window
        told = {name: _why(name, facts, window) for name in silent}
        return msgspec.structs.replace(window, missing=told)

    def served(self, now_s: float, step_s: float) -> dict[Cloud, Served]:
        """Each cloud's latency and last sign of life.

        Raises:
            MetricsUnavailableError: as `window`.
        """
        asked = together({name: query_by_cloud(name, self._service, step_s) for name in BY_CLOUD})
        found: dict[str, dict[str, float]] = {name: {} for name in BY_CLOUD}
        for name, labels, value in self._now(asked, now_s):
            if name in found:
                found[name][labels.get("cloud", "")] = value
        latency, seen = found["latency"], found["seen"]
        return {
            cloud: Served(latency.get(cloud), seen.get(cloud)) for cloud in CLOUDS if cloud in latency or cloud in seen
        }

    def _now(self, promql: str, at_s: float) -> list[tuple[str, dict[str, str], float]]:
        """Each metric's labels and value at a moment, those left out that are no number."""

        def ask() -> list[tuple[str, dict[str, str], float]]:
            result: Any = self._client.custom_query(promql, params={"time": f"{at_s:.3f}"})
            found = [(str(one["metric"][METRIC]), dict(one["metric"]), float(one["value"][1])) for one in result]
            return [one for one in found if math.isfinite(one[2])]

        return self._within(self._timeout_s, ask)

    def _points(
        self, promql: str, start_s: float, end_s: float, step_s: float, left_s: float
    ) -> list[tuple[str, list[float], list[float]]]:
        """Each metric's times and values, those left out that are no number."""
        # the client rounds to whole seconds; round outwards, so that nothing is lost when slots are short
        start, end = (dt.datetime.fromtimestamp(at, dt.UTC) for at in (math.floor(start_s), math.ceil(end_s)))

        def ask() -> list[tuple[str, list[float], list[float]]]:
            result: Any = self._client.custom_query_range(promql, start, end, step=f"{step_s:g}")
            return [(str(entry["metric"][METRIC]), *_finite(entry["values"])) for entry in result]

        return self._within(min(self._timeout_s, left_s), ask)

    def _within(self, seconds: float, ask: Callable[[], T]) -> T:
        """What a query answers in that time, second tries and a body that drips included."""

        def translated() -> T:
            with self._translated():
                return ask()

        try:
            return bounded("Prometheus", seconds, translated)
        except UnavailableError:  # only the bound is left as one
            raise MetricsUnavailableError(self._url, f"no whole answer within {seconds:.1f} s") from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Whatever goes wrong with one query, as one clear error."""
        try:
            yield
        except _NoMetricsError as exc:
            raise MetricsUnavailableError(self._url, str(exc)) from exc
        except requests.exceptions.JSONDecodeError as exc:
            raise MetricsUnavailableError(self._url, f"not JSON; {_CHECK_URL}") from exc
        except (PrometheusApiClientException, requests.RequestException) as exc:
            raise MetricsUnavailableError(self._url, _short(exc)) from exc
        except (UnavailableError, RefusedError) as exc:  # no identity to sign with
            raise MetricsUnavailableError(self._url, str(exc)) from exc
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise MetricsUnavailableError(self._url, f"not a Prometheus answer: {_short(exc)}") from exc


class _NoMetricsError(Exception):
    """Something answered that is not Prometheus with samples; says what, and what to check."""


_CHECK_URL: Final = "check OPPORTUNE_PROMETHEUS_URL"


class _Session(requests.Session):
    """Asks in the body of a POST: a long query in an address is encoded letter by letter, three times over.

    What the environment says of proxies and certificates is looked up once, not before each request. `check` says what
    to do when the server wants to know who asks.
    """

    def __init__(self, url: str, check: str) -> None:
        super().__init__()
        self._check = check
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
            return f"HTTP {status}, a redirect to {to}; {_CHECK_URL} (is there a login before it?), and {self._check}"
        if status in (401, 403):
            return f"HTTP {status}, {'who asks is not known' if status == 401 else 'who asks may not'}; {self._check}"
        if status == 404:
            return f"HTTP 404, no Prometheus there; {_CHECK_URL}"
        if body.startswith(b"<") or "html" in answer.headers.get("Content-Type", ""):
            named = re.search(rb"<title[^>]*>\s*([^<]{1,80})", body[:10_000], re.IGNORECASE)
            title = f" ({' '.join(named.group(1).decode(errors='replace').split())})" if named else ""
            return f"HTTP {status}, a web page{title} instead of JSON; {_CHECK_URL}, and {self._check}"
        if status == 200:
            return ""
        try:
            told = f": {msgspec.json.decode(body)['error']!s:.200}"
        except (msgspec.DecodeError, KeyError, TypeError):
            told = ""
        return f"HTTP {status}{told}"


class _Signature(requests.auth.AuthBase):
    """Signs each request with this process's AWS identity."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        assert request.method and request.url and isinstance(request.body, str), "requests prepared the form"
        found = _AMAZON.match(urlsplit(request.url).hostname or "")
        region = found.group(1) if found else ""
        body = request.body.encode()
        proven = self._session.sign(request.method, request.url, body, {}, service="aps", region=region)
        request.headers.update(proven)
        return request


def address_of(url: str) -> tuple[str, tuple[str, str] | None]:
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
    raise ConfigurationError("OPPORTUNE_PROMETHEUS_URL", shown(url), allowed) from None


def _why(name: str, facts: Mapping[str, Mapping[str, float]], window: MetricWindow) -> str:
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


def _finite(samples: list[tuple[float, str]]) -> tuple[list[float], list[float]]:
    """Times and values of Prometheus' samples, without those that are no number."""
    times, values = [float(at) for at, _ in samples], [float(value) for _, value in samples]
    if all(map(math.isfinite, values)):
        return times, values
    known = [(at, value) for at, value in zip(times, values, strict=True) if math.isfinite(value)]
    return [at for at, _ in known], [value for _, value in known]


def _short(exc: Exception) -> str:
    """An error in a line: the innermost reason, without the query and the object addresses that libraries print."""
    reason = getattr(exc.args[0], "reason", exc) if exc.args else exc
    text = " ".join(str(reason).split()).rsplit(": ", 1)[-1] if reason is not exc else " ".join(str(exc).split())
    return f"{type(reason).__name__}: {text[:200]}"
