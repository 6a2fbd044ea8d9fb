"""How many tasks wait at a worker, and how they come back when its running one turns out to be slow."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolmgr.core.effects import Answer, Finished, FinishedMany, Recall, Start, StartMany, Streamed, one_by_one
from poolmgr.errors import PoolError
from poolmgr.model import TaskOptions
from tests.unit.driver import Pool


def _fast(workers: int = 1, **settings: Any) -> Pool:
    """A pool that knows the name "fast" to run for 0.1 ms: ten of them make a millisecond."""
    pool = Pool(workers=workers, **settings)
    pool.teach("fast", 0.0001)
    return pool


def _line(pool: Pool, worker: str = "worker-0") -> list[bytes]:
    return [task.id for task in pool.slot(worker).in_flight]


def test_an_unknown_name_is_not_prefetched() -> None:
    pool = Pool()
    pool.submit_many(3)
    assert len(_line(pool)) == 1


def test_the_depth_is_a_millisecond_of_the_names_work() -> None:
    pool = _fast()
    tasks = pool.submit_many(12, "fast")
    assert _line(pool) == tasks[:10]
    assert [pool.state(task) for task in tasks[:3]] == ["running", "queued", "queued"]


def test_it_is_at_most_sixty_four() -> None:
    pool = Pool()
    pool.teach("instant", 1e-6)
    pool.submit_many(100, "instant")
    assert len(_line(pool)) == 64


def test_a_slow_name_stays_at_one() -> None:
    pool = Pool()
    pool.teach("slow", 0.1)
    pool.submit_many(4, "slow")
    assert len(_line(pool)) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"affinity": "a"},
        {"memory_limit_mb": 100},
        {"ephemeral": True},
        {"restartable": False},
        {"rate_limit": (100, 1.0)},
        {"max_concurrency": 50},
    ],
)
def test_never_prefetched(options: dict[str, Any]) -> None:
    pool = _fast(max_tasks_per_worker=0)
    pool.submit_many(2, "fast")
    pool.submit_many(3, "fast", priority=0, **options)
    assert len(_line(pool)) == 2


def test_a_task_that_killed_a_worker_is_not_prefetched() -> None:
    pool = _fast()
    killer = pool.submit("fast", priority=0, retry_backoff_s=1.0)
    pool.die("worker-0")
    pool.submit("blocker")
    pool.answers_looks = False
    pool.advance(1.0)
    assert pool.worker_of(killer) is None


def test_what_may_not_run_twice_is_prefetched_where_it_ends_with_the_daemon() -> None:
    pool = _fast()
    pool.submit_many(4, "fast", restartable=False, durable=False)
    assert len(_line(pool)) == 4


@pytest.mark.parametrize("options", [{"ephemeral": True}, {"restartable": False}])
def test_nothing_stands_behind_these(options: dict[str, Any]) -> None:
    pool = _fast()
    pool.die("worker-0")
    pool.submit("first", **options)
    pool.submit_many(3, "fast")
    assert len(_line(pool)) == 1


def test_never_behind_another_while_a_fitting_worker_is_idle() -> None:
    pool = _fast(workers=4)
    pool.submit_many(4, "fast")
    assert [len(_line(pool, f"worker-{n}")) for n in range(4)] == [1, 1, 1, 1]
    pool.submit_many(4, "fast")
    assert [len(_line(pool, f"worker-{n}")) for n in range(4)] == [2, 2, 2, 2]


def test_but_behind_another_where_the_idle_ones_do_not_fit() -> None:
    pool = Pool(workers=2, capabilities={"worker-0": {"gpu"}})
    for _ in range(16):
        pool.done(pool.submit("fast", requires=frozenset({"gpu"})), run_s=0.0001)
    pool.submit_many(2, "fast", requires=frozenset({"gpu"}))
    assert len(_line(pool, "worker-0")) == 2
    assert len(_line(pool, "worker-1")) == 0


def test_the_next_in_line_begins_when_the_first_is_done() -> None:
    pool = _fast()
    first, second, third = pool.submit_many(3, "fast")
    pool.done(first)
    assert pool.running() == [second]
    assert pool.state(third) == "queued"
    pool.done(second)
    pool.done(third)
    assert pool.slot().state == "ready"


def test_results_for_another_fence_than_the_first_are_old_news() -> None:
    pool = _fast()
    first, second = pool.submit_many(2, "fast")
    fence = pool.task(second).fence
    for worker, said in (("worker-0", fence), ("worker-0", fence + 99), ("nobody", pool.task(first).fence)):
        pool.scheduler.attempts_done(worker, [(said, pool.now, pool.now, b"")], pool.now)
    pool.flush()
    assert _line(pool) == [first, second]


# ------------------------------------------------------------------------------------- recall


def test_what_waits_behind_a_slow_task_is_recalled_after_10_ms() -> None:
    pool = _fast()
    pool.submit_many(3, "fast")
    pool.advance(0.0099)
    assert not pool.all(Recall)
    pool.advance(0.0002)
    [recall] = pool.all(Recall)
    assert recall == Recall("worker-0", 1, pool.slot().in_flight[-1].fence)


def test_recall_counts_from_when_the_page_says_it_began() -> None:
    pool = _fast()
    pool.submit_many(3, "fast")
    pool.pages["worker-0"] = (pool.slot().in_flight[0].fence, pool.now + 0.005)
    pool.advance(0.0149)
    assert not pool.all(Recall)
    pool.advance(0.0002)
    assert pool.all(Recall)


def test_a_lone_task_needs_no_recall() -> None:
    pool = _fast()
    pool.submit("fast")
    pool.advance(5.0)
    assert not pool.all(Recall)


def test_the_page_proves_what_has_not_begun_without_the_workers_word() -> None:
    pool = _fast()
    tasks = pool.submit_many(3, "fast")
    pool.advance(0.02)
    pool.recall_sent("worker-0")
    assert _line(pool) == tasks[:1]
    assert [pool.task(task).attempt for task in tasks] == [1, 0, 0]
    pool.scheduler.start_worker(pool.now)
    pool.flush()
    assert _line(pool, "worker-1") == tasks[1:]


def test_the_page_of_a_task_that_may_yet_be_short_proves_nothing() -> None:
    pool = _fast()
    tasks = pool.submit_many(3, "fast")
    pool.cancel(tasks[2])
    assert pool.new(Recall)
    pool.recall_sent("worker-0")
    assert _line(pool) == tasks


def test_a_page_that_has_moved_on_proves_nothing() -> None:
    pool = _fast()
    tasks = pool.submit_many(3, "fast")
    pool.advance(0.02)
    pool.pages["worker-0"] = (pool.task(tasks[1]).fence, pool.now)
    pool.recall_sent("worker-0")
    assert _line(pool) == tasks
    pool.pages["worker-0"] = (0, 0.0)
    pool.recall_sent("worker-0")
    assert _line(pool) == tasks


def test_the_workers_word_frees_what_it_names() -> None:
    pool = _fast()
    tasks = pool.submit_many(3, "fast")
    pool.advance(0.02)
    pool.recalled("worker-0", tasks[2])
    assert _line(pool) == tasks[:2]
    assert pool.state(tasks[2]) == "queued"
    assert pool.worker_of(tasks[2]) is None


def test_a_slow_worker_gets_nothing_behind_its_task_until_that_is_done() -> None:
    pool = _fast()
    tasks = pool.submit_many(3, "fast")
    pool.advance(0.02)
    pool.recall_sent("worker-0")
    assert _line(pool) == tasks[:1]
    pool.recalled("worker-0")
    assert _line(pool) == tasks[:1]
    pool.done(tasks[0])
    assert _line(pool) == tasks[1:]


def test_a_recall_that_has_no_answer_yet_keeps_new_ones_away() -> None:
    pool = _fast()
    first, second, third = pool.submit_many(3, "fast")
    pool.cancel(third)
    assert pool.new(Recall)
    later = pool.submit("fast")
    assert pool.worker_of(later) is None
    pool.recalled("worker-0", second, third)
    assert pool.state(third) == "cancelled"
    assert _line(pool) == [first, second, later]


def test_a_recall_is_over_when_all_that_it_named_has_ended() -> None:
    pool = _fast()
    tasks = pool.submit_many(3, "fast")
    pool.cancel(tasks[2])
    pool.done(tasks[0])
    later = pool.submit("fast")
    assert pool.worker_of(later) is None
    pool.done(tasks[1])
    pool.done(tasks[2])
    assert pool.state(later) == "running"
    assert pool.worker_of(pool.submit("fast")) == "worker-0"


def test_a_recalled_first_one_never_began() -> None:
    pool = _fast()
    tasks = pool.submit_many(3, "fast")
    pool.cancel(tasks[2])
    pool.recalled("worker-0", *tasks)
    assert pool.new(Answer) == [Answer(7, True, pool.scheduler.state.commit - 1)]
    assert [pool.task(task).attempt for task in tasks[:2]] == [1, 1]
    assert pool.running() == tasks[:1]


def test_an_answer_to_an_old_recall_takes_nothing_away() -> None:
    pool = _fast()
    tasks = pool.submit_many(2, "fast")
    old = pool.task(tasks[1]).fence
    pool.advance(0.02)
    pool.recall_sent("worker-0")
    pool.scheduler.start_worker(pool.now)
    pool.flush()
    assert pool.worker_of(tasks[1]) == "worker-1"
    pool.scheduler.recalled("worker-0", 1, [old], pool.now)
    pool.flush()
    assert pool.state(tasks[1]) == "running"
    pool.scheduler.recalled("worker-1", 99, [pool.task(tasks[1]).fence], pool.now)
    pool.flush()
    assert pool.state(tasks[1]) == "running"


def test_recalled_tasks_go_back_to_their_old_place() -> None:
    pool = _fast()
    tasks = pool.submit_many(12, "fast")
    pool.advance(0.02)
    pool.recall_sent("worker-0")
    pool.recalled("worker-0")
    pool.done(tasks[0])
    assert _line(pool) == tasks[1:11]


# ------------------------------------------------------------------------------------- many in one go

_OPTIONS = st.fixed_dictionaries(
    {"durable": st.booleans()},
    optional={
        "priority": st.integers(0, 1),
        "group": st.sampled_from(["a", "b"]),
        "max_retries": st.integers(0, 1),
        "restartable": st.booleans(),
        "requires": st.just(frozenset({"gpu"})),
        "key": st.just("key"),
        "expires_s": st.just(5.0),
        "delay_s": st.just(3.0),
        "max_queued": st.just(4),
        "affinity": st.just("a"),
        "memory_limit_mb": st.just(100),
        "timeout_s": st.sampled_from([5.0, 9.0]),
    },
)
_BATCHES = st.lists(
    st.tuples(st.sampled_from(["fast", "also"]), _OPTIONS, st.integers(1, 20), st.sampled_from([1, 1, 2])),
    min_size=1,
    max_size=4,
)
_STEPS = st.lists(
    st.tuples(st.sampled_from(["done", "done", "fail", "cancel", "stream", "die", "break"]), st.integers(0, 12)),
    max_size=12,
)


class OneByOne(Pool):
    """A pool that is told of each task's completion in the long way."""

    def done_many(self, worker: str, count: int) -> None:
        scheduler, slot = self.scheduler, self.slot(worker)
        tasks = [slot.in_flight.popleft() for _ in range(min(count, len(slot.in_flight)))]
        for task in tasks:
            self._page_on(worker)
            scheduler.state.statistics.ran(task.name, [0.0], [self.now - task.queued_at])
            scheduler._completions._complete(task, slot, self.now, 0.0, b"result of " + task.id, self.now)
        if tasks:
            slot.proven = True
            scheduler._next_of(slot, tasks[-1], len(tasks), self.now, self.now)
        self.flush()


