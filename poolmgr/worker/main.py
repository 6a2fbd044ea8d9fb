"""A worker's main loop: read tasks, run them one after the other, write each result before the next begins.

Everything of a task happens on the main thread. A second thread beats the heart. The manager reaches a worker that is
busy by the control channel, which only the main thread reads: between two tasks, or in the handler of SIGUSR1.

    task pipe     --> main thread --> result pipe
    control       <-> main thread reads (RECALL, INTERRUPT, COLLECT); the heart thread writes
    shared page   <-- main thread: which task, begun when

A recall and the beginning of a task may cross. So a worker whose last task took over 1 ms first publishes the fence of
the next on the page, and then reads the control channel; the manager first writes the recall, and then reads the page.
One of the two sees the other.
"""

from __future__ import annotations

import _thread
import gc
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from select import POLLIN, poll
from types import FrameType
from typing import Any

from msgpack import packb

from poolmgr.wire.framing import Decoder, encode, in_parts
from poolmgr.wire.messages import (
    BROKEN,
    COLLECT,
    DONE,
    HEARTBEAT,
    INTERRUPT,
    LOG,
    PROTOCOL_VERSION,
    RAISED,
    READY,
    RECALL,
    RECALLED,
    REPORT,
    START,
    WORN,
)
from poolmgr.wire.parts import Part, rest_of
from poolmgr.wire.values import SMALL, unpack_call
from poolmgr.worker.channels import Channels
from poolmgr.worker.context import CurrentTask, SoftTimeout, answer_current_task
from poolmgr.worker.control import Control
from poolmgr.worker.coroutines import Coroutines
from poolmgr.worker.output import Writer
from poolmgr.worker.page import Page
from poolmgr.worker.registry import Handler
from poolmgr.worker.run import Failed, describe, encode_result, undecodable, unknown
from poolmgr.worker.surroundings import IDLE_MS, LOOK_EVERY_S, Surroundings

READ_BYTES = 256 * 1024
POLL_AFTER_S = 0.001
TEXT_LIMIT = 12 * 1024  # characters of one log record: at most 48 KB, which one packet takes
_BEAT = packb((HEARTBEAT,))
_ALL = 1 << 64  # more than any fence, or any time

# A task may replace these in their modules; here they stay what they are.
_os_read, _os_write, _os_writev, _exit, _getppid = os.read, os.write, os.writev, os._exit, os.getppid
_clock, _sleep, _collect = time.clock_gettime, time.sleep, gc.collect
_BOOTTIME = time.CLOCK_BOOTTIME
# The C function: its namesake in ``signal`` makes enum members, and touches 200 KB of what a fork shares.
_set_handler: Any = sys.modules["_signal"].signal
_get_limit, _set_limit = sys.getrecursionlimit, sys.setrecursionlimit
_get_trace, _set_trace, _get_profile, _set_profile = sys.gettrace, sys.settrace, sys.getprofile, sys.setprofile


