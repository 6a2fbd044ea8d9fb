"""What waits for a commit, and in which order it comes out."""

from __future__ import annotations

from poolmgr.core.effects import Accepted, Answer, Start
from poolmgr.manager.outbox import Outbox


def _start(commit: int) -> Start:
    return Start("worker-0", 1, commit, b"i" * 16, 1, "work", b"", None, None, commit)


def test_what_waits_comes_out_with_its_commit_in_order() -> None:
    outbox = Outbox()
    late, first, second = Accepted(1, 3, 2), Accepted(1, 1, 1), Accepted(1, 2, 1)
    for effect in (late, first, second):
        outbox.hold(effect)
    assert outbox.release(1) == [first, second]
    assert outbox.release(2) == [late]
    assert len(outbox) == 0


def test_starts_that_are_dropped_are_not_made_and_all_else_is_told() -> None:
    outbox = Outbox()
    answer, accepted = Answer(1, True, 1), Accepted(1, 1, 2)
    for effect in (_start(1), answer, accepted, _start(2)):
        outbox.hold(effect)
    outbox.drop_starts()
    assert outbox.release(2) == [answer, accepted]
