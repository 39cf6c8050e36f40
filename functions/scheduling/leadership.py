"""Which cloud's scheduler acts in a slot."""

from __future__ import annotations

import logging

from functions.clouds import Deps
from shared.contracts import RouteTable
from shared.errors import OpportuneError
from shared.settings import Settings

log = logging.getLogger("opportune.functions.leadership")


def leads(cfg: Settings, table: RouteTable | None, now_s: float) -> bool:
    """Whether this cloud's scheduler acts: the active one always, the standby when the heartbeat is old.

    The standby goes on acting while its own heartbeat is the last one, and steps back at the active one's next.
    """
    if cfg.cloud == cfg.scheduler:
        return True
    if table is None:
        return False
    silence_s = now_s - table.heartbeat_s
    return table.scheduler == cfg.cloud or silence_s > cfg.standby_after_slots * cfg.slot_seconds


def stands_by(deps: Deps, now_s: float) -> bool:
    """Whether this cloud leaves the slot to the other one.

    The active scheduler may be well and only unable to write here. So an old heartbeat in the own copy of the route
    table is looked up in the other copies before anybody takes over; and a copy that cannot be read proves nothing.
    """
    cfg = deps.settings
    if cfg.cloud == cfg.scheduler:
        return False
    newest: RouteTable | None = None
    for cloud in sorted(deps.clouds, key=lambda name: name != cfg.cloud):
        try:
            table = deps.state(cloud).routes(cfg.service)
        except OpportuneError as exc:
            log.warning("cannot see who leads", extra={"action": "tick", "cloud": cloud, "reason": str(exc)})
            continue
        if table is not None and (newest is None or table.heartbeat_s > newest.heartbeat_s):
            newest = table
        if newest is not None and not leads(cfg, newest, now_s):
            return True
    return not leads(cfg, newest, now_s)
