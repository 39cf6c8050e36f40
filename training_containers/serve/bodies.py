"""Request bodies: parsed and validated, errors name the field."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from shared.errors import InvalidInputError

_PATH: Final = re.compile(r"`\$\.(\w+)")
_MISSING: Final = re.compile(r"required field `(\w+)`")

Text = Annotated[str, Meta(min_length=1, max_length=4096)]
T = TypeVar("T", bound=msgspec.Struct)


class FieldError(InvalidInputError):
    """A body is wrong; `field` is the culprit, None when the body as a whole is."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Predict(msgspec.Struct, frozen=True):
    """Body of /predict, and of /invocations and /score without answers."""

    question: Annotated[str, Meta(min_length=1)]
    max_new_tokens: Annotated[int, Meta(ge=1, le=256)] | None = None
    # who is to answer; a request without it is for the active version
    model_version: str | None = None
    version: str | None = None  # the same, as older callers name it


class Feedback(msgspec.Struct, frozen=True):
    """Body of /feedback, and of /invocations and /score with answers.

    `model_version` made the prediction; where there is none, it is asked for one.
    """

    question: Text
    answers: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=32)]
    prediction: Annotated[str, Meta(max_length=4096)] | None = None
    model_version: str | None = None
    received_s: Annotated[float, Meta(ge=0)] | None = None


class _Labelled(msgspec.Struct, frozen=True):
    """Only whether there are answers."""

    answers: msgspec.Raw = msgspec.Raw(b"")


def labelled(raw: bytes) -> bool:
    """Whether a body holds a label. One that cannot be read holds none; whoever parses it says why."""
    try:
        return bool(bytes(msgspec.json.decode(raw, type=_Labelled).answers))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def parse(kind: type[T], raw: bytes) -> T:
    """`raw` as `kind`.

    Raises:
        FieldError: not UTF-8, not JSON, or a field is missing, wrong or blank.
    """
    try:
        raw.decode("utf-8")
        body = msgspec.json.decode(raw, type=kind)
    except UnicodeDecodeError as exc:
        raise FieldError(f"the body is not UTF-8: byte {exc.start} is {raw[exc.start]:#04x}") from exc
    except msgspec.ValidationError as exc:
        found = _MISSING.search(str(exc)) or _PATH.search(str(exc))
        raise FieldError(str(exc), found.group(1) if found else None) from exc
    except msgspec.DecodeError as exc:
        raise FieldError(f"the body is not JSON: {exc}") from exc
    question = getattr(body, "question", None)
    if question is not None and not question.strip():
        raise FieldError("the question is empty", "question")
    return body
