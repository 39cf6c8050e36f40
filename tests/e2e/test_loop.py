"""The whole loop through the command line, on real parts: what a newcomer sees with `make run`, only shorter."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
import pytest

ROOT = Path(__file__).parents[2]
KEYS = {
    "retrains", "bleu1_mean", "bleu1_before_after", "exact_match_mean", "requests", "failed_requests",
    "latency_p50_s", "latency_p95_s", "cost_usd", "decisions", "wall_s", "metrics_path",
}  # fmt: skip
#: the hosts, servers and tools of both clouds are more processes than this
MANY: Final = 8
#: what one retrain must have logged, in this order, under one trace id
STEPS = ("decide", "enqueue", "train", "trained", "gate", "route")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]


def left_over(out: Path) -> list[str]:
    """Processes of a run that writes below `out`, by their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(out) in value for value in process.environ().values()) and process.pid != psutil.Process().pid:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def start(out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli.main", "demo", "--out", str(out), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Run(NamedTuple):
    """A finished demo."""

    code: int
    result: dict[str, Any]
    progress: str
    seen_running: int
    out: Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One short drift, from the first question to the report."""
    out = tmp_path_factory.mktemp("demo")
    process = start(out, "--scenario", "drift", "--minutes", "50", "--speed", "20", "--seed", "7", "--json")
    seen = 0
    while process.poll() is None and seen < MANY:
        seen = max(seen, len(left_over(out)))
        time.sleep(1)
    stdout, stderr = process.communicate(timeout=420)
    assert process.returncode == 0, stderr
    yield Run(process.returncode, json.loads(stdout), stderr, seen, out)


@pytest.mark.timeout(480)
def test_json_on_standard_output_and_progress_on_standard_error(run: Run) -> None:
    assert set(run.result) == {"arms", "report", "against", "metrics_path"}
    assert run.result["metrics_path"] == "remote-write"
    assert set(run.result["arms"]) == {"adaptive"}
    arm = run.result["arms"]["adaptive"]
    assert set(arm) == KEYS
    assert arm["requests"] > 500 and 0 < arm["latency_p50_s"] <= arm["latency_p95_s"] < 10
    assert arm["decisions"] > 30 and 0 <= arm["bleu1_mean"] <= 1 and arm["cost_usd"] > 0
    assert "BLEU-1" in run.progress and "adaptive" in run.progress


def test_a_drift_is_answered_by_a_retrain_that_users_feel_and_nobody_waits_for(run: Run) -> None:
    arm = run.result["arms"]["adaptive"]
    assert sum(arm["retrains"].values()) >= 1
    assert max(after - before for before, after in arm["bleu1_before_after"]) >= 0.10
    assert arm["failed_requests"] == 0


def test_requests_follow_the_nearer_cloud(run: Run) -> None:
    requests = [json.loads(line) for line in (run.out / "adaptive" / "requests.jsonl").read_text().splitlines()]
    length_s = max(r["due_s"] for r in requests)

    def share_on_aws(start: float, end: float) -> float:
        answered = [r["cloud"] for r in requests if start <= r["due_s"] / length_s < end]
        return answered.count("aws") / len(answered)

    assert share_on_aws(0.2, 0.5) > 0.7
    assert share_on_aws(0.75, 1.0) < 0.3


def test_one_trace_id_leads_from_the_decision_to_the_route(run: Run) -> None:
    jobs = [json.loads(line) for line in (run.out / "adaptive" / "jobs.jsonl").read_text().splitlines()]
    live = next(job for job in jobs if job["status"] == "live")
    trace_id = live["job"]["trace_id"]
    events = []
    for log in (run.out / "adaptive" / "logs").rglob("*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if trace_id in line and (match := re.search(r'"action": ?"([a-z]+)"', line)):
                stamp = re.search(r'"time(?:stamp)?": ?"([^"]+)"', line)
                events.append((stamp[1].replace(" ", "T").replace(",", ".") if stamp else "", match[1]))
    said = [action for _, action in sorted(events)]
    places = [said.index(step) for step in STEPS]
    assert places == sorted(places), said
    report = Path(run.result["report"]).read_text(encoding="utf-8")
    assert trace_id in report and live["job"]["job_id"] in report


def test_the_report_stands_alone(run: Run) -> None:
    report = Path(run.result["report"]).read_text(encoding="utf-8")
    assert report.count("<svg") == 7
    assert not re.search(r'(src|href)="|@import|url\(', report)


def test_nothing_is_left_running(run: Run) -> None:
    assert run.seen_running >= MANY
    assert left_over(run.out) == []


@pytest.mark.timeout(180)
def test_an_interrupt_ends_everything(tmp_path: Path) -> None:
    process = start(tmp_path, "--minutes", "60")
    try:
        deadline = time.monotonic() + 120
        while len(left_over(tmp_path)) < MANY:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.strip().splitlines()[-1] == "interrupted"
    assert left_over(tmp_path) == []
