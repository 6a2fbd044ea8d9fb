"""Streams in the scheduler: which chunks it takes, who may see them when, and how far a worker may go."""

from __future__ import annotations

from typing import Any

import pytest

from poolmgr.core.changes import ChunkAdded, ChunksDropped, StreamRecord, TaskEnded, TaskMoved
from poolmgr.core.effects import Credit, Finished, Interrupt, Persist, Start, Streamed
from poolmgr.core.left_streams import LeftStreams
from poolmgr.core.stream import CHECKPOINT_LIMIT, CHUNK_LIMIT, ROW_BYTES, WINDOW, WINDOW_BYTES, Resume, Stream
from poolmgr.core.streams import READERS_MOST
from poolmgr.core.task import Task
from poolmgr.errors import BadOption, NotFound
from poolmgr.model import TaskOptions, TaskState
from tests.unit.driver import VALUE_ERROR, Pool

MB = 1 << 20


class Streaming(Pool):
    """A pool whose workers send chunks, and whose store commits when it is told to."""

    def chunk(self, task: bytes, seq: int, payload: bytes | None = b"", checkpoint: bytes | None = None) -> None:
        """The worker that runs ``task`` sends this."""
        live = self.task(task)
        assert live.slot is not None
        content = b"chunk %d" % seq if payload == b"" else payload
        self.scheduler.streams.chunk(live.slot, live.fence, seq, content, checkpoint, self.now)
        self.flush()

    def chunks(self, task: bytes, count: int, begin: int = 0, payload: bytes = b"") -> None:
        """So many, and each is kept."""
        for seq in range(begin, begin + count):
            self.chunk(task, seq, payload)
            self.commit()

    def commit(self) -> None:
        """All that was to be kept is."""
        number = max((each.number for each in self.all(Persist) if each.durable), default=0)
        told = [each for each in self.all(Streamed) if each.commit <= number]
        for each in told[getattr(self, "_told", 0) :]:
            self.scheduler.streams.committed(each.task_id, each.commit, self.now)
        self._told = len(told)
        self.flush()

    def read(self, task: bytes, offset: int, reader: int = 1, client: int = 1) -> Stream:
        """A reader wants this chunk next."""
        found = self.scheduler.streams.read(self.task(task), client, reader, offset, self.now)
        self.flush()
        return found

    def detach(self, task: bytes, reader: int = 1, client: int = 1) -> None:
        self.scheduler.streams.detach(task, client, reader, self.now)
        self.flush()

    def stream(self, task: bytes) -> Stream:
        return self.scheduler.state.streams[task]

    def credit(self, task: bytes) -> int:
        """Up to which chunk its worker may go, as it was told."""
        told = [each.up_to for each in self.all(Credit) if each.fence == self.task(task).fence]
        [start] = [each for each in self.all(Start) if each.fence == self.task(task).fence]
        return max([start.resume.credit if start.resume else WINDOW, *told])

    def live(self, task: bytes) -> Task:
        return self.task(task)


# ------------------------------------------------------------------------------------------ what is kept


def test_a_chunk_of_a_durable_task_is_kept_with_its_checkpoint_and_seen_once_that_is_committed() -> None:
    pool = Streaming()
    task = pool.submit()
    pool.chunk(task, 0, b"first", b"state")
    assert pool.changes(ChunkAdded) == [ChunkAdded(task, 0, b"first", b"state")]
    [persist] = [each for each in pool.new(Persist) if each.durable]
    assert pool.new(Streamed) == [Streamed(task, persist.number)]
    assert (pool.stream(task).kept, pool.stream(task).committed) == (1, 0)
    pool.commit()
    assert pool.stream(task).committed == 1


def test_that_a_task_runs_is_kept_with_its_first_chunk() -> None:
    pool = Streaming()
    task = pool.submit()
    pool.chunk(task, 0)
    assert [(each.id, each.state, each.attempt) for each in pool.changes(TaskMoved)] == [(task, TaskState.RUNNING, 1)]
    pool.chunk(task, 1)
    assert len(pool.changes(TaskMoved)) == 1


