"""`opportune deploy` and `destroy`: the documents' commands, driven and shown."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from cli.main import PARTLY, REFUSED
from cli.output import complain, emit, json_option, say
from cli.parameters import Parameters, settings_of
from cli.steps import StepFailedError, Steps
from shared.contracts import CLOUDS, Cloud
from shared.errors import InvalidInputError
from shared.settings import Settings

ROOT: Final = Path(__file__).parents[1]
OSLS: Final = ".tools/bin/osls"
DOCKERFILE: Final = "training_containers/sagemaker/Dockerfile"
#: the deployments in which these are asked for cost money from the first minute
_RUNS_ON: Final = "the serving endpoint costs by the hour from `opportune release --first` on; see `opportune costs`"


@dataclass(frozen=True)
class Deployment:
    """One service and stage on one cloud."""

    cloud: Cloud
    stage: str
    parameters: Parameters
    service: str

    @property
    def name(self) -> str:
        """Of the stack and of everything in it: another service or stage is another stack."""
        return f"opportune-{self.service}-{self.stage}"


_cloud_argument = click.argument("cloud", type=click.Choice(CLOUDS), metavar="aws|azure")
_stage_option = click.option(
    "--stage", default="dev", show_default=True, envvar="STAGE", help="Keeps deployments apart."
)
_parameters_option = click.option(
    "--parameters", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="What it is made of  [default: infra/CLOUD/parameters.STAGE.yml or .json]",
)  # fmt: skip
_group_option = click.option(
    "--group", default="opportune", show_default=True, envvar="GROUP", help="Azure: the resource group."
)
_dry_run_option = click.option("--dry-run", is_flag=True, help="Only show the commands.")


@click.command()
@_cloud_argument
@_stage_option
@_parameters_option
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="Change a line of that file; again for more.")
@_group_option
@click.option("--location", default="westeurope", show_default=True, envvar="LOCATION", help="Azure: of a new group.")
@click.option("--no-image", is_flag=True, help="The image of training and serving is pushed already.")
@click.option("--functions-only", is_flag=True, help="Azure: publish the functions and touch nothing else.")
@_dry_run_option
@json_option
def deploy(
    cloud: Cloud, stage: str, file: Path | None, given: tuple[str, ...], group: str, location: str, no_image: bool,
    functions_only: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Package the functions, deploy everything that one cloud needs, build and push the image.

    It drives the tools that docs/deploy-aws.md and docs/deploy-azure.md name (osls, docker, aws; az, func), shows each
    command before it runs, and stops at the first that fails. It may be repeated. What is deployed is said in one file
    per stage, which you keep; --set changes a line of it. Another service in the same stage has a file of its own.

    \b
    Example: opportune deploy aws --stage prod --set service=qa --set alarmEmail=you@example.com
    Example: opportune deploy azure --dry-run
    """
    found = _deployment(cloud, stage, file, settings_of(given), dry_run=dry_run)
    steps = Steps(ROOT, dry_run, f"opportune deploy {cloud} --stage {stage}{f' --parameters {file}' if file else ''}")

    def run() -> dict[str, str]:
        if cloud == "aws":
            return _aws(found, steps, image=not no_image)
        return _azure(found, steps, group, location, image=not no_image, functions_only=functions_only)

    _carry_out(found, steps, run, as_json)


