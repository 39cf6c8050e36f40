"""The measured subjects: the command that prints each one's JSON, and the files that hold them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.errors import InvalidInputError

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent

#: subject -> the command whose standard output ends in a JSON object
COMMANDS: Final = {
    "decisions": "python -m benchmarks.policy.live_quality --per-family 30 --windows 10 --json",
    "demo": "./opportune demo --scenario drift --compare static --seed 7 --json",
    "functions": "python -m benchmarks.functions --json",
    "serving": "python -m benchmarks.serving --shape distilgpt2 --requests 32 --rounds 1 --json",
    "training": "python -m benchmarks.training --shape small --rounds 1 --json",
    "footprint": "python -m benchmarks.results.footprint --json",
    "releases": "python -m benchmarks.releases --json",
    "real_size": "python -m benchmarks.real_size --json",
    "copy": "python -m benchmarks.real_size --size-gb 2 --json",
    "snapshot": "python -m benchmarks.snapshot --json",
}
#: shown together, once all of them are recorded
SCALE: Final = ("releases", "real_size", "copy", "snapshot")


@dataclass(frozen=True)
class Measured:
    """One measurement: the command, the day (ISO date), the machine in words, and the JSON that the command printed."""

    command: str
    measured: str
    machine: str
    result: dict[str, Any]


def recorded(folder: Path = HERE) -> list[str]:
    """The subjects that the page shows."""
    complete = all((folder / f"{name}.json").exists() for name in SCALE)
    return [name for name in COMMANDS if complete or name not in SCALE]


def load(name: str, folder: Path = HERE) -> Measured:
    """The last measurement of a subject.

    Raises:
        InvalidInputError: it was never recorded, or the file is not one that `record` wrote.
    """
    path = folder / f"{name}.json"
    try:
        return Measured(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInputError(f"{path.name}: {error}; run: python -m benchmarks.results record {name}") from error


def record(name: str, command: str, folder: Path = HERE) -> Path:
    """Run the command, which may take minutes, and keep what it printed.

    Raises:
        InvalidInputError: it failed, or what it printed ends in no JSON object.
    """
    machine = machine_in_words()
    day = time.strftime("%Y-%m-%d")
    done = subprocess.run(_arguments(command), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise InvalidInputError(f"{command}: exit code {done.returncode}")
    try:
        result = _document(done.stdout)
    except ValueError as error:
        raise InvalidInputError(f"{command}: it ends in no JSON object ({error})") from error
    path = folder / f"{name}.json"
    document = {"command": command, "measured": day, "machine": machine, "result": result}
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _document(printed: str) -> dict[str, Any]:
    """The JSON object that the output ends in, on one line or on many."""
    lines = printed.strip().splitlines()
    for first in range(len(lines) - 1, -1, -1):
        if lines[first].startswith("{"):
            return dict(json.loads("\n".join(lines[first:])))
    raise ValueError("no line begins with a brace")


def _arguments(command: str) -> list[str]:
    """The command with this Python; `./opportune` is the command line's module."""
    first, *rest = shlex.split(command)
    runs = {"python": [sys.executable], "./opportune": [sys.executable, "-m", "cli.main"]}
    return [*runs.get(first, [first]), *rest]


def machine_in_words() -> str:
    """Cores, processor and how busy it was before the measurement."""
    cores = len(os.sched_getaffinity(0))
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{cores} cores{f' ({models[0]})' if models else ''}, load {os.getloadavg()[0]:.1f} before"
