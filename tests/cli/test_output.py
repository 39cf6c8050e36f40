"""What goes where, and how wide."""

from __future__ import annotations

import json

import pytest
from rich.table import Table

from cli.output import console, emit, say

WIDE = "a sentence of a good many words that no terminal of eighty columns has the room for, whichever way one turns it"


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    table = Table("policy", "reason")
    table.add_row("ppo", WIDE)
    console().print(table)
    return capsys.readouterr().out.splitlines()


def test_a_piped_table_is_not_wrapped(capsys, monkeypatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert any(WIDE in line for line in shown(capsys))


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_columns_are_honoured(columns: int, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = shown(capsys)
    assert max(map(len, lines)) <= columns
    assert any(WIDE in line for line in lines) is (columns == 200)


def test_a_document_is_json_even_with_numbers_that_are_none(capsys) -> None:
    emit({"a": float("nan"), "b": [float("inf"), 1.5], "c": ("é",)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": ["é"]}


def test_words_make_way_for_the_document(capsys) -> None:
    say("done", as_json=True)
    say("done", as_json=False)
    assert capsys.readouterr() == ("done\n", "done\n")
