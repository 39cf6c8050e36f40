"""Samples per second and final quality of our fine-tuning, against a plain Trainer script with default settings.

    python -m benchmarks.training --shape distilgpt2 --json

All start from the same weights and learn the same rows for the same number of epochs, in processes of their own that
take turns. Each round has a seed of its own: the fastest counts, and the mean of their qualities. `answers-only` is the
plain script with the loss that ours has by default, `opportune-questions` ours with the plain script's: every token of
question and answer counts alike, eight rows a batch. Quality is measured on questions that none has seen: with the
builtin questions, other phrasings of the facts that were taught.
`loss` is the mean over answer tokens. `floor_ratio`: FLOP/s of the useful work (no padding, vocabulary only where
there is an answer) over what this device's matrix multiplication reaches in fp32 on a CPU, in bf16 on a GPU.
Fine-tuning time of 1,000 SQuAD rows x 5 epochs on a GPU:

    python -m benchmarks.training --questions squad.json --rows 1000 --epochs 5 --device cuda
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shared.contracts import FeedbackPair, Metrics, encode

#: layers, width, heads, vocabulary; epochs and learning rate at which random weights of it learn something
SHAPES = {"small": (2, 128, 4, 3072), "distilgpt2": (6, 768, 12, 50257)}
DEFAULTS: dict[str, dict[str, Any]] = {
    "small": {"rows": 1080, "epochs": 12, "learning_rate": 2e-3, "reference_learning_rate": 2e-3},
    "distilgpt2": {"rows": 192, "epochs": 3, "learning_rate": 1e-4, "reference_learning_rate": None},
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    engine: str
    precision: str
    samples_per_s: float
    cpu_s_per_sample: float
    seconds: float
    steps: int
    loss: float
    bleu1: float
    exact_match: float
    exact_matches: list[float]
    peak_rss_mb: float
    peak_gpu_mb: float
    floor_ratio: float


@dataclass(frozen=True)
class Data:
    """What is learnt and what is asked afterwards; no question is in both."""

    taught: list[FeedbackPair]
    held_out: list[FeedbackPair]


def load(spec: str, rows: int, held_out: int) -> Data:
    """`rows` pairs to learn; of the builtin questions every fourth phrasing is held out, else every fifth question."""
    from training_containers.finetune.data.held_out import question_key
    from training_containers.finetune.data.question_sources import load_questions

    every = 4 if spec == "builtin" else 5
    pairs = [FeedbackPair(question=q.question, answers=q.answers[:32], received_s=q.when) for q in load_questions(spec)]
    asked = pairs[every - 1 :: every]
    seen = {question_key(pair) for pair in asked}
    taught = [pair for i, pair in enumerate(pairs) if i % every != every - 1 and question_key(pair) not in seen][:rows]
    # of what was taught about, where the source says so; else anything new
    return Data(taught, asked[: max(1, min(held_out, rows // (every - 1)))])


def make_model(folder: Path, shape: str, pairs: list[FeedbackPair]) -> Path:
    """Random weights of the shape and a byte-level tokenizer of the data's own words."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from training_containers.finetune.loop.encoding import load_tokenizer
    from training_containers.finetune.make_base import END, train_tokenizer
    from training_containers.model.prompt import prompt_for

    layers, width, heads, vocabulary = SHAPES[shape]
    train_tokenizer([f"{prompt_for(p.question)} {p.answers[0].lower()}" for p in pairs], folder)
    end = load_tokenizer(folder).token_to_id(END)
    config = GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        vocab_size=vocabulary,
        n_positions=256,
        initializer_range=0.05 if shape == "small" else 0.02,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def quality(trained: Path, start: Path, pairs: list[FeedbackPair]) -> tuple[float, Metrics]:
    """Loss per answer token, and what the serving engine's answers are worth."""
    from training_containers.finetune.loop.answer_loss import mean_loss
    from training_containers.finetune.loop.encoding import encode_pairs, load_tokenizer
    from training_containers.finetune.loop.evaluation import evaluate
    from training_containers.finetune.loop.trainer import quiet
    from training_containers.finetune.torch_model import load_model, save_model_files

    quiet()
    model = load_model(trained)
    examples, _ = encode_pairs(load_tokenizer(start), pairs, model.config.eos_token_id, model.config.n_positions)
    loss = mean_loss(model, examples, 16)
    save_model_files(model, start, trained / "artifact")
    return loss, evaluate(trained / "artifact", pairs)


def flop_per_sample(model: Path, pairs: list[FeedbackPair]) -> float:
    """Forward and backward (three times forward), attention's own products left out."""
    from training_containers.finetune.loop.encoding import encode_pairs, load_tokenizer
    from training_containers.model.engines.gpt2_graph import read_config

    config = read_config(model)
    examples, _ = encode_pairs(load_tokenizer(model), pairs, 0, config.n_positions)
    tokens = sum(len(e.ids) for e in examples)
    answers = sum(len(e.ids) - e.prompt_length for e in examples)
    blocks = 12 * config.n_layer * config.n_embd**2
    return 6 * (tokens * blocks + answers * config.n_embd * config.vocab_size) / len(examples)