def test_chunks_of_one_turn_are_one_commit_and_are_told_once() -> None:
    pool = Streaming()
    task = pool.submit()
    live = pool.task(task)
    for seq in range(5):
        pool.scheduler.streams.chunk("worker-0", live.fence, seq, b"x", None, pool.now)
    pool.flush()
    [persist] = [each for each in pool.new(Persist) if each.durable]
    assert [each.seq for each in persist.changes if isinstance(each, ChunkAdded)] == [0, 1, 2, 3, 4]
    assert pool.new(Streamed) == [Streamed(task, persist.number)]
    pool.commit()
    assert pool.stream(task).committed == 5


def test_what_is_kept_of_streams_comes_first_so_that_ends_of_other_tasks_stay_together() -> None:
    pool = Streaming(workers=2)
    stream, other = pool.submit(), pool.submit()
    fence = pool.task(stream).fence
    pool.chunk(stream, 0)
    pool.scheduler.attempts_done(
        "worker-1", [(pool.task(other).fence, pool.now, pool.now, b"")], pool.now
    )  # fmt: skip
    pool.scheduler.streams.chunk("worker-0", fence, 1, b"x", None, pool.now)
    pool.flush()
    [persist] = [each for each in pool.new(Persist) if each.durable]
    assert [type(each) for each in persist.changes] == [ChunkAdded, TaskEnded]


def test_the_chunks_of_a_call_are_held_here_until_its_reader_has_passed_them() -> None:
    pool = Streaming()
    task = pool.submit(durable=False)
    pool.chunk(task, 0)
    pool.chunk(task, 1)
    assert pool.changes(ChunkAdded) == []
    assert pool.new(Streamed) == [Streamed(task, 0)]
    assert list(pool.stream(task).held) == [b"chunk 0", b"chunk 1"]
    assert pool.read(task, 0).committed == 2
    pool.read(task, 1)
    assert list(pool.stream(task).held) == [b"chunk 1"]
    with pytest.raises(NotFound, match=r"chunk 0 .* the first that is has the number 1"):
        pool.read(task, 0, reader=2)


def test_old_news_is_ignored() -> None:
    pool = Streaming()
    task = pool.submit()
    fence = pool.task(task).fence
    pool.scheduler.streams.chunk("worker-0", fence + 1, 0, b"x", None, pool.now)
    pool.scheduler.streams.chunk("worker-9", fence, 0, b"x", None, pool.now)
    pool.flush()
    assert not pool.scheduler.state.streams
    assert pool.killed() == []


@pytest.mark.parametrize(
    ("seq", "payload", "checkpoint", "wrong"),
    [
        (1, b"x", None, "chunk 1, and the next one is 0"),
        (-1, b"x", None, "chunk -1"),
        (0, bytes(CHUNK_LIMIT + 1), None, "a chunk of"),
        (0, b"x", bytes(CHECKPOINT_LIMIT + 1), "a checkpoint of"),
        (1, None, b"x", "a checkpoint before chunk 1"),
    ],
)
def test_a_worker_that_sends_what_it_should_not_is_ended(
    seq: int, payload: bytes | None, checkpoint: bytes | None, wrong: str
) -> None:
    pool = Streaming()
    task = pool.submit()
    pool.chunk(task, seq, payload, checkpoint)
    assert pool.killed() == [("worker-0", "broken")]
    assert wrong in pool.events("worker-error")[0]["error"]
    assert pool.changes(ChunkAdded) == []


def test_so_is_one_that_does_not_wait() -> None:
    pool = Streaming()
    task = pool.submit(durable=False)
    for seq in range(WINDOW):
        pool.chunk(task, seq)
    assert pool.killed() == []
    pool.chunk(task, WINDOW)
    assert pool.killed() == [("worker-0", "broken")]


