"""What an hour of a machine costs, by cloud, type and region: shared/prices.json, made by infra.prices.

Public list prices of a day, named in the file: taxes and discounts are not in them, and they change.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

import msgspec

from shared.contracts import Cloud

TABLE: Final = Path(__file__).with_name("prices.json")


class _Part(msgspec.Struct, frozen=True):
    """One cloud's prices: a row per machine, a column per region, short of what is not known at its end."""

    of: str
    regions: list[str]
    usd_per_hour: dict[str, list[float | None]]
    spot_saves_percent: dict[str, list[float | None]] = {}

    def at(self, rows: dict[str, list[float | None]], kind: str, region: str) -> float | None:
        """The number of a machine in a region."""
        row = rows.get(kind, [])
        column = self.regions.index(region) if region in self.regions else len(row)
        return row[column] if column < len(row) else None


@functools.cache
def _parts() -> dict[str, _Part]:
    return msgspec.json.decode(TABLE.read_bytes(), type=dict[str, _Part])


def source(cloud: Cloud) -> str:
    """Of what and of which day the cloud's prices are."""
    return _parts()[cloud].of


def list_price(cloud: Cloud, kind: str, region: str) -> float | None:
    """Dollars for an hour of a machine that nobody may take away; None where it is not known."""
    part = _parts()[cloud]
    return part.at(part.usd_per_hour, kind, region.lower().replace(" ", ""))


def spot_share(kind: str, region: str) -> float:
    """What of its list price a SageMaker machine costs on spot, on average; 1 where that is not known."""
    part = _parts()["aws"]
    return 1.0 - (part.at(part.spot_saves_percent, kind, region) or 0.0) / 100.0
