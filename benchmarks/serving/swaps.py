"""Version swaps under load: no request may fail, no answer may come from another version than it says."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.load import Client, Server
from benchmarks.serving.models import make_model, make_questions, stamp
from shared.contracts import Release, encode
from shared.headers import TIMEOUT_HEADER
from shared.releases import model_folder, release_key, released
from training_containers.model.engines.gpt2_graph import export_onnx
from training_containers.model.engines.precision import MIN_QUESTIONS, Wanted, add_int8, load_engine
from training_containers.model.engines.protocol import Bits
from training_containers.model.prompt import prompt_for
from training_containers.object_store import FolderObjects


@dataclass(frozen=True)
class Swaps:
    """What the clients saw."""

    swaps: int
    requests: int
    failed: int
    wrong_version: int
    slowest_s: float
    requests_per_version: dict[str, int]


def swap_under_load(
    scratch: Path, shape: str, swaps: int, clients: int, threads: int, tokens: int, precision: Bits
) -> Swaps:
    """Three versions with different answers, `clients` clients, `swaps` releases of another version."""
    questions = make_questions(8, 0)
    folders, store = {}, FolderObjects(scratch / "store")
    for seed in (1, 2, 3):
        (scratch / f"v{seed}").mkdir()
        folders[f"v{seed}"] = make_model(scratch / f"v{seed}", shape, seed)
        export_onnx(folders[f"v{seed}"])
        add_int8(folders[f"v{seed}"], [prompt_for(q) for q in make_questions(MIN_QUESTIONS, 1)])
        stamp(folders[f"v{seed}"], f"v{seed}")
        for path in folders[f"v{seed}"].iterdir():
            store.put(model_folder(f"v{seed}") + path.name, path.read_bytes())
    first = released(None, "qa", "v1", time.time(), "benchmark")
    store.put(release_key("qa"), encode(first))
    command = ["training_containers", "serve", "--host", "127.0.0.1", "--engine-threads", str(threads)]
    command += ["--precision", precision, "--int8-agreement", "0"]  # random weights: as in the comparison
    command += ["--service", "qa", "--feedback-store", "", "--cache", str(scratch / "cache")]
    server = Server([*command, "--store", f"dir:{scratch / 'store'}"], threads)
    try:
        return _swap(server, store, first, folders, questions, swaps, clients, tokens, precision)
    finally:
        server.stop()


def _swap(
    server: Server,
    store: FolderObjects,
    release: Release,
    folders: dict[str, Path],
    questions: list[str],
    swaps: int,
    clients: int,
    tokens: int,
    precision: Bits,
) -> Swaps:
    watcher, stop = Client(server.port), threading.Event()
    seen: list[tuple[str, str, str]] = []  # version, question, answer
    slowest, failures = [0.0], list[object]()

    def client(number: int) -> None:
        connection = Client(server.port)
        for question in itertools.cycle(questions[number % 8 :] + questions[: number % 8]):
            if stop.is_set():
                return
            begin = time.perf_counter()
            try:
                body = {"question": question, "max_new_tokens": tokens}
                status, reply = connection.call("POST", "/predict", body, {TIMEOUT_HEADER: "60"})
            except (OSError, http.client.HTTPException) as exc:
                failures.append(exc)
                connection = Client(server.port)
                continue
            slowest[0] = max(slowest[0], time.perf_counter() - begin)
            if status == 200:
                seen.append((str(reply["model_version"]), question, str(reply["answer"])))
            else:
                failures.append(reply)

    workers = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for worker in workers:
        worker.start()
    for _, version in zip(range(swaps), itertools.cycle(["v2", "v3", "v1"]), strict=False):
        release = released(release, "qa", version, time.time(), "benchmark")
        store.put(release_key("qa"), encode(release))
        until = time.monotonic() + 120
        while watcher.call("GET", "/ping", None, {})[1]["model_version"] != version:
            if time.monotonic() > until:
                raise SystemExit(f"{version} did not become active")
            time.sleep(0.01)
    stop.set()
    for worker in workers:
        worker.join()
    expected = _answers(folders, questions, tokens, precision)
    counts = {version: sum(v == version for v, _, _ in seen) for version in folders}
    wrong = sum(expected[version, question] != answer for version, question, answer in seen)
    return Swaps(swaps, len(seen) + len(failures), len(failures), wrong, slowest[0], counts)


def _answers(
    folders: dict[str, Path], questions: list[str], tokens: int, precision: Bits
) -> dict[tuple[str, str], str]:
    """(version, question) -> the answer of that version's own engine."""
    found: dict[tuple[str, str], str] = {}
    for version, folder in folders.items():
        engine = load_engine(folder, 1, Wanted(precision), 0.0)
        if engine.precision != precision:
            raise SystemExit(f"{version} cannot serve in {precision}")
        answers = engine.generate([prompt_for(q) for q in questions], tokens)
        found |= {(version, q): a.text for q, a in zip(questions, answers, strict=True)}
    if any(len({found[version, q] for version in folders}) < len(folders) for q in questions):
        raise SystemExit("the versions answer alike; a wrong version would not be noticed")
    return found
