"""docs/deploy-aws.md and deploy-azure.md: a script could follow them, and what they name exists."""

from __future__ import annotations

import json
import re
import subprocess

import click
import pytest

from cli.main import opportune
from tests.docs.commands import ROOT, Command, parts
from tests.docs.test_commands import TARGETS, parse

PAGES = ["docs/deploy-aws.md", "docs/deploy-azure.md"]
#: commands that the pages already name and that come with the next part of the command line
AWAITED = {"deploy", "destroy", "release"}
PARAMETERS = {
    "docs/deploy-aws.md": set(
        re.findall(r"^(\w+):", (ROOT / "infra/aws/parameters.example.yml").read_text(), re.MULTILINE)
    ),
    "docs/deploy-azure.md": set(json.loads((ROOT / "infra/azure/main.json").read_text())["parameters"]),
}


def blocks(page: str) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str, first: str) -> list[Command]:
    lines = [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    return [Command(page, line, words) for line in lines if first in line for words in parts(line) if words[0] == first]


@pytest.mark.parametrize("page", PAGES)
def test_the_page_says_that_nobody_did_it_on_a_real_account(page: str) -> None:
    words = " ".join((ROOT / page).read_text().split())
    assert re.search(r"\*\*This project never deployed it to a real (account|subscription)\*\*", words)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_a_script(page: str) -> None:
    assert len(blocks(page)) >= 4
    for block in blocks(page):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_its_way_is_install_deploy_release_doctor_again_and_away(page: str) -> None:
    said = [words[1] for _, _, words in commands(page, "./opportune")]
    assert said == ["deploy", "release", "doctor", "deploy", "destroy"]
    assert "make install" in blocks(page)[0].splitlines()[0]


@pytest.mark.parametrize("page", PAGES)
def test_its_commands_exist_and_take_these_options(page: str) -> None:
    known = set(opportune.list_commands(click.Context(opportune)))
    for command in commands(page, "./opportune"):
        assert command.words[1] in known | AWAITED
        if command.words[1] in known:
            parse(opportune, list(command.words[1:]))
    for command in commands(page, "make"):
        assert set(command.words[1:]) <= TARGETS


@pytest.mark.parametrize("page", PAGES)
def test_the_parameters_and_files_that_it_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    given = set(re.findall(r"--set (\w+)=", text))
    assert given
    assert given <= PARAMETERS[page]
    for name in set(re.findall(r"(?:infra|scripts|tests|training_containers)/[\w./-]+\w", text)):
        own = re.search(r"parameters\.(faq-)?dev\.", name)  # the owner's own, made by the first command
        assert own or (ROOT / name).exists(), name
    outputs = set(json.loads((ROOT / "infra/azure/main.json").read_text())["outputs"])
    assert set(re.findall(r"\$\(output (\w+)\)", text)) <= outputs
