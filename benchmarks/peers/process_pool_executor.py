"""concurrent.futures.ProcessPoolExecutor, of the standard library."""

from __future__ import annotations

import platform
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.peers.executor import ExecutorAdapter


class Adapter(ExecutorAdapter):
    """Forked, which is the fastest of its start methods in every respect, and Linux's default up to Python 3.13.

    Its end is left to the kill that follows: its own waits for all that runs.
    """

    about = f"ProcessPoolExecutor of Python {platform.python_version()}: fork; map, submit; map in chunks"

    def _start(self, workers: int) -> None:
        self._executor = ProcessPoolExecutor(workers, mp_context=get_context("fork"))
