"""The cases of the proof ``hostile``: one task each, what must come of it, and by when."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from scripts.proofs import hostile_tasks as tasks

DIES = ("worker_died",)
FAILS = ("task_failed",)
LATE = ("timeout",)
BAD = ("bad_result",)


class Case(NamedTuple):
    """One hostile task.

    Attributes:
        name: for the report.
        handler: of ``hostile_tasks``.
        args: its arguments.
        ends: codes of which its end must be one.
        returns: what else it may come to, and with no ``ends`` must: it completes with this result.
        options: of the task, beside ``max_retries=0``.
        limit_s: how long it may take by itself.
        pickled: which ends are as good through an ``Executor``; '' stands for any result.
    """

    name: str
    handler: Callable[..., Any]
    args: tuple[Any, ...] = ()
    ends: tuple[str, ...] = ()
    returns: Any = None
    options: dict[str, Any] = {}  # noqa: RUF012 - nobody writes to it
    limit_s: float = 1.0
    pickled: tuple[str, ...] = ()


def all_cases() -> list[Case]:
    """Those that can be run here: some need root."""
    return [*_ends(), *_signals(), *_endless(), *_families(), *_files(), *_errors(), *_results(), *_changes()]


def _ends() -> Iterator[Case]:
    for code in (0, 1, 255):
        yield Case(f"os._exit({code})", tasks.leave, (code,), DIES)
    yield Case("segmentation fault", tasks.segfault, (), DIES)
    yield Case("abort", tasks.abort, (), DIES)
    yield Case("exec of a long program", tasks.become, ("sleep", "1000"), DIES)
    yield Case("exec of a short program", tasks.become, ("true",), DIES)
    yield Case("recursion", tasks.recurse, (), FAILS)
    yield Case("recursion in C", tasks.recurse_in_c, (), DIES, limit_s=5)
    yield Case("low recursion limit", tasks.lower_the_recursion_limit, (False,), returns="low")
    yield Case("low recursion limit, and an error", tasks.lower_the_recursion_limit, (True,), FAILS)
    yield Case("memory without end", tasks.allocate_for_ever, (), FAILS, limit_s=3)


def _signals() -> Iterator[Case]:
    ignored = {"SIGPIPE", "SIGXFSZ", "SIGCHLD", "SIGURG", "SIGWINCH", "SIGCONT", "SIGUSR1"}
    stopped = {"SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"}  # continued once by the manager, as its heart is silent
    for number in sorted(signal.valid_signals() - {signal.SIGRTMIN, signal.SIGRTMAX}):
        name = signal.Signals(number).name if number < signal.SIGRTMIN else f"real-time signal {number}"
        if number > signal.SIGRTMIN + 1:
            continue
        if name in stopped:
            yield Case(name, tasks.send, (int(number),), returns="survived", limit_s=6)
        elif name == "SIGINT":
            yield Case(name, tasks.send, (int(number),), FAILS)
        elif name in ignored:
            yield Case(name, tasks.send, (int(number),), returns="survived")
        else:
            yield Case(name, tasks.send, (int(number),), DIES)
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT):
        yield Case(f"{number.name} to its group", tasks.send, (int(number), True), DIES)
    yield Case("SIGINT to its group", tasks.send, (int(signal.SIGINT), True), FAILS)
    yield Case("SIGSTOP to its group", tasks.send, (int(signal.SIGSTOP), True), returns="survived", limit_s=6)
    yield Case("SIGSTOP again and again", tasks.stop_again_and_again, (), (*DIES, *LATE), None, {"timeout_s": 8.0}, 10)


def _endless() -> Iterator[Case]:
    limited = {"timeout_s": 0.5}
    for name, handler in {
        "endless loop": tasks.loop,
        "endless loop, deaf": tasks.loop_deafly,
        "catastrophic regular expression": tasks.match_for_ever,
        "sleep in C with the GIL": tasks.sleep_with_the_gil,
        "deadlock": tasks.deadlock,
        "short lines without end": tasks.chatter,
        "endless loop, out of its group": tasks.leave_the_group_for_ever,
    }.items():
        yield Case(name, handler, (), LATE, None, limited, 2.0)
    yield Case("endless loop, soft limit", tasks.loop, (), LATE, None, {"soft_timeout_s": 0.3}, 1.0, FAILS)
    yield Case("endless loop, deaf to the soft limit", tasks.loop_deafly, (), LATE, None,
               {"soft_timeout_s": 0.2, "timeout_s": 0.5}, 2.0)  # fmt: skip


def _families() -> Iterator[Case]:
    yield Case("a child that dies", tasks.fork_and_let_die, (), returns="parent")
    yield Case("death of the parent", tasks.fork_and_die, (), DIES)
    yield Case("fork, and both return", tasks.fork_and_both_return, (), returns="parent")
    yield Case("fork, and both raise", tasks.fork_and_both_raise, (), FAILS)
    yield Case("a child is left", tasks.leave_a_child, (False,), limit_s=3)
    yield Case("a child is left in a session of its own", tasks.leave_a_child, (True,), limit_s=3)
    yield Case("a daemon is left", tasks.leave_a_daemon, (), limit_s=3)
    yield Case("it becomes a daemon", tasks.daemonise, (), DIES, limit_s=3)
    yield Case("it leaves its group", tasks.leave_the_group, (), returns="moved", limit_s=3)


def _files() -> Iterator[Case]:
    yield Case("all files closed", tasks.close_everything, (), DIES)
    yield Case("standard files closed", tasks.close_the_standard_files, (), returns="closed")
    yield Case("all files replaced", tasks.replace_every_file, (False,), DIES, limit_s=2)
    yield Case("all files replaced, no end", tasks.replace_every_file, (True,), DIES, limit_s=2)
    yield Case("garbage on all files", tasks.scribble, (True,), DIES)
    yield Case("garbage on all files, and a result", tasks.scribble, (False,), DIES)
    yield Case("garbage on the control channel", tasks.scribble, (True, "socket"), DIES)
    for value, begun_at in ((1 << 63, 1e300), (0, float("nan")), (1, -1.0)):
        yield Case(f"the page says {value}, {begun_at}", tasks.scribble_on_the_page,
                   (value, begun_at, "return"), returns="scribbled")  # fmt: skip
    yield Case("the page is wrong, and it dies", tasks.scribble_on_the_page, (1 << 63, 1e300, "die"), DIES)
    yield Case("the page is wiped, and it dies", tasks.scribble_on_the_page, (0, 0.0, "die"), DIES, limit_s=2)
    yield Case("the page is wrong, and no end", tasks.scribble_on_the_page, (1 << 63, 1e300, "loop"),
               (*LATE, *DIES), None, {"timeout_s": 0.5}, 8.0)  # fmt: skip
    yield Case("10 MB of output", tasks.print_much, (10 << 20,), returns="printed", limit_s=5)
    yield Case("10 MB of output, past Python", tasks.write_much, (10 << 20,), returns="written", limit_s=5)
    yield Case("input is read", tasks.read_input, (), returns="")
    for how in ("close", "close the buffer", "none", "text"):
        yield Case(f"output: {how}", tasks.replace_streams, (how,), returns=how)


def _errors() -> Iterator[Case]:
    for kind in tasks.ERRORS:
        yield Case(f"raises {kind}", tasks.fail_with, (kind,), FAILS, limit_s=2)
    for kind in ("SystemExit", "KeyboardInterrupt", "CancelledError", "GeneratorExit"):
        yield Case(f"raises {kind}, async", tasks.fail_with_async, (kind,), (*FAILS, *LATE), limit_s=2)
    yield Case("stops its event loop", tasks.close_the_loop, (), FAILS)


def _results() -> Iterator[Case]:
    for kind in tasks.RESULTS:
        yield Case(f"returns {kind}", tasks.return_kind, (kind,), BAD, limit_s=3, pickled=("", *FAILS))


def _changes() -> Iterator[Case]:
    for what in tasks.CHANGES:
        if what in tasks.NEEDS_ROOT and os.geteuid():
            continue
        ends: tuple[str, ...] = (*DIES, *FAILS, *BAD) if what in _FATAL else ()
        yield Case(f"changes {what}", tasks.change, (what,), ends, what)
        yield Case(f"changes {what}, and fails", tasks.change, (what, True), (*FAILS, *DIES))


_FATAL = ("len", "isinstance", "memory", "timer with a handler", "trace", "profile")  # which may end it at once
