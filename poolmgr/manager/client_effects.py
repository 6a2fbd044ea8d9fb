"""Performing the effects that clients hear of."""

from __future__ import annotations

import time
from typing import Any

from poolmgr.core import effects as do
from poolmgr.manager.journal import log_event
from poolmgr.manager.outbox import Port
from poolmgr.manager.shell import Shell
from poolmgr.model import TaskState
from poolmgr.wire.messages import ACCEPTED, EVENT, FAILED, PROGRESS, REFUSAL, SAME

_COMPLETED = TaskState.COMPLETED  # looked up for every task


class ClientEffects:
    """Tells clients what the scheduler has decided; what must wait for a commit waits in the outbox."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._ports = shell.ports
        self._sent: dict[int, Port] = {}

    def sent_to(self, client: int) -> None:
        """Something was sent to this client by another way than an effect."""
        port = self._ports.get(client)
        if port is not None:
            self._sent[client] = port

    def flush(self) -> None:
        """One write to each client that something was performed for."""
        if self._sent:
            for port in self._sent.values():
                port.flush()
            self._sent.clear()

    def finished(self, effect: do.Finished) -> None:
        """How a task has ended."""
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

    def finished_many(self, effect: do.FinishedMany) -> None:
        """That tasks are completed."""
        port = self._ports.get(effect.client)
        if port is not None:
            port.completed_many(effect.task_ids, effect.outcomes)
            self._sent[effect.client] = port

    def accepted(self, effect: do.Accepted) -> None:
        """How many submits are safe."""
        if effect.commit > self._shell.outbox.committed:
            self._shell.outbox.hold(effect)
            if effect.unkept_bytes:
                self._shell.backlog.add(effect.client, effect.unkept_bytes)
            return
        if effect.unkept_bytes:  # it was held
            self._shell.backlog.remove(effect.client, effect.unkept_bytes)
        self._send(effect.client, (ACCEPTED, effect.up_to))

    def same(self, effect: do.Same) -> None:
        """That a submit is an earlier task."""
        if effect.commit > self._shell.outbox.committed:
            self._shell.outbox.hold(effect)
            return
        self._send(effect.client, (SAME, effect.task_id, effect.first))
        port = self._ports.get(effect.client)
        if port is not None and effect.final and effect.watch:
            port.tell_outcome(effect.first, effect.task_id)

    def progressed(self, effect: do.Progressed) -> None:
        """How far a task is."""
        self._send(effect.client, (PROGRESS, effect.task_id, effect.fraction, effect.message))

    def answer(self, effect: do.Answer | do.Refusal) -> None:
        """The answer to a request."""
        if isinstance(effect, do.Answer) and effect.commit > self._shell.outbox.committed:
            self._shell.outbox.hold(effect)
            return
        client, request = self._shell.answers.pop(effect.token, (0, 0))
        if isinstance(effect, do.Refusal):
            self._send(client, (REFUSAL, request, effect.code, effect.message))
            return
        port = self._ports.get(client)
        if port is not None:
            port.answer(request, effect.value)
            self._sent[client] = port

    def emit(self, effect: do.Emit) -> None:
        """An event, also for the log."""
        if effect.commit > self._shell.outbox.committed:
            self._shell.outbox.hold(effect)
            return
        log_event(effect.name, effect.fields)
        for client in self._shell.listeners:
            self._send(client, (EVENT, effect.name, time.time(), effect.fields))

    def _send(self, client: int, message: tuple[Any, ...]) -> None:
        port = self._ports.get(client)
        if port is not None:
            port.send(message)
            self._sent[client] = port