def test_checkpoints_follow_one_another_however_fast_they_come() -> None:
    pool = Streaming()
    task = pool.submit()
    for number in range(100):
        pool.chunk(task, 0, None, b"state %d" % number)
    assert pool.changes(ChunkAdded) == [ChunkAdded(task, 0, None, b"state 0")]
    pool.commit()
    assert pool.changes(ChunkAdded)[1:] == [ChunkAdded(task, 0, None, b"state 99")]
    pool.commit()
    pool.commit()
    assert len(pool.changes(ChunkAdded)) == 2


@pytest.mark.parametrize("how", ["released", "killed"])
def test_what_gives_way_keeps_its_last_checkpoint_at_once_since_the_daemon_may_go(how: str) -> None:
    pool = Streaming()
    task = pool.submit()
    pool.chunk(task, 0, None, b"a")
    pool.chunk(task, 0, None, b"b")  # waits for the commit of the one before
    slot = pool.task(task).slot
    assert slot is not None
    fence = pool.task(task).fence
    pool.scheduler.drain(pool.now)
    pool.flush()
    if how == "released":
        pool.scheduler.released(slot, fence, pool.now, pool.now, pool.now)
        pool.flush()
    else:
        pool.scheduler.stop_now(pool.now)
        pool.flush()
        pool.die(slot)
    assert pool.state(task) == "queued"
    assert pool.changes(ChunkAdded)[1:] == [ChunkAdded(task, 0, None, b"b")]
    pool.commit()
    pool.commit()
    assert len(pool.changes(ChunkAdded)) == 2


def test_a_checkpoint_is_kept_no_later_than_the_chunk_behind_it() -> None:
    pool = Streaming()
    task = pool.submit()
    pool.chunk(task, 0, None, b"a")
    pool.chunk(task, 0, None, b"b")  # waits for the commit of the one before
    pool.chunk(task, 0, b"chunk")
    assert pool.changes(ChunkAdded)[1:] == [ChunkAdded(task, 0, None, b"b"), ChunkAdded(task, 0, b"chunk", None)]


# ------------------------------------------------------------------------------------------ going on


def test_the_next_attempt_goes_on_from_the_last_checkpoint_and_knows_what_is_kept() -> None:
    pool = Streaming()
    task = pool.submit(max_retries=3, retry_backoff_s=0.0)
    pool.chunk(task, 0, b"0", b"after 0")
    pool.chunk(task, 1, b"1")
    pool.commit()
    pool.fail(task)
    assert pool.new(Start)[0].resume == Resume(1, 2, b"after 0", 2 + WINDOW, WINDOW_BYTES)
    pool.chunk(task, 2, b"2")
    pool.chunk(task, 3, None, b"behind 2")
    assert pool.killed() == []
    pool.die("worker-0")
    resume = pool.new(Start)[0].resume
    assert resume is not None
    assert resume[:3] == (3, 3, b"behind 2")


def test_a_checkpoint_that_is_older_than_the_one_that_is_kept_does_not_count() -> None:
    pool = Streaming()
    task = pool.submit()
    pool.chunk(task, 0, b"0", b"after 0")
    pool.chunk(task, 0, None, b"before 0")
    assert (pool.stream(task).first, pool.stream(task).checkpoint) == (1, b"after 0")


def test_a_task_without_a_stream_starts_as_ever() -> None:
    pool = Streaming()
    pool.submit()
    assert pool.all(Start)[0].resume is None


def test_a_death_before_the_page_shows_the_task_is_its_own_if_it_has_sent_a_chunk() -> None:
    pool = Streaming()
    task = pool.submit()
    pool.pages["worker-0"] = (0, 0.0)
    pool.chunk(task, 0)
    pool.die("worker-0")
    assert pool.task(task).past.kills == 1


