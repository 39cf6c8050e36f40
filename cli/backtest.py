"""`opportune backtest`: what each policy would have done and cost, on drift traces or on your own history."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from cli.output import console, emit, json_option, say
from cli.picture import Panel, line_of, svg
from shared.errors import InvalidInputError

DEFAULT_POLICIES = ("ppo", "never", "static", "periodic", "cusum", "regret", "oracle")
DEFAULT_PICTURE = Path("backtest.svg")
#: traces drawn into one picture
PANELS = 6


@click.command()
@click.argument("traces", nargs=-1, metavar="TRACE.npz...")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME|PATH",
    help="ppo, a rule (any wrong name lists them all), or an .onnx file; may be repeated. Default: "
    + ", ".join(DEFAULT_POLICIES)
    + ".",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of measurement noise.")
@json_option
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default: one per core.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Where to draw quality and decisions over time [{DEFAULT_PICTURE}; none with --json].",
)
@click.option("--prometheus", metavar="URL", help="Backtest on this Prometheus' history instead of trace files.")
@click.option("--since", help="Start of the history: 7d (ago), 2026-05-01 or 2026-05-01T08:00 (UTC).")
@click.option("--until", help="End of the history, the same way; default: now.")
@click.option(
    "--step", "step_s", type=click.IntRange(min=1), help="Seconds per step of the history; default: by length."
)
def backtest(
    traces: tuple[str, ...],
    policies: tuple[str, ...],
    seed: int,
    as_json: bool,
    workers: int | None,
    picture: Path | None,
    prometheus: str | None,
    since: str | None,
    until: str | None,
    step_s: int | None,
) -> None:
    """Replay policies over drift traces and compare them with the clairvoyant optimum.

    For your own history, prices, training times and the worth of quality are the OPPORTUNE_ settings of the service.

    \b
    Example: opportune backtest traces/*.npz --policy ppo --policy cusum --policy never
    Example: opportune backtest --prometheus http://localhost:9090 --since 7d
    """
    from cli.policies import check
    from cli.traces import check as check_traces

    chosen = list(dict.fromkeys(policies or DEFAULT_POLICIES))
    for policy in chosen:
        check(policy, replayed=True)
    if prometheus is not None and traces:
        raise InvalidInputError("give trace files or --prometheus, not both")
    if prometheus is None and not traces:
        raise InvalidInputError("no trace: give TRACE.npz files, or --prometheus URL for your own history")
    if prometheus is None and (since or until):
        raise InvalidInputError("--since and --until belong to --prometheus")
    drawn = picture or (None if as_json else DEFAULT_PICTURE)
    if drawn is not None:
        _check_picture(drawn)
    if prometheus is not None:
        from cli.backtest_prometheus import report

        panels, heading = report(prometheus, since, until, chosen, seed, as_json, step_s)
    else:
        check_traces(traces)
        runs = _run(traces, chosen, seed, workers, quiet=as_json)
        if as_json:
            emit({"runs": [run.to_json() for run in runs]})
        else:
            _table(runs)
        panels, heading = lambda: _panels(runs), _heading(runs)
    if drawn is not None:
        _draw(panels(), heading, drawn)
        say(f"picture: {drawn}", as_json)


def _check_picture(picture: Path) -> None:
    """Refuse what cannot be written, before minutes of work."""
    folder = picture.parent
    reason = "no such folder" if not folder.is_dir() else None if os.access(folder, os.W_OK) else "folder not writable"
    if picture.exists():
        reason = None if os.access(picture, os.W_OK) else "not writable"
    if reason is not None:
        raise InvalidInputError(f"--picture {picture}: {reason}; name a place that can be written, or use --json")


def _run(traces: Sequence[str], policies: Sequence[str], seed: int, workers: int | None, *, quiet: bool) -> list[Any]:
    from rich.progress import Progress

    from policy.training.baselines.registry import POLICIES
    from policy.training.evaluation.backtest import backtest as run_all

    screen = console(stderr=True)
    shown = Progress(console=screen, transient=True) if not quiet and screen.is_terminal else None
    with shown or nullcontext():
        if shown is None:
            return run_all(traces, policies, POLICIES, seed, workers)
        task = shown.add_task(f"{len(traces)} traces x {len(policies)} policies", total=len(traces))
        return run_all(traces, policies, POLICIES, seed, workers, lambda done: shown.update(task, completed=done))


def _table(runs: Sequence[Any]) -> None:
    """Means over the traces, best policy first."""
    import numpy as np
    from rich.table import Table

    by_policy: dict[str, list[Any]] = {}
    for run in runs:
        by_policy.setdefault(run.policy, []).append(run)
    table = Table(title=f"{len({run.trace for run in runs})} traces; cost over the clairvoyant optimum, means")
    for column in ("policy", "J/J*", "cost $", "retrains", "quality", "µs/decision"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for policy, group in sorted(by_policy.items(), key=lambda item: float(np.mean([run.ratio for run in item[1]]))):
        table.add_row(
            policy,
            f"{np.mean([run.ratio for run in group]):.3f}",
            f"{np.mean([run.cost_usd for run in group]):.2f}",
            f"{np.mean([run.retrains for run in group]):.1f}",
            f"{np.mean([run.mean_quality for run in group]):.3f}",
            "-" if policy == "oracle" else f"{1e6 * np.mean([run.seconds_per_decision for run in group]):.0f}",
        )
    console().print(table)


def _heading(runs: Sequence[Any]) -> str:
    traces = len({run.trace for run in runs})
    more = f"; the first {PANELS} of {traces} traces" if traces > PANELS else ""
    return f"Quality and retrains over time (circle AWS, square Azure){more}"


def _panels(runs: Sequence[Any]) -> list[Panel]:
    """Quality and decisions over time of the first traces; the optimal plan is always among the lines."""
    from policy.training.simulator.cost import optimal_plan
    from policy.training.simulator.trace import load

    panels = []
    for name in list(dict.fromkeys(run.trace for run in runs))[:PANELS]:
        trace = load(Path(name))
        plans = {run.policy: run.decisions for run in runs if run.trace == name}
        plans.setdefault("oracle", optimal_plan(trace)[1])
        lines = [line_of(policy, trace, decisions) for policy, decisions in plans.items()]
        panels.append(Panel(f"{trace.name}: quality of the serving model", lines, x_per_step=trace.step_minutes / 60.0))
    return panels


def _draw(panels: Sequence[Panel], heading: str, picture: Path) -> None:
    try:
        picture.write_text(svg(panels, heading), encoding="utf-8")
    except OSError as exc:
        raise InvalidInputError(f"--picture {picture}: {exc.strerror}") from exc
