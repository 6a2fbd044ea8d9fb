"""What sets a task apart from one that was submitted, and waits or runs for the first time.

Nearly all tasks have nothing of it, ever, and a million of them may wait: they share ``NO_PAST``. So what is rare has
its place here, and costs a queued task eight bytes in all.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from poolmgr.model import AttemptInfo


class Past(NamedTuple):
    """Part of a ``Task``. It is never changed, since tasks share it: a task gets another.

    Attributes:
        origin: the dead task that it is made of, or the schedule.
        cautious: of an earlier epoch, or a schedule's: its start is kept before it is made.
        beyond: it waits until those before it have been loaded (core/shelf.py).
        due_wall: the wall time that an ``at=`` follows, while it is scheduled.
        failures: attempts that cost something.
        kills: workers that it has killed.
        unshown: workers that died with it first in line, and did not show that they had begun it.
        interruptions: attempts that the end of a daemon has interrupted.
        last_worker: where it has just failed; another is preferred.
        attempts: those that ended badly.
        overdue: its ``expires_s`` passed while it was assigned.
        cancel_tokens: who is to be answered what came of a cancel.
        cancel_wanted: it may finish what it has begun, and does not begin again.
        kill_wanted: nor may it finish.
        preempted: how often it had to give its worker up, in this epoch.
    """

    origin: bytes | str | None = None
    cautious: bool = False
    beyond: bool = False
    due_wall: float | None = None
    failures: int = 0
    kills: int = 0
    unshown: int = 0
    interruptions: int = 0
    last_worker: str | None = None
    attempts: tuple[AttemptInfo, ...] = ()
    overdue: bool = False
    cancel_tokens: tuple[int, ...] = ()
    cancel_wanted: bool = False
    kill_wanted: bool = False
    preempted: int = 0


NO_PAST: Final = Past()
