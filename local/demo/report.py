"""The report of a demo run: one self-contained HTML file, drawn from what the arms measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import jinja2
import numpy as np
from numpy.typing import NDArray

from local.charts import Chart, Lanes
from local.demo.results import (
    BEFORE_AFTER_SLOTS,
    Against,
    Arm,
    Retrain,
    Slots,
    comparisons,
    costs_usd,
    retrains,
    slots,
    summary,
)
from shared.contracts import CLOUDS, Action, Cloud

CLOUD_NAMES: Final[dict[Cloud, str]] = {"aws": "AWS", "azure": "Azure"}
GROUP_COLOURS: Final = 6
#: quality and latency are shown as a centred mean over this many slots: a slot holds few requests
SMOOTHING_SLOTS: Final = 3


class View(NamedTuple):
    """One arm with everything derived from it."""

    arm: Arm
    slots: Slots
    retrains: list[Retrain]
    summary: dict[str, Any]
    training_usd: NDArray[np.float64]
    lost_usd: NDArray[np.float64]


class Figure(NamedTuple):
    """One picture with its words: `legend` is (CSS class, text) pairs."""

    title: str
    note: str
    legend: list[tuple[str, str]]
    svg: str


def render(arms: Sequence[Arm], *, title: str, notes: Sequence[str]) -> str:
    """The report as HTML. The first arm is the subject; the others and never retraining stand beside it."""
    views = [_view(arm) for arm in arms]
    compared = comparisons(arms)
    others = [_view(other.arm) for other in compared]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["clock"] = clock
    environment.filters["score"] = lambda value: "–" if value is None else f"{value:.2f}"
    environment.filters["usd"] = lambda value: "–" if value is None else f"${value:,.2f}"
    environment.filters["ms"] = lambda value: "–" if value is None else f"{value * 1000:,.0f} ms"
    return environment.get_template("report.html.j2").render(
        title=title,
        verdict=verdict(arms[0], compared),
        headline=headline(views[0], others),
        others=others,
        policy_words=policy_words,
        views=views,
        subject=views[0],
        figures=_figures(views, others),
        decisions=_decision_rows(views[0].arm),
        trace=_trace(views[0]),
        notes=notes,
        cloud_names=CLOUD_NAMES,
        before_after_slots=BEFORE_AFTER_SLOTS,
    )


def verdict(subject: Arm, compared: Sequence[Against]) -> str:
    """What the subject saved or cost beside the others on the same questions; empty when nothing is beside it."""
    if not compared:
        return ""
    parts = []
    for other in compared:
        if abs(other.saved_usd) < 0.01 * max(other.cost_usd, 1.0):
            parts.append(("came to the same as", policy_words(other.arm)))
            continue
        share = "" if other.saved_share is None else f" ({abs(other.saved_share):.0%})"
        did = "saved" if other.saved_usd >= 0 else "cost"
        more = "against" if other.saved_usd >= 0 else "more than"
        parts.append((did, f"${abs(other.saved_usd):,.2f}{share} {more} {policy_words(other.arm)}"))
    words = [f"{did} {text}" if n == 0 or did != parts[n - 1][0] else text for n, (did, text) in enumerate(parts)]
    return f"{policy_words(subject).capitalize()} {' and '.join(words)}."


def policy_words(arm: Arm) -> str:
    """The arm's policy as a part of a sentence."""
    if arm.name == "never":
        return "never retraining"
    return arm.policy.replace("static,", "retraining") if arm.name == "static" else "adaptive retraining"


def headline(view: View, others: Sequence[View] = ()) -> str:
    """What happened, in a few sentences."""
    drifts = len(view.arm.drifts_s)
    moved = {0: "Traffic did not drift", 1: "Traffic drifted once", 2: "Traffic drifted twice"}
    first = moved.get(drifts, f"Traffic drifted {drifts} times")
    n = len(view.retrains)
    if not n:
        did = "the policy saw no reason to retrain"
    else:
        did = f"the policy retrained {'once' if n == 1 else 'twice' if n == 2 else f'{n} times'}"
    scores = [
        f"{policy_words(v.arm)} {v.summary['bleu1_mean']:.2f}" for v in others if v.summary["bleu1_mean"] is not None
    ]
    mine = view.summary["bleu1_mean"]
    quality = f" Mean BLEU-1 was {mine:.2f}" if mine is not None else ""
    quality += f" ({', '.join(scores)}, on the same questions)." if quality and scores else "." if quality else ""
    failed = view.summary["failed_requests"]
    of = f"of {view.summary['requests']:,} requests failed."
    requests = f"{failed:,} {of}" if failed else f"None {of}"
    return f"{first}, {did}.{quality} {requests}"


def clock(minute: float | None) -> str:
    """Simulated minutes as h:mm."""
    return "–" if minute is None else f"{int(minute) // 60}:{int(minute) % 60:02d}"