def test_streams_of_an_earlier_epoch_go_on() -> None:
    pool = Streaming(begin=False)
    first = Pool()
    id = first.submit(payload=b"p")
    record = first.task(id).record(None)._replace(state=TaskState.RUNNING, attempt=1)
    kept = [StreamRecord(id, 7, 2, 5 * (3 + ROW_BYTES), 5, b"after 4")]
    pool.scheduler.recovery.recover([record], lambda name: True, pool.now, streams=kept)
    pool.begin()
    assert pool.all(Start)[0].resume == Resume(5, 7, b"after 4", 7 + WINDOW, WINDOW_BYTES)
    stream = pool.read(id, 2)
    assert (stream.committed, stream.dropped) == (7, 2)
    with pytest.raises(NotFound):
        pool.read(id, 1)


def test_a_task_is_resumable_once_it_has_sent_something() -> None:
    pool = Streaming(workers=2)
    one, other = pool.submit(), pool.submit()
    streams = pool.scheduler.streams
    pool.read(one, 0)
    assert not streams.is_resumable(pool.task(one))
    pool.chunk(one, 0)
    pool.chunk(other, 0, None, b"state")
    assert streams.is_resumable(pool.task(one))
    assert streams.is_resumable(pool.task(other))


# ------------------------------------------------------------------------------------------ credit


def test_a_worker_goes_on_as_its_chunks_are_committed_while_nobody_reads_a_durable_stream() -> None:
    pool = Streaming()
    task = pool.submit()
    for seq in range(WINDOW):
        pool.chunk(task, seq)
    assert pool.credit(task) == WINDOW
    pool.commit()
    assert pool.credit(task) == WINDOW + WINDOW // 2, "more than half it need not be told of"
    pool.chunks(task, 100, WINDOW)
    assert pool.credit(task) > 100


def test_its_reader_holds_it_and_its_slowest_one_counts() -> None:
    pool = Streaming()
    task = pool.submit()
    pool.read(task, 0, reader=1)
    pool.read(task, 0, reader=2)
    pool.chunks(task, WINDOW)
    assert pool.credit(task) == WINDOW
    pool.read(task, 9, reader=1)
    assert pool.credit(task) == WINDOW
    pool.read(task, 4, reader=2)
    assert pool.credit(task) == 4 + WINDOW
    pool.detach(task, reader=2)
    assert pool.credit(task) == 9 + WINDOW


def test_a_client_that_goes_holds_nobody() -> None:
    pool = Streaming()
    task = pool.submit(watch=False)
    pool.scheduler.intake.connected(2)
    pool.read(task, 0, client=2)
    pool.chunks(task, WINDOW)
    assert pool.credit(task) == WINDOW
    pool.disconnect(2)
    assert pool.credit(task) == 2 * WINDOW


def test_a_reader_comes_back_with_its_offset() -> None:
    pool = Streaming()
    task = pool.submit()
    pool.read(task, 3)
    pool.detach(task)
    pool.chunks(task, 8)
    assert pool.read(task, 3).committed == 8
    assert pool.stream(task).slowest == 3


def test_bytes_count_as_chunks_do_and_the_chunk_that_exceeds_them_is_sent() -> None:
    pool = Streaming()
    task = pool.submit(durable=False)
    pool.read(task, 0)
    pool.chunk(task, 0, bytes(30 * MB))
    pool.chunk(task, 1, bytes(30 * MB))  # it had 20 MB left
    assert pool.killed() == []
    assert pool.stream(task).waits_for_reader
    pool.chunk(task, 2, b"x")
    assert pool.killed() == [("worker-0", "broken")]


def test_bytes_are_given_back_as_readers_pass_them() -> None:
    pool = Streaming()
    task = pool.submit(durable=False)
    pool.read(task, 0)
    pool.chunk(task, 0, bytes(50 * MB))
    assert pool.new(Credit) == []
    pool.read(task, 1)
    [credit] = pool.new(Credit)
    assert (credit.up_to, credit.bytes) == (1 + WINDOW, 100 * MB)


