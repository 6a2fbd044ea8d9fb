"""What tasks do when they run: by their name, and by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from poolmgr.core.failure import Failure
from tests.simulation.world import World


class Course(NamedTuple):
    """How one attempt would go if nothing disturbed it."""

    run_s: float
    failure: Failure | None = None  # None: it completes
    crash: bool = False  # its worker dies instead
    progress: bool = False
    deaf: bool = False  # it does not hear interrupts
    wipes: bool = False  # if a fault says so, it makes its page show that nothing has begun


RESULT: Final = b"result of "
INTERRUPTED: Final = Failure("timeout", "it ran longer than its soft_timeout_s", "SoftTimeout", "", ("SoftTimeout",))
CANCELLED: Final = Failure("task_failed", "", "asyncio.CancelledError", "", ("asyncio.CancelledError",))


def course(world: World, name: str) -> Course:
    """One attempt of a task of this name."""
    return _COURSES[name](world)


def result_of(payload: bytes) -> bytes:
    """What a task with these arguments returns, if it does."""
    return RESULT + payload


def _quick(world: World) -> Course:
    """Far under a millisecond, so that its like are prefetched; now and then it is not, and they are recalled."""
    roll = world.random.random()
    if roll < 0.85:
        return Course(world.between(0.00002, 0.0003))
    return Course(world.between(0.0005, 0.004) if roll < 0.94 else world.between(0.005, 0.5))


def _work(world: World) -> Course:
    return Course(world.between(0.002, 0.5), progress=world.chance(0.2))


def _long(world: World) -> Course:
    return Course(world.between(0.5, 8.0), progress=world.chance(0.5), deaf=world.chance(0.3), wipes=world.chance(0.2))


def _flaky(world: World) -> Course:
    run_s = world.between(0.0001, 0.2)
    roll = world.random.random()
    if roll < 0.4:
        return Course(run_s)
    if roll < 0.55:
        delay_s = world.random.choice((0.0, 0.5, 3.0, False))
        return Course(run_s, Failure("task_failed", "later", "Retry", "", (), delay_s))
    if roll < 0.6:
        code = world.random.choice(("bad_arguments", "unknown_task", "bad_result"))
        return Course(run_s, Failure(code, "it would happen again"))
    types = world.random.choice(
        (("ValueError", "Exception"), ("KeyError", "LookupError", "Exception"), ("app.Throttled",))
    )
    return Course(run_s, Failure("task_failed", "no luck", types[0], "a traceback", types))


def _deadly(world: World) -> Course:
    return Course(world.between(0.0001, 0.3), crash=world.chance(0.6), wipes=world.chance(0.5))


def _poison(world: World) -> Course:
    return Course(world.between(0.0001, 0.05), crash=True, wipes=True)


def _stream(world: World) -> Course:
    """The time is that of one chunk; how it goes is how it goes after some."""
    run_s = world.random.choice((0.0001, 0.005, 0.1))
    if world.chance(0.8):
        return Course(run_s, deaf=world.chance(0.2))
    if world.chance(0.3):
        return Course(run_s, crash=True)
    return Course(run_s, Failure("task_failed", "no luck", "ValueError", "a traceback", ("ValueError", "Exception")))


_COURSES: Final[dict[str, Callable[[World], Course]]] = {
    "quick": _quick,
    "blink": _quick,
    "work": _work,
    "long": _long,
    "limited": _work,
    "flaky": _flaky,
    "deadly": _deadly,
    "poison": _poison,
    "dropped": _work,  # a later version of the app may lack it
    "stream": _stream,
}
