"""`make deploy-aws` and `make deploy-azure`: the documented commands, each shown before it runs, and clear refusals."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARAMS = "service=qa prometheusUrl=https://prometheus.example.com"
COMMANDS = ("bash", "dirname", "env", "printf", "cat")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The two scripts in a project of their own; every program they call writes down how it was called."""
    (tmp_path / "scripts").mkdir()
    for name in ("deploy-aws.sh", "deploy-azure.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    for folder in ("bin", ".tools/bin", "build/azure"):
        (tmp_path / folder).mkdir(parents=True)
    for name in COMMANDS:
        found = shutil.which(name)
        assert found
        (tmp_path / "bin" / name).symlink_to(found)
    for name in ("bin/make", "bin/az", "bin/func", ".tools/bin/osls"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho "${{0##*/}} $*" >> {tmp_path}/calls\n'
            'case "$*" in *"group show"*) echo app-1;; esac\n[ "$1" != "$BROKEN" ]\n'
        )
        program.chmod(0o755)
    return tmp_path


def deploy(project: Path, where: str, **env: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    done = subprocess.run(
        [str(project / "scripts" / f"deploy-{where}.sh")],
        env={"PATH": str(project / "bin"), "BROKEN": "nothing", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    calls = project / "calls"
    return done, calls.read_text().splitlines() if calls.exists() else []


def test_aws_is_the_documented_commands(project: Path) -> None:
    done, calls = deploy(project, "aws", STAGE="prod", REGION="eu-north-1", PARAMS=PARAMS)
    assert done.returncode == 0, done.stderr
    assert calls == [
        "make package",
        "osls deploy --stage prod --region eu-north-1 --param service=qa "
        "--param prometheusUrl=https://prometheus.example.com",
    ]
    assert done.stdout.splitlines() == ["+ make package", f"+ .tools/bin/{calls[1]}"]


def test_azure_is_the_documented_commands_and_forgets_no_parameter(project: Path) -> None:
    done, calls = deploy(project, "azure", GROUP="mine", PARAMS=f"{PARAMS} alarmEmail=you@example.com")
    assert done.returncode == 0, done.stderr
    template = (
        "az deployment group create --resource-group mine --template-file infra/azure/main.json --parameters "
        f"stage=dev {PARAMS} alarmEmail=you@example.com"
    )
    assert calls == [
        "az group create --name mine --location westeurope",
        template,
        "az deployment group show -g mine -n main --query properties.outputs.functionApp.value -o tsv",
        "make package",
        "func azure functionapp publish app-1 --python --no-build",
        f"{template} subscribeEvents=true",
    ]


def test_azure_publishes_to_an_app_that_exists_and_touches_nothing_else(project: Path) -> None:
    done, calls = deploy(project, "azure", APP="app-7")
    assert done.returncode == 0, done.stderr
    assert calls == ["make package", "func azure functionapp publish app-7 --python --no-build"]


@pytest.mark.parametrize(
    ("where", "missing", "env", "says"),
    [
        ("aws", ".tools/bin/osls", {"PARAMS": PARAMS}, ".tools/bin/osls is missing; make install fetches it"),
        ("azure", "bin/az", {"PARAMS": PARAMS}, "az is missing; install the Azure command line"),
        ("azure", "bin/func", {"PARAMS": PARAMS}, "func is missing; install Azure Functions Core Tools"),
        ("azure", "bin/func", {"APP": "app-7"}, "func is missing; install Azure Functions Core Tools"),
        ("aws", None, {}, 'PARAMS is empty; for instance PARAMS="service=qa'),
        ("azure", None, {}, 'PARAMS is empty; for instance PARAMS="service=qa'),
        ("aws", None, {"PARAMS": "--param service=qa"}, "'--param' is not name=value"),
        ("azure", None, {"PARAMS": "service"}, "'service' is not name=value"),
    ],
)
def test_what_is_missing_is_one_line_before_anything_runs(
    project: Path, where: str, missing: str | None, env: dict[str, str], says: str
) -> None:
    if missing:
        (project / missing).unlink()
    done, calls = deploy(project, where, **env)
    assert (done.returncode, calls, done.stdout) == (1, [], "")
    assert done.stderr.startswith(f"deploy-{where}: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_step_that_fails_ends_it(project: Path) -> None:
    done, calls = deploy(project, "aws", PARAMS=PARAMS, BROKEN="package")
    assert done.returncode != 0
    assert calls == ["make package"]
