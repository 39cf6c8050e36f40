"""scripts/federate.sh against stand-ins of `aws` and `az`: what it makes, in which order, and once only."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = ("bash", "cat", "dirname", "env", "grep", "sed", "touch")
#: programs that keep what they made as files, and refuse what the real ones refuse
AWS = """#!/bin/bash
echo "aws $*" >> calls
case "$*" in
*get-caller-identity*) echo 123456789012 ;;
*enable-outbound*) touch outbound ;;
*get-outbound*) [[ -f outbound ]] && echo https://issuer.example/abc ;;
*describe-stacks*) echo https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-1/ ;;
*get-open-id-connect-provider*) [[ -f provider ]] ;;
*create-open-id-connect-provider*) [[ ! -f provider ]] && touch provider ;;
*add-client-id*) [[ -f provider ]] ;;
*) exit 9 ;;
esac
"""
AZ = """#!/bin/bash
echo "az $*" >> calls
case "$*" in
*"group show"*) [[ "$*" =~ outputs\\.([a-zA-Z]+)\\.value ]] && name=${BASH_REMATCH[1]}
    [[ $name == *Prometheus* ]] && echo https://q.westeurope.prometheus.monitor.azure.com || echo "<$name>" ;;
*"app list"*) if [[ -f application ]]; then echo app-1; fi ;;
*"app create"*) [[ ! -f application ]] && touch application ;;
*"sp show"*) [[ -f principal ]] ;;
*"sp create"*) touch principal ;;
*"account show"*) echo subscription-1 ;;
*) exit 9 ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The script in a project of its own, both clouds deployed."""
    for folder in ("scripts", "bin", "infra/aws", "infra/azure"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts/federate.sh", tmp_path / "scripts")
    shutil.copy(ROOT / "infra/aws/parameters.example.yml", tmp_path / "infra/aws/parameters.dev.yml")
    shutil.copy(ROOT / "infra/azure/parameters.example.json", tmp_path / "infra/azure/parameters.dev.json")
    for name in COMMANDS:
        found = shutil.which(name)
        assert found
        (tmp_path / "bin" / name).symlink_to(found)
    opportune = '#!/bin/bash\necho "opportune $*" >> calls\n'
    for name, text in (("bin/aws", AWS), ("bin/az", AZ), ("opportune", opportune)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def federate(project: Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    (project / "calls").write_text("")
    done = subprocess.run(
        [str(project / "scripts/federate.sh")],
        env={"PATH": str(project / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, (project / "calls").read_text().splitlines()


def made(calls: list[str]) -> list[str]:
    """The calls that change something, without their arguments."""
    changing = re.compile(r"(aws iam (?:enable|create|add)[\w-]+|az ad \w+ create|opportune deploy \w+)")
    return [found[0] for call in calls if (found := changing.findall(call))]


def test_each_cloud_is_told_of_the_other(project: Path) -> None:
    done, calls = federate(project)
    assert done.returncode == 0, done.stderr
    assert made(calls) == [
        "aws iam enable-outbound-web-identity-federation",
        "opportune deploy azure",
        "az ad app create",
        "az ad sp create",
        "aws iam create-open-id-connect-provider",
        "opportune deploy aws",
    ]
    (azure,) = [call for call in calls if call.startswith("opportune deploy azure")]
    for value in ("awsAccount=123456789012", "awsIssuer=https://issuer.example/abc", "awsRegion=eu-west-1"):
        assert f"--set {value}" in azure
    (aws,) = [call for call in calls if call.startswith("opportune deploy aws")]
    for name, output in (("azureClient", "awsClientId"), ("azureHttpClient", "awsHttpClientId")):
        assert f"--set {name}=<{output}>" in aws
    (application,) = [call for call in calls if "app create" in call]
    assert "--identifier-uris api://<tenant>/opportune-qa-dev" in application, "what the trust in the stack asks for"


def test_it_sets_only_parameters_that_exist(project: Path) -> None:
    _, calls = federate(project)
    known = {
        "azure": set(json.loads((ROOT / "infra/azure/main.json").read_text())["parameters"]),
        "aws": set(re.findall(r"^(\w+):", (ROOT / "infra/aws/parameters.example.yml").read_text(), re.MULTILINE)),
    }
    outputs = json.loads((ROOT / "infra/azure/main.json").read_text())["outputs"]
    for cloud, names in known.items():
        (call,) = [call for call in calls if call.startswith(f"opportune deploy {cloud}")]
        given = set(re.findall(r"--set (\w+)=", call))
        assert len(given) >= 4
        assert given <= names
    asked = {name for call in calls for name in re.findall(r"outputs\.(\w+)\.value", call)}
    assert asked <= set(outputs)


def test_repeated_it_makes_nothing_twice(project: Path) -> None:
    federate(project)
    done, calls = federate(project)
    assert done.returncode == 0, done.stderr
    assert made(calls) == [
        "opportune deploy azure",
        "aws iam add-client-id-to-open-id-connect-provider",
        "opportune deploy aws",
    ]


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("infra/aws/parameters.dev.yml", "infra/aws/parameters.dev.yml does not exist; deploy both clouds first"),
        ("infra/azure/parameters.dev.json", "infra/azure/parameters.dev.json does not exist"),
        ("bin/az", "az is missing; install it and sign in"),
    ],
)
def test_what_is_missing_is_one_line_before_anything_runs(project: Path, missing: str, says: str) -> None:
    (project / missing).unlink()
    done, calls = federate(project)
    assert (done.returncode, calls, done.stdout) == (1, [], "")
    assert done.stderr.startswith("federate: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_step_that_fails_ends_it(project: Path) -> None:
    (project / "opportune").write_text('#!/bin/bash\necho "opportune $*" >> calls\nexit 3\n')
    done, calls = federate(project)
    assert done.returncode == 3
    assert made(calls) == ["aws iam enable-outbound-web-identity-federation", "opportune deploy azure"]
