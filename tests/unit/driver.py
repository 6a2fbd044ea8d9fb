"""Stands in the shell's place: a scheduler, honest workers that do what they are told, and a clock that is moved.

    pool = Pool(workers=2)
    task = pool.submit("thumbnail", max_retries=1)
    pool.fail(task)
    pool.advance(1.0)
    assert pool.state(task) == "running"

After every input the effects are taken and ``check_invariants`` is asked. Honest workers begin what is first in their
line at once, show it on their page, and let their hearts beat. A test that wants them otherwise sets ``pages``,
``silent`` or ``answers_looks``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from poolmgr.config import Settings
from poolmgr.core.balancer import Balancer
from poolmgr.core.changes import Change
from poolmgr.core.effects import (
    Drained,
    Effect,
    Emit,
    Finished,
    Kill,
    Look,
    Persist,
    Retire,
    Spawn,
    Start,
    one_by_one,
)
from poolmgr.core.failure import Failure
from poolmgr.core.invariants import check_invariants
from poolmgr.core.scheduler import Scheduler
from poolmgr.core.slot import Slot
from poolmgr.core.task import Task
from poolmgr.model import TaskOptions, TaskState

_E = TypeVar("_E", bound=Effect)
_C = TypeVar("_C", bound=Change)

WALL_OFFSET = 1_700_000_000.0
VALUE_ERROR = Failure("task_failed", "bad", "ValueError", "Traceback ...", ("ValueError", "Exception"))


class Pool:
    """A scheduler and all that is around it. The clock begins at 1000 s; client 1 is connected and watches."""

    def __init__(
        self,
        workers: int = 1,
        *,
        ready: bool = True,
        begin: bool = True,
        capabilities: dict[str, set[str]] | None = None,
        balancer: Balancer | None = None,
        random: Callable[[], float] = lambda: 0.0,
        **settings: Any,
    ) -> None:
        bounds = {"min_workers": 1, "max_workers": 50}
        self.now = 1000.0
        self.scheduler = Scheduler(
            Settings(pool_size=workers, **(bounds | settings)),
            random=random,
            balancer=balancer,
            wall_offset=WALL_OFFSET,
        )
        self.capabilities = capabilities or {}
        self.effects: list[Effect] = []  # all of them, ever
        self.latest: list[Effect] = []  # those of the latest input
        self.lines: dict[str, deque[int]] = {}  # what each worker holds, as fences
        self.pages: dict[str, tuple[int, float]] = {}  # (fence, begun at)
        self.cpu_percent: float | None = 10.0  # of the machine
        self.silent: set[str] = set()  # workers whose hearts do not beat
        self.answers_looks = True
        self.comes_up = ready  # new processes get ready by themselves
        self._ids = 0
        self._to_come: list[Spawn] = []
        self.scheduler.intake.connected(1)
        if begin:
            self.begin()

    # ------------------------------------------------------------------------------------------ the cycle

    def begin(self) -> None:
        """The pool is filled."""
        self.scheduler.begin(self.now)
        self.flush()

    def flush(self) -> list[Effect]:
        """Take the effects of an input, and do what an honest shell and honest workers would."""
        check_invariants(self.scheduler)
        self.latest = []
        self._take()
        while self.comes_up and self._to_come:
            spawn = self._to_come.pop(0)
            self.scheduler.worker_spawned(spawn.worker, spawn.incarnation, _pid(spawn.worker, spawn.incarnation))
            capabilities = frozenset(self.capabilities.get(spawn.worker, ()))
            self.scheduler.worker_ready(spawn.worker, spawn.incarnation, capabilities, self.now)
            check_invariants(self.scheduler)
            self._take()
        return self.latest

    def _take(self) -> None:
        taken = one_by_one(self.scheduler.flush(self.now))
        check_invariants(self.scheduler)
        self.latest += taken
        self.effects += taken
        for effect in taken:
            if isinstance(effect, Spawn):
                self.lines[effect.worker] = deque()
                self.pages[effect.worker] = (0, 0.0)
                self._to_come.append(effect)
            elif isinstance(effect, Start):
                self.lines[effect.worker].append(effect.fence)
                if len(self.lines[effect.worker]) == 1:
                    self.pages[effect.worker] = (effect.fence, self.now)
        for effect in taken:
            if isinstance(effect, Look) and self.answers_looks and self.slot(effect.worker).incarnation:
                fence, begun_at = self.pages[effect.worker]
                self.scheduler.page_seen(effect.worker, effect.incarnation, fence, begun_at, self.now)
                check_invariants(self.scheduler)
                self._take()

    def advance(self, seconds: float) -> None:
        """Let time pass: ticks come when the scheduler wants them, and hearts beat."""
        until = self.now + seconds
        latest: list[Effect] = []
        while (wake := self.scheduler.next_wake()) <= until:
            self.now = max(self.now, wake)
            self._beat()
            self.scheduler.tick(self.now)
            latest += self.flush()
        self.now = until
        self._beat()
        self.latest = latest

    def jump(self, seconds: float) -> None:
        """Let time pass without a tick until its end, as if this process had been blocked."""
        self.now += seconds
        self.scheduler.tick(self.now)
        self.flush()

    def _beat(self) -> None:
        if self.cpu_percent is not None:
            self.scheduler.autoscaler.machine(self.cpu_percent, self.now)
        for slot in list(self.scheduler.state.slots.values()):
            if slot.id not in self.silent:
                self.scheduler.heartbeat(slot.id, slot.incarnation, self.now)

    # ------------------------------------------------------------------------------------------ clients

    def submit(
        self,
        name: str = "work",
        *,
        id: bytes | None = None,
        payload: bytes = b"",
        client: int = 1,
        watch: bool = True,
        **options: Any,
    ) -> bytes:
        """Submit a task with ``TaskOptions(**options)``; its id."""
        if id is None:
            self._ids += 1
            id = self._ids.to_bytes(16, "big")
        intake = self.scheduler.intake
        try:
            intake.submit(self.now, id, name, payload, TaskOptions(**options), client, watch)
        finally:
            self.flush()
        return id

    def submit_many(self, count: int, name: str = "work", **options: Any) -> list[bytes]:
        """``count`` tasks that arrive together."""
        ids, shared = [], TaskOptions(**options)  # as the server's cache of options has it
        for _ in range(count):
            self._ids += 1
            ids.append(self._ids.to_bytes(16, "big"))
            self.scheduler.intake.submit(self.now, ids[-1], name, b"", shared, 1, True)
        self.flush()
        return ids

    def cancel(self, task: bytes, *, kill: bool = False, token: int = 7) -> None:
        self.scheduler.intake.cancel(task, kill, token, self.now)
        self.flush()

    def disconnect(self, client: int) -> None:
        self.scheduler.intake.disconnected(client, self.now)
        self.flush()

    # ------------------------------------------------------------------------------------------ workers

    def done(self, task: bytes, *, run_s: float = 0.0, payload: bytes = b"result") -> None:
        """The worker that runs ``task`` completes it."""
        worker, fence = self._running(task)
        self._page_on(worker)
        self.scheduler.attempts_done(worker, [(fence, self.now - run_s, self.now, payload)], self.now)
        self.flush()

    def done_many(self, worker: str, count: int) -> None:
        """The worker has completed the first ``count`` tasks that it holds, when their results are read."""
        tasks = list(self.slot(worker).in_flight)[:count]
        for _ in tasks:
            self._page_on(worker)
        results = [(task.fence, self.now, self.now, b"result of " + task.id) for task in tasks]
        self.scheduler.attempts_done(worker, results, self.now)
        self.flush()

    def fail(self, task: bytes, failure: Failure = VALUE_ERROR) -> None:
        """The handler of ``task`` fails."""
        worker, fence = self._running(task)
        self._page_on(worker)
        self.scheduler.attempt_failed(worker, fence, self.now, self.now, failure, self.now)
        self.flush()

    def release(self, task: bytes) -> None:
        """The worker that runs ``task`` gives it up, as it was asked to."""
        worker, fence = self._running(task)
        self._page_on(worker)
        self.scheduler.released(worker, fence, self.now, self.now, self.now)
        self.flush()

    def preempt(self, task: bytes) -> bool:
        """Somebody asks for it; whether it was asked."""
        asked = self.scheduler.preemption.ask(task, self.now)
        self.flush()
        return asked

    def die(self, worker: str, how: str = "killed by SIGKILL") -> None:
        """The worker's process ends; its page shows what it shows."""
        fence, begun_at = self.pages[worker]
        incarnation = self.slot(worker).incarnation
        self.lines[worker].clear()
        self.scheduler.worker_exited(worker, incarnation, how, fence, begun_at, self.now)
        self.flush()

    def recalled(self, worker: str, *tasks: bytes) -> None:
        """The worker answers a recall: it has not begun these."""
        fences = [self.task(task).fence for task in tasks]
        self.lines[worker] = deque(fence for fence in self.lines[worker] if fence not in fences)
        self.scheduler.recalled(worker, self.slot(worker).incarnation, fences, self.now)
        self.flush()

    def recall_sent(self, worker: str) -> None:
        """RECALL is written, and then the page is read: what it proves not to have begun is free."""
        slot = self.slot(worker)
        self.scheduler.recall_sent(worker, slot.incarnation, self.pages[worker][0], self.now)
        self.lines[worker] = deque(task.fence for task in slot.in_flight)
        self.flush()

    def teach(self, name: str, run_s: float, count: int = 16) -> None:
        """Let ``count`` tasks of a name run for ``run_s`` each, so that its depth is known."""
        for _ in range(count):
            self.done(self.submit(name), run_s=run_s)

    def _running(self, task: bytes) -> tuple[str, int]:
        found = self.task(task)
        assert found.state is TaskState.RUNNING, f"the task is {found.state}"
        assert found.slot is not None
        return found.slot, found.fence

    def _page_on(self, worker: str) -> None:
        """A result is written before the next task is begun: by when it is read, the page shows the next."""
        line = self.lines[worker]
        line.popleft()
        if line:
            self.pages[worker] = (line[0], self.now)

    # ------------------------------------------------------------------------------------------ what is seen

    def task(self, id: bytes) -> Task:
        return self.scheduler.state.tasks[id]

    def slot(self, worker: str = "worker-0") -> Slot:
        return self.scheduler.state.slots[worker]

    def state(self, id: bytes) -> str:
        """The state that a task is in, or ended in."""
        live = self.scheduler.state.tasks.get(id)
        if live is not None:
            return str(live.state)
        return str(self.end(id).state)

    def end(self, id: bytes) -> Finished:
        """How a task ended, as its watcher was told (once)."""
        [found] = [each for each in self.all(Finished) if each.task_id == id]
        return found

    def worker_of(self, id: bytes) -> str | None:
        return self.task(id).slot

    def running(self) -> list[bytes]:
        """The running tasks, in the order of their fences."""
        live = self.scheduler.state.tasks.values()
        running = [task for task in live if task.state is TaskState.RUNNING]
        return [task.id for task in sorted(running, key=lambda task: task.fence)]

    def all(self, kind: type[_E]) -> list[_E]:
        """All effects of a kind, ever."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def new(self, kind: type[_E]) -> list[_E]:
        """The effects of a kind that the latest input (or ``advance``) had."""
        return [effect for effect in self.latest if isinstance(effect, kind)]

    def changes(self, kind: type[_C]) -> list[_C]:
        """All that was to be remembered, of one kind."""
        found = [change for persist in self.all(Persist) for change in persist.changes]
        return [change for change in found if isinstance(change, kind)]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The fields of all events of that name."""
        return [event.fields for event in self.all(Emit) if event.name == name]

    def killed(self) -> list[tuple[str, str]]:
        """(worker, reason) of each kill."""
        return [(kill.worker, kill.reason) for kill in self.all(Kill)]

    def retired(self) -> list[str]:
        return [retire.worker for retire in self.all(Retire)]

    def drained(self) -> bool:
        return bool(self.all(Drained))


def _pid(worker: str, incarnation: int) -> int:
    return 1000 * incarnation + int(worker.rpartition("-")[2])
