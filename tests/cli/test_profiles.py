"""Settings by name, from a file that lies with the project."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.profiles import find, use, variables
from shared.errors import InvalidInputError
from shared.settings import Settings

FILE = """
[profile.staging]
service = "faq"
slot_seconds = 30
sagemaker_spot = false
value_usd_per_quality_hour = 2.5
[profile.staging.env]
AWS_REGION = "eu-central-1"
AZURE_CLIENT_ID = "abc"
[profile.live]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A function: content of opportune.toml -> its path; the current folder lies two below it."""
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    def write(content: str) -> Path:
        file = tmp_path / "opportune.toml"
        file.write_text(content, encoding="utf-8")
        return file

    return write


def test_the_nearest_file_above_is_read_and_set_variables_win(project) -> None:
    project(FILE)
    env = {"OPPORTUNE_SERVICE": "mine"}
    use("staging", env)
    settings = Settings.from_env(env)
    assert (settings.service, settings.slot_seconds, settings.sagemaker_spot) == ("mine", 30.0, False)
    assert settings.value_usd_per_quality_hour == 2.5
    assert (env["AWS_REGION"], env["AZURE_CLIENT_ID"]) == ("eu-central-1", "abc")


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (FILE, "prod", "no profile 'prod'; there are live, staging"),
        ("", "prod", "no profile 'prod'; there is none; write [profile.prod]"),
        ('[profile.a]\nservise = "x"', "a", "[profile.a] servise is no setting; did you mean service"),
        ('[profile.a]\nOPPORTUNE_SERVICE = "x"', "a", "OPPORTUNE_SERVICE is no setting; did you mean service"),
        ('[profile.a]\nAWS_REGION = "x"', "a", "goes into the sub-table env"),
        ("[profile.a]\nslot_seconds = -1", "a", "OPPORTUNE_SLOT_SECONDS is '-1'; allowed: a number > 0"),
        ("[profile.a]\nservice = ['x']", "a", "[profile.a] service is ['x']; a text, a number, true or false"),
        ("[profile.a.env]\nX = {}", "a", "[profile.a] env X is {}"),
        ('[profile.a.env]\n"A B" = "x"', "a", "'A B' is no name of an environment variable"),
        ("[profile.a]\nenv = 3", "a", "it is a table of variables"),
        ("profile = 3", "a", "a profile is a table"),
        ("[profile.a", "a", "not TOML"),
    ],
)
def test_what_is_wrong_names_file_key_and_what_is_meant(content: str, name: str, says: str, project) -> None:
    file = project(content)
    with pytest.raises(InvalidInputError) as told:
        variables(file, name)
    assert str(told.value).startswith(f"{file}: ")
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_no_file_says_where_it_was_looked_for(project, tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"--profile a: there is no opportune\.toml in .*deep or a folder above"
    ):
        find(Path.cwd(), "a")


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_profile_is_the_environment_of_the_command(
    by_variable: bool, project, typed, two_clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(FILE)
    monkeypatch.delenv("OPPORTUNE_SERVICE")
    with pytest.MonkeyPatch.context() as kept:  # what the command sets is forgotten afterwards
        kept.setattr(os, "environ", os.environ.copy())
        if by_variable:
            os.environ["OPPORTUNE_PROFILE"] = "staging"
        done = typed(*([] if by_variable else ["--profile", "staging"]), "status", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["service"] == "faq"


def test_a_wrong_profile_is_one_line_and_exit_code_2(project, typed) -> None:
    file = project(FILE)
    done = typed("--profile", "prod", "status")
    assert done.returncode == 2
    assert done.stderr == f"opportune: {file}: no profile 'prod'; there are live, staging\n"
