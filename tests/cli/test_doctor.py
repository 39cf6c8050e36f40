"""`opportune doctor` fails while anything that the loop needs is missing, and each line says what to do."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from shared.contracts import InstanceStatus, InstanceVersion, MetricWindow, Series, encode
from shared.errors import NotFoundError, RefusedError
from shared.ports import CloudServices
from shared.promql import METRICS
from shared.releases import instance_key, release_key, released
from shared.values import Standing


class Setup:
    """An endpoint's management."""

    name = "endpoint opportune-ops"

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def standing(self) -> Standing:
        return self._standing


def status(**changes: Any) -> InstanceStatus:
    plain: dict[str, Any] = {"service": "ops", "cloud": "aws", "instance": "i", "told_s": time.time(), "active": "m1"}
    return InstanceStatus(**plain | changes)


@pytest.fixture
def well(two_clouds: dict[str, CloudServices], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A deployment in which nothing is missing; a test takes something away. Standing and account checks by cloud."""
    parts: dict[str, Any] = {
        "standing": dict.fromkeys(two_clouds, Standing("InService", ready=True)),
        "account": {cloud: {"image": lambda: "is there", "alarms": lambda: "reach 1"} for cloud in two_clouds},
        "missing": {},
    }
    for cloud, services in two_clouds.items():
        services.objects.put(release_key("ops"), encode(released(None, "ops", "m1", time.time(), "test")))
        services.objects.put(instance_key("ops", "i"), encode(status()))
        services.objects.put(f"feedback/{cloud}/{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-x.jsonl", b"{}")
    monkeypatch.setattr("cli.doctor_clouds.endpoint_setup", lambda cloud, _: Setup(parts["standing"][cloud]))
    monkeypatch.setattr("cli.doctor_clouds.account", lambda cloud, _: parts["account"][cloud])
    monkeypatch.setattr("cli.doctor._clock", lambda _: "within 1 s")

    def window(self: object, start_s: float, end_s: float, step_s: float, *_: Any) -> MetricWindow:
        series = {name: Series((end_s,), (0.5,)) for name in METRICS if name not in parts["missing"]}
        return MetricWindow(
            service="ops", start_s=start_s, end_s=end_s, step_s=step_s, series=series, missing=parts["missing"]
        )

    monkeypatch.setattr("shared.adapters.prometheus.PrometheusMetrics.window", window)
    monkeypatch.setattr("shared.adapters.prometheus.PrometheusMetrics.explained", lambda _, window: window)
    return parts


@pytest.fixture
def told(typed: Callable[..., Any]) -> Callable[[], tuple[int, dict[str, dict[str, Any]]]]:
    """A function: the exit code of `doctor`, and its checks by name."""

    def run() -> tuple[int, dict[str, dict[str, Any]]]:
        done = typed("doctor", "--json")
        return done.returncode, {one["name"]: one for one in json.loads(done.stdout)["checks"]}

    return run


def test_nothing_missing_is_exit_code_0(well, told) -> None:
    code, checks = told()
    assert [(name, one["says"]) for name, one in checks.items() if one["level"] != "ok"] == []
    assert code == 0
    assert checks["aws prices"]["says"] == "ml.g4dn.xlarge in eu-west-1: $0.822 an hour, about $0.378 on spot"
    assert checks["azure instances"]["says"] == "1 serve m1"


@pytest.mark.parametrize(
    ("standing", "says"),
    [
        (Standing(""), "does not exist; make it: opportune release MODEL --first"),
        (Standing("Failed", failed=True, reason="no capacity"), "is Failed: no capacity"),
        (Standing("Creating", reason="starts"), "is Creating: starts"),
        (
            Standing("InService", ready=True, lacks="its containers need A=1"),
            "does not follow releases: its containers",
        ),
    ],
)
def test_an_endpoint_that_does_not_serve_fails(standing: Standing, says: str, well, told) -> None:
    well["standing"]["azure"] = standing
    code, checks = told()
    assert code == 1
    assert says in checks["azure endpoint"]["says"]
    assert checks["aws endpoint"]["ok"]


def test_no_release_and_no_instance_fail(well, two_clouds, told) -> None:
    objects: Any = two_clouds["aws"].objects
    del objects._objects[release_key("ops")]
    objects.put(instance_key("ops", "i"), encode(status(told_s=time.time() - 100)))
    code, checks = told()
    assert code == 1
    assert "opportune release MODEL --first" in checks["aws release"]["says"]
    assert "the last one did 100 s ago: does the endpoint run our image" in checks["aws instances"]["says"]


def test_an_instance_that_cannot_load_the_release_fails_with_its_words(well, two_clouds, told) -> None:
    failed = InstanceVersion(model_version="m1", state="failed", reason="200 MB are free")
    two_clouds["aws"].objects.put(instance_key("ops", "i"), encode(status(active="m0", versions=(failed,))))
    code, checks = told()
    assert code == 1
    assert "m0 serves: instance i cannot load m1: 200 MB are free" in checks["aws instances"]["says"]


def test_no_labels_and_dead_letters_are_warnings(well, two_clouds, told) -> None:
    objects: Any = two_clouds["aws"].objects
    for entry in list(objects.entries("feedback/")):
        del objects._objects[entry.key]
    objects.put("feedback/aws/20200101T000000-x.jsonl", b"{}")
    two_clouds["azure"].queue.dead_letter("{oops", "not JSON")
    code, checks = told()
    assert code == 0
    assert checks["aws labels"]["level"] == checks["azure dead letters"]["level"] == "warning"
    assert "POST /feedback" in checks["aws labels"]["says"]


def test_a_metric_that_a_decision_needs_fails_with_its_reason(well, told) -> None:
    well["missing"] = {"latency": "no request came in", "redeploys": "none yet"}
    code, checks = told()
    assert code == 1
    assert "latency: no request came in" in checks["metrics"]["says"]
    well["missing"] = {"redeploys": "none yet"}
    assert told()[0] == 0, "counters are for reports"


def test_a_machine_without_a_price_fails_with_the_variable(well, told, monkeypatch) -> None:
    monkeypatch.setenv("OPPORTUNE_AZUREML_INSTANCE_TYPE", "Standard_New")
    code, checks = told()
    assert code == 1
    assert "OPPORTUNE_PRICE_USD_PER_HOUR_AZURE is not set" in checks["azure prices"]["says"]


def test_each_check_is_by_itself_and_what_one_may_not_look_at_is_not_checked(well, told) -> None:
    def denied() -> str:
        raise RefusedError("ECR", "AccessDeniedException: you are not authorized")

    def bug() -> str:
        raise KeyError("odd")

    def gone() -> str:
        raise NotFoundError("7 alarms reach nobody; follow the link in AWS's mail")

    well["account"]["aws"] = {"image": denied, "roles": bug, "alarms": gone}
    code, checks = told()
    assert code == 1
    assert checks["aws image"]["level"] == "not checked"
    assert "KeyError" in checks["aws roles"]["says"]
    assert "follow the link" in checks["aws alarms"]["says"]
    assert checks["azure alarms"]["ok"]


def test_the_table_marks_each_line(well, typed) -> None:
    well["standing"]["aws"] = Standing("")
    shown = typed("doctor").stdout
    assert "ok    aws table: answers" in shown
    assert "FAIL  aws endpoint: endpoint opportune-ops does not exist" in shown


def test_a_check_that_never_ends_is_given_up(well, told, monkeypatch) -> None:
    monkeypatch.setattr("cli.doctor.CHECK_S", 0.2)
    well["account"]["aws"] = {"image": lambda: threading.Event().wait(5)}
    code, checks = told()
    assert code == 1
    assert "no answer within 0.2 s" in checks["aws image"]["says"]
    assert msgspec.json.encode(checks)
