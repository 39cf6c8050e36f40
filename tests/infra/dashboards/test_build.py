"""The committed dashboard and rules: up to date, accepted by Prometheus itself, firing when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from functions.web import control_metrics
from infra.dashboards import build
from infra.dashboards.build import files
from infra.dashboards.grafana import COLUMNS, dashboard
from infra.dashboards.rules import ALERTS, RECORDINGS, rules_yaml

ROOT = Path(__file__).parents[3]
OWN_TOOL = ROOT / ".tools" / "bin" / "promtool"
PROMTOOL = str(OWN_TOOL) if OWN_TOOL.exists() else shutil.which("promtool")

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


def promtool(*arguments: str, cwd: Path) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expressions() -> list[str]:
    """Every PromQL of the dashboard, for the service `qa`."""
    made = dashboard()
    found = [target["expr"] for panel in made["panels"] for target in panel.get("targets", [])]
    found += [annotation["expr"] for annotation in made["annotations"]["list"]]
    return [expr.replace("$service", "qa") for expr in found]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_the_committed_file_is_what_the_code_builds(path: Path) -> None:
    assert path.read_text() == files()[path], "run python -m infra.dashboards.build"


@needs_promtool
def test_prometheus_accepts_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rules_yaml())
    said = promtool("check", "rules", "rules.yml", cwd=tmp_path)
    assert f"{len(RECORDINGS) + len(ALERTS)} rules found" in said


@needs_promtool
def test_prometheus_parses_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions())]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "panels.yml", cwd=tmp_path)


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    own = ",".join(f'{key}="{value}"' for key, value in {"service": "qa", "cloud": "aws", **labels}.items())
    return {"series": f"{name}{{{own}}}", "values": values}


def fires(tmp_path: Path, alert: str, at: str, given: list[dict[str, str]], expected: bool) -> None:
    """Fails unless `alert` fires (or does not) at `at`, whatever its labels say."""
    expression = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    samples: list[dict[str, Any]] = [{"labels": "{}", "value": 1}] if expected else []
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "promql_expr_test": [{"expr": expression, "eval_time": at, "exp_samples": samples}],
            }
        ],
    }
    (tmp_path / "rules.yml").write_text(rules_yaml())
    (tmp_path / "test.yml").write_text(json.dumps(test))
    promtool("test", "rules", "test.yml", cwd=tmp_path)


GOOD_THEN_BAD = "0.9x60 0.5x120"
SERVING = [series("llm_model_active", "1x300", model_version="base")]


def quality(values: str, version: str = "base") -> list[dict[str, str]]:
    return [series(name, values, model_version=version) for name in ("llm_bleu", "llm_accuracy")]


@needs_promtool
@pytest.mark.parametrize(
    ("alert", "at", "given", "expected"),
    [
        ("OpportuneQualityFell", "80m", [*SERVING, *quality(GOOD_THEN_BAD)], False),
        ("OpportuneQualityFell", "95m", [*SERVING, *quality(GOOD_THEN_BAD)], True),
        ("OpportuneQualityFell", "95m", [*SERVING, *quality("0.9x200")], False),
        # a replaced version's fading window says nothing about the service
        ("OpportuneQualityFell", "95m", [*SERVING, *quality("0.9x200"), *quality("0.1x200", "old")], False),
        ("OpportuneBlind", "20m", SERVING, True),
        ("OpportuneBlind", "20m", [*SERVING, *quality("0.9x200")], False),
        ("OpportuneNotServing", "10m", [], True),
        ("OpportuneNotServing", "10m", SERVING, False),
        ("OpportuneErrors", "20m", [series("llm_requests_total", "0+60x60", status="200")], False),
        (
            "OpportuneErrors",
            "20m",
            [
                series("llm_requests_total", "0+60x60", status="200"),
                series("llm_requests_total", "0+6x60", status="503"),
            ],
            True,
        ),
        ("OpportuneManyRetrains", "20h", [series("llm_rl_redeploy_total", "0+1x1500")], True),
        ("OpportuneManyRetrains", "20h", [series("llm_rl_redeploy_total", "3x1500")], False),
        ("OpportuneFeedbackLost", "20m", [series("llm_feedback_dropped_total", "0x10 5x10")], True),
        # both clouds' functions tell the same
        (
            "OpportuneManyRetrains",
            "20h",
            [series("llm_rl_redeploy_total", "0+1x2000", instance=one, cloud="") for one in ("a", "b")],
            True,
        ),
        (
            "OpportuneManyRetrains",
            "1500m",
            [series("llm_rl_redeploy_total", "0x60 0+0.005x1600", instance=one, cloud="") for one in ("a", "b")],
            False,
        ),
        ("OpportuneMetricsSilent", "50m", [series("llm_memory_usage_ratio", "0.5x30")], True),
        ("OpportuneMetricsSilent", "50m", [series("llm_memory_usage_ratio", "0.5x60")], False),
        # one container of two is gone: the cloud is not silent
        (
            "OpportuneMetricsSilent",
            "50m",
            [series("llm_memory_usage_ratio", f"0.5x{n}", instance=str(n)) for n in (30, 60)],
            False,
        ),
        (
            "OpportuneMetricsSilent",
            "50m",
            [series("llm_memory_usage_ratio", f"0.5x{n}", cloud=c) for n, c in ((30, "aws"), (60, "azure"))],
            True,
        ),
        ("OpportuneRetrainStuck", "40m", [series("llm_retrain_overdue_seconds", "0x10 0+60x60")], True),
        ("OpportuneRetrainStuck", "40m", [series("llm_retrain_overdue_seconds", "0x30 60x5 0x60")], False),
        ("OpportuneDeadLetters", "20m", [series("llm_dead_letters", "0x5 2x20")], True),
        ("OpportuneDeadLetters", "20m", [series("llm_dead_letters", "0x30")], False),
        ("OpportuneControlPlaneUnreadable", "40m", [series("llm_control_plane_part_up", "0x60", part="jobs")], True),
        # the other cloud's function reads it
        (
            "OpportuneControlPlaneUnreadable",
            "40m",
            [series("llm_control_plane_part_up", f"{up}x60", part="jobs", instance=str(up)) for up in (0, 1)],
            False,
        ),
        (
            "OpportuneVersionsDiffer",
            "60m",
            [*SERVING, series("llm_model_active", "1x300", model_version="m1", cloud="azure")],
            True,
        ),
    ],
)
def test_alerts_fire_when_they_should(
    tmp_path: Path, alert: str, at: str, given: list[dict[str, str]], expected: bool
) -> None:
    fires(tmp_path, alert, at, given, expected)


def test_every_metric_is_one_that_the_project_exports() -> None:
    known = {record.record for record in RECORDINGS}
    for folder in ("training_containers", "functions", "shared"):
        for source in (ROOT / folder).rglob("*.py"):
            known |= set(re.findall(r"\bllm_[a-z0-9_]+", source.read_text()))
    for expr in [*expressions(), *(r.expr for r in RECORDINGS), *(a.expr for a in ALERTS)]:
        for name in re.findall(r"(?:service[a-z_]*:)?llm_[a-z0-9_]+(?::[a-z0-9]+)?", expr):
            assert name in known or re.sub(r"_(bucket|sum|count|total)$", "", name) in known, name


def test_what_both_functions_tell_is_never_added_up() -> None:
    told = re.findall(r"^\| (llm_\w+)", control_metrics.__doc__ or "", re.MULTILINE)
    assert len(told) > 15
    for expr in [*expressions(), *(a.expr for a in ALERTS)]:
        for metric in told:
            for found in re.finditer(rf"\b{metric}(_sum|_count)?\b", expr):
                assert re.search(r"\bmax ?(by \([\w, ]+\) )?\((increase\()?$", expr[: found.start()]), expr


def test_panels_fill_the_grid_without_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= COLUMNS
        taken |= cells


def test_check_names_what_is_out_of_date_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale, fresh = tmp_path / "prometheus" / "rules.yml", tmp_path / "grafana" / "opportune.json"
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["build", "--check"])
    with pytest.raises(SystemExit) as ended:
        build.main()
    assert ended.value.code == 1 and not stale.exists()
    assert "rules.yml is out of date" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["build"])
    build.main()
    monkeypatch.setattr(sys, "argv", ["build", "--check"])
    build.main()
    assert stale.exists() and fresh.exists()
