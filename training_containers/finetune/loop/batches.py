"""Batch sampler: which examples make up a step, and which part of them this process computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from training_containers.finetune.loop import processes
from training_containers.finetune.loop.encoding import IGNORE, Example, collate


class Batches:
    """Batches of indices, in an order that depends on (seed, epoch) only.

    With `like_length` the examples of a batch are of like length, so that little is computed on padding. Where
    questions are learnt too that costs quality: questions of one length are often of one wording.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, *, like_length: bool) -> None:
        self._lengths = torch.tensor(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._like_length = like_length
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self._lengths), generator=generator)
        if self._like_length:
            order = order[torch.argsort(self._lengths[order], stable=True)]
        batches = [part.tolist() for part in order.split(self._batch_size)]
        return (batches[i] for i in torch.randperm(len(batches), generator=generator).tolist())


def share(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """This process's part of a batch, and how many answer tokens the whole batch has.

    Every process sees the whole batch, so that nobody has to be asked; a process for which nothing is left computes
    an example without anything to learn, because the others wait for its gradient.
    """
    mine = examples[processes.rank() :: processes.size()]
    batch = collate(mine or examples[:1])
    if not mine:
        batch["labels"].fill_(IGNORE)
    return batch | {"answer_tokens": torch.tensor(sum(len(e.ids) - e.prompt_length for e in examples))}
