"""The route table: made from what the endpoints say; its epoch rises when one of them changes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from functions.scheduling.view import CloudView
from shared.contracts import Cloud, Endpoint, RouteTable
from shared.records import Unread
from shared.settings import Settings
from shared.values import Served

#: a serving container that was not scraped for less than this may merely be busy, however short the slots are
SHORTEST_SILENCE_S: Final = 60.0


def last_table(clouds: Mapping[Cloud, CloudView]) -> RouteTable | None:
    """The newest of the clouds' copies; None before the first, or where none can be read."""
    tables = [seen.routes for seen in clouds.values() if isinstance(seen.routes, RouteTable)]
    return max(tables, key=lambda table: (table.epoch, table.heartbeat_s), default=None)


def next_table(
    cfg: Settings,
    clouds: Mapping[Cloud, CloudView],
    served: Mapping[Cloud, Served],
    now_s: float,
    *,
    trace_id: str,
    decided: str | None,
) -> RouteTable | None:
    """The table to publish, or None when nothing is worth writing.

    `decided` is the decision that this cloud's scheduler recorded in this slot: with it the table is a heartbeat, which
    says what was done. `served` is what the metrics say of the endpoints, for routers that have measured nothing yet;
    without it the last known latency stays. `trace_id` is used when the endpoints changed.
    """
    last = last_table(clouds)
    before: dict[Cloud, Endpoint] = {endpoint.cloud: endpoint for endpoint in last.endpoints} if last else {}
    silent = _silent(cfg, served, now_s)
    endpoints = tuple(
        _measured(endpoint, before.get(cloud), served.get(cloud), cloud in silent)
        for cloud, seen in clouds.items()
        if (endpoint := _endpoint(seen, before.get(cloud))) is not None
    )
    changed = last is None or _faces(endpoints) != _faces(last.endpoints)
    if not endpoints or not (changed or decided):
        return None
    return RouteTable(
        service=cfg.service,
        epoch=(last.epoch + 1 if changed else last.epoch) if last else 0,
        published_s=now_s,
        scheduler=cfg.cloud if decided or last is None else last.scheduler,
        heartbeat_s=now_s if decided or last is None else last.heartbeat_s,
        endpoints=endpoints,
        trace_id=last.trace_id if last and not changed else trace_id,
        decided=decided or (last.decided if last else ""),
    )


def changed_since(table: RouteTable, last: RouteTable | None) -> bool:
    """Whether an endpoint changed, more than in its latency."""
    return last is None or table.epoch != last.epoch


def _endpoint(seen: CloudView, before: Endpoint | None) -> Endpoint | None:
    """The cloud's endpoint now; its last known face, marked unhealthy, while nothing is known of it."""
    host = seen.host
    if isinstance(host, Unread):
        return msgspec.structs.replace(before, healthy=False) if before else None
    if host.version is None:
        # one that served before is being made again or sick; one that never did is no endpoint yet
        return msgspec.structs.replace(before, healthy=False) if before else None
    return Endpoint(cloud=seen.cloud, url=host.url, model_version=host.version, healthy=host.healthy)


def _silent(cfg: Settings, served: Mapping[Cloud, Served], now_s: float) -> set[Cloud]:
    """Clouds whose containers were not scraped for long, while another one's were: then it is not Prometheus."""
    patience_s = max(SHORTEST_SILENCE_S, cfg.max_metric_age_slots * cfg.slot_seconds)
    ages_s = {cloud: now_s - told.seen_s for cloud, told in served.items() if told.seen_s is not None}
    return {cloud for cloud, age_s in ages_s.items() if age_s > patience_s >= min(ages_s.values())}


def _measured(endpoint: Endpoint, before: Endpoint | None, told: Served | None, silent: bool) -> Endpoint:
    latency_s = told.latency_s if told and told.latency_s is not None else before.latency_s if before else None
    return msgspec.structs.replace(endpoint, healthy=endpoint.healthy and not silent, latency_s=latency_s)


def _faces(endpoints: tuple[Endpoint, ...]) -> list[Endpoint]:
    """The endpoints without what changes all the time."""
    return [msgspec.structs.replace(endpoint, latency_s=None) for endpoint in endpoints]
