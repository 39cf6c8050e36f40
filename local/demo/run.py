"""`opportune demo`: the closed loop on the embedded clouds, from the first question to the report.

One arm = a fresh pair of clouds, the same schedule of requests, one policy. Everything that happens is real except
the distance to the clouds and the pace of the clock: a decision slot of one simulated minute lasts 60 / speed seconds.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import urllib3
from rich.console import Console

from local.clouds.aws.sdk import client
from local.clouds.cluster import Cluster, ClusterOptions
from local.demo.arrivals import read_arrivals
from local.demo.base_model import base_model
from local.demo.first_model import ask_first_model
from local.demo.load_generator import LoadGenerator
from local.demo.log_traces import collect
from local.demo.observer import Observer
from local.demo.progress import Now, Progress
from local.demo.question_pool import build_pool
from local.demo.report import render
from local.demo.results import METRICS_PATH, Arm, Prices, Swap, against, summary
from local.demo.scenario import Scenario, Schedule, plan
from policy.policies import live_policy
from shared.contracts import CLOUDS, IN_FLIGHT, Cloud
from shared.errors import UnavailableError
from shared.settings import Settings
from training_containers.model.scoring import bleu1, exact_match

SLOT_MINUTES: Final = 1.0
#: one-way network delay of the nearer and the farther cloud, real seconds; they swap in the middle of the run
NEAR_S: Final = 0.005
FAR_S: Final = 0.06
SWAP_AT: Final = 0.5
#: questions per group: what the small model learns within one retrain
PER_GROUP: Final = 32
#: what a retrain of the small model takes on a machine with nothing else to do, real seconds
RETRAIN_S: Final = 20.0
TIMEOUT_S: Final = 10.0
#: live quality, as the policy sees it, is that of this many slots
QUALITY_WINDOW_SLOTS: Final = 6
#: after the last request, wait this long for a job that is still on its way, real seconds
PATIENCE_S: Final = 45.0
ROUTES_S: Final = 60.0
#: settings that suit a small model that learns in seconds; variables of the environment come before them
SMALL_MODEL: Final = {
    "OPPORTUNE_EPOCHS": "40",
    "OPPORTUNE_LEARNING_RATE": "0.002",
    "OPPORTUNE_BATCH_SIZE": "32",
    "OPPORTUNE_DATA_WINDOW_SLOTS": "20",
    "OPPORTUNE_ROUTE_TTL_SECONDS": "1",
    # of a small GPU; fixed, so that runs can be compared whatever the table of prices says later
    "OPPORTUNE_PRICE_USD_PER_HOUR_AWS": "0.736",
    "OPPORTUNE_PRICE_USD_PER_HOUR_AZURE": "0.752",
}


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What `opportune demo` was told."""

    scenario: Scenario = "drift"
    questions: str = "builtin"
    arrivals: Path | None = None
    policy: str = "ppo"
    every_minutes: float = 15.0  # of the static policy
    compare: bool = False  # a second arm with the static policy
    seed: int = 7
    speed: float = 20.0
    minutes: float = 80.0
    rate_per_s: float = 6.0  # requests per real second
    labelled_share: float = 1.0
    out: Path = Path("build/demo")

    @property
    def slot_s(self) -> float:
        """Real seconds of one decision slot."""
        return SLOT_MINUTES * 60 / self.speed

    @property
    def swaps(self) -> tuple[Swap, ...]:
        """Which cloud is nearer from when on."""
        return (Swap(0.0, "aws"), Swap(self.minutes * 60 * SWAP_AT, "azure"))


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The arms that ran, and where the report lies."""

    arms: tuple[Arm, ...]
    report: Path
    notes: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "arms": {arm.name: summary(arm) for arm in self.arms},
            "report": str(self.report),
            "against": against(self.arms),
            "metrics_path": METRICS_PATH,
        }


def run_demo(options: DemoOptions, console: Console) -> DemoResult:
    """Run one arm, or two with `compare`, and write everything below `options.out`.

    Raises:
        InvalidInputError: an input file or option is wrong.
        OpportuneError: a part of the embedded clouds did not start or ended; nothing is left running.
        OSError: the output folder cannot be written.
    """
    policies = _policies(options)
    for policy in policies.values():
        live_policy(policy, static_every_slots=1)
    trace = read_arrivals(options.arrivals) if options.arrivals else None
    pool = build_pool(options.questions, minutes=options.minutes, per_group=PER_GROUP, seed=options.seed)
    schedule = plan(
        pool,
        options.scenario,
        minutes=options.minutes,
        rate_per_s=options.rate_per_s / options.speed,
        seed=options.seed,
        labelled_share=options.labelled_share,
        trace=trace,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    model = base_model(pool, builtin=options.questions == "builtin", console=console)
    arms = tuple(_run_arm(name, policy, options, schedule, model, console) for name, policy in policies.items())
    result = DemoResult(arms, options.out / "report.html", _notes(options, schedule))
    title = f"{options.scenario.capitalize()} on {_source(options)}"
    result.report.write_text(render(arms, title=title, notes=result.notes), encoding="utf-8")
    (options.out / "result.json").write_text(json.dumps(result.as_json(), indent=2) + "\n")
    return result


def _policies(options: DemoOptions) -> dict[str, str]:
    """Arm -> its policy; a file by its whole path, since the functions run elsewhere."""
    policy = str(Path(options.policy).resolve()) if options.policy.endswith(".onnx") else options.policy
    arms = {"static" if policy == "static" else "adaptive": policy}
    return {**arms, "static": "static"} if options.compare else arms


def _run_arm(name: str, policy: str, options: DemoOptions, schedule: Schedule, model: Path, console: Console) -> Arm:
    begun = time.monotonic()
    folder = options.out / name
    env = _environment(policy, options, model)
    settings = Settings.from_env(env)
    # The first score loads a library for seconds; meanwhile no request could be scored, and all senders would wait.
    scorer = threading.Thread(target=_score, args=("", ("",)), name="scorer")
    scorer.start()
    with Cluster(ClusterOptions(work=folder, env=env, console=console)) as cluster:
        _set_distances(cluster, options.swaps[0].cloud)
        _wait_for_routes(cluster.doors, ROUTES_S)
        scorer.join()
        started_s = time.time()
        load = LoadGenerator(schedule.requests, cluster.doors, options.speed, _score, TIMEOUT_S)
        with Observer(cluster.doors, options.slot_s) as observer, load:
            _watch(name, options, cluster, load, observer, console)
        first_model = _never(cluster, schedule)
    outcomes = sorted(load.outcomes(), key=lambda outcome: outcome.due_s)
    jobs = observer.jobs()
    arm = Arm(
        name=name,
        policy=_policy_name(policy, options),
        started_s=started_s,
        wall_s=time.monotonic() - begun,
        speed=options.speed,
        slot_s=options.slot_s,
        minutes=options.minutes,
        outcomes=tuple(outcomes),
        decisions=tuple(d for d in observer.decisions() if d.slot_s >= started_s - options.slot_s),
        jobs=tuple(jobs),
        swaps=options.swaps,
        drifts_s=tuple(schedule.drifts_s),
        prices=Prices(
            {cloud: settings.price_usd_per_hour(cloud) for cloud in CLOUDS}, settings.value_usd_per_quality_hour
        ),
        traces=collect(cluster.log_dir, [record.job.trace_id for record in jobs]),
        feedback_failed=load.feedback_failed,
        first_model=first_model,
    )
    _write_records(folder, arm)
    return arm


def _never(cluster: Cluster, schedule: Schedule) -> dict[str, tuple[float, float]]:
    """What the first model would have answered all along."""
    cluster.set_delay("aws", 0.0)
    version = cluster.first_version
    return ask_first_model(
        lambda: cluster.command("rollback", "--to", version, "--cloud", "aws", "--timeout", "1"),
        client("sagemaker-runtime", cluster.runtime_url),
        cluster.settings("aws").sagemaker_endpoint,
        version,
        [request.item for request in schedule.requests],
        _score,
    )


def _watch(
    name: str, options: DemoOptions, cluster: Cluster, load: LoadGenerator, observer: Observer, console: Console
) -> None:
    """Show what happens until every request is answered and no job is on its way; swap the distances half-way."""
    swaps = list(options.swaps)
    nearer: Cloud = swaps.pop(0).cloud
    length_s = options.minutes * 60 / options.speed
    with Progress(console) as progress:
        while not load.finished or _waiting_for_a_job(observer, load, length_s):
            if swaps and load.elapsed_s * options.speed >= swaps[0].at_s:
                nearer = swaps.pop(0).cloud
                _set_distances(cluster, nearer)
            cluster.check()
            load.raise_errors()
            progress.show(
                Now(
                    arm=name,
                    minute=load.elapsed_s * options.speed / 60,
                    minutes=options.minutes,
                    slot_s=options.slot_s,
                    elapsed_s=load.elapsed_s,
                    outcomes=load.outcomes(),
                    decisions=observer.decisions(),
                    jobs=observer.jobs(),
                    nearer=nearer,
                    problem=observer.problem,
                )
            )
            time.sleep(0.25)


def _set_distances(cluster: Cluster, nearer: Cloud) -> None:
    for cloud in CLOUDS:
        cluster.set_delay(cloud, NEAR_S if cloud == nearer else FAR_S)


def _wait_for_routes(doors: Mapping[Cloud, str], timeout_s: float) -> None:
    """The first tick publishes the routes; nobody can be answered before.

    Raises:
        UnavailableError: a front door has no routes after `timeout_s`.
    """
    http = urllib3.PoolManager(retries=False, timeout=timeout_s)
    give_up = time.monotonic() + timeout_s
    for cloud, url in doors.items():
        while (reply := http.request("GET", f"{url}/routes")).status != 200:
            if time.monotonic() > give_up:
                raise UnavailableError(f"{cloud} front door", f"no routes after {timeout_s:g} s: {reply.data[:200]!r}")
            time.sleep(0.2)


def _waiting_for_a_job(observer: Observer, load: LoadGenerator, length_s: float) -> bool:
    """A job that was started within the run is seen to its end, so that its cost and fate are known."""
    in_flight = any(record.status in IN_FLIGHT for record in observer.jobs())
    return in_flight and load.elapsed_s < length_s + PATIENCE_S


def _environment(policy: str, options: DemoOptions, model: Path) -> dict[str, str]:
    """The OPPORTUNE_ variables of an arm."""
    return {
        **SMALL_MODEL,
        "OPPORTUNE_POLICY": policy,
        "OPPORTUNE_STATIC_EVERY_SLOTS": str(round(options.every_minutes / SLOT_MINUTES)),
        "OPPORTUNE_SLOT_SECONDS": repr(options.slot_s),
        "OPPORTUNE_TIME_SCALE": repr(options.speed),
        **{f"OPPORTUNE_TRAIN_HOURS_{cloud.upper()}": repr(RETRAIN_S * options.speed / 3600.0) for cloud in CLOUDS},
        "OPPORTUNE_BASE_MODEL": str(model),
        "OPPORTUNE_SERVE_WINDOW_SECONDS": repr(QUALITY_WINDOW_SLOTS * options.slot_s),
    }


def _score(prediction: str, answers: tuple[str, ...]) -> tuple[float, float]:
    return bleu1(prediction, answers), exact_match(prediction, answers)


def _write_records(folder: Path, arm: Arm) -> None:
    """What happened, one JSON object a line, for whoever wants to draw their own picture."""
    for name, records in (("requests", arm.outcomes), ("decisions", arm.decisions), ("jobs", arm.jobs)):
        lines = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        (folder / f"{name}.jsonl").write_bytes(lines)


def _policy_name(policy: str, options: DemoOptions) -> str:
    return f"static, every {options.every_minutes:g} min" if policy == "static" else policy


def _source(options: DemoOptions) -> str:
    if options.questions in {"builtin", "squad"}:
        return {"builtin": "the built-in questions", "squad": "SQuAD"}[options.questions]
    return Path(options.questions).name


def _notes(options: DemoOptions, schedule: Schedule) -> tuple[str, ...]:
    """How the run was made, for the end of the report."""
    shares: Sequence[str] = (
        f"clock: {options.speed:g} simulated seconds per real second; a decision slot is one simulated minute, "
        f"{options.slot_s:g} real seconds; the run is {options.minutes:g} simulated minutes",
        f"seed {options.seed}; {options.labelled_share:.0%} of the answered requests were labelled afterwards",
        f"network: {NEAR_S * 1000:g} ms one way to the nearer cloud, {FAR_S * 1000:g} ms to the other; "
        "they swap half-way",
        "latency is measured from the moment a request was due (open loop), so stalls are not left out",
        "dollars: training time on the simulated clock at the settings' prices, plus the value of quality lost "
        "(quality is 0.5 BLEU-1 + 0.5 exact match); the machines that serve are the same in every arm and left out",
        "never: the model that the run began with, loaded again after the run on the engine that served and asked "
        "every question of the run once; its answers stand for each time the question was asked",
    )
    return (*schedule.notes, *shares)
