"""Every request of the clients: how it is asked, what goes over the wire, what the daemon answers, what is returned."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from poolmgr.breaker import BreakerInfo, BreakerState
from poolmgr.client.outgoing import Outgoing
from poolmgr.model import TaskInfo, TaskState, WorkerInfo, WorkerState, as_map
from poolmgr.schedule import ScheduleInfo, Timing
from poolmgr.wire.values import pack_call


def plain(outgoing: Outgoing) -> bytes:
    """What is sent, where no file goes with it."""
    assert isinstance(outgoing, bytes)
    return outgoing


SCHEDULE: Final = ScheduleInfo("nightly", "report", cron="0 3 * * *", timezone="Europe/Berlin", upcoming=(5.0,))
BREAKER: Final = BreakerInfo("thumbnail", BreakerState.OPEN, 3, 5.0, 35.0, error="ValueError: no")
ID: Final = "0123456789abcdef" * 2
KEY: Final = bytes.fromhex(ID)
TASK: Final = TaskInfo(ID, "thumbnail", TaskState.DEAD, failures=4)
WORKER: Final = WorkerInfo("worker-0", 7, WorkerState.READY, True, capabilities=("gpu",))


class Asked(NamedTuple):
    """One call of a client's method."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    command: str
    arguments: dict[str, Any]
    answer: Any
    returned: Any


def _plain(method: str, *args: Any, arguments: dict[str, Any], answer: Any, returned: Any) -> Asked:
    return Asked(method, args, {}, method, arguments, answer, returned)


_NEITHER: Final[dict[str, Any]] = {"a": 1}

QUESTIONS: Final = [
    *(
        _plain(method, arguments={}, answer=_NEITHER, returned=_NEITHER)
        for method in ("status", "health", "metrics", "config", "collect_garbage", "reload")
    ),
    _plain("task", ID, arguments={"id": KEY}, answer=as_map(TASK), returned=TASK),
    _plain("tasks", arguments={"limit": 100}, answer=[as_map(TASK)], returned=[TASK]),
    Asked(
        "tasks",
        (),
        {"state": TaskState.QUEUED, "name": "t", "limit": 5, "before": ID},
        "tasks",
        {"state": "queued", "name": "t", "limit": 5, "before": KEY},
        [],
        [],
    ),
    _plain("dead_letters", arguments={"limit": 100}, answer=[as_map(TASK)], returned=[TASK]),
    Asked("dead_letters", (5,), {"name": "a"}, "dead_letters", {"limit": 5, "name": "a"}, [], []),
    Asked("requeue", (), {"cause": "timeout"}, "requeue", {"ids": None, "cause": "timeout"}, {}, {}),
    Asked("purge", (), {"older_than_s": 0}, "purge", {"ids": None, "older_than_s": 0}, 3, 3),
    _plain("cancel", ID, True, arguments={"id": KEY, "kill": True}, answer=True, returned=True),
    _plain("requeue", ID, arguments={"ids": [KEY]}, answer={ID: "ff" * 16}, returned={ID: "ff" * 16}),
    _plain("requeue", arguments={"ids": None}, answer={}, returned={}),
    _plain("purge", arguments={"ids": None}, answer=3, returned=3),
    _plain("clear", arguments={}, answer=2, returned=2),
    _plain("pause", "thumbnail", arguments={"name": "thumbnail"}, answer=None, returned=None),
    _plain("resume", "thumbnail", arguments={"name": "thumbnail"}, answer=None, returned=None),
    _plain("breakers", arguments={}, answer=[{**BREAKER._asdict(), "state": "open", "newer": 1}], returned=[BREAKER]),
    _plain("reset_breaker", "thumbnail", arguments={"name": "thumbnail"}, answer=None, returned=None),
    _plain("schedules", 5, arguments={"upcoming": 5}, answer=[SCHEDULE._asdict()], returned=[SCHEDULE]),
    _plain("unschedule", "nightly", arguments={"id": "nightly"}, answer=None, returned=None),
    _plain("pause_schedule", "nightly", arguments={"id": "nightly"}, answer=SCHEDULE._asdict(), returned=SCHEDULE),
    _plain("resume_schedule", "nightly", arguments={"id": "nightly"}, answer=SCHEDULE._asdict(), returned=SCHEDULE),
    Asked(
        "schedule",
        ("nightly", Timing(cron="0  3 * * *", timezone="Europe/Berlin"), "report", "daily"),
        {"id": 3},
        "schedule",
        {
            "id": "nightly",
            "name": "report",
            "payload": pack_call(("daily",), {"id": 3}),
            "options": None,
            "cron": "0 3 * * *",
            "every_s": None,
            "timezone": "Europe/Berlin",
            "missed": "once",
        },
        {**SCHEDULE._asdict(), "upcoming": [5.0], "of_a_newer_daemon": 1},
        SCHEDULE,
    ),
    _plain("workers", arguments={}, answer=[as_map(WORKER)], returned=[WORKER]),
    _plain("worker", "worker-0", arguments={"worker": "worker-0"}, answer=as_map(WORKER), returned=WORKER),
    _plain("start_worker", arguments={}, answer="worker-20", returned="worker-20"),
    _plain("start_worker", "gpu", arguments={"group": "gpu"}, answer="worker-20", returned="worker-20"),
    _plain("stop_worker", "worker-3", arguments={"worker": "worker-3"}, answer=None, returned=None),
    _plain("scale", 30, arguments={"size": 30}, answer={"size": 30}, returned=30),
    _plain("scale", "+3", arguments={"by": 3}, answer={"size": 23}, returned=23),
    _plain("scale", "-3", arguments={"by": -3}, answer={"size": 17}, returned=17),
    _plain("scale", 2, "gpu", arguments={"size": 2, "group": "gpu"}, answer={"size": 2}, returned=2),
    _plain("stop", True, arguments={"now": True}, answer=None, returned=None),
]
