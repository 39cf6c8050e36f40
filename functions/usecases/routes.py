"""The route table: made from what the hosts say, published to every cloud, its epoch raised when endpoints change."""

from __future__ import annotations

import logging

import msgspec

from functions.usecases.deps import Deps
from shared.contracts import Endpoint, RouteTable, new_trace_id
from shared.errors import ModelError, UnavailableError
from shared.ports import CloudServices

log = logging.getLogger("opportune.functions.routes")


def publish_routes(
    deps: Deps, now_s: float, *, trace_id: str | None = None, heartbeat: bool = False
) -> RouteTable | None:
    """Publish the endpoints as they are; with `heartbeat`, this cloud says that its scheduler is alive.

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
    endpoints = tuple(
        endpoint
        for services in deps.clouds.values()
        if (endpoint := _endpoint(services, before.get(services.cloud))) is not None
    )
    changed = last is None or endpoints != last.endpoints
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
