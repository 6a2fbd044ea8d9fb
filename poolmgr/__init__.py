"""poolmgr: a daemon that keeps warm, persistent worker processes and runs tasks on them.

Names are imported when first used, so that ``import poolmgr`` costs a worker, or ``poolmgr status``, nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolmgr.version import __version__ as __version__

if TYPE_CHECKING:
    from poolmgr.client.aio import AsyncClient as AsyncClient
    from poolmgr.client.call_future import BrokenPool as BrokenPool
    from poolmgr.client.call_future import BrokenWorker as BrokenWorker
    from poolmgr.client.executor import Executor as Executor
    from poolmgr.client.future import TaskFuture as TaskFuture
    from poolmgr.client.pool import Pool as Pool
    from poolmgr.client.sync import Client as Client
    from poolmgr.errors import PoolError as PoolError
    from poolmgr.errors import TaskFailed as TaskFailed
    from poolmgr.schedule import Timing as Timing
    from poolmgr.worker.context import Chunk as Chunk
    from poolmgr.worker.context import Preempted as Preempted
    from poolmgr.worker.context import Retry as Retry
    from poolmgr.worker.context import SoftTimeout as SoftTimeout
    from poolmgr.worker.context import current_task as current_task
    from poolmgr.worker.registry import task as task
    from poolmgr.worker.registry import worker_startup as worker_startup

_HOMES = {
    "Client": "poolmgr.client.sync",
    "AsyncClient": "poolmgr.client.aio",
    "Executor": "poolmgr.client.executor",
    "Pool": "poolmgr.client.pool",
    "TaskFuture": "poolmgr.client.future",
    "BrokenPool": "poolmgr.client.call_future",
    "BrokenWorker": "poolmgr.client.call_future",
    "task": "poolmgr.worker.registry",
    "worker_startup": "poolmgr.worker.registry",
    "current_task": "poolmgr.worker.context",
    "Chunk": "poolmgr.worker.context",
    "Preempted": "poolmgr.worker.context",
    "Retry": "poolmgr.worker.context",
    "SoftTimeout": "poolmgr.worker.context",
    "PoolError": "poolmgr.errors",
    "TaskFailed": "poolmgr.errors",
    "Timing": "poolmgr.schedule",
}

__all__ = [
    "AsyncClient",
    "BrokenPool",
    "BrokenWorker",
    "Chunk",
    "Client",
    "Executor",
    "Pool",
    "PoolError",
    "Preempted",
    "Retry",
    "SoftTimeout",
    "TaskFailed",
    "TaskFuture",
    "Timing",
    "__version__",
    "current_task",
    "task",
    "worker_startup",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'poolmgr' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
