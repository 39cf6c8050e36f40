"""docs/results.md and the README's block of numbers, as text: everything comes from the recorded JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.results.bars import Bar, chart
from benchmarks.results.subjects import Measured

#: subject -> its measurement
All = dict[str, Measured]
Row = Sequence[str]

#: engine and precision in the JSON -> what a reader calls it
SERVERS: Final = {
    "reference fp32": "Flask + transformers",
    "opportune fp32": "ours, fp32",
    "opportune int8": "ours, 8 bits",
    "ctranslate2 fp32": "CTranslate2, one call each, fp32",
    "ctranslate2 int8": "CTranslate2, one call each, 8 bits",
}
TRAINERS: Final = {
    "reference": "plain Trainer",
    "answers-only": "plain Trainer, loss on answers",
    "opportune": "ours, loss on answers",
    "opportune-questions": "ours, every token",
}
#: key of the functions' JSON -> (name, unit, the most it may be)
FUNCTIONS: Final = {
    "schedule_cold_ms": ("schedule function, cold", "ms", 1200.0),
    "http_cold_ms": ("HTTP function, cold", "ms", 900.0),
    "tick_warm_p99_ms": ("warm tick with its exchanges, p99", "ms", 250.0),
    "peak_memory_mb": ("peak memory", "MB", 200.0),
    "aws_unzipped_mb": ("AWS package, unzipped", "MB", 200.0),
    "azure_mb": ("Azure package", "MB", 200.0),
}
ARMS: Final = {"adaptive": "`ppo`", "static": "every 15 minutes", "never": "never"}


def page(measured: All) -> str:
    """docs/results.md."""
    parts = [
        "# Results\n",
        _paragraph(
            "`make results` writes this page from `benchmarks/results/*.json`; edit nothing here. Older and narrower",
            "studies are in [research](research/README.md).",
        ),
        _decisions(measured["decisions"]),
        _loop(measured["demo"]),
        _functions(measured["functions"]),
        _serving(measured["serving"]),
        _training(measured["training"]),
        *([at_scale(measured)] if "real_size" in measured else []),
        LIMITS,
    ]
    return "\n".join(parts)


LIMITS: Final = """## What none of this shows

- Nothing was ever deployed to a real AWS or Azure account by this project: clouds are emulated, prices are list prices.
- The histories are simulated. On drift unlike any in training `ppo` can lose to never retraining
  ([study](research/2026-11-other-drift.md)).
- Models are of the GPT-2 family, small, and answer short questions. No GPU has run the training.
- A machine's minutes differ: compare only within one table.
"""


def pictures(measured: All) -> dict[str, str]:
    """File name -> SVG, for docs/img."""
    decisions = measured["decisions"].result
    bars = [
        Bar(row["policy"], 100 * (_last(row)["mean"] - 1), f"{100 * (_last(row)['mean'] - 1):.1f} %", _ours(row))
        for row in decisions["policies"]
    ]
    beyond = 1.15 * max(bar.value for bar in bars if bar.name != "static")
    arms = _arms(measured["demo"])
    costs = [
        Bar(ARMS[name].strip("`"), arm["cost_usd"], f"${arm['cost_usd']:.2f}", name == "adaptive") for name, arm in arms
    ]
    found = measured["functions"].result
    limits = [
        Bar(name, 100 * found[key] / most, f"{found[key]:.0f} of {most:.0f} {unit}", ours=True)
        for key, (name, unit, most) in FUNCTIONS.items()
        if key in found
    ]
    speeds = [
        Bar(_server(row), row["requests_per_s"], f"{row['requests_per_s']:.1f}", row["engine"] == "opportune")
        for row in measured["serving"].result["rows"]
    ]
    samples = [
        Bar(
            TRAINERS.get(row["engine"], row["engine"]),
            row["samples_per_s"],
            f"{row['samples_per_s']:.0f}",
            "opp" in row["engine"],
        )
        for row in measured["training"].result["rows"]
    ]
    return {
        "decisions.svg": chart("Cost above the optimal plan, in the view of a live service", bars, beyond),
        "loop.svg": chart("The closed loop: training and quality lost, simulated dollars", costs),
        "functions.svg": chart("The functions: share of what is allowed", limits, 100.0),
        "serving.svg": chart("Serving: requests per second", speeds),
        "training.svg": chart("Training: samples per second", samples),
    }


def readme_block(measured: All) -> str:
    """What stands between the README's two comments."""
    decisions = measured["decisions"].result
    by_name = {row["policy"]: _last(row) for row in decisions["policies"]}
    rows = []
    for name, arm in _arms(measured["demo"]):
        policy = "ppo" if name == "adaptive" else name
        extra = f"{100 * (by_name[policy]['mean'] - 1):,.0f} %" if policy in by_name else "–"
        rows.append(
            [
                ARMS[name],
                extra,
                str(sum(arm["retrains"].values())),
                f"{arm['bleu1_mean']:.2f}",
                f"${arm['cost_usd']:.2f}",
            ]
        )
    size = measured["footprint"].result
    total = sum(size["gigabytes"].values())
    install = f" and takes {size['install_s'] / 60:.0f} minutes" if size.get("install_s") else ""
    run = measured["demo"].result["arms"]["adaptive"]["wall_s"] / 60
    each = " and ".join(f"`{name}` {gigabytes:.1f} GB" for name, gigabytes in size["gigabytes"].items())
    return "\n".join(
        [
            "The same questions, three ways to decide; cost is training plus what the lost quality was worth:\n",
            _table(
                [
                    "retrain",
                    f"above the optimal plan, {decisions['traces']} simulated histories",
                    "`make run`: retrains",
                    "mean BLEU-1",
                    "cost",
                ],
                rows,
            ),
            "",
            _paragraph(
                f"The first run leaves {total:.1f} GB in this folder ({each}){install}; the loop itself takes about",
                f"{run:.0f} minutes. Commands, intervals and limits: [docs/results.md](docs/results.md).",
                f"Measured {measured['demo'].measured} on {measured['demo'].machine};",
                f"the {decisions['traces']} histories on {measured['decisions'].machine}.",
            ).rstrip(),
        ]
    )


