"""Tasks as clients think them up: a name, a payload, and options in every mixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from poolmgr.model import TaskOptions
from tests.simulation.world import World

NAMES: Final = (
    "quick", "quick", "blink", "work", "work", "long", "limited", "flaky", "deadly", "poison", "dropped", "stream",
    "stream", "stream",
)  # fmt: skip


class Draft(NamedTuple):
    """A task that was not submitted yet, or is submitted once more."""

    id: bytes
    name: str
    payload: bytes
    options: TaskOptions


def _one(*values: Any) -> Callable[[World], Any]:
    return lambda world: world.random.choice(values)


# option -> values; a seed knows some of the options, and gives each to some of its tasks
_VALUES: Final[dict[str, Callable[[World], Any]]] = {
    "priority": _one(0, 5, 10, 50, 100),
    "group": _one("a", "b", "c"),
    "delay_s": _one(0.001, 0.3, 2.0, 20.0),
    "at": lambda world: world.now + world.wall_offset + world.random.uniform(-5.0, 5.0),
    "expires_s": _one(0.005, 0.1, 1.0, 5.0),
    "key": _one("k", "l", "m"),
    "key_window_s": _one(0.0, 0.5, 3.0),
    "requires": _one(frozenset({"even"}), frozenset({"odd"}), frozenset({"default"})),
    "ephemeral": _one(True),
    "restartable": _one(False),
    "sheddable": _one(True),
    "affinity": _one("model-1", "model-2"),
    "timeout_s": _one(0.02, 0.3, 2.0, None),
    "soft_timeout_s": _one(0.01, 0.2, 1.0, 5.0),
    "max_retries": _one(0, 1, 5),
    "retry_backoff_s": _one(0.0, 0.1, 1.0),
    "max_backoff_s": _one(0.05, 2.0),
    "retry_on": _one(frozenset({"KeyError"}), frozenset({"Exception"})),
    "no_retry_on": _one(frozenset({"ValueError"}), frozenset({"LookupError", "app.Throttled"})),
    "memory_limit_mb": _one(100),
    "result_ttl_s": _one(0.0, 1.0, 20.0),
}
_SOME: Final = 0.25
_PADDING: Final = (0, 0, 5, 40, 0, 290, 80)  # bytes


class Drafter:
    """Thinks tasks up, in the manner of one seed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._shared: dict[TaskOptions, TaskOptions] = {}  # equal ones are one, as in the server's cache
        self._count = 0
        self._options = [name for name in _VALUES if world.chance(0.4)]
        self._durable = world.random.choice((0.0, 0.5, 0.9, 1.0))
        self._names = [name for name in NAMES if world.chance(0.6)] or ["work"]
        self._limits = [
            {
                "rate_limit": world.random.choice((None, (1, 0.3), (3, 1.0))),
                "max_concurrency": world.random.choice((0, 1, 2)),
            }
            for _ in range(2)
        ]

    def draft(self, name: str | None = None, **options: Any) -> Draft:
        """A new task."""
        world = self._world
        name = name or world.random.choice(self._names)
        chosen: dict[str, Any] = {"timeout_s": 10.0, "max_backoff_s": 2.0, "durable": world.chance(self._durable)}
        for option in self._options:
            if world.chance(_SOME):
                chosen[option] = _VALUES[option](world)
        if name == "limited":
            chosen.update(self._limits[0] if world.chance(0.9) else self._limits[1])
        if chosen.get("requires") and world.chance(0.2):
            chosen["requires"] = frozenset()
        if "at" in chosen:
            chosen.pop("delay_s", None)  # one of the two is enough to wait for
        chosen.update(options)
        payload = b"payload %d" % self._count + b"." * _PADDING[self._count % len(_PADDING)]
        made = TaskOptions(**chosen)
        return Draft(self.new_id(), name, payload, self._shared.setdefault(made, made))

    def new_id(self) -> bytes:
        """An id that no other task has."""
        self._count += 1
        milliseconds = int((self._world.now + self._world.wall_offset) * 1000)
        return milliseconds.to_bytes(6, "big") + self._count.to_bytes(10, "big")
