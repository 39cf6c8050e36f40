"""Which questions a run asks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from local.demo.question_pool import build_pool, drifts_in, write_taught
from shared.errors import InvalidInputError


def test_builtin_topics_arrive_in_order_and_are_thinned() -> None:
    pool = build_pool("builtin", minutes=100, per_group=40, seed=1)
    assert pool.groups == ("harbour", "games", "council") and pool.taught == 1
    assert Counter(i.group for i in pool.items) == dict.fromkeys(pool.groups, 40)
    assert pool == build_pool("builtin", minutes=100, per_group=40, seed=1)
    assert pool.items != build_pool("builtin", minutes=100, per_group=40, seed=2).items


def test_a_longer_run_has_time_for_more_drifts() -> None:
    assert [drifts_in(m) for m in (10, 80, 160)] == [1, 2, 4]


def test_a_dated_file_becomes_periods_named_by_date(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    lines = [{"question": f"q{i}", "answers": ["a"], "date": f"20{20 + i}-03-01"} for i in range(6)]
    path.write_text("\n".join(map(json.dumps, reversed(lines))))
    pool = build_pool(str(path), minutes=100, per_group=10, seed=1)
    assert pool.groups == ("2020-03 to 2021-03", "2022-03 to 2023-03", "2024-03 to 2025-03")
    assert [i.question for i in pool.items] == [f"q{i}" for i in range(6)]
    taught = tmp_path / "taught.jsonl"
    write_taught(pool, taught)
    assert [json.loads(line)["question"] for line in taught.read_text().splitlines()] == ["q0", "q1"]


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "q", "answers": ["a"]}\n{"question": "q"\n')
    with pytest.raises(InvalidInputError, match="line 2"):
        build_pool(str(path), minutes=100, per_group=10, seed=1)
