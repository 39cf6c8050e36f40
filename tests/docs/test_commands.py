"""Every command in a document is one that exists, with options that exist; the cheap ones are run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import click
import pytest
from click.testing import CliRunner

from cli.main import opportune
from shared.promql import METRIC
from tests.docs.commands import ROOT, Command, mentioned, printed

PRINTED = printed()
MENTIONED = mentioned()
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))

#: first words of a command -> why it is not run here; that it exists and takes its options is checked all the same
NOT_RUN: dict[tuple[str, ...], str] = {
    ("make",): "minutes, or the whole of the tests",
    ("./opportune", "demo"): "minutes; tests/local/demo and `make run` do",
    ("./opportune", "train"): "minutes; tests/cli does, with few steps",
    ("./opportune", "backtest", "--prometheus"): "needs a month of history; tests/cli does, with one",
    (
        "./opportune",
        "backtest",
        "policy/training/simulator/real/*.npz",
    ): "all matrices take a minute; one of them is run",
    ("./opportune", "trace"): "fine-tunes a model, or shows what that made; tests/cli does, on a few questions",
    ("./opportune", "release"): "makes endpoints; tests/cli does, in memory",
    ("./opportune", "rollback"): "wants a release; tests/cli does",
    ("./opportune", "deploy"): "makes a deployment; tests/cli does, with programs that only write down",
    ("./opportune", "--profile", "dev"): "the profile of a deployment that `deploy` has just made",
    ("./opportune", "--profile", "staging", "release"): "makes endpoints; tests/cli does, in memory",
    ("./opportune", "--profile", "staging", "rollback"): "wants a release; tests/cli does",
    (".venv/bin/pytest",): "is a test itself",
    ("python", "-m"): "minutes to hours; its --help is run",
}
#: first words of a command -> the exit codes it may have here: 1 is "not all of it", as only one cloud is emulated
RUN: dict[tuple[str, ...], tuple[int, ...]] = {
    ("./opportune", "doctor"): (0, 1),
    ("./opportune", "status"): (0,),
    ("./opportune", "releases"): (0,),
    ("./opportune", "costs"): (0,),
    ("./opportune", "pause"): (0,),
    ("./opportune", "stop"): (0,),
    ("./opportune", "resume"): (0,),
    ("./opportune", "decisions"): (0,),
    ("./opportune", "redrive"): (0,),
    ("./opportune", "--profile"): (0,),
    ("./opportune", "decide"): (0, 1),
    ("./opportune", "collect"): (0,),
    ("./opportune", "backtest"): (0,),
}


def starts(command: Command, table: Collection[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The entry that the command begins with."""
    return next((known for known in table if command.words[: len(known)] == known), None)


HERE = [command for command in PRINTED if not starts(command, NOT_RUN) and starts(command, RUN)]


def test_the_documents_print_commands() -> None:
    assert len(PRINTED) > 20
    assert any(command.document == "README.md" for command in PRINTED)


@pytest.mark.parametrize("command", PRINTED, ids=str)
def test_a_printed_command_is_run_or_has_a_reason_not_to_be(command: Command) -> None:
    assert starts(command, NOT_RUN) or starts(command, RUN), f"{command}: unknown; run it, or say why not"


@pytest.mark.slow
@pytest.mark.xdist_group("clouds")
@pytest.mark.parametrize("command", HERE, ids=str)
def test_a_printed_command_runs(command: Command, moto: None, prometheus: str, tmp_path: Path) -> None:
    """In a folder with the profile that the documents speak of, against an emulated AWS and a small Prometheus."""
    (tmp_path / "policy").symlink_to(ROOT / "policy")
    (tmp_path / "opportune.toml").write_text('[profile.staging]\nservice = "qa"\n')
    words = [re.sub(r"http://[\w-]*prometheus:9090", prometheus, word) for word in command.words[1:]]
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPPORTUNE_PROMETHEUS_URL": prometheus},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode in RUN[starts(command, RUN) or ()], done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def prometheus(http_server: Callable[..., Any]) -> Iterator[str]:
    """Every metric of a service is steady; whatever is asked at one time only is unknown."""

    def answer(asked: Any) -> tuple[int, bytes]:
        query = dict(parse_qsl(asked.body.decode()))
        if "start" not in query:
            return 200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}}).encode()
        start, end, step = (float(query[name]) for name in ("start", "end", "step"))
        times = [start + k * step for k in range(int((end - start) / step) + 1)]
        names = re.findall(rf'"{METRIC}", "([\w.]+)"', query["query"])
        values = {name: "1" if name.endswith(".weight") else "0.5" for name in names}
        result = [{"metric": {METRIC: name}, "values": [[at, values[name]] for at in times]} for name in names]
        return 200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()

    with http_server(answer) as url:
        yield url


@pytest.mark.parametrize("command", [c for c in PRINTED + MENTIONED if c.words[0] == "make"], ids=str)
def test_a_target_of_make_exists(command: Command) -> None:
    for word in command.words[1:]:
        if "=" not in word:
            assert word in TARGETS


@pytest.mark.parametrize("command", [c for c in PRINTED + MENTIONED if c.words[0] == "./opportune"], ids=str)
def test_a_command_of_opportune_takes_these_options(command: Command) -> None:
    arguments = [word for word in command.words[1:] if word != "…"]
    parse(opportune, arguments)


def parse(command: click.Command, arguments: list[str], parent: click.Context | None = None) -> None:
    """Parse as the command would and run nothing; a file that is not there is no fault of the document."""
    context = click.Context(command, info_name=command.name, parent=parent, **command.context_settings)
    try:
        with context:
            rest = click.Command.parse_args(command, context, list(arguments))
            if isinstance(command, click.Group) and rest:
                _, found, others = command.resolve_command(context, rest)
                assert found is not None
                parse(found, others, context)
    except click.exceptions.Exit:
        return
    except (click.NoSuchOption, click.MissingParameter) as error:
        pytest.fail(error.format_message())
    except click.BadParameter as error:
        if "does not exist" not in error.message:
            pytest.fail(error.format_message())


MODULES = sorted({c.words[2] for c in PRINTED + MENTIONED if c.words[:2] == ("python", "-m")})


@pytest.mark.parametrize("module", MODULES)
def test_a_module_exists(module: str) -> None:
    assert importlib.util.find_spec(module) is not None


def options_of(module: str) -> set[str]:
    """The options that its --help names."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_a_module_takes_these_options(module: str) -> None:
    named = {
        word
        for command in PRINTED + MENTIONED
        if command.words[:3] == ("python", "-m", module)
        for word in command.words[3:]
        if word.startswith("--")
    }
    if named:
        assert named - options_of(module) == set()


@pytest.mark.parametrize("command", [c for c in PRINTED if c.words[0] == ".venv/bin/pytest"], ids=str)
def test_a_file_of_tests_exists(command: Command) -> None:
    for word in command.words[1:]:
        if not word.startswith("-"):
            assert (ROOT / word.partition("::")[0]).exists()


def test_every_command_has_help_that_runs() -> None:
    for name in opportune.list_commands(click.Context(opportune)):
        done = CliRunner().invoke(opportune, [name, "--help"])
        assert done.exit_code == 0, done.output