def matmul_flops(device: str, threads: int) -> float:
    """FLOP/s this device reaches on square matrices: fp32 on a CPU, bf16 on a GPU."""
    import torch

    torch.set_num_threads(threads)
    size = 8192 if device == "cuda" else 1536
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)

    def once() -> None:
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * size**3 / min(_seconds(once) for _ in range(10))


def _seconds(action: Callable[[], None]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def compare(options: argparse.Namespace, scratch: Path) -> list[Row]:
    """All of them, round after round."""
    data = load(options.questions, options.rows, options.held_out)
    model = options.model or make_model(scratch, options.shape, data.taught)
    files = write(data.taught, scratch)
    common = ["--model", str(model), "--epochs", str(options.epochs), "--device", options.device]
    ours = ["--learning-rate", str(options.learning_rate), "--batch-size", str(options.batch_size)]
    ours += ["--precision", options.precision, *(["--compile"] if options.compile else [])]
    alike = ["--question-weight", "1", "--batch-size", "8"]
    rate = options.reference_learning_rate
    plain = [*common, "--data", str(files["reference"]), *([] if rate is None else ["--learning-rate", str(rate)])]
    commands = {
        "reference": plain,
        "answers-only": [*plain, "--answers-only"],
        "opportune": [*common, "--data", str(files["ours"]), *ours],
        "opportune-questions": [*common, "--data", str(files["ours"]), *ours, *alike],
    }
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for number in range(options.rounds):
        for name, command in commands.items():
            out = scratch / f"{name}-{number}"
            rounds[name].append(run(name, [*command, "--seed", str(number), "--out", str(out)], options.threads))
    flop, limit = flop_per_sample(model, data.taught), matmul_flops(options.device, options.threads)
    samples = len(data.taught) * options.epochs
    table = []
    for name, done in rounds.items():
        found = [quality(scratch / f"{name}-{number}", model, data.held_out) for number in range(options.rounds)]
        best = min(done, key=lambda facts: float(facts["seconds"]))
        table.append(
            Row(
                engine=name,
                precision=best["precision"],
                samples_per_s=samples / best["seconds"],
                cpu_s_per_sample=min(facts["cpu_s"] for facts in done) / samples,
                seconds=best["seconds"],
                steps=best["steps"],
                loss=statistics.mean(loss for loss, _ in found),
                bleu1=statistics.mean(metrics.bleu1 for _, metrics in found),
                exact_match=statistics.mean(metrics.exact_match for _, metrics in found),
                exact_matches=[metrics.exact_match for _, metrics in found],
                peak_rss_mb=best["peak_rss_mb"],
                peak_gpu_mb=best["peak_gpu_mb"],
                floor_ratio=samples / best["seconds"] * flop / limit,
            )
        )
    return table


def write(pairs: list[FeedbackPair], folder: Path) -> dict[str, Path]:
    """The same rows in the form each reads; the reference gets the texts that ours makes of them."""
    from training_containers.model.prompt import prompt_for

    files = {"reference": folder / "reference.jsonl", "ours": folder / "ours.jsonl"}
    files["ours"].write_bytes(b"\n".join(map(encode, pairs)))
    rows = [{"prompt": prompt_for(p.question), "answer": p.answers[0].strip().lower()} for p in pairs]
    files["reference"].write_text("\n".join(map(json.dumps, rows)))
    return files


def run(name: str, arguments: list[str], threads: int) -> dict[str, Any]:
    """One training in a fresh process; what it printed last."""
    module = "benchmarks.training.ours" if name.startswith("opportune") else "benchmarks.training.reference"
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{module} failed with exit code {done.returncode}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {facts['seconds']:.1f} s, {facts['cpu_s']:.1f} s of CPU", file=sys.stderr)
    return facts


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="distilgpt2", help="random weights of this shape")
    parser.add_argument("--model", type=Path, help="a model directory instead of random weights")
    parser.add_argument("--questions", default="builtin", help="builtin, or a file as in `make-base --questions`")
    parser.add_argument("--rows", type=int, help="how many are learnt")
    parser.add_argument("--held-out", type=int, default=128, help="how many are asked afterwards, at most")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16, help="ours; the Trainer's default is 8")
    parser.add_argument("--learning-rate", type=float, help="ours")
    parser.add_argument("--reference-learning-rate", type=float, help="the Trainer's default is 5e-5")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="ours")
    parser.add_argument("--compile", action="store_true", help="ours, with torch.compile")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for name, value in DEFAULTS[options.shape].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    with tempfile.TemporaryDirectory() as scratch:
        rows = compare(options, Path(scratch))
    if options.json:
        print(json.dumps({"settings": settings_of(options), "rows": [asdict(row) for row in rows]}, indent=1))
        return
    for name in Row.__dataclass_fields__:
        print(f"{name:20}" + "".join(f"{_shown(getattr(row, name)):>24}" for row in rows))


def settings_of(options: argparse.Namespace) -> dict[str, object]:
    """What was measured: every option but those that say where to look or how to print."""
    return {name: value for name, value in vars(options).items() if name not in ("model", "json")}


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(f"{number:.2f}" for number in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
