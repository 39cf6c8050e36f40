"""`opportune collect`: the historic state vectors of a Prometheus as CSV and Parquet."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from cli.output import emit, json_option, say
from shared.errors import InvalidInputError, NoSamplesError


@click.command()
@click.option("--prometheus", "url", metavar="URL", required=True, help="The Prometheus to ask.")
@click.option(
    "--since", default="7d", show_default=True, help="24h, 7d (ago), or an ISO date or date-time (UTC by default)."
)
@click.option("--until", help="The same [now].")
@click.option("--step", "step_s", type=click.FloatRange(min=0.001), help="Seconds per vector [OPPORTUNE_SLOT_SECONDS].")
@click.option("--service", help="Which service [OPPORTUNE_SERVICE].")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/state"),
    show_default=True,
    help="Folder for state.csv and state.parquet.",
)
@json_option
def collect(
    url: str, since: str, until: str | None, step_s: float | None, service: str | None, out: Path, as_json: bool
) -> None:
    """Write what a policy would have seen, one row per decision slot: the six numbers, quality and counters.

    Short gaps are interpolated; what stays missing is empty, never zero.

    \b
    Example: opportune collect --prometheus http://localhost:9090 --since 2026-05-01 --out history
    """
    import numpy as np

    from cli.times import parse_time
    from policy.observation.live import MAX_GAP_SLOTS, METRICS, interpolate, query
    from shared.adapters.prometheus import metrics_of
    from shared.settings import Settings

    settings = Settings.from_env(os.environ)
    name, step = service or settings.service, step_s or settings.slot_seconds
    now_s = time.time()
    start_s = parse_time(since, "--since", now_s)
    end_s = parse_time(until, "--until", now_s) if until else now_s
    if end_s - start_s < step:
        raise InvalidInputError(f"--since {since} is not a step of {step:g} s before --until {until or 'now'}")
    source = metrics_of(msgspec.structs.replace(settings.asking(url), service=name))
    window = source.window(start_s, end_s, step)
    grid = end_s - step * np.arange(int((end_s - start_s) / step), -1, -1, dtype=np.float64)
    columns: dict[str, Any] = {"time_s": grid}
    for metric in METRICS:
        columns[metric] = interpolate(window.series[metric], grid, MAX_GAP_SLOTS * step)
    seen = np.isfinite(np.stack([columns[metric] for metric in METRICS])).any(axis=0)
    if not seen.any():
        raise NoSamplesError(query("bleu", name, step), source.explained(window).missing.get("bleu", ""))
    kept = slice(int(np.argmax(seen)), None)
    table = {metric: values[kept] for metric, values in columns.items()}
    paths = _write(table, out)
    missing = {metric: int(np.isnan(values).sum()) for metric, values in table.items() if np.isnan(values).any()}
    count = len(table["time_s"])
    say(f"{count} state vectors in {paths[0]} and {paths[1]}", as_json)
    for metric, gaps in missing.items():
        click.echo(f"{metric}: {gaps} of {count} missing", err=True)
    if as_json:
        emit({"vectors": count, "csv": str(paths[0]), "parquet": str(paths[1]), "missing": missing})


def _write(table: dict[str, Any], out: Path) -> tuple[Path, Path]:
    """Both files; a missing value is an empty cell or a null."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    csv_path, parquet_path = out / "state.csv", out / "state.parquet"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with csv_path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            for row in zip(*table.values(), strict=True):
                writer.writerow(["" if np.isnan(value) else repr(float(value)) for value in row])
        arrays = {name: pa.array(values, mask=np.isnan(values)) for name, values in table.items()}
        parquet.write_table(pa.table(arrays), parquet_path)
    except OSError as exc:
        raise InvalidInputError(f"--out {out}: {exc.strerror or exc}") from exc
    return csv_path, parquet_path
