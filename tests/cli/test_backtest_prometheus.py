"""`opportune backtest --prometheus` against a real Prometheus whose past was written by promtool."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
HOURS = 20.0
MINUTE = 60.0


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{ROOT / '.tools' / 'bin'}:/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip(f"{name} is not installed; make install fetches it")
    return found


def past(end_s: float) -> str:
    """A service that gets worse steadily and was retrained once, after ten hours, as OpenMetrics text."""
    times = np.arange(end_s - HOURS * 3600.0, end_s, MINUTE)
    hours = (times - times[0]) / 3600.0
    rng = np.random.default_rng(0)
    quality = 0.8 - 0.02 * np.where(hours < 10.0, hours, hours - 9.75) + rng.normal(0.0, 0.01, len(times))
    lines = []
    for name, kind, values in (
        ("llm_bleu", "gauge", quality),
        ("llm_accuracy", "gauge", quality - 0.05),
        ("llm_rl_redeploy", "counter", (hours >= 10.0).astype(float)),
    ):
        lines.append(f"# TYPE {name} {kind}")
        suffix = "_total" if kind == "counter" else ""
        lines += [f'{name}{suffix}{{service="qa"}} {v:.5f} {t:.3f}' for t, v in zip(times, values, strict=True)]
    return "\n".join([*lines, "# EOF", ""])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "past.txt").write_text(past(time.time()))
    (folder / "prometheus.yml").write_text("global: {}\n")
    subprocess.run(
        [tool("promtool"), "tsdb", "create-blocks-from", "openmetrics", "past.txt", "data"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen([tool("prometheus"), *options], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/-/ready", timeout=1)
                break
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def opportune(url: str, hours: float, *arguments: str) -> subprocess.CompletedProcess[str]:
    since = f"{hours * 60:.0f}m"
    command = [sys.executable, "-m", "cli.main", "backtest", "--prometheus", url, "--since", since, "--step", "600"]
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "OPPORTUNE_TRAIN_HOURS_AWS": "0.25"},
        timeout=240,
    )


@pytest.mark.slow
def test_it_says_what_was_done_and_what_would_have_been_saved(prometheus: str, tmp_path: Path) -> None:
    picture = tmp_path / "mine.svg"
    policies = ("--policy", "never", "--policy", "oracle")
    done = opportune(prometheus, HOURS - 0.5, *policies, "--json", "--picture", str(picture))
    assert done.returncode == 0, done.stderr
    assert "what you did" in picture.read_text() and "oracle" in picture.read_text()
    answer = json.loads(done.stdout)
    assert answer["actual"]["retrains"] == 1
    assert answer["fit"]["r_squared"] > 0.8
    assert answer["actual"]["modelled_cost_usd"] == pytest.approx(answer["actual"]["cost_usd"], rel=0.05)
    never, oracle = answer["policies"]
    assert never["saved_usd"] < 0 < oracle["saved_usd"]
    for one in (never, oracle):
        low, high = one["saved_interval_usd"]
        assert low < one["saved_usd"] < high
    assert never["retrained_at"] == []


@pytest.mark.slow
def test_a_short_history_is_refused_with_the_reason(prometheus: str) -> None:
    done = opportune(prometheus, 3.0, "--policy", "never")
    assert done.returncode == 2
    assert done.stderr.startswith("opportune: history too short: quality was measured at ")
    assert "widen --since" in done.stderr
