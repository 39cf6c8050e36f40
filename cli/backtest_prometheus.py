"""`opportune backtest --prometheus`: the same question, asked about your own past."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from cli.output import console, emit
from cli.picture import Line, Panel, line_of
from cli.times import parse_time
from shared.errors import InvalidInputError


def report(
    url: str,
    since: str | None,
    until: str | None,
    policies: Sequence[str],
    seed: int,
    as_json: bool,
    step_s: int | None,
) -> tuple[Callable[[], list[Panel]], str]:
    """Fetch, fit, replay and print. Returns what makes the picture's panels, and its heading."""
    from policy.training.baselines.registry import check_policy, decider_for
    from policy.training.evaluation.own_history import answer, grid_of, history_of_window, step_seconds
    from shared.adapters.prometheus import metrics_of
    from shared.settings import Settings

    if since is None:
        raise InvalidInputError("--prometheus needs --since, e.g. --since 7d or --since 2026-05-01")
    now_s = time.time()
    start_s = parse_time(since, "--since", now_s)
    end_s = parse_time(until, "--until", now_s) if until else now_s
    if start_s >= end_s:
        raise InvalidInputError(f"--since {since} is not before --until {until or 'now'}")

    for policy in policies:
        check_policy(policy)
    settings = Settings.from_env(os.environ)
    step = float(step_s) if step_s else step_seconds(end_s - start_s, settings.slot_seconds)
    source = metrics_of(settings.asking(url))
    window = source.explained(source.window(start_s, end_s, step))
    result = answer(history_of_window(window, settings), policies, decider_for, seed)
    document = _document(result, grid_of(window)[0], step)
    if as_json:
        emit(document)
    else:
        _print(document)
    return lambda: _panels(result, settings.service), "What you did and what each policy would have done"


def _panels(result: Any, service: str) -> list[Panel]:
    """Quality as it was measured, and as the decay model puts it under each policy."""

    trace, measured = result.fitted.trace(), result.fitted.history.quality
    cheaper = int(trace.job_usd[0].argmin())
    yours = Line("what you did", [float(q) for q in measured], [(start, cheaper) for start in result.actual_starts])
    lines = [yours, *(line_of(one.policy, trace, one.decisions) for one in result.answers)]
    title = f"{service}: quality as measured, and as modelled (circle AWS, square Azure)"
    return [Panel(title, lines, x_per_step=trace.step_minutes / 60.0)]


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
    from rich.table import Table

    history, fitted, actual = document["history"], document["fit"], document["actual"]
    screen = console()
    screen.print(
        f"history: {history['steps']} steps of {history['step_minutes']:g} minutes, quality measured at "
        f"{history['measured_steps']}; {actual['retrains']} retrains"
    )
    screen.print(
        f"decay model: explains {fitted['r_squared']:.0%} of the variance of quality, leaves "
        f"{fitted['residual_sd']:.3f} per measurement; puts your cost at ${actual['modelled_cost_usd']:.2f}, "
        f"measured ${actual['cost_usd']:.2f}"
    )
    if not fitted["retrains_seen"]:
        screen.print("no retrain in this time: what one brings is assumed (as good as the model once was)")
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
    screen.print(table)
