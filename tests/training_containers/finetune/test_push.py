"""A Pushgateway behind a login: its user and password are used, and in no log line."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from typing import Any

import pytest

from training_containers.finetune.push import push_metrics


def test_user_and_password_are_used_and_never_logged(
    http_server: Callable[..., Any], a_manifest: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    def answer(asked: Any) -> tuple[int, bytes]:
        seen.append(asked)
        return 200, b""

    with http_server(answer) as url, caplog.at_level(logging.WARNING):
        push_metrics(url.replace("//", "//us%40er:s3cr3t@"), a_manifest(), "aws")
        assert base64.b64decode(seen[0].headers["Authorization"].removeprefix("Basic ")) == b"us@er:s3cr3t"
        assert not caplog.records
        push_metrics("http://user:s3/cr3t@host", a_manifest(), "aws")  # no address: a slash in the password
    assert "Pushgateway did not take the metrics" in caplog.text
    assert "cr3t" not in caplog.text
