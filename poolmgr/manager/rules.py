"""The rules that a worker keeps (docs/protocol.md), each as a trial that finds out whether one does.

Each rule gets a fresh process. Most need no task that the worker knows: also how it answers one that it does not know
tells much. ``quick`` is any task that succeeds, ``slow`` one that takes a while (0.3 s to 5 s). Those of streams are in
stream_rules.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import msgpack

from poolmgr.manager.known import Known, Skipped
from poolmgr.manager.stream_rules import STREAM_RULES
from poolmgr.manager.trial import HEARTBEAT_S, NO_SUCH_JOB, UNKNOWN, Job, Trial, Violation, start
from poolmgr.wire.framing import encode
from poolmgr.wire.messages import COLLECT, DONE, INTERRUPT, RAISED, RECALL

_NEVER_SENT: Final = 99  # a number that no message has
_BIG_BYTES: Final = 2 << 20
_UNREADABLE: Final = b"\xc1"
# The page is written before the handler runs. The manager recalls only behind what has run for 10 ms, and interrupts
# only where a time-out is over.
_UNDER_WAY_S: Final = 0.1


class Verdict(NamedTuple):
    """What was found of one rule: ``kept``, ``violated`` or ``skipped``, and the reason of the latter two."""

    rule: str
    section: str  # of docs/protocol.md
    outcome: str
    reason: str = ""
    output: str = ""  # what the worker has printed


def is_ready(worker: Trial, known: Known) -> None:
    worker.ready()


def beats(worker: Trial, known: Known) -> None:
    worker.ready()
    worker.beats(3, "while it waits")


def beats_while_busy(worker: Trial, known: Known) -> None:
    slow = known.need_slow()
    worker.ready()
    [fence] = worker.start(slow)
    worker.await_page(fence)
    worker.heard()
    _, _, begun_at, ended_at, *_ = worker.answer(fence)
    heard, due = worker.heard(), (ended_at - begun_at) / HEARTBEAT_S
    if heard < max(2.0, due / 3):
        raise Violation(f"{heard} heartbeats while a task ran for {ended_at - begun_at:.2f} s; {due:.0f} were due")


def refuses_what_it_does_not_know(worker: Trial, known: Known) -> None:
    worker.ready()
    [fence] = worker.start(NO_SUCH_JOB)
    _fails(worker, fence, "unknown_task")


def refuses_what_it_cannot_read(worker: Trial, known: Known) -> None:
    name = known.quick.name if known.quick is not None else UNKNOWN
    worker.ready()
    for payload in (_UNREADABLE, msgpack.packb(7)):
        [fence] = worker.start(Job(name, payload))
        _fails(worker, fence, "bad_arguments" if known.quick is not None else "unknown_task")


def returns_a_result(worker: Trial, known: Known) -> None:
    quick = known.need_quick()
    worker.ready()
    for _ in range(3):
        [fence] = worker.start(quick)
        answer = worker.answer(fence)
        if answer[0] != DONE:
            raise Violation(f"{quick.name} has failed: {answer[4]}, {msgpack.unpackb(answer[6])}")
        try:
            msgpack.unpackb(answer[4], ext_hook=lambda code, data: None, strict_map_key=False)
        except Exception:
            raise Violation(f"the payload of DONE is not one MessagePack value: {answer[4][:80]!r}") from None


def keeps_the_order(worker: Trial, known: Known) -> None:
    worker.ready()
    for fence in worker.start(*[known.quick or NO_SUCH_JOB] * 8):
        worker.answer(fence)


def takes_many(worker: Trial, known: Known) -> None:
    if worker.ready()[4] is not True:
        raise Skipped('its READY does not say {"many": true}')
    job = known.quick or NO_SUCH_JOB
    payloads = [job.payload] * 3 + [_UNREADABLE] + [job.payload] * 4  # each is to have its own
    for number, fence in enumerate(worker.start_many(job.name, payloads)):
        if known.quick is None:
            _fails(worker, fence, "unknown_task")
        elif number == 3:
            _fails(worker, fence, "bad_arguments")
        elif (answer := worker.answer(fence))[0] != DONE:
            raise Violation(f"{job.name} has failed beside others: {answer[4]}, {msgpack.unpackb(answer[6])}")
    if known.slow is not None:
        [running] = worker.start(known.slow)
        _recalls(worker, running, worker.start_many(NO_SUCH_JOB.name, [NO_SUCH_JOB.payload] * 3))


def shows_what_it_begins(worker: Trial, known: Known) -> None:
    worker.ready()
    for _ in range(3):
        [fence] = worker.start(known.quick or NO_SUCH_JOB)
        begun_at = worker.answer(fence)[2]
        seen, seen_at = worker.page.read()
        if seen != fence:
            raise Violation(f"the page shows {seen} after fence {fence} has run")
        if seen_at != begun_at:
            raise Violation(f"the page says that it began at {seen_at}, the answer says {begun_at}")
    if any(worker.page.fence[2:]):
        raise Violation("it writes to the page beyond its first two words")


def reads_in_pieces(worker: Trial, known: Known) -> None:
    worker.ready()
    fence = worker.next_fence()
    data = encode([_NEVER_SENT, "of a later version"]) + start(fence, NO_SUCH_JOB)
    for piece in (data[:5], data[5:40], data[40:]):
        worker.write(piece)
        worker.beats(1, "between two pieces of a message")  # so that they are read one by one
    worker.answer(fence)


def reads_much(worker: Trial, known: Known) -> None:
    worker.ready()
    [fence] = worker.start(Job(UNKNOWN, msgpack.packb([[b"x" * _BIG_BYTES]])))
    worker.answer(fence)


def bears_being_told(worker: Trial, known: Known) -> None:
    worker.ready()
    [fence] = worker.start(known.quick or NO_SUCH_JOB)
    kind = worker.answer(fence)[0]
    for message in ([COLLECT], [INTERRUPT, fence, "soft_timeout"], [INTERRUPT, fence, "cancelled"], [_NEVER_SENT]):
        worker.tell(message, interrupt=True)
        worker.beats(2, f"after it was told {message}")
        [fence] = worker.start(known.quick or NO_SUCH_JOB)
        if worker.answer(fence)[0] != kind:
            raise Violation(f"it was told {message}, and that has struck the next task")


def is_not_struck_late(worker: Trial, known: Known) -> None:
    slow = known.need_slow()
    worker.ready()
    [earlier] = worker.start(NO_SUCH_JOB)
    worker.answer(earlier)
    [fence] = worker.start(slow)
    worker.await_page(fence)
    worker.tell([INTERRUPT, earlier, "soft_timeout"], interrupt=True)
    if worker.answer(fence)[0] != DONE:
        raise Violation("an interrupt for an earlier fence has struck the task that runs")


def is_interrupted(worker: Trial, known: Known) -> None:
    slow = known.need_slow()
    worker.ready()
    [fence] = worker.start(slow)
    worker.await_page(fence)
    time.sleep(_UNDER_WAY_S)
    worker.tell([INTERRUPT, fence, "soft_timeout"], interrupt=True)
    answer = worker.answer(fence)
    if answer[0] == RAISED and answer[4] != "timeout":
        raise Violation(f"the code of an interrupted task is {answer[4]!r}, not 'timeout'")
    [following] = worker.start(NO_SUCH_JOB)
    worker.answer(following)


def gives_back(worker: Trial, known: Known) -> None:
    slow = known.need_slow()
    worker.ready()
    running, *waiting = worker.start(slow, *[NO_SUCH_JOB] * 3)
    _recalls(worker, running, waiting)


def _recalls(worker: Trial, running: int, waiting: list[int]) -> None:
    worker.await_page(running)
    time.sleep(_UNDER_WAY_S)
    worker.tell([RECALL, waiting[-1]])
    worker.gives_back(running, set(waiting))
    if worker.page.read()[0] in waiting:
        raise Violation(f"the page shows {worker.page.read()[0]}, which was recalled")
    [following] = worker.start(NO_SUCH_JOB)
    worker.answer(following)


def goes(worker: Trial, known: Known) -> None:
    worker.ready()
    fences = worker.start(*[known.quick or NO_SUCH_JOB] * 3)
    worker.close_tasks()
    for fence in fences:
        worker.answer(fence)
    if (how := worker.end()) != "exit code 0":
        raise Violation(f"its task pipe has ended, and so should it, with exit code 0: {how}")
    worker.silent()
    if worker.left:
        raise Violation(f"it leaves processes behind: {worker.left}")


def finishes_first(worker: Trial, known: Known) -> None:
    slow = known.need_slow()
    worker.ready()
    [fence] = worker.start(slow)
    worker.await_page(fence)
    worker.close_tasks()
    worker.answer(fence)
    if (how := worker.end()) != "exit code 0":
        raise Violation(f"its task pipe has ended, and so should it, with exit code 0: {how}")


def _fails(worker: Trial, fence: int, code: str) -> None:
    answer = worker.answer(fence)
    if answer[0] != RAISED:
        raise Violation(f"fence {fence} is to fail, {code}, but it answers DONE")
    if answer[4] != code:
        raise Violation(f"the code is {answer[4]!r}, not {code!r}")


RULES: Final[dict[str, tuple[str, Callable[[Trial, Known], None]]]] = {
    "READY comes first": ("its-life", is_ready),
    "its heart beats": ("tasks", beats),
    "an unknown task fails": ("tasks", refuses_what_it_does_not_know),
    "arguments that cannot be read fail": ("tasks", refuses_what_it_cannot_read),
    "a task returns its result": ("tasks", returns_a_result),
    "tasks run in their order": ("tasks", keeps_the_order),
    "many tasks may come in one message": ("tasks", takes_many),
    "the page shows what was begun": ("the-shared-page", shows_what_it_begins),
    "messages may come in pieces": ("framing-and-limits", reads_in_pieces),
    "messages may be large": ("framing-and-limits", reads_much),
    "what it is told does not end it": ("interrupts", bears_being_told),
    "its heart beats while a task runs": ("tasks", beats_while_busy),
    "a late interrupt strikes nobody": ("interrupts", is_not_struck_late),
    "an interrupted task ends by time-out": ("interrupts", is_interrupted),
    "what is recalled does not run": ("recall", gives_back),
    "it goes when its tasks end": ("its-life", goes),
    "it finishes what it has begun": ("its-life", finishes_first),
    **STREAM_RULES,
}


def try_rules(command: Sequence[str], known: Known, patience_s: float, only: str = "") -> Iterator[Verdict]:
    """The verdict on each rule in whose name ``only`` occurs. A worker that is never ready is tried no further."""
    for name, (section, rule) in RULES.items():
        if only not in name:
            continue
        with Trial(command, patience_s) as worker:
            try:
                rule(worker, known)
            except Skipped as why:
                yield Verdict(name, section, "skipped", str(why))
            except Violation as what:
                yield Verdict(name, section, "violated", str(what), worker.output())
                if rule is is_ready:
                    return
            else:
                yield Verdict(name, section, "kept")
