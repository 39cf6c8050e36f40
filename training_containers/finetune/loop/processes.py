"""Distributed training: the processes torchrun starts, which train one model. Alone, everything here costs nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import distributed


@contextmanager
def group(cuda: bool, timeout_s: float, env: Mapping[str, str]) -> Iterator[None]:
    """Join the process group that torchrun's environment `env` describes, and leave it at the end.

    `timeout_s` is how long one process may keep the others waiting, for example while it evaluates.
    """
    if int(env.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if cuda:
        torch.cuda.set_device(int(env["LOCAL_RANK"]))
    # flags and counts always travel over gloo, gradients over the backend of the device they are on
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    distributed.init_process_group(backend, timeout=dt.timedelta(seconds=timeout_s))
    try:
        yield
    finally:
        distributed.destroy_process_group()


def size() -> int:
    """How many processes train."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's number; 0 evaluates and writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum over all processes."""
    if size() > 1:
        value = value.cpu()
        distributed.all_reduce(value)
    return value


def any_of(*flags: bool) -> list[bool]:
    """Each flag, true when it is so in any process: all of them come to the same decision."""
    if size() == 1:
        return list(flags)
    return [bool(count) for count in total(torch.tensor(flags, dtype=torch.int32))]


def agreed(number: int) -> int | None:
    """`number` if all processes have the same, else None."""
    if size() == 1:
        return number
    both = torch.tensor([number, -number])
    distributed.all_reduce(both, distributed.ReduceOp.MAX)
    return number if both[0] == -both[1] else None
