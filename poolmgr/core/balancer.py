"""Which of the workers that could take a task gets it. Capabilities are no preference: the candidates have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, overload

from poolmgr.core.slot import Slot
from poolmgr.core.task import Task
from poolmgr.model import RESERVED
from poolmgr.payload import Payload


class Waiting(Sequence[Slot]):
    """The workers of one load, those that wait longest first. To take the first or the last costs the same for any
    number of them, and that is what nearly every task does."""

    __slots__ = ("_slots",)

    def __init__(self, slots: dict[str, Slot]) -> None:
        self._slots = slots

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())

    def __reversed__(self) -> Iterator[Slot]:
        return reversed(self._slots.values())

    @overload
    def __getitem__(self, place: int) -> Slot: ...
    @overload
    def __getitem__(self, place: slice) -> list[Slot]: ...
    def __getitem__(self, place: int | slice) -> Slot | list[Slot]:
        if place == 0:
            return next(iter(self._slots.values()))
        if place == -1:
            return self._slots[next(reversed(self._slots))]
        return list(self._slots.values())[place]


class Balancer(Protocol):
    """One small protocol. A balancer sees at most the workers of equal, lowest load."""

    def choose(self, task: Task, candidates: Sequence[Slot]) -> Slot:
        """One of ``candidates``: at least two, all fit for ``task``, the one that waits longest first."""
        ...


class MostRecent:
    """The one that completed a task last: what the next one touches is still in the processor's caches.

    So a call that is alone is 1.5 times as fast as in turns (docs/decisions/0016-the-most-recent-worker-first.md), and
    workers that are not needed stay at rest. Those whose last attempt has failed, or that have not run any, come after
    all others, and take turns: one worker that is sick must not get each next task because it was so quick to fail.
    To choose costs the same for any number of workers, except where many are of those (200: 6 us).
    """

    def choose(self, task: Task, candidates: Sequence[Slot]) -> Slot:
        last = candidates[-1]
        if last.proven:
            return last
        return next((slot for slot in reversed(candidates) if slot.proven), candidates[0])


class RoundRobin:
    """Each in turn: the one that has waited longest."""

    def choose(self, task: Task, candidates: Sequence[Slot]) -> Slot:
        return candidates[0]


class LeastLoaded:
    """The least work in flight, then the least CPU, then the least memory, as last sampled."""

    def choose(self, task: Task, candidates: Sequence[Slot]) -> Slot:
        return min(candidates, key=lambda slot: (len(slot.in_flight), slot.cpu_percent, slot.memory_mb))


class Affine:
    """Prefers the worker that has lately run a task with the same ``affinity``; else asks ``otherwise``. Of several
    the one that was at work last, and those whose last attempt has failed after all others."""

    def __init__(self, otherwise: Balancer) -> None:
        self._otherwise = otherwise

    def choose(self, task: Task, candidates: Sequence[Slot]) -> Slot:
        key = task.options.affinity
        if key is not None:
            failed = None
            for slot in reversed(candidates):
                if key in slot.affinities:
                    if slot.proven:
                        return slot
                    failed = failed or slot
            if failed is not None:
                return failed
        return self._otherwise.choose(task, candidates)


def proves(task: Task, result: Payload) -> bool:
    """Whether a worker that has completed this task is well (``Slot.proven``).

    A pickled call completes with its exception, too, and is no failure of the task (wire/pickled.py): its result is an
    array that begins with a 0 where it has returned.
    """
    return not task.name.startswith(RESERVED) or not isinstance(result, bytes) or result[1:2] == b"\0"


BALANCERS: dict[str, type[Balancer]] = {
    "most-recent": MostRecent,
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
}
