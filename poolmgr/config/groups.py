"""Parts of the pool: ``[[groups]]`` in the settings file, each with a size, capabilities, a command and limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from poolmgr.config.kinds import Kind, choice, flag, names, seconds, setting, unknown_setting, whole, words
from poolmgr.errors import ConfigError

REST: Final = "default"  # the name of the group of all workers that belong to no other


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Workers that are alike. A worker's capabilities are its group's name, these, and what it says when it is ready.

    Attributes:
        name: unique in the pool.
        size: how many workers it begins with; they are part of ``pool_size``.
        reserved: its workers run only tasks that require one of their capabilities. Workers of a ``worker_command`` are
            always reserved: what the app's tasks are called means nothing to them.
        worker_command: the executable and its arguments; empty: workers of the app, in Python.
        worker_tasks: the names of the tasks that a ``worker_command`` runs. They are sent to this group alone.

    The others are as in ``Settings``; what a group does not say is what the pool's settings say.
    """

    name: str = setting(REST, names(1))
    size: int = setting(1, whole(0))
    capabilities: tuple[str, ...] = setting((), names())
    reserved: bool = setting(False, flag())
    start_method: str = setting("fork", choice("fork", "spawn"))
    worker_command: tuple[str, ...] = setting((), words())
    worker_tasks: tuple[str, ...] = setting((), names())
    worker_memory_limit_mb: int = setting(512, whole(0))
    max_tasks_per_worker: int = setting(0, whole(0))
    max_worker_age_s: float = setting(0.0, seconds())
    idle_timeout_s: float = setting(0.0, seconds())

    @property
    def offers(self) -> frozenset[str]:
        """The capabilities that each of its workers has."""
        return frozenset({self.name, *self.capabilities})

    @property
    def is_reserved(self) -> bool:
        """Whether a task that requires nothing is not for its workers."""
        return self.reserved or bool(self.worker_command)

    @property
    def forks(self) -> bool:
        """Whether its workers are forked from the template; all others are exec'd."""
        return self.start_method == "fork" and not self.worker_command


KINDS: Final[dict[str, Kind]] = {each.name: each.metadata["kind"] for each in fields(Group)}
INHERITED: Final = (
    "start_method",
    "worker_command",
    "worker_memory_limit_mb",
    "max_tasks_per_worker",
    "max_worker_age_s",
    "idle_timeout_s",
)


def group_tables() -> Kind:
    """The ``[[groups]]`` of a settings file, as they were written: ``make_groups`` checks what is in them."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or not all(isinstance(each, (dict, Group)) for each in value):
            raise ValueError
        return tuple(value)

    def read(text: str) -> Any:
        raise ValueError

    return Kind("[[groups]] in the settings file", check, read)


def make_groups(tables: Iterable[Mapping[str, Any]], pool: Mapping[str, Any], source: str) -> tuple[Group, ...]:
    """The groups that ``tables`` describe. ``pool`` holds what they inherit, by the settings' names.

    Raises:
        ConfigError: an unknown or wrong setting; the message names it, its group, and ``source``.
    """
    return tuple(_make(table, pool, source) for table in tables)


def _make(table: Mapping[str, Any], pool: Mapping[str, Any], source: str) -> Group:
    where = f"{source}: group {table.get('name', 'without a name')!r}"
    given: dict[str, Any] = {}
    for name, value in table.items():
        kind = KINDS.get(name)
        if kind is None:
            raise unknown_setting(name, KINDS, where)
        try:
            given[name] = kind.check(value)
        except ValueError:
            raise ConfigError(f"{where}: {name} takes {kind.takes}, got {value!r}") from None
    for name in ("name", "size"):
        if name not in given:
            raise ConfigError(f"{where}: {name} is missing; each of [[groups]] has a name and a size")
    return Group(**{**{name: pool[name] for name in INHERITED if name in pool}, **given})


def check_groups(groups: Sequence[Group], pool_size: int) -> None:
    """What must hold among the groups of a pool, the rest included, which is the first.

    Raises:
        ConfigError: it does not.
    """
    rest, *named = groups
    if rest.size < 0:
        taken = sum(group.size for group in named)
        raise ConfigError(f"the groups have {taken} workers and pool_size is {pool_size}: it counts them all")
    homes: dict[str, str] = {}
    for group in groups:
        if group.name == REST and group is not rest:
            raise ConfigError(f"a group cannot be named {REST!r}: so is called what belongs to no other")
        if group.worker_tasks and not group.worker_command:
            raise ConfigError(
                f"group {group.name!r} has worker_tasks and no worker_command: the app tells by itself what it has"
            )
        for task in group.worker_tasks:
            if task in homes:
                raise ConfigError(f"the task {task!r} is in the worker_tasks of {homes[task]!r} and of {group.name!r}")
            homes[task] = group.name
    twice = next(
        (group.name for at, group in enumerate(named) if group.name in [each.name for each in named[:at]]), None
    )
    if twice is not None:
        raise ConfigError(f"two groups are named {twice!r}")
