"""What a client asks about circuit breakers: the same methods, sync and with ``await``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from poolmgr.breaker import BreakerInfo
from poolmgr.client import commands

T = TypeVar("T")


class Breakers(ABC):
    """Part of ``Client``."""

    @abstractmethod
    def _ask(self, question: commands.Question[T]) -> T: ...

    def breakers(self) -> list[BreakerInfo]:
        """Every circuit breaker that has something to tell, by the names of the tasks; of the others all is well."""
        return self._ask(commands.BREAKERS)

    def reset_breaker(self, name: str) -> None:
        """Forget the failures of this name, and begin its tasks again. UnknownTask: there is no such handler."""
        self._ask(commands.reset_breaker(name))


class AsyncBreakers(ABC):
    """Part of ``AsyncClient``, and of ``Pool``."""

    @abstractmethod
    async def _ask(self, question: commands.Question[T]) -> T: ...

    async def breakers(self) -> list[BreakerInfo]:
        """Every circuit breaker that has something to tell, by the names of the tasks; of the others all is well."""
        return await self._ask(commands.BREAKERS)

    async def reset_breaker(self, name: str) -> None:
        """Forget the failures of this name, and begin its tasks again. UnknownTask: there is no such handler."""
        await self._ask(commands.reset_breaker(name))
