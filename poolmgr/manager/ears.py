"""What workers say, told to the scheduler. Nothing that a worker sends is believed before its shape was checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from poolmgr.core.completions import Result
from poolmgr.core.failure import Failure
from poolmgr.manager import procfs
from poolmgr.manager.clock import now
from poolmgr.manager.hearing import result_of, understood
from poolmgr.manager.journal import log_line
from poolmgr.manager.process import WorkerProcess
from poolmgr.manager.shell import Shell
from poolmgr.manager.stream_words import chunk_of
from poolmgr.post_mortem import PostMortem
from poolmgr.wire.messages import (
    CHUNK,
    DONE,
    HEARTBEAT,
    LOG,
    RAISED,
    READY,
    RECALLED,
    RELEASED,
    REPORT,
    WORN,
)


class Ears:
    """Hears workers (process.Listener)."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        settings = shell.settings
        self._levels = {
            "error": settings.log_worker_errors,
            "warning": settings.log_worker_warnings,
            "info": settings.log_worker_info,
            "debug": settings.log_worker_debug,
        }
        self.first_trouble: str | None = None  # why a worker of the first generation was of no use

    def worker_says(self, process: WorkerProcess, messages: list[list[Any]]) -> None:
        """Messages of the result pipe."""
        if self._shell.processes.get(process.worker) is not process:
            return  # given up as stuck: its word no longer counts
        at = now()
        done: list[Result] = []
        for message in messages:
            try:
                if message[0] == DONE:
                    if type(message[4]) is int:
                        message[4] = process.result_file(message[1], message[4])
                    done.append(result_of(message, at))
                    continue
                word = (CHUNK, *chunk_of(message)) if message[0] == CHUNK else understood(message, at)
            except Exception as error:  # whatever is wrong with it: nothing of it has been acted upon
                self._done(process, done, at)
                self.worker_babbled(process, f"a message that the protocol does not know: {error!r}")
                return
            self._done(process, done, at)
            self._other(process, word, at)
        self._done(process, done, at)
        self._shell.wake()

    def _done(self, process: WorkerProcess, results: list[Result], at: float) -> None:
        if results:
            self._shell.scheduler.attempts_done(process.worker, results, at)
            results.clear()

    def _other(self, process: WorkerProcess, word: Sequence[Any], at: float) -> None:
        scheduler, worker, incarnation = self._shell.scheduler, process.worker, process.incarnation
        kind = word[0]
        if kind == CHUNK:
            _, fence, seq, payload, checkpoint = word
            scheduler.streams.chunk(worker, fence, seq, payload, checkpoint, at)
        elif kind == RAISED:
            _, fence, begun_at, ended_at, failure = word
            peak_mb = self._peak_mb(process, failure)
            if (output := process.output_of(fence)) or peak_mb:
                failure = failure._replace(post_mortem=PostMortem(output=output, peak_memory_mb=peak_mb))
            scheduler.attempt_failed(worker, fence, begun_at, ended_at, failure, at)
        elif kind == RELEASED:
            _, fence, begun_at, ended_at = word
            scheduler.released(worker, fence, begun_at, ended_at, at)
        elif kind == REPORT:
            _, fence, fraction, text = word
            scheduler.progressed(worker, fence, fraction, text)
        elif kind == RECALLED:
            if process.page.read()[0] in word[1]:  # an honest worker takes it from the page before it says so
                self.worker_babbled(process, "it says of the task that its page shows that it has not begun it")
                return
            process.never_began(word[1])
            scheduler.recalled(worker, incarnation, word[1], at)
        elif kind == WORN:
            _, fence, why = word
            log_line(worker, _task_of(process, fence), "warning", f"its worker is replaced, as after this task {why}")
            scheduler.worker_worn(worker, incarnation, why, at)
        elif kind == READY:
            self._shell.sweeper.worker_came(process)
            self._shell.worker_watch.worker_came(process)
            process.takes_files, process.takes_streams, process.takes_many = word[2:]
            scheduler.worker_ready(worker, incarnation, word[1], at)
        else:
            self.first_trouble = self.first_trouble or word[1]
            scheduler.worker_broken(worker, incarnation, word[1], at)

    def _peak_mb(self, process: WorkerProcess, failure: Failure) -> float:
        """Of one that has failed for want of memory, and lives on."""
        starved = "MemoryError" in failure.types or failure.code == "out_of_memory"
        return round(procfs.peak_mb(process.pid), 1) if starved and process.pid is not None else 0.0

    def worker_told(self, process: WorkerProcess, message: list[Any]) -> None:
        """A packet of the control channel."""
        kind = message[0]
        if kind == HEARTBEAT:
            self._shell.scheduler.heartbeat(process.worker, process.incarnation, now())
        elif kind == LOG and len(message) == 4 and type(message[2]) is str:
            text = str(message[3])
            if process.console.budget.spend(len(text)) and self._levels.get(message[2], False):
                log_line(process.worker, _task_of(process, message[1]), message[2], text)
            self._shell.scheduler.heartbeat(process.worker, process.incarnation, now())  # it may have crowded that out
        else:
            self.worker_babbled(process, f"a packet of type {kind} on the control channel")

    def worker_printed(self, process: WorkerProcess, stream: str, fence: int, line: str) -> None:
        """A line of its output."""
        self._shell.printed(process.worker, _task_of(process, fence), stream, line)

    def worker_babbled(self, process: WorkerProcess, error: str) -> None:
        """It sent what the protocol does not know. That costs it its life, and nobody else anything."""
        slot = self._shell.scheduler.state.slots.get(process.worker)
        if slot is not None and not slot.ready_at:
            self.first_trouble = self.first_trouble or f"{process.worker} is of no use: {error}"
        self._shell.scheduler.worker_broken(process.worker, process.incarnation, error, now())
        self._shell.wake()

    def worker_ended(self, process: WorkerProcess, how: str) -> None:
        """The process is reaped, and its pipes are read to their end."""
        shell = self._shell
        if process.pid is not None and shell.dying.pop(process.pid, None) is not None:
            shell.scheduler.state.stuck_pids.pop(process.pid, None)
        if shell.processes.get(process.worker) is process:
            del shell.processes[process.worker]
            at = now()
            fence, begun_at = process.begun(at)
            slot = shell.scheduler.state.slots[process.worker]
            if not slot.ready_at:
                self.first_trouble = self.first_trouble or f"{process.worker} ended before it was ready: {how}"
            found = process.post_mortem
            if found is not None:
                found = shell.worker_watch.examined(process, found)
            if found is not None and not slot.in_flight:  # no attempt will keep them
                for line in found.stacks.splitlines():
                    log_line(process.worker, "", "stacks", line)
            shell.scheduler.worker_exited(process.worker, process.incarnation, how, fence, begun_at, at, found)
        process.close()
        shell.worker_watch.worker_gone(process)
        shell.sweeper.worker_gone()
        shell.templates.release(shell.generations)
        shell.wake()

    def spawned(self, process: WorkerProcess, pid: int) -> None:
        """The template has forked it."""
        process.handed_over()
        process.begin(pid)
        self._shell.scheduler.worker_spawned(process.worker, process.incarnation, pid)

    def not_spawned(self, process: WorkerProcess, why: str) -> None:
        """The template could not."""
        process.handed_over()
        self.first_trouble = self.first_trouble or f"{process.worker} cannot be made: {why}"
        self.worker_ended(process, why)

    def unanswered(self, process: WorkerProcess) -> None:
        """The template died over the request. It may have forked all the same: whoever has these channels reads their
        end, and goes. The next template is asked with others."""
        shell = self._shell
        if shell.processes.get(process.worker) is process:
            try:
                again = WorkerProcess(
                    process.worker, process.incarnation, process.generation, process.group, shell.loop, self,
                    shell.descriptors, shell.buffer,
                )  # fmt: skip
            except OSError as error:
                self.not_spawned(process, f"its pipes cannot be made: {error}")
                return
            again.unwanted = process.unwanted
            shell.processes[process.worker] = again
            shell.templates.spawn(again)
        process.handed_over()
        process.close()


def _task_of(process: WorkerProcess, fence: Any) -> str:
    id = process.task_of(fence) if type(fence) is int else None
    return "" if id is None else id.hex()
