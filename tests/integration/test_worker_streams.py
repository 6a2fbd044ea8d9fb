"""Real worker processes that run streams, and tasks with checkpoints, with the test in the place of the manager."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest

from poolmgr.manager.clock import now
from poolmgr.manager.trial import NO_SUCH_JOB, Job, Trial
from poolmgr.wire.messages import (
    CHECKPOINT_LIMIT,
    CHUNK,
    CHUNK_LIMIT,
    CREDIT,
    DONE,
    INTERRUPT,
    RAISED,
    RECALL,
    RECALLED,
    RELEASED,
    REPORT,
)
from poolmgr.wire.values import pack, pack_call, unpack

APPS = Path(__file__).resolve().parents[1] / "apps"
COMMAND = [sys.executable, "-P", "-m", "poolmgr.worker.spawned", str(APPS), "streaming"]
ALL = 1 << 40  # credit for whatever comes


@pytest.fixture
def worker() -> Iterator[Trial]:
    with Trial(COMMAND, 10.0) as trial:
        *_, info = trial.message("READY")
        assert info["streams"] is True
        yield trial


@pytest.fixture
def gate(tmp_path: Path) -> str:
    path = str(tmp_path / "gate")
    os.mkfifo(path)
    return path


def job(name: str, *arguments: Any) -> Job:
    return Job(name, pack_call(arguments, {}))


def start(worker: Trial, name: str, *arguments: Any, resume: list[Any] | None = None, credit: int = ALL) -> int:
    return worker.start_stream(job(name, *arguments), resume, credit)


def interrupt(worker: Trial, fence: int, reason: str) -> None:
    worker.tell([INTERRUPT, fence, reason], interrupt=True)


def give(worker: Trial, fence: int, up_to: int = ALL) -> None:
    worker.tell([CREDIT, fence, up_to, ALL])


def holds_back(worker: Trial, fence: int) -> None:
    """It has come to a chunk that there is no credit for: that is where it answers a recall."""
    worker.tell([RECALL, fence])
    message = worker.message("RECALLED")
    assert message == [RECALLED, []]


def open_gate(gate: str) -> None:
    open(gate, "w").close()


def waits(worker: Trial) -> None:
    """The handler has come to its gate."""
    message = worker.message("REPORT")
    assert message[0] == REPORT
    assert message[3] == "waits"


class Attempt:
    """All that a worker says of one attempt, to its end."""

    def __init__(self, worker: Trial, fence: int, chunks: int | None = None) -> None:
        """``chunks``: stop when so many have come."""
        self.seqs: list[int] = []
        self.values: list[Any] = []
        self.checkpoints: list[tuple[int, Any]] = []  # (where it goes on, state), those with a chunk as those without
        self.end: Sequence[Any] | None = None
        while chunks is None or len(self.values) < chunks:
            said = worker.say_of_stream(fence)
            if said[0] != CHUNK:
                self.end = said
                return
            _, _, seq, payload, checkpoint = said
            if payload is not None:
                self.seqs.append(seq)
                self.values.append(unpack(payload))
            if checkpoint is not None:
                self.checkpoints.append((seq + (payload is not None), unpack(checkpoint)))

    @property
    def failure(self) -> dict[str, str]:
        assert self.end is not None
        found: dict[str, str] = msgpack.unpackb(self.end[6])
        return found

    @property
    def outcome(self) -> Any:
        """RELEASED, what it returned, or (code, type, message)."""
        assert self.end is not None
        if self.end[0] == DONE:
            return unpack(self.end[4])
        if self.end[0] == RAISED:
            return self.end[4], self.failure["type"], self.failure["message"]
        assert self.end[0] == RELEASED
        return RELEASED


def still_works(worker: Trial) -> None:
    assert Attempt(worker, start(worker, "texts", 1)).values == ["text 0"]


# ------------------------------------------------------------------------------------------ chunks


@pytest.mark.parametrize(("name", "result"), [("texts", 5), ("texts_async", None)])
def test_each_yield_is_a_chunk_and_the_end_a_result(worker: Trial, name: str, result: Any) -> None:
    attempt = Attempt(worker, start(worker, name, 5))
    assert attempt.seqs == [0, 1, 2, 3, 4]
    assert attempt.values == [f"text {number}" * (1 + number % 5) for number in range(5)]
    assert attempt.outcome == result
    assert Attempt(worker, start(worker, name, 0)).values == []


def test_a_chunk_is_written_before_the_generator_goes_on(worker: Trial) -> None:
    fence = start(worker, "told_in_between", 20)
    said = [worker.message("more")[:4] for _ in range(41)]
    assert [message[0] for message in said] == [REPORT, CHUNK] * 20 + [DONE]
    assert [message[2] for message in said if message[0] == CHUNK] == list(range(20))
    assert {message[1] for message in said} == {fence}


def test_large_chunks_come_whole(worker: Trial) -> None:
    sizes = [1, 40_000, 0, CHUNK_LIMIT - 5, 300_000]
    values = Attempt(worker, start(worker, "of_size", *sizes)).values
    assert [len(value) for value in values] == sizes
    assert all(value.count(number) == len(value) for number, value in enumerate(values))


def test_a_chunk_over_the_limit_fails_the_task(worker: Trial) -> None:
    attempt = Attempt(worker, start(worker, "of_size", 1, CHUNK_LIMIT, 1))
    assert attempt.seqs == [0]
    code, _, message = attempt.outcome
    assert code == "bad_result"
    assert message.startswith("the chunk 1 takes 50.00 MB, and the limit is 50.00 MB")
    still_works(worker)


def test_a_chunk_that_cannot_be_carried_fails_the_task(worker: Trial, tmp_path: Path) -> None:
    """... with the path to what cannot be, and the chunk's number; the generator's ``finally`` runs."""
    attempt = Attempt(worker, start(worker, "not_carried", 2, str(tmp_path / "ended")))
    assert attempt.values == [0, 1]
    assert attempt.outcome == ("bad_result", "", "chunk 2['x'][0]: cannot carry a value of type _thread.lock")
    assert attempt.checkpoints == []  # what it would keep then is behind a chunk that never came
    assert (tmp_path / "ended").exists()
    attempt = Attempt(worker, start(worker, "checkpoint_not_carried"))
    assert attempt.values == []
    assert attempt.outcome[::2] == (
        "bad_result", "checkpoint of chunk 0['y']: cannot carry a value of type _thread.lock",
    )  # fmt: skip


def test_a_generator_that_fails_has_failed_behind_its_chunks(worker: Trial) -> None:
    attempt = Attempt(worker, start(worker, "fails_at", 3))
    assert attempt.values == [0, 1, 2]
    assert attempt.outcome == ("task_failed", "LookupError", "at 3")
    lines = attempt.failure["traceback"].splitlines()
    assert "streaming.py" in lines[1], "it begins in the handler"
    assert not any("poolmgr/worker" in line for line in lines)


def test_what_is_called_wrongly_is_told_so(worker: Trial) -> None:
    for name in ("texts", "texts_async"):
        assert Attempt(worker, start(worker, name)).outcome[0] == "bad_arguments"


def test_a_plain_handler_that_returns_a_generator_is_no_stream(worker: Trial) -> None:
    attempt = Attempt(worker, start(worker, "returns_a_generator"))
    assert attempt.outcome[::2] == ("bad_result", "result: cannot carry a value of type generator")


def test_what_a_generator_changes_in_the_interpreter_does_not_disturb_its_chunks(worker: Trial) -> None:
    attempt = Attempt(worker, start(worker, "changes_limits", 40))
    nested, less, back = attempt.values
    for _ in range(40):
        [nested] = nested
    assert (nested, less, back) == (0, True, "back")
    assert Attempt(worker, start(worker, "limits")).outcome == (sys.getrecursionlimit(), True)


@pytest.mark.parametrize("name", ["forks", "forks_async"])
def test_a_forked_copy_of_a_generator_says_nothing(worker: Trial, name: str) -> None:
    attempt = Attempt(worker, start(worker, name))
    assert attempt.values == [worker.pid] * 2
    assert attempt.outcome == (worker.pid if name == "forks" else None)
    still_works(worker)


# ------------------------------------------------------------------------------------------ credit


@pytest.mark.parametrize("name", ["texts", "texts_async"])
def test_it_sends_as_much_as_there_is_credit_for(worker: Trial, name: str) -> None:
    fence = start(worker, name, 20, credit=3)
    assert Attempt(worker, fence, 3).seqs == [0, 1, 2]
    sent = 3
    for up_to in (4, 7, 7, 2):
        give(worker, fence, up_to)
        assert Attempt(worker, fence, max(0, up_to - sent)).seqs == list(range(sent, max(sent, up_to)))
        sent = max(sent, up_to)
        worker.beats(2, "while it waits for credit")
        assert worker.says_nothing()
    give(worker, fence)
    assert Attempt(worker, fence).seqs == list(range(7, 20))


def test_credit_may_come_before_the_task_begins(worker: Trial) -> None:
    later = worker.last_fence + 2
    give(worker, later, 2)
    fence = start(worker, "texts", 20, credit=1)
    give(worker, fence)
    assert Attempt(worker, fence).outcome == 20
    fence = start(worker, "texts", 20, credit=1)
    assert fence == later
    assert Attempt(worker, fence, 2).seqs == [0, 1]
    worker.beats(2, "while it waits for credit")
    assert worker.says_nothing()


def test_a_start_without_credit_gives_ten(worker: Trial) -> None:
    [fence] = worker.start(job("texts", 20))
    assert Attempt(worker, fence, 10).seqs == list(range(10))
    worker.beats(2, "while it waits for credit")
    assert worker.says_nothing()
    give(worker, fence)
    assert Attempt(worker, fence).outcome == 20


@pytest.mark.parametrize("name", ["texts", "texts_async"])
def test_recalls_are_obeyed_while_it_waits_for_credit(worker: Trial, name: str) -> None:
    fence = start(worker, name, 20, credit=1)
    waiting = worker.start(*[NO_SUCH_JOB] * 3)
    assert Attempt(worker, fence, 1).seqs == [0]
    worker.tell([RECALL, waiting[-1]])
    message = worker.message("RECALLED")
    dropped = message[1]
    assert message[0] == RECALLED
    give(worker, fence)
    assert Attempt(worker, fence).seqs == list(range(1, 20))
    while len(dropped) < 3:  # what lay in its pipe still
        dropped += worker.message("RECALLED")[1]
    assert dropped == waiting
    assert worker.page.read()[0] not in waiting
    still_works(worker)


def test_recalls_are_obeyed_between_chunks(worker: Trial, gate: str) -> None:
    fence = start(worker, "texts", 3, 0, gate, 1)
    waiting = worker.start(*[NO_SUCH_JOB] * 2)
    assert Attempt(worker, fence, 1).seqs == [0]
    waits(worker)
    worker.tell([RECALL, waiting[-1]], interrupt=True)
    open_gate(gate)
    assert worker.message("RECALLED")[0] == RECALLED
    assert Attempt(worker, fence).seqs == [1, 2]


@pytest.mark.parametrize("name", ["texts", "texts_async"])
def test_a_worker_that_waits_for_credit_goes_with_its_manager(worker: Trial, name: str) -> None:
    Attempt(worker, start(worker, name, 20, credit=1), 1)
    worker.hang_up()
    assert worker.end() == "exit code 0"


# ------------------------------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize("name", ["texts", "texts_async"])
def test_a_checkpoint_comes_with_its_chunk(worker: Trial, name: str) -> None:
    attempt = Attempt(worker, start(worker, name, 10, 3))
    assert attempt.checkpoints == [(3, 3), (6, 6), (9, 9)]
    assert attempt.seqs == list(range(10))


def test_a_checkpoint_alone_has_the_number_of_the_next_chunk(worker: Trial) -> None:
    attempt = Attempt(worker, start(worker, "texts_and_checkpoints", 7))
    assert attempt.checkpoints == [(0, 0), (3, 3), (6, 6)]
    assert attempt.seqs == list(range(7))


def test_plain_handlers_make_checkpoints_and_are_restored(worker: Trial) -> None:
    attempt = Attempt(worker, start(worker, "sums", 4))
    assert attempt.checkpoints == [(0, (1, 0)), (0, (2, 1)), (0, (3, 3)), (0, (4, 6))]
    assert attempt.outcome == [0, 6]
    assert Attempt(worker, start(worker, "sums", 4, resume=[0, 0, pack((3, 3))])).outcome == [3, 6]


def test_a_first_run_is_restored_from_nothing(worker: Trial) -> None:
    for resume in (None, [0, 0, None], [0, 3, None]):
        assert Attempt(worker, start(worker, "restored", resume=resume)).outcome is None
    [fence] = worker.start(job("restored"))
    assert Attempt(worker, fence).outcome is None
    assert Attempt(worker, start(worker, "restored", resume=[2, 3, pack({"a": (1,)})])).outcome == {"a": (1,)}


def test_a_checkpoint_that_cannot_be_read_is_told_the_handler(worker: Trial) -> None:
    broken = msgpack.packb(msgpack.ExtType(15, msgpack.packb(["gone", "Gone", {}])))
    code, kind, _ = Attempt(worker, start(worker, "restored", resume=[0, 0, broken])).outcome
    assert (code, kind) == ("task_failed", "poolmgr.errors.BadValue")


def test_what_a_checkpoint_cannot_be_is_told_the_handler(worker: Trial) -> None:
    attempt = Attempt(worker, start(worker, "checkpoints", 1, None, "lock", CHECKPOINT_LIMIT, CHECKPOINT_LIMIT - 5))
    assert attempt.outcome[0] == attempt.outcome[4] == "kept"
    assert attempt.outcome[1].startswith("ValueError: None is no checkpoint")
    assert attempt.outcome[2] == "BadValue: checkpoint: cannot carry a value of type _thread.lock"
    assert attempt.outcome[3].startswith("PayloadTooLarge: the checkpoint takes 8.00 MB")
    assert [len(state) for _, state in attempt.checkpoints] == [1, CHECKPOINT_LIMIT - 5]


def test_threads_make_checkpoints_while_chunks_are_sent(worker: Trial) -> None:
    """Each between two chunks, and each with the number of the next."""
    fence = start(worker, "checkpoints_of_threads", 2_000)
    seqs, checkpoints = 0, 0
    while (said := worker.say_of_stream(fence))[0] == CHUNK:
        assert said[2] == seqs
        seqs += said[3] is not None
        checkpoints += said[4] is not None
    assert seqs == 2_000
    assert checkpoints


def test_a_thread_of_a_task_that_has_ended_keeps_nothing(worker: Trial) -> None:
    assert Attempt(worker, start(worker, "leaves_a_thread", 0.05)).outcome is None
    fence = start(worker, "texts", 2, credit=1)
    assert Attempt(worker, fence, 1).checkpoints == []
    worker.beats(3, "while the thread says something")
    assert worker.says_nothing()


# ------------------------------------------------------------------------------------------ resumed


def test_chunks_that_are_kept_are_left_out(worker: Trial) -> None:
    whole = Attempt(worker, start(worker, "texts", 10)).values
    for kept in (0, 1, 9, 10):
        attempt = Attempt(worker, start(worker, "texts", 10, resume=[0, kept, None], credit=10))
        assert attempt.seqs == list(range(kept, 10))
        assert attempt.values == whole[kept:]
        assert attempt.outcome == 10


def test_a_stream_that_is_replayed_needs_no_credit_for_what_is_kept(worker: Trial) -> None:
    fence = start(worker, "texts", 10, resume=[0, 8, None], credit=0)
    worker.beats(2, "while it waits for credit")
    assert worker.says_nothing()
    give(worker, fence, 9)
    assert Attempt(worker, fence, 1).seqs == [8]
    give(worker, fence)
    assert Attempt(worker, fence).seqs == [9]


def test_it_goes_on_where_its_checkpoint_was(worker: Trial) -> None:
    whole = Attempt(worker, start(worker, "texts", 10)).values
    attempt = Attempt(worker, start(worker, "texts", 10, resume=[4, 6, pack(4)]))
    assert attempt.seqs == [6, 7, 8, 9]
    assert attempt.values == whole[6:]


def test_a_checkpoint_behind_a_chunk_that_is_kept_comes_alone(worker: Trial) -> None:
    """A handler that is not quite the same each time has made none there before."""
    attempt = Attempt(worker, start(worker, "texts", 6, 2, resume=[0, 5, None]))
    assert attempt.seqs == [5]
    assert attempt.checkpoints == [(2, 2), (4, 4), (6, 6)]


# ------------------------------------------------------------------------------------------ preempted


class Task:
    """A task that is resumed until it has ended: what its reader sees, and what is known of it."""

    def __init__(self, worker: Trial, name: str, *arguments: Any) -> None:
        self._worker, self._name, self._arguments = worker, name, arguments
        self.chunks: list[Any] = []
        self.first = 0
        self.checkpoint: Any = None
        self.attempts = 0

    def run(self, preempt_at: int | None = None) -> Attempt:
        """One attempt; asked to give way once this chunk has come, as it waits for the credit for the next."""
        resume = [self.first, len(self.chunks), None if self.checkpoint is None else pack(self.checkpoint)]
        credit = ALL if preempt_at is None else preempt_at + 1
        fence = start(self._worker, self._name, *self._arguments, resume=resume, credit=credit)
        self.attempts += 1
        if preempt_at is None:
            return self._keep(Attempt(self._worker, fence))
        self._keep(Attempt(self._worker, fence, preempt_at + 1 - len(self.chunks)))
        interrupt(self._worker, fence, "preempt")
        return self._keep(Attempt(self._worker, fence))

    def _keep(self, attempt: Attempt) -> Attempt:
        for seq, value in zip(attempt.seqs, attempt.values, strict=True):
            assert seq == len(self.chunks), "each comes once"
            self.chunks.append(value)
        for first, state in attempt.checkpoints:
            self.first, self.checkpoint = first, state
        return attempt


STREAMS = [
    ("texts", 0),
    ("texts", 7),
    ("texts", 1),
    ("texts_async", 0),
    ("texts_async", 7),
    ("texts_and_checkpoints", ""),
]


@pytest.mark.parametrize(("name", "every"), STREAMS)
def test_preempted_at_any_chunk_its_reader_sees_each_once(worker: Trial, name: str, every: Any) -> None:
    whole = Attempt(worker, start(worker, name, 100, every)).values
    assert len(whole) == 100
    for index in range(100):
        task = Task(worker, name, 100, every)
        released = task.run(preempt_at=index)
        # Behind the last chunk there is nothing that it could wait for.
        assert released.outcome == RELEASED if index < 99 else released.end is not None
        if released.outcome == RELEASED:
            task.run()
        assert task.chunks == whole


@pytest.mark.parametrize(("name", "every"), STREAMS)
def test_preempted_at_every_chunk_its_reader_sees_each_once(worker: Trial, name: str, every: Any) -> None:
    whole = Attempt(worker, start(worker, name, 100, every)).values
    task = Task(worker, name, 100, every)
    for index in range(99):
        assert task.run(preempt_at=index).outcome == RELEASED
    task.run()
    assert task.chunks == whole
    assert task.attempts == 100


@pytest.mark.parametrize(
    ("name", "every"), [("texts", 0), ("texts", 5), ("texts_async", 5), ("texts_and_checkpoints", None)]
)
def test_preempted_while_it_computes_it_sends_its_chunk_first(worker: Trial, gate: str, name: str, every: Any) -> None:
    arguments = [12] if every is None else [12, every]
    whole = Attempt(worker, start(worker, name, *arguments)).values
    for index in range(12):
        fence = start(worker, name, *arguments, gate, index)
        task = Task(worker, name, *arguments)
        task._keep(Attempt(worker, fence, index))
        waits(worker)
        interrupt(worker, fence, "preempt")
        open_gate(gate)
        attempt = task._keep(Attempt(worker, fence))
        assert attempt.outcome == RELEASED
        # ... or the checkpoint that it comes to before
        assert attempt.seqs == ([] if every is None and index % 3 == 0 else [index])
        task.run()
        assert task.chunks == whole


@pytest.mark.parametrize("name", ["sums", "sums_async"])
def test_a_plain_handler_gives_way_at_its_next_checkpoint(worker: Trial, gate: str, name: str) -> None:
    for index in range(10):
        fence = start(worker, name, 10, gate, index)
        for _ in range(index):
            assert worker.say_of_stream(fence)[0] == CHUNK
        waits(worker)
        interrupt(worker, fence, "preempt")
        open_gate(gate)
        attempt = Attempt(worker, fence)
        assert attempt.checkpoints == [(0, (index + 1, sum(range(index + 1))))]
        assert attempt.outcome == RELEASED
        [(first, state)] = attempt.checkpoints
        assert Attempt(worker, start(worker, name, 10, resume=[first, 0, pack(state)])).outcome == [index + 1, 45]


def test_who_swallows_it_goes_on(worker: Trial, gate: str) -> None:
    fence = start(worker, "swallows", gate)
    waits(worker)
    interrupt(worker, fence, "preempt")
    open_gate(gate)
    attempt = Attempt(worker, fence)
    assert attempt.checkpoints == [(0, 1)]
    assert attempt.outcome == "Preempted"


def test_a_handler_may_give_way_by_itself(worker: Trial, gate: str) -> None:
    fence = start(worker, "gives_way_by_hand", gate)
    waits(worker)
    interrupt(worker, fence, "preempt")
    open_gate(gate)
    assert Attempt(worker, fence).outcome == RELEASED
    code, kind, _ = Attempt(worker, start(worker, "gives_way_by_hand", "")).outcome
    assert (code, kind) == ("task_failed", "poolmgr.worker.context.Preempted"), "nobody has asked for it"


def test_a_thread_is_not_ended_by_a_preemption(worker: Trial, gate: str) -> None:
    fence = start(worker, "preempted_in_a_thread", gate)
    waits(worker)
    interrupt(worker, fence, "preempt")
    open_gate(gate)
    attempt = Attempt(worker, fence)
    assert attempt.checkpoints == [(0, "of a thread")]
    assert attempt.outcome == [True, "went on"]


def test_a_preemption_that_comes_before_its_task_is_kept_for_it(worker: Trial) -> None:
    fence = worker.last_fence + 1
    interrupt(worker, fence, "preempt")
    worker.beats(2, "after an interrupt")
    attempt = Attempt(worker, start(worker, "texts", 5))
    assert attempt.seqs == [0]
    assert attempt.outcome == RELEASED
    assert Attempt(worker, start(worker, "texts", 5)).outcome == 5


def test_released_tells_when(worker: Trial) -> None:
    before = now()
    fence = start(worker, "texts", 5, credit=1)
    Attempt(worker, fence, 1)
    assert worker.page.read()[0] == fence
    interrupt(worker, fence, "preempt")
    end = Attempt(worker, fence).end
    assert end is not None
    assert before <= end[2] <= end[3] <= now()
    assert end[2] == worker.page.read()[1]


@pytest.mark.parametrize("name", ["cleans_up", "cleans_up_async"])
def test_a_generator_that_gives_way_is_closed(worker: Trial, tmp_path: Path, name: str) -> None:
    fence = start(worker, name, str(tmp_path / "ended"), credit=2)
    Attempt(worker, fence, 2)
    interrupt(worker, fence, "preempt")
    attempt = Attempt(worker, fence)
    assert (attempt.values, attempt.outcome) == ([], RELEASED)
    assert (tmp_path / "ended").read_text() == "GeneratorExit True"


def test_a_generator_may_save_its_state_as_it_is_closed(worker: Trial) -> None:
    """Behind the last chunk that was sent; not where one was held back, which comes again."""
    fence = start(worker, "saves_as_it_is_closed", credit=2)
    Attempt(worker, fence, 2)
    holds_back(worker, fence)
    interrupt(worker, fence, "preempt")
    attempt = Attempt(worker, fence)
    assert (attempt.outcome, attempt.checkpoints) == (RELEASED, [])
    interrupt(worker, fence + 1, "preempt")
    attempt = Attempt(worker, start(worker, "saves_as_it_is_closed"))
    assert (attempt.outcome, attempt.values, attempt.checkpoints) == (RELEASED, [0], [(1, 1)])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("fails_as_it_is_closed", "LookupError: in its finally"),
        ("fails_as_it_is_closed_async", "LookupError: in its finally"),
        ("ignores_close", "RuntimeError: generator ignored GeneratorExit"),
    ],
)
def test_whatever_a_generator_does_as_it_is_closed_it_is_given_up(worker: Trial, name: str, complaint: str) -> None:
    fence = start(worker, name, credit=1)
    Attempt(worker, fence, 1)
    interrupt(worker, fence, "preempt")
    assert Attempt(worker, fence).outcome == RELEASED
    still_works(worker)
    assert complaint in worker.output()
    assert "the handler has failed as it was closed" in worker.output()


# ------------------------------------------------------------------------------------------ cancelled


def test_a_cancelled_generator_is_closed_at_its_next_chunk(worker: Trial, gate: str, tmp_path: Path) -> None:
    fence = start(worker, "cleans_up", str(tmp_path / "ended"), gate)
    Attempt(worker, fence, 2)
    waits(worker)
    interrupt(worker, fence, "cancelled")
    open_gate(gate)
    attempt = Attempt(worker, fence)
    assert attempt.values == []
    assert attempt.outcome == ("task_failed", "GeneratorExit", "it was cancelled, and closed at a chunk")
    assert (tmp_path / "ended").read_text() == "GeneratorExit False"


@pytest.mark.parametrize(
    ("name", "kind"), [("cleans_up", "GeneratorExit"), ("cleans_up_async", "asyncio.exceptions.CancelledError")]
)
def test_a_cancelled_generator_waits_for_no_credit(worker: Trial, tmp_path: Path, name: str, kind: str) -> None:
    fence = start(worker, name, str(tmp_path / "ended"), credit=1)
    Attempt(worker, fence, 1)
    interrupt(worker, fence, "cancelled")
    code, seen, _ = Attempt(worker, fence).outcome
    assert (code, seen) == ("task_failed", kind)
    assert (tmp_path / "ended").read_text() == f"{kind.rpartition('.')[2]} False"
    still_works(worker)


def test_an_async_generator_that_ignores_its_cancellation_goes_on_while_there_is_credit(worker: Trial) -> None:
    fence = start(worker, "ignores_cancellation", credit=2)
    Attempt(worker, fence, 2)
    interrupt(worker, fence, "cancelled")
    attempt = Attempt(worker, fence)
    assert attempt.values == []
    assert attempt.outcome[1] == "GeneratorExit"


def test_a_generator_that_looks_sees_to_its_cancellation_by_itself(worker: Trial, gate: str) -> None:
    fence = start(worker, "looks_before", gate)
    assert Attempt(worker, fence, 2).values == [0, 0]
    waits(worker)
    interrupt(worker, fence, "cancelled")
    open_gate(gate)
    assert Attempt(worker, fence).values == [1, 2]
    fence = start(worker, "looks", gate)  # it would look behind its next chunk, where it is closed
    Attempt(worker, fence, 1)
    waits(worker)
    interrupt(worker, fence, "cancelled")
    open_gate(gate)
    attempt = Attempt(worker, fence)
    assert attempt.values == []
    assert attempt.outcome[1] == "GeneratorExit"


# ------------------------------------------------------------------------------------------ soft time-outs


def test_a_soft_time_out_is_thrown_in_where_it_waits_for_credit(worker: Trial, tmp_path: Path) -> None:
    fence = start(worker, "cleans_up", str(tmp_path / "ended"), credit=1)
    Attempt(worker, fence, 1)
    interrupt(worker, fence, "soft_timeout")
    attempt = Attempt(worker, fence)
    assert attempt.values == []
    assert attempt.outcome[:2] == ("timeout", "poolmgr.worker.context.SoftTimeout")
    assert (tmp_path / "ended").read_text() == "SoftTimeout False"


def test_a_soft_time_out_strikes_where_it_runs(worker: Trial, gate: str, tmp_path: Path) -> None:
    fence = start(worker, "cleans_up", str(tmp_path / "ended"), gate)
    Attempt(worker, fence, 2)
    waits(worker)
    interrupt(worker, fence, "soft_timeout")  # nobody opens the gate
    assert Attempt(worker, fence).outcome[0] == "timeout"
    assert (tmp_path / "ended").read_text() == "SoftTimeout False"


def test_a_soft_time_out_of_an_async_one(worker: Trial, tmp_path: Path) -> None:
    fence = start(worker, "cleans_up_async", str(tmp_path / "ended"), credit=1)
    Attempt(worker, fence, 1)
    interrupt(worker, fence, "soft_timeout")
    assert Attempt(worker, fence).outcome[0] == "timeout"
    assert (tmp_path / "ended").read_text() == "CancelledError False"


@pytest.mark.parametrize("name", ["goes_on", "goes_on_async"])
@pytest.mark.parametrize("credit", [1, 2, 3])
def test_a_chunk_that_was_held_back_is_not_lost(worker: Trial, name: str, credit: int) -> None:
    """... where the generator goes on after its soft time-out: it comes first."""
    fence = start(worker, name, credit=credit)
    before = Attempt(worker, fence, credit).values
    holds_back(worker, fence)
    interrupt(worker, fence, "soft_timeout")
    worker.beats(2, "after an interrupt")
    assert worker.says_nothing()
    give(worker, fence, credit + 1)
    before += Attempt(worker, fence, 1).values
    assert before == [f"before {number}" for number in range(credit + 1)]
    give(worker, fence)
    attempt = Attempt(worker, fence)
    assert attempt.values == ["after 0", "after 1"]
    assert attempt.seqs == [credit + 1, credit + 2]
    assert attempt.outcome == (["soft"] if name == "goes_on" else None)


def test_an_interrupt_of_another_fence_does_nothing(worker: Trial) -> None:
    earlier = start(worker, "texts", 1)
    Attempt(worker, earlier)
    fence = start(worker, "texts", 5, credit=1)
    Attempt(worker, fence, 1)
    for reason in ("soft_timeout", "cancelled", "preempt"):
        interrupt(worker, earlier, reason)
    os.kill(worker.pid, signal.SIGUSR1)
    give(worker, fence)
    assert Attempt(worker, fence).outcome == 5
