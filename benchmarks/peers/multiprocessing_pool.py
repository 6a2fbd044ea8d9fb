"""multiprocessing.Pool, of the standard library."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import Any

from benchmarks.peers import adapter, tasks


class Adapter(adapter.PeerAdapter):
    """Forked, which is the fastest of its start methods in every respect, and Linux's default up to Python 3.13."""

    about = f"multiprocessing.Pool of Python {platform.python_version()}: fork; imap, apply_async, apply; map in chunks"
    cannot = adapter.NOT_DURABLE
    queue_in_caller = True

    def _start(self, workers: int) -> None:
        self._pool = get_context("fork").Pool(workers)

    def stop(self) -> None:
        if self.workers:
            self._pool.terminate()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.apply_async(function, arguments)

    def result(self, handle: Any, timeout_s: float) -> Any:
        return handle.get(timeout_s)

    def map(self, values: Sequence[Any]) -> list[Any]:
        return list(self._pool.imap(tasks.echo, values))

    def map_chunked(self, values: Sequence[Any], size: int) -> list[Any]:
        return self._pool.map(tasks.echo, values, chunksize=size)

    def call(self, value: Any) -> Any:
        return self._pool.apply(tasks.echo, (value,))
