"""One request of a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from poolmgr.core.effects import Answer
from poolmgr.errors import BadOption
from poolmgr.manager.manager import Manager
from poolmgr.server.options import OptionCache

LIMIT = 10_000  # of what one answer lists
LATER = object()  # what a command returns when the scheduler will answer by itself


@dataclass(frozen=True, slots=True)
class Call:
    """One request: whose it is, and what it brings. ``options``: of what that client submits."""

    manager: Manager
    client: int
    request: int
    arguments: dict[str, Any]
    options: OptionCache

    def id(self) -> bytes:
        """The argument ``id``: a task's 16 bytes."""
        return task_id(self.arguments.get("id"))

    def when_kept(self, value: Any) -> Any:
        """Have ``value`` answered once all that has been decided is committed, and return ``LATER``."""
        state = self.manager.scheduler.state
        state.effects.append(Answer(self.token(), value, state.settled()))
        return LATER

    def text(self, name: str) -> str:
        """A string argument that must be there."""
        value = self.arguments.get(name)
        if not isinstance(value, str) or not value:
            raise BadOption(f"{name} takes a string, got {value!r:.200}")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string argument, or None where it is not there."""
        return None if self.arguments.get(name) is None else self.text(name)

    def limit(self) -> int:
        """The argument ``limit``: how many at most; 100 by default."""
        value = self.arguments.get("limit", 100)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LIMIT:
            raise BadOption(f"limit takes a whole number from 1 to {LIMIT}, got {value!r}")
        return value

    def token(self) -> int:
        """What the scheduler is to answer it by."""
        return self.manager.token(self.client, self.request)

    def flag(self, name: str) -> bool:
        """A boolean argument, false by default."""
        value = self.arguments.get(name, False)
        if not isinstance(value, bool):
            raise BadOption(f"{name} takes true or false, got {value!r}")
        return value


def task_id(value: Any) -> bytes:
    """``value``, if it is a task's id. Raises ``BadOption``."""
    if not isinstance(value, bytes) or len(value) != 16:
        raise BadOption("a task id is 16 bytes (32 hex digits)")
    return value