def _decisions(measured: Measured) -> str:
    found = measured.result
    window = found["windows"][-1]
    ours = next(_last(row) for row in found["policies"] if _ours(row))
    never = next(_last(row) for row in found["policies"] if row["policy"] == "never")
    duel = found["duels"][-1]
    worse = [family for family, mean in ours["families"].items() if mean > never["families"][family] + 0.0005]
    rows = [
        [
            f"**{row['policy']}**" if _ours(row) else row["policy"],
            f"{_last(row)['mean']:.3f}",
            f"{_last(row)['low']:.3f}–{_last(row)['high']:.3f}",
            f"{_last(row)['retrains']:.1f}",
            f"{row['views'][0]['mean']:.3f}",
        ]
        for row in found["policies"]
    ]
    verdict = (
        "ahead of it by more than chance"
        if duel["high"] < 0
        else "behind it by more than chance"
        if duel["low"] > 0
        else "level with it: the interval includes zero"
    )
    return "\n".join(
        [
            "## Decisions\n",
            _paragraph(
                f"**Seeing what a live service sees, `ppo` costs {_percent(ours['mean'])} more than the optimal plan;",
                f"the best rule, `{duel['rule']}`, {_percent(duel['rule_mean'])};",
                f"never retraining {_percent(never['mean'])}.**",
                f"Paired with that rule: {duel['difference']:+.4f}",
                f"({duel['low']:+.4f} to {duel['high']:+.4f}), {verdict}.",
            ),
            "![cost above the optimal plan per policy](img/decisions.svg)\n",
            _table(["policy", "cost / optimal cost", "95 %", "retrains", "plain view"], rows),
            "",
            _paragraph(
                f"{found['traces']} simulated histories of {found['families']} kinds, none used in training; the",
                "optimal plan knows the future and retrains",
                f"{found['optimum_retrains']:.1f} times. Live view: quality is the mean over {window} slots of",
                "labelled answers, former models are not re-evaluated. Plain view: each slot by itself, former models",
                "re-evaluated. `static` retrains every 15 slots.",
            ),
            _paragraph(f"Limits: `ppo` is worse than never retraining in {_listed(worse)}.") if worse else "",
            _source(measured),
        ]
    )


