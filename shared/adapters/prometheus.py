"""Metrics of a service from a Prometheus server: range queries with a deadline, every failure a MetricsError."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from shared.adapters.aws.session import AwsSession
from shared.contracts import CLOUDS, Cloud, MetricWindow, Series
from shared.errors import MetricsUnavailableError, RefusedError, UnavailableError
from shared.ports import Served
from shared.promql import BY_CLOUD, METRIC, METRICS, query, query_by_cloud, together

#: Prometheus refuses queries of more than 11,000 points
_MOST_POINTS: Final = 10_000
#: where Amazon's managed Prometheus answers; its region need not be the function's
_AMAZON: Final = re.compile(r"^aps-workspaces[\w-]*\.([a-z0-9-]+)\.")


class PrometheusMetrics:
    """MetricsSource over prometheus-api-client. Nothing is contacted before the first window.

    `session` signs where `auth` is sigv4; None = one of its own.
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
        self._url, self._service, self._timeout_s = url.rstrip("/"), service, timeout_s
        headers = {"Authorization": f"Bearer {token}"} if token and auth == "bearer" else None
        signature: Any = _Signature(session or AwsSession()) if auth == "sigv4" else None
        retry = Retry(
            total=1,
            backoff_factor=0.2,
            status_forcelist=(502, 503, 504),
            allowed_methods=("POST",),
            raise_on_status=False,
        )
        self._client = PrometheusConnect(
            self._url,
            headers=headers,
            auth=signature,
            retry=retry,
            session=_Session(self._url),
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
        while first >= 0:
            last = max(0, first - _MOST_POINTS + 1)
            for name, times, values in self._points(asked, end_s - first * step_s, end_s - last * step_s, step_s):
                if name in found:
                    found[name][0].extend(times)
                    found[name][1].extend(values)
            first = last - 1
        series = {name: Series(tuple(times), tuple(values)) for name, (times, values) in found.items()}
        return MetricWindow(service=self._service, start_s=start_s, end_s=end_s, step_s=step_s, series=series)

    def served(self, now_s: float, step_s: float) -> dict[Cloud, Served]:
        """Each cloud's latency and last sign of life.

        Raises:
            MetricsUnavailableError: as `window`.
        """
        asked = together({name: query_by_cloud(name, self._service, step_s) for name in BY_CLOUD})
        found: dict[str, dict[str, float]] = {name: {} for name in BY_CLOUD}
        with self._translated():
            result: Any = self._client.custom_query(asked, params={"time": f"{now_s:.3f}"})
            for entry in result:
                value = float(entry["value"][1])
                if entry["metric"][METRIC] in found and math.isfinite(value):
                    found[entry["metric"][METRIC]][str(entry["metric"].get("cloud", ""))] = value
        latency, seen = found["latency"], found["seen"]
        return {
            cloud: Served(latency.get(cloud), seen.get(cloud)) for cloud in CLOUDS if cloud in latency or cloud in seen
        }

    def _points(
        self, promql: str, start_s: float, end_s: float, step_s: float
    ) -> list[tuple[str, list[float], list[float]]]:
        """Each metric's times and values, those left out that are no number."""
        # the client rounds to whole seconds; round outwards, so that nothing is lost when slots are short
        start, end = (dt.datetime.fromtimestamp(at, dt.UTC) for at in (math.floor(start_s), math.ceil(end_s)))
        with self._translated():
            result: Any = self._client.custom_query_range(promql, start, end, step=f"{step_s:g}")
            return [(str(entry["metric"][METRIC]), *_finite(entry["values"])) for entry in result]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Whatever goes wrong with one query, as one clear error."""
        try:
            yield
        except (PrometheusApiClientException, requests.RequestException) as exc:
            raise MetricsUnavailableError(self._url, _short(exc)) from exc
        except (UnavailableError, RefusedError) as exc:  # no identity to sign with
            raise MetricsUnavailableError(self._url, str(exc)) from exc
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise MetricsUnavailableError(self._url, f"not a Prometheus answer: {_short(exc)}") from exc


class _Session(requests.Session):
    """Asks in the body of a POST: a long query in an address is encoded letter by letter, three times over.

    What the environment says of proxies and certificates is looked up once, not before each request.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        found = self.merge_environment_settings(url, {}, None, None, None)
        self.proxies, self.verify = found["proxies"], found["verify"]
        self.trust_env = False

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """The request with its parameters as a form."""
        request.method, request.data, request.params = "POST", request.params, {}
        return super().prepare_request(request)


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
