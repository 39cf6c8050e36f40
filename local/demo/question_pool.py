"""Question pool of a run: the built-in topics or a question file, cut to what a small model learns in seconds."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from local.demo.scenario import DRIFT_SPAN, Pool, PoolItem
from training_containers.finetune.data.question_sources import Question, load_questions

#: a drift needs about this long to be noticed, trained on and recovered from
MINUTES_PER_DRIFT: Final = 34.0
#: with more topics than this a file is cut into periods instead
MOST_TOPICS: Final = 8
#: question times above this are POSIX seconds (2001), below it positions
DATED: Final = 1e9


def drifts_in(minutes: float) -> int:
    """How many drifts fit into a run of `minutes` simulated minutes, at least one."""
    first, last = DRIFT_SPAN
    return max(1, int(minutes * (last - first) / MINUTES_PER_DRIFT))


def build_pool(spec: str, *, minutes: float, per_group: int, seed: int) -> Pool:
    """The pool of a run: a taught group and as many arriving ones as the run has time for.

    Few topics are taken as they are; many topics, or none, become periods of equal size along the time axis. Each
    group is thinned to `per_group` questions, chosen by the seed.

    Raises:
        InvalidInputError: the file cannot be read, is empty or a line does not parse (named by number).
    """
    questions = load_questions(spec)
    wanted = 1 + drifts_in(minutes)
    topics = list(dict.fromkeys(q.topic for q in questions))
    if 2 <= len(topics) <= MOST_TOPICS and topics != [""]:
        members = {name: [q for q in questions if q.topic == name] for name in topics[:wanted]}
    else:
        members = _periods(questions, wanted)
    rng = np.random.default_rng(seed)
    items: list[PoolItem] = []
    for name, found in members.items():
        chosen = sorted(rng.permutation(len(found))[:per_group])
        items += [PoolItem(found[i].question, found[i].answers, name) for i in chosen]
    name = spec if spec in {"builtin", "squad"} else Path(spec).name
    description = (
        f"questions: {name}, {len(questions):,} read, {len(items):,} asked "
        f"(at most {per_group} of each group: {', '.join(members)}); the base model was taught {next(iter(members))}"
    )
    return Pool(tuple(items), tuple(members), 1, description)


def _periods(questions: Sequence[Question], wanted: int) -> dict[str, list[Question]]:
    """Consecutive parts of equal size, named by their dates where there are any."""
    found: dict[str, list[Question]] = {}
    for number, part in enumerate(np.array_split(np.arange(len(questions)), min(wanted, len(questions))), 1):
        members = [questions[i] for i in part]
        found[_name(members, number)] = members
    return found


def _name(members: Sequence[Question], number: int) -> str:
    if members[0].when < DATED:
        return f"part {number}"
    first, last = (dt.datetime.fromtimestamp(q.when, dt.UTC) for q in (members[0], members[-1]))
    return f"{first:%Y-%m} to {last:%Y-%m}"


def write_taught(pool: Pool, path: Path) -> None:
    """The taught questions as JSON lines, the form in which the base model is made from them."""
    taught = set(pool.groups[: pool.taught])
    with path.open("w", encoding="utf-8") as file:
        for item in pool.items:
            if item.group in taught:
                file.write(json.dumps({"question": item.question, "answers": item.answers}, ensure_ascii=False) + "\n")
