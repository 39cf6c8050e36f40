"""What our training is compared with: transformers' Trainer with its default settings, as its manual shows it.

The loss is on every token (with --answers-only on the answer's, as ours), padding goes to the longest of each batch,
the end-of-text token is learnt like the others.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)


def main() -> None:
    """Fine-tune --model on the texts of --data and save it to --out; prints what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines with prompt and answer")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, help="instead of the Trainer's default")
    parser.add_argument("--answers-only", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()

    tokenizer = PreTrainedTokenizerFast.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model)
    lines = [json.loads(line) for line in options.data.read_text().splitlines()]
    rows = [tokenizer(f"{line['prompt']} {line['answer']}{tokenizer.eos_token}") for line in lines]
    dataset = [{"input_ids": r["input_ids"], "attention_mask": r["attention_mask"]} for r in rows]
    for row, line in zip(dataset, lines, strict=True):
        given = len(tokenizer(line["prompt"])["input_ids"]) if options.answers_only else 0
        row["labels"] = [-100] * given + row["input_ids"][given:]
    changed = {} if options.learning_rate is None else {"learning_rate": options.learning_rate}
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.out / "checkpoints"),
            num_train_epochs=options.epochs,
            use_cpu=options.device == "cpu",
            seed=options.seed,
            disable_tqdm=True,
            **changed,
        ),
        train_dataset=dataset,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    begin, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    facts = {
        "seconds": time.perf_counter() - begin,
        "cpu_s": time.process_time() - cpu,
        "steps": trainer.state.global_step,
        "precision": "fp32",
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_gpu_mb": torch.cuda.max_memory_allocated() / 2**20 if options.device == "cuda" else 0.0,
    }
    trainer.save_model(str(options.out))
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
