"""Device and precision of a training job: CPU or CUDA, fp32 or bf16."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import torch

from shared.errors import InvalidInputError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]

#: narrower models lose more by casting their weights than they gain (see benchmarks/training/__main__.py)
_BF16_WIDTH: Final = 512


class Hardware(NamedTuple):
    """Where to compute; the weights themselves, and what the optimiser does to them, are always fp32."""

    cuda: bool
    bf16: bool


def pick(device: Device, precision: Precision, width: int) -> Hardware:
    """Resolve what "auto" leaves open. It never depends on a measurement: a resumed job must choose the same.

    Raises:
        InvalidInputError: cuda is asked for, and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("device is cuda, but torch sees no GPU here; use device auto or cpu")
    cuda = device != "cpu" and torch.cuda.is_available()
    if precision != "auto":
        return Hardware(cuda, precision == "bf16")
    if cuda:
        return Hardware(cuda, torch.cuda.is_bf16_supported())
    # a CPU that does not multiply bf16 itself emulates it, many times slower than fp32
    found = torch.cpu.get_capabilities()
    multiplies = bool(found.get("amx_tile") or found.get("avx512_bf16"))
    return Hardware(cuda, width >= _BF16_WIDTH and multiplies)
