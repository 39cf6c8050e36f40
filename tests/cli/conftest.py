"""The command line in this process: quick, and with its output and exit code as a terminal gets them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from cli.main import main
from shared.errors import UnavailableError
from shared.ports import CloudServices
from tests.fakes import memory_cloud


class Done(NamedTuple):
    """A finished command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """A function: arguments -> what `opportune` with them printed, and its exit code."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["opportune", *arguments])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as exc:
            code = exc.code
        return Done(int(code or 0), *capsys.readouterr())

    return run


class Unreachable:
    """Any port of a cloud that does not answer."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def refuse(*_: Any, **__: Any) -> Any:
            raise UnavailableError("DynamoDB table opportune", "connection refused")

        return refuse


@pytest.fixture
def two_clouds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, CloudServices]]:
    """A deployment of service `ops` on both clouds, in memory. A test replaces a cloud in the dictionary."""
    clouds = {name: memory_cloud(name) for name in ("aws", "azure")}
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("OPPORTUNE_AZURE_STORAGE_ACCOUNT", "store")
    monkeypatch.setenv("OPPORTUNE_SERVICE", "ops")
    monkeypatch.setattr("cli.clouds.cloud_services", lambda cloud, _: clouds[cloud])
    monkeypatch.setattr("cli.doctor_clouds.endpoint_setup", lambda cloud, _: Unreachable())
    monkeypatch.setattr("cli.doctor_clouds.account", lambda cloud, _: {})
    yield clouds


@pytest.fixture
def azure_away(two_clouds: dict[str, CloudServices]) -> dict[str, CloudServices]:
    """The same, and Azure does not answer."""
    gone: Any = Unreachable()
    two_clouds["azure"] = CloudServices("azure", gone, gone, gone, gone, gone)
    return two_clouds
