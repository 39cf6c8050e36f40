"""Hyperparameters of a training job, from strings (SageMaker and Azure ML both pass only strings)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from shared.contracts import Name, TraceId
from shared.errors import InvalidInputError

#: hyperparameters in the environment: OPPORTUNE_HP_JOB_ID is job_id
ENV_PREFIX: Final = "OPPORTUNE_HP_"

#: hyperparameters of older messages that mean nothing any more
_GONE: Final = frozenset({"pushgateway_url"})

Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    """One field per hyperparameter; durations in seconds, times POSIX seconds."""

    job_id: Name
    service: Name = "qa"
    trace_id: TraceId = "0" * 32
    parent_version: str = "base"
    # a Hugging Face name, a folder or an object store's address; also the architecture when there is a parent
    base_model: str = "distilgpt2"
    cloud: Literal["aws", "azure"] = "aws"
    # --- optimisation
    epochs: Count = 5
    learning_rate: Positive = 5e-5
    batch_size: Count = 16
    seed: Annotated[int, Meta(ge=0)] = 0
    # an epoch whose mean loss is below this ends the training: there is nothing left to learn
    stop_loss: Annotated[float, Meta(ge=0)] = 0.02
    # epochs without a better loss on validation records, a tenth of what is taught, before training ends; 0 = off:
    # a closed-book model always gets worse on questions it was not taught
    patience: Annotated[int, Meta(ge=0)] = 0
    # what a token of the question counts in the loss, beside one of the answer; 0 = only answers are learnt
    question_weight: Annotated[float, Meta(ge=0)] = 0.0
    max_seconds: Positive = 3600.0
    checkpoint_seconds: Positive = 30.0
    # --- hardware
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # of the computation; weights and optimiser stay fp32. auto = bf16 where the hardware has matrix units for it
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False  # torch.compile: pays on GPUs, in long runs
    processes: Annotated[int, Meta(ge=0)] = 0  # per machine; 0 = one per GPU
    # --- data
    # instead of the data channel: builtin, squad, a question file, or datasets:NAME (see data/question_sources.py)
    questions: str = ""
    # what may not be both taught and judged by; empty = record for feedback, question for `questions`
    held_out: Literal["", "question", "record"] = ""
    data_start_s: float | None = None
    data_end_s: float | None = None
    eval_share: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    max_eval: Count = 512
    # --- what is reported
    price_usd_per_hour: Positive | None = None  # of all machines together; gives the manifest's cost


def parse_hyperparameters(raw: Mapping[str, str]) -> Hyperparameters:
    """Validate strings.

    Raises:
        InvalidInputError: names the hyperparameter, its value and what is allowed.
    """
    fields = {field.name: field.type for field in msgspec.structs.fields(Hyperparameters)}
    values: dict[str, object] = {}
    for name, given in raw.items():
        value = _plain(given)
        if name in _GONE or value is None:
            continue
        if name not in fields:
            close = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(fields)}"
            raise InvalidInputError(f"unknown hyperparameter {name!r}; {hint}")
        try:
            values[name] = msgspec.convert(value, fields[name], strict=False)
        except msgspec.ValidationError as exc:
            raise InvalidInputError(f"hyperparameter {name} is {value!r}: {exc}") from exc
    if "job_id" not in values:
        raise InvalidInputError("hyperparameter job_id is missing; it names the model version")
    return Hyperparameters(**values)  # type: ignore[arg-type]  # each value was converted to its field's type


def _plain(value: str) -> str | None:
    """The text in a value that SageMaker's SDK or console encoded as JSON; None for null."""
    text = value.strip()
    if text == "null":
        return None
    if len(text) >= 2 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return value
    return value


def as_strings(hyper: Hyperparameters) -> dict[str, str]:
    """The inverse of `parse_hyperparameters`; what is not set is left out."""
    return {name: str(value) for name, value in msgspec.structs.asdict(hyper).items() if value not in (None, "")}


def sagemaker_hyperparameters(root: Path) -> Hyperparameters:
    """Read input/config/hyperparameters.json; names that SageMaker adds for its own use are skipped.

    Raises:
        InvalidInputError: missing, not a JSON object of strings, or a wrong value.
    """
    path = root / "input/config/hyperparameters.json"
    try:
        raw = json.loads(path.read_bytes())
    except OSError as exc:
        raise InvalidInputError(f"{path}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise InvalidInputError(f"{path}: not JSON: {exc}") from exc
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise InvalidInputError(f"{path}: not a JSON object whose values are strings")
    return parse_hyperparameters({k: v for k, v in raw.items() if not k.startswith(("sagemaker_", "_"))})


def azureml_hyperparameters(options: list[str], env: Mapping[str, str]) -> Hyperparameters:
    """`name=value` options, and OPPORTUNE_HP_* variables for what the options leave out.

    Raises:
        InvalidInputError: an option without `=`, or a wrong value.
    """
    raw = {key[len(ENV_PREFIX) :].lower(): value for key, value in env.items() if key.startswith(ENV_PREFIX)}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise InvalidInputError(f"--hyperparameter {option}: write it as name=value")
        raw[name] = value
    return parse_hyperparameters(raw)
