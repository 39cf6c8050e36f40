"""`opportune decide`: one dry-run tick against a Prometheus, explained."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click
import msgspec

from cli.main import PARTLY
from cli.output import complain, console, json_option


@click.command()
@click.option("--prometheus", "url", metavar="URL", help="The Prometheus to ask [OPPORTUNE_PROMETHEUS_URL].")
@click.option("--policy", "name", help="A shipped policy, a rule, or an .onnx file [OPPORTUNE_POLICY].")
@click.option("--service", help="Which service [OPPORTUNE_SERVICE].")
@json_option
def decide(url: str | None, name: str | None, service: str | None, as_json: bool) -> None:
    """Say what would be decided now, and why. Nothing is enqueued and nothing is written.

    Without a view of the job records it takes it that no job runs and none has run. Without an answer of Prometheus a
    service holds, and this command exits with 1.

    \b
    Example: opportune decide --prometheus http://localhost:9090 --policy ppo
    """
    from cli.policies import check
    from policy.decide import DecisionContext, live_policy
    from policy.decide import decide as tick
    from policy.observation.live import window_of
    from shared.adapters.prometheus import metrics_of
    from shared.contracts import MetricWindow, new_trace_id, slot_of
    from shared.errors import MetricsError, MetricsUnavailableError
    from shared.settings import Settings

    settings = Settings.from_env(os.environ)
    given = {"policy": name, "service": service}
    settings = msgspec.structs.replace(settings, **{k: v for k, v in given.items() if v is not None})
    settings = settings if url is None else settings.asking(url)
    check(settings.policy, "OPPORTUNE_POLICY" if name is None else "--policy")
    policy = live_policy(settings.policy, settings.static_every_slots)
    now_s = time.time()
    source = metrics_of(settings)
    window: MetricWindow | MetricsError
    try:
        window = source.explained(source.window(*window_of(settings, now_s), settings.slot_seconds))
    except MetricsError as exc:
        window = exc
    context = DecisionContext(
        settings=settings, now_s=now_s, slot_s=slot_of(now_s, settings.slot_seconds), trace_id=new_trace_id()
    )
    decision = tick(window, context, policy)
    for cloud, why in window.silent.items() if isinstance(window, MetricWindow) else ():
        complain(f"without the metrics of {cloud}: {why}")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(decision), indent=2).decode())
    elif not isinstance(window, MetricsUnavailableError):
        _show(decision, window, context)
    if isinstance(window, MetricsUnavailableError):
        complain(f"{window}; a service would hold")
        sys.exit(PARTLY)


def _show(decision: Any, window: Any, context: Any) -> None:
    """The record for people."""
    from rich.markup import escape
    from rich.table import Table

    from policy.explain import expected_costs
    from policy.observation.live import history_of
    from policy.observation.paper import OBSERVATION
    from shared.contracts import MetricWindow

    screen = console()
    action = decision.action.name.lower().replace("_", " ")
    reason = decision.reason.removeprefix(f"{action}: ")
    screen.print(f"[bold]{action}[/bold]  {escape(reason)}", highlight=False)
    for guard in decision.guardrails:
        before, after = guard.before.name.lower(), guard.after.name.lower()
        why = "" if guard.reason == decision.reason else f": {guard.reason}"
        told = f"{before} -> {after}" if before != after else "spoke"
        screen.print(f"  guardrail {guard.name}: {told}{escape(why)}", highlight=False)
    if not decision.observation or not isinstance(window, MetricWindow):
        return
    table = Table("input", "value", "unit", "moved the choice by")
    for feature in OBSERVATION:
        share = decision.attributions.get(feature.name)
        value = decision.observation.get(feature.name)
        table.add_row(
            feature.name,
            "missing" if value is None else f"{value:.4g}",
            feature.unit,
            "" if share is None else f"{share:+.3f}",
        )
    screen.print(table)
    costs = expected_costs(history_of(window, context.jobs, context.settings, context.now_s))
    if costs is not None:
        table = Table("action", "probability", f"expected cost over {costs.horizon_steps} slots")
        names = ("hold", "retrain on aws", "retrain on azure")
        for label, chance, usd in zip(names, decision.probabilities, costs.by_action, strict=True):
            table.add_row(label, f"{chance:.3f}", f"${usd:.4f}")
        screen.print(table)
