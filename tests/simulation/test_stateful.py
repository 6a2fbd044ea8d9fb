"""The scheduler under calls in any order: Hypothesis looks for a short sequence that breaks an invariant.

The simulator keeps to what workers can do; here a worker begins, ends, dies or answers a recall at any moment, and the
sequences are shrunk. Workers run what they were sent in order, and show it on their page once they have begun it.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from poolmgr.config import Settings
from poolmgr.core.effects import (
    Answer,
    Continue,
    Drained,
    Effect,
    Finished,
    Inspect,
    Look,
    Recall,
    Spawn,
    Start,
    one_by_one,
)
from poolmgr.core.failure import Failure
from poolmgr.core.invariants import check_invariants
from poolmgr.core.measurements import RunTimes
from poolmgr.core.scheduler import Scheduler
from poolmgr.errors import PoolError
from poolmgr.model import TaskOptions

CLIENT = 1
FAILURES = (
    Failure("task_failed", "no luck", "ValueError", "", ("ValueError", "Exception")),
    Failure("task_failed", "later", "Retry", "", (), 0.5),
    Failure("task_failed", "never again", "Retry", "", (), False),
    Failure("bad_arguments", "it takes none"),
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from([0, 10, 50]),
        "group": st.sampled_from(["a", "b"]),
        "key": st.sampled_from(["k", "l"]),
        "key_window_s": st.sampled_from([0.0, 2.0]),
        "delay_s": st.sampled_from([0.1, 5.0]),
        "expires_s": st.sampled_from([0.1, 3.0]),
        "timeout_s": st.sampled_from([1.0, None]),
        "soft_timeout_s": st.sampled_from([0.5, 2.0]),
        "max_retries": st.sampled_from([0, 2]),
        "durable": st.booleans(),
        "restartable": st.booleans(),
        "ephemeral": st.booleans(),
        "requires": st.sampled_from([frozenset(), frozenset({"gpu"})]),
        "affinity": st.sampled_from(["model"]),
        "rate_limit": st.sampled_from([(1, 1.0), (2, 5.0)]),
        "max_concurrency": st.sampled_from([0, 1]),
    },
)


class Worker:
    """One process: what it was sent and has not ended, oldest first."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.line: deque[Start] = deque()
        self.ready = False
        self.begun = 0  # the fence on its page
        self.begun_at = 0.0