@click.command()
@_cloud_argument
@_stage_option
@_parameters_option
@_group_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@_dry_run_option
@json_option
def destroy(cloud: Cloud, stage: str, file: Path | None, group: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove a deployment: endpoint, functions, queues, alarms. The data stays: models, labels, decisions.

    It says what is kept and what that costs, and asks for the service's name before it begins.

    \b
    Example: opportune destroy aws --stage dev
    """
    found = _deployment(cloud, stage, file, {}, dry_run=True)
    steps = Steps(ROOT, dry_run, f"opportune destroy {cloud} --stage {stage}{f' --parameters {file}' if file else ''}")
    click.echo(f"this removes {found.name} on {cloud}: its endpoint, functions, queues, roles and alarms", err=True)
    click.echo(_kept(found, group), err=True)
    if not (yes or dry_run):
        typed = click.prompt(f"type the service's name to remove it ({found.service})", default="", err=True)
        if typed != found.service:
            raise InvalidInputError(f"{typed!r} is not {found.service!r}; nothing was removed")

    def run() -> dict[str, str]:
        (_destroy_aws if cloud == "aws" else _destroy_azure)(found, steps, group)
        return {}

    _carry_out(found, steps, run, as_json)


def _deployment(cloud: Cloud, stage: str, file: Path | None, values: dict[str, str], *, dry_run: bool) -> Deployment:
    """What is meant, with the values written into its file.

    Raises:
        InvalidInputError: the file is of another service.
    """
    kind = "yml" if cloud == "aws" else "json"
    folder = ROOT / "infra" / cloud
    chosen = file or folder / f"parameters.{stage}.{kind}"
    parameters = Parameters(cloud, chosen, folder / f"parameters.example.{kind}")
    there = parameters.get("service", "qa")
    service = values.get("service", there)
    if chosen.is_file() and service != there:
        other = f"infra/{cloud}/parameters.{service}-{stage}.{kind}"
        raise InvalidInputError(
            f"{chosen.name} is of service {there!r}, and a stack is not made another's; give --parameters {other}"
        )
    if cloud == "azure":
        values = {"stage": stage, **values}
    if not dry_run:
        parameters.change(values)
    return Deployment(cloud, stage, parameters, service)


def _carry_out(found: Deployment, steps: Steps, run: Callable[[], dict[str, str]], as_json: bool) -> None:
    """Run it, and say how far it got."""
    failed = ""
    told: dict[str, str] = {}
    try:
        told = run()
    except StepFailedError as exc:
        failed = str(exc)
        complain(failed)
    if not failed:
        for name, value in told.items():
            say(f"{name} = {json.dumps(value)}", as_json)
    if as_json:
        document: dict[str, Any] = {"cloud": found.cloud, "service": found.service, "stage": found.stage}
        emit({**document, "dry_run": steps.dry_run, "commands": steps.shown, "settings": told, "failed": failed})
    if failed:
        sys.exit(PARTLY if steps.ran else REFUSED)


def _aws(found: Deployment, steps: Steps, *, image: bool) -> dict[str, str]:
    parameters = found.parameters
    region, tag = parameters.get("region", "eu-west-1"), parameters.get("imageTag", "latest")
    steps.need(OSLS, "make", "aws", *(["docker"] if image else []))
    account = steps.ask(
        *("aws", "sts", "get-caller-identity", "--query", "Account", "--output", "text"), or_else="ACCOUNT"
    )
    steps.run("make", "package")
    steps.run(
        *(OSLS, "deploy", "--stage", found.stage, "--region", region, "--param", f"service={found.service}"),
        env={"OPPORTUNE_PARAMETERS": _shown(found)},
        hint="CloudFormation's reason is its first CREATE_FAILED or UPDATE_FAILED line",
    )
    registry = f"{account}.dkr.ecr.{region}.amazonaws.com"
    name = f"{registry}/{found.name}:{tag}"
    if image:
        _push_aws(found, steps, region, tag, registry, name)
    said = steps.ask(
        *("aws", "cloudformation", "describe-stacks", "--region", region, "--stack-name", found.name),
        *("--query", "Stacks[0].Outputs", "--output", "json"),
        missing=True,
    )
    try:
        outputs = {str(one["OutputKey"]): str(one["OutputValue"]) for one in json.loads(said or "[]") or []}
    except (ValueError, TypeError, KeyError) as exc:
        raise StepFailedError(f"aws named no outputs of stack {found.name}: {said[:200]!r}") from exc
    click.echo(f"put this into opportune.toml; then: opportune release MODEL --first. {_RUNS_ON}", err=True)
    told = {
        "service": found.service,
        "env.AWS_REGION": region,
        "table": found.name,
        "bucket": f"{found.name}-{account}",
        "queue": f"{found.name}-retrain",
        "dead_letter_queue": f"{found.name}-retrain-dlq",
        "sagemaker_endpoint": found.name,
        "sagemaker_image": name,
        "sagemaker_role_arn": f"arn:aws:iam::{account}:role/{found.name}-training",
        "sagemaker_serve_role_arn": f"arn:aws:iam::{account}:role/{found.name}-serving",
        "sagemaker_instance_type": parameters.get("trainInstance", "ml.g4dn.xlarge"),
        "sagemaker_serve_instance_type": parameters.get("serveInstance", "ml.c6i.xlarge"),
    }
    return told | _said(outputs)


def _said(outputs: Mapping[str, str]) -> dict[str, str]:
    """The settings that a deployment's outputs name: OpportuneMetricsWriteUrlAws is metrics_write_url_aws."""
    found = {}
    for name, value in outputs.items():
        setting = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower().removeprefix("opportune_")
        if name.lower().startswith("opportune") and setting in Settings.__struct_fields__ and value:
            found[setting] = value
    return found


def _push_aws(found: Deployment, steps: Steps, region: str, tag: str, registry: str, name: str) -> None:
    """Both of SageMaker's contracts are of one image, its target `sagemaker`: training jobs run as root there."""
    there = steps.ask(
        *("aws", "ecr", "describe-images", "--region", region, "--repository-name", found.name),
        *("--image-ids", f"imageTag={tag}", "--query", "imageDetails[0].imageDigest", "--output", "text"),
        missing=True,
    )
    if there:
        click.echo(f"{name} is pushed already ({there}); a changed image needs another tag: --set imageTag=…", err=True)
        return
    steps.run("docker", "build", "-f", DOCKERFILE, "--target", "sagemaker", "-t", name, ".")
    steps.run(
        *("aws", "ecr", "get-login-password", "--region", region),
        into=("docker", "login", "--username", "AWS", "--password-stdin", registry),
    )
    steps.run("docker", "push", name)


def _azure(
    found: Deployment, steps: Steps, group: str, location: str, *, image: bool, functions_only: bool
) -> dict[str, str]:
    steps.need("az", "make", "func")
    deploy = (
        *("az", "deployment", "group", "create", "--resource-group", group, "--name", found.name),
        *("--template-file", "infra/azure/main.json", "--parameters", f"@{_shown(found)}"),
    )
    if not functions_only:
        steps.run("az", "group", "create", "--name", group, "--location", location, "--output", "none")
        hint = f"az deployment operation group list -g {group} -n {found.name} says which resource it was"
        steps.run(*deploy, "--output", "none", hint=hint)
    outputs = _outputs(found, steps, group)
    environment = found.parameters.get("environment", "opportune-training:1")
    name = ""
    if registry := outputs.get("registry", ""):
        server = registry if "." in registry else f"{registry}.azurecr.io"
        name = f"{server}/{environment}"
        if image and not functions_only:
            _build_azure(steps, server.partition(".")[0], environment)
    elif image and not functions_only:
        click.echo("the template names no registry; push the image yourself and set OPPORTUNE_AZUREML_IMAGE", err=True)
    steps.run("make", "package")
    publish = ("func", "azure", "functionapp", "publish", outputs.get("functionApp", "FUNCTION_APP"), "--python")
    steps.run(*publish, "--no-build", cwd="build/azure")
    if not functions_only and found.parameters.get("subscribeEvents") != "true":
        # Azure ML's events need the function that they go to
        if not steps.dry_run:
            found.parameters.change({"subscribeEvents": "true"})
        steps.run(*deploy, "--output", "none")
    click.echo(f"put this into opportune.toml; then: opportune release MODEL --first. {_RUNS_ON}", err=True)
    told = {
        "service": found.service,
        "azure_storage_account": outputs.get("storageAccount", ""),
        "queue": outputs.get("queue", ""),
        "poison_queue": f"{outputs['queue']}-poison" if outputs.get("queue") else "",
        "azureml_subscription": outputs.get("subscription", ""),
        "azureml_resource_group": group,
        "azureml_workspace": outputs.get("workspace", ""),
        "azureml_endpoint": outputs.get("endpoint", ""),
        "azureml_image": name,
        "azureml_environment": environment,
        "azureml_instance_type": found.parameters.get("trainVmSize", ""),
        "azureml_serve_instance_type": found.parameters.get("serveInstance", ""),
    }
    return {name: value for name, value in told.items() if value} | _said(outputs)


def _outputs(found: Deployment, steps: Steps, group: str) -> dict[str, str]:
    """The deployment's outputs, and the subscription it is in."""
    said = steps.ask(
        *("az", "deployment", "group", "show", "--resource-group", group, "--name", found.name),
        *("--query", "{outputs: properties.outputs, id: id}", "--output", "json"),
        or_else="{}",
    )
    try:
        document = json.loads(said or "{}")
        outputs = {name: str(one["value"]) for name, one in (document.get("outputs") or {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise StepFailedError(f"az named no outputs of deployment {found.name}: {said[:200]!r}") from exc
    if not steps.dry_run and not outputs.get("functionApp"):
        raise StepFailedError(f"deployment {found.name} named no function app; repeat without --functions-only")
    parts = str(document.get("id", "")).split("/")
    return {**outputs, "subscription": parts[2] if len(parts) > 2 else ""}


def _build_azure(steps: Steps, registry: str, environment: str) -> None:
    """Azure's own builder makes the image, so no Docker is needed; a tag that is there is not built again."""
    repository, _, tag = environment.partition(":")
    there = steps.ask(
        *("az", "acr", "repository", "show", "--name", registry, "--image", environment, "--query", "digest"),
        *("--output", "tsv"),
        missing=True,
    )
    if there:
        click.echo(
            f"{registry}/{environment} is built already ({there}); a changed image needs another version: "
            f"--set environment={repository}:{int(tag) + 1 if tag.isdigit() else '…'}",
            err=True,
        )
        return
    steps.run("az", "acr", "build", "--registry", registry, "--image", environment, "--file", DOCKERFILE, ".")


def _shown(found: Deployment) -> str:
    """The parameter file as one would type it in the project's folder."""
    file = found.parameters.file.absolute()
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)


def _kept(found: Deployment, group: str) -> str:
    """What outlives the deployment, what that costs, and what is needed to have it gone."""
    if found.cloud == "aws":
        return (
            f"kept: bucket {found.name}-ACCOUNT with models and labels, table {found.name} with the decisions; storage "
            "alone costs, about $0.023 a GB and month. A new deployment of the same name needs them gone first: "
            f"aws s3 rb s3://{found.name}-ACCOUNT --force, aws dynamodb delete-table --table-name {found.name}"
        )
    return (
        f"kept: the storage account with models, labels and decisions, and the resource group {group}; storage alone "
        f"costs, about $0.02 a GB and month. With everything in it: az group delete --name {group}"
    )


def _destroy_aws(found: Deployment, steps: Steps, _: str) -> None:
    region = found.parameters.get("region", "eu-west-1")
    steps.need(OSLS, "aws")
    where = ("--region", region)
    endpoint = ("--endpoint-name", found.name)
    # It is not part of the stack, and the one thing here that costs by the hour.
    there = steps.ask(
        *("aws", "sagemaker", "describe-endpoint", *where, *endpoint, "--query", "EndpointStatus", "--output", "text"),
        missing=True,
        or_else="InService",
    )
    if there:
        steps.run("aws", "sagemaker", "delete-endpoint", *where, *endpoint)
    steps.run(
        *(OSLS, "remove", "--stage", found.stage, *where, "--param", f"service={found.service}"),
        env={"OPPORTUNE_PARAMETERS": _shown(found)},
    )


def _destroy_azure(found: Deployment, steps: Steps, group: str) -> None:
    steps.need("az")
    outputs = _outputs(found, steps, group)
    kept = outputs.get("storageAccount", "STORAGE_ACCOUNT")
    mine = f"[?tags.application=='opportune' && tags.service=='{found.service}' && tags.stage=='{found.stage}'"
    said = steps.ask(
        *("az", "resource", "list", "--resource-group", group, "--query", f"{mine} && name!='{kept}'].[id]"),
        *("--output", "tsv"),
        or_else="RESOURCE_IDS",
    )
    ids = said.split()
    # The endpoint first: it is what costs by the hour, and its workspace cannot go before it.
    endpoints = [one for one in ids if "/onlineEndpoints/" in one]
    for some in (endpoints, [one for one in ids if one not in endpoints]):
        if some:
            steps.run("az", "resource", "delete", "--ids", *some, "--output", "none")
