"""The commands that the documents print, as (document, line, words)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:\./opportune|make|python -m) [^`]*)`")
_VARIABLE = re.compile(r"[A-Z_]+=\S*")


class Command(NamedTuple):
    """One command of one document; `words` are without the variables set before it and what follows | or >."""

    document: str
    line: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {self.line}"


def documents() -> list[Path]:
    """Everything that a reader is sent to; the changelog tells of commands that are gone."""
    top = [path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"]
    return [*sorted(top), *sorted((ROOT / "docs").rglob("*.md"))]


def parts(line: str) -> list[tuple[str, ...]]:
    """The commands of a line, split at && and cut before a pipe or a redirection."""
    found = []
    for part in line.split("&&"):
        words = shlex.split(part.strip(), comments=True)
        while words and _VARIABLE.fullmatch(words[0]):
            words = words[1:]
        end = next((k for k, word in enumerate(words) if word in ("|", ">", ">>", "&")), len(words))
        if words[:end]:
            found.append(tuple(words[:end]))
    return found


def printed() -> list[Command]:
    """Every `$ ...` line of a console block, in order, each once."""
    found = []
    for path in documents():
        for block in _BLOCK.findall(path.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("$ "):
                    name = str(path.relative_to(ROOT))
                    found += [Command(name, line[2:], words) for words in parts(line[2:])]
    return list(dict.fromkeys(found))


def mentioned() -> list[Command]:
    """Every `./opportune ...`, `make ...` and `python -m ...` within a sentence; … stands for anything."""
    found = []
    for path in documents():
        text = _BLOCK.sub("", path.read_text())
        for line in _INLINE.findall(text):
            name = str(path.relative_to(ROOT))
            found += [Command(name, line, words) for words in parts(" ".join(line.split()))]
    return list(dict.fromkeys(found))
