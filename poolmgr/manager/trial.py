"""One executable on trial: started as a worker, and talked to as the manager talks to workers. For rules.py."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgpack

from poolmgr.errors import ProtocolError
from poolmgr.manager.clock import now
from poolmgr.manager.hearing import result_of, understood
from poolmgr.manager.stream_words import chunk_of
from poolmgr.wire.framing import READ_BYTES, Decoder, encode
from poolmgr.wire.messages import (
    BROKEN,
    CHUNK,
    CREDIT_BY_DEFAULT,
    CREDIT_BYTES_BY_DEFAULT,
    DONE,
    HEARTBEAT,
    LOG,
    RAISED,
    READY,
    RECALLED,
    RELEASED,
    REPORT,
    START,
    START_MANY,
)
from poolmgr.worker.channels import Channels
from poolmgr.worker.execute import become, environ_of
from poolmgr.worker.page import FILE_BYTES, PAGE_BYTES, Page
from poolmgr.worker.warden import FILES

HEARTBEAT_S: Final = 0.1
UNKNOWN: Final = "poolmgr.no-such-task"
_NAMES: Final = {
    READY: "READY", DONE: "DONE", RAISED: "RAISED", REPORT: "REPORT", RECALLED: "RECALLED", BROKEN: "BROKEN",
    HEARTBEAT: "HEARTBEAT", LOG: "LOG", CHUNK: "CHUNK", RELEASED: "RELEASED",
}  # fmt: skip


class Violation(Exception):
    """What the worker did that the protocol does not allow, or did not do."""


class Job(NamedTuple):
    """A task that the worker on trial is said to know: its name, and its call as a payload."""

    name: str
    payload: bytes

    @classmethod
    def calling(cls, name: str, arguments: list[Any]) -> Job:
        """The call of ``name`` with positional arguments."""
        return cls(name, msgpack.packb([arguments]))


NO_SUCH_JOB: Final = Job.calling(UNKNOWN, [])


class Trial:
    """A process of ``command``, and the manager's ends of its channels. A context manager: started, and ended.

    ``patience_s`` is how long anything may take that the worker has to do.
    """

    def __init__(self, command: Sequence[str], patience_s: float) -> None:
        self._command = list(command)
        self._patience_s = patience_s
        self._decoder = Decoder()
        self._said: deque[list[Any]] = deque()
        self._output = open(os.memfd_create("output", os.MFD_CLOEXEC), "r+b")  # noqa: SIM115 - closed with the trial
        self._page_fd = os.memfd_create("poolmgr-page", os.MFD_CLOEXEC)
        os.ftruncate(self._page_fd, FILE_BYTES)
        os.lseek(self._page_fd, PAGE_BYTES, os.SEEK_SET)
        self.page = Page(self._page_fd)
        self.last_fence = 0
        self.pid = 0
        self.tasks = -1
        self.left: list[int] = []  # of its process group, when it had ended
        self._status: int | None = None

    def __enter__(self) -> Self:
        tasks, self.tasks = os.pipe()
        self._results, results = os.pipe()
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output = self._output.fileno()
        channels = Channels(tasks, results, control.fileno(), self._page_fd, output, output)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setpgid(0, 0)
                os.environ.update(environ_of("worker-0", 1, "default", HEARTBEAT_S))
                del os.environ[FILES]  # an offer that is not made here
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                become(self._command, channels)
            finally:
                os._exit(1)
        os.close(tasks)
        os.close(results)
        control.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._status is None:
            self._kill()
            self._status = os.waitpid(self.pid, 0)[1]
        self.page.close()
        self.close_tasks()
        os.close(self._results)
        os.close(self._page_fd)
        self._control.close()
        self._output.close()

    def _kill(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(self.pid, signal.SIGKILL)

    def output(self) -> str:
        """The last that it has printed."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), 2048, max(0, size - 2048)).decode(errors="replace").strip()

    # ------------------------------------------------------------------------------------------ to the worker

    def start(self, *jobs: Job) -> list[int]:
        """Write a START for each, all at once; their fences."""
        fences = [self.next_fence() for _ in jobs]
        self.write(b"".join(start(fence, job) for fence, job in zip(fences, jobs, strict=True)))
        return fences

    def start_many(self, name: str, payloads: Sequence[bytes]) -> list[int]:
        """Write a START of that name for each, as one message; their fences."""
        fences = [self.next_fence() for _ in payloads]
        ids = [fence.to_bytes(16, "big") for fence in fences]
        self.write(encode((START_MANY, fences[0], ids, name, payloads, 300.0, None, "a later element")))
        return fences

    def start_stream(
        self, job: Job, resume: list[Any] | None = None, credit: int = CREDIT_BY_DEFAULT, size: int = 1 << 40
    ) -> int:
        """Write the START of a stream, which may send so many chunks, and bytes; its fence."""
        fence = self.next_fence()
        self.write(start(fence, job, resume, credit, size))
        return fence

    def next_fence(self) -> int:
        """A fence that was not used yet."""
        self.last_fence += 1
        return self.last_fence

    def write(self, data: bytes) -> None:
        """Bytes for the task pipe."""
        try:
            while data:
                data = data[os.write(self.tasks, data) :]
        except BrokenPipeError:
            raise Violation(f"it no longer reads its task pipe: {self.end()}") from None

    def tell(self, message: list[Any], *, interrupt: bool = False) -> None:
        """A packet on the control channel; with SIGUSR1 after it where that belongs to it."""
        try:
            self._control.send(encode(message))
        except OSError:
            raise Violation(f"it no longer has its control channel: {self.end()}") from None
        if interrupt:
            os.kill(self.pid, signal.SIGUSR1)

    def hang_up(self) -> None:
        """Close the control channel, as a manager that is gone."""
        self._control.close()

    def close_tasks(self) -> None:
        """The order to go. Safe to call twice."""
        if self.tasks >= 0:
            os.close(self.tasks)
            self.tasks = -1

    # ------------------------------------------------------------------------------------------ from the worker

    def ready(self) -> Sequence[Any]:
        """Its first message, which has to be READY."""
        message = self.message("READY")
        if message[0] == BROKEN:
            raise Violation(f"it is not ready: {message[1]}")
        if message[0] != READY:
            raise Violation(f"its first message is {_name(message)}, not READY")
        if len(message) < 4 or message[2] != self.pid:
            raise Violation(
                f"READY is {message}; it is [60, version, its own pid, capabilities], and that is {self.pid}"
            )
        return self._checked(message)

    def answer(self, fence: int) -> Sequence[Any]:
        """How the task of ``fence`` ended: DONE, or RAISED. Whatever is said for another is a violation."""
        wanted = f"DONE or RAISED for fence {fence}"
        message = self.message(wanted)
        while message[0] == REPORT or (message[0] == RECALLED and not self._checked(message)[1]):
            message = self.message(wanted)
        if message[0] not in (DONE, RAISED) or message[1] != fence:
            raise Violation(f"expected {wanted}, got {_shown(message)}")
        return self._in_time(message)

    def say_of_stream(self, fence: int) -> Sequence[Any]:
        """The next that is said of the stream of ``fence``: CHUNK, RELEASED, DONE or RAISED."""
        wanted = f"CHUNK, RELEASED, DONE or RAISED for fence {fence}"
        message = self.message(wanted)
        while message[0] == REPORT or (message[0] == RECALLED and not self._checked(message)[1]):
            message = self.message(wanted)
        if message[0] not in (CHUNK, RELEASED, DONE, RAISED) or message[1] != fence:
            raise Violation(f"expected {wanted}, got {_shown(message)}")
        return self._checked(message) if message[0] == CHUNK else self._in_time(message)

    def says_nothing(self) -> bool:
        """Nothing has come that was not taken yet."""
        return not self._said and not self._readable([self._results], 0.0)

    def _in_time(self, message: list[Any]) -> Sequence[Any]:
        begun_at, ended_at = message[2:4]
        self._checked(message)
        if not now() - self._patience_s - 60 < begun_at <= ended_at <= now() + 0.05:
            raise Violation(f"{_shown(message)}: the times are not those of CLOCK_BOOTTIME, which shows {now():.3f}")
        return message

    def gives_back(self, running: int, waiting: set[int]) -> None:
        """The task that runs is answered, and the others are RECALLED, in one or several, before or after that."""
        runs, left = True, set(waiting)
        while runs or left:
            wanted = f"RECALLED for {sorted(left)}" if left else f"DONE or RAISED for fence {running}"
            message = self.message(wanted)
            word = self._checked(message)
            if message[0] == RECALLED and set(word[1]) <= left:
                left -= set(word[1])
            elif runs and message[0] in (DONE, RAISED) and word[1] == running:
                runs = False
            elif message[0] != REPORT:
                raise Violation(f"expected {wanted}, got {_shown(message)}")

    def beats(self, count: int, why: str) -> None:
        """So many heartbeats come from now on."""
        self.heard()
        until = time.monotonic() + self._patience_s
        while count:
            if not self._readable([self._control], until - time.monotonic()):
                raise Violation(f"no heartbeat {why}, although POOLMGR_HEARTBEAT_S is {HEARTBEAT_S}")
            count -= self._packet() == HEARTBEAT

    def heard(self) -> int:
        """How many heartbeats have come since the last look."""
        count = 0
        while self._readable([self._control], 0.0):
            count += self._packet() == HEARTBEAT
        return count

    def _packet(self) -> int:
        try:
            data = self._control.recv(65536)
        except ConnectionError:  # it went with packets unread
            data = b""
        if not data:
            raise Violation(f"it has closed its control channel: {self.end()}")
        try:
            [message] = Decoder().feed(data)
        except (ProtocolError, ValueError):
            raise Violation(f"a packet of the control channel is no message: {data[:40]!r}") from None
        if message[0] not in (HEARTBEAT, LOG):
            raise Violation(f"{_shown(message)} on the control channel")
        kind: int = message[0]
        return kind

    def message(self, wanted: str) -> list[Any]:
        """The next message of the result pipe."""
        until = time.monotonic() + self._patience_s
        while not self._said:
            if not self._readable([self._results], until - time.monotonic()):
                raise Violation(f"no {wanted} within {self._patience_s:g} s")
            data = os.read(self._results, READ_BYTES)
            if not data:
                raise Violation(f"expected {wanted}, but it has ended: {self.end()}")
            try:
                self._said.extend(self._decoder.feed(data))
            except ProtocolError as error:
                raise Violation(f"on the result pipe: {error}") from None
        return self._said.popleft()

    def silent(self) -> None:
        """Nothing more is said: it was written before its end, so it could be read by now."""
        try:
            message = self.message("more")
        except Violation:
            return
        raise Violation(f"it says what it was not asked for: {_shown(message)}")

    def await_page(self, fence: int) -> None:
        """The page shows ``fence``."""
        until = time.monotonic() + self._patience_s
        while self.page.read()[0] != fence:
            if time.monotonic() > until:
                raise Violation(f"the page shows {self.page.read()[0]} while fence {fence} is to run")
            time.sleep(0.001)

    def end(self) -> str:
        """How it has ended, or that it has not."""
        if self._status is None:
            process = os.pidfd_open(self.pid)
            try:
                if not self._readable([process], self._patience_s):
                    return "it still runs"
            finally:
                os.close(process)
            self.left = [pid for pid in _group(self.pid) if pid != self.pid]
            self._kill()  # its group, while the number is still its own
            self._status = os.waitpid(self.pid, 0)[1]
        code = os.waitstatus_to_exitcode(self._status)
        return f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.Signals(-code).name})"

    @staticmethod
    def _readable(sources: list[Any], timeout_s: float) -> list[Any]:
        return select.select(sources, [], [], max(0.0, timeout_s))[0]

    @staticmethod
    def _checked(message: list[Any]) -> Sequence[Any]:
        try:
            if message[0] == CHUNK:
                return (CHUNK, *chunk_of(message))
            return (DONE, *result_of(message, now())) if message[0] == DONE else understood(message, now())
        except Exception as error:
            raise Violation(f"{_shown(message)}: {error}") from None


def start(
    fence: int,
    job: Job,
    resume: list[Any] | None = None,
    credit: int = CREDIT_BY_DEFAULT,
    size: int = CREDIT_BYTES_BY_DEFAULT,
) -> bytes:
    """A START message. Every other is as short as it can be; the rest have one element more than this version
    describes: those are ignored."""
    task = fence.to_bytes(16, "big"), 1, job.name, job.payload, 300.0, None
    if resume is None and credit == CREDIT_BY_DEFAULT and fence % 2:
        return encode((START, fence, *task))
    return encode((START, fence, *task, resume, credit, size, "a later element"))


def _group(leader: int) -> list[int]:
    from poolmgr.worker.warden import processes, stat

    return [pid for pid in processes() if (fields := stat(pid)) and int(fields[2]) == leader and fields[0] not in "ZX"]


def _name(message: list[Any]) -> str:
    return _NAMES.get(message[0], f"a message of type {message[0]}")


def _shown(message: list[Any]) -> str:
    text = repr(message[1:])
    return f"{_name(message)} {text if len(text) <= 160 else text[:160] + '…'}"
