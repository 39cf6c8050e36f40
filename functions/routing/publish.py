"""The route table: made from what the hosts say, published to every cloud, its epoch raised when endpoints change."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import msgspec

from functions.clouds import Deps
from shared.contracts import Cloud, Endpoint, RouteTable, new_trace_id
from shared.errors import ModelError, UnavailableError
from shared.ports import CloudServices, Served

log = logging.getLogger("opportune.functions.routes")

#: a serving container that was not scraped for less than this may merely be busy, however short the slots are
SHORTEST_SILENCE_S: Final = 60.0


def publish_routes(
    deps: Deps,
    now_s: float,
    *,
    trace_id: str | None = None,
    heartbeat: bool = False,
    served: Mapping[Cloud, Served] | None = None,
) -> RouteTable | None:
    """Publish the endpoints as they are; with `heartbeat`, this cloud says that its scheduler is alive.

    `served` is what the metrics say of them, for routers that have measured nothing yet; without it the last known
    latency stays. It goes out with the next heartbeat and is no change of its own.

    Returns the table, or None when nothing was worth writing.
    """
    cfg = deps.settings
    tables: list[RouteTable] = []
    for attempt in deps.reachable("read routes"):
        with attempt as cloud:
            found = deps.state(cloud.cloud).routes(cfg.service)
            if found is not None:
                tables.append(found)
    last = max(tables, key=lambda table: (table.epoch, table.heartbeat_s), default=None)
    before = {endpoint.cloud: endpoint for endpoint in last.endpoints} if last else {}
    silent = _silent(deps, served or {}, now_s)
    endpoints = tuple(
        _measured(endpoint, before.get(services.cloud), (served or {}).get(services.cloud), services.cloud in silent)
        for services in deps.clouds.values()
        if (endpoint := _endpoint(services, before.get(services.cloud))) is not None
    )
    changed = last is None or _faces(endpoints) != _faces(last.endpoints)
    if not endpoints or not (changed or heartbeat):
        return None
    table = RouteTable(
        service=cfg.service,
        epoch=(last.epoch + 1 if changed else last.epoch) if last else 0,
        published_s=now_s,
        scheduler=cfg.cloud if heartbeat or last is None else last.scheduler,
        heartbeat_s=now_s if heartbeat or last is None else last.heartbeat_s,
        endpoints=endpoints,
        trace_id=trace_id or (last.trace_id if last and not changed else new_trace_id()),
    )
    for attempt in deps.reachable("publish routes"):
        with attempt as cloud:
            deps.state(cloud.cloud).publish(table)
    if changed:
        log.info(
            "routes changed",
            extra={
                "action": "route",
                "trace_id": table.trace_id,
                "epoch": table.epoch,
                "endpoints": [msgspec.to_builtins(endpoint) for endpoint in endpoints],
            },
        )
    return table


def _endpoint(services: CloudServices, before: Endpoint | None) -> Endpoint | None:
    """The cloud's endpoint now; its last known face, marked unhealthy, while the cloud does not answer."""
    try:
        version = services.host.serving_version()
        if version is None:
            return None
        return Endpoint(cloud=services.cloud, url=services.host.endpoint_url(), model_version=version)
    except (UnavailableError, ModelError) as exc:
        log.warning("endpoint does not answer", extra={"action": "route", "cloud": services.cloud, "reason": str(exc)})
        return msgspec.structs.replace(before, healthy=False) if before else None


def _silent(deps: Deps, served: Mapping[Cloud, Served], now_s: float) -> set[Cloud]:
    """Clouds whose containers were not scraped for long, while another one's were: then it is not Prometheus."""
    cfg = deps.settings
    patience_s = max(SHORTEST_SILENCE_S, cfg.max_metric_age_slots * cfg.slot_seconds)
    ages_s = {cloud: now_s - told.seen_s for cloud, told in served.items() if told.seen_s is not None}
    return {cloud for cloud, age_s in ages_s.items() if age_s > patience_s >= min(ages_s.values())}


def _measured(endpoint: Endpoint, before: Endpoint | None, told: Served | None, silent: bool) -> Endpoint:
    latency_s = told.latency_s if told and told.latency_s is not None else before.latency_s if before else None
    return msgspec.structs.replace(endpoint, healthy=endpoint.healthy and not silent, latency_s=latency_s)


def _faces(endpoints: tuple[Endpoint, ...]) -> list[Endpoint]:
    """The endpoints without what changes all the time."""
    return [msgspec.structs.replace(endpoint, latency_s=None) for endpoint in endpoints]
