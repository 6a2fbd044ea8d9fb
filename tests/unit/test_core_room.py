"""Room in the queue: who is refused, who waits for room, and in which order they get it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from poolmgr.core.effects import Answer, Refusal
from poolmgr.core.room import KEPT_S, REQUESTS, Asked
from poolmgr.errors import QueueFull, ShuttingDown, WrongState
from poolmgr.model import TaskOptions
from tests.unit.driver import Pool


class Queue(Pool):
    """One worker that is busy, and clients who ask for room by requests that have their tokens' numbers."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(workers=1, **settings)
        self.last = 0
        self.runs = self.submit("runs")

    def ask(
        self,
        tasks: int = 1,
        *,
        name: str = "work",
        client: int = 1,
        timeout_s: float | None = None,
        **options: Any,
    ) -> int:
        self.last += 1
        room = self.scheduler.room
        room.admit(client, self.last)
        who = Asked(client, self.last, self.last)
        room.ask(who, name, TaskOptions(**options), tasks, timeout_s, self.now)
        self.flush()
        return self.last

    def places(self, request: int) -> int | None:
        """How many a request was given; None: it waits."""
        found = [answer.value for answer in self.all(Answer) if answer.token == request]
        return found[0] if found else None

    def refusal(self, request: int) -> str | None:
        found = [refusal.message for refusal in self.all(Refusal) if refusal.token == request]
        return found[0] if found else None

    def use(self, name: str = "work", *, client: int = 1, **options: Any) -> bytes:
        """Submit a task that had to wait."""
        assert self.scheduler.room.use(client, name)
        self._ids += 1
        id = self._ids.to_bytes(16, "big")
        self.scheduler.intake.submit(
            self.now, id, name, b"", TaskOptions(**options), client, True, has_place=True
        )  # fmt: skip
        self.flush()
        return id

    def next(self) -> None:
        """What runs ends, and the next begins."""
        self.done(self.running()[0])


# ------------------------------------------------------------------------------------- so many of a name


def test_no_more_of_a_name_wait_than_it_may() -> None:
    pool = Queue()
    for _ in range(2):
        pool.submit(max_queued=2)
    with pytest.raises(QueueFull, match=r"2 tasks 'work' wait, and 2 may \(max_queued\).*block=True"):
        pool.submit(max_queued=2)
    pool.submit("other")
    pool.next()
    pool.submit(max_queued=2)


@pytest.mark.parametrize("options", [{"delay_s": 5.0}, {"at": 1.9e9}, {}])
def test_what_waits_for_its_time_counts_as_what_waits_for_its_turn(options: dict[str, Any]) -> None:
    pool = Queue()
    pool.submit(max_queued=1, **options)
    with pytest.raises(QueueFull):
        pool.submit(max_queued=1)


def test_a_task_counts_no_more_once_it_runs_and_again_as_it_waits_for_its_retry() -> None:
    pool = Queue()
    task = pool.submit(max_queued=1, retry_backoff_s=1.0)
    pool.next()
    other = pool.submit(max_queued=1)
    pool.cancel(other)
    pool.fail(task)
    with pytest.raises(QueueFull):
        pool.submit(max_queued=1)
    pool.advance(1.0)
    pool.done(task)
    pool.submit(max_queued=1)


@pytest.mark.parametrize("end", ["cancel", "expire", "disconnect"])
def test_whatever_ends_it_makes_room(end: str) -> None:
    pool = Queue()
    task = pool.submit(max_queued=1, expires_s=1.0, durable=end != "disconnect")
    if end == "cancel":
        pool.cancel(task)
    elif end == "expire":
        pool.advance(1.0)
    else:
        pool.disconnect(1)
    assert pool.scheduler.state.crowds == {}


def test_what_is_recalled_waits_again() -> None:
    pool = Pool(workers=1)
    pool.teach("fast", 0.0001)
    pool.submit("fast")
    behind = pool.submit("fast", max_queued=1)
    assert pool.worker_of(behind) is not None
    assert pool.scheduler.state.crowds == {}
    pool.advance(0.02)
    pool.recall_sent("worker-0")
    assert pool.scheduler.state.crowds == {"fast": 1}


# ------------------------------------------------------------------------------------- in line


def test_where_there_is_room_it_is_had_at_once() -> None:
    pool = Queue(max_queue_depth=5)
    assert pool.places(pool.ask(3)) == 3
    assert pool.places(pool.ask(name="anything", client=2)) == 1


def test_without_a_limit_there_is_always_room() -> None:
    pool = Queue()
    assert pool.places(pool.ask(100)) == 100