def _after(batches: list[Any], steps: list[Any], *, together: bool, listening: bool, max_tasks: int) -> Pool:
    """A pool to which this has happened. ``together``: the tasks of a batch have the same options, not equal ones, so
    that they may be started many in one go."""
    kind = Pool if together else OneByOne
    pool = kind(2, capabilities={"worker-0": {"gpu"}}, max_tasks_per_worker=max_tasks, breaker_failures=2)
    pool.scheduler.intake.connected(2)
    for name in ("fast", "also"):
        pool.teach(name, 0.0001)
    pool.scheduler.state.listening = listening
    number = 1000
    for name, options, count, client in batches:
        shared = TaskOptions(**options)
        for _ in range(count):
            number += 1
            each, id = shared if together else TaskOptions(**options), number.to_bytes(16, "big")
            with suppress(PoolError):
                pool.scheduler.intake.submit(pool.now, id, name, b"payload", each, client, number % 3 > 0)
        pool.flush()
    for step, count in [*steps, *[("done", 64)] * 20]:
        worker = f"worker-{count % 2}"
        held = pool.slot(worker).in_flight
        if step in ("die", "break"):
            if step == "break" and held:  # and what it has begun behind that is not known
                pool.pages[worker] = held[len(held) // 2].fence, pool.now
                pool.scheduler.worker_broken(worker, pool.slot(worker).incarnation, "garbage", pool.now)
            pool.die(worker)
        elif step == "cancel":
            live = pool.scheduler.state.tasks
            for id in [id for number, id in enumerate(live) if number % 13 == count]:
                pool.cancel(id)
        elif step == "stream" and held and held[0].id not in pool.scheduler.state.streams:
            pool.scheduler.streams.chunk(worker, held[0].fence, 0, b"chunk", None, pool.now)
            pool.flush()
        elif step == "fail" and held:
            pool.fail(held[0].id)
        else:
            pool.done_many(worker, count)
            pool.done_many(f"worker-{(count + 1) % 2}", count // 2)
        pool.advance(0.5)
    return pool


@given(_BATCHES, _STEPS, st.booleans(), st.sampled_from([0, 20]))
def test_tasks_that_are_started_and_completed_together_fare_as_those_that_are_not(
    batches: list[Any], steps: list[Any], listening: bool, max_tasks: int
) -> None:
    together, apart = (
        _after(batches, steps, together=each, listening=listening, max_tasks=max_tasks) for each in (True, False)
    )
    assert together.effects == apart.effects
    one, other = together.scheduler.state, apart.scheduler.state
    assert one.statistics.completed == other.statistics.completed
    assert one.crowds == other.crowds
    assert one.breakers.keys() == other.breakers.keys()


def test_what_is_alike_is_one_effect() -> None:
    pool = _fast()
    ids = [bytes([number]) * 16 for number in range(12)]
    payloads = [b"payload %d" % number for number in range(12)]
    options = TaskOptions(durable=False, timeout_s=9.0)
    assert pool.scheduler.intake.submit_many(pool.now, ids, "fast", payloads, options, 1, True)
    first, many, *_ = (each for each in pool.scheduler.flush(pool.now) if isinstance(each, (Start, StartMany)))
    assert isinstance(first, Start)
    fence = first.fence + 1
    assert many == StartMany("worker-0", 1, fence, ids[1:10], "fast", payloads[1:10], 9.0, None)
    assert one_by_one([many])[8] == Start("worker-0", 1, fence + 8, ids[9], 1, "fast", payloads[9], 9.0, None, 0)
    results = [(first.fence + number, pool.now, pool.now, b"result %d" % number) for number in range(3)]
    pool.scheduler.attempts_done("worker-0", results, pool.now)
    [told] = [each for each in pool.scheduler.flush(pool.now) if isinstance(each, FinishedMany)]
    assert told == FinishedMany(1, ids[:3], [b"result 0", b"result 1", b"result 2"])


def test_one_that_had_a_deadline_holds_no_payload_until_then() -> None:
    pool = _fast()
    pool.submit("fast", payload=b"first", durable=False)
    task = pool.task(pool.submit("fast", payload=b"large", durable=False, expires_s=99.0))
    pool.done_many("worker-0", 2)
    assert task.payload == b""


def test_a_completion_among_many_ends_a_row_of_failures() -> None:
    pool = _fast(breaker_failures=3)
    first, *_ = pool.submit_many(4, "fast", durable=False, max_retries=0)
    pool.fail(first)
    assert "fast" in pool.scheduler.state.breakers
    pool.done_many("worker-0", 3)
    assert "fast" not in pool.scheduler.state.breakers


def test_limits_that_came_later_count_those_that_were_prefetched() -> None:
    pool = _fast()
    pool.teach("also", 0.0001)
    options = TaskOptions(durable=False)
    for number, name in enumerate(("fast", "fast", "also", "also")):
        pool.scheduler.intake.submit(pool.now, bytes([number]) * 16, name, b"", options, 1, True)
    pool.flush()
    pool.submit("also", durable=False, max_concurrency=3)
    assert pool.scheduler.state.limits["also"].running == 2
    pool.done_many("worker-0", 4)
    assert pool.scheduler.state.limits["also"].running == 1


def test_what_differs_in_an_option_is_not_started_together() -> None:
    pool = _fast()
    some, others = (TaskOptions(durable=False, timeout_s=timeout_s) for timeout_s in (9.0, 5.0))
    for number, options in enumerate([some] * 3 + [others] * 2 + [some] * 2):
        pool.scheduler.intake.submit(pool.now, bytes([number]) * 16, "fast", b"", options, 1, True)
    pool.flush()
    assert [start.timeout_s for start in pool.all(Start)[-7:]] == [9.0] * 3 + [5.0] * 2 + [9.0] * 2


def test_one_that_came_back_keeps_its_place_among_many() -> None:
    pool = _fast()
    ids = pool.submit_many(40, "fast", durable=False)
    queue, again = pool.scheduler.state.queue, pool.task(ids[20])
    row = queue.row_of(again)
    row._line.remove(again)
    queue._length -= 1
    queue.push(again)
    while pool.scheduler.state.tasks:
        pool.done_many("worker-0", 64)
    assert [start.task_id for start in pool.all(Start)[-40:]] == ids


def test_a_stream_that_is_read_before_it_is_started_is_resumed() -> None:
    pool = _fast()
    options, ids = TaskOptions(durable=False), [bytes([number]) * 16 for number in range(5)]
    for id in ids:
        pool.scheduler.intake.submit(pool.now, id, "fast", b"", options, 1, True)
    pool.scheduler.streams.read(pool.task(ids[3]), 1, 0, 0, pool.now)
    pool.flush()
    assert [start.resume is not None for start in pool.all(Start)[-5:]] == [id == ids[3] for id in ids]


def test_who_cancels_one_of_many_that_complete_has_an_answer() -> None:
    pool = _fast()
    ids = pool.submit_many(3, "fast", durable=False)
    pool.cancel(ids[1], kill=True, token=77)
    pool.done_many("worker-0", 3)
    assert [answer.token for answer in pool.all(Answer)] == [77]


def test_a_worker_that_is_to_be_recycled_gets_no_more_together_than_it_may_run() -> None:
    pool = _fast(max_tasks_per_worker=20)  # it has run 16
    pool.submit_many(30, "fast", durable=False)
    assert len(_line(pool)) == 4


def test_a_stream_among_many_ends() -> None:
    pool = _fast()
    first, *_ = pool.submit_many(3, "fast", durable=False)
    pool.scheduler.streams.chunk("worker-0", pool.task(first).fence, 0, b"chunk", None, pool.now)
    pool.flush()
    pool.done_many("worker-0", 3)
    assert [each.task_id for each in pool.new(Streamed)] == [first]
    assert len(pool.all(Finished)) == 3 + 16
