"""Commands about schedules."""

from __future__ import annotations

from typing import Any

from poolmgr.errors import BadOption, PayloadTooLarge, WrongState
from poolmgr.manager.clock import now
from poolmgr.manager.handlers import resolve, unknown_task, unpack_overrides
from poolmgr.model import RESERVED
from poolmgr.schedule import DECLARED, check_id, timing_of
from poolmgr.server.call import Call

UPCOMING_AT_MOST = 100
PAYLOAD_LIMIT = 1 << 20  # bytes: schedules are kept in memory, and each tick's task has it again


def schedules(call: Call) -> list[dict[str, Any]]:
    """All, by id, each with its next ``upcoming`` ticks (1)."""
    upcoming = call.arguments.get("upcoming", 1)
    if isinstance(upcoming, bool) or not isinstance(upcoming, int) or not 0 <= upcoming <= UPCOMING_AT_MOST:
        raise BadOption(f"upcoming takes a whole number from 0 to {UPCOMING_AT_MOST}, got {upcoming!r}")
    scheduler = call.manager.scheduler
    found = sorted(scheduler.state.schedules.items())
    return [scheduler.periodic.info(schedule, upcoming)._asdict() for _, schedule in found]


def schedule(call: Call) -> Any:
    """Make a schedule, or change the one of that id; what is known of it."""
    id, name, payload, options = check_id(call.arguments.get("id")), call.text("name"), *_work(call)
    handlers = call.manager.shell.handlers
    if name.startswith(RESERVED):
        raise unknown_task(name, handlers)
    resolve(handlers, name, options)
    timing = timing_of({field: call.arguments.get(field) for field in ("cron", "every_s", "timezone", "missed")})
    scheduler, at = call.manager.scheduler, now()
    call.manager.timetable.check(timing, at + scheduler.state.wall_offset)
    scheduler.periodic.set(id, name, payload, options, timing, at)
    return _when_kept(call, id)


def _work(call: Call) -> tuple[bytes, bytes | None]:
    """The payload and the options of the tasks."""
    payload, options = call.arguments.get("payload"), call.arguments.get("options")
    if not isinstance(payload, bytes) or not isinstance(options, bytes | None):
        raise BadOption("payload takes a bin, and options a bin or nil, as in SUBMIT")
    if len(payload) > PAYLOAD_LIMIT:
        raise PayloadTooLarge(f"a schedule's arguments take {PAYLOAD_LIMIT:,} bytes at most: pass a path")
    given = unpack_overrides(options) if options is not None else {}
    if given.get("at") is not None:
        raise BadOption("a schedule's tasks take no at: each is submitted at its tick (delay_s adds to that)")
    if given.get("durable") is False:
        raise BadOption("a schedule's tasks are durable, as it is: durable=False cannot be (nor a private pool's)")
    return payload, options


def unschedule(call: Call) -> Any:
    """Forget a schedule. Its tasks stay."""
    id = call.text("id")
    periodic = call.manager.scheduler.periodic
    periodic.find(id)
    if id.startswith(DECLARED):
        raise WrongState(f"schedule {id} belongs to the app's code: take it out there and reload, or pause it")
    periodic.remove(id)
    return call.when_kept(None)


def pause_schedule(call: Call) -> Any:
    """It makes no tasks until it is resumed, also by a later daemon."""
    call.manager.scheduler.periodic.pause(call.text("id"), now())
    return _when_kept(call, call.text("id"))


def resume_schedule(call: Call) -> Any:
    """It goes on with its next tick."""
    call.manager.scheduler.periodic.resume(call.text("id"), now())
    return _when_kept(call, call.text("id"))


def _when_kept(call: Call, id: str) -> Any:
    periodic = call.manager.scheduler.periodic
    return call.when_kept(periodic.info(periodic.find(id), 1)._asdict())