def test_who_waits_is_told_when_there_is_room() -> None:
    pool = Queue(max_queue_depth=1)
    pool.submit()
    request = pool.ask()
    assert pool.places(request) is None
    pool.next()
    assert pool.places(request) == 1
    pool.use()
    with pytest.raises(QueueFull):
        pool.submit()


def test_what_somebody_was_promised_nobody_else_gets() -> None:
    pool = Queue(max_queue_depth=1)
    pool.ask()
    with pytest.raises(QueueFull, match="1 places are promised"):
        pool.submit()
    pool.use()


def test_who_has_not_waited_is_refused_while_others_wait() -> None:
    """Also in the turn in which the room comes."""
    pool = Queue(max_queue_depth=1)
    pool.submit()
    request = pool.ask()
    pool.scheduler.attempts_done("worker-0", [(pool.task(pool.runs).fence, pool.now, pool.now, b"")], pool.now)
    pool.lines["worker-0"].popleft()
    with pytest.raises(QueueFull):
        pool.submit()
    assert pool.places(request) == 1


def test_the_first_who_came_is_the_first_who_gets() -> None:
    pool = Queue(max_queue_depth=1)
    pool.submit()
    requests = [pool.ask(client=client) for client in (1, 2, 3)]
    for turn, client in enumerate((1, 2, 3)):
        pool.next()
        assert [pool.places(each) for each in requests] == [1] * (turn + 1) + [None] * (2 - turn)
        pool.use(client=client)


def test_who_wants_much_gets_its_share_and_hides_nobody() -> None:
    pool = Queue(max_queue_depth=4)
    for _ in range(4):
        pool.submit("fill")
    much, little = pool.ask(100), pool.ask(client=2)
    for task in [task.id for task in pool.scheduler.state.tasks.values() if task.slot is None]:
        pool.scheduler.intake.cancel(task, False, 7, pool.now)
    pool.flush()
    assert (pool.places(much), pool.places(little)) == (2, 1)
    pool.submit("fill")


def test_a_name_that_is_full_hides_nobody() -> None:
    pool = Queue(max_queue_depth=10)
    pool.submit(max_queued=1)
    waits = pool.ask(max_queued=1)
    assert pool.places(pool.ask(name="other")) == 1
    pool.submit("other")
    assert pool.places(waits) is None
    pool.next()
    assert pool.places(waits) == 1


def test_critical_work_waits_for_its_own_places() -> None:
    pool = Queue(max_queue_depth=1)
    pool.submit()
    pool.submit(priority=0)
    normal, urgent = pool.ask(), pool.ask(priority=0)
    pool.next()
    assert (pool.places(normal), pool.places(urgent)) == (None, 1)


def test_a_time_limit_ends_the_wait() -> None:
    pool = Queue(max_queue_depth=1)
    pool.submit()
    request, patient = pool.ask(timeout_s=2.0), pool.ask()
    pool.advance(1.9)
    assert pool.refusal(request) is None
    pool.advance(0.2)
    told = pool.refusal(request)
    assert told is not None
    assert told.startswith("there was no room in time: 1 tasks wait, and 1 may (max_queue_depth)")
    pool.next()
    assert pool.places(patient) == 1


def test_a_time_limit_of_nothing_is_a_question() -> None:
    pool = Queue(max_queue_depth=1)
    pool.submit()
    request = pool.ask(timeout_s=0.0)
    pool.advance(0.0)
    assert pool.refusal(request) is not None


def test_who_has_gone_waits_no_more_and_keeps_nothing() -> None:
    pool = Queue(max_queue_depth=1)
    pool.ask(client=2)
    waits, heir = pool.ask(client=2), pool.ask()
    pool.disconnect(2)
    assert pool.places(waits) == 0
    assert pool.places(heir) == 1


def test_what_is_given_back_others_get() -> None:
    pool = Queue(max_queue_depth=1)
    first, second, third = pool.ask(), pool.ask(), pool.ask()
    pool.scheduler.room.withdraw(1, first)
    pool.scheduler.room.withdraw(1, third)
    pool.flush()
    assert (pool.places(second), pool.places(third)) == (1, 0)
    assert not pool.scheduler.room.use(1, "other")


def test_places_that_nobody_uses_are_others_in_time() -> None:
    pool = Queue(max_queue_depth=1)
    pool.ask()
    heir = pool.ask(client=2)
    pool.advance(KEPT_S)
    assert pool.places(heir) == 1
    assert not pool.scheduler.room.use(1, "work")