def test_a_durable_stream_that_nobody_reads_waits_at_its_limit_and_goes_on_for_a_reader() -> None:
    pool = Streaming(stream_limit_mb=2)
    task = pool.submit()
    pool.chunks(task, WINDOW, payload=bytes(MB))
    assert pool.stream(task).waits_for_reader, "but for its first chunks, which it might send in any case"
    pool.read(task, 0)
    assert pool.stream(task).waits_for_reader
    assert pool.changes(ChunksDropped) == [], "it has passed none of them"
    pool.read(task, 5)
    assert pool.changes(ChunksDropped)[-1].below == 5
    assert not pool.stream(task).waits_for_reader
    pool.chunks(task, 3, WINDOW, bytes(MB))
    assert pool.stream(task).dropped == 5
    with pytest.raises(NotFound, match="the first that is has the number 5"):
        pool.read(task, 0, reader=2)


def test_nothing_is_dropped_of_what_is_under_the_limit() -> None:
    pool = Streaming(stream_limit_mb=2)
    task = pool.submit()
    pool.read(task, 0)
    pool.chunks(task, 1, payload=bytes(MB))
    pool.read(task, 1)
    assert pool.changes(ChunksDropped) == []


def test_without_a_limit_nothing_is_ever_dropped() -> None:
    pool = Streaming(stream_limit_mb=0)
    task = pool.submit()
    for seq in range(0, 2000, 10):
        pool.read(task, seq)
        pool.chunks(task, 10, seq, bytes(10_000))
    assert pool.changes(ChunksDropped) == []


def test_the_next_attempt_of_a_stream_at_its_limit_may_send_nothing() -> None:
    pool = Streaming(stream_limit_mb=1)
    task = pool.submit(retry_backoff_s=0.0)
    pool.chunks(task, 1, payload=bytes(MB))
    pool.fail(task)
    resume = pool.new(Start)[0].resume
    assert resume is not None
    assert (resume.credit, resume.credit_bytes) == (1, 0)
    pool.read(task, 0)
    assert [(each.up_to, each.bytes) for each in pool.new(Credit)] == [(WINDOW, WINDOW_BYTES - MB - ROW_BYTES)]


def test_while_the_store_refuses_a_durable_stream_gets_no_credit() -> None:
    pool = Streaming()
    task = pool.submit()
    for seq in range(WINDOW):
        pool.chunk(task, seq)
    pool.scheduler.store_trouble.begins("disk full", 2, pool.now)
    pool.read(task, 5)  # as if it had them
    assert pool.credit(task) == WINDOW
    pool.scheduler.store_trouble.ends()
    pool.commit()
    assert pool.credit(task) == 5 + WINDOW


def test_all_calls_together_hold_no_more_than_they_may_but_for_one_chunk_of_each() -> None:
    pool = Streaming(workers=10)
    tasks = [pool.submit(durable=False) for _ in range(10)]
    for task in tasks[:6]:
        pool.chunk(task, 0, bytes(45 * MB))
    last = tasks[-1]
    pool.chunk(last, 0, b"small")
    pool.fail(last)
    pool.advance(2.0)
    resume = pool.all(Start)[-1].resume
    assert resume is not None
    assert pool.scheduler.state.streams.held > 256 * MB
    pool.read(last, 0)
    pool.read(last, 1)
    pool.chunk(last, 1, bytes(40 * MB))
    assert pool.killed() == []
    assert pool.stream(last).waits_for_reader


def test_a_connection_may_have_so_many_readers() -> None:
    pool = Streaming()
    task = pool.submit()
    for reader in range(READERS_MOST):
        pool.scheduler.streams.read(pool.task(task), 1, reader, 0, pool.now)
    with pytest.raises(BadOption, match="1000 streams at a time"):
        pool.read(task, 0, reader=READERS_MOST)
    pool.read(task, 1, reader=5)  # one of those that it has


