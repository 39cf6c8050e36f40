"""The file of a deployment's parameters, one per cloud, service and stage: what was said once stays said."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shared.contracts import Cloud
from shared.errors import InvalidInputError


def settings_of(given: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE each.

    Raises:
        InvalidInputError: another form.
    """
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z]\w*", name):
            raise InvalidInputError(f"--set {one!r}: write NAME=VALUE")
        found[name] = value
    return found


class Parameters:
    """A parameter file: YAML of one line each on AWS, ARM's JSON on Azure."""

    def __init__(self, cloud: Cloud, file: Path, example: Path) -> None:
        self._cloud, self.file, self._example = cloud, file, example

    def get(self, name: str, default: str = "") -> str:
        """A value as text; of the example where the file is not made yet."""
        source = self.file if self.file.is_file() else self._example
        if not source.is_file():
            return default
        if self._cloud == "azure":
            value = self._json(source).get(name, {}).get("value", default)
            return str(value).lower() if isinstance(value, bool) else str(value)
        found = re.search(
            rf"^{re.escape(name)}:[ \t]*(.*?)[ \t]*(?:#.*)?$", source.read_text(encoding="utf-8"), re.MULTILINE
        )
        return found[1].strip("\"'") if found else default

    def change(self, values: dict[str, str]) -> None:
        """Write these into the file, which is made of the example where it is not there; everything else stays.

        Raises:
            InvalidInputError: there is no such parameter.
        """
        if not self.file.is_file():
            if not self._example.is_file():
                raise InvalidInputError(f"{self.file} does not exist, and {self._example} neither")
            shutil.copyfile(self._example, self.file)
        if not values:
            return
        text = self.file.read_text(encoding="utf-8")
        self.file.write_text(self._with(text, values), encoding="utf-8")

    def _with(self, text: str, values: dict[str, str]) -> str:
        if self._cloud == "azure":
            document = self._json(self.file, whole=True)
            for name, value in values.items():
                held = document["parameters"].get(name)
                if held is None and name not in self._known():
                    raise InvalidInputError(f"--set {name}: infra/azure/main.json has no such parameter")
                old = (held or {}).get("value")
                document["parameters"][name] = {"value": _typed(value, old)}
            return json.dumps(document, indent=2) + "\n"
        for name, value in values.items():
            line = rf"^({re.escape(name)}:[ \t]*)(.*?)([ \t]*(?:#.*)?)$"
            if not re.search(line, text, re.MULTILINE):
                raise InvalidInputError(f"--set {name}: {self.file.name} has no such parameter")
            text = re.sub(line, rf"\g<1>{_escaped(json.dumps(value))}\g<3>", text, flags=re.MULTILINE)
        return text

    def _known(self) -> set[str]:
        template = self._example.with_name("main.json")
        return set(json.loads(template.read_text(encoding="utf-8"))["parameters"]) if template.is_file() else set()

    def _json(self, file: Path, *, whole: bool = False) -> dict[str, Any]:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            return found if whole else dict(found["parameters"])
        except (ValueError, KeyError, TypeError) as exc:
            raise InvalidInputError(f"{file}: not a parameter file of ARM: {exc}") from exc


def _escaped(text: str) -> str:
    """So that a replacement means it as it stands."""
    return text.replace("\\", r"\\")


def _typed(value: str, old: Any) -> Any:
    """The value in the kind of the one that it replaces."""
    if isinstance(old, bool) or value in ("true", "false"):
        return value == "true"
    if isinstance(old, int):
        try:
            return int(value)
        except ValueError as exc:
            raise InvalidInputError(f"{value!r} is not a whole number") from exc
    return value
