"""Write shared/prices.json, the price table that ships with the functions, from public price lists.

    python -m infra.prices --aws-gpu gpu.csv --aws us-east-1.csv --aws-spot advisor.json.xz --azure azure.csv.xz

The lists, the repository that each was taken from, its licence, and the day of the prices:
    --aws-gpu   instance_type, region, on_demand_usd_per_h    tsaol/aws-gpu                   MIT         2026-01-21
    --aws       the same, of us-east-1                        aws/karpenter-provider-aws      Apache-2.0  2026-07-20
    --aws-spot  AWS's spot advisor, Linux: savings in percent alexei-led/spotinfo             Apache-2.0  2025-06-28
    --azure     vm_size, region, on_demand_usd_per_h          Azure/karpenter-provider-azure  Apache-2.0  2026-06-18

AWS's lists are of EC2. SageMaker charges more for the same machine: 1.4 times for the smallest of the G families
(0.526 -> ml.g4dn.xlarge 0.7364, 1.006 -> ml.g5.xlarge 1.408), 1.25 for their others and P3 (3.06 -> ml.p3.2xlarge
3.825), 1.15 for P4 and P5, 1.2 for those without a GPU (0.17 -> ml.c5.xlarge 0.204). Azure ML charges what the virtual
machine costs. Taxes, discounts and disks are not in it.
"""

from __future__ import annotations

import argparse
import csv
import json
import lzma
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

TABLE: Final = Path(__file__).parents[1] / "shared" / "prices.json"
#: machines that one would train or serve a small language model on
AWS: Final = re.compile(
    r"(g4dn|g5|g6|g6e|p3|p4d|p4de|p5|p5en)\.\d*xlarge|(c5|c6g|c6i|c7g|c7i|m5|m6g|m6i|m7i|t3)\.(medium|large|[248]?xlarge)"
)
AZURE: Final = re.compile(
    r"Standard_(NC\d+as_T4_v3|NC\d+ads_A100_v4|NC\d+adi?s_H100_v5|NC\d+s_v3|NV\d+ads_A10_v5|F(2|4|8|16)s_v2"
    r"|D(2|4|8|16)(s_v3|s_v4|as_v4|ds_v4|s_v5|ds_v5)|DS[1-4]_v2|E(2|4|8|16)s_v[35])"
)
#: regions proper, without the zones in single towns
_AWS_REGION: Final = re.compile(r"[a-z]{2}(-gov)?-[a-z]+-\d")
_MARKUPS: Final = (
    (re.compile(r"g\w+\.xlarge"), 1.4),
    (re.compile(r"(g|p3)\w*\."), 1.25),
    (re.compile(r"p"), 1.15),
    (re.compile(r""), 1.2),
)
#: a price so many times the machine's median of all regions is a mistake of the list, such as another system's licence
_FAR: Final = 2.2


def main() -> None:
    """Read the lists, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("aws-gpu", "aws", "aws-spot", "azure"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE")
    given = parser.parse_args()
    ec2 = {
        **_prices(given.aws_gpu, "instance_type", _of_aws),
        **_prices(given.aws, "instance_type", _of_aws),  # the newer one
    }
    sagemaker = {(f"ml.{kind}", region): round(price * _markup(kind), 4) for (kind, region), price in ec2.items()}
    advisor = json.loads(_text(given.aws_spot))["spot_advisor"]
    saved = {
        (f"ml.{kind}", region): float(row["s"])
        for region, systems in advisor.items()
        for kind, row in systems.get("Linux", {}).items()
        if (f"ml.{kind}", region) in sagemaker
    }
    azure = _prices(given.azure, "vm_size", lambda kind, _: AZURE.fullmatch(kind) is not None)
    table = {
        "aws": {
            "of": "SageMaker, from EC2 on demand: us-east-1 2026-07-20, other regions 2026-01-21, spot 2025-06-28",
            **_columns(sagemaker),
            "spot_saves_percent": _columns(saved, _regions(sagemaker))["usd_per_hour"],
        },
        "azure": {"of": "virtual machines, Linux, pay as you go, 2026-06-18", **_columns(azure)},
    }
    rows = [f'"{cloud}": {{\n{_rows(part)}\n}}' for cloud, part in table.items()]
    TABLE.write_text("{" + ",\n".join(rows) + "}\n", encoding="utf-8")


def _of_aws(kind: str, region: str) -> bool:
    return AWS.fullmatch(kind) is not None and _AWS_REGION.fullmatch(region) is not None


def _markup(kind: str) -> float:
    return next(factor for pattern, factor in _MARKUPS if pattern.match(kind))


def _prices(file: Path, column: str, wanted: Callable[[str, str], bool]) -> dict[tuple[str, str], float]:
    """(machine, region) -> dollars an hour."""
    found = {
        (row[column], row["region"]): float(row["on_demand_usd_per_h"])
        for row in _csv(file)
        if wanted(row[column], row["region"]) and float(row["on_demand_usd_per_h"] or 0) > 0
    }
    kinds: dict[str, list[float]] = {}
    for (kind, _), price in found.items():
        kinds.setdefault(kind, []).append(price)
    usual = {kind: statistics.median(prices) for kind, prices in kinds.items()}
    return {key: price for key, price in found.items() if 1 / _FAR < price / usual[key[0]] < _FAR}


def _columns(prices: dict[tuple[str, str], float], regions: list[str] | None = None) -> dict[str, Any]:
    """One row per machine, one number per region; none at the end where there is no price."""
    regions = regions or _regions(prices)
    rows: dict[str, list[float | None]] = {}
    for kind in sorted({kind for kind, _ in prices}):
        row = [prices.get((kind, region)) for region in regions]
        rows[kind] = row[: max(k + 1 for k, price in enumerate(row) if price is not None)]
    return {"regions": regions, "usd_per_hour": rows}


def _regions(prices: dict[tuple[str, str], float]) -> list[str]:
    """Those with the most prices first: that makes the shortest rows."""
    count = Counter(region for _, region in prices)
    return sorted(count, key=lambda region: (-count[region], region))


def _rows(part: dict[str, Any]) -> str:
    """One machine a line, so that a change of the table can be read."""
    lines = []
    for name, value in part.items():
        if isinstance(value, dict):
            inner = ",\n".join(f'"{kind}": [{",".join(map(_number, row))}]' for kind, row in value.items())
            lines.append(f'"{name}": {{\n{inner}\n}}')
        else:
            lines.append(f'"{name}": {json.dumps(value)}')
    return ",\n".join(lines)


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:.6g}"


def _csv(file: Path) -> Iterator[dict[str, str]]:
    return iter(csv.DictReader(_text(file).splitlines()))


def _text(file: Path) -> str:
    raw = file.read_bytes()
    return (lzma.decompress(raw) if file.suffix == ".xz" else raw).decode()


if __name__ == "__main__":
    main()
