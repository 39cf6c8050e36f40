"""checkov and cfn-lint over what is deployed: nothing but what infra/exceptions.yml gives a reason for."""

import json
import os
import shutil
import subprocess

import pytest
import yaml  # type: ignore[import-untyped]

from local.runtimes import ROOT
from tests.infra.test_cloudformation import EVERYTHING, VARIANTS

pytestmark = [pytest.mark.xdist_group("packages"), pytest.mark.slow, pytest.mark.timeout(600)]

EXCEPTIONS = yaml.safe_load((ROOT / "infra/exceptions.yml").read_text())
CHECKOV = ROOT / ".venvlint/bin/checkov"


def unexplained(found, exceptions):
    """The (rule, where) that no exception covers, and the exceptions that cover none."""
    rules = [
        (rule, e["where"]) for e in exceptions for rule in ([e["check"]] if isinstance(e["check"], str) else e["check"])
    ]
    used = {(rule, on) for rule, on in rules for check, name in found if check == rule and name.startswith(on)}
    left = [
        one for one in sorted(set(found)) if not any(one[0] == rule and one[1].startswith(on) for rule, on in rules)
    ]
    return left, [one for one in rules if one not in used]


def test_each_exception_has_a_reason():
    for exceptions in EXCEPTIONS.values():
        assert not [e for e in exceptions if set(e) != {"check", "where", "reason"} or len(e["reason"]) < 20]


def test_what_is_new_and_what_is_stale_is_noticed():
    exceptions = [{"check": ["A", "B"], "where": "Bucket"}]
    assert unexplained([("A", "Bucket.x"), ("B", "Bucket.y")], exceptions) == ([], [])
    assert unexplained([("A", "Bucket.x"), ("C", "Bucket.x")], exceptions) == ([("C", "Bucket.x")], [("B", "Bucket")])
    assert unexplained([("A", "Queue.x")], exceptions)[0] == [("A", "Queue.x")]


def test_cfn_lint_finds_nothing_else(deployment):
    files = [str(deployment(*p) / "cloudformation-template-update-stack.json") for p in VARIANTS]
    command = [str(ROOT / ".venv/bin/cfn-lint"), "--format", "json", "--", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith("["), done.stderr
    found = [(one["Rule"]["Id"], one["Message"]) for one in json.loads(done.stdout)]
    assert unexplained(found, EXCEPTIONS["cfn-lint"]) == ([], [])


def checkov(*files):
    """(rule, resource) of everything that fails; nothing is asked of the network."""
    command = [str(CHECKOV), "--framework", "cloudformation", "arm", "--skip-download", "--compact", "--output", "json"]
    done = subprocess.run(
        [*command, "--file", *map(str, files)], cwd=files[0].parent, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(files[0].parent)},
    )  # fmt: skip
    assert done.stdout.startswith(("[", "{")), done.stdout + done.stderr
    reports = json.loads(done.stdout)
    reports = reports if isinstance(reports, list) else [reports]
    assert {report["check_type"] for report in reports} == {"cloudformation", "arm"}
    assert not [report for report in reports if report["summary"]["parsing_errors"]]
    assert min(report["summary"]["passed"] for report in reports) > 40
    return [(one["check_id"], one["resource"]) for report in reports for one in report["results"]["failed_checks"]]


def test_checkov_finds_nothing_else(deployment, tmp_path):
    files = []
    for name, parameters in (("default", ()), ("everything", EVERYTHING)):
        made = deployment(*parameters) / "cloudformation-template-update-stack.json"
        files.append(shutil.copy(made, tmp_path / f"{name}.json"))
    files.append(shutil.copy(ROOT / "infra/azure/main.json", tmp_path / "arm.json"))
    assert CHECKOV.exists(), "make test installs it: scripts/install-lint.sh .venvlint"
    assert unexplained(checkov(*files), EXCEPTIONS["checkov"]) == ([], [])
