"""The embedded clouds run the package that `make package` would build, and build it once per content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra import package
from local.runtimes import packages
from shared.errors import InvalidInputError


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was built, in order."""
    made: list[str] = []

    def build(cloud: str, arch: str, out: Path) -> Path:
        made.append(cloud)
        (out / cloud).mkdir(exist_ok=True)
        return out / cloud

    monkeypatch.setattr(package, "build", build)
    return made


def test_a_package_is_built_once_until_its_inputs_change(
    built: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert packages.packaged("aws", tmp_path) == packages.packaged("aws", tmp_path) == tmp_path / "aws"
    packages.packaged("azure", tmp_path)
    assert built == ["aws", "azure"]
    monkeypatch.setattr(packages, "inputs_digest", lambda cloud: "changed")
    packages.packaged("aws", tmp_path)
    assert built == ["aws", "azure", "aws"]


def test_a_build_that_failed_is_not_taken_for_a_package(
    built: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Path:
        raise package.PackageError("no wheels")

    with monkeypatch.context() as broken:
        broken.setattr(package, "build", fail)
        with pytest.raises(packages.PackagingError, match="no wheels"):
            packages.packaged("aws", tmp_path)
    packages.packaged("aws", tmp_path)
    assert built == ["aws"]


def test_what_goes_into_a_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*packages._ALSO, "requirements/functions-aws.txt", "functions/a.py", "functions/azure/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    before = packages.inputs_digest("aws")
    (tmp_path / "functions/azure/b.py").write_text("2")
    assert packages.inputs_digest("aws") == before, "the other cloud's functions are not in it"
    (tmp_path / "functions/a.py").write_text("2")
    assert packages.inputs_digest("aws") != before


def test_missing_runtimes_are_an_error_that_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PYTHON", tmp_path / "python")
    with pytest.raises(InvalidInputError, match=r"run `make \.venv313/\.installed`"):
        packages.packaged("aws", tmp_path)


def test_a_machine_without_wheels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(InvalidInputError, match="riscv64"):
        packages.architecture()
