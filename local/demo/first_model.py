"""The never-retrain baseline of a run: the first model, asked the same questions once the run is over.

It answers a question the same way whenever it is asked, so one answer each is enough. It is released once more, by a
person's rollback, and asked on the endpoint that served.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError  # noqa: TID251 - a user of the endpoint, not a use case

from local.demo.load_generator import Scorer
from local.demo.scenario import PoolItem
from shared.errors import OpportuneError, UnavailableError

log = logging.getLogger(__name__)

WORKERS: Final = 8

#: question -> (BLEU-1, exact match)
Scores = dict[str, tuple[float, float]]


def ask_first_model(
    release: Callable[[], object], runtime: Any, endpoint: str, version: str, items: Iterable[PoolItem], score: Scorer
) -> Scores:
    """Scores of model `version` on every different question of `items`; none when it cannot be asked.

    `release` makes it the one that serves; `runtime` is a client of the SageMaker runtime. What was measured already
    does not depend on it, so a failure is a warning.
    """
    asked = list({item.question: item for item in items}.values())

    def ask(item: PoolItem) -> tuple[float, float]:
        question = json.dumps({"question": item.question, "model_version": version}).encode()
        answer = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=question)
        body = json.loads(answer["Body"].read())
        if body.get("model_version") != version:
            raise UnavailableError(f"the first model at {endpoint}", str(body)[:200])
        return score(str(body["answer"]), item.answers)

    try:
        release()
        with ThreadPoolExecutor(WORKERS) as workers:
            return {item.question: scores for item, scores in zip(asked, workers.map(ask, asked), strict=True)}
    except (OpportuneError, BotoCoreError, ClientError, ValueError, KeyError) as exc:
        log.warning("never retraining was not measured: %s", exc)
        return {}
