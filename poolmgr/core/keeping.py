"""Keeping durable streams: what the store is told of them, and who hears of the commit."""

from __future__ import annotations

from poolmgr.core.changes import ChunkAdded
from poolmgr.core.effects import Streamed
from poolmgr.core.state import State
from poolmgr.core.stream import Stream


def keep(state: State, stream: Stream, change: ChunkAdded) -> None:
    """Have this kept of a task's stream."""
    commit = state.streamed(change)
    if stream.in_commit(commit):
        state.effects.append(Streamed(change.id, commit))


def keep_checkpoint(state: State, task_id: bytes, stream: Stream) -> None:
    """Have its newest checkpoint kept, if the store was not told of it."""
    if stream.unkept_checkpoint:
        stream.unkept_checkpoint = False
        keep(state, stream, ChunkAdded(task_id, stream.first, None, stream.checkpoint))
