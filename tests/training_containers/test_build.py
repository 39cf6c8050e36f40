"""The image's build script stops with one line when it cannot work."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "training_containers/build.sh"


def test_the_script_is_valid_and_executable() -> None:
    assert os.access(SCRIPT, os.X_OK)
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="the next check comes after the one for root")
def test_a_missing_tool_is_named(tmp_path: Path) -> None:
    for tool in ("bash", "id", "dirname", "env"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")

    done = subprocess.run([str(SCRIPT)], env={"PATH": str(tmp_path)}, capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr == "build.sh: buildah is missing; apt-get install buildah\n"
