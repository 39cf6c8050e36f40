"""Prometheus and Pushgateway as services of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from local.processes.supervisor import Service, http_ok, tool

RULES: Final = Path(__file__).parents[2] / "infra" / "dashboards" / "prometheus" / "rules.yml"
#: like Prometheus' default of five minutes beside decision slots of one minute
LOOKBACK_SLOTS: Final = 5.0


def config(serving_ports: Sequence[int], pushgateway_port: int, scrape_s: float) -> dict[str, Any]:
    """Prometheus' configuration. JSON is YAML, so that none has to be written by hand."""
    every = duration(scrape_s)
    return {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": duration(5 * scrape_s)},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": "opportune-serving",
                "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in serving_ports]}],
            },
            {
                "job_name": "opportune-pushgateway",
                # The pushed job and instance, not the gateway's.
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{pushgateway_port}"]}],
            },
        ],
    }


def services(
    folder: Path, *, port: int, pushgateway_port: int, serving_ports: Sequence[int], scrape_s: float, slot_s: float
) -> list[Service]:
    """Both programs, with their data below `folder`. Raises InvalidInputError when they are not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "prometheus.json"
    path.write_text(json.dumps(config(serving_ports, pushgateway_port, scrape_s), indent=2))
    here = f"127.0.0.1:{port}"
    prometheus = [
        str(tool("prometheus")),
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={here}",
        f"--query.lookback-delta={duration(max(5 * scrape_s, LOOKBACK_SLOTS * slot_s))}",
        "--log.level=warn",
    ]
    gateway = [
        str(tool("pushgateway")),
        f"--web.listen-address=127.0.0.1:{pushgateway_port}",
        "--persistence.file=",  # Debian's build would use a file of the system's own gateway
        "--log.level=warn",
    ]
    return [
        Service("prometheus", prometheus, http_ok(f"http://{here}/-/ready")),
        Service("pushgateway", gateway, http_ok(f"http://127.0.0.1:{pushgateway_port}/-/ready")),
    ]


def duration(seconds: float) -> str:
    """In Prometheus' notation, which has no fractions."""
    return f"{max(1, round(seconds * 1000))}ms"
