"""Times as one types them."""

from __future__ import annotations

import pytest

from cli.times import parse_time
from shared.errors import InvalidInputError

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90m", NOW - 5400),
        ("1.5h", NOW - 5400),
        ("7d", NOW - 7 * 86400),
        ("2w", NOW - 14 * 86400),
        ("999999d", 0.0),
        ("2026-05-01", 1_777_593_600.0),
        ("2026-05-01T08:00", 1_777_622_400.0),
        ("2026-05-01T10:00+02:00", 1_777_622_400.0),
    ],
)
def test_ago_and_iso(text: str, at: float) -> None:
    assert parse_time(text, "--since", NOW) == at


@pytest.mark.parametrize("text", ["yesterday", "", "7", "7y", "2026-13-01", "-3d"])
def test_anything_else_names_the_option_and_what_to_write(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"--until .*: not a time; write 90m, 24h, 7d"):
        parse_time(text, "--until", NOW)
