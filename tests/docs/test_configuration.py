"""docs/configuration.md names every setting with the default that is true."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from shared.settings import PREFIX, Settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
ROW = re.compile(r"^\| `(OPPORTUNE_\w+)` \| (.*?) \| (.+) \|$", re.MULTILINE)


def shown(value: object) -> str:
    if value == "":
        return "(empty)"
    text = f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`"


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {name: default for name, default, _ in ROW.findall(DOCUMENT.read_text())}
    true = {PREFIX + field.name.upper(): shown(field.default) for field in msgspec.structs.fields(Settings)}
    assert documented == true
