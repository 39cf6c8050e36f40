"""The tuned parameters of the rules, per cost-ratio bucket, as `policy.training.baselines.tuning` wrote them."""

from __future__ import annotations

import bisect
import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, Final

TUNED_FILE: Final = Path(__file__).with_name("tuned.json")


@cache
def load(path: Path = TUNED_FILE) -> dict[str, Any]:
    """The file as it is: {"edges": [ratio, ...], "rules": {name: [parameters per bucket]}, "best": [...]}."""
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"edges": [], "rules": {}, "best": []}
    return document


def bucket_of(ratio: float, edges: list[float]) -> int:
    """Index of the bucket that holds `ratio`; bucket i is [edges[i - 1], edges[i])."""
    return bisect.bisect_right(edges, ratio)


def parameters_for(rule: str, ratio: float) -> dict[str, float]:
    """Tuned parameters of a rule at a cost ratio; empty where it was never tuned."""
    tuned = load()
    per_bucket: list[dict[str, float]] = tuned["rules"].get(rule, [])
    return per_bucket[bucket_of(ratio, tuned["edges"])] if per_bucket else {}


def best_rule_for(ratio: float, among: Collection[str]) -> str:
    """Name of the rule that did best on the training traces at a cost ratio, of those in `among`."""
    tuned = load()
    if not tuned["best"]:
        return "regret"
    bucket = bucket_of(ratio, tuned["edges"])
    best: str = tuned["best"][bucket]
    if best in among:
        return best
    scores: dict[str, list[float]] = tuned["mean_ratio"]
    return min((rule for rule in scores if rule in among), key=lambda rule: scores[rule][bucket])
