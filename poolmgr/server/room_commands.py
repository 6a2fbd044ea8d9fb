"""Commands about room in the queue, for those who would rather wait than be refused."""

from __future__ import annotations

import math
from typing import Any

from poolmgr.core.room import Asked
from poolmgr.errors import BadOption
from poolmgr.manager.clock import now
from poolmgr.server.call import LATER, LIMIT, Call


def room(call: Call) -> Any:
    """How many of ``tasks`` tasks of these options may be submitted now; answered when that is one, at least."""
    name, packed = call.text("name"), call.arguments.get("options")
    if not isinstance(packed, bytes | None):
        raise BadOption("options takes a bin or nil, as in SUBMIT")
    tasks = call.arguments.get("tasks", 1)
    if isinstance(tasks, bool) or not isinstance(tasks, int) or not 0 < tasks <= LIMIT:
        raise BadOption(f"tasks takes a whole number from 1 to {LIMIT}, got {tasks!r}")
    timeout_s = call.arguments.get("timeout_s")
    if timeout_s is not None and not _is_time(timeout_s):
        raise BadOption(f"timeout_s takes seconds, at least 0, or nil, got {timeout_s!r}")
    options = call.options.resolve(name, packed)
    intake = call.manager.scheduler.intake
    intake.room.admit(call.client, call.request)
    intake.room.ask(Asked(call.client, call.request, call.token()), name, options, tasks, timeout_s, now())
    return LATER


def leave_room(call: Call) -> None:
    """Wait no more by the ``request`` of that number, nor use what it gave."""
    request = call.arguments.get("request")
    if isinstance(request, bool) or not isinstance(request, int):
        raise BadOption(f"request takes the number of a request, got {request!r:.200}")
    call.manager.scheduler.intake.room.withdraw(call.client, request)


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0
