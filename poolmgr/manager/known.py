"""The tasks that a worker on trial is said to know (rules.py)."""

from __future__ import annotations

from typing import NamedTuple

from poolmgr.manager.trial import Job


class Known(NamedTuple):
    """Each is None where nobody has named one."""

    quick: Job | None
    slow: Job | None
    stream: Job | None

    def need_quick(self) -> Job:
        return _needed(self.quick, "--task")

    def need_slow(self) -> Job:
        return _needed(self.slow, "--slow")

    def need_stream(self) -> Job:
        return _needed(self.stream, "--stream")


class Skipped(Exception):
    """The rule cannot be tried without a task that the worker knows."""


def _needed(job: Job | None, option: str) -> Job:
    if job is None:
        raise Skipped(f"needs {option}")
    return job