# ------------------------------------------------------------------------------------------ time


def held(pool: Streaming, **options: Any) -> bytes:
    """A task whose worker has to wait for its reader."""
    task = pool.submit(durable=False, **options)
    pool.read(task, 0)
    for seq in range(WINDOW):
        pool.chunk(task, seq)
    return task


def test_the_time_for_which_it_waits_counts_for_no_time_limit() -> None:
    pool = Streaming()
    task = held(pool, timeout_s=5.0, soft_timeout_s=4.0)
    pool.advance(100.0)
    assert pool.killed() == []
    assert pool.all(Interrupt) == []
    pool.read(task, WINDOW)
    pool.advance(3.9)
    assert pool.all(Interrupt) == []
    pool.advance(0.2)
    assert [each.reason for each in pool.all(Interrupt)] == ["soft_timeout"]
    pool.advance(0.7)
    assert pool.killed() == []
    pool.advance(0.3)
    assert pool.killed() == [("worker-0", "timeout")]


def test_a_task_that_waits_is_looked_at_for_nothing_and_can_be_cancelled() -> None:
    pool = Streaming()
    task = held(pool, timeout_s=5.0)
    pool.advance(10.0)
    looks = len(pool.effects)
    pool.advance(100.0)
    assert len(pool.effects) == looks
    pool.cancel(task)
    assert [each.reason for each in pool.all(Interrupt)] == ["cancelled"]


# ------------------------------------------------------------------------------------------ the end


def test_the_end_tells_what_the_chunks_weigh_and_wakes_whoever_waits() -> None:
    pool = Streaming()
    task = pool.submit()
    pool.chunk(task, 0, b"12345", b"state")
    pool.commit()
    pool.done(task)
    [ended] = pool.changes(TaskEnded)
    assert ended.streamed == 5 + ROW_BYTES + len(b"state")
    [streamed] = pool.new(Streamed)
    [finished] = pool.new(Finished)
    assert streamed == Streamed(task, finished.commit)
    assert not pool.scheduler.state.streams


def test_a_call_that_has_ended_leaves_its_chunks_for_its_reader() -> None:
    pool = Streaming()
    task = pool.submit(durable=False)
    pool.read(task, 0)
    pool.chunk(task, 0)
    pool.chunk(task, 1)
    pool.done(task)
    streams = pool.scheduler.streams
    left = streams.read_left(task, 1, 1, 1)
    assert left is not None
    assert (list(left.held), left.kept, left.ended) == ([b"chunk 1"], 2, True)
    streams.read_left(task, 1, 1, 2)
    streams.detach(task, 1, 1, pool.now)
    pool.flush()
    assert pool.scheduler.state.streams.held == 0
    assert streams.read_left(b"\0" * 16, 1, 1, 0) is None


def test_calls_that_nobody_reads_lose_their_chunks_when_they_are_too_many() -> None:
    pool = Streaming()
    tasks = []
    for _ in range(3):
        tasks.append(pool.submit(durable=False))
        pool.chunk(tasks[-1], 0, bytes(30 * MB))
        pool.done(tasks[-1])
    assert pool.scheduler.state.streams.held == 2 * (30 * MB + ROW_BYTES)
    streams = pool.scheduler.streams
    with pytest.raises(NotFound, match="chunk 0"):
        streams.read_left(tasks[0], 1, 1, 0)
    assert streams.read_left(tasks[1], 1, 1, 0) is not None


def test_a_reader_that_leaves_before_there_is_a_stream_leaves_nothing() -> None:
    pool = Streaming()
    running, waiting = pool.submit(), pool.submit()
    pool.read(waiting, 0)
    pool.detach(waiting)
    assert waiting not in pool.scheduler.state.streams
    pool.read(waiting, 0, client=1)
    pool.disconnect(1)
    assert waiting not in pool.scheduler.state.streams
    assert pool.state(running) == "running"


