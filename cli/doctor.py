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
from cli.doctor_clouds import NotCheckedError, WarnedError
from cli.doctor_clouds import checks as cloud_checks
from cli.main import DONE, PARTLY
from cli.output import emit, json_option, say
from shared.addresses import shown
from shared.contracts import Cloud
from shared.deadline import bounded
from shared.errors import ConfigurationError, NoSamplesError, OpportuneError, UnavailableError
from shared.settings import MetricStore, Settings

#: a clock further off than this puts a decision into the wrong slot, and breaks request signatures
MOST_SKEW_S: Final = 30.0
#: how long its clock is waited for
CLOCK_S: Final = 5.0
#: and any one check
CHECK_S: Final = 30.0
#: what makes a cloud take part
VARIABLE: Final[dict[Cloud, str]] = {"aws": "AWS_REGION", "azure": "OPPORTUNE_AZURE_STORAGE_ACCOUNT"}


@click.command()
@service_option
@json_option
def doctor(service: str | None, as_json: bool) -> None:
    """Check everything that the loop needs on each configured cloud; each line is ok, or says what to do.

    Settings, policy, clock and metrics; per cloud the stores and queues, the training service, endpoint, release,
    instances and labels, prices, image, roles, quotas and whether alarms reach somebody. What you may not look at is
    said to be not checked.

    Reads only. Exits with 1 when something is missing; a warning alone is none.

    \b
    Example: opportune doctor --service qa
    """
    settings, clouds = deployment(service)
    checks: dict[str, Callable[[], str]] = {
        "settings": lambda: f"service {settings.service}, mode {settings.mode}",
        "policy": lambda: _policy(settings),
        "clock": lambda: _clock(settings),
        "metrics": lambda: _metrics(settings),
    }
    for cloud, services in clouds.items():
        checks |= {f"{cloud} {name}": check for name, check in cloud_checks(services, settings).items()}
    told = [_told(name, check, as_json) for name, check in checks.items()]
    missing = {cloud: f"set {variable}" for cloud, variable in VARIABLE.items() if cloud not in clouds}
    for cloud, advice in missing.items():
        say(f"--    {cloud}: not configured ({advice})", as_json)
    ok = all(one["ok"] for one in told)
    if as_json:
        emit({"ok": ok, "service": settings.service, "checks": told, "not_configured": missing})
    sys.exit(DONE if ok else PARTLY)


#: what a line begins with
_MARKS: Final = {"ok": "ok  ", "warning": "WARN", "failed": "FAIL", "not checked": "--  "}


def _told(name: str, check: Callable[[], str], as_json: bool) -> dict[str, Any]:
    """The check's outcome, printed. What one of them does not foresee does not stop the others."""
    level = "ok"
    try:
        says = bounded(name, CHECK_S, check)
    except WarnedError as exc:
        level, says = "warning", str(exc)
    except NotCheckedError as exc:
        level, says = "not checked", str(exc)
    except OpportuneError as exc:
        level, says = "failed", str(exc)
    except Exception as exc:
        level, says = "failed", f"could not be checked: {type(exc).__name__}: {' '.join(str(exc).split())[:300]}"
    say(f"{_MARKS[level]}  {name}: {says}", as_json)
    return {"name": name, "ok": level != "failed", "level": level, "says": says}


def _policy(settings: Settings) -> str:
    from policy.policies import live_policy

    found = live_policy(settings.policy, settings.static_every_slots)
    return f"{found.name}, sha256 {found.sha256[:12]}"


def _clock(settings: Settings) -> str:
    """Compare with the clock of each Prometheus: decisions are made from its time stamps."""
    return "; ".join(_clock_of(place) for place in settings.metric_stores())


def _clock_of(place: MetricStore) -> str:
    from shared.adapters.prometheus_store import address_of

    where, (url, _) = shown(place.url), address_of(place.url, place.variable("URL"))
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
    from policy.observation.live import METRICS, REQUIRED, window_of
    from shared.adapters.prometheus import metrics_of

    places = settings.metric_stores()
    for place in places:
        if place.token.startswith("ssm:"):
            variable, allowed = place.variable("TOKEN"), "here the token itself; only the functions read references"
            raise ConfigurationError(variable, place.token, allowed)
    source = metrics_of(settings)
    now_s = time.time()
    window = source.explained(source.window(*window_of(settings, now_s), settings.slot_seconds))
    missing = [name for name in METRICS if not window.series.get(name) or not window.series[name].values]
    if len(missing) == len(METRICS):
        raise NoSamplesError(f"any metric of service {settings.service!r}", next(iter(window.missing.values()), ""))
    needed = [name for name in missing if name in REQUIRED]
    if needed:
        why = {name: window.missing.get(name, "") for name in needed}
        raise NoSamplesError(needed[0], "; ".join(f"{name}: {words}" for name, words in why.items() if words))
    told = [name + (f" ({window.missing[name]})" if name in window.missing else "") for name in missing]
    if window.silent:
        silent = "; ".join(f"{cloud}: {why}" for cloud, why in window.silent.items())
        raise UnavailableError("a cloud's metrics", f"decisions are made without it: {silent}")
    found = " and ".join(shown(place.url) for place in places)
    return f"{found}: samples" + (f", none yet of {', '.join(told)}" if told else "")
