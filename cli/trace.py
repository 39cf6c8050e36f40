"""`opportune trace`: build drift traces from a dated question stream, and look into them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click

from cli.output import console, emit, json_option


@click.group()
def trace() -> None:
    """Build and inspect drift traces.

    \b
    Example: opportune trace show traces/*.npz
    """


@trace.command()
@click.option("--questions", required=True, help="builtin, RealTimeQA or plain JSONL (.xz, .gz), or SQuAD JSON.")
@click.option("--skip", type=click.IntRange(min=0), default=0, show_default=True, help="Oldest questions left out.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The .npz to write.")
@click.option("--model", default="small", show_default=True, help="small, or a folder or hub name of a GPT-2.")
@click.option("--steps", type=click.IntRange(min=2), default=32, show_default=True, help="Steps of the trace.")
@click.option("--initial", type=click.IntRange(min=1), default=240, show_default=True, help="Questions of step 0.")
@click.option("--per-step", type=click.IntRange(min=1), default=40, show_default=True, help="New questions a step.")
@click.option("--train-pairs", type=click.IntRange(min=1), default=400, show_default=True, help="Learnt by a retrain.")
@click.option("--eval-pairs", type=click.IntRange(min=1), default=100, show_default=True, help="Asked at each step.")
@click.option(
    "--half-life", type=float, default=4.0, show_default=True, help="Steps until a question is half as popular."
)
@click.option("--epochs", type=click.IntRange(min=1), default=15, show_default=True, help="Passes of one fine-tuning.")
@click.option("--learning-rate", type=float, default=2e-3, show_default=True, help="Of the fine-tuning.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Everything random follows from it."
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where the fine-tunings run.",
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Local processes.")
@click.option("--step-minutes", type=float, default=10.0, show_default=True, help="Minutes between two steps.")
@click.option("--value", type=float, default=6.0, show_default=True, help="Dollars per point of quality and hour.")
@click.option("--price-aws", type=float, default=4.0, show_default=True, help="Dollars per hour of training.")
@click.option("--price-azure", type=float, default=3.6, show_default=True, help="Dollars per hour of training.")
@click.option("--train-hours", type=float, default=0.16, show_default=True, help="Wall time of one retrain.")
@json_option
def build(questions: str, skip: int, out: Path, executor: Any, workers: int, as_json: bool, **options: Any) -> None:
    """Fine-tune at each step of a question stream and evaluate on every later one: a real T x T quality matrix.

    A build that was interrupted goes on where it stopped: its rows are kept in OUT.parts.

    \b
    Example: opportune trace build --questions realtimeqa_all.jsonl.xz --out real.npz --seed 1
    """
    from cli.trace_learner import make_base, run_task
    from policy.training.simulator import matrices
    from training_containers.finetune.data.question_sources import load_questions

    stream = [(q.question, q.answers) for q in load_questions(questions)[skip:]]
    economics = {key: options.pop(key) for key in ("step_minutes", "value", "price_aws", "price_azure", "train_hours")}
    digest = hashlib.sha256(repr(stream).encode()).hexdigest()
    recipe = matrices.Recipe(questions_sha256=digest, **options)
    screen = console(stderr=True)

    def show(done: int, of: int, left_s: float) -> None:
        screen.print(f"{done}/{of} models, about {left_s / 60:.0f} minutes left")

    bleu, accuracy = matrices.build(
        recipe, stream, out.with_suffix(".parts"), make_base, run_task, executor, workers, show
    )
    built = matrices.as_trace(
        bleu,
        accuracy,
        step_minutes=economics["step_minutes"],
        value_usd_per_quality_hour=economics["value"],
        price_usd_per_hour=(economics["price_aws"], economics["price_azure"]),
        train_hours=(economics["train_hours"], economics["train_hours"]),
        name=out.stem,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    built.save(out)
    screen.print(f"{out}: {built.steps} steps")
    if as_json:
        emit({"trace": str(out), "steps": built.steps})


@trace.command()
@click.argument("files", nargs=-1, required=True, metavar="TRACE.npz...")
@json_option
def show(files: tuple[str, ...], as_json: bool) -> None:
    """Steps, cost ratio, and what the optimum would do on each trace.

    \b
    Example: opportune trace show traces/*.npz
    Example: opportune trace show traces/*.npz --json
    """
    from rich.table import Table

    from cli.traces import check
    from policy.training.simulator.cost import optimal_plan, run_cost
    from policy.training.simulator.trace import load

    check(files)
    found: list[dict[str, Any]] = []
    for file in files:
        loaded = load(Path(file))
        best, decisions = optimal_plan(loaded)
        found.append(
            {
                "trace": loaded.name,
                "steps": loaded.steps,
                "step_minutes": loaded.step_minutes,
                "retrain_usd": float(loaded.job_usd.min(axis=1).mean()),
                "never_cost_usd": run_cost(loaded, [0] * loaded.steps).cost_usd,
                "oracle_cost_usd": best,
                "oracle_retrains": sum(action > 0 for action in decisions),
            }
        )
    if as_json:
        emit({"traces": found})
        return
    table = Table()
    for column in ("trace", "steps", "minutes", "retrain $", "J never $", "J* $", "retrains in J*"):
        table.add_column(column, justify="left" if column == "trace" else "right")
    for one in found:
        table.add_row(
            one["trace"],
            str(one["steps"]),
            f"{one['step_minutes']:g}",
            f"{one['retrain_usd']:.2f}",
            f"{one['never_cost_usd']:.2f}",
            f"{one['oracle_cost_usd']:.2f}",
            str(one["oracle_retrains"]),
        )
    console().print(table)
