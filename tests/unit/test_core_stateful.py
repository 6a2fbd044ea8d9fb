"""Anything may happen in any order: the invariants hold after each step, and in the end every task has ended once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from poolmgr.core.changes import TaskEnded
from poolmgr.core.effects import Finished, Same
from poolmgr.core.failure import Failure
from poolmgr.errors import QueueFull, WrongState
from tests.unit.driver import VALUE_ERROR, WALL_OFFSET, Pool

_OPTIONS = st.fixed_dictionaries(
    {"durable": st.booleans(), "timeout_s": st.just(5.0)},
    optional={
        "priority": st.sampled_from([0, 10]),
        "max_retries": st.integers(0, 2),
        "retry_backoff_s": st.sampled_from([0.0, 1.0]),
        "requires": st.sampled_from([frozenset(), frozenset({"gpu"})]),
        "group": st.sampled_from("ab"),
        "key": st.sampled_from("kl"),
        "key_window_s": st.sampled_from([0.0, 3.0]),
        "delay_s": st.sampled_from([0.0, 2.0]),
        "at": st.just(1003.0 + WALL_OFFSET),
        "expires_s": st.just(2.0),
        "restartable": st.booleans(),
        "ephemeral": st.booleans(),
        "max_concurrency": st.sampled_from([0, 1]),
        "rate_limit": st.sampled_from([None, (2, 1.0)]),
        "affinity": st.sampled_from("mn"),
    },
)
_PICK = st.integers(0, 99)


class AnyOrder(RuleBasedStateMachine):
    """Clients, workers and the clock in turns that nobody planned."""

    def __init__(self) -> None:
        super().__init__()
        capabilities = {f"worker-{number}": {"gpu"} for number in (1, 2, 3)}
        self.pool = Pool(
            workers=3,
            capabilities=capabilities,
            max_tasks_per_worker=20,
            max_queue_depth=40,
            breaker_failures=2,
            breaker_open_s=4.0,
        )
        self.pool.teach("fast", 0.0001, count=20)

    def _worker(self, pick: int) -> str:
        slots = sorted(self.pool.scheduler.state.slots)
        return slots[pick % len(slots)]

    @rule(name=st.sampled_from(["fast", "fast", "slow"]), options=_OPTIONS, count=st.integers(1, 4))
    def submit(self, name: str, options: dict[str, Any], count: int) -> None:
        for _ in range(count):
            try:
                self.pool.submit(name, **options)
            except (QueueFull, WrongState):  # there is no room; a call has its key
                return

    @precondition(lambda self: self.pool.running())
    @rule(pick=_PICK, ends=st.sampled_from(["done", "done", "done", "fail", "oom", "retry"]))
    def end_an_attempt(self, pick: int, ends: str) -> None:
        running = self.pool.running()
        task = running[pick % len(running)]
        if ends == "done":
            self.pool.done(task, run_s=0.0001)
        else:
            failures = {"fail": VALUE_ERROR, "oom": Failure("out_of_memory", ""), "retry": Failure("task_failed", "")}
            delay_s = 0.5 if ends == "retry" else None
            self.pool.fail(task, failures[ends]._replace(retry_delay_s=delay_s))

    @rule(pick=_PICK, begun=st.booleans())
    def kill_a_worker(self, pick: int, begun: bool) -> None:
        worker = self._worker(pick)
        if worker not in self.pool.lines or self.pool.slot(worker).state in ("stopped", "failed"):
            return
        if not begun and self.pool.lines[worker]:
            self.pool.pages[worker] = (self.pool.lines[worker][0] - 1, self.pool.now)
        self.pool.die(worker)

    @rule(pick=_PICK)
    def answer_a_recall(self, pick: int) -> None:
        worker = self._worker(pick)
        slot = self.pool.slot(worker)
        if slot.recalling:
            self.pool.recall_sent(worker)
            self.pool.recalled(worker, *[task.id for task in list(slot.in_flight)[1:] if task.fence <= slot.recalling])

    @precondition(lambda self: self.pool.scheduler.state.tasks)
    @rule(pick=_PICK, kill=st.booleans())
    def cancel(self, pick: int, kill: bool) -> None:
        tasks = list(self.pool.scheduler.state.tasks)
        self.pool.cancel(tasks[pick % len(tasks)], kill=kill)

    @rule(seconds=st.sampled_from([0.0, 0.02, 0.5, 3.0, 12.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.pool.advance(seconds)

    @rule(jump_s=st.sampled_from([-5.0, 5.0]))
    def set_the_clock(self, jump_s: float) -> None:
        self.pool.scheduler.clock_changed(self.pool.scheduler.state.wall_offset + jump_s, self.pool.now)
        self.pool.flush()

    @rule(name=st.sampled_from(["fast", "slow"]), on=st.booleans())
    def pause(self, name: str, on: bool) -> None:
        intake = self.pool.scheduler.intake
        (intake.pause if on else intake.resume)(name)
        self.pool.flush()

    @rule(name=st.sampled_from(["fast", "slow"]))
    def reset_a_breaker(self, name: str) -> None:
        self.pool.scheduler.breakers.reset(name)
        self.pool.flush()

    @rule(size=st.integers(2, 4))
    def scale(self, size: int) -> None:
        self.pool.scheduler.supervisor.scale(size, self.pool.now)
        self.pool.flush()

    @rule()
    def client_goes(self) -> None:
        self.pool.disconnect(1)
        self.pool.scheduler.intake.connected(1)

    def teardown(self) -> None:
        """No more faults: what can run must run to its end, and no task ends twice."""
        pool = self.pool
        for name in ("fast", "slow"):
            pool.scheduler.intake.resume(name)
        pool.scheduler.supervisor.scale(3, pool.now)
        pool.flush()
        for _ in range(400):
            for slot in list(pool.scheduler.state.slots.values()):
                if slot.doomed or (slot.state == "draining" and not slot.in_flight):
                    pool.die(slot.id, "exited 0")
                elif slot.recalling:
                    pool.recalled(slot.id, *[task.id for task in list(slot.in_flight)[1:]])
            for task in pool.running():
                if task in pool.scheduler.state.tasks and not pool.slot(pool.worker_of(task) or "").doomed:
                    pool.done(task, run_s=0.0001)
            pool.advance(1.0)
            if not pool.scheduler.state.tasks:
                break
        self._check_ends()

    def _check_ends(self) -> None:
        pool = self.pool
        left = list(pool.scheduler.state.tasks.values())
        assert not left, f"{[(task.state, task.options) for task in left]} can run, and do not"
        told = Counter(finished.task_id for finished in pool.all(Finished))
        same = Counter(told.task_id for told in pool.all(Same))
        assert all(count <= 1 + same[task] for task, count in told.items())
        ended = Counter(change.id for change in pool.changes(TaskEnded))
        assert all(count == 1 for count in ended.values())


AnyOrder.TestCase.settings = settings(max_examples=20, stateful_step_count=30, derandomize=True)
TestAnyOrder = AnyOrder.TestCase
