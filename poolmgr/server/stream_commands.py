"""Streams are pulled: a reader asks for the next chunks, and says by that that it has all before them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from poolmgr.core.stream import WINDOW, Stream
from poolmgr.core.streams import dropped
from poolmgr.errors import BadOption, StoreUnavailable
from poolmgr.manager.clock import now
from poolmgr.manager.manager import Manager
from poolmgr.manager.readers import Turn
from poolmgr.payload import inline
from poolmgr.server.call import Call
from poolmgr.server.replies import InParts
from poolmgr.server.task_commands import no_task
from poolmgr.store.base import Chunks
from poolmgr.wire.framing import encode
from poolmgr.wire.parts import Part, split

_ANSWER_BYTES: Final = 1 << 20  # in one answer, with which the loop is done at once; but one chunk of any size
_AGAIN_S: Final = 1.0  # while the store refuses
_MOST: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class ChunkAnswer(InParts):
    """What is answered. Large chunks are sent from where they are."""

    chunks: list[bytes]
    next: int
    ended: bool

    def parts(self) -> list[Part]:
        """It as MessagePack, a map."""
        ends = encode("next") + encode(self.next) + encode("ended") + encode(self.ended)
        return [b"\x83" + encode("chunks"), *split(self.chunks, encode), ends]


async def chunks(call: Call) -> ChunkAnswer | None:
    """The chunks of a task's stream from ``offset`` on: as soon as there are any, or the task has ended."""
    manager, task_id, reader = call.manager, call.id(), _number(call, "reader", 0)
    streams = manager.scheduler.streams
    if call.flag("detach"):
        streams.detach(task_id, call.client, reader, now())
        manager.shell.readers.wake(task_id)  # a question of its own may wait
        manager.told()
        return None
    offset, limit = _number(call, "offset", 0), min(_number(call, "limit", WINDOW), WINDOW)
    if not limit:
        raise BadOption(f"limit takes a whole number from 1 to {WINDOW}")
    with manager.shell.readers.asks(call.client, task_id, reader) as turn:
        answer = await _Question(manager, call.client, task_id, reader, offset, limit, turn).answer()
    if turn.is_over:  # the reader has not seen these chunks: they are for its latest question
        return ChunkAnswer([], offset, ended=False)
    if answer.ended:
        streams.read_left(task_id, call.client, reader, answer.next)  # of what is held for it, it needs none any more
        streams.detach(task_id, call.client, reader, now())
    return answer


class _Question(NamedTuple):
    """Of one reader, for the chunks from ``offset`` on, while it is its ``turn``."""

    manager: Manager
    client: int
    task_id: bytes
    reader: int
    offset: int
    limit: int
    turn: Turn

    async def answer(self) -> ChunkAnswer:
        """Once there is one, or it is the reader's latest question no more."""
        manager, task_id = self.manager, self.task_id
        state, streams = manager.scheduler.state, manager.scheduler.streams
        stream: Stream | None = None
        while not self.turn.is_over:
            task = state.tasks.get(task_id)
            if task is None:
                if (left := streams.read_left(task_id, self.client, self.reader, self.offset)) is not None:
                    return self._from_memory(left)
                found = await self._ended()
                if found is not None:
                    return found
                continue  # it waits in the store, and is in memory now
            if stream is None:
                stream = streams.read(task, self.client, self.reader, self.offset, now())
                manager.told()  # its worker may go on
            elif (self.client, self.reader) not in stream.readers:
                break  # it was detached meanwhile
            if self.offset >= stream.committed:
                await manager.shell.readers.wait(task_id)
            elif not stream.durable:
                return self._from_memory(stream)
            elif (page := await self._page()) is not None and (page.chunks or self.offset < page.dropped):
                return self._shown(page)
        return ChunkAnswer([], self.offset, ended=False)

    def _from_memory(self, stream: Stream) -> ChunkAnswer:
        begin = self.offset - stream.dropped
        if begin < 0:  # the same reader has asked for others since
            raise dropped(self.task_id, self.offset, stream.dropped)
        found: list[bytes] = []
        size = 0
        for payload in islice(stream.held, begin, begin + self.limit):
            found.append(inline(payload))
            size += len(payload)
            if size >= _ANSWER_BYTES:
                break
        following = self.offset + len(found)
        return ChunkAnswer(found, following, stream.ended and following >= stream.kept)

    async def _ended(self) -> ChunkAnswer | None:
        """What is kept of a task that is not in memory; None if it is by now, or there is nothing to be answered.

        Raises:
            NotFound: it is not known.
        """
        memory = self.manager.shell.memory.chunks(self.task_id, self.offset, self.limit, _ANSWER_BYTES)
        page = memory if memory is not None else await self._page()
        if page is None:
            if self.task_id in self.manager.scheduler.state.tasks or self.turn.is_over:
                return None
            raise no_task(self.task_id)
        if not page.final:
            async with self.manager.look_ups as look_ups:
                await look_ups.find(self.task_id)
            return None
        return self._shown(page)

    async def _page(self) -> Chunks | None:
        """What the store has, once it can be asked."""
        manager = self.manager
        while not self.turn.is_over:
            manager.act()  # what has been decided so far is to be seen
            try:
                return await manager.read_store(
                    lambda store: store.chunks(self.task_id, self.offset, self.limit, _ANSWER_BYTES)
                )
            except StoreUnavailable:
                if manager.shell.store_error is None:
                    raise
                await manager.shell.readers.wait(self.task_id, _AGAIN_S)
        return None

    def _shown(self, page: Chunks) -> ChunkAnswer:
        if self.offset < page.dropped:
            raise dropped(self.task_id, self.offset, page.dropped)
        found = list(map(inline, page.chunks))
        following = self.offset + len(found)
        return ChunkAnswer(found, following, page.final and following >= page.kept)


def _number(call: Call, name: str, usual: int) -> int:
    value = call.arguments.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise BadOption(f"{name} takes a whole number, at least 0, got {value!r:.200}")
    return value
