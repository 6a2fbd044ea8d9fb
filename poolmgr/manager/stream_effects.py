"""Performing the effects that concern streams."""

from __future__ import annotations

from typing import Final

from poolmgr.core import effects as do
from poolmgr.core.stream import Resume
from poolmgr.manager.clock import now
from poolmgr.manager.process import WorkerProcess
from poolmgr.manager.shell import Shell
from poolmgr.wire.framing import encode, in_parts
from poolmgr.wire.messages import CREDIT, START
from poolmgr.wire.parts import LARGE_BYTES

_TELL_AGAIN_S: Final = 0.05  # a worker whose control channel is full


def start_again(process: WorkerProcess, effect: do.Start, carried: bytes | int, resume: Resume) -> None:
    """Queue the START of a task that has a stream. ``carried``: what stands for its arguments."""
    first, kept, checkpoint, credit, credit_bytes = resume
    before = (START, effect.fence, effect.task_id, effect.attempt, effect.name)
    behind = (effect.timeout_s, effect.soft_timeout_s, (first, kept, checkpoint), credit, credit_bytes)
    if isinstance(carried, bytes) and len(carried) >= LARGE_BYTES:
        process.queue_parts(in_parts((*before, None, *behind), 5, [carried]))
    else:
        process.queue(encode((*before, carried, *behind)))


class StreamEffects:
    """Does what the scheduler has decided of streams."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def credit(self, effect: do.Credit) -> None:
        """Tell a worker how far it may go; again, if it does not take that now."""
        worker, incarnation, fence, up_to, size = effect
        process = self._shell.processes.get(worker)
        if process is None or process.incarnation != incarnation or not process.takes_streams:
            return
        if not process.tell([CREDIT, fence, up_to, size]):
            self._shell.loop.call_later(_TELL_AGAIN_S, self.credit, effect)

    def streamed(self, effect: do.Streamed) -> None:
        """Once it is kept, the scheduler hears of it, and who waits is woken."""
        shell = self._shell
        if effect.commit > shell.outbox.committed:
            shell.outbox.hold(effect)
            return
        shell.scheduler.streams.committed(effect.task_id, effect.commit, now())
        shell.readers.wake(effect.task_id)
        shell.wake()
