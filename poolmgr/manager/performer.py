"""Performing effects: one method each, and a table of them."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from poolmgr.core import effects as do
from poolmgr.core.changes import TaskRecord
from poolmgr.manager import procfs
from poolmgr.manager.clock import now
from poolmgr.manager.journal import log_event
from poolmgr.manager.killing import kill
from poolmgr.manager.maintenance import collect_garbage
from poolmgr.manager.outbox import Port
from poolmgr.manager.process import Listener, WorkerProcess
from poolmgr.manager.shell import Shell
from poolmgr.manager.stream_effects import StreamEffects, start_again
from poolmgr.manager.system import give_back_memory
from poolmgr.model import TaskState
from poolmgr.wire.framing import encode, in_parts
from poolmgr.wire.messages import (
    ACCEPTED,
    EVENT,
    FAILED,
    INTERRUPT,
    PROGRESS,
    RECALL,
    REFUSAL,
    SAME,
    START,
)
from poolmgr.wire.parts import LARGE_BYTES

_log = logging.getLogger(__name__)
_REFILL_AGAIN_S = 1.0  # where the store refuses
_COMPLAIN_AGAIN_S = 60.0  # as long as it does
_LOOK_TWICE_S = 0.1  # between two looks at a silent worker's CPU time
_COMPLETED = TaskState.COMPLETED  # looked up for every task


class Performer:
    """Does what the scheduler has decided."""

    def __init__(self, shell: Shell, ears: Listener, rolled: Callable[[do.Reloaded], None]) -> None:
        self._shell = shell
        self._ears = ears
        self._processes = shell.processes
        self._ports = shell.ports
        self._written: dict[str, WorkerProcess] = {}
        self._sent: dict[int, Port] = {}
        self._complain_at = 0.0
        streams = StreamEffects(shell)
        self._table: dict[type, Callable[[Any], None]] = {
            do.Persist: self._persist,
            do.Refill: self._refill,
            do.Start: self._start,
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
            do.Accepted: self._accepted,
            do.Finished: self._finished,
            do.Same: self._same,
            do.Credit: streams.credit,
            do.Streamed: streams.streamed,
            do.Progressed: self._progressed,
            do.Answer: self._answer,
            do.Refusal: self._answer,
            do.Emit: self._emit,
            do.Reloaded: rolled,
            do.Drained: self._drained,
            do.Trim: self._trim,
        }

    def perform(self, effects: Sequence[do.Effect]) -> None:
        """All of them, in their order."""
        table = self._table
        for effect in effects:
            table[type(effect)](effect)

    def sent_to(self, client: int) -> None:
        """Something was sent to this client by another way than an effect."""
        port = self._shell.ports.get(client)
        if port is not None:
            self._sent[client] = port

    def flush(self) -> None:
        """One write to each worker and client that something was performed for."""
        if self._written:
            for process in self._written.values():
                process.flush()
            self._written.clear()
            self._shell.worker_watch.started()
        if self._sent:
            for port in self._sent.values():
                port.flush()
            self._sent.clear()

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

    # ------------------------------------------------------------------------------------------ to clients

    def _finished(self, effect: do.Finished) -> None:
        client, task_id, state, code, outcome, commit = effect
        if commit and commit > self._shell.outbox.committed:
            self._shell.outbox.hold(effect)
            return
        port = self._ports.get(client)
        if port is not None:
            if state is _COMPLETED:
                port.completed(task_id, outcome)
            else:
                port.send((FAILED, task_id, state, code, outcome))
            self._sent[client] = port

    def _accepted(self, effect: do.Accepted) -> None:
        if effect.commit > self._shell.outbox.committed:
            self._shell.outbox.hold(effect)
            if effect.unkept_bytes:
                self._shell.backlog.add(effect.client, effect.unkept_bytes)
            return
        if effect.unkept_bytes:  # it was held
            self._shell.backlog.remove(effect.client, effect.unkept_bytes)
        self._send(effect.client, (ACCEPTED, effect.up_to))

    def _same(self, effect: do.Same) -> None:
        if effect.commit > self._shell.outbox.committed:
            self._shell.outbox.hold(effect)
            return
        self._send(effect.client, (SAME, effect.task_id, effect.first))
        port = self._shell.ports.get(effect.client)
        if port is not None and effect.final and effect.watch:
            port.tell_outcome(effect.first, effect.task_id)

    def _progressed(self, effect: do.Progressed) -> None:
        self._send(effect.client, (PROGRESS, effect.task_id, effect.fraction, effect.message))

    def _answer(self, effect: do.Answer | do.Refusal) -> None:
        if isinstance(effect, do.Answer) and effect.commit > self._shell.outbox.committed:
            self._shell.outbox.hold(effect)
            return
        client, request = self._shell.answers.pop(effect.token, (0, 0))
        if isinstance(effect, do.Refusal):
            self._send(client, (REFUSAL, request, effect.code, effect.message))
            return
        port = self._shell.ports.get(client)
        if port is not None:
            port.answer(request, effect.value)
            self._sent[client] = port

    def _emit(self, effect: do.Emit) -> None:
        if effect.commit > self._shell.outbox.committed:
            self._shell.outbox.hold(effect)
            return
        log_event(effect.name, effect.fields)
        for client in self._shell.listeners:
            self._send(client, (EVENT, effect.name, time.time(), effect.fields))

    def _send(self, client: int, message: tuple[Any, ...]) -> None:
        port = self._shell.ports.get(client)
        if port is not None:
            port.send(message)
            self._sent[client] = port

    def _drained(self, effect: do.Drained) -> None:
        self._shell.drained = True
