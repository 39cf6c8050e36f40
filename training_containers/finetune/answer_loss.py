"""The loss of a GPT-2 on answers only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import GPT2LMHeadModel

from training_containers.finetune.encoding import IGNORE, Example, collate


class AnswerLoss(nn.Module):
    """A GPT-2 whose output is its loss. All of it is one `forward`, which is where DDP and autocast come in."""

    def __init__(self, network: GPT2LMHeadModel) -> None:
        super().__init__()
        self.network = network
        for block in network.transformer.h:
            # the same function as transformers' gelu_new, in one kernel; files and configuration do not change
            block.mlp.act = nn.GELU(approximate="tanh")

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, answer_tokens: torch.Tensor | int) -> torch.Tensor:
        """Cross-entropy summed over these answer tokens, over `answer_tokens` of the whole batch.

        input_ids, labels (B, S); labels are IGNORE everywhere but on answer tokens.
        """
        targets = labels[:, 1:]
        learnt = targets != IGNORE
        hidden = self.network.transformer(input_ids=input_ids, use_cache=False).last_hidden_state  # (B, S, D)
        logits = self.network.lm_head(hidden[:, :-1][learnt])  # (answer tokens, V)
        return nn.functional.cross_entropy(logits.float(), targets[learnt], reduction="sum") / answer_tokens


@torch.no_grad()
def mean_loss(network: GPT2LMHeadModel, examples: Sequence[Example], batch_size: int) -> float:
    """Mean cross-entropy per answer token over `examples`, without dropout."""
    model = AnswerLoss(network).eval()
    by_length = sorted(examples, key=lambda e: len(e.ids))
    summed, tokens = 0.0, 0
    for start in range(0, len(by_length), batch_size):
        batch = collate(by_length[start : start + batch_size])
        batch = {name: tensor.to(network.device) for name, tensor in batch.items()}
        summed += model(**batch, answer_tokens=1).item()
        tokens += int((batch["labels"] != IGNORE).sum())
    return summed / tokens
