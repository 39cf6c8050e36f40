"""Releases and rollbacks in turn under load, on one serving container that follows its release document.

    python -m benchmarks.releases
    python -m benchmarks.releases --count 10 --clients 8 --json

Three versions of a small model answer every question differently. One is served; the others are released in turn, and
each is taken back: every release loads a version anew, every rollback returns to one that is still loaded. The store is
a folder. `wrong_version` counts answers that are not what the version they name says by itself; `rollback_s` runs from
the written document to the end of the last answer of the version that was taken back.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.serving.load import Answer, Callers, Server
from benchmarks.serving.models import make_model, make_questions, put_version, stamp
from shared.contracts import Release, decode, encode
from shared.errors import NotFoundError
from shared.releases import model_folder, release_key, released, rolled_back
from training_containers.model.engines.gpt2_graph import export_onnx
from training_containers.model.engines.precision import Wanted, load_engine
from training_containers.model.prompt import prompt_for
from training_containers.object_store import FolderObjects

SERVICE: Final = "qa"
STABLE, *OTHERS = ("v1", "v2", "v3")
#: how long a change may take before the benchmark gives up
WITHIN_S: Final = 60.0
#: load goes on for so long after each change
DWELL_S: Final = 0.3


@dataclass(frozen=True)
class Found:
    """What the clients saw."""

    releases: int
    requests: int
    failed: int
    wrong_version: int
    rollback_s_median: float
    rollback_s_max: float


@dataclass(frozen=True)
class Change:
    """A release or a rollback."""

    written_s: float
    version: str  # that is to answer from then on
    rollback: bool


def measure(count: int, clients: int, tokens: int, threads: int) -> Found:
    """Start a container, change its release `count` times, stop it."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        questions = make_questions(8, 0)
        store = FolderObjects(scratch / "store")
        needed = (STABLE, *OTHERS[: (count + 1) // 2])
        folders = {version: _version(scratch / version, seed) for seed, version in enumerate(needed, start=1)}
        expected = _answers(folders, questions, tokens)
        for version, folder in folders.items():
            put_version(store, folder, model_folder(version))
        _release(store, STABLE)
        command = ["training_containers", "serve", "--host", "127.0.0.1", "--engine-threads", str(threads)]
        command += ["--precision", "fp32", "--service", SERVICE]
        command += ["--store", f"dir:{scratch / 'store'}", "--cache", str(scratch / "cache"), "--instance", "one"]
        server = Server(command, threads)
        try:
            with Callers(server.port, questions, clients, tokens) as callers:
                changes = _change(store, callers, count)
        finally:
            server.stop()
    return _found(changes, callers.answers, len(callers.failures), expected)


def _version(folder: Path, seed: int) -> Path:
    folder.mkdir()
    make_model(folder, "small", seed)
    export_onnx(folder)
    stamp(folder, folder.name)
    return folder


def _release(store: FolderObjects, version: str | None) -> float:
    """Make a version the stable one, or without one go back to the one before; when it was written."""
    key = release_key(SERVICE)
    try:
        found = store.get_tagged(key)
        assert found is not None
        before, tag = decode(Release, found.body), found.etag
    except NotFoundError:
        before, tag = None, None
    now_s = time.time()
    if version is not None:
        after: Release | None = released(before, SERVICE, version, now_s, "benchmark")
    else:
        after = rolled_back(before, now_s, "benchmark") if before else None
    assert after is not None, "there is a version before"
    store.put_tagged(key, encode(after), if_etag=tag)
    return now_s


def _change(store: FolderObjects, callers: Callers, count: int) -> list[Change]:
    changes = []
    others = itertools.cycle(OTHERS)
    for number in range(count):
        rollback = number % 2 == 1
        version = STABLE if rollback else next(others)
        written_s = _release(store, None if rollback else version)
        changes.append(Change(written_s, version, rollback))
        seconds = callers.wait_for(version, written_s, WITHIN_S) - written_s
        print(f"{number + 1} of {count}: {version} answers after {seconds:.1f} s", file=sys.stderr, flush=True)
        time.sleep(DWELL_S)
    return changes


def _answers(folders: dict[str, Path], questions: list[str], tokens: int) -> dict[tuple[str, str], str]:
    """(version, question) -> the answer of that version's own engine."""
    found: dict[tuple[str, str], str] = {}
    for version, folder in folders.items():
        engine = load_engine(folder, 1, Wanted.FP32, 0.0)
        answers = engine.generate([prompt_for(q) for q in questions], tokens)
        found |= {(version, q): a.text for q, a in zip(questions, answers, strict=True)}
    if any(len({found[version, q] for version in folders}) < len(folders) for q in questions):
        raise SystemExit("the versions answer alike; a wrong version would not be noticed")
    return found


def _found(changes: list[Change], answers: list[Answer], failed: int, expected: dict[tuple[str, str], str]) -> Found:
    ends = [change.written_s for change in changes[1:]] + [float("inf")]
    took = [
        max((a.ended_s - change.written_s for a in answers if _late(a, change, end_s)), default=0.0)
        for change, end_s in zip(changes, ends, strict=True)
        if change.rollback
    ]
    return Found(
        releases=len(changes),
        requests=len(answers) + failed,
        failed=failed,
        wrong_version=sum(expected.get((a.version, a.question)) != a.text for a in answers),
        rollback_s_median=round(statistics.median(took), 2) if took else 0.0,
        rollback_s_max=round(max(took, default=0.0), 2),
    )


def _late(answer: Answer, change: Change, end_s: float) -> bool:
    return answer.version != change.version and change.written_s <= answer.ended_s < end_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="releases and rollbacks together")
    parser.add_argument("--clients", type=int, default=4, help="each asks on and on")
    parser.add_argument("--tokens", type=int, default=8, help="of an answer")
    parser.add_argument("--threads", type=int, default=1, help="of the engine")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    found = asdict(measure(options.count, options.clients, options.tokens, options.threads))
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<20} {value:>10,}")


if __name__ == "__main__":
    main()
