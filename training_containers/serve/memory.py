"""How much memory there is for another model: the container's limit (cgroup v2 or v1), or the machine's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

_CGROUPS: Final = Path("/sys/fs/cgroup")

#: memory of a loaded model, beside the size of its files: 1.04 of them in fp32 with its 8-bit draft, 0.25 in 8 bits,
#: measured with a GPT-2 of 42 M parameters (215 MB of files); the rest is for the caches of running requests
NEED_PER_BYTE: Final = 1.1


class Memory:
    """What this process may use; asked each time, because others use it too."""

    def __init__(self, cgroups: Path = _CGROUPS) -> None:
        self._cgroups = cgroups

    def limit_bytes(self) -> int:
        """The container's limit, or the machine's memory."""
        machine = int(psutil.virtual_memory().total)
        limit = self._number("memory.max", "memory/memory.limit_in_bytes")
        return machine if limit is None else min(machine, limit)

    def free_bytes(self) -> int:
        """What can be had without the container, or the machine, running out of memory."""
        free = int(psutil.virtual_memory().available)
        limit = self._number("memory.max", "memory/memory.limit_in_bytes")
        used = self._number("memory.current", "memory/memory.usage_in_bytes")
        if limit is None or used is None:
            return free
        return max(0, min(free, limit - used + self._cache_bytes()))

    def _number(self, *names: str) -> int | None:
        """The first of these files that holds a number; "max" is none."""
        for name in names:
            text = _read(self._cgroups / name)
            if text.isdigit():
                return int(text)
        return None

    def _cache_bytes(self) -> int:
        """Pages of files that nobody uses right now: they count as used, and are given up when memory is needed."""
        for name, field in (("memory.stat", "inactive_file"), ("memory/memory.stat", "total_inactive_file")):
            for line in _read(self._cgroups / name).splitlines():
                key, _, value = line.partition(" ")
                if key == field and value.isdigit():
                    return int(value)
        return 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def needed_bytes(files: Path) -> int:
    """About what a model whose files lie in `files` takes once it is loaded."""
    return int(NEED_PER_BYTE * sum(path.stat().st_size for path in files.rglob("*") if path.is_file()))
