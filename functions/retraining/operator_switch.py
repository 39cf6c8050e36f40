"""What a person or the mode holds back: new retrains, queued starts, finished models. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from shared.contracts import Cloud
from shared.records import Control, Unread, Unreadable
from shared.settings import Settings


def paused_by(controls: Mapping[Cloud, Control | Unreadable | Unread | None]) -> str | None:
    """Why retraining is paused, or None.

    A person's pause in any cloud counts in all: it may have reached only one. A switch that nobody can read may be on.
    """
    for control in controls.values():
        if isinstance(control, Control) and control.paused:
            return control.reason or "by a person"
    unknown = [str(c) for c in controls.values() if isinstance(c, Unreadable | Unread)]
    return f"the operator switch cannot be read: {unknown[0]}" if unknown and len(unknown) == len(controls) else None


def held_by(cfg: Settings, paused: str | None) -> str | None:
    """Why nothing may start or be released now, or None."""
    if paused is not None:
        return f"retraining is paused: {paused}"
    return "watch mode: nothing is started or released" if cfg.mode == "watch" else None
