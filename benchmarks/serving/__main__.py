"""Requests per second, latency, CPU, memory and cold start of the serving process, against Flask + transformers.

    python -m benchmarks.serving --shape distilgpt2 --json

All servers run the same model on the same cores; rounds alternate between them, and each server's best round counts.

| column | meaning |
|---|---|
| requests_per_s, cpu_s_per_request | under load: --clients clients, each with one request at a time |
| latency_p50_s, latency_p99_s | one client alone: what a request takes that nothing waits with |
| cold_start_s | from starting the process to its first answer |
| identical_share | answers with the token ids of transformers' greedy decoding |
| batch_invariant_share | answers that are the same alone and in a batch of 16 |
| floor_ratio | requests_per_s over what this machine's memory and matrix units allow at best (printed to stderr) |

`opportune` is ONNX Runtime, in fp32 with lone requests drafted in 8 bits. int8 runs without its gate
here: random weights say nothing about a trained model's agreement. `ctranslate2` is that library by itself, one call
for each request.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.serving.ctranslate2 import GenerateIds, convert, generator_of
from benchmarks.serving.floors import measure_floors
from benchmarks.serving.load import Round, Server, measure
from benchmarks.serving.models import SHAPES, make_model, make_questions
from training_containers.model.engines.gpt2_graph import export_onnx, read_config
from training_containers.model.engines.int8 import Int8Engine
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.model.engines.precision import Wanted, add_int8, load_engine
from training_containers.model.prompt import prompt_for

_BATCH = 16


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    engine: str
    precision: str
    requests_per_s: float
    latency_p50_s: float
    latency_p99_s: float
    cpu_s_per_request: float
    peak_rss_mb: float
    cold_start_s: float
    identical_share: float
    batch_invariant_share: float
    floor_ratio: float


@dataclass(frozen=True)
class Candidate:
    """A server to start, and the same engine in this process."""

    engine: str
    precision: str
    command: list[str]
    generate_ids: Callable[[], GenerateIds] | None  # None: the reference itself


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small", help="random weights of this shape")
    parser.add_argument("--model", type=Path, help="a model directory instead of random weights; it is copied")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=128, help="per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="comma-separated engines, for a quick look")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped on the way out
    with tempfile.TemporaryDirectory() as scratch:
        rows = compare(prepare(Path(scratch), options), options)
    if options.json:
        print(json.dumps({"settings": settings_of(options), "rows": [asdict(row) for row in rows]}, indent=1))
        return
    for name in Row.__dataclass_fields__:
        print(f"{name:24}" + "".join(f"{_shown(getattr(row, name)):>14}" for row in rows))


def prepare(scratch: Path, options: argparse.Namespace) -> Path:
    """A directory as training leaves it: weights, tokenizer, both engine files."""
    folder = scratch / "model"
    folder.mkdir()
    if options.model:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            if (options.model / name).is_file():
                (folder / name).write_bytes((options.model / name).read_bytes())
    else:
        make_model(folder, options.shape, options.seed)
    export_onnx(folder)
    convert(folder)
    add_int8(folder, [prompt_for(q) for q in make_questions(32, options.seed + 1)])
    return folder


def compare(model: Path, options: argparse.Namespace) -> list[Row]:
    """All servers, round after round."""
    questions = make_questions(options.requests, options.seed)
    candidates = [c for c in find_candidates(model, options.threads) if not options.only or c.engine in options.only]
    note("comparing answers")
    shares = agreement(model, candidates, questions[: 2 * _BATCH], options.tokens, options.threads)
    servers: list[Server] = []
    rounds: list[list[Round]] = [[] for _ in candidates]
    try:
        for candidate in candidates:
            servers.append(Server(candidate.command, options.threads))
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            for server, done in zip(servers, rounds, strict=True):
                done.append(measure(server, questions, options.clients, options.tokens, alone=_BATCH))
        peaks = [server.peak_rss_mb() for server in servers]
    finally:
        for server in servers:
            server.stop()
    floors = measure_floors(options.threads)
    engine, config = OnnxEngine(model), read_config(model)
    prompt = round(float(np.mean([len(engine.encode(prompt_for(q))) for q in questions])))
    note(
        f"floors: {floors.bytes_per_s / 1e9:.1f} GB/s, {floors.fp32_per_s / 1e9:.0f} GFLOP/s fp32, "
        f"{floors.int8_per_s / 1e9:.0f} GOP/s int8; {prompt} prompt tokens, {options.tokens} new"
    )
    return [
        Row(
            engine=candidate.engine,
            precision=candidate.precision,
            requests_per_s=max(r.requests_per_s for r in done),
            latency_p50_s=min(float(np.median(r.alone_s)) for r in done),
            latency_p99_s=min(float(np.quantile(r.alone_s, 0.99)) for r in done),
            cpu_s_per_request=min(r.cpu_s_per_request for r in done),
            peak_rss_mb=peak,
            cold_start_s=server.cold_start_s,
            identical_share=identical,
            batch_invariant_share=invariant,
            floor_ratio=max(r.requests_per_s for r in done)
            * floors.batch_s(config, candidate.precision, options.clients, prompt, options.tokens)
            / options.clients,
        )
        for candidate, server, done, peak, (identical, invariant) in zip(
            candidates, servers, rounds, peaks, shares, strict=True
        )
    ]


def find_candidates(model: Path, threads: int) -> list[Candidate]:
    """The reference, ours in both precisions, and CTranslate2 as its documentation uses it."""
    flags = ["--threads", str(threads), "--model", str(model)]
    own = ["training_containers", "serve", "--host", "127.0.0.1", "--engine-threads", str(threads)]
    exact = [*own, "--model", str(model), "--precision", "fp32"]
    small = [*own, "--model", str(model), "--precision", "int8", "--int8-agreement", "0"]
    found = [
        Candidate("reference", "fp32", ["benchmarks.serving.reference", *flags], None),
        Candidate("opportune", "fp32", exact, lambda: load_engine(model, threads, Wanted.FP32, 1).generate_ids),
        Candidate("opportune", "int8", small, lambda: Int8Engine(model, threads).generate_ids),
    ]
    for precision in ("fp32", "int8"):
        command = ["benchmarks.serving.ctranslate2", *flags, "--precision", precision]
        plain = functools.partial(generator_of, model, precision, threads)
        found.append(Candidate("ctranslate2", precision, command, plain))
    note("vllm is left out: its wheel holds CUDA code only; its CPU build is not on the package index")
    return found


def agreement(
    model_dir: Path, candidates: Sequence[Candidate], questions: Sequence[str], tokens: int, threads: int
) -> list[tuple[float, float]]:
    """Per candidate: share of answers identical to transformers', share identical alone and in a batch."""
    import torch
    from transformers import GPT2LMHeadModel

    from benchmarks.serving.reference import generate_ids

    torch.set_num_threads(threads)
    encode = OnnxEngine(model_dir).encode
    rows = [encode(prompt_for(q)) for q in questions]
    model = GPT2LMHeadModel.from_pretrained(model_dir, dtype=torch.float32).eval()
    expected = [generate_ids(model, row, tokens) for row in rows]
    found = []
    for candidate in candidates:
        if candidate.generate_ids is None:
            found.append((1.0, 1.0))
            continue
        answer = candidate.generate_ids()
        starts = range(0, len(rows), _BATCH)
        batched = [ids for i in starts for ids in answer(rows[i : i + _BATCH], [tokens] * len(rows[i : i + _BATCH]))]
        alone = [answer([row], [tokens])[0] for row in rows]
        found.append((_same(batched, expected), _same(batched, alone)))
    return found


def _same(some: Sequence[list[int]], others: Sequence[list[int]]) -> float:
    return sum(a == b for a, b in zip(some, others, strict=True)) / len(some)


def note(text: str) -> None:
    """Progress and remarks go to stderr, so that --json stays JSON."""
    print(text, file=sys.stderr, flush=True)


def settings_of(options: argparse.Namespace) -> dict[str, object]:
    """What was measured, beside the rows."""
    names = ("shape", "clients", "requests", "rounds", "tokens", "threads", "seed")
    return {name: getattr(options, name) for name in names}


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
