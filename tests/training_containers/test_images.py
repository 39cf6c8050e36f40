"""The image's recipe and Azure ML's YAML agree with the code they start."""

import argparse
import ast
import json
import re
import shlex
import sys
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from training_containers.finetune.hyperparameters import azureml_hyperparameters
from training_containers.finetune.main import add_commands
from training_containers.serve.main import parse_arguments

ROOT = Path(__file__).parents[2]
AZURE = ROOT / "training_containers/azureml"
SAGEMAKER = ROOT / "training_containers/sagemaker"


def top_level_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_everything_the_containers_import_is_in_the_image_at_a_locked_version() -> None:
    wanted = {line for line in (SAGEMAKER / "requirements.txt").read_text().splitlines() if not line.startswith("#")}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements/all.txt").read_text(), re.M))
    assert wanted <= locked
    imported = {name for p in (ROOT / "training_containers").rglob("*.py") for name in top_level_imports(p)}
    third_party = imported - set(sys.stdlib_module_names) - {"shared", "training_containers"}
    assert "torch" in third_party
    packages = {"mlflow": "mlflow-skinny"}
    assert {packages.get(name, name.replace("_", "-")) for name in third_party} <= wanted


def test_copied_paths_exist_and_the_default_user_is_not_root() -> None:
    recipe = (SAGEMAKER / "Dockerfile").read_text()
    for source in re.findall(r"^COPY (?!--from)(\S+) ", recipe, re.M):
        assert (ROOT / source).exists(), source
    assert recipe.rstrip().endswith("USER opportune")


def test_the_agent_comes_from_a_pinned_image_new_enough_for_every_way_to_prove_who_writes() -> None:
    recipe = (SAGEMAKER / "Dockerfile").read_text()
    found = re.search(r"PROMETHEUS_IMAGE=\S+:v(\d+)\.(\d+)\.\d+@sha256:[0-9a-f]{64}$", recipe, re.M)
    assert found is not None
    assert (int(found[1]), int(found[2])) >= (2, 53)
    for target in ("base", "sagemaker"):
        assert f" AS {target}\n" in recipe
    assert recipe.index("AS base") < recipe.index("COPY --from=prometheus") < recipe.index("AS sagemaker")


def test_a_deployment_tells_its_container_where_the_release_is() -> None:
    told = yaml.safe_load((AZURE / "deployment.yml").read_text())["environment_variables"]
    options, settings = parse_arguments([], told)
    assert (options.store, options.cloud, settings.service) == ("azure-blob:opportune", "azure", "qa")


def test_the_azure_job_is_a_command_line_that_train_accepts() -> None:
    job = yaml.safe_load((AZURE / "job.yml").read_text())
    names = re.findall(r"\$\{\{(inputs|outputs)\.(\w+)\}\}", job["command"])
    assert all(name in job[kind] for kind, name in names)
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    words = shlex.split(re.sub(r"\$\{\{\w+\.(\w+)\}\}", r"/mnt/\1", job["command"]))
    args = parser.parse_args(words[words.index("train") :])
    assert args.parent == Path("/mnt/parent")
    assert azureml_hyperparameters([], job["environment_variables"]).epochs == 5


def test_endpoint_routes_are_served() -> None:
    routes = (ROOT / "training_containers/serve/app.py").read_text()
    config = yaml.safe_load((AZURE / "environment.yml").read_text())["inference_config"]
    for route in config.values():
        assert f'"{route["path"]}"' in routes


def test_metric_definitions_find_the_numbers_in_a_log_line() -> None:
    event = {"llm_bleu": 0.925, "llm_accuracy": 1.0, "serving_bleu": 0.0, "serving_accuracy": 2e-05, "loss": 0.1}
    line = json.dumps(event)
    for definition in json.loads((SAGEMAKER / "metric_definitions.json").read_text()):
        match = re.search(definition["Regex"], line)
        assert match is not None
        assert float(match[1]) == event[definition["Name"]]
