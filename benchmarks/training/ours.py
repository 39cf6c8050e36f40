"""Our training in a process of its own, over the same model and data as `reference.py`."""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import torch

from shared.contracts import FeedbackPair, decode
from training_containers.finetune.loop.encoding import encode_pairs, load_tokenizer
from training_containers.finetune.loop.hardware import pick
from training_containers.finetune.loop.trainer import Plan, fit, quiet
from training_containers.finetune.torch_model import load_model


def main() -> None:
    """Fine-tune --model on --data and save it to --out; prints what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines of FeedbackPair")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--question-weight", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    quiet()
    model = load_model(options.model)
    pairs = [decode(FeedbackPair, line) for line in options.data.read_text().splitlines()]
    tokenizer = load_tokenizer(options.model)
    examples, _ = encode_pairs(tokenizer, pairs, model.config.eos_token_id, model.config.n_positions)
    hardware = pick(options.device, options.precision, model.config.n_embd)
    plan = Plan(
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        seed=options.seed,
        stop_loss=0.0,
        max_seconds=1e9,
        checkpoint_seconds=1e9,
        checkpoints=options.out / "checkpoints",
        fingerprint="benchmark",
        hardware=hardware,
        compile=options.compile,
        question_weight=options.question_weight,
    )
    begin, cpu = time.perf_counter(), time.process_time()
    outcome = fit(model, examples, plan, lambda: False)
    facts = {
        "seconds": time.perf_counter() - begin,
        "cpu_s": time.process_time() - cpu,
        "steps": outcome.steps,
        "precision": "bf16" if hardware.bf16 else "fp32",
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_gpu_mb": torch.cuda.max_memory_allocated() / 2**20 if hardware.cuda else 0.0,
    }
    model.save_pretrained(options.out)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
