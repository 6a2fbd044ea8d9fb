"""What must be done within a time, whatever workers do. While the daemon was blocked, no time has passed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from poolmgr.core.state import State
from poolmgr.model import WorkerState
from tests.simulation.workers import Process

OVERSHOOT_S: Final = 0.25  # of a hard time-out, until the kill; and of a prefetched task's wait behind a slow one
WIPED_S: Final = 5.0  # more, for a task whose page shows nothing of it
LINGERS_S: Final = 11.5  # a killed process, until its slot goes on without it


def check_punctual(state: State, processes: Iterable[Process], now: float, unblocked_at: float) -> None:
    """Raise ``AssertionError`` if a worker is over its hard limit and not being killed, or is dead and not given up."""
    for process in processes:
        start = process.current
        slot = state.slots.get(process.worker)
        if slot is None or slot.incarnation != process.incarnation:
            continue
        if process.killed_for:
            lingers_s = now - max(process.killed_at, unblocked_at)
            assert lingers_s < LINGERS_S or slot.state is not WorkerState.UNHEALTHY, f"{slot.id} is not given up"
            continue
        if start is None or not process.alive or slot.doomed is not None:
            continue
        waits_s = now - max(process.begun_at, process.sent_at, unblocked_at)
        behind = len(slot.in_flight) - 1 if slot.in_flight and slot.in_flight[0].fence == start.fence else 0
        shown = process.wiped != start.fence
        assert behind <= 0 or waits_s < OVERSHOOT_S or not shown, (
            f"{behind} tasks wait {waits_s:.3f} s behind a slow one"
        )
        if slot.in_flight and slot.preempting == slot.in_flight[0].fence:
            over_s = now - max(slot.preempt_by, unblocked_at)
            assert over_s < OVERSHOOT_S, f"{slot.id} was to give {start.fence} up {over_s:.3f} s ago"
        stream = state.streams.get(start.task_id)
        waited_s = 0.0
        if stream is not None and stream.fence == start.fence:  # the time for which it has to wait does not count
            waited_s = float("inf") if stream.is_paused else stream.paused_s
            if stream.is_paused or process.waits:  # it waits, or has just gone on
                process.waited_at = now
            process.waits = stream.is_paused
        if start.timeout_s is not None:  # a blocked daemon hears late that it waits, and looks again when it goes on
            over_s = now - max(process.begun_at + start.timeout_s + waited_s, process.waited_at, unblocked_at)
            assert over_s < OVERSHOOT_S + (0.0 if shown else WIPED_S), (
                f"{slot.id} runs {start.fence} {over_s:.3f} s over its time-out"
            )
