"""`opportune demo`: run the closed loop on this machine and write a report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import click

from cli.output import console, emit, json_option
from shared.errors import InvalidInputError

SCENARIOS: Final = ("steady", "spike", "drift")
_UNITS: Final = {"": 1.0, "s": 1 / 60, "m": 1.0, "min": 1.0, "h": 60.0}


class Minutes(click.ParamType[float]):
    """A duration such as 15m, 900s, 1.5h or 15 (minutes), as minutes."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse, or fail with what is allowed."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|m|h)?", str(value).strip())
        minutes = float(match[1]) * _UNITS[match[2] or ""] if match else 0.0
        if minutes <= 0:
            self.fail(f"{value!r} is not a duration; write 15m, 900s or 1.5h", param, ctx)
        return minutes


@click.command()
@click.option(
    "--scenario",
    type=click.Choice(SCENARIOS),
    default="drift",
    show_default=True,
    help="What happens to the questions.",
)
@click.option(
    "--questions",
    default="builtin",
    show_default=True,
    metavar="builtin|squad|PATH",
    help="PATH: SQuAD JSON, RealTimeQA JSONL, or JSONL with question, answers, date (.xz, .gz).",
)
@click.option(
    "--arrivals",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="CSV of time stamps (.xz): real arrival times, fitted to the run; the report says how.",
)
@click.option(
    "--policy", default="ppo", show_default=True, metavar="NAME|PATH", help="A shipped policy, a rule, or an ONNX file."
)
@click.option("--every", type=Minutes(), default="15m", show_default=True, help="Interval of the static policy.")
@click.option("--compare", type=click.Choice(["static"]), help="Run a second arm with the static policy.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True, help="Everything random follows from it.")
@click.option(
    "--speed", type=click.FloatRange(1, 120), default=20.0, show_default=True, help="Simulated seconds per real second."
)
@click.option(
    "--minutes", type=click.FloatRange(10, 1440), default=80.0, show_default=True, help="Simulated length of the run."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 200, min_open=True),
    default=6.0,
    show_default=True,
    help="Requests per real second, on average.",
)
@click.option(
    "--labelled",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of answers that are labelled afterwards.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/demo"),
    show_default=True,
    help="Where report, records and logs go.",
)
@json_option
def demo(
    scenario: Any, questions: str, arrivals: Path | None, policy: str, every: float, compare: str | None, seed: int,
    speed: float, minutes: float, rate: float, labelled: float, out: Path, as_json: bool,
) -> None:  # fmt: skip
    """Questions arrive and drift, the policy decides, a job trains, the new model goes live; a report shows it.

    \b
    Example: opportune demo --scenario drift --compare static --out build/demo
    """
    from cli.policies import check

    check(policy)
    from local.demo.results_table import print_results
    from local.demo.run import DemoOptions, run_demo

    screen = console(stderr=True)
    options = DemoOptions(
        scenario=scenario,
        questions=questions,
        arrivals=arrivals,
        policy=policy,
        every_minutes=every,
        compare=compare is not None,
        seed=seed,
        speed=speed,
        minutes=minutes,
        rate_per_s=rate,
        labelled_share=labelled,
        out=out,
    )
    try:
        result = run_demo(options, screen)
        print_results(result.arms, result.report, console(stderr=as_json))
        if as_json:
            emit(result.as_json())
    except OSError as exc:
        where = exc.filename or out
        raise InvalidInputError(f"{where}: {exc.strerror or exc}; free space or choose another --out") from exc