def _view(arm: Arm) -> View:
    per_slot = slots(arm)
    return View(arm, per_slot, retrains(arm), summary(arm), *costs_usd(arm, per_slot))


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred mean over SMOOTHING_SLOTS of what is there; NaN where the slot itself has no answer."""
    half = SMOOTHING_SLOTS // 2
    out = np.full(len(values), np.nan)
    for i in np.flatnonzero(~np.isnan(values)):
        out[i] = np.nanmean(values[max(0, i - half) : i + half + 1])
    return out


def _figures(views: list[View], others: list[View]) -> list[Figure]:
    return [
        _happened(views),
        _quality(views[0], others),
        _asked(views[0]),
        _decided(views[0]),
        _latency(views[0]),
        _load(views[0]),
        _cost(views[0], others),
    ]


def _chart(view: View, high: float, unit: str, height: int = 204) -> Chart:
    """A chart with this arm's drifts, decisions and go-lives as vertical rules."""
    chart = Chart(view.arm.minutes, high, unit, height=height)
    for at_s, _ in view.arm.drifts_s:
        chart.event(at_s / 60, "drift")
    for retrain in view.retrains:
        chart.event(retrain.decided_min, "decided")
        if retrain.live_min is not None:
            chart.event(retrain.live_min, "live")
    return chart


def _happened(views: list[View]) -> Figure:
    arm = views[0].arm
    many = len(views) > 1
    names = ["traffic", *(v.arm.name if many else "retrains" for v in views), "nearer"]
    lanes = Lanes(arm.minutes, names)
    for at_s, group in arm.drifts_s:
        lanes.pin(0, at_s / 60, "drift", f"new: {group}")
    for lane, view in enumerate(views, start=1):
        for r in view.retrains:
            cloud = r.job.job.cloud
            end = r.live_min if r.live_min is not None else view.arm.minute(r.job.updated_s)
            lasted = f"decided {clock(r.decided_min)}, {r.job.status.value} {clock(end)}, {r.job.model_version or ''}"
            lanes.bar(lane, r.decided_min, end, cloud, CLOUD_NAMES[cloud], lasted)
    for number, swap in enumerate(arm.swaps):
        end_s = arm.swaps[number + 1].at_s if number + 1 < len(arm.swaps) else arm.minutes * 60
        name = CLOUD_NAMES[swap.cloud]
        lanes.bar(len(names) - 1, swap.at_s / 60, end_s / 60, f"{swap.cloud} faint", name, f"{name} is nearer")
    legend = [("drift", "new questions arrive"), ("aws", "AWS"), ("azure", "Azure")]
    note = "A bar runs from the decision to the first answer of the new model, in the colour of the cloud that trains."
    return Figure("What happened", note, legend, lanes.svg("Time line of drifts, retrains and network distance"))


def _quality(view: View, others: list[View]) -> Figure:
    chart = _chart(view, 1.0, "score, 0 to 1", height=264)
    legend = [("bleu", "BLEU-1"), ("exact", "exact match")]
    for other in others:
        chart.line(other.slots.minutes, smooth(other.slots.bleu1), _beside(other))
        legend.append((_beside(other), f"BLEU-1, {policy_words(other.arm)}"))
    chart.line(view.slots.minutes, smooth(view.slots.exact_match), "exact")
    chart.line(view.slots.minutes, smooth(view.slots.bleu1), "bleu")
    legend += [("drift", "drift"), ("decided", "retrain decided"), ("live", "new model live")]
    note = f"Measured on every answer against its reference answers; mean over {SMOOTHING_SLOTS} slots."
    return Figure("Live answer quality", note, legend, chart.svg("Live BLEU-1 and exact match over time"))


def _beside(view: View) -> str:
    """The CSS class of what the subject is compared with."""
    return "never" if view.arm.name == "never" else "other"


def _asked(view: View) -> Figure:
    names = list(dict.fromkeys([*_by_first_use(view)]))
    total = np.maximum(sum(view.slots.groups.values(), np.zeros(len(view.slots.minutes))), 1)
    layers = [(view.slots.groups[name] / total * 100, f"g{i % GROUP_COLOURS}") for i, name in enumerate(names)]
    chart = Chart(view.arm.minutes, 100, "share, %", height=164).stack(view.slots.minutes, layers)
    legend = [(f"g{i % GROUP_COLOURS}", name) for i, name in enumerate(names)]
    note = "Share of requests per group of questions. The base model was taught the first."
    return Figure("What users asked", note, legend, chart.svg("Share of requests per group of questions"))


def _by_first_use(view: View) -> list[str]:
    return sorted(view.slots.groups, key=lambda name: int(np.argmax(view.slots.groups[name] > 0)))


