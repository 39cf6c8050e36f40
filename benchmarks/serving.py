"""Requests per second, latency, CPU, memory and cold start of the serving process, against Flask + transformers.

    python -m benchmarks.serving --shape distilgpt2 --json

Both servers run the same model on the same cores; rounds alternate between them, the best round counts for both.
`identical_share`: answers with the same token ids as transformers' greedy decoding. `batch_invariant_share`: answers
that are the same alone and in a batch. `floor_ratio`: FLOP/s achieved under load over this machine's measured
fp32 matrix multiplication (same number of threads), so 1.0 cannot be passed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

SHAPES = {"small": (2, 128, 4, 4096), "distilgpt2": (6, 768, 12, 50257)}
WORDS = (
    "what",
    "who",
    "when",
    "where",
    "which",
    "is",
    "was",
    "the",
    "first",
    "largest",
    "name",
    "city",
    "river",
    "did",
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    engine: str
    precision: str
    requests_per_s: float
    latency_p50_s: float  # one client
    latency_p99_s: float  # --clients clients
    cpu_s_per_request: float
    peak_rss_mb: float
    cold_start_s: float
    identical_share: float
    batch_invariant_share: float
    floor_ratio: float


class Server:
    """A serving process and what is measured of it."""

    def __init__(self, command: Sequence[str], threads: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        while True:
            try:
                ask(self.port, "what is it?", 16)
                break
            except (OSError, http.client.HTTPException, RuntimeError):
                if self.process.poll() is not None:
                    raise SystemExit(f"{command[0]} did not start") from None
                time.sleep(0.01)
        self.cold_start_s = time.perf_counter() - begin
        self.handle = psutil.Process(self.process.pid)

    def cpu_s(self) -> float:
        return float(sum(self.handle.cpu_times()[:2]))

    def peak_rss_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def ask(port: int, question: str, tokens: int) -> float:
    """Seconds one answer took."""
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = json.dumps({"question": question, "max_new_tokens": tokens})
    connection.request("POST", "/predict", body, {"Content-Type": "application/json", "X-Opportune-Timeout": "60"})
    reply = connection.getresponse()
    reply.read()
    connection.close()
    if reply.status != 200:
        raise RuntimeError(f"HTTP {reply.status}")
    return time.perf_counter() - begin


@dataclass
class Round:
    """One round of one server: latencies alone, then under load."""

    alone_s: list[float]
    loaded_s: list[float]
    requests_per_s: float
    cpu_s_per_request: float


def measure(server: Server, questions: list[str], clients: int, tokens: int) -> Round:
    """Ask every question alone (a quarter of them), then all from `clients` clients."""
    alone = [ask(server.port, q, tokens) for q in questions[: max(5, len(questions) // 4)]]
    loaded: list[float] = []
    todo = iter(questions)
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                question = next(todo, None)
            if question is None:
                return
            loaded.append(ask(server.port, question, tokens))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begin, cpu = time.perf_counter(), server.cpu_s()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begin
    return Round(alone, loaded, len(questions) / wall, (server.cpu_s() - cpu) / len(questions))


def make_model(folder: Path, shape: str, seed: int) -> Path:
    """Random weights of a real shape, with a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel

    layers, width, heads, vocabulary = SHAPES[shape]
    torch.manual_seed(seed)
    config = GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        vocab_size=vocabulary,
        eos_token_id=vocabulary - 1,
        bos_token_id=vocabulary - 1,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # small random weights would repeat one token
    model.save_pretrained(folder)
    alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def agreement(model_dir: Path, questions: list[str], tokens: int) -> tuple[float, float]:
    """(share of answers identical to transformers', share identical alone and in a batch)."""
    from transformers import GPT2LMHeadModel

    from benchmarks.serving_reference import generate_ids
    from training_containers.prompt import prompt_for
    from training_containers.serve.engine import OnnxEngine

    engine = OnnxEngine(model_dir)
    rows = [engine.encode(prompt_for(q)) for q in questions]
    batched = [ids for i in range(0, len(rows), 16) for ids in engine.generate_ids(rows[i : i + 16], [tokens] * 16)]
    alone = [engine.generate_ids([row], [tokens])[0] for row in rows]
    model = GPT2LMHeadModel.from_pretrained(model_dir).eval()
    expected = [generate_ids(model, row, tokens) for row in rows]
    count = len(rows)
    same = sum(a == b for a, b in zip(batched, expected, strict=True)) / count
    return same, sum(a == b for a, b in zip(batched, alone, strict=True)) / count


