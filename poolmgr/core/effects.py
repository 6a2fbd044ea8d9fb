"""What the scheduler wants done. The shell performs effects in their order.

An effect with a ``commit`` other than 0 must not be performed before that commit has succeeded: whoever learns of it
may rely on what it says. Effects are plain values, so a log of them is a log of every decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from poolmgr.config.groups import REST
from poolmgr.core.changes import Change
from poolmgr.core.shelf import LineKey, Place
from poolmgr.core.stream import Resume
from poolmgr.model import TaskState
from poolmgr.payload import Payload


class Persist(NamedTuple):
    """Apply ``changes`` as commit ``number``; non-durable ones go to memory (``durable`` False, number 0)."""

    number: int
    durable: bool
    changes: tuple[Change, ...]


class Refill(NamedTuple):
    """Read at most ``limit`` tasks of the shelf of ``line`` (None: the schedule), in their order, beyond the place
    ``after``, and none behind the one with which their payloads weigh ``limit_bytes``, once all that was to be kept so
    far is; then say ``loaded(number, ...)``. A store that refuses is asked again."""

    number: int
    line: LineKey | None
    after: Place
    limit: int
    limit_bytes: int


class Start(NamedTuple):
    """Write a task to a worker's task pipe. ``fence`` names this attempt within this epoch.

    One that had to wait for its commit is written only if the process is still of this ``incarnation``: where that has
    gone, the attempt has gone with it.
    """

    worker: str
    incarnation: int
    fence: int
    task_id: bytes
    attempt: int
    name: str
    payload: Payload
    timeout_s: float | None
    soft_timeout_s: float | None
    commit: int
    resume: Resume | None = None  # of a task that has a stream


class StartMany(NamedTuple):
    """As many ``Start``s: first attempts, without a commit or a stream, whose fences follow one another."""

    worker: str
    incarnation: int
    fence: int  # of the first
    task_ids: Sequence[bytes]
    name: str
    payloads: Sequence[Payload]
    timeout_s: float | None
    soft_timeout_s: float | None

    def one_by_one(self) -> list[Start]:
        """Those."""
        worker, incarnation, fence, ids, name, payloads, timeout_s, soft_timeout_s = self
        return [
            Start(worker, incarnation, fence + number, id, 1, name, payload, timeout_s, soft_timeout_s, 0)
            for number, (id, payload) in enumerate(zip(ids, payloads, strict=True))
        ]


class Credit(NamedTuple):
    """Tell the worker how far the stream of the task that it runs may go on. It holds until more is said; where the
    worker does not take it now, say it again."""

    worker: str
    incarnation: int
    fence: int
    up_to: int
    bytes: int


class Look(NamedTuple):
    """Take in what the worker has written, then read its shared page and say ``page_seen``. In this order: a task that
    has ended in time is not judged by a page that still shows it."""

    worker: str
    incarnation: int


class Recall(NamedTuple):
    """Send RECALL, then read the worker's page and say ``recall_sent``. In this order: it makes the page a proof."""

    worker: str
    incarnation: int
    fence: int


class Interrupt(NamedTuple):
    """Tell the handler, if ``fence`` is still what the worker runs: raise in it at its ``soft_timeout``, let it know
    that it is ``cancelled``, or is to give the worker up (``preempt``). The page has shown that it has begun. At most
    one of a kind for each fence."""

    worker: str
    incarnation: int
    fence: int
    reason: str


class Inspect(NamedTuple):
    """The worker is silent: look in /proc what it does, and say ``inspected``."""

    worker: str
    incarnation: int


class Continue(NamedTuple):
    """The worker is stopped: send it SIGCONT, once."""

    worker: str
    incarnation: int


class Kill(NamedTuple):
    """End the worker and its process group. It has ``grace_s`` to tidy up, and to leave its stacks for the post-mortem;
    then, or at once where that is 0, comes SIGKILL."""

    worker: str
    incarnation: int
    reason: str
    grace_s: float


class Cap(NamedTuple):
    """The task that is started next may take so much itself; None: the limit of the worker's group is in force again.
    What is sampled from here on counts from here on, too."""

    worker: str
    incarnation: int
    limit_mb: int | None


