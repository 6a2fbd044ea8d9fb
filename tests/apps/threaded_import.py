"""An app that starts a thread when it is imported, and so cannot be forked."""

from __future__ import annotations

import os
import threading

from poolmgr import task

threading.Thread(target=threading.Event().wait, name="metrics", daemon=True).start()


@task
def threads() -> tuple[int, list[str]]:
    return os.getpid(), [thread.name for thread in threading.enumerate()]