class SchedulerMachine(RuleBasedStateMachine):
    """Hypothesis calls the rules in any order."""

    @initialize(
        pool_size=st.integers(1, 3),
        tasks_limit=st.sampled_from([0, 2]),
        depth=st.integers(0, 15),
        queue=st.sampled_from([0, 4]),
        tolerated=st.sampled_from([0, 1, 2]),
    )
    def begin(self, pool_size: int, tasks_limit: int, depth: int, queue: int, tolerated: int) -> None:
        self.now = 100.0
        self.workers: dict[str, Worker] = {}
        self.ids: list[bytes] = []
        self.asked: set[int] = set()
        self.token = 0
        self.last_fence = 0
        options = Settings(
            pool_size=pool_size, min_workers=1, max_workers=4, max_tasks_per_worker=tasks_limit, max_queue_depth=queue,
            poison_after=2, zombie_after_s=6.0, breaker_failures=tolerated, breaker_open_s=2.0,
        )  # fmt: skip
        self.scheduler = Scheduler(options, random=lambda: 0.5)
        self.scheduler.state.statistics.by_name["short"] = RunTimes()
        self.scheduler.state.statistics.by_name["short"].depth = depth + 1
        self.scheduler.begin(self.now)
        self.scheduler.intake.connected(CLIENT)
        self.flush()

    # ------------------------------------------------------------------------------------------ what is done

    def flush(self) -> None:
        while effects := one_by_one(self.scheduler.flush(self.now)):
            for effect in effects:
                self.perform(effect)

    def perform(self, effect: Effect) -> None:
        scheduler = self.scheduler
        if isinstance(effect, Spawn):
            self.workers[effect.worker] = Worker(effect.incarnation)
        elif isinstance(effect, Start):
            assert effect.fence > self.last_fence
            self.last_fence = effect.fence
            self.workers[effect.worker].line.append(effect)
        elif isinstance(effect, Look):
            worker = self.workers[effect.worker]
            scheduler.page_seen(*effect, worker.begun, worker.begun_at, self.now)
        elif isinstance(effect, Recall):
            scheduler.recall_sent(effect.worker, effect.incarnation, self.workers[effect.worker].begun, self.now)
        elif isinstance(effect, Inspect):
            scheduler.inspected(*effect, "asleep", self.now)
        elif isinstance(effect, Answer):
            assert effect.token in self.asked
            self.asked.remove(effect.token)
        else:
            assert not isinstance(effect, Drained)
            assert not isinstance(effect, Finished) or effect[0] in (0, CLIENT)
            assert not isinstance(effect, Continue)

    def current(self, worker: str) -> Worker:
        """The worker, without what it was recalled or relieved of."""
        found = self.workers[worker]
        slot = self.scheduler.state.slots.get(worker)
        fences = {task.fence for task in slot.in_flight} if slot is not None else set()
        found.line = deque(start for start in found.line if start.fence in fences)
        return found

    def some_worker(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.workers)))

    # ------------------------------------------------------------------------------------------ clients

    @rule(name=st.sampled_from(["short", "long"]), options=OPTIONS, watch=st.booleans(), flush=st.booleans())
    def submit(self, name: str, options: dict[str, Any], watch: bool, flush: bool) -> None:
        id = len(self.ids).to_bytes(16, "big")
        self.ids.append(id)
        try:
            self.scheduler.intake.submit(self.now, id, name, b"", TaskOptions(**options), CLIENT, watch)
        except PoolError:
            pass
        if flush:
            self.flush()

    @rule(count=st.integers(1, 5), options=OPTIONS, watch=st.booleans())
    def submit_many(self, count: int, options: dict[str, Any], watch: bool) -> None:
        ids = [(len(self.ids) + number).to_bytes(16, "big") for number in range(count)]
        submit_many = self.scheduler.intake.submit_many
        if submit_many(self.now, ids, "short", [b""] * count, TaskOptions(**options), CLIENT, watch):
            self.ids += ids
        self.flush()

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), kill=st.booleans())
    def cancel(self, data: st.DataObject, kill: bool) -> None:
        self.token += 1
        self.asked.add(self.token)
        try:
            self.scheduler.intake.cancel(data.draw(st.sampled_from(self.ids)), kill, self.token, self.now)
        except PoolError:
            self.asked.remove(self.token)
        self.flush()

    @rule(name=st.sampled_from(["short", "long"]), pause=st.booleans())
    def pause(self, name: str, pause: bool) -> None:
        (self.scheduler.intake.pause if pause else self.scheduler.intake.resume)(name)
        self.flush()

    @rule()
    def clear(self) -> None:
        self.scheduler.intake.clear(self.now)
        self.flush()

    @rule()
    def reconnect(self) -> None:
        self.scheduler.intake.disconnected(CLIENT, self.now)
        self.scheduler.intake.connected(CLIENT)
        self.flush()

    @rule(size=st.integers(1, 4))
    def scale(self, size: int) -> None:
        self.scheduler.supervisor.scale(size, self.now)
        self.flush()

    # ------------------------------------------------------------------------------------------ workers

    @rule(data=st.data(), gpu=st.booleans())
    def ready(self, data: st.DataObject, gpu: bool) -> None:
        name = self.some_worker(data)
        worker = self.workers[name]
        worker.ready = True
        capabilities = frozenset({"gpu"} if gpu else ())
        self.scheduler.worker_ready(name, worker.incarnation, capabilities, self.now)
        self.flush()

    @rule(data=st.data(), took_s=st.sampled_from([0.0001, 0.3]), failure=st.sampled_from([None, None, *FAILURES]))
    def finish(self, data: st.DataObject, took_s: float, failure: Failure | None) -> None:
        name = self.some_worker(data)
        if self.current(name).line:
            self.now += took_s
            self._finish(name, failure)

    def _finish(self, name: str, failure: Failure | None) -> None:
        worker = self.current(name)
        fence = worker.line.popleft().fence
        worker.begun, worker.begun_at = fence, self.now
        if failure is None:
            self.scheduler.attempts_done(name, [(fence, self.now, self.now, b"")], self.now)
        else:
            self.scheduler.attempt_failed(name, fence, self.now, self.now, failure, self.now)
        self.flush()

    @rule(data=st.data())
    def begins(self, data: st.DataObject) -> None:
        worker = self.current(self.some_worker(data))
        if worker.line and worker.begun != worker.line[0].fence:
            worker.begun, worker.begun_at = worker.line[0].fence, self.now

    @rule(data=st.data(), count=st.integers(0, 3))
    def recalled(self, data: st.DataObject, count: int) -> None:
        name = self.some_worker(data)
        worker = self.current(name)
        free = [start.fence for start in worker.line if start.fence != worker.begun]
        self.scheduler.recalled(name, worker.incarnation, free[len(free) - min(count, len(free)) :], self.now)
        self.flush()

    @rule(data=st.data(), broken=st.booleans())
    def dies(self, data: st.DataObject, broken: bool) -> None:
        name = self.some_worker(data)
        worker = self.current(name)
        if broken:
            self.scheduler.worker_broken(name, worker.incarnation, "garbage", self.now)
        self._dies(name, worker)

    def _dies(self, name: str, worker: Worker) -> None:
        worker.line.clear()
        self.scheduler.worker_exited(name, worker.incarnation, "killed", worker.begun, worker.begun_at, self.now)
        self.flush()

    @rule(data=st.data())
    def old_news(self, data: st.DataObject) -> None:
        self.flush()
        name = self.some_worker(data)
        worker = self.workers[name]
        fence = data.draw(st.integers(0, max(0, self.last_fence)))
        if all(start.fence != fence for start in self.current(name).line):
            self.scheduler.attempts_done(name, [(fence, self.now, self.now, b"")], self.now)
        self.scheduler.worker_exited(name, worker.incarnation - 1, "killed", fence, self.now, self.now)
        self.scheduler.page_seen(name, worker.incarnation - 1, fence, self.now, self.now)
        assert not self.scheduler.state.effects
        self.flush()

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.5, 1.0, 7.0]), beat=st.booleans())
    def wait(self, seconds: float, beat: bool) -> None:
        until = self.now + seconds
        while self.scheduler.next_wake() <= until:
            self.now = max(self.now, self.scheduler.next_wake())
            if beat:
                for name, worker in self.workers.items():
                    self.scheduler.heartbeat(name, worker.incarnation, self.now)
            self.scheduler.tick(self.now)
            self.flush()
        self.now = until

    # ------------------------------------------------------------------------------------------ what must hold

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "scheduler"):
            check_invariants(self.scheduler)

    def teardown(self) -> None:
        """Where nothing goes wrong any more, everything ends."""
        if not hasattr(self, "scheduler"):
            return
        scheduler = self.scheduler
        for name in ("short", "long"):
            scheduler.intake.resume(name)
        scheduler.supervisor.scale(4, self.now)
        self.flush()
        for _ in range(2000):
            if not scheduler.state.tasks:
                break
            self._calm_step()
            self.wait(0.05, beat=True)
        left = [f"{task.state} {task.options}" for task in scheduler.state.tasks.values()]
        assert not left, left
        assert not self.asked, f"never answered: {self.asked}"
        check_invariants(scheduler)

    def _calm_step(self) -> None:
        for name in list(self.workers):
            slot = self.scheduler.state.slots.get(name)
            worker = self.workers[name]
            if slot is None or slot.incarnation != worker.incarnation:
                continue
            if slot.state == "starting":
                self.scheduler.worker_ready(name, worker.incarnation, frozenset({"gpu"}), self.now)
                self.flush()
            elif self.current(name).line and slot.doomed is None:
                self._finish(name, None)
            elif slot.state in ("draining", "unhealthy"):
                self._dies(name, worker)
            elif "gpu" not in slot.capabilities and slot.state == "ready":
                slot.capabilities = frozenset({"gpu"})


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
