"""The settings of a daemon: one frozen object, made of defaults, a TOML file, the environment and flags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from poolmgr.config.groups import INHERITED, Group, check_groups, group_tables, make_groups
from poolmgr.config.kinds import (
    Kind,
    choice,
    flag,
    modules,
    names,
    percentages,
    seconds,
    setting,
    text,
    unknown_setting,
    whole,
    words,
)
from poolmgr.errors import ConfigError
from poolmgr.model import TaskOptions

PREFIX: Final = "POOLMGR_"
# Variables that look like settings: the place of the file, and what the daemon sets in its workers.
NOT_SETTINGS: Final = frozenset(
    f"POOLMGR_{name}" for name in ("CONFIG", "POOL", "WORKER", "GROUP", "PROTOCOL", "HEARTBEAT_S")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked. docs/reference/settings.md explains each.

    ``Settings.load`` is the door for what people wrote. Built directly, only relations between settings are
    checked. Times are in seconds; 0 switches a limit off where that makes sense.
    """

    mode: str = setting("managed", choice("managed"))
    app: tuple[str, ...] = setting((), modules())
    start_method: str = setting("fork", choice("fork", "spawn"))
    worker_command: tuple[str, ...] = setting((), words())
    worker_tasks: tuple[str, ...] = setting((), names())
    socket: str | None = setting(None, text())
    socket_group: str | None = setting(None, text())
    state_dir: str | None = setting(None, text())

    pool_size: int = setting(20, whole(1))
    min_workers: int = setting(0, whole(1))  # not given (0): 5, or pool_size where that is less
    max_workers: int = setting(0, whole(1))  # not given (0): 50, or pool_size where that is more
    autoscale: bool = setting(False, flag())
    autoscale_wait_s: float = setting(1.0, seconds(above_zero=True))
    autoscale_idle_s: float = setting(60.0, seconds(above_zero=True))
    autoscale_cpu_percent: int = setting(90, whole(1))
    load_balancing: str = setting("most-recent", choice("most-recent", "round-robin", "least-loaded", or_import=True))

    worker_memory_limit_mb: int = setting(512, whole(0))
    max_tasks_per_worker: int = setting(0, whole(0))
    max_worker_age_s: float = setting(0.0, seconds())
    idle_timeout_s: float = setting(0.0, seconds())
    gc_interval_s: float = setting(30.0, seconds())
    heartbeat_interval_s: float = setting(5.0, seconds(above_zero=True))
    zombie_after_s: float = setting(30.0, seconds(above_zero=True))
    auto_restart: bool = setting(True, flag())
    max_restart_attempts: int = setting(3, whole(0))
    restart_cooldown_s: float = setting(5.0, seconds())
    graceful_shutdown_timeout_s: float = setting(30.0, seconds())

    task_timeout_s: float = setting(300.0, seconds())
    max_task_retries: int = setting(3, whole(0))
    retry_backoff_s: float = setting(1.0, seconds())
    max_backoff_s: float = setting(30.0, seconds())
    retry_jitter: str = setting("ten-percent", choice("ten-percent", "full", "none"))
    poison_after: int = setting(3, whole(1))
    result_ttl_s: float = setting(3600.0, seconds())
    results_limit_mb: int = setting(1024, whole(0))
    stream_limit_mb: int = setting(1024, whole(0))
    max_queue_depth: int = setting(0, whole(0))
    aging_s: float = setting(0.0, seconds())
    preempt_grace_s: float = setting(5.0, seconds())
    preempt_min_run_s: float = setting(1.0, seconds())
    synchronous: Literal["FULL", "NORMAL"] = setting("FULL", choice("FULL", "NORMAL"))

    memory_thresholds: tuple[int, ...] = setting((70, 85, 95), percentages(3))
    breaker_failures: int = setting(3, whole(0))
    breaker_window_s: float = setting(60.0, seconds(above_zero=True))
    breaker_open_s: float = setting(30.0, seconds(above_zero=True))

    log_worker_errors: bool = setting(True, flag())
    log_worker_warnings: bool = setting(True, flag())
    log_worker_info: bool = setting(False, flag())
    log_worker_debug: bool = setting(False, flag())

    groups: tuple[Group, ...] = setting((), group_tables())

    def __post_init__(self) -> None:
        _stretch_bounds(self)
        if not self.min_workers <= self.pool_size <= self.max_workers:
            raise ConfigError(
                f"pool_size {self.pool_size} is not between min_workers {self.min_workers} "
                f"and max_workers {self.max_workers}"
            )
        if self.zombie_after_s <= self.heartbeat_interval_s:
            raise ConfigError(
                f"zombie_after_s {self.zombie_after_s:g} must be longer than "
                f"heartbeat_interval_s {self.heartbeat_interval_s:g}"
            )
        check_groups(self.worker_groups(), self.pool_size)

    def worker_groups(self) -> tuple[Group, ...]:
        """Every group of the pool: first the rest, all that belongs to none of ``groups``; its size may be 0."""
        inherited = {name: getattr(self, name) for name in INHERITED}
        size = self.pool_size - sum(group.size for group in self.groups)
        rest = Group(size=size, worker_tasks=self.worker_tasks, **inherited)
        return rest, *self.groups

    @classmethod
    def load(
        cls,
        *,
        file: str | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
        flags_from: str = "the command line",
    ) -> Settings:
        """Defaults, then the TOML file (flat but for [[groups]]), then POOLMGR_* variables, then ``flags``.

        The last one wins.

        The file is ``file``, else $POOLMGR_CONFIG, else none. ``environ`` is ``os.environ`` unless given; an
        empty variable counts as unset. ``flags`` holds values by the settings' names, and came from
        ``flags_from``, as messages say.

        Raises:
            ConfigError: an unknown or wrong setting; the message names it and where it came from.
        """
        environ = os.environ if environ is None else environ
        file = file or environ.get("POOLMGR_CONFIG")
        given = _from_file(file) if file else {}
        given.update(_from_environment(environ))
        for name, value in (flags or {}).items():
            given[name] = _checked(name, value, flags_from)
        given["groups"] = make_groups(given.get("groups", ()), given, file or "the groups")
        return cls(**given)


