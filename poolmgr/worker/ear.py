"""How a worker hears the manager: the control channel, read between tasks, between chunks, and at SIGUSR1."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from select import POLLERR, POLLHUP, POLLIN, poll
from types import FrameType
from typing import Any

from poolmgr.wire.messages import COLLECT, CREDIT, INTERRUPT, RECALL, RECALLED, START
from poolmgr.worker.context import SoftTimeout
from poolmgr.worker.control import Control
from poolmgr.worker.generators import ADVANCE
from poolmgr.worker.trimming import give_back
from poolmgr.worker.voice import Shield, Voice

_exit = os._exit  # a task may replace it in its module


class Ear:
    """What the manager has said, on the main thread alone.

    Args:
        waiting: the messages of the task pipe that are still to be looked at.
        heed: tells the handler that runs of interrupts, by their reasons; whether ``SoftTimeout`` is to be raised.

    Attributes:
        running: the fence whose handler is being called, 0 between tasks.
        recalled: no task with this or a smaller fence is begun any more.
        dropped: what a recall found that is still to be told; None: there was none.
        early_fence: the last one for which an interrupt came while it was not running.
        early: ... and the reasons.
        credits: of fences that have not ended: up to which chunk, and bytes, as we were told last.
        is_copy: a handler has forked, and this is the child.
    """

    def __init__(self, waiting: deque[list[Any]], voice: Voice, heed: Callable[[set[str]], bool]) -> None:
        self.shield = Shield()
        self.running = 0
        self.recalled = 0
        self.dropped: list[int] | None = None
        self.early_fence = 0
        self.early: set[str] = set()
        self.credits: dict[int, tuple[int, int]] = {}
        self.is_copy = False
        self._waiting = waiting
        self._voice = voice
        self._heed = heed
        self._control: Control
        self._reading = False  # the control channel is being read, or watched
        self._read_again = False  # a signal has struck meanwhile

    def open(self, control: Control) -> None:
        """The channel is there."""
        self._control = control
        self._word = poll()
        self._word.register(control.fileno(), POLLIN)

    def end_copy(self) -> None:
        """End here, if this is a forked copy."""
        if self.is_copy:
            _exit(0)

    # ------------------------------------------------------------------------------------------ listening

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGUSR1."""
        if self.read():
            if self.shield.up or (frame is not None and frame.f_code is ADVANCE):
                self.shield.waits = True
            else:
                raise SoftTimeout

    def hear(self) -> None:
        """Take in what the manager has said, in the midst of a stream."""
        if self.read():
            self.shield.waits = True
        self.tell_dropped()

    def watch(self) -> int:
        """From here on signal handlers leave the channel alone, since nobody would wake up for what they took. Its
        descriptor."""
        self._reading = True
        return self._control.fileno()

    def await_word(self) -> None:
        """Wait, as it is watched, until there is something in it."""
        self._word.poll()

    def watch_no_more(self) -> None:
        """Take in what signal handlers have left, and what was waited for."""
        self._reading = False
        self.hear()
        if any(event & (POLLHUP | POLLERR) for _, event in self._word.poll(0)):
            _exit(0)  # the manager is gone

    def read(self) -> bool:
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
                elif message[0] == CREDIT:
                    self._credit(*message[1:4])
                elif message[0] == COLLECT and not self.running:
                    give_back()
            self._reading = False
            wanted = self._read_again
        return interrupt

    # ------------------------------------------------------------------------------------------ what was said

    def _recall(self, fence: int) -> None:
        """Drop what waits. It is told later where a signal handler finds the recall: a message may be half written."""
        self.recalled = max(self.recalled, fence)
        dropped = [message[1] for message in self._waiting if message[0] == START and message[1] <= fence]
        if dropped:
            kept = [message for message in self._waiting if message[0] != START or message[1] > fence]
            self._waiting.clear()
            self._waiting.extend(kept)
            self._control.drop(*dropped)
        self.dropped = [*(self.dropped or ()), *dropped]

    def tell_dropped(self) -> None:
        """Say what was recalled, if that is still to be said."""
        if self.dropped is not None:
            dropped, self.dropped = self.dropped, None
            self._voice.write((RECALLED, dropped))

    def _interrupted(self, fence: int, reason: str) -> bool:
        """Whether ``SoftTimeout`` is to be raised here and now: it is for the handler that runs. One whose arguments
        are still being decoded is told when it is called; one that has returned is let be."""
        if fence == self.running:
            return self._heed({reason})
        if fence >= self.early_fence:
            self.early = {reason, *self.early} if fence == self.early_fence else {reason}
            self.early_fence = fence
        return False

    def _credit(self, fence: int, up_to: int, size: int) -> None:
        before = self.credits.get(fence, (0, 0))
        self.credits[fence] = max(up_to, before[0]), max(size, before[1])

    def forget_credits(self, fence: int) -> None:
        """The task has ended."""
        for each in tuple(self.credits):
            if each <= fence:
                del self.credits[each]
