"""A trace id is followed through the logs of processes that format their lines differently."""

from __future__ import annotations

import json
from pathlib import Path

from local.demo.log_traces import collect

ONE, TWO = "1" * 32, "2" * 32


def test_lines_of_every_process_in_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "aws-host.log").write_text(
        "not json\n"
        + json.dumps({"timestamp": "2026-01-01 10:00:03,500+0000", "trace_id": ONE, "action": "route", "message": "c"})
        + "\n2026-01-01 INFO "
        + json.dumps({"timestamp": "2026-01-01T10:00:01.000Z", "trace_id": ONE, "action": "decide", "message": "a"})
        + "\n"
        + json.dumps({"timestamp": "2026-01-01T10:00:01Z", "trace_id": TWO, "message": "another"})
        + f'\n{{"trace_id": "{ONE}", "message": "cut off\n'
    )
    trained = {"time": "2026-01-01T10:00:02Z", "trace_id": ONE, "action": "train", "message": "b", "pairs": 7}
    (tmp_path / "jobs" / "qa-1.log").write_text(json.dumps(trained) + "\n")
    found = collect(tmp_path, [ONE])
    assert set(found) == {ONE}
    assert [(e.action, e.source, e.message) for e in found[ONE]] == [
        ("decide", "aws-host", "a"),
        ("train", "jobs/qa-1", "b (pairs 7)"),
        ("route", "aws-host", "c"),
    ]
    assert found[ONE][2].at_s - found[ONE][0].at_s == 2.5


def test_epochs_are_folded_to_the_first_and_the_last(tmp_path: Path) -> None:
    lines = [
        {"time": f"2026-01-01T10:00:{n:02d}Z", "trace_id": ONE, "action": "epoch", "message": f"epoch {n}"}
        for n in range(9)
    ]
    (tmp_path / "qa-1.log").write_text("\n".join(map(json.dumps, lines)))
    assert [e.message for e in collect(tmp_path, [ONE])[ONE]] == ["epoch 0", "epoch 8"]


def test_an_unknown_id_has_no_lines(tmp_path: Path) -> None:
    assert collect(tmp_path, [TWO]) == {TWO: ()}
