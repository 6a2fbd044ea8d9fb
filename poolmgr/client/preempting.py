"""Asking a running task to give way: the same method, sync and with ``await``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from poolmgr.client import commands

T = TypeVar("T")


class Preempting(ABC):
    """Part of ``Client``."""

    @abstractmethod
    def _ask(self, question: commands.Question[T]) -> T: ...

    def preempt(self, task_id: str) -> bool:
        """Have a running task give its worker up. It goes back to its place in the queue, which costs it nothing, and
        goes on later: from its last checkpoint, or else from its beginning. One that has not let go after
        ``preempt_grace_s`` is killed for it. True: it was asked. False: it does not run.

        WrongState: it may not be run again (``restartable=False``), or would be lost with the daemon that stops."""
        return self._ask(commands.preempt(commands.key_of(task_id)))


class AsyncPreempting(ABC):
    """Part of ``AsyncClient``."""

    @abstractmethod
    async def _ask(self, question: commands.Question[T]) -> T: ...

    async def preempt(self, task_id: str) -> bool:
        """Have a running task give its worker up. It goes back to its place in the queue, which costs it nothing, and
        goes on later: from its last checkpoint, or else from its beginning. One that has not let go after
        ``preempt_grace_s`` is killed for it. True: it was asked. False: it does not run.

        WrongState: it may not be run again (``restartable=False``), or would be lost with the daemon that stops."""
        return await self._ask(commands.preempt(commands.key_of(task_id)))
