"""What poolmgr's workers run: the functions of tasks.py, as handlers."""

from __future__ import annotations

from benchmarks.peers import tasks
from poolmgr import task

for function in tasks.ALL:
    task(function)