def _decided(view: View) -> Figure:
    chart = _chart(view, 1.0, "probability", height=184)
    made = [(view.arm.minute(d.slot_s), d) for d in view.arm.decisions if d.probabilities]
    if made:
        minutes = np.array([minute for minute, _ in made])
        wish = np.array([sum(d.probabilities[1:]) for _, d in made])
        chart.area(minutes, np.zeros(len(wish)), wish, "wish").line(minutes, wish, "wish")
    for minute, d in made:
        wish_now = sum(d.probabilities[1:])
        if d.action.cloud is not None:
            chart.marker(minute, wish_now, d.action.cloud, f"{clock(minute)} retrain on {d.action.cloud}: {d.reason}")
        elif d.wanted is not Action.HOLD:
            chart.marker(minute, wish_now, "hollow", f"{clock(minute)} held: {d.reason}")
    legend = [("wish", "wish to retrain"), ("aws", "AWS"), ("azure", "Azure"), ("hollow", "held by a guardrail")]
    note = "What the policy wanted at every tick (probability of any retrain), and what became of it."
    return Figure("Decisions", note, legend, chart.svg("Probability of a retrain at every decision"))


def _latency(view: View) -> Figure:
    series = {cloud: smooth(view.slots.p50_s[cloud]) * 1000 for cloud in CLOUDS}
    tails = {cloud: smooth(view.slots.p95_s[cloud]) * 1000 for cloud in CLOUDS}
    known = np.concatenate([*tails.values(), [1.0]])
    # one stall must not flatten everything else
    chart = _chart(view, float(np.nanquantile(known, 0.98)) * 1.15, "latency, ms")
    for cloud in CLOUDS:
        chart.line(view.slots.minutes, tails[cloud], f"{cloud} thin").line(view.slots.minutes, series[cloud], cloud)
    for swap in view.arm.swaps[1:]:
        chart.event(swap.at_s / 60, "swap")
    legend = [("aws", "AWS"), ("azure", "Azure"), ("swap", "network distances swap")]
    note = "As users see it, from the moment a request was due. Thick: median, thin: 95th percentile of a slot."
    return Figure("Latency by the cloud that answered", note, legend, chart.svg("Latency per cloud over time"))


def _load(view: View) -> Figure:
    per_minute = {cloud: view.slots.answered_by[cloud] / view.arm.slot_minutes for cloud in CLOUDS}
    failed = view.slots.failed / view.arm.slot_minutes
    high = max(1.0, float((sum(per_minute.values(), failed)).max()) * 1.1)
    chart = _chart(view, high, "requests / min")
    chart.stack(view.slots.minutes, [*((per_minute[cloud], cloud) for cloud in CLOUDS), (failed, "failed")])
    legend = [("aws", "answered by AWS"), ("azure", "answered by Azure"), ("failed", "failed")]
    note = "Requests per simulated minute; routing follows the lower measured latency."
    return Figure("Load and where it went", note, legend, chart.svg("Requests per minute by answering cloud"))


def _cost(subject: View, others: list[View]) -> Figure:
    high = max(float((v.training_usd + v.lost_usd).max()) for v in (subject, *others)) * 1.1 or 1.0
    chart = _chart(subject, high, "US $, cumulative", height=264)
    chart.stack(subject.slots.minutes, [(subject.training_usd, "training"), (subject.lost_usd, "lost")])
    legend = [("training", "training"), ("lost", "value of quality lost")]
    for other in others:
        chart.line(other.slots.minutes, other.training_usd + other.lost_usd, _beside(other))
        legend.append((_beside(other), f"sum, {policy_words(other.arm)}"))
    value = subject.arm.prices.quality_usd_per_hour
    note = f"Training at list price; one unit of quality is worth ${value:.2f} an hour (a setting)."
    return Figure("Cost", note, legend, chart.svg("Cumulative cost"))


def _decision_rows(arm: Arm) -> list[dict[str, Any]]:
    """Every decision, runs of holds for the same reason folded into one row."""
    rows: list[dict[str, Any]] = []
    for decision in arm.decisions:
        minute = arm.minute(decision.slot_s)
        words = [f"{g.name}: {g.reason}" for g in decision.guardrails if g.before != g.after]
        key = (decision.action, decision.wanted, tuple(g.name for g in decision.guardrails if g.before != g.after))
        if rows and rows[-1]["key"] == key and decision.action is Action.HOLD:
            rows[-1] |= {"until": minute, "count": rows[-1]["count"] + 1, "reason": decision.reason}
            continue
        rows.append(
            {
                "key": key,
                "minute": minute,
                "until": minute,
                "count": 1,
                "cloud": decision.action.cloud,
                "wanted": decision.wanted.cloud,
                "wish": sum(decision.probabilities[1:]) if decision.probabilities else None,
                "reason": decision.reason,
                "guardrails": words,
                "id": decision.decision_id,
            }
        )
    return rows


def _trace(view: View) -> dict[str, Any] | None:
    """The log lines of the first retrain that went live, with seconds since the first of them."""
    for retrain in view.retrains:
        lines = view.arm.traces.get(retrain.job.job.trace_id, ())
        if retrain.live_min is not None and lines:
            start = lines[0].at_s
            return {
                "id": retrain.job.job.trace_id,
                "job": retrain.job.job.job_id,
                "version": retrain.job.model_version,
                "lines": [(line.at_s - start, line) for line in lines],
            }
    return None
