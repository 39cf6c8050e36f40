"""`opportune backtest`: what each policy would have done and cost, on drift traces or on your own history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from shared.errors import InvalidInputError

DEFAULT_POLICIES = ("never", "static", "periodic", "cusum", "regret", "ppo", "oracle")
#: traces drawn into one picture
PANELS = 6


@click.command()
@click.argument("traces", nargs=-1, metavar="TRACE.npz...")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    help="A policy by name, or an .onnx file; may be repeated. Default: " + ", ".join(DEFAULT_POLICIES) + ".",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of measurement noise.")
@click.option("--json", "as_json", is_flag=True, help="Print every run as JSON on standard output, and nothing else.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default: one per core.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("backtest.svg"),
    show_default=True,
    help="Where to draw quality and decisions over time (not with --json).",
)
@click.option("--prometheus", metavar="URL", help="Backtest on this Prometheus' history instead of trace files.")
@click.option("--since", help="Start of the history: 7d (ago), 2026-05-01 or 2026-05-01T08:00 (UTC).")
@click.option("--until", help="End of the history; default: now.")
@click.option(
    "--step", "step_s", type=click.IntRange(min=1), help="Seconds per step of the history; default: by length."
)
def backtest(
    traces: tuple[str, ...],
    policies: tuple[str, ...],
    seed: int,
    as_json: bool,
    workers: int | None,
    picture: Path,
    prometheus: str | None,
    since: str | None,
    until: str | None,
    step_s: int | None,
) -> None:
    """Replay policies over drift traces and compare them with the clairvoyant optimum.

    Example: opportune backtest traces/*.npz --policy ppo --policy cusum --policy never

    Example: opportune backtest --prometheus http://localhost:9090 --since 7d

    For your own history, prices, training times and the worth of quality are the OPPORTUNE_ settings of the service.
    """
    chosen = list(dict.fromkeys(policies or DEFAULT_POLICIES))
    if prometheus is not None:
        if traces:
            raise InvalidInputError("give trace files or --prometheus, not both")
        from cli.backtest_prometheus import report

        report(prometheus, since, until, chosen, seed, as_json, step_s)
        return
    if not traces:
        raise InvalidInputError("no trace: give TRACE.npz files, or --prometheus URL for your own history")
    if since or until:
        raise InvalidInputError("--since and --until belong to --prometheus")
    runs = _run(traces, chosen, seed, workers, quiet=as_json)
    if as_json:
        click.echo(json.dumps({"runs": [run.to_json() for run in runs]}))
        return
    _table(runs)
    _draw(runs, picture)


def _run(traces: Sequence[str], policies: Sequence[str], seed: int, workers: int | None, *, quiet: bool) -> list[Any]:
    from rich.console import Console
    from rich.progress import Progress

    from policy.training.baselines.registry import POLICIES
    from policy.training.evaluation.backtest import backtest as run_all

    console = Console(stderr=True)
    shown = Progress(console=console, transient=True) if not quiet and console.is_terminal else None
    with shown or nullcontext():
        if shown is None:
            return run_all(traces, policies, POLICIES, seed, workers)
        task = shown.add_task(f"{len(traces)} traces x {len(policies)} policies", total=len(traces))
        return run_all(traces, policies, POLICIES, seed, workers, lambda done: shown.update(task, completed=done))


def _table(runs: Sequence[Any]) -> None:
    """Means over the traces, best policy first."""
    import numpy as np
    from rich.console import Console
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
    Console(width=100).print(table)


def _draw(runs: Sequence[Any], picture: Path) -> None:
    """Quality and decisions over time of the first traces; the optimal plan is always among the lines."""
    import numpy as np

    from cli.picture import Line, Panel, svg
    from policy.training.simulator.cost import optimal_plan, run_cost
    from policy.training.simulator.trace import load

    names = list(dict.fromkeys(run.trace for run in runs))
    panels = []
    for name in names[:PANELS]:
        trace = load(Path(name))
        plans = {run.policy: run.decisions for run in runs if run.trace == name}
        plans.setdefault("oracle", optimal_plan(trace)[1])
        lines = []
        for policy, decisions in plans.items():
            serving = run_cost(trace, decisions).serving
            quality = trace.quality[serving, np.arange(trace.steps)]
            marks = [(t, action - 1) for t, action in enumerate(decisions) if action]
            lines.append(Line(policy, [float(q) for q in quality], marks))
        panels.append(Panel(f"{trace.name}: quality of the serving model", lines, x_per_step=trace.step_minutes / 60.0))
    heading = "Quality and retrains over time (circle AWS, square Azure)"
    if len(names) > PANELS:
        heading += f"; the first {PANELS} of {len(names)} traces"
    try:
        picture.write_text(svg(panels, heading), encoding="utf-8")
    except OSError as exc:
        raise InvalidInputError(f"--picture {picture}: {exc.strerror}") from exc
    click.echo(f"picture: {picture}")
