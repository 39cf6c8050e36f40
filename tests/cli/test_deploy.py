"""`opportune deploy` and `destroy`: the documented commands in their order, each shown, and clear refusals."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
#: as a person fills it in: comments stay when a line is changed
YAML = """# kept
region: eu-north-1
service: faq                      # of the model
mode: watch                       # or act
imageTag: "3"
alarmEmail: ""
"""
ARM = {"parameters": {"service": {"value": "faq"}, "stage": {"value": "dev"}, "subscribeEvents": {"value": False}}}
OUTPUTS = {
    "id": "/subscriptions/s-1/resourceGroups/g/deployments/d",
    "outputs": {
        name: {"type": "String", "value": value}
        for name, value in {
            "functionApp": "app-1", "httpApp": "app-2", "registry": "reg1", "storageAccount": "data1", "queue": "q",
            "workspace": "ws", "endpoint": "opp-1", "opportuneAzuremlRegion": "northeurope",
        }.items()
    },
}  # fmt: skip
#: a program of a test: writes down how it was called, answers what the case file says, fails where BROKEN matches
FAKE = """#!/bin/sh
echo "${{0##*/}} $*" >> {root}/calls
[ "${{0##*/}}" = osls ] && echo "parameters $OPPORTUNE_PARAMETERS" >> {root}/calls
case "${{0##*/}} $*" in
  *get-caller-identity*) echo 123456789012;;
  *get-login-password*) echo s3cret;;
  "docker login"*) cat > {root}/password;;
  *"deployment group show"*) cat {root}/outputs.json;;
  *describe-stacks*) cat {root}/stack.json;;
  *"resource list"*) printf '%s\\n' /x/onlineEndpoints/opp-1 /x/sites/app-1;;
  *describe-images*|*"repository show"*) [ -e {root}/pushed ] && echo sha256:abc || exit 254;;
  *describe-endpoint*) [ -e {root}/serving ] && echo InService || exit 254;;
