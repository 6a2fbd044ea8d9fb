"""What a client asks about schedules: the same methods, sync and with ``await``. They are made by ``schedule``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from poolmgr.client import commands
from poolmgr.schedule import ScheduleInfo

T = TypeVar("T")


class Schedules(ABC):
    """Part of ``Client``."""

    @abstractmethod
    def _ask(self, question: commands.Question[T]) -> T: ...

    def schedules(self, upcoming: int = 1) -> list[ScheduleInfo]:
        """Every schedule, by id, each with so many of its next ticks (100 at most)."""
        return self._ask(commands.schedules(upcoming))

    def unschedule(self, schedule_id: str) -> None:
        """Forget a schedule; tasks that it has made go on. WrongState: it belongs to the app's code."""
        self._ask(commands.unschedule(schedule_id))

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Make no tasks until it is resumed, also after a restart."""
        return self._ask(commands.pause_schedule(schedule_id))

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Go on with the next tick: those of the pause were not missed."""
        return self._ask(commands.resume_schedule(schedule_id))


class AsyncSchedules(ABC):
    """Part of ``AsyncClient``."""

    @abstractmethod
    async def _ask(self, question: commands.Question[T]) -> T: ...

    async def schedules(self, upcoming: int = 1) -> list[ScheduleInfo]:
        """Every schedule, by id, each with so many of its next ticks (100 at most)."""
        return await self._ask(commands.schedules(upcoming))

    async def unschedule(self, schedule_id: str) -> None:
        """Forget a schedule; tasks that it has made go on. WrongState: it belongs to the app's code."""
        await self._ask(commands.unschedule(schedule_id))

    async def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Make no tasks until it is resumed, also after a restart."""
        return await self._ask(commands.pause_schedule(schedule_id))

    async def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Go on with the next tick: those of the pause were not missed."""
        return await self._ask(commands.resume_schedule(schedule_id))