class Worker:
    """The process in a slot. A template makes it before the fork, since what is made there takes the memory of one."""

    def __init__(self, handlers: dict[str, Handler], output: Writer) -> None:
        self.id: str
        self._tasks: int
        self._results: int
        self._control: Control
        self._page: Page
        self._decoder = Decoder()
        self._handlers = handlers
        self._output = output
        self._waiting: deque[list[Any]] = deque()
        self._recalled = 0  # no task with this or a smaller fence is begun any more
        self._dropped: list[int] | None = None  # what a recall found that is still to be told
        self._start: list[Any] = []  # the START of the task that runs
        self._begun_at = 0.0
        self._running = 0  # the fence whose handler is being called, 0 between tasks
        self._current: CurrentTask | None = None  # made when a handler asks
        self._write_lock = _thread.allocate_lock()  # handlers may have threads, and those may tell of progress
        self._shielded = False  # a message is being written: an interrupt waits
        self._interrupt_waits = False
        self._early_fence = 0  # the last one for which an interrupt came while it was not running
        self._early: set[str] = set()  # ... and the reasons
        self._reading = False  # the control channel is being read
        self._read_again = False  # a signal has struck meanwhile
        self._main: int  # the thread
        self._surroundings: Surroundings  # as the startup hooks leave them
        self._unseen = 0  # the fence of a task that has run since all of them were looked at
        self._unseen_s = 0.0  # for how long tasks have run since then
        self._seen: set[str] = set()  # handlers after whose first run they were
        self._is_copy = False  # a handler has forked, and this is the child
        self._coroutines = Coroutines()

    # ------------------------------------------------------------------------------------------ the loop

    def live(self, id: str, channels: Channels, heartbeat_interval_s: float) -> None:
        """In the process that it is to be: take the channels and signals, and start the heart."""
        self.id = id
        self._tasks, self._results = channels.tasks, channels.results
        self._control = Control(channels.control)
        self._send = self._control.send
        self._page = Page(channels.page)
        self._main = _thread.get_ident()
        answer_current_task(self._current_task)
        _set_handler(signal.SIGUSR1, self._on_signal)
        _thread.start_new_thread(self._beat, (heartbeat_interval_s,))

    def begin(self, hooks: list[Callable[[], Any]], surroundings: Surroundings) -> None:
        """Run the startup hooks, and say that this worker is ready and what it is capable of, or why it is not ready.

        What a hook returns, if it is a set of texts, are capabilities. ``surroundings`` are those before the hooks.
        """
        capabilities: set[str] = set()
        for hook in hooks:
            try:
                found = hook()
            except BaseException:
                import traceback

                self.broken(f"the @worker_startup hook {hook.__qualname__} failed:\n{traceback.format_exc()}")
                raise
            if isinstance(found, (set, frozenset)):
                capabilities.update(each for each in found if isinstance(each, str))
        os.register_at_fork(after_in_child=self._become_a_copy)
        self._trace, self._profile, self._limit = _get_trace(), _get_profile(), _get_limit()
        self._surroundings = Surroundings() if hooks else surroundings
        self._surroundings.settle((self._tasks, self._results, self._control.fileno(), 1, 2))
        self._write((READY, PROTOCOL_VERSION, os.getpid(), sorted(capabilities), {"files": True}))

    def broken(self, why: str) -> None:
        """Tell that this worker will not be ready; it exits."""
        self._write((BROKEN, why))

    def serve(self) -> None:
        """Run tasks until the task pipe is closed, and what was begun is done."""
        decoder, waiting = self._decoder, self._waiting
        last_s = 0.0
        arrival = poll()
        arrival.register(self._tasks, POLLIN)
        while True:
            if (self._unseen or self._control.restless) and not arrival.poll(IDLE_MS):  # nobody waits
                self._look(self._unseen)
                self._control.rest()
            data = _os_read(self._tasks, READ_BYTES)
            if not data:
                return
            waiting.extend(decoder.feed(data))
            while waiting:
                message = waiting.popleft()
                if message[0] == START:
                    last_s = self._run(message, last_s)

    def _run(self, message: list[Any], last_s: float) -> float:
        """Run one task; how long it took, in seconds."""
        fence = message[1]
        if self._unseen_s > LOOK_EVERY_S:
            self._look(self._unseen)
        begun_at = _clock(_BOOTTIME)
        self._page.publish(fence, begun_at)
        if last_s > POLL_AFTER_S:
            self._read_control()
            self._tell_dropped()
        if fence <= self._recalled:
            self._page.publish(0, begun_at)
            self._control.drop(fence)
            self._write((RECALLED, [fence]))
            return last_s
        self._start = message
        self._begun_at = begun_at
        self._output.fence = fence
        try:
            result = self._call(fence, message[4], message[5])
        except Failed as failed:
            ended_at = self._end()
            self._control.drop(fence)
            packed = packb(failed.failure, unicode_errors="replace")
            self._write((RAISED, fence, begun_at, ended_at, failed.code, failed.types, packed, failed.retry_delay_s))
        else:
            ended_at = self._end()
            if type(result) is not list:
                self._write((DONE, fence, begun_at, ended_at, result))
            else:
                self._put(in_parts((DONE, fence, begun_at, ended_at, None), 4, result))
        took_s = ended_at - begun_at
        self._unseen = fence
        self._unseen_s += took_s
        if self._unseen_s > LOOK_EVERY_S or not self._surroundings.tidy():
            self._look(fence)
        elif message[4] not in self._seen:
            self._seen.add(message[4])
            self._unseen_s = _ALL  # before the next task: an ephemeral worker has none
        return took_s

    def _look(self, fence: int) -> None:
        """Put back what the tasks up to ``fence`` have changed in this process. Where that cannot be, run no more."""
        self._unseen, self._unseen_s = 0, 0.0
        if left := self._surroundings.look():
            self._recalled = _ALL
            self._write((WORN, fence, left))

    def _call(self, fence: int, name: str, payload: Any) -> bytes | list[Part] | int:
        """What DONE carries for the result of the handler, or ``Failed``. An interrupt can strike only while
        ``_running`` is set."""
        handler = self._handlers.get(name)
        if handler is None:
            raise unknown(name)
        try:
            if type(payload) is bytes:
                args, kwargs = unpack_call(payload)
            else:
                self._read_control()
                args, kwargs = self._control.call(fence, payload, handler.writable)
        except BaseException as error:  # it may call what the app's classes define
            raise undecodable(error) from error
        try:
            self._running = fence
            if self._early_fence == fence and self._heed(self._early):
                raise SoftTimeout
            if handler.is_async:
                result = self._coroutines.run(handler.function(*args, **kwargs), self._is_cancelled)
            else:
                result = handler.function(*args, **kwargs)
            self._running = 0
        except BaseException as error:
            self._running = 0
            _set_trace(self._trace)
            _set_profile(self._profile)
            _set_limit(self._limit)
            raise describe(error, handler, args, kwargs) from error
        # What would disturb our own code is undone before it runs on; without any call of Python code.
        if _get_trace() is not self._trace:
            _set_trace(self._trace)
        if _get_profile() is not self._profile:
            _set_profile(self._profile)
        if _get_limit() != self._limit:
            _set_limit(self._limit)
        return encode_result(result) if type(result) in SMALL else self._control.carried(fence, result)

    def _become_a_copy(self) -> None:
        """In a process that a handler has forked: where it returns from the handler, it is not to be a worker, too."""
        self._is_copy = True
        self._start = []
        self._control.close(self._tasks, self._results)

    def _end(self) -> float:
        """The handler has returned: when that was."""
        if self._is_copy:
            _exit(0)
        self._current = None
        self._start = []
        self._interrupt_waits = False
        if self._output.used:
            self._output.end()
        if self._dropped is not None:
            self._tell_dropped()
        return _clock(_BOOTTIME)

    def _current_task(self) -> CurrentTask | None:
        if self._current is None and self._start:
            _, fence, task_id, attempt, name, _, timeout_s, *_ = self._start
            deadline = None if timeout_s is None else self._begun_at + timeout_s
            self._current = CurrentTask(task_id.hex(), name, attempt, self.id, fence, deadline, self._emit)
        return self._current

    # ------------------------------------------------------------------------------------------ telling the manager

    def _write(self, message: tuple[Any, ...]) -> None:
        """One message, whole. Not for signal handlers: they might strike while one is being written."""
        data = encode(message)
        with self._write_lock:
            while data:
                data = data[_os_write(self._results, data) :]

    def _put(self, parts: list[Part]) -> None:
        with self._write_lock:
            while parts:
                parts = rest_of(parts, _os_writev(self._results, parts))

    def _emit(self, kind: str, fence: int, first: Any, second: Any) -> None:
        """What a handler says through ``current_task()``; from another task's thread it is out of date, and dropped."""
        if not self._start or fence != self._start[1]:
            return
        shield = _thread.get_ident() == self._main
        self._shielded = shield
        try:
            if kind == "progress":
                self._write((REPORT, fence, first, second[:TEXT_LIMIT]))
            else:
                self._send(packb((LOG, fence, first, second[:TEXT_LIMIT]), unicode_errors="replace"))
        finally:
            self._shielded = False
        if shield and self._interrupt_waits:
            self._interrupt_waits = False
            raise SoftTimeout

    def _beat(self, interval_s: float) -> None:
        """The heart, on a thread of its own. Where nobody listens any more, the worker is an orphan, and goes."""
        manager = _getppid()
        while True:
            try:
                self._send(_BEAT, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass  # the manager is late; it judges nobody when it is
            except OSError:
                _exit(0)
            _sleep(interval_s)
            if _getppid() != manager:
                _exit(0)

    # ------------------------------------------------------------------------------------------ being told

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._read_control():
            if self._shielded:
                self._interrupt_waits = True
            else:
                raise SoftTimeout

    def _read_control(self) -> bool:
        """Take in what the manager says. Whether ``SoftTimeout`` is to be raised in the handler that runs."""
        if self._reading:  # a signal has struck in here: what it announced is read below
            self._read_again = True
            return False
        interrupt = False
        wanted = True
        while wanted:
            self._reading, self._read_again = True, False
            while (message := self._control.packet()) is not None:
                if message[0] == RECALL:
                    self._recall(message[1])
                elif message[0] == INTERRUPT:
                    interrupt = self._interrupted(message[1], message[2]) or interrupt
                elif message[0] == COLLECT and not self._running:
                    _collect()
            self._reading = False
            wanted = self._read_again
        return interrupt

    def _recall(self, fence: int) -> None:
        """Drop what waits. It is told later where a signal handler finds the recall: a message may be half written."""
        self._recalled = max(self._recalled, fence)
        dropped = [message[1] for message in self._waiting if message[0] == START and message[1] <= fence]
        if dropped:
            kept = [message for message in self._waiting if message[0] != START or message[1] > fence]
            self._waiting.clear()
            self._waiting.extend(kept)
            self._control.drop(*dropped)
        self._dropped = [*(self._dropped or ()), *dropped]

    def _tell_dropped(self) -> None:
        if self._dropped is not None:
            dropped, self._dropped = self._dropped, None
            self._write((RECALLED, dropped))

    def _interrupted(self, fence: int, reason: str) -> bool:
        """Whether ``SoftTimeout`` is to be raised here and now: it is for the handler that runs. One whose arguments
        are still being decoded is told when it is called; one that has returned is let be."""
        if fence == self._running:
            return self._heed({reason})
        if fence >= self._early_fence:
            self._early = {reason, *self._early} if fence == self._early_fence else {reason}
            self._early_fence = fence
        return False

    def _heed(self, reasons: set[str]) -> bool:
        """Whether ``SoftTimeout`` is to be raised in the handler that runs, or would now. A coroutine is cancelled for
        either reason."""
        if "cancelled" in reasons and (current := self._current_task()) is not None:
            current.cancelled = True
        interrupted = [self._coroutines.interrupt(reason) for reason in sorted(reasons)]
        return "soft_timeout" in reasons and not any(interrupted)

    def _is_cancelled(self) -> bool:
        return self._current is not None and self._current.cancelled