def _loop(demo: Measured) -> str:
    arms = dict(_arms(demo))
    ours = arms["adaptive"]
    others = [f"${arm['cost_usd']:.2f} {ARMS[name]}" for name, arm in arms.items() if name != "adaptive"]
    rows = [
        [
            ARMS[name],
            str(sum(arm["retrains"].values())),
            f"{arm['bleu1_mean']:.3f}",
            f"{arm['failed_requests']} of {arm['requests']:,}" if "requests" in arm else "–",
            f"{1000 * arm['latency_p50_s']:.0f} / {1000 * arm['latency_p95_s']:.0f} ms" if "requests" in arm else "–",
            f"${arm['cost_usd']:.2f}",
        ]
        for name, arm in arms.items()
    ]
    return "\n".join(
        [
            "## The closed loop\n",
            _paragraph(
                f"**On the same questions and arrivals `ppo` cost ${ours['cost_usd']:.2f}, against {_listed(others)};",
                f"of its {ours['requests']:,} requests {ours['failed_requests']} failed.**",
            ),
            "![cost per arm](img/loop.svg)\n",
            _table(["retrain", "retrains", "mean BLEU-1", "failed", "p50 / p95", "cost"], rows),
            "",
            _paragraph(
                "80 simulated minutes, two drifts, embedded clouds; cost is training plus what the lost quality was",
                "worth. Never: the first model is asked every question of the run again, on the engine that served.",
                "Limits: one run. It shows that the loop works, not by how much a policy is better.",
            ),
            _source(demo),
        ]
    )


def _functions(measured: Measured) -> str:
    found = measured.result
    rows = [
        [name, f"{found[key]:,.1f} {unit}", f"{most:,.0f}", "yes" if found[key] <= most else "**no**"]
        for key, (name, unit, most) in FUNCTIONS.items()
        if key in found
    ]
    over = [row[0] for row in rows if row[3] != "yes"]
    claim = f"Everything but {_listed(over)} stays" if over else "Cold starts, ticks, memory and packages stay"
    fixed = (
        f" Fixed work between the ticks, to know the machine by: {found['fixed_work_median_ms']:.1f} ms, p99 "
        f"{found['fixed_work_p99_ms']:.1f}."
        if "fixed_work_p99_ms" in found
        else ""
    )
    return "\n".join(
        [
            "## The functions\n",
            f"**{claim} within what is allowed.**\n",
            "![share of what is allowed](img/functions.svg)\n",
            _table(["", "measured", "allowed", "kept"], rows),
            "",
            _paragraph(
                f"The packaged zip in AWS's runtime emulator, medians of several environments.{fixed}",
                "Limits: the clouds are emulated on the same cores; a tick is processor time, without waiting.",
            ),
            _source(measured),
        ]
    )


def at_scale(measured: All) -> str:
    """Releases, and what is large: models, labels."""
    releases, live, copy, starts = (measured[name].result for name in ("releases", "real_size", "copy", "snapshot"))
    limits = starts["limits"]
    cells: list[tuple[str, float, float, str]] = [
        (f"requests that failed in {releases['releases']} releases and rollbacks", releases["failed"], 0, ""),
        ("answers of another version than they say", releases["wrong_version"], 0, ""),
        ("a rollback is in force, at most", releases["rollback_s_max"], 10, "s"),
        (f"from gate to live on both, {live['artifact_mb']:,.0f} MB", live["reload_s"], 60, "s"),
        ("requests that failed meanwhile", live["served_during_reload_failed"], 0, ""),
        ("functions on that way: memory", live["function_peak_mb"], 0.6 * limits["memory_mb"], "MB"),
    ]
    for found in (live, copy):
        name = f"copy of {found['artifact_mb']:,.0f} MB: memory above the idle process"
        cells.append((name, found["copy_peak_mb"] - found["copy_idle_mb"], 64, "MB"))
    for case in starts["cases"].values():
        name = f"training start on {case['pairs_there']:,} pairs"
        cells.append((f"{name}: memory", case["peak_mb"], limits["memory_mb"] / 2, "MB"))
        cells.append((f"{name}: time", case["seconds"], limits["seconds"] / 2, "s"))
    rows = [
        [name, f"{value:,.1f} {unit}".strip(), f"{most:,.0f} {unit}".strip(), "yes" if value <= most else "**no**"]
        for name, value, most, unit in cells
    ]
    return "\n".join(
        [
            "## Releases, large models, many labels\n",
            _table(["", "measured", "allowed", "kept"], rows),
            "",
            _paragraph(
                "moto and Azurite are the stores, a simulated one of 30 ms holds the labels. Beside the clouds' own",
                "ways: [study](research/2026-12-releases.md).",
            ),
            *(_source(measured[name]) for name in ("releases", "real_size", "copy", "snapshot")),
        ]
    )