def matmul_flops(threads: int) -> float:
    """This machine's fp32 FLOP/s on square matrices."""
    import torch

    torch.set_num_threads(threads)
    a = torch.randn(1536, 1536)
    best = min(_timed(lambda: a @ a) for _ in range(8))
    return float(2 * 1536**3 / best)


def _timed(action: object) -> float:
    assert callable(action)
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small", help="random weights of this shape")
    parser.add_argument("--model", type=Path, help="a model directory instead of random weights")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64, help="per round, a multiple of 16")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped on the way out
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or make_model(Path(scratch), options.shape, options.seed)
        rows = compare(model, options)
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
        return
    for name in Row.__dataclass_fields__:
        print(f"{name:24}" + "".join(f"{_shown(getattr(row, name)):>14}" for row in rows))


def compare(model: Path, options: argparse.Namespace) -> list[Row]:
    """Both servers, round after round."""
    rng = np.random.default_rng(options.seed)
    questions = [" ".join(rng.choice(WORDS, 5)) + "?" for _ in range(options.requests)]
    same, invariant = agreement(model, questions[: max(16, options.requests // 16 * 16)], options.tokens)
    own = ["training_containers", "serve", "--host", "127.0.0.1", "--engine-threads", str(options.threads)]
    commands = {
        "reference": ["benchmarks.serving_reference", "--threads", str(options.threads), "--model", str(model)],
        "opportune": [*own, "--model", str(model)],
    }
    servers: dict[str, Server] = {}
    rounds: dict[str, list[Round]] = {name: [] for name in commands}
    try:
        for name, command in commands.items():
            servers[name] = Server(command, options.threads)
        for _ in range(options.rounds):
            for name, server in servers.items():
                rounds[name].append(measure(server, questions, options.clients, options.tokens))
        peak = {name: server.peak_rss_mb() for name, server in servers.items()}
    finally:
        for server in servers.values():
            server.stop()
    flops = flop_per_request(model, questions, options.tokens)
    limit = matmul_flops(options.threads)
    return [
        Row(
            engine=name,
            precision="fp32",
            requests_per_s=max(r.requests_per_s for r in done),
            latency_p50_s=min(float(np.median(r.alone_s)) for r in done),
            latency_p99_s=min(float(np.quantile(r.loaded_s, 0.99)) for r in done),
            cpu_s_per_request=min(r.cpu_s_per_request for r in done),
            peak_rss_mb=peak[name],
            cold_start_s=servers[name].cold_start_s,
            identical_share=1.0 if name == "reference" else same,
            batch_invariant_share=1.0 if name == "reference" else invariant,
            floor_ratio=max(r.requests_per_s for r in done) * flops / limit,
        )
        for name, done in rounds.items()
    ]


def flop_per_request(model: Path, questions: list[str], tokens: int) -> float:
    """Multiply-adds (counted twice) of the prompt and the answer's tokens; attention itself is left out."""
    from training_containers.prompt import prompt_for
    from training_containers.serve.engine import OnnxEngine
    from training_containers.serve.export import read_config

    c, engine = read_config(model), OnnxEngine(model)
    prompt = float(np.mean([len(engine.encode(prompt_for(q))) for q in questions]))
    per_token = 12 * c.n_layer * c.n_embd**2
    return 2 * ((prompt + tokens - 1) * per_token + tokens * c.vocab_size * c.n_embd)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
