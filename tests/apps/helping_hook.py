"""An app whose workers keep a helper process."""

from __future__ import annotations

import subprocess

from poolmgr import worker_startup


@worker_startup
def start_helper() -> None:
    subprocess.Popen(["sleep", "1000"])
