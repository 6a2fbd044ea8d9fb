"""What happens to the tasks of a fixture database, and what can be read of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from poolmgr.core.changes import Change, ChunkAdded, ChunksDropped, TaskRequeued, TasksPurged
from poolmgr.model import TaskOptions, TaskState
from poolmgr.store.base import Store
from tests.conformance.samples import NOW, REMAINS, added, dead, ended, failed, lived, moved, task_id, unfinished

UNUSUAL = TaskOptions(
    priority=0, timeout_s=None, soft_timeout_s=1.5, max_retries=7, retry_on=frozenset({"ValueError", "OSError"}),
    requires=frozenset({"gpu"}), affinity="model-a", group="größe", key="k-1", key_window_s=60.0, at=NOW + 60,
    expires_s=9.5, restartable=False, sheddable=True, memory_limit_mb=64, ephemeral=True, rate_limit=(20, 60.0),
    max_concurrency=2, result_ttl_s=5.0,
)  # fmt: skip
LONG = bytes(range(256)) * 4  # beside its row
LARGE = b"*" * 65_537  # in a file
TASKS = 16  # ids 1..15 are used


def history() -> list[list[Change]]:
    """Transactions that leave tasks in every state, with everything that a task may have."""
    tries = [failed(6, attempt, message=f"no, attempt {attempt}", traceback="") for attempt in range(1, 13)]
    return [
        [added(number) for number in (1, 3, 4, 6, 8, 9, 10, 12)],
        [
            added(2, state=TaskState.SCHEDULED, due_at=NOW + 60, name="später", group="größe"),
            added(5, payload=LONG),
            added(7, options=UNUSUAL, origin=task_id(6), name="render", group="größe", order=-3),
            added(11, payload=b""),
        ],
        [
            failed(3, 1, type="", cause="worker_died", message="killed by SIGSEGV", post_mortem=REMAINS),
            moved(3, TaskState.RUNNING, attempt=2, failures=1, kills=1),
            moved(10, TaskState.RUNNING, attempt=3, failures=1, interruptions=1),
        ],
        [ended(4, outcome=b""), ended(5, outcome=LONG[::-1])],
        [*tries, dead(6, outcome=LONG), TaskRequeued(task_id(6), task_id(7))],
        [ended(8, TaskState.CANCELLED, code="cancelled", message="the task was cancelled", worker=None)],
        [ended(9, TaskState.EXPIRED, code="expired", message="too late", attempt=0, started_at=None, worker=None)],
        [ended(12), TasksPurged((task_id(12),))],
        [added(13, payload=LARGE), added(14), ended(14, outcome=LARGE)],
        [lived(1), lived(2, 3, retired="max_tasks_per_worker", executed=100, peak_memory_mb=81.5)],
        [
            *(ChunkAdded(task_id(1), seq, b"%d" % seq, b"after %d" % seq if seq == 2 else None) for seq in range(5)),
            ChunkAdded(task_id(1), 5, LARGE, None),
            ChunksDropped(task_id(1), 1),
            ChunkAdded(task_id(3), 0, None, b"a checkpoint alone"),
        ],
        [added(15), ChunkAdded(task_id(15), 0, LONG, b"after 0"), ChunkAdded(task_id(15), 1, LARGE, None)],
        [ended(15, outcome=b"", streamed=len(LONG) + len(LARGE))],
    ]


def told(store: Store) -> dict[str, Any]:
    """All that a store tells of those tasks, in what JSON knows."""
    known = [task_id(number) for number in range(TASKS)]
    return {
        "records": {id.hex(): plain(store.record(id)) for id in known},
        "tasks": {id.hex(): plain(store.task(id)) for id in known},
        "outcomes": {id.hex(): plain(store.outcome(id)) for id in known},
        "states": {str(state): [info.id for info in store.tasks(state=state)] for state in TaskState},
        "lives": plain(store.lives()),
        "streams": plain(sorted(store.streams())),
        "chunks": {id.hex(): plain(store.chunks(id, 1, 100)) for id in known},
        "unfinished": [record.id.hex() for record in unfinished(store)],
    }


def plain(value: Any) -> Any:
    """``value`` in JSON's terms: named tuples as objects, bytes in hex, or what tells them, sets as sorted lists."""
    match value:
        case bytes() if len(value) > len(LONG):
            return f"{len(value)} bytes, SHA-256 {sha256(value).hexdigest()}"
        case bytes():
            return value.hex()
        case set() | frozenset():
            return sorted(map(plain, value))
        case tuple() if hasattr(value, "_asdict"):
            return {name: plain(each) for name, each in value._asdict().items()}
        case list() | tuple():
            return [plain(each) for each in value]
        case _:
            return value


def differences(known: Any, now: Any, path: str = "") -> list[str]:
    """Where ``now`` says something else than ``known``. What only ``now`` has was not known yet, and is none."""
    if isinstance(known, Mapping) and isinstance(now, Mapping):
        return [each for name in known for each in differences(known[name], now.get(name), f"{path}/{name}")]
    if isinstance(known, list) and isinstance(now, list) and len(known) == len(now):
        pairs = enumerate(zip(known, now, strict=True))
        return [each for index, (a, b) in pairs for each in differences(a, b, f"{path}/{index}")]
    return [] if known == now else [f"{path}: {known!r} has become {now!r}"]
