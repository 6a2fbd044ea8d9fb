"""Performing effects: one method each, and a table of them. Those that clients hear of, and those that concern streams,
are in modules of their own."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

from poolmgr.core import effects as do
from poolmgr.core.changes import TaskRecord
from poolmgr.manager import procfs
from poolmgr.manager.client_effects import ClientEffects
from poolmgr.manager.clock import now
from poolmgr.manager.killing import kill
from poolmgr.manager.maintenance import collect_garbage
from poolmgr.manager.process import Listener, WorkerProcess
from poolmgr.manager.shell import Shell
from poolmgr.manager.stream_effects import StreamEffects, start_again
from poolmgr.manager.system import give_back_memory
from poolmgr.wire.framing import encode, in_parts
from poolmgr.wire.messages import (
    INTERRUPT,
    RECALL,
    START,
    START_MANY,
)
from poolmgr.wire.parts import LARGE_BYTES

_log = logging.getLogger(__name__)
_REFILL_AGAIN_S = 1.0  # where the store refuses
_COMPLAIN_AGAIN_S = 60.0  # as long as it does
_LOOK_TWICE_S = 0.1  # between two looks at a silent worker's CPU time
_MANY_BYTES = 64 * 1024  # of payloads in one START_MANY: a worker begins the first task when it has read the last


class Performer:
    """Does what the scheduler has decided."""

    def __init__(self, shell: Shell, ears: Listener, rolled: Callable[[do.Reloaded], None]) -> None:
        self._shell = shell
        self._ears = ears
        self._processes = shell.processes
        self._written: dict[str, WorkerProcess] = {}
        self.clients = ClientEffects(shell)
        self._complain_at = 0.0
        streams, clients = StreamEffects(shell), self.clients
        self._table: dict[type, Callable[[Any], None]] = {
            do.Persist: self._persist,
            do.Refill: self._refill,
            do.Start: self._start,
            do.StartMany: self._start_many,
            do.Look: self._look,
            do.Recall: self._recall,
            do.Interrupt: self._interrupt,
            do.Inspect: self._inspect,
            do.Continue: self._continue,
            do.Kill: self._kill,
            do.Cap: lambda effect: shell.worker_watch.cap(effect),
            do.Weigh: lambda effect: shell.worker_watch.weigh(effect),
            do.Measure: lambda effect: shell.worker_watch.measure(effect),
            do.GiveBack: lambda effect: shell.worker_watch.give_back(effect),
            do.Spawn: self._spawn,
            do.Retire: self._retire,
            do.Forget: self._forget,
            do.Accepted: clients.accepted,
            do.Finished: clients.finished,
            do.FinishedMany: clients.finished_many,
            do.Same: clients.same,
            do.Credit: streams.credit,
            do.Streamed: streams.streamed,
            do.Progressed: clients.progressed,
            do.Answer: clients.answer,
            do.Refusal: clients.answer,
            do.Emit: clients.emit,
            do.Reloaded: rolled,
            do.Drained: self._drained,
            do.Trim: self._trim,
        }

    def perform(self, effects: Sequence[do.Effect]) -> None:
        """All of them, in their order."""
        table = self._table
        for effect in effects:
            table[type(effect)](effect)

    def flush(self) -> None:
        """One write to each worker and client that something was performed for."""
        if self._written:
            for process in self._written.values():
                process.flush()
            self._written.clear()
            self._shell.worker_watch.started()
        self.clients.flush()

    # ------------------------------------------------------------------------------------------ to workers

    def _current(self, worker: str, incarnation: int) -> WorkerProcess | None:
        process = self._processes.get(worker)
        return process if process is not None and process.incarnation == incarnation else None

    def _start(self, effect: do.Start) -> None:
        worker, incarnation, fence, task_id, attempt, name, payload, timeout_s, soft_timeout_s, commit, resume = effect
        if commit and commit > self._shell.outbox.committed:
            self._shell.outbox.hold(effect)
            return
        process = self._processes.get(worker)
        if process is not None and process.incarnation == incarnation:
            process.started.append((fence, task_id, name))
            carried = payload if isinstance(payload, bytes) else process.pass_on(fence, payload)
            if resume is not None and process.takes_streams:
                start_again(process, effect, carried, resume)
            elif isinstance(carried, bytes) and len(carried) >= LARGE_BYTES:
                start = (START, fence, task_id, attempt, name, None, timeout_s, soft_timeout_s)
                process.queue_parts(in_parts(start, 5, [carried]))
            else:
                process.queue(encode((START, fence, task_id, attempt, name, carried, timeout_s, soft_timeout_s)))
            self._written[worker] = process

    def _start_many(self, effect: do.StartMany) -> None:
        worker, incarnation, fence, ids, name, payloads, timeout_s, soft_timeout_s = effect
        process = self._processes.get(worker)
        if process is None or process.incarnation != incarnation:
            return
        if not process.takes_many or {*map(type, payloads)} != {bytes} or sum(map(len, payloads)) > _MANY_BYTES:
            for start in effect.one_by_one():
                self._start(start)
            return
        process.started.extend(zip(range(fence, fence + len(ids)), ids, repeat(name), strict=False))
        process.queue(encode((START_MANY, fence, ids, name, payloads, timeout_s, soft_timeout_s)))
        self._written[worker] = process

    def _look(self, effect: do.Look) -> None:
        process = self._current(*effect)
        if process is not None:
            process.take_in()
            at = now()
            fence, begun_at = process.begun(at)
            self._shell.scheduler.page_seen(effect.worker, effect.incarnation, fence, begun_at, at)

    def _recall(self, effect: do.Recall) -> None:
        process = self._current(effect.worker, effect.incarnation)
        if process is not None and process.tell([RECALL, effect.fence]):
            fence, _ = process.page.read()  # after the recall was sent: that makes it a proof
            self._shell.scheduler.recall_sent(effect.worker, effect.incarnation, fence, now())

    def _interrupt(self, effect: do.Interrupt) -> None:
        process = self._current(effect.worker, effect.incarnation)
        if process is not None and process.tell([INTERRUPT, effect.fence, effect.reason]):
            process.signal(signal.SIGUSR1)

    def _inspect(self, effect: do.Inspect) -> None:
        process = self._current(*effect)
        if process is not None and process.pid is not None:
            before = procfs.cpu_ticks(process.pid)
            self._shell.loop.call_later(_LOOK_TWICE_S, self._inspect_again, process, before)

    def _inspect_again(self, process: WorkerProcess, before: int) -> None:
        if process.pid is not None and self._current(process.worker, process.incarnation) is process:
            process.take_in()  # what it has said may not have been read yet
            verdict = procfs.verdict(before, process.pid)
            self._shell.scheduler.inspected(process.worker, process.incarnation, verdict, now())
            self._shell.wake()

    def _continue(self, effect: do.Continue) -> None:
        process = self._current(*effect)
        if process is not None:
            process.signal(signal.SIGCONT)

    def _kill(self, effect: do.Kill) -> None:
        process = self._current(effect.worker, effect.incarnation)
        if process is not None:
            kill(self._shell.loop, process, effect.grace_s, tidy=effect.reason != "out_of_memory")

    def _spawn(self, effect: do.Spawn) -> None:
        shell = self._shell
        stuck = shell.processes.pop(effect.worker, None)
        if stuck is not None:
            stuck.unwanted = True
            if stuck.pid is not None:
                shell.dying[stuck.pid] = stuck
        try:
            group = shell.scheduler.state.groups[effect.group]
            process = WorkerProcess(
                effect.worker, effect.incarnation, effect.generation, group, shell.loop, self._ears, shell.descriptors,
                shell.buffer,
            )  # fmt: skip
        except OSError as error:
            how = f"its pipes cannot be made: {error}"
            shell.loop.call_soon(self._not_made, effect, how)
            return
        shell.processes[effect.worker] = process
        shell.templates.spawn(process)

    def _not_made(self, effect: do.Spawn, how: str) -> None:
        self._shell.scheduler.worker_exited(effect.worker, effect.incarnation, how, 0, 0.0, now())
        self._shell.wake()

    def _retire(self, effect: do.Retire) -> None:
        process = self._current(*effect)
        if process is not None:
            process.retire()

    def _forget(self, effect: do.Forget) -> None:
        process = self._shell.processes.pop(effect.worker, None)
        if process is not None and process.pid is not None:
            self._shell.dying[process.pid] = process

    def _trim(self, effect: do.Trim) -> None:
        collect_garbage(self._shell)
        self._shell.writer.read(lambda store: give_back_memory())  # in that thread, so that the loop goes on

    # ------------------------------------------------------------------------------------------ to the store

    def _persist(self, effect: do.Persist) -> None:
        if effect.durable:
            self._shell.writer.submit(effect.number, effect.changes)
        else:
            self._shell.memory.apply(effect.changes)

    def _refill(self, effect: do.Refill) -> None:
        _, line, after, limit, size = effect
        reading = asyncio.wrap_future(self._shell.writer.read(lambda store: store.shelf(line, after, limit, size)))
        reading.add_done_callback(lambda done: self._refilled(effect, done))

    def _refilled(self, effect: do.Refill, reading: asyncio.Future[list[TaskRecord]]) -> None:
        shell = self._shell
        if reading.cancelled():  # this process ends
            return
        error, at = reading.exception(), now()
        if error is not None and shell.writer.closed:
            return
        if error is not None:
            if at >= self._complain_at:  # commits may succeed meanwhile, and then nothing else tells why tasks wait
                self._complain_at = at + _COMPLAIN_AGAIN_S
                _log.error("waiting tasks cannot be read from the store, which is tried again each second: %s", error)
            shell.loop.call_later(_REFILL_AGAIN_S, self._not_refilled, effect.number)
            return
        shell.scheduler.recovery.loaded(effect.number, reading.result(), at)
        shell.wake()

    def _not_refilled(self, number: int) -> None:
        self._shell.scheduler.recovery.not_loaded(number)
        self._shell.wake()

    def _drained(self, effect: do.Drained) -> None:
        self._shell.drained = True
