"""Choice of the engine that serves a model: 8-bit only where its answers were measured to be those of fp32.

Training writes the 8-bit engine and `precision.json` beside it: the share of evaluation questions that both engines
answer with the same tokens, and a few of those answers. Loading compares the share with the operator's bound, then
asks the recorded questions again: a processor whose integer units saturate, or sum up a lone token in another way
than a batch, answers differently, and serves fp32.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from shared.errors import InvalidInputError, ModelError
from training_containers.model.engines.gpt2_graph import WEIGHTS
from training_containers.model.engines.int8 import Int8Engine, export_int8, has_int8
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.model.engines.speculative import SpeculativeEngine
from training_containers.model.engines.text import SMALL_MODEL_BYTES, TextEngine
from training_containers.model.prompt import MAX_NEW_TOKENS

log = logging.getLogger(__name__)

PRECISION_FILE: Final = "precision.json"

#: share of answers that 8-bit must give exactly as fp32 does, unless --int8-agreement says otherwise
DEFAULT_BOUND: Final = 0.98
#: an agreement measured on fewer answers than this says nothing
MIN_QUESTIONS: Final = 20

_MAX_QUESTIONS: Final = 256
_PROBES: Final = 4
_BATCH: Final = 16


class Wanted(enum.StrEnum):
    """The operator's choice."""

    AUTO = "auto"  # 8-bit where it agrees and the model is large enough to gain by it
    INT8 = "int8"  # 8-bit where it agrees, however small the model
    FP32 = "fp32"


class Probe(msgspec.Struct, frozen=True):
    """A prompt and the tokens the 8-bit engine answered with where it was made."""

    prompt: str
    tokens: tuple[int, ...]


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """How far the 8-bit engine of an artifact may be trusted."""

    agreement: Annotated[float, Meta(ge=0, le=1)]  # share of questions with the same tokens as fp32
    questions: Annotated[int, Meta(ge=0)]
    probes: tuple[Probe, ...] = ()


def add_int8(model_dir: Path, prompts: Sequence[str]) -> Precision:
    """Write the 8-bit engine of a trained model and its agreement with fp32 on `prompts` (at most 256 of them).

    Raises:
        ModelError: the directory is not a complete model, or cannot be written.
    """
    exact = OnnxEngine(model_dir)
    export_int8(model_dir)
    small = Int8Engine(model_dir)
    step = max(1, len(prompts) // _MAX_QUESTIONS)
    asked = sorted((p for p in prompts[::step] if _fits(exact, p)), key=len)
    same, probes = 0, list[Probe]()
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        answers = small.generate(batch, MAX_NEW_TOKENS)
        same += sum(a == b for a, b in zip(answers, exact.generate(batch, MAX_NEW_TOKENS), strict=True))
        probes += [Probe(p, a.tokens) for p, a in zip(batch, answers, strict=True)]
    found = Precision(
        agreement=same / len(asked) if asked else 0.0,
        questions=len(asked),
        probes=tuple(probes[:: max(1, len(probes) // _PROBES)][:_PROBES]),
    )
    (model_dir / PRECISION_FILE).write_bytes(msgspec.json.encode(found))
    log.info(
        "8-bit engine measured",
        extra={"action": "quantise", "agreement": found.agreement, "questions": found.questions},
    )
    return found


def load_engine(model_dir: Path, threads: int, wanted: Wanted, bound: float) -> TextEngine:
    """The engine that may serve `model_dir`: 8-bit if it is wanted and trusted, else fp32 with the reason logged.

    Raises:
        ModelError: the directory does not hold a usable model.
    """
    precision, reason = _judge(model_dir, wanted, bound)
    if precision is not None:
        engine = Int8Engine(model_dir, threads)
        if _as_recorded(engine, precision):
            engine.agreement = precision.agreement
            log.info("serving in 8 bits", extra={"action": "precision", "agreement": precision.agreement})
            return engine
        reason = "this processor does not compute the recorded 8-bit answers"
    if wanted is not Wanted.FP32:
        log.warning("serving in fp32", extra={"action": "precision", "reason": reason})
    return _exact_engine(model_dir, threads)


def _exact_engine(model_dir: Path, threads: int) -> TextEngine:
    """fp32; a large model that brings its 8-bit copy lets it draft the answers of lone requests."""
    weights = model_dir / WEIGHTS
    if weights.is_file() and weights.stat().st_size >= SMALL_MODEL_BYTES and has_int8(model_dir):
        return SpeculativeEngine(model_dir, threads)
    return OnnxEngine(model_dir, threads)


def _judge(model_dir: Path, wanted: Wanted, bound: float) -> tuple[Precision | None, str]:
    """(what is known about the 8-bit engine, "") if it may be loaded, else (None, why not)."""
    if wanted is Wanted.FP32:
        return None, "fp32 is wanted"
    path = model_dir / PRECISION_FILE
    if not path.is_file() or not has_int8(model_dir):
        return None, "the model brings no 8-bit engine"
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Precision)
    except msgspec.MsgspecError as exc:
        raise ModelError(f"{path}: not a record of an 8-bit engine: {exc}") from exc
    if found.questions < MIN_QUESTIONS:
        return None, f"8-bit was compared on {found.questions} questions, fewer than {MIN_QUESTIONS}"
    if found.agreement < bound:
        return None, f"8-bit agrees with fp32 on {found.agreement:.3f} of the answers, the bound is {bound:g}"
    if wanted is Wanted.AUTO and (model_dir / WEIGHTS).stat().st_size < SMALL_MODEL_BYTES:
        return None, "the model is too small to gain by 8-bit"
    return found, ""


def _as_recorded(engine: TextEngine, precision: Precision) -> bool:
    """Whether the engine repeats the recorded answers, in one batch and one by one; it is warm afterwards."""
    prompts = [p.prompt for p in precision.probes]
    alone = [engine.generate([prompt], MAX_NEW_TOKENS)[0].tokens for prompt in prompts]
    together = [answer.tokens for answer in engine.generate(prompts, MAX_NEW_TOKENS)]
    return alone == together == [p.tokens for p in precision.probes]


def _fits(engine: TextEngine, prompt: str) -> bool:
    try:
        engine.check(prompt, MAX_NEW_TOKENS)
    except InvalidInputError:
        return False
    return True
