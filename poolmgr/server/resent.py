"""Submits that may have been made before, on another connection: the store knows."""

from __future__ import annotations

from typing import Any

from poolmgr.core.intake import Intake
from poolmgr.errors import OutcomeUnknown, StoreUnavailable
from poolmgr.manager.lookups import Found, LookUps
from poolmgr.model import FINAL


async def look_up(look_ups: LookUps, ids: list[bytes]) -> Found | StoreUnavailable:
    """What the store has of these, or why it does not tell. Those that wait are in memory then."""
    try:
        while True:
            found = await look_ups.records(ids)
            waiting = [record for record in found.records.values() if record.state not in FINAL]
            if None not in [look_ups.take(record) for record in waiting]:
                return found  # else one has ended since it was read, and is not to be taken for a new one: look again
    except StoreUnavailable as error:
        return error


def is_known(intake: Intake, client: int, message: list[Any], found: Found | StoreUnavailable) -> bool:
    """Whether a SUBMIT of an id that no live task has is one that has ended; then it has had its answer. It was not
    taken since the store was asked (server/submits.py).

    Raises:
        IdConflict: the id is another's.
        OutcomeUnknown: whether it was run cannot be told.
        StoreUnavailable: not now.
    """
    _, task_id, name, payload, _, watch, *_ = message
    if isinstance(found, StoreUnavailable):
        intake.refused(client)
        raise found
    record = found.records.get(task_id)
    if record is not None and record.state in FINAL:
        intake.known(record, name, payload, client, watch)
        return True
    if task_id <= found.forgotten or task_id in found.taken:
        intake.refused(client)
        raise OutcomeUnknown(
            f"task {task_id.hex()} is not remembered (any longer), and may have been run: whether it was cannot be told"
        )
    return False
