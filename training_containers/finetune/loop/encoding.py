"""Tokenization of training pairs: the prompt serving uses, then the answer; only the answer is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from tokenizers import Tokenizer

from shared.contracts import FeedbackPair
from training_containers.model.prompt import prompt_for

#: label of a token that is not learnt (torch's default ignore_index)
IGNORE: Final = -100


class Example(NamedTuple):
    """One tokenised pair: `ids[:prompt_length]` is given, the rest is learnt."""

    ids: list[int]
    prompt_length: int


def load_tokenizer(model_dir: Path) -> Any:
    """The model's tokenizer; text that looks like a special token stays text, as in serving."""
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode_pairs(
    tokenizer: Any, pairs: Sequence[FeedbackPair], eos_id: int, n_positions: int
) -> tuple[list[Example], int]:
    """Each pair with its first answer, and how many were left out because they do not fit into the context."""
    prompts = tokenizer.encode_batch([prompt_for(p.question) for p in pairs])
    answers = tokenizer.encode_batch([" " + p.answers[0].strip().lower() for p in pairs])
    examples = [
        Example([*prompt.ids, *answer.ids, eos_id], len(prompt.ids))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    fitting = [e for e in examples if len(e.ids) <= n_positions]
    return fitting, len(examples) - len(fitting)


def collate(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """A batch, right-padded: causal attention never looks at the padding, so no mask is needed.

    Returns input_ids (B, S) and labels (B, S) with IGNORE everywhere but on answer tokens.
    """
    longest = max(len(e.ids) for e in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full((len(examples), longest), IGNORE, dtype=torch.long)
    for row, example in enumerate(examples):
        tokens = torch.tensor(example.ids)
        ids[row, : len(tokens)] = tokens
        labels[row, example.prompt_length : len(tokens)] = tokens[example.prompt_length :]
    return {"input_ids": ids, "labels": labels}