def _serving(measured: Measured) -> str:
    rows = measured.result["rows"]
    first = rows[0]
    ours = [row for row in rows if row["engine"] == "opportune"]
    claims = [
        f"{row['requests_per_s'] / first['requests_per_s']:.1f} times in "
        f"{'8 bits' if row['precision'] == 'int8' else row['precision']}"
        for row in ours
    ]
    table = [
        [
            _server(row),
            f"{row['requests_per_s']:.1f}",
            f"{1000 * row['latency_p50_s']:.0f} ms",
            f"{row['peak_rss_mb']:,.0f} MB",
            f"{row['cold_start_s']:.1f} s",
            f"{100 * row['identical_share']:.0f} %",
        ]
        for row in rows
    ]
    return "\n".join(
        [
            "## Serving\n",
            f"**Requests a second, against {_server(first)}: {_listed(claims)}.**\n",
            "![requests per second](img/serving.svg)\n",
            _table(["engine", "requests/s", "alone, median", "peak", "cold", "same tokens"], table),
            "",
            _paragraph(
                "DistilGPT-2's shape, all engines in turn on the same cores; `same tokens` as transformers' greedy",
                "decoding. Limits: random weights, so 8 bits differ oftener than in a trained model.",
            ),
            _source(measured),
        ]
    )


def _training(measured: Measured) -> str:
    rows = measured.result["rows"]
    by_name = {row["engine"]: row for row in rows}
    ours, plain = by_name["opportune"], by_name["answers-only"]
    apart = max(max(row["exact_matches"]) - min(row["exact_matches"]) for row in rows)
    table = [
        [
            TRAINERS.get(row["engine"], row["engine"]),
            f"{row['samples_per_s']:.0f}",
            f"{1000 * row['cpu_s_per_sample']:.1f} ms",
            f"{row['loss']:.2f}",
            f"{row['exact_match']:.2f}",
        ]
        for row in rows
    ]
    return "\n".join(
        [
            "## Training\n",
            _paragraph(
                "**With the same loss,",
                f"{ours['samples_per_s'] / plain['samples_per_s']:.1f} times the samples a second of a plain Trainer,",
                f"exact match {ours['exact_match']:.2f} against {plain['exact_match']:.2f}.**",
            ),
            "![samples per second](img/training.svg)\n",
            _table(["engine", "samples/s", "CPU a sample", "held-out loss", "exact match"], table),
            "",
            _paragraph(
                "A small model from random weights, asked phrasings that none was taught; means of",
                f"{len(ours['exact_matches'])} seeds. Limits: the seeds of one engine are up to {apart:.2f} of exact",
                "match apart; on CPU only.",
            ),
            _source(measured),
        ]
    )


def _arms(demo: Measured) -> list[tuple[str, dict[str, Any]]]:
    """The three arms, cheapest first; never is the first model's answers to the same questions."""
    arms: dict[str, dict[str, Any]] = dict(demo.result["arms"])
    arms["never"] = {"retrains": {}, **demo.result["against"]["never"]}
    return sorted(arms.items(), key=lambda arm: float(arm[1]["cost_usd"]))


def _ours(row: dict[str, Any]) -> bool:
    return bool(row["policy"] == "ppo")


def _last(row: dict[str, Any]) -> dict[str, Any]:
    view: dict[str, Any] = row["views"][-1]
    return view


def _server(row: dict[str, Any]) -> str:
    name = f"{row['engine']} {row['precision']}"
    return SERVERS.get(name, name)


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):.1f} %"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)


def _table(head: Row, rows: Sequence[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" if "---" not in line else "|---" * len(head) + "|" for line in lines)


def _paragraph(*parts: str) -> str:
    """The sentences, folded as the other documents are, and an empty line."""
    return textwrap.fill(" ".join(parts), 118, break_long_words=False, break_on_hyphens=False) + "\n"


def _source(*measured: Measured) -> str:
    """The commands, and where and when they ran."""
    commands = "\n".join(f"$ {one.command}" for one in measured)
    return f"```console\n{commands}\n```\n\n{measured[0].measured}, {measured[0].machine}.\n"
