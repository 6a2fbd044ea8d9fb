"""Rolling the workers over: a trial, then batches; stragglers in the background; and back, where the new code fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from poolmgr.config import Group
from poolmgr.core.effects import Kill, Reloaded, Retire, Spawn
from poolmgr.core.rollout import PATIENCE_S
from poolmgr.core.slot import READY_WITHIN_S
from poolmgr.errors import ShuttingDown, WrongState
from tests.unit.driver import Pool


def everything(name: str) -> bool:
    return True


def begin(pool: Pool, known: Callable[[str], bool] = everything) -> int:
    generation = pool.scheduler.rollout.begin(known, pool.now)
    pool.flush()
    return generation


def leave(pool: Pool) -> list[str]:
    """Those that were told to go, and have not, go; who that was."""
    going = [slot.id for slot in pool.scheduler.state.slots.values() if slot.retiring and not slot.in_flight]
    for worker in going:
        pool.die(worker, "exit code 0")
    return going


def roll_on(pool: Pool) -> list[list[str]]:
    """Who went together, one batch after the other."""
    batches = []
    while gone := leave(pool):
        batches.append(gone)
    return batches


def generations(pool: Pool) -> set[int]:
    return {slot.generation for slot in pool.scheduler.state.slots.values()}


def test_one_more_worker_tries_the_code_and_then_all_are_replaced() -> None:
    pool = Pool(workers=10)
    assert begin(pool) == 2
    assert pool.all(Spawn)[-1] == Spawn("worker-10", 1, 2)
    assert leave(pool) == ["worker-0", "worker-1", "worker-10"]  # a batch was taken as soon as the trial was ready
    gone = [worker for batch in roll_on(pool) for worker in batch]
    assert gone == [f"worker-{number}" for number in range(2, 10)]
    assert generations(pool) == {2}
    assert pool.all(Reloaded) == [Reloaded(2, "", (), 0)]
    assert pool.events("code-reloaded") == [{"generation": 2, "draining": [], "dropped": 0}]


def test_no_more_than_a_batch_is_out_of_service() -> None:
    pool = Pool(workers=10)
    begin(pool)
    pool.comes_up = False
    leave(pool)
    for _ in range(3):
        pool.advance(PATIENCE_S)
    taken = [slot for slot in pool.scheduler.state.slots.values() if slot.generation == 2 or slot.retiring]
    assert len(taken) == 2  # a fifth: they are starting, and until they are ready no other is taken
    assert not pool.all(Reloaded)


def test_a_trial_that_does_not_get_ready_is_all_that_is_lost() -> None:
    pool = Pool(workers=2, ready=True)
    pool.comes_up = False
    begin(pool)
    pool.scheduler.worker_broken("worker-2", 1, "the hook failed", pool.now)
    pool.flush()
    pool.die("worker-2", "exit code 1")
    [ended] = pool.all(Reloaded)
    assert (ended.generation, ended.failure) == (1, "a worker of the new code did not get ready: the hook failed")
    assert pool.events("reload-refused") == [{"error": ended.failure}]
    assert list(pool.scheduler.state.slots) == ["worker-0", "worker-1"]
    assert not pool.all(Retire)
    assert pool.scheduler.rollout.begin(everything, pool.now) == 3  # no number is used again


def test_a_trial_that_hangs_is_killed_and_the_next_reload_can_begin() -> None:
    pool = Pool(workers=2)
    pool.comes_up = False
    begin(pool)
    pool.advance(READY_WITHIN_S - 0.01)
    assert not pool.all(Reloaded)
    pool.advance(0.01)
    [ended] = pool.all(Reloaded)
    assert ended.failure == "a worker of the new code did not get ready within 60 s"
    assert pool.all(Kill) == [Kill("worker-2", 1, "reload", 0.0)]
    pool.die("worker-2")
    assert list(pool.scheduler.state.slots) == ["worker-0", "worker-1"]
    pool.comes_up = True
    assert begin(pool) == 3


def test_a_trial_that_is_not_wanted_any_more_is_not_waited_for() -> None:
    pool = Pool(workers=1)
    pool.comes_up = False
    begin(pool)
    pool.scheduler.rollout.fail("it died")
    pool.flush()
    assert pool.all(Reloaded)[0].failure == "it died"
    assert pool.killed() == [("worker-1", "reload")]


def test_new_code_that_hangs_after_its_trial_is_rolled_back() -> None:
    pool = Pool(workers=10)
    begin(pool)
    pool.comes_up = False
    leave(pool)
    pool.advance(READY_WITHIN_S)
    assert set(pool.killed()) == {("worker-0", "reload"), ("worker-1", "reload")}
    pool.comes_up = True
    pool.die("worker-0")
    pool.die("worker-1")
    roll_on(pool)
    assert generations(pool) == {1}
    assert pool.all(Reloaded)[0].failure == "worker-0 did not get ready within 60 s"


def test_old_code_that_hangs_while_it_comes_back_is_not_waited_for() -> None:
    pool = Pool(workers=1)
    begin(pool)
    pool.comes_up = False
    leave(pool)
    pool.scheduler.rollout.fail("it died")
    pool.flush()
    assert pool.killed() == [("worker-0", "reload")]  # of the new code, and not ready
    pool.die("worker-0")
    assert (pool.slot().generation, pool.slot().state) == (1, "starting")
    pool.advance(READY_WITHIN_S)
    assert pool.all(Reloaded) == [Reloaded(1, "it died", (), 0)]
    assert pool.slot().doomed is not None


def test_a_worker_that_dies_during_the_trial_comes_back_with_the_old_code() -> None:
    pool = Pool(workers=2)
    pool.done(pool.submit())
    pool.comes_up = False
    begin(pool)
    pool.die("worker-0")
    assert pool.all(Spawn)[-1] == Spawn("worker-0", 2, 1)


def test_the_idle_go_first_and_a_busy_one_is_waited_for_so_long() -> None:
    pool = Pool(workers=2)
    task = pool.submit()
    busy = pool.worker_of(task) or ""
    begin(pool)
    roll_on(pool)
    assert [slot.id for slot in pool.scheduler.state.slots.values() if slot.generation == 1] == [busy]
    assert not pool.all(Reloaded)
    pool.advance(PATIENCE_S)
    assert pool.all(Reloaded) == [Reloaded(2, "", (busy,), 0)]
    later = pool.submit_many(2)
    assert busy not in [pool.worker_of(each) for each in later]
    pool.done(task)
    leave(pool)
    assert pool.state(task) == "completed"
    assert generations(pool) == {2}
    assert {pool.state(each) for each in later} == {"running"}


def test_all_busy_for_long_are_taken_one_batch_after_the_other() -> None:
    pool = Pool(workers=3)
    tasks = pool.submit_many(3)
    begin(pool)
    roll_on(pool)
    for taken in (1, 2, 3):
        assert sum(slot.retiring == "reload" for slot in pool.scheduler.state.slots.values()) == taken
        pool.advance(PATIENCE_S)
    assert pool.all(Reloaded)[0].draining == ("worker-0", "worker-1", "worker-2")
    for task in tasks:
        pool.done(task)
    leave(pool)
    assert generations(pool) == {2}


def test_what_is_prefetched_is_recalled_and_runs_on_the_new_code() -> None:
    pool = Pool(workers=1)
    pool.teach("fast", 0.0001)
    first, second = pool.submit_many(2, "fast")
    begin(pool)
    pool.recalled("worker-0", second)
    pool.done(first)
    roll_on(pool)
    assert pool.state(second) == "running"
    assert pool.slot().generation == 2


def test_waiting_tasks_that_the_new_code_lacks_die_and_only_they() -> None:
    pool = Pool(workers=1)
    running, queued, delayed, kept = (
        pool.submit("old"), pool.submit("old"), pool.submit("old", delay_s=99.0), pool.submit("kept", delay_s=99.0),
    )  # fmt: skip
    begin(pool, lambda name: name == "kept")
    roll_on(pool)
    pool.advance(PATIENCE_S)
    assert pool.all(Reloaded) == [Reloaded(2, "", ("worker-0",), 2)]
    assert {pool.end(task).code for task in (queued, delayed)} == {"unknown_task"}
    assert pool.state(kept) == "scheduled"
    pool.done(running)
    assert pool.state(running) == "completed"


def test_code_that_fails_for_good_after_its_trial_is_rolled_back() -> None:
    pool = Pool(workers=3, max_restart_attempts=1)
    begin(pool)
    pool.comes_up = False
    leave(pool)  # the trial, and the first of the pool
    pool.die("worker-0", "exit code 1")
    assert pool.all(Spawn)[-1] == Spawn("worker-0", 3, 1)
    pool.comes_up = True
    pool.flush()
    roll_on(pool)
    assert generations(pool) == {1}
    assert pool.all(Reloaded)[0].failure == "worker-0 failed with the new code: exit code 1"
    assert not pool.slot("worker-1").retiring


def test_a_new_template_that_dies_has_those_of_its_workers_replaced_by_old_ones() -> None:
    pool = Pool(workers=3)
    begin(pool)
    leave(pool)
    assert generations(pool) == {1, 2}
    pool.scheduler.rollout.fail("it died")
    pool.flush()
    roll_on(pool)
    assert generations(pool) == {1}
    assert pool.all(Reloaded) == [Reloaded(1, "it died", (), 0)]
    assert pool.scheduler.state.generation == 1


def test_new_code_is_a_new_chance_for_a_slot_that_has_failed() -> None:
    pool = Pool(workers=1, ready=False, max_restart_attempts=1)
    pool.die("worker-0", "exit code 1")
    assert pool.slot().state == "failed"
    pool.comes_up = True
    begin(pool)
    roll_on(pool)
    assert (pool.slot().state, pool.slot().generation) == ("ready", 2)
    assert pool.all(Reloaded)[0].failure == ""


def tried(pool: Pool) -> None:
    """A roll whose trial gets ready, and then nobody does."""
    pool.comes_up = False
    begin(pool)
    trial = next(slot for slot in pool.scheduler.state.slots.values() if slot.generation == 2)
    pool.scheduler.worker_ready(trial.id, trial.incarnation, frozenset(), pool.now)
    pool.flush()
    pool.die(trial.id, "exit code 0")


def test_a_slot_that_had_failed_before_vetoes_no_new_code() -> None:
    pool = Pool(workers=2, max_restart_attempts=1)
    pool.comes_up = False
    pool.die("worker-1", "exit code 1")
    assert pool.slot("worker-1").state == "failed"
    tried(pool)
    assert pool.slot("worker-1").generation == 2
    pool.die("worker-1", "exit code 1")
    pool.comes_up = True
    pool.flush()
    roll_on(pool)
    assert generations(pool) == {2}
    assert pool.all(Reloaded) == [Reloaded(2, "", (), 0)]


@pytest.mark.parametrize("ends", ["dies", "hangs"])
def test_a_groups_own_command_vetoes_no_new_code_of_the_app(ends: str) -> None:
    node = Group(name="node", size=1, worker_command=("node",))
    pool = Pool(workers=2, max_restart_attempts=1, groups=(node,))
    tried(pool)
    assert leave(pool) == ["worker-0"]
    pool.comes_up = True
    pool.flush()
    pool.comes_up = False
    assert leave(pool) == ["worker-1"]
    if ends == "hangs":
        pool.advance(READY_WITHIN_S)
        assert pool.killed() == [("worker-1", "reload")]
    else:
        pool.die("worker-1", "exit code 1")
    assert pool.all(Reloaded) == [Reloaded(2, "", (), 0)]


def test_a_pool_of_commands_alone_is_rolled_back_with_them() -> None:
    pool = Pool(workers=2, max_restart_attempts=1, worker_command=("node",))
    tried(pool)
    leave(pool)
    pool.die("worker-0", "exit code 1")
    pool.comes_up = True
    pool.flush()
    roll_on(pool)
    assert pool.all(Reloaded)[0].failure == "worker-0 failed with the new code: exit code 1"


def test_one_at_a_time_and_none_while_draining() -> None:
    pool = Pool(workers=1)
    task = pool.submit()
    begin(pool)
    with pytest.raises(WrongState, match="a reload is under way"):
        begin(pool)
    pool.scheduler.drain(pool.now)
    pool.flush()
    assert pool.all(Reloaded)[0].failure == "the daemon is shutting down"
    with pytest.raises(ShuttingDown):
        begin(pool)
    pool.done(task)
    assert pool.drained()
