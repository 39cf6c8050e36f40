"""`opportune train`: train a retrain policy and export it to one ONNX file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from cli.output import emit, json_option, say
from shared.errors import InvalidInputError


@click.command()
@click.option(
    "--preset",
    type=click.Choice(["ppo", "ppo-paper"]),
    help="The recipe of the shipped policy, or of the paper's reference.",
)
@click.option("--observation", type=click.Choice(["paper", "multistream"]), help="What the policy sees [paper].")
@click.option("--reward", type=click.Choice(["usd", "regret", "paper"]), help="The reward [regret].")
@click.option("--steps", type=click.IntRange(min=1), help="Environment steps [50000].")
@click.option("--traces", type=click.IntRange(min=1), help="Random drift traces to train on [210].")
@click.option("--seed", type=click.IntRange(min=0), help="Everything random follows from it [0].")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("build/policy.onnx"),
    show_default=True,
    help="Where the .onnx goes; the stable-baselines3 .zip goes beside it.",
)
@json_option
def train(
    preset: str | None,
    observation: str | None,
    reward: str | None,
    steps: int | None,
    traces: int | None,
    seed: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Train a retrain policy with PPO on random drift traces and export it to ONNX.

    Without --preset: a small run with the six numbers of the source paper, a minute or two.

    \b
    Example: opportune train --observation multistream --seed 1 --out build/mine.onnx
    Example: opportune train --preset ppo --out build/ppo.onnx   # the shipped policy
    """
    if out.suffix != ".onnx":
        raise InvalidInputError(f"--out {out}: the file name must end in .onnx")
    from policy.training.ppo.train import PRESETS, Recipe, with_overrides
    from policy.training.ppo.train import train as run

    recipe = with_overrides(
        PRESETS[preset] if preset else Recipe(),
        observation=observation,
        reward=reward,
        steps=steps,
        traces=traces,
        seed=seed,
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InvalidInputError(f"--out {out}: {exc.strerror}") from exc
    origin = _with_progress(run, recipe, out)
    archive = out.with_suffix(".zip")
    say(
        f"{out} ({out.stat().st_size / 1024:.0f} KiB) after {origin['seconds']} s, "
        f"{origin['steps_per_second']} steps/s; stable-baselines3 archive {archive}",
        as_json,
    )
    if as_json:
        emit({"policy": str(out), "archive": str(archive), "bytes": out.stat().st_size, "origin": origin})


def _with_progress(run: Any, recipe: Any, out: Path) -> dict[str, Any]:
    """Run the training with a progress bar per phase on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:>9}"), BarColumn(), TextColumn("{task.completed:,}/{task.total:,}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        phases: dict[str, Any] = {}
        shown_s = 0.0

        def progress(phase: str, done: int, total: int) -> None:
            nonlocal shown_s
            if phase not in phases:
                phases[phase] = bars.add_task(phase, total=total)
            if done == total or time.monotonic() - shown_s > 0.2:
                shown_s = time.monotonic()
                bars.update(phases[phase], completed=done)

        origin: dict[str, Any] = run(recipe, out, progress)
    return origin
