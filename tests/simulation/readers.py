"""Modelled readers of streams: quick ones and slow ones, that go away and come back, and see each chunk once.

1. The chunks of a stream have the numbers 0, 1, ...; what one reader has seen under a number, all see, for ever: after
   any crash, whoever runs the task again.
2. A stream whose task has completed undisturbed has all its chunks.
3. A reader is told that it comes too late only where another has made room, or of what was not durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolmgr.core.stream import Stream
from poolmgr.errors import NotFound, PoolError
from poolmgr.model import TaskState
from poolmgr.payload import Payload, inline
from poolmgr.store.base import Chunks
from tests.simulation.oracle import Oracle
from tests.simulation.streaming import total_of
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.shell import Shell

_LOOKS_AGAIN_S: Final = 1.0


@dataclass(slots=True, eq=False)
class Reader:
    """Where it is. Under another daemon, or on another connection, it goes on there."""

    task: bytes
    durable: bool
    number: int
    client: int = 0
    offset: int = 0
    waits: bool = False  # to be woken
    asked: int = 0  # what was arranged for an earlier question is void


class Readers:
    """All of them, in all lives of the daemon."""

    def __init__(self, world: World, oracle: Oracle) -> None:
        self.shell: Shell | None = None
        self.calm = False  # nobody is slow any more
        self.cut: set[bytes] = set()  # tasks whose handlers were told to end early
        self._world = world
        self._oracle = oracle
        self._readers: list[Reader] = []
        self._seen: dict[bytes, dict[int, bytes]] = {}
        self._count = 0

    def begin(self, shell: Shell) -> None:
        """A daemon is there. What was seen of a durable stream is there, too."""
        if not shell.alive:
            return
        self.shell = shell
        for id, seen in self._seen.items():
            page = shell.disk.store.chunks(id, 0, 1)
            if page is not None and self._oracle.tasks[id].options.durable:
                assert page.kept > max(seen, default=-1), f"{id.hex()}: chunk {max(seen)} was seen, and is lost"
                page = shell.disk.store.chunks(id, page.dropped, page.kept)
                assert page is not None
                self._compare(id, page.dropped, page.chunks)
        self._readers = [reader for reader in self._readers if reader.durable]
        for reader in self._readers:
            self._later(reader, self._world.between(0.01, 2.0))

    def gone(self) -> None:
        """The daemon is gone."""
        self.shell = None

    def attach(self, id: bytes, client: int) -> None:
        """Somebody begins to read a stream from its beginning."""
        self._count += 1
        reader = Reader(id, self._oracle.tasks[id].options.durable, self._count, client)
        self._readers.append(reader)
        self._ask(reader)

    def woken(self, id: bytes) -> None:
        """This stream has gone on, or has ended."""
        for reader in self._readers:
            if reader.task == id and reader.waits:
                self._later(reader, self._world.between(0.00001, 0.001))

    def tend(self) -> None:
        """Read what nobody reads, so that it comes to its end."""
        self.calm = True
        assert self.shell is not None
        state = self.shell.scheduler.state
        read = {reader.task for reader in self._readers}
        for id, stream in list(state.streams.items()):
            if id in state.tasks and id not in read and stream.waits_for_reader and state.sessions:
                self.attach(id, next(iter(state.sessions)))

    # ------------------------------------------------------------------------------------------ one question

    def _later(self, reader: Reader, delay_s: float) -> None:
        reader.waits = False
        reader.asked += 1
        if self.shell is not None:
            self._world.after(delay_s, self.shell.hear, self._ask_again, reader, reader.asked, self.shell)

    def _ask_again(self, reader: Reader, asked: int, shell: Shell) -> None:
        if asked == reader.asked and shell is self.shell and reader in self._readers:
            self._ask(reader)

    def _ask(self, reader: Reader) -> None:
        shell = self.shell
        assert shell is not None
        reader.waits = False
        reader.asked += 1
        state, streams = shell.scheduler.state, shell.scheduler.streams
        if reader.client not in state.sessions:  # its connection is lost
            if not state.sessions:
                self._later(reader, _LOOKS_AGAIN_S)
                return
            reader.client = self._world.random.choice(list(state.sessions))
        who = (reader.client, reader.number, reader.offset)
        try:
            if reader.task in state.tasks:
                self._read_live(reader, shell.tell(self._read, reader.task, *who))
            elif not reader.durable:
                self._read_left(reader, shell.tell(streams.read_left, reader.task, *who))
            else:
                shell.look_ups.find(reader.task, lambda record: self._found(reader, reader.asked, shell))
        except NotFound:
            self._comes_too_late(reader)
        except PoolError:
            self._readers.remove(reader)

    def _read(self, id: bytes, client: int, number: int, offset: int) -> Stream:
        assert self.shell is not None
        scheduler = self.shell.scheduler
        return scheduler.streams.read(scheduler.state.tasks[id], client, number, offset, self._world.now)

    def _comes_too_late(self, reader: Reader) -> None:
        assert self.shell is not None
        state = self.shell.scheduler.state
        stream = state.streams.get(reader.task) or state.streams.left.get(reader.task)
        assert stream is not None
        assert reader.offset < stream.dropped
        assert not reader.durable or self.shell.settings.stream_limit_mb, "without a limit all is kept"
        if not reader.durable and not stream.held and stream.ended:
            self._readers.remove(reader)  # nobody has read it for long
            return
        reader.offset = stream.dropped
        self._later(reader, 0.001)

    def _read_live(self, reader: Reader, stream: Stream) -> None:
        assert self.shell is not None
        if reader.offset >= stream.committed:
            reader.waits = True
        elif not reader.durable:
            self._got(reader, list(stream.held)[reader.offset - stream.dropped :])
        else:
            self._read_kept(reader, reader.asked, self.shell)

    def _read_left(self, reader: Reader, left: Stream | None) -> None:
        if left is None:
            self._readers.remove(reader)
        elif reader.offset < left.kept:
            self._got(reader, list(left.held)[reader.offset - left.dropped :])
        else:
            self._ends(reader, left.kept)

    def _found(self, reader: Reader, asked: int, shell: Shell) -> None:
        """The store was asked for a task that was not in memory."""
        if asked != reader.asked or shell is not self.shell or reader not in self._readers:
            return
        if reader.task in shell.scheduler.state.tasks:
            self._ask(reader)
        else:
            self._read_kept(reader, asked, shell)

    def _read_kept(self, reader: Reader, asked: int, shell: Shell) -> None:
        def read() -> None:
            page = shell.disk.store.chunks(reader.task, reader.offset, 10)
            self._world.after(0.0001, shell.hear, self._page_came, reader, asked, shell, page)

        shell.act()
        if shell.alive:
            shell.disk.read(read)

    def _page_came(self, reader: Reader, asked: int, shell: Shell, page: Chunks | None) -> None:
        if asked != reader.asked or shell is not self.shell or reader not in self._readers:
            return
        if page is None:  # forgotten
            self._readers.remove(reader)
        elif page.chunks:
            self._got(reader, page.chunks)
        elif page.final and reader.offset >= page.kept:
            self._ends(reader, page.kept)
        elif reader.offset < page.dropped:
            reader.offset = page.dropped
            self._later(reader, 0.001)
        else:
            self._later(reader, _LOOKS_AGAIN_S)

    # ------------------------------------------------------------------------------------------ what it sees

    def _got(self, reader: Reader, chunks: Sequence[Payload]) -> None:
        self._compare(reader.task, reader.offset, chunks)
        reader.offset += len(chunks)
        if self.calm or self._world.chance(0.8):
            self._later(reader, self._world.between(0.0, 0.01))
            return
        if self._world.chance(0.5):
            self._detach(reader)  # it comes back
        self._later(reader, self._world.between(0.1, 30.0))

    def _compare(self, id: bytes, begin: int, chunks: Sequence[Payload]) -> None:
        seen = self._seen.setdefault(id, {})
        for seq, chunk in enumerate(map(inline, chunks), start=begin):
            assert chunk.startswith(b"%d of" % seq), f"{id.hex()}: chunk {seq} is {chunk[:30]!r}"
            assert seen.setdefault(seq, chunk) == chunk, f"{id.hex()}: chunk {seq} was {seen[seq]!r}, and is {chunk!r}"

    def _ends(self, reader: Reader, kept: int) -> None:
        known = self._oracle.tasks[reader.task]
        total = total_of(known.payload)
        assert reader.offset == kept <= total, f"{reader.task.hex()} has {kept} chunks of {total}"
        if known.final is not None and known.final[0] is TaskState.COMPLETED and reader.task not in self.cut:
            assert kept == total, f"{reader.task.hex()} has completed with {kept} chunks of {total}"
        self._detach(reader)
        self._readers.remove(reader)

    def _detach(self, reader: Reader) -> None:
        assert self.shell is not None
        self.shell.tell(self.shell.scheduler.streams.detach, reader.task, reader.client, reader.number, self._world.now)
