"""The manager's end of the template: it is exec'd here, asked for workers, and replaced when it fails.

One id a request, and a deadline held here: a request that a dying template has swallowed is asked again of the
next one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import msgpack

from poolmgr.errors import AppError, StartFailed
from poolmgr.manager.launch import PACKET_BYTES, Launched, exec_command, launch_template, spawned_command
from poolmgr.manager.process import WorkerProcess
from poolmgr.wire.messages import (
    APP_FAILED,
    HANDLERS,
    PROTOCOL_VERSION,
    SPARE,
    SPAWN,
    SPAWN_FAILED,
    SPAWNED,
    TEMPLATES,
)

SPAWN_DEADLINE_S = 5.0
FAILURES_TO_REPLACE = 2
RESTART_S = 1.0


class Template:
    """Asks for workers. ``spawned(process, pid)``, ``failed(process, why)`` and ``unanswered(process)``, where the
    template died over it, tell how each request ended; ``died(how)`` that it is gone.

    One that is ``lasting`` is replaced when it dies, by another that imports the app anew.
    """

    def __init__(
        self,
        order: dict[str, Any],
        spawned: Callable[[WorkerProcess, int], None],
        failed: Callable[[WorkerProcess, str], None],
        unanswered: Callable[[WorkerProcess], None],
        died: Callable[[str], None],
    ) -> None:
        self._order = order
        self._spawned = spawned
        self._failed = failed
        self._unanswered = unanswered
        self._died = died
        self._loop = asyncio.get_running_loop()
        self._launched: Launched | None = None
        self._buffer = bytearray(PACKET_BYTES)  # for one packet; what none has filled takes no memory
        self._requests: dict[int, tuple[WorkerProcess, asyncio.TimerHandle]] = {}
        self._last_request = 0
        self._failures = 0
        self._ready = False  # the app is imported
        self._waiting: list[WorkerProcess] = []  # to be asked for once it is
        self._closed = False
        self.unforkable: str | None = None  # why workers are exec'd that were to be forked
        self.spare: int | None = None  # the process that is to be the next worker, as far as is known
        self.lasting = True
        self.handlers: asyncio.Future[dict[str, dict[str, Any]]] = self._loop.create_future()

    @property
    def pid(self) -> int | None:
        """The template's process id, while it lives."""
        return self._launched.process.pid if self._launched is not None else None

    @property
    def label(self) -> str:
        """What marks all that the app's modules start."""
        return str(self._order["label"])

    def start(self, launched: Launched) -> None:
        """Take over one that was launched; ``handlers`` tells the app's tasks and their options, or fails."""
        self._launched = launched
        self._loop.add_reader(launched.sock, self._read)

    def spawn(self, process: WorkerProcess) -> None:
        """Ask for the process of ``process``; its channels go with the request."""
        if self._closed:
            self._loop.call_soon(self._failed, process, "its template has ended")
            return
        if not self._ready or self._launched is None:
            self._waiting.append(process)
            return
        self._last_request += 1
        number = self._last_request
        command = exec_command(process.group, self._order)
        if command is None and self.unforkable is not None:
            command = spawned_command(self._order)
        packet = msgpack.packb([SPAWN, number, process.worker, process.incarnation, process.group.name, command])
        deadline = self._loop.call_later(SPAWN_DEADLINE_S, self._too_late, number)
        self._requests[number] = (process, deadline)
        try:
            socket.send_fds(self._launched.sock, [packet], list(process.channels))
        except OSError as error:
            self._refused(number, f"the template cannot be asked: {error}")

    def _read(self) -> None:
        assert self._launched is not None
        to_the_end = False
        while True:
            try:
                count = self._launched.sock.recv_into(self._buffer)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # It ended, and left something unread. Its own last words come after this error, and the loop, which
                # has seen the error, too, will not call again.
                to_the_end = True
                continue
            except OSError:
                count = 0
            if not count:
                self._ended()
                return
            self._heard(memoryview(self._buffer)[:count])
            if not to_the_end:
                return

    def _heard(self, data: memoryview) -> None:
        kind, *rest = msgpack.unpackb(data)
        if kind == SPARE:
            self.spare = rest[0]
        elif kind == SPAWNED:
            self._failures = 0
            if self.spare == rest[1]:
                self.spare = None
            process = self._settle(rest[0])
            if process is not None:
                self._spawned(process, rest[1])
        elif kind == SPAWN_FAILED and rest[1] == "threads":
            self._exec_instead(rest[0], rest[2])
        elif kind == SPAWN_FAILED:
            self._refused(rest[0], rest[2])
        elif kind == HANDLERS:
            self._imported(rest[0], rest[2])
        elif kind == APP_FAILED and not self.handlers.done():
            self._closed = True  # the next one would fail just so
            self.handlers.set_exception(AppError(rest[0]))

    def _exec_instead(self, number: int, threads: str) -> None:
        """The app's import has started threads, so it cannot be forked: each worker imports it anew."""
        self.unforkable = (
            f"the app's import has started threads ({threads}), so it cannot be forked, and each worker imports it "
            "anew: start them in a @worker_startup hook"
        )
        process = self._settle(number)
        if process is not None:
            self.spawn(process)

    def _imported(self, version: int, handlers: dict[str, dict[str, Any]]) -> None:
        if version != PROTOCOL_VERSION:
            error = StartFailed("the template is of another version of poolmgr: restart the daemon")
            if not self.handlers.done():
                self.handlers.set_exception(error)
            return
        self._ready = True
        self.unforkable = None
        if not self.handlers.done():
            self.handlers.set_result(handlers)
        waiting, self._waiting = self._waiting, []
        for process in waiting:
            self.spawn(process)

    def _settle(self, number: int) -> WorkerProcess | None:
        request = self._requests.pop(number, None)
        if request is None:
            return None
        request[1].cancel()
        return request[0]

    def _refused(self, number: int, message: str) -> None:
        process = self._settle(number)
        if process is not None:
            self._failures += 1
            self._failed(process, message)
        if self._failures >= FAILURES_TO_REPLACE and self._launched is not None:
            self._failures = 0
            self._launched.process.kill()  # its end is read, and it is replaced

    def _too_late(self, number: int) -> None:
        self._refused(number, f"the template did not fork within {SPAWN_DEADLINE_S:g} s")

    def _ended(self) -> None:
        """The template is gone: reap it, have its requests asked again, and start another."""
        assert self._launched is not None
        self._loop.remove_reader(self._launched.sock)
        self._launched.sock.close()
        how = f"exit code {self._launched.ended()}"
        self._launched = self.spare = None
        if not self.handlers.done():
            self.handlers.set_exception(StartFailed(f"the template ended while it imported the app: {how}"))
            return
        if self._closed:
            return
        self._died(how)
        if not self.lasting:
            self._closed = True
            self._give_up(f"the template ended: {how}")
            return
        for number in list(self._requests):
            process = self._settle(number)
            if process is not None:
                self._unanswered(process)
        if self._ready:
            self._ready = False
            self._start_again()
        else:  # it did not even come up: not at once again
            self._loop.call_later(RESTART_S, self._start_again)

    def _start_again(self) -> None:
        if self._closed or self._launched is not None:
            return
        try:
            self.start(launch_template(self._order))
        except OSError as error:  # no process or file is to be had now: tasks may have taken them all
            self._died(f"another cannot be started: {error}")
            self._loop.call_later(RESTART_S, self._start_again)

    def _give_up(self, why: str) -> None:
        """Nobody will answer any more."""
        asked = [self._settle(number) for number in list(self._requests)]
        waiting, self._waiting = self._waiting, []
        for process in (*asked, *waiting):
            if process is not None:
                self._failed(process, why)

    def tell_of(self, templates: list[int]) -> None:
        """Tell it all templates that this pool has."""
        if self._launched is not None:
            try:
                self._launched.sock.send(msgpack.packb([TEMPLATES, templates]))
            except OSError:
                pass  # it has died; its end is read

    async def discard(self) -> None:
        """End the template alone: what it has forked is gone, or is somebody else's. Safe to call twice."""
        self._closed = True
        launched, self._launched = self._launched, None
        if launched is not None:
            self._loop.remove_reader(launched.sock)
            launched.process.kill()
            await self._loop.run_in_executor(None, launched.ended)
            launched.sock.close()  # not before: reading the end of it, a template kills the pool
        self._give_up("its template has ended")

    async def close(self) -> None:
        """End the template, and with it what is left of the pool. Safe to call twice."""
        self._closed = True
        for number in list(self._requests):
            self._settle(number)
        launched, self._launched = self._launched, None
        if launched is not None:
            self._loop.remove_reader(launched.sock)
            if not self._ready:
                launched.process.kill()  # it imports the app, and would not notice for as long as that takes
            await self._loop.run_in_executor(None, launched.close)
