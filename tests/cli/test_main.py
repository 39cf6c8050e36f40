"""The front door: help with an example for everybody, one line for what is wrong, a quick start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli.main import COMMANDS, opportune

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "boto3", "botocore", "azure", "onnxruntime", "numpy", "rich", "flask", "msgspec")


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in COMMANDS:
        command = opportune.get_command(click.Context(opportune), name)
        below = command.commands if isinstance(command, click.Group) else {}
        found += [(name,), *((name, inner) for inner in below)]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example_and_words_for_each_option(command: tuple[str, ...], typed) -> None:
    done = typed(*command, "--help")
    assert done.returncode == 0
    assert f"Example: opportune {command[0]}" in done.stdout
    resolved = opportune.get_command(click.Context(opportune), command[0])
    for name in command[1:]:
        assert isinstance(resolved, click.Group)
        resolved = resolved.commands[name]
    assert resolved is not None
    silent = [p.name for p in resolved.params if isinstance(p, click.Option) and not p.help]
    assert silent == []


@pytest.mark.parametrize("command", [c for c in commands() if c != ("trace",)], ids=" ".join)
def test_every_command_can_answer_with_json(command: tuple[str, ...], typed) -> None:
    assert "--json" in typed(*command, "--help").stdout


def test_help_names_the_exit_codes_as_the_document_does(typed) -> None:
    told = typed("--help").stdout
    document = (ROOT / "docs" / "configuration.md").read_text()
    for code in ("0", "1", "2", "130"):
        assert f"\n    {code:<4} " in told
        assert f"\n| {code} | " in document


def test_help_loads_none_of_the_heavy_packages() -> None:
    script = (
        "import sys; sys.argv = ['opportune', '--help']\n"
        "from cli.main import main; main()\n"
        f"import json; json.dump([m for m in {HEAVY!r} if m in sys.modules], sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Commands:" in done.stdout
    assert json.loads(done.stderr) == []


def test_the_help_of_a_command_loads_no_network_and_no_sdk() -> None:
    script = (
        "import sys\nfrom cli.main import COMMANDS, opportune\n"
        "for name in COMMANDS:\n    opportune.main([name, '--help'], standalone_mode=False)\n"
        f"import json; json.dump([m for m in {HEAVY[:6]!r} if m in sys.modules], sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["statsu"], "no command 'statsu'; there are backtest, collect,"),
        (["collect"], "Missing option '--prometheus'. See opportune collect --help"),
        (["pause", "--resaon", "x"], "opportune pause --help"),
        (["--profil", "x", "status"], "No such option"),
    ],
)
def test_wrong_usage_is_one_line_that_says_where_to_look(arguments: list[str], says: str, typed) -> None:
    done = typed(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.startswith("opportune: ")
    assert done.stderr.count("\n") == 1


def test_nothing_typed_shows_what_there_is(typed) -> None:
    done = typed()
    assert done.returncode == 2
    assert "Commands:" in done.stderr
