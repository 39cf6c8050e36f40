"""`opportune backtest --prometheus`: the same question, asked about your own past."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Sequence
from typing import Any, Final

import click

from shared.errors import InvalidInputError

_AGO: Final = re.compile(r"(\d+)([mhdw])")
_SECONDS: Final = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def parse_time(text: str, option: str) -> float:
    """POSIX seconds of an ISO date or date-time (UTC where it names no zone), or of a time ago: 7d, 12h, 30m, 2w."""
    if ago := _AGO.fullmatch(text.strip()):
        return dt.datetime.now(dt.UTC).timestamp() - float(ago[1]) * _SECONDS[ago[2]]
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidInputError(f"{option} {text!r}: not a time; write 2026-05-01, 2026-05-01T08:00 or 7d") from exc
    return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()


def report(
    url: str,
    since: str | None,
    until: str | None,
    policies: Sequence[str],
    seed: int,
    as_json: bool,
    step_s: int | None,
) -> None:
    """Fetch, fit, replay and print."""
    from policy.training.baselines.registry import check_policy, decider_for
    from policy.training.evaluation.own_history import answer, grid_of, history_of_window, step_seconds
    from shared.adapters.prometheus import PrometheusMetrics
    from shared.settings import Settings

    if since is None:
        raise InvalidInputError("--prometheus needs --since, e.g. --since 7d or --since 2026-05-01")
    start_s = parse_time(since, "--since")
    end_s = parse_time(until, "--until") if until else dt.datetime.now(dt.UTC).timestamp()
    if start_s >= end_s:
        raise InvalidInputError(f"--since {since} is not before --until {until or 'now'}")

    for policy in policies:
        check_policy(policy)
    settings = Settings.from_env(os.environ)
    step = float(step_s) if step_s else step_seconds(end_s - start_s, settings.slot_seconds)
    source = PrometheusMetrics(url, settings.service, settings.prometheus_token, settings.prometheus_auth)
    window = source.window(start_s, end_s, step)
    result = answer(history_of_window(window, settings), policies, decider_for, seed)
    document = _document(result, grid_of(window)[0], step)
    if as_json:
        click.echo(json.dumps(document))
    else:
        _print(document)


def _document(result: Any, start_s: float, step_s: float) -> dict[str, Any]:
    fitted = result.fitted

    def times(starts: Sequence[int]) -> list[str]:
        return [dt.datetime.fromtimestamp(start_s + t * step_s, dt.UTC).isoformat() for t in starts]

    return {
        "history": {
            "steps": len(fitted.serving),
            "step_minutes": fitted.history.step_minutes,
            "measured_steps": int((fitted.residual == fitted.residual).sum()),
        },
        "fit": {
            "residual_sd": fitted.residual_sd,
            "r_squared": fitted.r_squared,
            "retrains_seen": fitted.retrains_seen,
        },
        "actual": {
            "cost_usd": result.actual_cost_usd,
            "modelled_cost_usd": result.modelled_cost_usd,
            "mean_quality": result.actual_quality,
            "retrains": len(result.actual_starts),
            "retrained_at": times(result.actual_starts),
        },
        "policies": [
            {
                "policy": one.policy,
                "cost_usd": one.cost_usd,
                "saved_usd": one.saved_usd,
                "saved_interval_usd": [one.saved_low_usd, one.saved_high_usd],
                "mean_quality": one.mean_quality,
                "retrains": len(one.starts),
                "retrained_at": times(one.starts),
            }
            for one in result.answers
        ],
    }


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    history, fitted, actual = document["history"], document["fit"], document["actual"]
    console = Console(width=110)
    console.print(
        f"history: {history['steps']} steps of {history['step_minutes']:g} minutes, quality measured at "
        f"{history['measured_steps']}; {actual['retrains']} retrains"
    )
    console.print(
        f"decay model: explains {fitted['r_squared']:.0%} of the variance of quality, leaves "
        f"{fitted['residual_sd']:.3f} per measurement; puts your cost at ${actual['modelled_cost_usd']:.2f}, "
        f"measured ${actual['cost_usd']:.2f}"
    )
    if not fitted["retrains_seen"]:
        console.print("no retrain in this time: what one brings is assumed (as good as the model once was)")
    table = Table(title="What each policy would have cost (90 % interval of what it would have saved)")
    for column in ("policy", "cost $", "saved $", "interval $", "retrains", "quality"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    table.add_row(
        "what you did",
        f"{actual['modelled_cost_usd']:.2f}",
        "",
        "",
        str(actual["retrains"]),
        f"{actual['mean_quality']:.3f}",
    )
    for one in sorted(document["policies"], key=lambda p: float(p["cost_usd"])):
        low, high = one["saved_interval_usd"]
        table.add_row(
            one["policy"],
            f"{one['cost_usd']:.2f}",
            f"{one['saved_usd']:+.2f}",
            f"{low:+.2f} to {high:+.2f}",
            str(one["retrains"]),
            f"{one['mean_quality']:.3f}",
        )
    console.print(table)