class Weigh(NamedTuple):
    """By an estimate the worker has taken too much while it ran ``fence``. Find out for certain; then take in what it
    has written, and say ``weighed``. In this order: a task that has ended is not judged."""

    worker: str
    incarnation: int
    fence: int


class Measure(NamedTuple):
    """A task that took a while has ended: before the worker is given another, look what it holds, and say
    ``measured``."""

    worker: str
    incarnation: int


class GiveBack(NamedTuple):
    """The worker holds too much, and is idle: have it collect its garbage, and give back what is free."""

    worker: str
    incarnation: int


class Trim(NamedTuple):
    """Have the idle workers, and this process, give memory back that they do not use."""


class Spawn(NamedTuple):
    """Make a process for the slot, of this ``generation`` of the code, and of the kind that its group has."""

    worker: str
    incarnation: int
    generation: int
    group: str = REST


class Retire(NamedTuple):
    """Close the worker's task pipe: it finishes what it has begun and exits."""

    worker: str
    incarnation: int


class Forget(NamedTuple):
    """The slot is gone: release what the shell keeps for it."""

    worker: str


class Accepted(NamedTuple):
    """Of this client's submits, the first ``up_to`` are accepted (or were refused). So many bytes are the payloads of
    those, since it was last said, that this commit is to keep."""

    client: int
    up_to: int
    commit: int
    unkept_bytes: int = 0


class Finished(NamedTuple):
    """Tell a client how a task ended. ``outcome`` is the result's payload or the packed failure."""

    client: int
    task_id: bytes
    state: TaskState
    code: str
    outcome: Payload
    commit: int


class FinishedMany(NamedTuple):
    """As many ``Finished``: tasks that are completed, and of which nothing is kept."""

    client: int
    task_ids: Sequence[bytes]
    outcomes: Sequence[Payload]

    def one_by_one(self) -> list[Finished]:
        """Those."""
        return [
            Finished(self.client, id, TaskState.COMPLETED, "", outcome, 0)
            for id, outcome in zip(self.task_ids, self.outcomes, strict=True)
        ]


class Same(NamedTuple):
    """A client's submit ``task_id`` is the task ``first``, by its key. If that is ``final``, tell its outcome too."""

    client: int
    task_id: bytes
    first: bytes
    final: bool
    watch: bool
    commit: int


class Streamed(NamedTuple):
    """A stream has gone on, or has ended: say ``streams.committed``, and wake whoever waits for its chunks."""

    task_id: bytes
    commit: int


class Progressed(NamedTuple):
    """Tell a client how far a task is."""

    client: int
    task_id: bytes
    fraction: float
    message: str


class Answer(NamedTuple):
    """The answer to a request that could not be answered at once."""

    token: int
    value: Any
    commit: int


class Refusal(NamedTuple):
    """The answer to such a request that it is refused."""

    token: int
    code: str
    message: str


class Emit(NamedTuple):
    """An event for whoever listens, and for the log."""

    name: str
    fields: dict[str, Any]
    commit: int


class Reloaded(NamedTuple):
    """A roll to new code has ended. ``generation`` is what new processes are of from now on.

    With a ``failure`` that is the one from before. ``draining`` are the workers that finish something with other code
    first, and ``dropped`` is how many tasks waited whose name the new code lacks.
    """

    generation: int
    failure: str
    draining: tuple[str, ...]
    dropped: int


class Drained(NamedTuple):
    """Nothing runs any more, and nothing will."""


Effect = (
    Persist | Refill | Start | StartMany | Look | Recall | Interrupt | Inspect | Continue | Kill | Cap | Weigh | Measure
    | GiveBack | Spawn | Retire | Forget | Accepted | Finished | FinishedMany | Same | Credit | Streamed
    | Progressed | Answer | Refusal | Emit | Reloaded | Drained | Trim
)  # fmt: skip


def one_by_one(effects: Iterable[Effect]) -> list[Effect]:
    """The same, and of what is many each by itself."""
    found: list[Effect] = []
    for effect in effects:
        if isinstance(effect, (StartMany, FinishedMany)):
            found += effect.one_by_one()
        else:
            found.append(effect)
    return found
