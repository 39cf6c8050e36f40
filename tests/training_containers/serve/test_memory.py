"""What a container may use is its own limit, whichever way the kernel tells it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from training_containers.serve.memory import NEED_PER_BYTE, Memory, needed_bytes

MB = 2**20


@pytest.mark.parametrize(
    ("limit", "used", "stat", "field"),
    [
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ],
    ids=["v2", "v1"],
)
def test_free_is_what_the_limit_leaves_with_the_cache_that_can_go(
    tmp_path: Path, limit: str, used: str, stat: str, field: str
) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text(f"{100 * MB}\n")
    (tmp_path / used).write_text(f"{90 * MB}\n")
    (tmp_path / stat).write_text(f"anon 5\n{field} {30 * MB}\nslab 7\n")
    memory = Memory(tmp_path)

    assert memory.limit_bytes() == 100 * MB
    assert memory.free_bytes() == 40 * MB
    (tmp_path / used).write_text(f"{200 * MB}\n")
    assert memory.free_bytes() == 0


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", ""])
def test_without_a_limit_it_is_the_machine(tmp_path: Path, limit: str) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(str(MB))
    machine = psutil.virtual_memory()

    assert Memory(tmp_path).limit_bytes() == machine.total
    assert 0 < Memory(tmp_path).free_bytes() <= machine.total
    assert Memory(tmp_path / "nowhere").limit_bytes() == machine.total


def test_a_model_needs_more_than_its_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 1000)
    (tmp_path / "sub/b").write_bytes(b"x" * 500)
    assert needed_bytes(tmp_path) == int(1500 * NEED_PER_BYTE) > 1500
