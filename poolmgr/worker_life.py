"""What is kept of a worker process after its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

LIVES_KEPT: Final = 1000  # the last ones


class WorkerLife(NamedTuple):
    """A worker process that has ended.

    Attributes:
        worker, incarnation: the slot, and which of its processes.
        spawned_at, ended_at: wall times.
        how: as the event ``worker-exited`` says it, such as ``exit code 0`` or ``signal 9 (SIGKILL)``.
        retired: why it was let go, such as ``max_tasks_per_worker``; '' where it was not.
        executed: tasks.
        peak_memory_mb: see ``PostMortem``; 0.0 where it is not known.
        epoch: of the daemon whose it was; 0 until it is kept.
    """

    worker: str
    incarnation: int
    pid: int
    spawned_at: float
    ended_at: float
    how: str
    retired: str = ""
    executed: int = 0
    peak_memory_mb: float = 0.0
    epoch: int = 0


def worker_life(found: Mapping[str, Any]) -> WorkerLife:
    """The ``WorkerLife`` of a map of its fields, here or on a newer peer: unknown names are left out."""
    return WorkerLife(**{name: value for name, value in found.items() if name in WorkerLife._fields})
