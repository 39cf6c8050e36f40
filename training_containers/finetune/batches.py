"""Which examples make up a step, and which part of them this process computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from training_containers.finetune import processes
from training_containers.finetune.encoding import IGNORE, Example, collate


class LikeLengthBatches:
    """Batches of indices whose examples are of like length, in an order that depends on (seed, epoch) only."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = torch.tensor(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(self._lengths), generator=generator)
        by_length = shuffled[torch.argsort(self._lengths[shuffled], stable=True)].tolist()
        batches = [by_length[i : i + self._batch_size] for i in range(0, len(by_length), self._batch_size)]
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
