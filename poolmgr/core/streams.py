"""The streams of all tasks: what workers send of them, and how far their readers have come.

Who reads says so by asking for the next chunk: all before it are passed then. A reader that has gone holds nobody; it
comes back with the number of the chunk that it wants. A task that has no chunk, checkpoint or reader has no stream, and
costs nothing.
"""

from __future__ import annotations

from typing import Final

from poolmgr.core import changes
from poolmgr.core.changes import ChunkAdded
from poolmgr.core.effects import Credit, Streamed
from poolmgr.core.keeping import keep, keep_checkpoint
from poolmgr.core.starter import Starter
from poolmgr.core.state import State
from poolmgr.core.stream import Stream
from poolmgr.core.supervisor import Supervisor
from poolmgr.core.task import Task
from poolmgr.errors import BadOption, ChunksDropped
from poolmgr.payload import Payload

START_BYTES: Final = 63 << 20  # of a task's arguments and its checkpoint
READERS_MOST: Final = 1000  # of one client


class Streams:
    """The inputs that concern streams."""

    def __init__(self, state: State, starter: Starter, supervisor: Supervisor) -> None:
        self._state = state
        self._starter = starter
        self._supervisor = supervisor
        self._reads: dict[int, dict[tuple[bytes, int], None]] = {}  # clients: what each reads, and by which number

    # ------------------------------------------------------------------------------------------ workers

    def chunk(
        self, worker: str, fence: int, seq: int, payload: Payload | None, checkpoint: bytes | None, now: float
    ) -> None:
        """What a worker sends of the task that it runs: a chunk, what its handler can go on from, or both. One that is
        sent though it is not its turn is the end of the worker."""
        state = self._state
        slot = state.slots.get(worker)
        if slot is None or not slot.in_flight or slot.in_flight[0].fence != fence or slot.trouble:
            return
        task = slot.in_flight[0]
        stream = state.streams.get(task.id)
        if stream is None:
            stream = Stream(task.options.durable)
            self._begin(task.id, stream)
        if stream.fence != fence:
            stream.begin_unknown(fence)
        if stream.durable and not stream.was_heard:
            state.moved(task)  # that it has begun is kept with what it has done
        stream.was_heard = True
        if wrong := stream.objection(seq, payload, checkpoint) or _too_much(task, checkpoint):
            slot.trouble = wrong
            state.emit("worker-error", {"worker_id": worker, "error": wrong})
            self._supervisor.doom(slot, "broken", 0, now, grace_s=0.0)
            return
        if payload is not None:
            self._add(task, stream, seq, payload, checkpoint, now)
        elif checkpoint is not None and seq >= stream.first:
            stream.first, stream.checkpoint = seq, checkpoint
            if stream.durable and stream.is_pending:
                stream.unkept_checkpoint = True  # each follows the one before it: a handler may make many
            elif stream.durable:
                keep(state, stream, ChunkAdded(task.id, seq, None, checkpoint))

    def _begin(self, task_id: bytes, stream: Stream) -> None:
        streams = self._state.streams
        streams[task_id] = stream
        streams.held -= streams.left.remove(task_id)  # a call that is submitted again may have run before

    def _add(
        self, task: Task, stream: Stream, seq: int, payload: Payload, checkpoint: bytes | None, now: float
    ) -> None:
        # What comes after this chunk may rest on a checkpoint that came before it.
        keep_checkpoint(self._state, task.id, stream)
        before = stream.bytes
        stream.add(payload, self._state.streams.limit_of(stream))
        if not stream.durable:
            self._state.streams.held += stream.bytes - before
        if checkpoint is not None:
            stream.first, stream.checkpoint = seq + 1, checkpoint
        if stream.durable:
            keep(self._state, stream, ChunkAdded(task.id, seq, payload, checkpoint))
        else:
            self._state.effects.append(Streamed(task.id, 0))
        self._drop_passed(task.id, stream)
        stream.pause(now)
        self._grant(task, stream, now)

    def committed(self, task_id: bytes, commit: int, now: float) -> None:
        """The commit that a ``Streamed`` has waited for is made."""
        stream = self._state.streams.get(task_id)
        if stream is None or not stream.durable:
            return
        stream.commit_made(commit)
        task = self._state.tasks.get(task_id)
        if task is None:
            return
        if not stream.is_pending:
            keep_checkpoint(self._state, task_id, stream)
        self._drop_passed(task_id, stream)
        self._grant(task, stream, now)

    def time_limits(self, task: Task) -> tuple[float | None, float | None]:
        """``timeout_s`` and ``soft_timeout_s`` of a running task, counted from its beginning, with the time for which
        it had to wait; None while it waits."""
        timeout_s, soft_timeout_s = task.options.timeout_s, task.options.soft_timeout_s
        stream = self._state.streams.get(task.id)
        if stream is None or stream.fence != task.fence:
            return timeout_s, soft_timeout_s
        if stream.is_paused:
            return None, None
        more_s = stream.paused_s
        return timeout_s and timeout_s + more_s, soft_timeout_s and soft_timeout_s + more_s

    def _drop_passed(self, task_id: bytes, stream: Stream) -> None:
        state, before = self._state, stream.bytes
        if not stream.drop_passed(self._state.streams.limit_of(stream)):
            return
        if stream.durable:
            state.streamed(changes.ChunksDropped(task_id, stream.dropped))
            return
        state.streams.held -= before - stream.bytes
        if stream.ended:
            state.streams.left.held -= before - stream.bytes

    def _grant(self, task: Task, stream: Stream, now: float) -> None:
        """Tell the worker how far it may go, if that is further than before."""
        if not task.fence or stream.fence != task.fence or not stream.more_credit(self._state.streams.limit_of(stream)):
            return
        assert task.slot is not None
        slot = self._state.slots[task.slot]
        told = Credit(slot.id, slot.incarnation, task.fence, stream.credit, stream.credit_bytes)
        self._state.effects.append(told)
        runs = slot.in_flight[0] is task
        if stream.go_on(now, slot.begun_at if runs else now) and runs:
            self._starter.look_again(slot, now)  # its time limit is another by now

    def is_resumable(self, task: Task) -> bool:
        """Whether another attempt of the task need not do all again: it has sent a chunk, or what it can go on from."""
        stream = self._state.streams.get(task.id)
        return stream is not None and stream.resumable

    # ------------------------------------------------------------------------------------------ readers

    def read(self, task: Task, client: int, reader: int, offset: int, now: float) -> Stream:
        """A client's reader wants the chunk ``offset`` of a live task, and is done with all before it.

        Raises:
            ChunksDropped: that chunk is not kept any more.
            BadOption: it is one reader too many.
        """
        stream = self._state.streams.get(task.id)
        if stream is not None:
            self._pass(task.id, stream, client, reader, offset)
            self._grant(task, stream, now)
            return stream
        stream = Stream(task.options.durable)
        self._pass(task.id, stream, client, reader, offset)
        if stream.readers:
            self._begin(task.id, stream)
        return stream

    def read_left(self, task_id: bytes, client: int, reader: int, offset: int) -> Stream | None:
        """The same of a task that has ended, and was not durable; None if nothing is left of its stream here."""
        stream = self._state.streams.left.get(task_id)
        if stream is not None:
            self._pass(task_id, stream, client, reader, offset)
        return stream

    def _pass(self, task_id: bytes, stream: Stream, client: int, reader: int, offset: int) -> None:
        if offset < stream.dropped:
            raise dropped(task_id, offset, stream.dropped)
        if client not in self._state.sessions:
            return  # it has gone meanwhile
        reads = self._reads.setdefault(client, {})
        if (task_id, reader) not in reads and len(reads) >= READERS_MOST:
            raise BadOption(f"a connection may read {READERS_MOST} streams at a time: detach from some")
        reads[task_id, reader] = None
        stream.readers[client, reader] = offset
        self._drop_passed(task_id, stream)

    def detach(self, task_id: bytes, client: int, reader: int, now: float) -> None:
        """This reader wants no more for now, and holds nobody."""
        reads = self._reads.get(client, {})
        reads.pop((task_id, reader), None)
        if not reads:
            self._reads.pop(client, None)
        self._leave(task_id, client, reader, now)

    def disconnected(self, client: int, now: float) -> None:
        """A client has gone, and all its readers."""
        for task_id, reader in self._reads.pop(client, {}):
            self._leave(task_id, client, reader, now)

    def _leave(self, task_id: bytes, client: int, reader: int, now: float) -> None:
        state = self._state
        if (left := state.streams.left.get(task_id)) is not None:
            left.readers.pop((client, reader), None)
            self._drop_passed(task_id, left)
            state.streams.held -= state.streams.left.trim()
            return
        stream = state.streams.get(task_id)
        if stream is None or stream.readers.pop((client, reader), None) is None:
            return
        self._drop_passed(task_id, stream)
        task = state.tasks.get(task_id)
        if task is not None and (stream.resumable or stream.fence):
            self._grant(task, stream, now)
        elif not stream.readers:
            del state.streams[task_id]


def _too_much(task: Task, checkpoint: bytes | None) -> str:
    """What START carries goes into one message."""
    size = 0 if checkpoint is None else len(task.payload) + len(checkpoint)
    return f"a checkpoint that makes {size} bytes with its arguments" if size > START_BYTES else ""


def dropped(task_id: bytes, offset: int, first: int) -> ChunksDropped:
    """What a reader is told that comes too late."""
    return ChunksDropped(
        f"chunk {offset} of task {task_id.hex()} is not kept any more: the first that is has the number {first}"
    )
