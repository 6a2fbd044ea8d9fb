"""pebble's ProcessPool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from multiprocessing import get_context
from typing import Any

from pebble import ProcessPool

from benchmarks.peers import adapter, tasks


class Adapter(adapter.PeerAdapter):
    """Forked, which is the fastest of its start methods."""

    about = f"pebble {version('pebble')}: ProcessPool, fork; map, schedule; map in chunks"
    cannot = adapter.NOT_DURABLE
    queue_in_caller = True

    def _start(self, workers: int) -> None:
        self._pool = ProcessPool(workers, context=get_context("fork"))

    def stop(self) -> None:
        if self.workers:
            self._pool.stop()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.schedule(function, args=arguments)

    def result(self, handle: Any, timeout_s: float) -> Any:
        return handle.result(timeout_s)

    def map(self, values: Sequence[Any]) -> list[Any]:
        return list(self._pool.map(tasks.echo, values).result())

    def map_chunked(self, values: Sequence[Any], size: int) -> list[Any]:
        return list(self._pool.map(tasks.echo, values, chunksize=size).result())
