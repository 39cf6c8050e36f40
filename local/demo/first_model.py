"""The never-retrain baseline of a run: the first model, asked the same questions once the run is over.

It answers a question the same way whenever it is asked, so one answer each is enough. It is loaded again beside the
last model and asked on the engine that served, behind no network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import urllib3

from local.demo.load_generator import Scorer
from local.demo.scenario import PoolItem
from local.processes.serving_admin import ServingAdmin
from shared.errors import UnavailableError

log = logging.getLogger(__name__)

VERSION: Final = "base"  # of the model that came with the image
WORKERS: Final = 8

#: question -> (BLEU-1, exact match)
Scores = dict[str, tuple[float, float]]


def ask_first_model(admin: ServingAdmin, model: Path, items: Iterable[PoolItem], score: Scorer) -> Scores:
    """Scores of the model in the folder `model` on every different question of `items`; none when it cannot be asked.

    What was measured already does not depend on it, so a failure is a warning.
    """
    asked = list({item.question: item for item in items}.values())
    http = urllib3.PoolManager(maxsize=WORKERS, retries=False, timeout=30.0)

    def ask(item: PoolItem) -> tuple[float, float]:
        reply = http.request("POST", f"{admin.url}/predict", json={"question": item.question})
        body = reply.json()
        if reply.status != 200 or body.get("model_version") != VERSION:
            raise UnavailableError(f"the first model at {admin.url}", f"HTTP {reply.status}: {str(body)[:200]}")
        return score(str(body["answer"]), item.answers)

    try:
        admin.load(VERSION, model)
        admin.activate(VERSION)
        with ThreadPoolExecutor(WORKERS) as workers:
            return {item.question: scores for item, scores in zip(asked, workers.map(ask, asked), strict=True)}
    except (UnavailableError, urllib3.exceptions.HTTPError, ValueError, KeyError) as exc:
        log.warning("never retraining was not measured: %s", exc)
        return {}
