"""Azure Functions: timer -> one tick. The schedule is an app setting."""

from __future__ import annotations

import time

import azure.functions as func

from functions.bootstrap import deps, settle
from functions.scheduling.tick import tick

blueprint = func.Blueprint()


@blueprint.function_name("schedule")
@blueprint.timer_trigger(arg_name="timer", schedule="%OPPORTUNE_SCHEDULE%", run_on_startup=False, use_monitor=True)
def schedule(timer: func.TimerRequest) -> None:
    """One slot."""
    tick(deps("azure"), time.time())
    settle()