def test_a_reader_that_is_refused_leaves_nothing() -> None:
    pool = Streaming()
    running, waiting = pool.submit(), pool.submit()
    for reader in range(READERS_MOST):
        pool.read(running, 0, reader=reader)
    with pytest.raises(BadOption):
        pool.read(waiting, 0)
    assert waiting not in pool.scheduler.state.streams
    pool.read(waiting, 0, client=77)  # it has gone meanwhile
    assert waiting not in pool.scheduler.state.streams


def test_a_call_that_is_submitted_again_after_its_end_counts_once() -> None:
    pool = Streaming()
    task = pool.submit(durable=False)
    pool.chunk(task, 0, bytes(MB))
    pool.done(task)
    pool.scheduler.intake.submit(pool.now, task, "work", b"", TaskOptions(durable=False), 1, True)
    pool.flush()
    pool.chunk(task, 0, bytes(2 * MB))
    pool.done(task)
    assert pool.scheduler.state.streams.held == 2 * MB + ROW_BYTES


def test_a_stream_that_is_lost_does_not_look_like_one_without_chunks() -> None:
    left = LeftStreams()
    for number in range(10_002):
        stream = Stream(False)
        if number:
            stream.add(b"chunk", MB)
        left.add(b"%016d" % number, stream)
    assert left.get(b"%016d" % 0) is None
    lost = left.get(b"%016d" % 1)
    assert lost is not None
    assert (lost.kept, lost.dropped, lost.ended) == (1, 1, True)
    assert left.remove(b"%016d" % 1) == 0
    assert left.get(b"%016d" % 1) is None
    assert left.held == 10_000 * (5 + ROW_BYTES)


@pytest.mark.parametrize("doomed", [False, True])
def test_a_task_whose_worker_has_lost_a_chunk_does_not_complete(doomed: bool) -> None:
    pool = Streaming()
    task = pool.submit(max_retries=1)
    pool.chunk(task, 0)
    if doomed:  # for something else
        slot = pool.scheduler.state.slots["worker-0"]
        pool.scheduler.supervisor.doom(slot, "timeout", pool.task(task).fence, pool.now)
    pool.chunk(task, 2)
    pool.chunk(task, 1)
    assert pool.stream(task).kept == 1
    pool.done(task)
    pool.scheduler.attempt_failed("worker-0", pool.task(task).fence, pool.now, pool.now, VALUE_ERROR, pool.now)
    pool.flush()
    assert pool.new(Finished) == []
    assert pool.task(task).slot == "worker-0"
    assert pool.killed() == [("worker-0", "timeout" if doomed else "broken")]


def test_the_time_before_an_attempt_is_begun_is_none_for_which_it_has_waited() -> None:
    stream = Stream(True)
    stream.readers[1, 1] = 0
    for seq in range(WINDOW):
        stream.add(b"%d" % seq, 0)
    stream.in_commit(1)
    stream.commit_made(1)
    resume = stream.begin(7, 0, 100.0)
    assert (resume.credit, stream.is_paused) == (WINDOW, True)
    stream.readers[1, 1] = WINDOW
    assert stream.more_credit(0)
    assert stream.go_on(160.0, 150.0)
    assert stream.paused_s == 10.0


def test_a_call_that_has_ended_leaves_no_checkpoint() -> None:
    pool = Streaming()
    alone, task = pool.submit(durable=False), pool.submit(durable=False)
    pool.chunk(alone, 0, None, bytes(MB))
    pool.done(alone)
    pool.chunk(task, 0, b"chunk", bytes(MB))
    pool.done(task)
    [(left, stream)] = pool.scheduler.state.streams.left.items()
    assert (left, stream.checkpoint, list(stream.held)) == (task, None, [b"chunk"])
