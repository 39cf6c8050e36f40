"""What commands print: people's words, or with --json one document on standard output and the words on the other."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.console import Console

#: columns of a table that goes into a file or another program: wide enough that nothing is wrapped
UNLIMITED: Final = 10_000

json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on standard output, words on standard error."
)


def emit(document: Any) -> None:
    """The document in one line on standard output; a number that is none becomes null."""
    click.echo(json.dumps(_plain(document), allow_nan=False, ensure_ascii=False))


def say(line: str, as_json: bool) -> None:
    """A line for people: on standard output, with --json on standard error."""
    click.echo(line, err=as_json)


def complain(line: str) -> None:
    """One line about what went wrong."""
    click.echo(f"opportune: {line}", err=True)


def console(*, stderr: bool = False) -> Console:
    """As wide as the terminal or as COLUMNS says; where there is neither, nothing is wrapped."""
    from rich.console import Console

    found = Console(stderr=stderr)
    if found.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return found
    return Console(stderr=stderr, width=UNLIMITED)


def _plain(value: Any) -> Any:
    """Without infinities and NaN, which JSON does not have."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value
