"""`opportune costs`: what a month costs with these settings, from the shipped table of list prices."""

from __future__ import annotations

import os
from typing import Any, Final

import click

from cli.clouds import service_option
from cli.output import console, emit, json_option, say
from shared.contracts import CLOUDS, Cloud
from shared.errors import ConfigurationError
from shared.prices import list_price, source
from shared.settings import Settings

HOURS: Final = 730.0
#: functions, queue, table, logs and alarms of one service; docs/deploy-aws.md and docs/deploy-azure.md have the lines
CONTROL_USD: Final[dict[Cloud, float]] = {"aws": 2.29, "azure": 2.82}


@click.command()
@service_option
@click.option("--retrains", type=click.FloatRange(0), default=30.0, show_default=True, help="A month.")
@click.option("--instances", type=click.IntRange(0), default=1, show_default=True, help="That serve, on each cloud.")
@json_option
def costs(service: str | None, retrains: float, instances: int, as_json: bool) -> None:
    """What a month costs: endpoints, functions, retrains; list prices, without tax, traffic and storage.

    Retrains are shared equally between the clouds; each takes what OPPORTUNE_TRAIN_HOURS_AWS and _AZURE say.

    \b
    Example: opportune costs --retrains 60
    """
    env = dict(os.environ) | ({"OPPORTUNE_SERVICE": service} if service else {})
    settings = Settings.from_env(env)
    found = {cloud: _month(cloud, settings, retrains / len(CLOUDS), instances) for cloud in CLOUDS}
    if as_json:
        emit({"service": settings.service, "retrains": retrains, "instances": instances, "clouds": found})
        return
    from rich.table import Table

    table = Table("a month", *found, title=f"{retrains:g} retrains, {instances} serving on each cloud")
    for part in ("serving", "retraining", "control_plane", "total"):
        words = [found[cloud][part] for cloud in found]
        table.add_row(part.replace("_", " "), *("not known" if usd is None else f"${usd:,.2f}" for usd in words))
    console().print(table)
    for cloud, month in found.items():
        say(f"{cloud}: {month['says']}", as_json)


def _month(cloud: Cloud, settings: Settings, retrains: float, instances: int) -> dict[str, Any]:
    """Dollars per part; None where a price is not known."""
    aws = cloud == "aws"
    kind = settings.sagemaker_serve_instance_type if aws else settings.azureml_serve_instance_type
    region = settings.aws_region if aws else settings.azureml_region
    hour = list_price(cloud, kind, region)
    words = [f"serving {kind} in {region} ${hour:.3f} an hour" if hour else f"no price is known of {kind} in {region}"]
    serving = None if hour is None else hour * HOURS * instances
    try:
        price = settings.price_usd_per_hour(cloud)
        retraining: float | None = price * settings.train_hours(cloud) * retrains
        machine = settings.train_instance(cloud)[0]
        words.append(f"training {machine} ${price:.3f} an hour, {settings.train_hours(cloud):g} h each")
    except ConfigurationError as exc:
        retraining = None
        words.append(str(exc))
    parts = (serving, retraining, CONTROL_USD[cloud])
    return {
        "serving": serving,
        "retraining": retraining,
        "control_plane": CONTROL_USD[cloud],
        "total": None if None in parts else sum(part for part in parts if part is not None),
        "says": f"{'; '.join(words)} ({source(cloud)})",
    }