def test_a_drain_ends_every_wait() -> None:
    pool = Queue(max_queue_depth=1)
    pool.submit()
    request = pool.ask()
    pool.scheduler.drain(pool.now)
    pool.flush()
    assert "shutting down" in (pool.refusal(request) or "")
    with pytest.raises(ShuttingDown):
        pool.ask()


def test_a_request_is_told_from_another_by_its_number() -> None:
    pool = Queue(max_queue_depth=1)
    first = pool.ask()
    with pytest.raises(WrongState):
        pool.scheduler.room.admit(1, first)
    pool.scheduler.room.admit(2, first)


def test_one_client_has_so_many_requests() -> None:
    pool = Queue(max_queue_depth=1)
    pool.submit()
    room = pool.scheduler.room
    for number in range(REQUESTS):
        room.ask(Asked(1, number, number + 1), "work", TaskOptions(), 1, None, pool.now)
    with pytest.raises(QueueFull):
        room.admit(1, REQUESTS)
    room.admit(2, 1)


def test_many_short_waits_leave_nothing_behind() -> None:
    pool = Queue(max_queue_depth=1)
    for _ in range(1000):
        pool.ask(timeout_s=1000.0)
        pool.use()
        pool.next()
    room = pool.scheduler.room
    assert len(room._times) < 200
    assert not room._oldest


# ------------------------------------------------------------------------------------- in any order


class AnyOrder(RuleBasedStateMachine):
    """Clients that wait, use, give back and go, in turns that nobody planned. After each: nobody is forgotten, and no
    more wait than may."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Queue(max_queue_depth=3)
        self.asked: dict[int, tuple[int, str]] = {}
        self.used: dict[int, int] = {}

    @rule(
        client=st.integers(1, 3),
        name=st.sampled_from("ab"),
        tasks=st.integers(1, 4),
        timeout_s=st.sampled_from([None, 0.5, 3.0]),
        priority=st.sampled_from([0, 10, 10]),
    )
    def ask(self, client: int, name: str, tasks: int, timeout_s: float | None, priority: int) -> None:
        if client not in self.pool.scheduler.state.sessions:
            self.pool.scheduler.intake.connected(client)
        request = self.pool.ask(
            tasks, name=name, client=client, timeout_s=timeout_s, priority=priority, max_queued=2 if name == "a" else 0
        )
        self.asked[request] = (client, name)

    @rule(client=st.integers(1, 3), name=st.sampled_from("ab"))
    def use(self, client: int, name: str) -> None:
        if self.pool.scheduler.room.use(client, name):
            self.pool.scheduler.intake.submit(
                self.pool.now, self.pool.last.to_bytes(8, "big") + len(self.pool.effects).to_bytes(8, "big"), name, b"",
                TaskOptions(max_queued=2 if name == "a" else 0), client, True, has_place=True,
            )  # fmt: skip
            self.pool.flush()

    @rule(name=st.sampled_from("ab"))
    def submit(self, name: str) -> None:
        try:
            self.pool.submit(name, max_queued=2 if name == "a" else 0)
        except QueueFull:
            pass

    @rule()
    def end_one(self) -> None:
        if self.pool.running():
            self.pool.next()

    @rule(pick=st.integers(0, 99))
    def withdraw(self, pick: int) -> None:
        if self.asked:
            request = sorted(self.asked)[pick % len(self.asked)]
            self.pool.scheduler.room.withdraw(self.asked[request][0], request)
            self.pool.flush()

    @rule(client=st.integers(2, 3))
    def disconnect(self, client: int) -> None:
        self.pool.disconnect(client)

    @rule(seconds=st.sampled_from([0.1, 1.0, KEPT_S]))
    def let_time_pass(self, seconds: float) -> None:
        self.pool.advance(seconds)

    @invariant()
    def holds(self) -> None:
        state = self.pool.scheduler.state
        assert state.waiting <= 6  # three, and three of CRITICAL work
        assert state.crowds.get("a", 0) <= 2
        answered = [answer.token for answer in self.pool.all(Answer)] + [r.token for r in self.pool.all(Refusal)]
        asked = [token for token in answered if token in self.asked]
        assert len(asked) == len(set(asked)), "a request was answered twice"

    def teardown(self) -> None:
        """Everything ends, and everybody has an answer."""
        for _ in range(200):
            if self.pool.running():
                self.pool.next()
            self.pool.advance(KEPT_S)
        assert all(self.pool.places(each) is not None or self.pool.refusal(each) is not None for each in self.asked), (
            "a request for room was never answered"
        )
        super().teardown()


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True)
test_in_any_order = AnyOrder.TestCase
