"""Cross-entropy loss of a GPT-2 on answer tokens, and on question tokens where that is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import GPT2LMHeadModel

from training_containers.finetune.loop.encoding import IGNORE, Example, collate


class AnswerLoss(nn.Module):
    """A GPT-2 whose output is its loss. All of it is one `forward`, which is where DDP and autocast come in.

    `question_weight` is what a token of the question counts beside one of the answer. 0 leaves questions out, the time
    of their logits too.
    """

    def __init__(self, network: GPT2LMHeadModel, question_weight: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.question_weight = question_weight
        for block in network.transformer.h:
            # the same function as transformers' gelu_new, in one kernel; files and configuration do not change
            block.mlp.act = nn.GELU(approximate="tanh")

    def forward(
        self, input_ids: torch.Tensor, labels: torch.Tensor, answer_tokens: torch.Tensor | int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What to minimise, and the part of it that is cross-entropy of answer tokens, without a gradient.

        Both are sums over these tokens, over `answer_tokens` of the whole batch. input_ids, labels (B, S); labels are
        IGNORE everywhere but on answer tokens.
        """
        learnt = labels[:, 1:] != IGNORE
        wanted = learnt
        if self.question_weight:
            # before the answer; a row without one has nothing to teach, what follows an answer is padding
            wanted = learnt | ((learnt.cumsum(1) == 0) & learnt.any(1, keepdim=True))
        hidden = self.network.transformer(input_ids=input_ids, use_cache=False).last_hidden_state  # (B, S, D)
        logits = self.network.lm_head(hidden[:, :-1][wanted])  # (tokens, V)
        losses = nn.functional.cross_entropy(logits.float(), input_ids[:, 1:][wanted], reduction="none")
        everything = losses.sum() / answer_tokens
        if not self.question_weight:
            return everything, everything.detach()
        answers = losses[learnt[wanted]].sum() / answer_tokens
        return answers + self.question_weight * (everything - answers), answers.detach()


@torch.no_grad()
def mean_loss(network: GPT2LMHeadModel, examples: Sequence[Example], batch_size: int) -> float:
    """Mean cross-entropy per answer token over `examples`, without dropout."""
    model = AnswerLoss(network).eval()
    by_length = sorted(examples, key=lambda e: len(e.ids))
    summed, tokens = 0.0, 0
    for start in range(0, len(by_length), batch_size):
        batch = collate(by_length[start : start + batch_size])
        batch = {name: tensor.to(network.device) for name, tensor in batch.items()}
        summed += model(**batch, answer_tokens=1)[0].item()
        tokens += int((batch["labels"] != IGNORE).sum())
    return summed / tokens