KINDS: Final[dict[str, Kind]] = {each.name: each.metadata["kind"] for each in fields(Settings)}

# What a reload takes over: the app, and the defaults of its tasks. All else needs a restart.
RELOADED: Final = (
    "app", "task_timeout_s", "max_task_retries", "retry_backoff_s", "max_backoff_s", "result_ttl_s",
)  # fmt: skip


def task_options(settings: Settings) -> TaskOptions:
    """The options of a task for which neither its handler nor its submitter asked otherwise."""
    return TaskOptions(
        timeout_s=settings.task_timeout_s or None,
        max_retries=settings.max_task_retries,
        retry_backoff_s=settings.retry_backoff_s,
        max_backoff_s=settings.max_backoff_s,
        result_ttl_s=settings.result_ttl_s,
    )


def _stretch_bounds(settings: Settings) -> None:
    bounds = {"min_workers": min(5, settings.pool_size), "max_workers": max(50, settings.pool_size)}
    for name, bound in bounds.items():
        if not getattr(settings, name):
            object.__setattr__(settings, name, bound)  # frozen for everybody else


def _from_file(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return {name: _checked(name, value, path) for name, value in found.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for variable, written in environ.items():
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS or not written:
            continue
        name = variable.removeprefix(PREFIX).lower()
        kind = KINDS.get(name)
        if kind is None or variable != variable.upper():
            raise unknown_setting(variable, (PREFIX + each.upper() for each in KINDS), "the environment")
        try:
            found[name] = kind.check(kind.read(written))
        except ValueError:
            raise ConfigError(f"${variable} takes {kind.takes}, got {written!r}") from None
    return found


def _checked(name: str, value: Any, source: str) -> Any:
    kind = KINDS.get(name)
    if kind is None:
        raise unknown_setting(name, KINDS, source)
    try:
        return kind.check(value)
    except ValueError:
        raise ConfigError(f"{source}: {name} takes {kind.takes}, got {value!r}") from None
