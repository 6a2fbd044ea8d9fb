"""An app whose code has a schedule."""

from __future__ import annotations

from poolmgr import Timing, task


@task(schedule=Timing(every_s=0.1))
def beat() -> None:
    pass
