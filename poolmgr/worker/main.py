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
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

import msgpack

from poolmgr.wire import values
from poolmgr.wire.messages import (
    BROKEN,
    COLLECT,
    DONE,
    FRAME_LIMIT,
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
)
from poolmgr.worker.context import CurrentTask, SoftTimeout, set_current
from poolmgr.worker.output import Output
from poolmgr.worker.page import Page
from poolmgr.worker.registry import Handler
from poolmgr.worker.run import Failed, describe, encode_result, undecodable, unknown

READ_BYTES = 256 * 1024
POLL_AFTER_S = 0.001


class Channels(NamedTuple):
    """A worker's file descriptors, in the order in which they are sent to it."""

    tasks: int
    results: int
    control: int
    page: int
    stdout: int
    stderr: int


class Worker:
    """The process in a slot."""

    def __init__(self, id: str, channels: Channels, handlers: dict[str, Handler], outputs: tuple[Output, ...]) -> None:
        self.id = id
        self._tasks = channels.tasks
        self._results = channels.results
        self._control = socket.socket(fileno=channels.control)
        self._page = Page(channels.page)
        self._handlers = handlers
        self._outputs = outputs
        self._pack = msgpack.Packer(autoreset=True, unicode_errors="replace").pack
        self._waiting: deque[list[Any]] = deque()
        self._recalled = 0  # no task with this or a smaller fence is begun any more
        self._running = 0  # the fence whose handler is being called, 0 between tasks
        self._current = CurrentTask()
        self._loop: Any = None  # asyncio's, once an async handler was called
        self._async_task: Any = None

    # ------------------------------------------------------------------------------------------ the loop

    def begin(self, hooks: list[Callable[[], Any]], heartbeat_interval_s: float) -> None:
        """Start the heart, run the startup hooks, and say that this worker is ready, or why it is not."""
        signal.signal(signal.SIGUSR1, self._on_signal)
        _thread.start_new_thread(self._beat, (heartbeat_interval_s,))
        for hook in hooks:
            try:
                hook()
            except BaseException as error:
                import traceback

                text = "".join(traceback.format_exception(error))
                self._write([BROKEN, f"the @worker_startup hook {hook.__qualname__} failed:\n{text}"])
                raise
        self._write([READY, PROTOCOL_VERSION, os.getpid(), []])

    def serve(self) -> None:
        """Run tasks until the task pipe is closed, and what was begun is done."""
        unpacker = msgpack.Unpacker(max_buffer_size=FRAME_LIMIT + READ_BYTES)
        waiting = self._waiting
        last_s = 0.0
        while data := os.read(self._tasks, READ_BYTES):
            unpacker.feed(data)
            waiting.extend(unpacker)
            while waiting:
                message = waiting.popleft()
                if message[0] == START:
                    last_s = self._run(message, last_s)

    def _run(self, message: list[Any], last_s: float) -> float:
        """Run one task; how long it took, in seconds."""
        _, fence, task_id, attempt, name, payload, timeout_s, *_ = message
        begun_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._page.publish(fence, begun_at)
        if last_s > POLL_AFTER_S:
            self._read_control()
        if fence <= self._recalled:
            self._page.publish(0, begun_at)
            self._write([RECALLED, [fence]])
            return last_s
        deadline = None if timeout_s is None else begun_at + timeout_s
        self._current = CurrentTask(task_id.hex(), name, attempt, self.id, fence, deadline, self._emit)
        set_current(self._current)
        for output in self._outputs:
            output.begin(fence)
        try:
            result = self._call(fence, name, payload)
        except Failed as failed:
            ended_at = self._end()
            packed = msgpack.packb(failed.failure, unicode_errors="replace")
            self._write([RAISED, fence, begun_at, ended_at, failed.code, failed.types, packed, failed.retry_delay_s])
        else:
            ended_at = self._end()
            self._write([DONE, fence, begun_at, ended_at, result])
        return ended_at - begun_at

    def _call(self, fence: int, name: str, payload: bytes) -> bytes:
        """The packed result of the handler, or ``Failed``. An interrupt can strike only while ``_running`` is set."""
        handler = self._handlers.get(name)
        if handler is None:
            raise unknown(name)
        try:
            args, kwargs = values.unpack_call(payload)
        except Exception as error:
            raise undecodable(error) from error
        try:
            self._running = fence
            if handler.is_async:
                result = self._await(handler.function(*args, **kwargs))
            else:
                result = handler.function(*args, **kwargs)
            self._running = 0
        except BaseException as error:
            self._running = 0
            raise describe(error, handler, args, kwargs) from error
        return encode_result(result)

    def _end(self) -> float:
        set_current(None)
        for output in self._outputs:
            if output.used:
                output.end()
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def _await(self, coroutine: Any) -> Any:
        """Run a coroutine on this worker's own event loop, which lives as long as the worker."""
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        self._async_task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(self._async_task)
        except asyncio.CancelledError:
            if self._current.cancelled:
                raise
            raise SoftTimeout from None
        finally:
            self._async_task = None

    # ------------------------------------------------------------------------------------------ telling the manager

    def _write(self, message: list[Any]) -> None:
        data = self._pack(message)
        written = os.write(self._results, data)
        while written < len(data):
            data = data[written:]
            written = os.write(self._results, data)

    def _emit(self, kind: str, fence: int, first: Any, second: Any) -> None:
        """What a handler says through ``current_task()``; from another task's thread it is out of date, and dropped."""
        if fence != self._current._fence:
            return
        if kind == "progress":
            self._write([REPORT, fence, first, second])
        else:
            self._control.send(self._pack([LOG, fence, first, second[:TEXT_LIMIT]]))

    def _beat(self, interval_s: float) -> None:
        """The heart, on a thread of its own. Where nobody listens any more, the worker is an orphan, and goes."""
        manager = os.getppid()
        beat = msgpack.packb([HEARTBEAT])
        while True:
            try:
                self._control.send(beat, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass  # the manager is late; it judges nobody when it is
            except OSError:
                os._exit(0)
            time.sleep(interval_s)
            if os.getppid() != manager:
                os._exit(0)

    # ------------------------------------------------------------------------------------------ being told

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._read_control()

    def _read_control(self) -> None:
        """Take in what the manager says. May raise ``SoftTimeout``, in the handler that it is meant for alone."""
        interrupt = False
        while True:
            try:
                data = self._control.recv(65536, socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                break
            if not data:
                break
            message = msgpack.unpackb(data)
            if message[0] == RECALL:
                self._recall(message[1])
            elif message[0] == INTERRUPT and message[1] == self._running:
                interrupt = self._interrupted(message[2]) or interrupt
            elif message[0] == COLLECT and not self._running:
                gc.collect()
        if interrupt:
            raise SoftTimeout

    def _recall(self, fence: int) -> None:
        self._recalled = max(self._recalled, fence)
        dropped = [message[1] for message in self._waiting if message[0] == START and message[1] <= fence]
        if dropped:
            kept = [message for message in self._waiting if message[0] != START or message[1] > fence]
            self._waiting.clear()
            self._waiting.extend(kept)
        self._write([RECALLED, dropped])

    def _interrupted(self, reason: str) -> bool:
        """Whether ``SoftTimeout`` is to be raised here and now."""
        if reason == "cancelled":
            self._current.cancelled = True
        if self._async_task is not None:
            self._loop.call_soon_threadsafe(self._async_task.cancel)
            return False
        return reason != "cancelled"


TEXT_LIMIT = 32 * 1024
