"""The configuration is one that Prometheus itself accepts."""

import json
import subprocess
from pathlib import Path

import pytest

from local.processes.prometheus import config, duration, service
from local.processes.supervisor import tool


@pytest.mark.parametrize("slot_s", [0.5, 2.0, 60.0])
def test_promtool_accepts_the_configuration(tmp_path: Path, slot_s: float) -> None:
    path = tmp_path / "prometheus.json"
    path.write_text(json.dumps(config([8001, 8002], 0.5, slot_s)))
    done = subprocess.run([tool("promtool"), "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout


def test_the_front_doors_are_scraped_and_nothing_else() -> None:
    (job,) = config([8001, 8002], 1.0, 2.0)["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8001", "127.0.0.1:8002"]}]
    assert job["honor_labels"], "service and cloud are what the functions say"


def test_it_takes_what_containers_write_and_keeps_its_data_in_the_runs_folder(tmp_path: Path) -> None:
    made = service(tmp_path / "p", port=1, door_ports=[3], scrape_s=1, slot_s=2)
    assert "--web.enable-remote-write-receiver" in made.command
    assert f"--storage.tsdb.path={tmp_path / 'p' / 'data'}" in made.command
    assert "--query.lookback-delta=10000ms" in made.command


@pytest.mark.parametrize(("seconds", "text"), [(1, "1000ms"), (0.25, "250ms"), (0.0001, "1ms")])
def test_durations_have_no_fractions(seconds: float, text: str) -> None:
    assert duration(seconds) == text
