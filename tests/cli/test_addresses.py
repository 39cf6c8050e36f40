"""What commands print of a Prometheus whose address holds a password, and how long they wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

SECRET = "http://reader:s3cr3t@127.0.0.1:9/prefix"
SHOWN = "http://127.0.0.1:9/prefix"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_decide_shows_no_password(typed: Callable[..., Any], options: tuple[str, ...]) -> None:
    done = typed("decide", "--prometheus", SECRET, *options)
    assert done.returncode == 1
    assert SHOWN in done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr


def test_an_address_that_is_none_is_one_line_without_the_password(typed: Callable[..., Any]) -> None:
    done = typed("decide", "--prometheus", "https://reader:s3/cr3t@host")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "OPPORTUNE_PROMETHEUS_URL" in done.stderr and "%2F" in done.stderr
    assert "cr3t" not in done.stderr


def test_doctor_and_status_show_no_password(
    typed: Callable[..., Any], two_clouds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPPORTUNE_PROMETHEUS_URL", SECRET)
    two_clouds["aws"].host.url, two_clouds["aws"].host.version = SECRET, "m1"
    done = typed("doctor")
    assert f"clock: Prometheus is unavailable: {SHOWN}" in done.stdout
    status = typed("status")
    assert "s3cr3t" not in done.stdout + done.stderr + status.stdout + status.stderr


def test_decide_ends_in_time_whatever_prometheus_answers(
    typed: Callable[..., Any], http_server: Callable[..., Any]
) -> None:
    with http_server(lambda _: (503, b"{}", {"Retry-After": "20"})) as url:
        begun = time.monotonic()
        done = typed("decide", "--prometheus", url)
    assert done.returncode == 1 and "503" in done.stderr
    assert time.monotonic() - begun < 10
