"""One worker process as the manager holds it: its pipes, its control channel, its page, its pidfd.

A pipe each for tasks and results, so that no two workers share a lock; a socketpair for control; two pipes for its
output (console.py). Writes never block the loop: what a pipe does not take is kept, and sent when it can be.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

from poolmgr.config import Group
from poolmgr.errors import BadDescriptor, ProtocolError
from poolmgr.manager.console import Console
from poolmgr.manager.control import ControlChannel
from poolmgr.parcels.parcel import LEAST_BYTES, Allowance, Parcel, check, taken
from poolmgr.parcels.passing import dispose
from poolmgr.payload import Payload, inline
from poolmgr.post_mortem import RAN_BEFORE, PostMortem
from poolmgr.wire.framing import Decoder
from poolmgr.wire.messages import ARGUMENTS, PAYLOAD_LIMIT
from poolmgr.wire.parts import Part, rest_of
from poolmgr.worker.channels import Channels
from poolmgr.worker.page import FILE_BYTES, PAGE_BYTES, Page

PIPE_BYTES = 256 * 1024
_PARTS = 512  # in one write; the kernel takes 1,024
_OUTPUT_PATIENCE_S = 0.005  # for the output of a task that has failed
_SILENT_S = 0.5  # a process that has closed its result pipe, and does not end, is killed after this
_STARTED_KEPT = 64  # more than a worker can have in flight, and have ended in one turn of the loop


class Listener(Protocol):
    """Who hears what a worker says."""

    def worker_says(self, process: WorkerProcess, messages: list[list[Any]]) -> None: ...
    def worker_told(self, process: WorkerProcess, message: list[Any]) -> None: ...
    def worker_printed(self, process: WorkerProcess, stream: str, fence: int, line: str) -> None: ...
    def worker_babbled(self, process: WorkerProcess, error: str) -> None: ...
    def worker_ended(self, process: WorkerProcess, how: str) -> None: ...


class WorkerProcess:
    """The manager's end of one incarnation of one slot.

    Args:
        buffer: for what is read of it; all processes of one loop share one. A new one for each read, which is large
            and soon freed, makes the heap one of holes.
    """

    def __init__(
        self,
        worker: str,
        incarnation: int,
        generation: int,
        group: Group,
        loop: asyncio.AbstractEventLoop,
        listener: Listener,
        descriptors: Allowance,
        buffer: memoryview,
    ) -> None:
        self.worker = worker
        self.incarnation = incarnation
        self.label = f"{worker}.{incarnation}"  # marks all that it starts (worker/warden.py)
        self.generation = generation  # of the code that it is to run
        self.group = group
        self.pid: int | None = None
        self.unwanted = False  # to be killed as soon as it exists
        self.started: deque[tuple[int, bytes, str]] = deque(maxlen=_STARTED_KEPT)
        self.post_mortem: PostMortem | None = None  # once it has ended
        self._loop = loop
        self._listener = listener
        self._descriptors = descriptors
        self._buffers = (buffer,)
        self.takes_streams = False  # it knows chunks and checkpoints; known when it is ready
        self.takes_many = False  # it knows START_MANY; known when it is ready
        self.takes_files = False  # payloads, on the control channel; known when it is ready
        self._decoder = Decoder()
        self._out: list[Part] = []
        self._writing = False  # the pipe is full: the loop tells when it is not
        self.pidfd = -1  # from its beginning until it is closed
        self._open: list[int] = []
        self._make_channels()
        streams = {"stdout": self._stdout, "stderr": self._stderr}
        self.console = Console(loop, streams, self.page, partial(listener.worker_printed, self))

    def _make_channels(self) -> None:
        """Raises ``OSError`` where the process may not open so many files; then none of them is open."""
        with ExitStack() as made:
            tasks_r, self._tasks = _pipe(made)
            self._results, results_w = _pipe(made)
            self._stdout, stdout_w = _pipe(made)
            self._stderr, stderr_w = _pipe(made)
            ours, control = map(made.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            page = os.memfd_create("poolmgr-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            made.callback(os.close, page)
            os.ftruncate(page, FILE_BYTES)
            os.lseek(page, PAGE_BYTES, os.SEEK_SET)  # the worker's end of it, too: there its stacks are to begin
            # A worker that could shrink it would end this process with SIGBUS.
            fcntl.fcntl(page, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self.page = Page(page, FILE_BYTES)
            made.pop_all()
        self._open = [self._tasks, self._results, self._stdout, self._stderr]
        for fd in self._open:
            os.set_blocking(fd, False)
        self._control = ControlChannel(ours, self._loop)
        self.channels = Channels(tasks_r, results_w, control.detach(), page, stdout_w, stderr_w)

    def handed_over(self) -> None:
        """The worker's ends are on their way to it: this process must not hold them."""
        for fd in self.channels:
            os.close(fd)

    def begin(self, pid: int) -> None:
        """The process exists: listen to it, and to its end."""
        self.pid = pid
        loop = self._loop
        loop.add_reader(self._results, self._read_results)
        self._control.listen(
            self.console, partial(self._listener.worker_told, self), partial(self._listener.worker_babbled, self)
        )
        self.console.listen()
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError as error:
            loop.call_soon(self._listener.worker_ended, self, f"it was gone before it was watched ({error.strerror})")
            return
        loop.add_reader(self.pidfd, self._reap)
        if self.unwanted:
            self.signal_group(signal.SIGKILL)

    def begun(self, at: float) -> tuple[int, float]:
        """What its page shows at the time ``at``: (fence, begun at). A time that cannot be is 0.0: the worker can write
        what it likes."""
        fence, begun_at = self.page.read()
        return fence, begun_at if 0.0 < begun_at <= at else 0.0

    # ------------------------------------------------------------------------------------------ to the worker

    def queue(self, message: bytes) -> None:
        """Append to what the next ``flush`` writes to the task pipe."""
        self._out.append(message)

    def queue_parts(self, message: Sequence[Part]) -> None:
        """... a message in parts."""
        self._out += message

    def flush(self) -> None:
        """One write for all that was queued in this turn."""
        if not self._writing and self._out:
            self._write()

    def task_of(self, fence: int) -> bytes | None:
        """The id of the task that was started with this fence: output may be read long after its result."""
        return next((id for started, id, _ in self.started if started == fence), None)

    def never_began(self, fences: Sequence[int]) -> None:
        """These tasks were recalled: it has not run them."""
        kept = [each for each in self.started if each[0] not in fences]
        self.started.clear()
        self.started.extend(kept)

    def _write(self) -> None:
        out = self._out
        try:
            written = os.write(self._tasks, out[0]) if len(out) == 1 else os.writev(self._tasks, out[:_PARTS])
        except BlockingIOError:
            written = 0
        except OSError:
            out.clear()
            return  # it has died; the reaper tells
        if len(out) == 1 and written == len(out[0]):
            out.clear()
            return
        self._out = rest_of(out, written)
        if self._out and not self._writing:
            self._writing = True
            self._loop.add_writer(self._tasks, self._write_more)

    def _write_more(self) -> None:
        self._write()
        if not self._out:
            self._writing = False
            self._loop.remove_writer(self._tasks)

    def tell(self, message: list[Any]) -> bool:
        """Send one packet on the control channel; False if it cannot be taken now."""
        return self._control.tell(message)

    def pass_on(self, fence: int, payload: Payload) -> bytes | int:
        """What START carries for a payload in a file: its size, with a descriptor ahead of it; or, where the worker
        does not take that (now), the payload."""
        if self.takes_files and isinstance(payload, Parcel) and self._control.tell([ARGUMENTS, fence], payload.fd):
            return payload.size
        return inline(payload)

    def result_file(self, fence: int, size: int) -> Payload:
        """The payload of a DONE that names no more than its size. Raises ``BadDescriptor``."""
        fd = self._control.file_of(fence)
        if fd is None:
            raise BadDescriptor(f"a result of {size} bytes in a file that did not come")
        try:
            check(fd, size, LEAST_BYTES, PAYLOAD_LIMIT)
        except BadDescriptor:
            dispose(fd)
            raise
        return taken(fd, size, self._descriptors)

    def retire(self) -> None:
        """No more tasks: the worker reads the end of its pipe, and exits."""
        self._close(self._tasks)

    def signal(self, number: int) -> None:
        """To the process alone; nothing if it has ended, or has become another user's (by exec of a set-uid program):
        one that does not go for being killed is ``stuck``."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except (ProcessLookupError, PermissionError):
                pass

    def signal_group(self, number: int) -> None:
        """To all in its group, and to the process, which may have left it. Its number is not used again before it is
        reaped, so this is safe."""
        if self.pidfd >= 0 and self.pid is not None:
            try:
                os.killpg(self.pid, number)
            except (ProcessLookupError, PermissionError):
                pass
            if self.left_its_group():
                self.signal(number)

    def left_its_group(self) -> bool:
        """Whether it is in another process group than its own."""
        try:
            return os.getpgid(self.pid or 0) != self.pid
        except ProcessLookupError:
            return False

    # ------------------------------------------------------------------------------------------ from the worker

    def take_in(self) -> None:
        """What it has written so far, if the loop has not come to it yet."""
        if self.pid is not None and self._results in self._open:
            self._read_results()

    def _read_results(self) -> None:
        try:
            count = os.readv(self._results, self._buffers)
        except BlockingIOError:
            return
        if not count:
            self._loop.remove_reader(self._results)
            self._loop.call_later(_SILENT_S, self._fell_silent)  # as a rule it ends just now
            return
        self._take(self._buffers[0][:count])

    def _fell_silent(self) -> None:
        """Nothing can come of a process that cannot tell: it was replaced by another program, or closed its files."""
        if self.pidfd >= 0:
            self._listener.worker_babbled(self, "it has closed its result pipe")

    def _take(self, data: memoryview) -> None:
        try:
            messages = self._decoder.feed(data)
        except ProtocolError as error:
            messages, self._decoder.complete = self._decoder.complete, []
            if messages:
                self._listener.worker_says(self, messages)
            self._listener.worker_babbled(self, str(error))
            return
        if messages:
            self._listener.worker_says(self, messages)

    def output_of(self, fence: int) -> str:
        """The last that a task of this process has printed; '' if that was nothing, or others have since."""
        self.console.catch_up(_OUTPUT_PATIENCE_S)
        return self.console.of(fence)

    # ------------------------------------------------------------------------------------------ its end

    def _reap(self) -> None:
        """The process has ended. Its group first, while its number is still held; then the last of what it wrote."""
        assert self.pid is not None
        self.signal_group(signal.SIGKILL)
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)  # as it is ours, nobody else can have its number yet
        except ChildProcessError:  # not ours yet: its middle process still stands between
            if _is_zombie(self.pid):
                self._loop.remove_reader(self.pidfd)
                self._loop.call_later(0.001, self._watch_again)
                return
            how, found = "it was reaped by someone else", PostMortem()
        else:
            if not pid:
                return
            found = _examine(status, usage)
            how = found.how
        self._loop.remove_reader(self.pidfd)
        self._take_last_results()
        self.console.end()
        self.post_mortem = self._with_the_task(found)
        self._listener.worker_ended(self, how)

    def _with_the_task(self, found: PostMortem) -> PostMortem:
        """... with what there is of the task that it had begun last."""
        fence = self.page.read()[0]
        before = [(id.hex(), name) for started, id, name in self.started if started < fence]
        return found._replace(
            stacks=self.page.stacks(),
            output=self.console.of(fence),
            ran_before=tuple(before[-RAN_BEFORE:]),
        )

    def _watch_again(self) -> None:
        if self.pidfd >= 0:
            self._loop.add_reader(self.pidfd, self._reap)

    def _take_last_results(self) -> None:
        """Everything that it has left in the pipe: no more than this holds. A process that it has started may go on
        writing to it for ever."""
        left = fcntl.fcntl(self._results, fcntl.F_GETPIPE_SZ) if self._results in self._open else 0
        while left > 0:
            try:
                count = os.readv(self._results, [self._buffers[0][:left]])
            except OSError:
                break
            if not count:
                break
            left -= count
            self._take(self._buffers[0][:count])

    def close(self) -> None:
        """Let go of everything. Safe to call twice."""
        if self.pidfd >= 0:
            self._loop.remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1
        if self._stdout in self._open:
            self.console.end()
        for fd in list(self._open):
            self._close(fd)
        if self._control.close():
            self.page.close()

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            os.close(fd)
            if fd == self._tasks:
                self._out.clear()
                self._writing = True  # nothing is written any more


def _pipe(made: ExitStack) -> tuple[int, int]:
    """A pipe that is closed with ``made``: (reader, writer)."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    made.callback(os.close, reader)
    made.callback(os.close, writer)
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass  # the user's share of pipe memory is used up: a smaller pipe does as well
    return reader, writer


def _is_zombie(pid: int | None) -> bool:
    from poolmgr.worker.warden import stat

    fields = stat(pid) if pid is not None else []
    return bool(fields) and fields[0] == "Z"


def _examine(status: int, usage: resource.struct_rusage) -> PostMortem:
    """What ``wait4`` tells of a process that has ended."""
    found = PostMortem(peak_memory_mb=round(usage.ru_maxrss / 1024, 1))
    if os.WIFEXITED(status):
        return found._replace(exit_code=os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return found._replace(signal=number, signal_name=name, core_dumped=os.WCOREDUMP(status))
