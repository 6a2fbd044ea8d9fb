"""What became of each worker process is told to the store, once, and nobody waits for it."""

from __future__ import annotations

from poolmgr.core.changes import WorkerEnded
from poolmgr.core.effects import Emit, Persist
from poolmgr.post_mortem import PostMortem
from poolmgr.worker_life import WorkerLife
from tests.unit.driver import WALL_OFFSET, Pool


def test_an_end_is_kept_with_all_that_is_known_of_the_process() -> None:
    pool = Pool(max_tasks_per_worker=1)
    pool.done(pool.submit())
    pid = pool.slot().pid
    pool.advance(5.0)
    pool.scheduler.worker_exited(
        "worker-0", 1, "exited with code 0", 0, 0.0, pool.now, PostMortem(exit_code=0, peak_memory_mb=61.5)
    )
    pool.flush()
    assert pid is not None
    assert pool.changes(WorkerEnded) == [
        WorkerEnded(
            WorkerLife(
                "worker-0", 1, pid, WALL_OFFSET + 1000.0, WALL_OFFSET + pool.now, "exited with code 0",
                "max_tasks_per_worker", 1, 61.5,
            )
        )
    ]  # fmt: skip


def test_ends_of_one_turn_are_one_commit_that_nobody_waits_for() -> None:
    pool = Pool(workers=3)
    before = len(pool.all(Persist))
    for worker in ("worker-0", "worker-1", "worker-2"):
        pool.scheduler.worker_exited(worker, 1, "killed by SIGKILL", 0, 0.0, pool.now)
    pool.flush()
    (persist,) = pool.all(Persist)[before:]
    assert [change.life.worker for change in persist.changes if isinstance(change, WorkerEnded)] == [
        "worker-0",
        "worker-1",
        "worker-2",
    ]
    assert all(effect.commit == 0 for effect in pool.latest if isinstance(effect, Emit))


def test_an_idle_pool_commits_nothing() -> None:
    pool = Pool(workers=3)
    pool.advance(100.0)
    assert pool.all(Persist) == []


def test_a_process_that_could_not_be_made_has_no_life() -> None:
    pool = Pool(ready=False)
    pool.scheduler.worker_exited("worker-0", 1, "its pipes cannot be made", 0, 0.0, pool.now)
    pool.flush()
    assert pool.changes(WorkerEnded) == []
