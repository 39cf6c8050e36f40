"""`opportune doctor`: everything a deployment needs, one line each: ok, or what to do."""

from __future__ import annotations

import datetime as dt
import email.utils
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import click
import urllib3

from cli.clouds import deployment, service_option
from cli.main import DONE, PARTLY
from cli.output import emit, json_option, say
from shared.addresses import shown
from shared.contracts import Cloud
from shared.deadline import bounded
from shared.errors import ConfigurationError, NoSamplesError, OpportuneError, UnavailableError
from shared.ports import CloudServices
from shared.settings import Settings
from shared.state import State

#: a clock further off than this puts a decision into the wrong slot, and breaks request signatures
MOST_SKEW_S: Final = 30.0
#: how long its clock is waited for
CLOCK_S: Final = 5.0
#: what makes a cloud take part
VARIABLE: Final[dict[Cloud, str]] = {"aws": "AWS_REGION", "azure": "OPPORTUNE_AZURE_STORAGE_ACCOUNT"}


@click.command()
@service_option
@json_option
def doctor(service: str | None, as_json: bool) -> None:
    """Check settings, credentials, Prometheus, queues, tables, training service, endpoint, policy and clock.

    Reads only. Exits with 1 when something is not ok.

    \b
    Example: opportune doctor --service qa
    """
    settings, clouds = deployment(service)
    checks = {
        "settings": lambda: f"service {settings.service}, mode {settings.mode}",
        "policy": lambda: _policy(settings),
        "clock": lambda: _clock(settings),
        "metrics": lambda: _metrics(settings),
    }
    for cloud, services in clouds.items():
        checks |= {f"{cloud} {name}": check for name, check in _checks(services, settings).items()}
    told = [_told(name, check, as_json) for name, check in checks.items()]
    missing = {cloud: f"set {variable}" for cloud, variable in VARIABLE.items() if cloud not in clouds}
    for cloud, advice in missing.items():
        say(f"--    {cloud}: not configured ({advice})", as_json)
    ok = all(one["ok"] for one in told)
    if as_json:
        emit({"ok": ok, "service": settings.service, "checks": told, "not_configured": missing})
    sys.exit(DONE if ok else PARTLY)


def _told(name: str, check: Callable[[], str], as_json: bool) -> dict[str, Any]:
    """The check's outcome, printed."""
    try:
        found = {"name": name, "ok": True, "says": check()}
    except OpportuneError as exc:
        found = {"name": name, "ok": False, "says": str(exc)}
    say(f"{'ok  ' if found['ok'] else 'FAIL'}  {name}: {found['says']}", as_json)
    return found


def _checks(services: CloudServices, settings: Settings) -> dict[str, Callable[[], str]]:
    """One read per service of a cloud."""

    def table() -> str:
        paused = State(services.documents).control(settings.service).paused
        return "answers" + (", retraining is PAUSED: `opportune resume`" if paused else "")

    def dead() -> str:
        count = services.queue.dead_letter_count()
        return f"{count} messages" + (", see `opportune redrive --dry-run`" if count else "")

    def objects() -> str:
        next(iter(services.objects.entries("feedback/")), None)
        return "answers"

    def training() -> str:
        services.training.status("opportune-doctor")
        return "answers"

    def endpoint() -> str:
        host = services.host.state()
        if not host.version:
            return "nothing serves yet; the first accepted model makes it"
        return f"serves {host.version} at {shown(host.url)}" + ("" if host.healthy else f", not healthy: {host.reason}")

    return {
        "table": table,
        "queue": lambda: f"{services.queue.depth()} jobs wait",
        "dead letters": dead,
        "objects": objects,
        "training service": training,
        "endpoint": endpoint,
    }


def _policy(settings: Settings) -> str:
    from policy.policies import live_policy

    found = live_policy(settings.policy, settings.static_every_slots)
    return f"{found.name}, sha256 {found.sha256[:12]}"


def _clock(settings: Settings) -> str:
    """Compare with the clock of Prometheus: decisions are made from its time stamps."""
    from shared.adapters.prometheus import address_of

    where, (url, _) = shown(settings.prometheus_url), address_of(settings.prometheus_url)
    try:
        answer = bounded(
            f"Prometheus at {where}",
            CLOCK_S,
            lambda: urllib3.request("GET", url, timeout=CLOCK_S, retries=False, redirect=False),
        )
    except urllib3.exceptions.HTTPError as exc:
        raise UnavailableError("Prometheus", f"{where}: {type(exc).__name__}; is it running?") from exc
    date = answer.headers.get("Date")
    if date is None:
        return f"{dt.datetime.now(dt.UTC):%H:%M:%S} UTC (Prometheus does not say its own time)"
    skew_s = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    if abs(skew_s) > MOST_SKEW_S:
        raise UnavailableError("clock", f"{skew_s:+.0f} s away from Prometheus; synchronise one of them (NTP)")
    return f"within {max(1.0, abs(skew_s)):.0f} s of Prometheus"


def _metrics(settings: Settings) -> str:
    from policy.observation.live import METRICS, window_of
    from shared.adapters.prometheus import PrometheusMetrics

    token = settings.prometheus_token
    if token.startswith("ssm:"):
        raise ConfigurationError(
            "OPPORTUNE_PROMETHEUS_TOKEN", token, "here the token itself; only the functions read references"
        )
    source = PrometheusMetrics(settings.prometheus_url, settings.service, token, settings.prometheus_auth)
    now_s = time.time()
    window = source.explained(source.window(*window_of(settings, now_s), settings.slot_seconds))
    missing = [name for name in METRICS if not window.series.get(name) or not window.series[name].values]
    if len(missing) == len(METRICS):
        raise NoSamplesError(f"any metric of service {settings.service!r}", next(iter(window.missing.values()), ""))
    told = [name + (f" ({window.missing[name]})" if name in window.missing else "") for name in missing]
    return f"{shown(settings.prometheus_url)} has samples" + (f", none yet of {', '.join(told)}" if told else "")
