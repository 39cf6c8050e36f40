"""What a newcomer sees when something is missing, and what the locks may hold."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "scripts"


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with the ordinary commands, but neither Python nor Node nor a package manager."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "cat", "cmp", "cp", "dirname", "grep", "ln", "mkdir", "mktemp", "rm", "touch", "env"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return str(folder)


def run(script: str, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": path, "HOME": "/nonexistent"}
    command = [str(Path(path) / "bash"), str(TOOLS / script), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_missing_python_is_named_with_what_to_do(bare_path: str, tmp_path: Path) -> None:
    done = run("install-python.sh", bare_path, "python3.11", str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "Python 3.11 with the venv module was not found" in done.stderr
    assert "make install PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_missing_node_is_named_with_what_to_do(bare_path: str, tmp_path: Path) -> None:
    done = run("install-tools.sh", bare_path, str(tmp_path / "tools"))
    assert done.returncode == 1
    assert "Node.js 18 or newer with npm was not found" in done.stderr


def test_the_locks_name_no_registry_so_that_any_mirror_works() -> None:
    lock = (TOOLS / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    python = (ROOT / "requirements" / "all.txt").read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", python)
    assert "torch==" in python and "+cpu" not in python


def test_every_locked_package_has_one_exact_version() -> None:
    lines = (ROOT / "requirements" / "all.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert len(packages) > 100
    assert [line for line in packages if not re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.]+( ;.*)?", line)] == []
