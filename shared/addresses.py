"""Addresses of other services: how one is shown, and how the user and password in it are used."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit

# User and password before the host in any text. The second form is for those with a slash or the like in them, which
# should have been percent-encoded: what follows the colon is no port.
_IN_TEXT: Final = re.compile(
    r"""(?<=://)(?:[^\s/?\#"<>\\]|\\")*@ | (?<=://)[^\s/?\#:"<>\\]*:(?!\d{1,5}(?:[/?\#\s"']|$))(?:[^\s"<>\\]|\\")*@""",
    re.VERBOSE,
)


def shown(address: str) -> str:
    """The address without user, password and query: safe to log and to show.

    What stands before the last @ is left out, wherever that is: a password may hold a slash or a question mark.
    """
    scheme, found, rest = address.partition("://")
    if not found:
        scheme, rest = "", address
    return scheme + found + re.split("[?#]", rest.rpartition("@")[2], maxsplit=1)[0]


def host_of(address: str) -> str:
    """Host and port, to name a service by."""
    return shown(address).partition("://")[2].partition("/")[0]


def without_users(text: str) -> str:
    """The text with user and password taken out of every address in it."""
    return _IN_TEXT.sub("", text) if "://" in text and "@" in text else text


def parted(address: str) -> tuple[str, tuple[str, str] | None]:
    """The address without user and password, and these two, decoded; None where it has none."""
    parts = urlsplit(address)
    given, found, host = parts.netloc.rpartition("@")
    if not found:
        return address, None
    user, _, password = given.partition(":")
    return parts._replace(netloc=host).geturl(), (unquote(user), unquote(password))
