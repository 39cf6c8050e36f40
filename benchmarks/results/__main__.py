"""Write docs/results.md, its pictures and the README's numbers from what was recorded.

    python -m benchmarks.results                      # `make results`
    python -m benchmarks.results --check              # fails where a committed file differs
    python -m benchmarks.results commands             # what prints each subject's JSON
    python -m benchmarks.results record decisions     # run that command and keep its JSON
    python -m benchmarks.results record demo -- ./opportune demo --minutes 10 --compare static --json

A measurement is renewed by `record`, on an idle machine; `functions` needs `make package` before.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import Final

from benchmarks.results.page import page, pictures, readme_block
from benchmarks.results.subjects import COMMANDS, ROOT, load, record, recorded
from shared.errors import OpportuneError

MOST_WORDS: Final = 1200
_BLOCK: Final = re.compile(r"(<!-- results: begin[^>]*-->\n).*?(\n<!-- results: end -->)", re.DOTALL)


def files(root: Path = ROOT) -> dict[Path, str]:
    """Every file that is written, and its text."""
    measured = {name: load(name) for name in recorded()}
    readme = root / "README.md"
    block = readme_block(measured)
    made = {root / "docs" / "results.md": page(measured)}
    made |= {root / "docs" / "img" / name: svg for name, svg in pictures(measured).items()}
    made[readme] = _BLOCK.sub(lambda found: found[1] + block + found[2], readme.read_text())
    return made


def stale(made: dict[Path, str]) -> list[str]:
    """What is wrong with the committed files, one line each."""
    found = [
        f"{path.relative_to(ROOT)} is not what the JSON says; run `make results`"
        for path, text in made.items()
        if not path.exists() or path.read_text() != text
    ]
    count = len(made[ROOT / "docs" / "results.md"].split())
    if count > MOST_WORDS:
        found.append(f"docs/results.md has {count} words, at most {MOST_WORDS} are allowed")
    return found


def main() -> None:
    """Write, check or record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file would change")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("commands", help="list the command of every subject")
    recorder = actions.add_parser("record", help="run a subject's command and keep its JSON")
    recorder.add_argument("name", choices=COMMANDS)
    recorder.add_argument("command", nargs=argparse.REMAINDER, help="another command than the usual, after --")
    options = parser.parse_args()
    if options.action == "commands":
        print("\n".join(f"{name:<10} {command}" for name, command in COMMANDS.items()))
        return
    if options.action == "record":
        given = options.command[1:] if options.command[:1] == ["--"] else options.command
        path = record(options.name, shlex.join(given) if given else COMMANDS[options.name])
        print(path.relative_to(ROOT))
        return
    made = files()
    if options.check:
        if problems := stale(made):
            sys.exit("\n".join(problems))
        return
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if problems := stale(made):
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    try:
        main()
    except OpportuneError as error:
        sys.exit(f"results: {error}")
