"""``@task`` and ``@worker_startup``: what an app offers to the pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, TypeVar, overload

from poolmgr.errors import BadOption
from poolmgr.model import RESERVED, check_options, to_wire

if TYPE_CHECKING:
    from poolmgr.schedule import Timing

P = ParamSpec("P")
R = TypeVar("R")

# What a call of a handler's function returns, where that is not its result yet.
COROUTINE: Final = 1
GENERATOR: Final = 2
ASYNC_GENERATOR: Final = 3


class Handler(NamedTuple):
    """A function that a task's name refers to, and the options that its tasks have unless a submit says otherwise."""

    name: str
    function: Callable[..., Any]
    options: dict[str, Any]
    kind: int = 0  # of what the function returns; 0: the result
    schedule: Timing | None = None
    writable: bool = False  # of large payloads it wants bytearrays, not bytes

    @property
    def is_async(self) -> bool:
        """Whether it needs an event loop."""
        return self.kind in (COROUTINE, ASYNC_GENERATOR)

    @property
    def is_stream(self) -> bool:
        """Whether it yields chunks."""
        return self.kind in (GENERATOR, ASYNC_GENERATOR)

    @property
    def declared(self) -> dict[str, Any]:
        """What the daemon is told of it: its options, when it is to be run by itself, and whether it is a stream."""
        told = to_wire(self.options)
        if self.schedule is not None:
            told = {**told, "schedule": self.schedule._asdict()}
        return {**told, "stream": True} if self.is_stream else told

    @property
    def origin(self) -> str:
        """Where it was defined, for messages."""
        return f"{self.function.__module__}.{self.function.__qualname__}"


class Registry:
    """Every handler and startup hook that the app's modules have registered, in the order of their definition."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.duplicates: list[tuple[Handler, Handler]] = []
        self.startup_hooks: list[Callable[[], Any]] = []

    def add(self, handler: Handler) -> None:
        """Register a handler. A second one of the same name is noted, and fails the daemon's start."""
        known = self.handlers.get(handler.name)
        if known is not None and known.origin != handler.origin:
            self.duplicates.append((known, handler))
        self.handlers[handler.name] = handler


registry = Registry()


@overload
def task(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def task(
    *, name: str | None = None, schedule: Timing | None = None, **options: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    schedule: Timing | None = None,
    **options: Any,
) -> Any:
    """Register a function, sync or async, as the handler of a task. It stays an ordinary function.

    A generator function, sync or async, makes a stream: each ``yield`` is a chunk (docs/how-to/write-a-stream.md).

    Args:
        name: the task's name; by default the function's ``__name__``.
        schedule: when the daemon is to submit it by itself, without arguments (docs/how-to/periodic-tasks.md).
        options: the fields of ``TaskOptions`` (priority 0..100 of which lower runs first, timeout_s, max_retries,
            requires, ...). Exceptions in ``retry_on`` and ``no_retry_on`` may be classes.

    Raises:
        BadOption: an option is unknown or out of range, or the name is one of poolmgr's own.
    """
    checked = check_options(options)
    if schedule is not None:
        from poolmgr.schedule import timing_of

        schedule = timing_of(schedule._asdict())
    if name is not None and name.startswith(RESERVED):
        raise BadOption(f"names that begin with {RESERVED!r} are poolmgr's own: choose another than {name!r}")

    def register(target: Callable[P, R]) -> Callable[P, R]:
        handler = Handler(name or target.__name__, target, checked, _kind_of(target), schedule)
        target.__poolmgr_task__ = handler  # type: ignore[attr-defined]
        registry.add(handler)
        return target

    return register if function is None else register(function)


def _kind_of(function: Callable[..., Any]) -> int:
    from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

    if iscoroutinefunction(function):
        return COROUTINE
    if isgeneratorfunction(function):
        return GENERATOR
    return ASYNC_GENERATOR if isasyncgenfunction(function) else 0


def worker_startup(function: Callable[[], Any]) -> Callable[[], Any]:
    """Register a function that each worker calls once, after its fork and before its first task.

    What must not be shared between processes belongs here: database connections, clients, random generators.
    """
    registry.startup_hooks.append(function)
    return function
