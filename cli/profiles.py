"""Profiles: sets of settings by name in `opportune.toml`, instead of a dozen exports in every new terminal.

    [profile.staging]
    service = "qa"                 # OPPORTUNE_SERVICE
    prometheus_url = "https://…"   # OPPORTUNE_PROMETHEUS_URL
    [profile.staging.env]
    AWS_REGION = "eu-west-1"       # other programs' variables, as they are

The file is looked for in the current folder and above it. A variable that is set already stays as it is.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

from shared.errors import ConfigurationError, InvalidInputError

FILE: Final = "opportune.toml"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def use(name: str, env: MutableMapping[str, str]) -> None:
    """Set what the profile says and `env` does not.

    Raises:
        InvalidInputError: no file, no such profile, or a key or value that is none; names file, key and what is meant.
    """
    for variable, value in variables(find(Path.cwd(), name), name).items():
        env.setdefault(variable, value)


def find(folder: Path, name: str) -> Path:
    """The nearest opportune.toml, in `folder` or above it."""
    for place in (folder, *folder.parents):
        if (place / FILE).is_file():
            return place / FILE
    raise InvalidInputError(f"--profile {name}: there is no {FILE} in {folder} or a folder above it")


def variables(file: Path, name: str) -> dict[str, str]:
    """The environment variables of one profile of the file."""
    from shared.settings import PREFIX, Settings

    table = dict(_table(file, name))
    where = f"{file}: [profile.{name}]"
    others = table.pop("env", {})
    if not isinstance(others, dict):
        raise InvalidInputError(f"{where} env is {others!r}; it is a table of variables: [profile.{name}.env]")
    known = Settings.__struct_fields__
    found = {}
    for key, value in table.items():
        if key not in known:
            raise InvalidInputError(f"{where} {key} is no setting; {_meant(key, known)}")
        found[PREFIX + key.upper()] = _text(value, f"{where} {key}")
    try:
        Settings.from_env(found)
    except ConfigurationError as exc:
        raise InvalidInputError(f"{where} {exc}") from exc
    for key, value in others.items():
        if not _VARIABLE.fullmatch(key):
            raise InvalidInputError(f"{where} env: {key!r} is no name of an environment variable")
        found[key] = _text(value, f"{where} env {key}")
    return found


def _table(file: Path, name: str) -> Mapping[str, Any]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"{file}: not TOML: {exc}") from exc
    except OSError as exc:
        raise InvalidInputError(f"{file}: cannot be read: {exc.strerror}") from exc
    profiles = content.get("profile", {})
    if not isinstance(profiles, dict) or not isinstance(profiles.get(name, {}), dict):
        raise InvalidInputError(f"{file}: a profile is a table; write [profile.{name}]")
    if name not in profiles:
        there = f"there are {', '.join(sorted(profiles))}" if profiles else f"there is none; write [profile.{name}]"
        raise InvalidInputError(f"{file}: no profile {name!r}; {there}")
    table: Mapping[str, Any] = profiles[name]
    return table


def _meant(key: str, known: Iterable[str]) -> str:
    """What may be meant by a key that is no setting."""
    if key.isupper() and not key.startswith("OPPORTUNE_"):
        known = ()  # written as another program's variable is
    near = difflib.get_close_matches(key.lower().removeprefix("opportune_"), known, n=3, cutoff=0.6)
    other = "another program's variable goes into the sub-table env; docs/configuration.md lists all settings"
    return f"did you mean {' or '.join(near)}?" if near else other


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise InvalidInputError(f"{where} is {value!r}; a text, a number, true or false is allowed")
