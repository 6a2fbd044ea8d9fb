"""A worker's main loop: read tasks, run them one after the other, write each result before the next begins.

Everything of a task happens on the main thread. A second thread beats the heart. The manager reaches a worker that is
busy by the control channel, which only the main thread reads: between two tasks, or in the handler of SIGUSR1.

    task pipe     --> main thread --> result pipe
    control       <-> main thread reads (RECALL, INTERRUPT, CREDIT, COLLECT); the heart thread writes
    shared page   <-- main thread: which task, begun when

A recall and the beginning of a task may cross. So a worker whose last task took over 1 ms first publishes the fence of
the next on the page, and then reads the control channel; the manager first writes the recall, and then reads the page.
One of the two sees the other.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from select import POLLIN, poll
from typing import Any

from msgpack import packb

from poolmgr.wire.framing import Decoder, in_parts, read_buffer
from poolmgr.wire.messages import (
    BROKEN,
    CHECKPOINT_LIMIT,
    DONE,
    LOG,
    PROTOCOL_VERSION,
    RAISED,
    READY,
    RECALLED,
    RELEASED,
    REPORT,
    START,
    START_MANY,
    WORN,
)
from poolmgr.wire.parts import Part
from poolmgr.wire.values import SMALL, pack, unpack_call
from poolmgr.worker.channels import Channels
from poolmgr.worker.chunks import Chunks, Released, resume_of
from poolmgr.worker.context import CurrentTask, Preempted, SoftTimeout, answer_current_task
from poolmgr.worker.control import Control
from poolmgr.worker.coroutines import Coroutines
from poolmgr.worker.ear import Ear
from poolmgr.worker.generators import drive, run
from poolmgr.worker.heart import beat
from poolmgr.worker.output import Writer
from poolmgr.worker.page import Page
from poolmgr.worker.registry import COROUTINE, GENERATOR, Handler
from poolmgr.worker.run import Failed, describe, encode_result, gives_way, undecodable, unknown
from poolmgr.worker.surroundings import IDLE_MS, LOOK_EVERY_S, Surroundings
from poolmgr.worker.voice import Voice

POLL_AFTER_S = 0.001
TEXT_LIMIT = 12 * 1024  # characters of one log record: at most 48 KB, which one packet takes
_ALL = 1 << 64  # more than any fence, or any time
_UNDERSTOOD = {"files": True, "streams": True, "many": True}

# A task may replace these in their modules; here they stay what they are.
_os_readv = os.readv
_clock = time.clock_gettime
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
        self._buffer = read_buffer()
        self._handlers = handlers
        self._output = output
        self._waiting: deque[list[Any]] = deque()
        self._start: list[Any] = []  # the START of the task that runs
        self._begun_at = 0.0
        self._current: CurrentTask | None = None  # made when a handler asks
        self._chunks: Chunks | None = None  # ... when it is a generator, or makes a checkpoint
        self._voice = Voice()
        self._write = self._voice.write
        self._ear = Ear(self._waiting, self._voice, self._heed)
        self._main: int  # the thread
        self._surroundings: Surroundings  # as the startup hooks leave them
        self._unseen = 0  # the fence of a task that has run since all of them were looked at
        self._unseen_s = 0.0  # for how long tasks have run since then
        self._seen: set[str] = set()  # handlers after whose first run they were
        self._coroutines = Coroutines()

    # ------------------------------------------------------------------------------------------ the loop

    def live(self, id: str, channels: Channels, heartbeat_interval_s: float) -> None:
        """In the process that it is to be: take the channels and signals, and start the heart."""
        self.id = id
        self._tasks, self._results = channels.tasks, channels.results
        self._voice.open(channels.results)
        self._control = Control(channels.control)
        self._ear.open(self._control)
        self._page = Page(channels.page)
        self._main = _thread.get_ident()
        answer_current_task(self._current_task)
        _set_handler(signal.SIGUSR1, self._ear.on_signal)
        _thread.start_new_thread(beat, (self._control.send, heartbeat_interval_s))

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
        self._write((READY, PROTOCOL_VERSION, os.getpid(), sorted(capabilities), _UNDERSTOOD))

    def broken(self, why: str) -> None:
        """Tell that this worker will not be ready; it exits."""
        self._write((BROKEN, why))

    def serve(self) -> None:
        """Run tasks until the task pipe is closed, and what was begun is done."""
        decoder, waiting, buffer = self._decoder, self._waiting, self._buffer
        buffers = (buffer,)
        last_s = 0.0
        arrival = poll()
        arrival.register(self._tasks, POLLIN)
        while True:
            if (self._unseen or self._control.restless) and not arrival.poll(IDLE_MS):  # nobody waits
                self._look(self._unseen)
                self._control.rest()
            count = _os_readv(self._tasks, buffers)
            if not count:
                return
            for message in decoder.feed(buffer[:count]):
                if message[0] == START_MANY:
                    waiting.extend(_starts(message))
                else:
                    waiting.append(message)
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
            self._ear.read()
            self._ear.tell_dropped()
        if fence <= self._ear.recalled:
            self._page.publish(0, begun_at)
            self._control.drop(fence)
            self._write((RECALLED, [fence]))
            return last_s
        self._start = message
        self._begun_at = begun_at
        self._output.fence = fence
        try:
            result = self._call(fence, message[4], message[5])
        except Released:
            ended_at = self._end()
            self._write((RELEASED, fence, begun_at, ended_at))
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
                self._voice.put(in_parts((DONE, fence, begun_at, ended_at, None), 4, result))
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
            self._ear.recalled = _ALL
            self._write((WORN, fence, left))

    def _call(self, fence: int, name: str, payload: Any) -> bytes | list[Part] | int:
        """What DONE carries for the result of the handler, or ``Failed``. An interrupt can strike only while
        ``running`` is set."""
        ear = self._ear
        handler = self._handlers.get(name)
        if handler is None:
            raise unknown(name)
        try:
            if type(payload) is bytes:
                args, kwargs = unpack_call(payload)
            else:
                ear.read()
                args, kwargs = self._control.call(fence, payload, handler.writable)
        except BaseException as error:  # it may call what the app's classes define
            raise undecodable(error) from error
        try:
            ear.running = fence
            if ear.early_fence == fence and self._heed(ear.early):
                raise SoftTimeout
            result = handler.function(*args, **kwargs)
            if handler.kind:
                result = self._finish(handler.kind, result)
            ear.running = 0
        except BaseException as error:
            ear.running = 0
            _set_trace(self._trace)
            _set_profile(self._profile)
            _set_limit(self._limit)
            if type(error) is Failed or type(error) is Released:  # a generator was ended by us
                raise
            if self._current is not None and self._current.preempted and gives_way(error):
                raise Released from error
            raise describe(error, handler, args, kwargs) from error
        # What would disturb our own code is undone before it runs on; without any call of Python code.
        if _get_trace() is not self._trace:
            _set_trace(self._trace)
        if _get_profile() is not self._profile:
            _set_profile(self._profile)
        if _get_limit() != self._limit:
            _set_limit(self._limit)
        return encode_result(result) if type(result) in SMALL else self._control.carried(fence, result)

    def _finish(self, kind: int, begun: Any) -> Any:
        """The result of what a handler has begun: a coroutine, or a generator."""
        if kind == COROUTINE:
            return self._coroutines.run(begun, self._is_cancelled)
        task, chunks = self._current_task(), self._chunks_of_task()
        assert task is not None
        if kind == GENERATOR:
            return run(begun, chunks, task, self._ear)
        return self._coroutines.run(drive(begun, chunks, task, self._ear), self._is_cancelled)

    def _become_a_copy(self) -> None:
        """In a process that a handler has forked: where it returns from the handler, it is not to be a worker, too."""
        self._ear.is_copy = True
        self._start = []
        self._control.close(self._tasks, self._results)

    def _end(self) -> float:
        """The handler has returned: when that was."""
        ear = self._ear
        if ear.is_copy:
            ear.end_copy()
        if ear.credits:
            ear.forget_credits(self._start[1])
        ear.shield.waits = False
        self._current = self._chunks = None
        self._start = []
        if self._output.used:
            self._output.end()
        if ear.dropped is not None:
            ear.tell_dropped()
        return _clock(_BOOTTIME)

    def _current_task(self) -> CurrentTask | None:
        if self._current is None and self._start:
            _, fence, task_id, attempt, name, _, timeout_s, *_ = self._start
            deadline = None if timeout_s is None else self._begun_at + timeout_s
            resume = resume_of(self._start)
            checkpoint = None if resume is None else resume[2]
            self._current = CurrentTask(
                task_id.hex(), name, attempt, self.id, fence, deadline, self._emit, self._keep, checkpoint
            )
        return self._current

    def _chunks_of_task(self) -> Chunks:
        if self._chunks is None:
            self._chunks = Chunks(self._start, self._ear.credits, self._voice)
        return self._chunks

    # ------------------------------------------------------------------------------------------ telling the manager

    def _emit(self, kind: str, fence: int, first: Any, second: Any) -> None:
        """What a handler says through ``current_task()``; from another task's thread it is out of date, and dropped."""
        if not self._start or fence != self._start[1]:
            return
        if kind == "progress":
            self._undisturbed(self._write, (REPORT, fence, first, second[:TEXT_LIMIT]))
        else:
            packet = packb((LOG, fence, first, second[:TEXT_LIMIT]), unicode_errors="replace")
            self._undisturbed(self._control.send, packet)

    def _keep(self, fence: int, state: Any) -> None:
        """A checkpoint, through ``current_task()``. On the main thread it raises ``Preempted`` where that is due: on
        another, it would end that thread, and the handler might take what is left of its work for the whole."""
        packed = pack(state, "checkpoint", CHECKPOINT_LIMIT)
        if not self._start or fence != self._start[1]:
            return
        chunks, task = self._chunks_of_task(), self._current
        self._undisturbed(chunks.keep, packed)
        if task is not None and task.preempted and not chunks.closing and _thread.get_ident() == self._main:
            raise Preempted

    def _undisturbed(self, say: Callable[[Any], Any], what: Any) -> None:
        """Have a handler say it, without an interrupt in its midst."""
        if _thread.get_ident() != self._main:
            say(what)
            return
        shield = self._ear.shield
        before, shield.up = shield.up, True
        try:
            say(what)
        finally:
            shield.up = before
        if shield.waits and not before:
            shield.waits = False
            raise SoftTimeout

    # ------------------------------------------------------------------------------------------ being told

    def _heed(self, reasons: set[str]) -> bool:
        """Whether ``SoftTimeout`` is to be raised in the handler that runs, or would now. A coroutine is cancelled for
        that reason and for "cancelled"."""
        if (current := self._current_task()) is not None:
            current.is_cancelled |= "cancelled" in reasons
            current.preempted |= "preempt" in reasons
        interrupted = [self._coroutines.interrupt(reason) for reason in sorted(reasons - {"preempt"})]
        return "soft_timeout" in reasons and not any(interrupted)

    def _is_cancelled(self) -> bool:
        return self._current is not None and self._current.is_cancelled


def _starts(many: list[Any]) -> list[list[Any]]:
    """The STARTs that a START_MANY stands for."""
    _, fence, ids, name, payloads, timeout_s, soft_timeout_s, *_ = many
    return [
        [START, fence + number, id, 1, name, payloads[number], timeout_s, soft_timeout_s]
        for number, id in enumerate(ids)
    ]
