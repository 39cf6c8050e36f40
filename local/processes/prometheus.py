"""Prometheus as a service of a run: serving containers write their metrics to it, the front doors' are scraped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from local.processes.supervisor import Service, http_ok, tool

RULES: Final = Path(__file__).parents[2] / "infra" / "dashboards" / "prometheus" / "rules.yml"
#: where it takes what containers write
WRITE_PATH: Final = "/api/v1/write"
#: like Prometheus' default of five minutes beside decision slots of one minute
LOOKBACK_SLOTS: Final = 5.0
#: the control plane changes once a slot, and a scrape of it reads the records of both clouds
CONTROL_SLOTS: Final = 2.0
SHORTEST_CONTROL_S: Final = 2.0
#: Prometheus' own limit by default
LONGEST_SCRAPE_S: Final = 10.0


def config(door_ports: Sequence[int], scrape_s: float, slot_s: float) -> dict[str, Any]:
    """Prometheus' configuration. JSON is YAML, so that none has to be written by hand."""
    every_s = control_every_s(slot_s)
    return {
        "global": {"scrape_interval": duration(scrape_s), "evaluation_interval": duration(5 * scrape_s)},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": "opportune-control",
                # what the functions call service and cloud, not what is known of the target
                "honor_labels": True,
                "scrape_interval": duration(every_s),
                "scrape_timeout": duration(min(every_s, LONGEST_SCRAPE_S)),
                "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in door_ports]}],
            },
        ],
    }


def service(folder: Path, *, port: int, door_ports: Sequence[int], scrape_s: float, slot_s: float) -> Service:
    """The program, with its data below `folder`; `scrape_s` is how often the containers' agents scrape them.

    Raises:
        InvalidInputError: it is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "prometheus.json"
    path.write_text(json.dumps(config(door_ports, scrape_s, slot_s), indent=2))
    here = f"127.0.0.1:{port}"
    lookback_s = max(5 * scrape_s, LOOKBACK_SLOTS * slot_s, 2 * control_every_s(slot_s))
    command = [
        str(tool("prometheus")),
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={here}",
        "--web.enable-remote-write-receiver",
        f"--query.lookback-delta={duration(lookback_s)}",
        "--log.level=warn",
    ]
    return Service("prometheus", command, http_ok(f"http://{here}/-/ready"))


def control_every_s(slot_s: float) -> float:
    """How often the front doors are scraped."""
    return max(SHORTEST_CONTROL_S, CONTROL_SLOTS * slot_s)


def duration(seconds: float) -> str:
    """In Prometheus' notation, which has no fractions."""
    return f"{max(1, round(seconds * 1000))}ms"
