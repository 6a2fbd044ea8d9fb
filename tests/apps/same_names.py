"""An app with two handlers of one name."""

from __future__ import annotations

from poolmgr import task


@task
def resize() -> None: ...


@task(name="resize")
def _another() -> None: ...
