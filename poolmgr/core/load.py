"""How much there is to do for the workers that belong to no group, and how much of it waits: read once a second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from poolmgr.breaker import BreakerState
from poolmgr.config.groups import REST
from poolmgr.core.limits import NameLimits
from poolmgr.core.row import Lane
from poolmgr.core.slot import Slot
from poolmgr.core.state import State
from poolmgr.model import WorkerState

_OF_USE = frozenset({WorkerState.READY, WorkerState.BUSY})


class Load(NamedTuple):
    """Of the workers that are to stay, and of the tasks that they could run.

    Attributes:
        size: the workers.
        others: those of groups.
        busy: how many of the workers run something.
        idle: how many could take something at once.
        coming: how many are new and not ready yet.
        waiting: tasks that would run if there were workers: not those that are held back by their name.
        longest_s: how long the one that waits longest has waited.
        expected_s: how long it takes the workers to begin all that waits, if it runs as long as tasks did of late.
    """

    size: int
    others: int
    busy: int
    idle: int
    coming: int
    waiting: int
    longest_s: float
    expected_s: float


def load_of(state: State, now: float) -> Load:
    """The load at this moment. Looks at every row of the queue."""
    staying = [slot for slot in state.slots.values() if not slot.leaving]
    rest = [slot for slot in staying if slot.group.name == REST]
    idle = sum(slot.open and not slot.in_flight for slot in rest)
    waiting, longest_s = _waiting(state, rest, now)
    run_s = state.statistics.run_s
    mean_s = sum(run_s) / len(run_s) if run_s else 0.0
    return Load(
        size=len(rest),
        others=len(staying) - len(rest),
        busy=sum(bool(slot.in_flight) for slot in rest),
        idle=idle,
        coming=sum(not slot.restarts and slot.is_coming(now) for slot in rest),
        waiting=waiting,
        longest_s=longest_s,
        expected_s=waiting * mean_s / max(1, sum(slot.state in _OF_USE for slot in rest)),
    )


def _waiting(state: State, rest: list[Slot], now: float) -> tuple[int, float]:
    """How many tasks wait for workers of the rest, and how long the first of them has waited."""
    counts: dict[str, int] = {}
    longest: dict[str, float] = {}
    fits: dict[frozenset[str], bool] = {}
    for lane in state.queue.lanes:
        requires = lane.demand.requires
        if requires not in fits:
            fits[requires] = _fits(state, rest, requires)
        for waiting, since in _lines(state, lane) if fits[requires] else ():
            counts[lane.name] = counts.get(lane.name, 0) + waiting
            longest[lane.name] = max(longest.get(lane.name, 0.0), now - since)
    for name, count in counts.items():
        counts[name] = startable(state, name, count, now)
    first = [longest[name] for name, count in counts.items() if count]
    return sum(counts.values()), max(first, default=0.0)


def _lines(state: State, lane: Lane) -> Iterator[tuple[int, float]]:
    """Of each row in which something waits, and is not held back, how many, and since when the first."""
    for row in lane.rows.values():
        first = None if state.queue.holds(row) else row.first()
        if first is not None:
            count = row.waiting + row.shelved
            yield min(count, 1) if lane.demand.alone else count, first.queued_at


def _fits(state: State, rest: list[Slot], requires: frozenset[str]) -> bool:
    """Whether workers of the rest may be given what requires this."""
    group = state.groups[REST]
    alike = requires <= group.offers and (bool(requires) or not group.is_reserved)
    return alike or any(slot.fits(requires) for slot in rest)


def startable(state: State, name: str, waiting: int, now: float) -> int:
    """How many of the ``waiting`` tasks of a name that nothing blocks could begin now, if there were workers."""
    if (limits := state.limits.get(name)) is not None:
        waiting = min(waiting, _room(limits, now))
    if (breaker := state.breakers.get(name)) is not None and breaker.state is not BreakerState.CLOSED:
        waiting = min(waiting, 1)
    return waiting


def _room(limits: NameLimits, now: float) -> int:
    """How many tasks of a name its limits would let begin now."""
    room = limits.max_concurrency - limits.running if limits.max_concurrency else 1 << 30
    if limits.starts:
        room = min(room, limits.starts if limits.rate_free_at(now) <= now else 0)
    return max(0, room)
