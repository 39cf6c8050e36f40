"""Notifier over a Prometheus Pushgateway: absolute values, so that pushing twice changes nothing."""

from __future__ import annotations

import base64

import urllib3

from shared.adapters.http import pool
from shared.addresses import parted, without_users
from shared.errors import UnavailableError


class Pushgateway:
    """One group per label set. POST replaces the metric of that name only; PUT would wipe its neighbours."""

    def __init__(self, url: str, job: str = "opportune") -> None:
        address, user = parted(url)
        self._url = address.rstrip("/")
        self._login = urllib3.make_headers(basic_auth=":".join(user)) if user else {}
        self._job = job
        self._pool = pool()

    def push(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Replace the value of `name`.

        The labels become the grouping key: Pushgateway adds them to the sample.
        """
        group = "".join(f"/{key}@base64/{_base64(text)}" for key, text in sorted(labels.items()))
        kind = "counter" if name.endswith("_total") else "gauge"
        try:
            answer = self._pool.request(
                "POST",
                f"{self._url}/metrics/job/{self._job}{group}",
                body=f"# TYPE {name} {kind}\n{name} {value!r}\n".encode(),
                headers={"Content-Type": "text/plain; version=0.0.4", **self._login},
                timeout=urllib3.Timeout(total=5.0),
            )
        except urllib3.exceptions.HTTPError as exc:
            raise UnavailableError("Pushgateway", without_users(str(exc))) from exc
        if answer.status >= 300:
            raise UnavailableError("Pushgateway", f"HTTP {answer.status}: {answer.data[:200]!r}")


def _base64(text: str) -> str:
    """Pushgateway's form for label values that may hold slashes or be empty."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") or "="
