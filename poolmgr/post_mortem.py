"""What is left of an attempt that ended badly: how its process went, what it was doing, and what it said last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

OUTPUT_LIMIT: Final = 64 * 1024  # bytes kept of what an attempt has printed, the last ones
STACKS_LIMIT: Final = 64 * 1024  # bytes kept of the dumps of its stacks, the first ones
RAN_BEFORE: Final = 5  # tasks
ATTEMPTS_KEPT: Final = 10  # the last attempts of a task; earlier ones keep their cause, and not their post-mortem


class PostMortem(NamedTuple):
    """What an attempt left behind. Where the process lives on (the handler raised), only ``output``; and, where there
    was no memory to be had, ``peak_memory_mb``.

    Attributes:
        exit_code: of the process, if it exited.
        signal: that ended the process, if one did; ``signal_name`` is such as ``SIGKILL``.
        core_dumped: whether the kernel has written a core.
        peak_memory_mb: the largest resident size of the process in all its life, with what it shares with the template.
        stacks: of all its threads, as ``faulthandler`` writes them, before it was killed or when it crashed.
        output: the last 64 KB of what was printed during the attempt, stdout and stderr as they came.
        ran_before: (id, name) of the last tasks of the process before this one, the latest last.
        peak_growth_mb: by how much the process was larger than when it was ready, at most.
        oom_killed: whether the kernel has killed it for want of memory, by its control group's limit or the machine's.
    """

    exit_code: int | None = None
    signal: int | None = None
    signal_name: str = ""
    core_dumped: bool = False
    peak_memory_mb: float = 0.0
    stacks: str = ""
    output: str = ""
    ran_before: tuple[tuple[str, str], ...] = ()
    peak_growth_mb: float = 0.0
    oom_killed: bool = False

    @property
    def how(self) -> str:
        """How the process ended, in words; '' if it did not."""
        if self.signal is not None:
            return f"signal {self.signal} ({self.signal_name})" + (", core dumped" if self.core_dumped else "")
        return "" if self.exit_code is None else f"exit code {self.exit_code}"


def post_mortem(found: Mapping[str, Any] | None) -> PostMortem | None:
    """The ``PostMortem`` of a map of its fields, from here or from a newer peer: unknown names are left out."""
    if found is None:
        return None
    known = {name: value for name, value in found.items() if name in PostMortem._fields}
    known["ran_before"] = tuple((str(id), str(name)) for id, name in known.get("ran_before", ()))
    return PostMortem(**known)
