"""`./opportune`, as the documents print it: from any folder, and before anything was installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the launcher alone."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    shutil.copy(ROOT / "opportune", folder)
    return folder


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def installed(project: Path) -> None:
    program = project / ".venv" / "bin" / "opportune"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 7\n')
    program.chmod(0o755)


def test_without_make_install_it_says_so_in_one_line(project: Path) -> None:
    done = run("./opportune", "status", cwd=project)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"opportune: run make install first, in {project}\n"


def test_it_hands_on_arguments_and_exit_code_from_any_folder(project: Path, tmp_path: Path) -> None:
    installed(project)
    done = run(str(project / "opportune"), "pause", "--reason", "incident 42", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (7, "pause|--reason|incident 42|")


def test_a_link_on_the_path_works_too(project: Path, tmp_path: Path) -> None:
    installed(project)
    links = tmp_path / "bin"
    links.mkdir()
    (links / "direct").symlink_to(project / "opportune")
    (links / "again").symlink_to("direct")
    assert run(str(links / "again"), "status", cwd=tmp_path).stdout == "status|"


def test_make_names_its_targets_and_the_last_line_of_install_says_how_to_get_on_the_path() -> None:
    listed = run("make", "help", cwd=ROOT).stdout
    for target in ("install", "run", "test-fast", "results", "deploy-aws", "deploy-azure"):
        assert f"\n{target} " in listed
    makefile = (ROOT / "Makefile").read_text()
    assert 'export PATH="$(CURDIR):$$PATH"' in makefile