esac
case "${{0##*/}} $*" in *"${{BROKEN:-nothing at all}}"*) echo "the tool's own words" >&2; exit 3;; esac
exit 0
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with parameter files of service `faq` in stage `dev`, and every program as a fake."""
    for folder in ("bin", ".tools/bin", "build/azure", "infra/aws", "infra/azure"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("bin/make", "bin/aws", "bin/az", "bin/docker", "bin/func", ".tools/bin/osls"):
        (tmp_path / name).write_text(FAKE.format(root=tmp_path))
        (tmp_path / name).chmod(0o755)
    for name in ("sh", "cat", "printf", "echo"):
        found = shutil.which(name)
        assert found
        (tmp_path / "bin" / name).symlink_to(found)
    (tmp_path / "infra/aws/parameters.dev.yml").write_text(YAML)
    (tmp_path / "infra/aws/parameters.example.yml").write_text(YAML.replace("faq", "qa"))
    (tmp_path / "infra/azure/parameters.dev.json").write_text(json.dumps(ARM))
    (tmp_path / "infra/azure/parameters.example.json").write_text(json.dumps(ARM))
    (tmp_path / "infra/azure/main.json").write_text(json.dumps({"parameters": {"budgetUsdPerDay": {}}}))
    (tmp_path / "outputs.json").write_text(json.dumps(OUTPUTS))
    stack = {"OpportuneMetricsWriteUrlAws": "https://aps/w", "ScheduleRoleArn": "arn", "OpportuneNoSuchSetting": "x"}
    listed = [{"OutputKey": name, "OutputValue": value} for name, value in stack.items()]
    (tmp_path / "stack.json").write_text(json.dumps(listed))
    monkeypatch.setattr("cli.deploy.ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("STAGE", "GROUP", "LOCATION", "BROKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def calls(project: Path) -> Callable[[], list[str]]:
    """A function: how the programs were called."""
    return lambda: (project / "calls").read_text().splitlines() if (project / "calls").exists() else []


NAME = "123456789012.dkr.ecr.eu-north-1.amazonaws.com/opportune-faq-dev:3"


def test_aws_is_packaged_deployed_built_and_pushed(project, calls, typed) -> None:
    done = typed("deploy", "aws", "--json")
    assert done.returncode == 0, done.stderr
    assert calls() == [
        "aws sts get-caller-identity --query Account --output text",
        "make package",
        "osls deploy --stage dev --region eu-north-1 --param service=faq",
        "parameters infra/aws/parameters.dev.yml",
        "aws ecr describe-images --region eu-north-1 --repository-name opportune-faq-dev --image-ids imageTag=3 "
        "--query imageDetails[0].imageDigest --output text",
        f"docker build -f training_containers/sagemaker/Dockerfile --target sagemaker -t {NAME} .",
        "aws ecr get-login-password --region eu-north-1",
        "docker login --username AWS --password-stdin 123456789012.dkr.ecr.eu-north-1.amazonaws.com",
        f"docker push {NAME}",
        "aws cloudformation describe-stacks --region eu-north-1 --stack-name opportune-faq-dev "
        "--query Stacks[0].Outputs --output json",
    ]
    assert (project / "password").read_text() == "s3cret\n"
    told = json.loads(done.stdout)
    assert told["settings"]["sagemaker_image"] == NAME
    assert told["settings"]["table"] == "opportune-faq-dev"
    shown = [line[2:] for line in done.stderr.splitlines() if line.startswith("+ ")]
    assert shown == told["commands"]
    assert "OPPORTUNE_PARAMETERS=infra/aws/parameters.dev.yml .tools/bin/osls deploy" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout


def test_what_it_prints_is_a_profile(project, typed) -> None:
    from cli.profiles import variables

    for where in ("aws", "azure"):
        file = project / "opportune.toml"
        file.write_text(f"[profile.dev]\n{typed('deploy', where).stdout}")
        found = variables(file, "dev")
        assert found["OPPORTUNE_SERVICE"] == "faq"
        wanted = {"AWS_REGION": "eu-north-1", "OPPORTUNE_METRICS_WRITE_URL_AWS": "https://aps/w"}
        if where == "azure":
            wanted = {"OPPORTUNE_AZUREML_REGION": "northeurope", "OPPORTUNE_POISON_QUEUE": "q-poison"}
        assert wanted.items() <= found.items()


def test_an_image_that_is_pushed_is_not_built_again(project, calls, typed) -> None:
    (project / "pushed").touch()
    done = typed("deploy", "aws")
    assert done.returncode == 0
    assert not [one for one in calls() if one.startswith("docker")]
    assert "a changed image needs another tag" in done.stderr


def test_without_docker_aws_is_refused_before_anything_runs_unless_there_is_no_image(project, calls, typed) -> None:
    (project / "bin/docker").unlink()
    done = typed("deploy", "aws")
    assert (done.returncode, calls()) == (2, [])
    assert done.stderr.startswith("opportune: docker is missing; install Docker")
    assert done.stderr.count("\n") == 1
    assert typed("deploy", "aws", "--no-image").returncode == 0


def test_a_dry_run_shows_everything_and_does_nothing(project, calls, typed) -> None:
    for name in ("bin/docker", "bin/aws", "bin/az", ".tools/bin/osls"):
        (project / name).unlink()
    for where in ("aws", "azure"):
        for command in ("deploy", "destroy"):
            done = typed(command, where, "--dry-run")
            assert done.returncode == 0, done.stderr
            assert re.search(r"^\+ ", done.stderr, re.MULTILINE)
    assert calls() == []
    assert typed("deploy", "aws", "--stage", "new", "--dry-run", "--set", "mode=act").returncode == 0
    assert not (project / "infra/aws/parameters.new.yml").exists()


def test_a_step_that_fails_ends_it_with_the_reason_and_what_to_repeat(project, calls, typed, monkeypatch) -> None:
    monkeypatch.setenv("BROKEN", "make package")
    done = typed("deploy", "aws")
    assert done.returncode == 2, "nothing was done"
    assert "make ended with exit code 3" in done.stderr
    assert "Then repeat: opportune deploy aws --stage dev" in done.stderr
    assert calls()[-1] == "make package"
    monkeypatch.setenv("BROKEN", "osls deploy")
    done = typed("deploy", "aws", "--json")
    assert done.returncode == 1, "the package was made"
    assert "CREATE_FAILED" in json.loads(done.stdout)["failed"]


def test_a_line_of_the_parameters_changes_and_the_rest_stays(project, typed) -> None:
    assert typed("deploy", "aws", "--set", "mode=act", "--set", "alarmEmail=a@b.c").returncode == 0
    text = (project / "infra/aws/parameters.dev.yml").read_text()
    assert 'mode: "act"                       # or act' in text
    assert 'alarmEmail: "a@b.c"' in text
    assert text.startswith("# kept\nregion: eu-north-1\nservice: faq ")
    assert typed("deploy", "azure", "--set", "budgetUsdPerDay=9", "--set", "subscribeEvents=false").returncode == 0
    values = json.loads((project / "infra/azure/parameters.dev.json").read_text())["parameters"]
    assert values["budgetUsdPerDay"] == {"value": "9"}
    assert values["service"] == {"value": "faq"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("aws", "--set", "mod=act"), "--set mod: parameters.dev.yml has no such parameter"),
        (("azure", "--set", "mod=act"), "--set mod: infra/azure/main.json has no such parameter"),
        (("aws", "--set", "mode"), "--set 'mode': write NAME=VALUE"),
        (("aws", "--set", "service=other"), "give --parameters infra/aws/parameters.other-dev.yml"),
    ],
)
def test_a_wrong_parameter_is_one_line_before_anything_runs(arguments, says: str, project, calls, typed) -> None:
    done = typed("deploy", *arguments)
    assert (done.returncode, calls()) == (2, [])
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_second_service_in_the_stage_has_a_file_and_a_stack_of_its_own(project, calls, typed) -> None:
    file = project / "infra/aws/parameters.other-dev.yml"
    done = typed("deploy", "aws", "--parameters", str(file), "--set", "service=other", "--no-image")
    assert done.returncode == 0, done.stderr
    assert "osls deploy --stage dev --region eu-north-1 --param service=other" in calls()
    assert "parameters infra/aws/parameters.other-dev.yml" in calls()
    assert 'service: "other"' in file.read_text()
    assert "service: faq" in (project / "infra/aws/parameters.dev.yml").read_text()


def test_azure_is_deployed_built_by_its_own_builder_published_and_then_gets_its_events(project, calls, typed) -> None:
    done = typed("deploy", "azure", "--group", "g", "--json")
    assert done.returncode == 0, done.stderr
    template = (
        "az deployment group create --resource-group g --name opportune-faq-dev --template-file infra/azure/main.json "
        "--parameters @infra/azure/parameters.dev.json --output none"
    )
    image = "opportune-training:1"
    assert [one for one in calls() if "group show" not in one and "repository show" not in one] == [
        "az group create --name g --location westeurope --output none",
        template,
        f"az acr build --registry reg1 --image {image} --file training_containers/sagemaker/Dockerfile .",
        "make package",
        "func azure functionapp publish app-1 --python --no-build",
        "func azure functionapp publish app-2 --python --no-build",
        template,
    ]
    told = json.loads(done.stdout)["settings"]
    assert told["azureml_image"] == f"reg1.azurecr.io/{image}"
    assert told["azureml_subscription"] == "s-1"
    assert json.loads((project / "infra/azure/parameters.dev.json").read_text())["parameters"]["subscribeEvents"] == {
        "value": True
    }
    (project / "calls").unlink()
    (project / "pushed").touch()
    assert typed("deploy", "azure", "--group", "g").returncode == 0
    assert [one for one in calls() if one == template] == [template], "the second time once is enough"
    assert not [one for one in calls() if "acr build" in one]


def test_azure_publishes_the_functions_alone(project, calls, typed) -> None:
    assert typed("deploy", "azure", "--functions-only").returncode == 0
    assert [one for one in calls() if "group show" not in one] == [
        "make package",
        "func azure functionapp publish app-1 --python --no-build",
        "func azure functionapp publish app-2 --python --no-build",
    ]


def test_an_answer_that_names_no_app_ends_it(project, typed) -> None:
    (project / "outputs.json").write_text('{"outputs": null}')
    done = typed("deploy", "azure")
    assert done.returncode == 1
    assert "named no two function apps" in done.stderr


@pytest.mark.parametrize("answer", ["", "qa\n", "FAQ\n"])
def test_destroy_wants_the_services_name(answer: str, project, calls, typed, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    done = typed("destroy", "aws")
    assert done.returncode in (2, 130)
    assert calls() == []
    assert "kept: bucket opportune-faq-dev-ACCOUNT with models and labels" in done.stderr


def test_destroy_removes_the_endpoint_before_the_stack_and_says_what_is_kept(
    project, calls, typed, monkeypatch
) -> None:
    (project / "serving").touch()
    monkeypatch.setattr(sys, "stdin", io.StringIO("faq\n"))
    done = typed("destroy", "aws")
    assert done.returncode == 0, done.stderr
    assert calls()[1:] == [
        "aws sagemaker delete-endpoint --region eu-north-1 --endpoint-name opportune-faq-dev",
        "osls remove --stage dev --region eu-north-1 --param service=faq",
        "parameters infra/aws/parameters.dev.yml",
    ]


def test_destroy_without_an_endpoint_removes_the_stack(project, calls, typed) -> None:
    assert typed("destroy", "aws", "--yes").returncode == 0
    assert not [one for one in calls() if "delete-endpoint" in one]


def test_destroy_on_azure_keeps_the_data_and_the_group(project, calls, typed) -> None:
    done = typed("destroy", "azure", "--group", "g", "--yes")
    assert done.returncode == 0, done.stderr
    assert calls()[-2:] == [
        "az resource delete --ids /x/onlineEndpoints/opp-1 --output none",
        "az resource delete --ids /x/sites/app-1 --output none",
    ]
    listed: Any = next(one for one in calls() if "resource list" in one)
    assert "tags.service=='faq' && tags.stage=='dev' && name!='data1'" in listed


@pytest.mark.parametrize("where", ["aws", "azure"])
def test_make_drives_the_same_command(where: str) -> None:
    text = (ROOT / "Makefile").read_text()
    assert f"opportune deploy {where} --stage" in text
