"""Serving use cases without HTTP: answer a question, take feedback, count, log."""

from __future__ import annotations

import logging
import time
from typing import Final, NamedTuple

from shared.contracts import FeedbackPair
from shared.errors import (
    BodyTooLargeError,
    ConflictError,
    InvalidInputError,
    ModelError,
    NotFoundError,
    OpportuneError,
)
from shared.ports import Clock
from training_containers.model.prompt import MAX_NEW_TOKENS, prompt_for
from training_containers.model.scoring import bleu1, exact_match
from training_containers.serve.batcher import DeadlineExceededError, QueueFullError
from training_containers.serve.bodies import Feedback, FieldError, Predict
from training_containers.serve.feedback_store import FeedbackWriter
from training_containers.serve.metrics import ServingMetrics
from training_containers.serve.model_registry import Registry
from training_containers.serve.scores import RollingScores

log = logging.getLogger(__name__)


class Answered(NamedTuple):
    """A prediction and who made it."""

    answer: str
    model_version: str
    tokens: int
    latency_s: float


class Scored(NamedTuple):
    """A labelled pair's scores."""

    prediction: str
    model_version: str
    bleu1: float
    exact_match: float


class Service:
    """One serving process: a registry of models, their scores and the feedback store."""

    def __init__(
        self,
        registry: Registry,
        scores: RollingScores,
        metrics: ServingMetrics,
        feedback: FeedbackWriter | None,
        *,
        default_max_new_tokens: int = MAX_NEW_TOKENS,
        clock: Clock = time.time,
    ) -> None:
        self.registry = registry
        self.metrics = metrics
        self._scores = scores
        self._feedback = feedback
        self._default_max_new_tokens = default_max_new_tokens
        self._clock = clock

    def predict(self, body: Predict, timeout_s: float, ids: dict[str, str], wanted: str | None = None) -> Answered:
        """Answer a question; `ids` (trace_id, request_id) go to the log.

        `wanted`: the version that is to answer, where the body names none.

        Raises:
            FieldError: the question does not fit into the model.
            VersionNotHereError: the named version is not loaded.
            UnavailableError: no model, queue full, deadline passed.
        """
        begin = time.perf_counter()
        version: str | None = None
        tokens, status = 0, 500
        try:
            with self.registry.lease(body.model_version or body.version or wanted or None) as (version, batcher):
                answer = batcher.answer(
                    prompt_for(body.question), body.max_new_tokens or self._default_max_new_tokens, timeout_s
                )
            tokens, status = len(answer.tokens), 200
        except InvalidInputError as exc:
            status = http_status(exc)
            raise FieldError(str(exc), "question") from exc
        except OpportuneError as exc:
            status = http_status(exc)
            raise
        finally:
            latency_s = time.perf_counter() - begin
            self.metrics.request(version, status, latency_s, tokens)
            log.info(
                "predicted",
                extra={"action": "predict", "model_version": version, "status": status, "latency_s": latency_s, **ids},
            )
        return Answered(answer.text, version, tokens, latency_s)

    def feedback(self, body: Feedback, timeout_s: float, ids: dict[str, str], wanted: str | None = None) -> Scored:
        """Score a labelled pair and store it for training; `wanted` as in `predict`.

        Raises:
            what `predict` raises, when the pair brings no prediction.
        """
        version = body.model_version or wanted or self.registry.active
        prediction = body.prediction
        if prediction is None:
            with self.registry.lease(body.model_version or wanted or None) as (version, batcher):
                prediction = batcher.answer(prompt_for(body.question), self._default_max_new_tokens, timeout_s).text
        scored = Scored(
            prediction, version or "none", bleu1(prediction, body.answers), exact_match(prediction, body.answers)
        )
        # a pair about a version that was replaced teaches the next model, but must not revive the old one's gauges
        if version is not None and self.registry.judged(version):
            self._scores.add(version, scored.bleu1, scored.exact_match)
            self.metrics.feedback(version)
        else:
            self.metrics.feedback("retired")
        if self._feedback is not None:
            self._feedback.append(
                FeedbackPair(
                    question=body.question,
                    answers=body.answers,
                    received_s=self._clock() if body.received_s is None else body.received_s,
                    prediction=prediction,
                    model_version=version,
                )
            )
        log.info(
            "feedback",
            extra={"action": "feedback", "model_version": version, "exact_match": scored.exact_match, **ids},
        )
        return scored

    def close(self, timeout_s: float) -> None:
        """Finish what was taken and store every pair."""
        self.registry.close(timeout_s)
        if self._feedback is not None:
            self._feedback.close()


_STATUS: Final[tuple[tuple[type[OpportuneError], int], ...]] = (
    (BodyTooLargeError, 413),
    (InvalidInputError, 400),
    (NotFoundError, 404),
    (ConflictError, 409),
    (ModelError, 500),
    (QueueFullError, 429),
    (DeadlineExceededError, 504),
)


def http_status(error: OpportuneError) -> int:
    """The HTTP status of an error; 503 for what may pass."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 503)
