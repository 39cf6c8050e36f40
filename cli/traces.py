"""Whether files are drift traces, said in words before anything runs."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from shared.errors import InvalidInputError

#: how the first line of a `state.csv` of `opportune collect` begins
COLLECTED = b"time_s,"
ACCEPTED = "what is read here is an .npz that `opportune trace build` wrote"


def check(files: Iterable[str]) -> None:
    """Refuse what is no .npz file.

    Raises:
        InvalidInputError: says which file, what it is, and what to do.
    """
    for file in files:
        path = Path(file)
        try:
            with path.open("rb") as opened:
                begins = opened.read(64)
        except OSError as exc:
            raise InvalidInputError(f"{file}: not a readable .npz trace: {exc.strerror}") from exc
        if zipfile.is_zipfile(path):
            continue
        if begins.startswith((COLLECTED, b"PAR1")) or path.suffix in (".csv", ".parquet"):
            raise InvalidInputError(
                f"{file}: a table of metrics, not a drift trace; {ACCEPTED}. For your own history: "
                "opportune backtest --prometheus URL --since 7d"
            )
        if begins.startswith(b"\x93NUMPY"):
            raise InvalidInputError(f"{file}: holds one array, not a drift trace of named arrays; {ACCEPTED}")
        raise InvalidInputError(f"{file}: not a drift trace; {ACCEPTED}")
