"""The configuration is one that Prometheus itself accepts."""

import json
import subprocess
from pathlib import Path

import pytest

from local.processes.prometheus import config, duration, services
from local.processes.supervisor import tool


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "prometheus.json"
    path.write_text(json.dumps(config([8001, 8002], 9091, 0.5)))
    done = subprocess.run([tool("promtool"), "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout


def test_the_programs_keep_their_data_in_the_runs_folder(tmp_path: Path) -> None:
    prometheus, pushgateway = services(
        tmp_path / "p", port=1, pushgateway_port=2, serving_ports=[3], scrape_s=1, slot_s=2
    )
    assert f"--storage.tsdb.path={tmp_path / 'p' / 'data'}" in prometheus.command
    assert "--query.lookback-delta=10000ms" in prometheus.command
    assert "--persistence.file=" in pushgateway.command


@pytest.mark.parametrize(("seconds", "text"), [(1, "1000ms"), (0.25, "250ms"), (0.0001, "1ms")])
def test_durations_have_no_fractions(seconds: float, text: str) -> None:
    assert duration(seconds) == text
