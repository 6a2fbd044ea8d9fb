"""What the peers with the interface of ``concurrent.futures`` have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from benchmarks.peers import adapter, tasks


class ExecutorAdapter(adapter.PeerAdapter):
    """``_executor`` is made by ``_start``."""

    cannot = adapter.NOT_DURABLE
    queue_in_caller = True
    _executor: Executor

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._executor.submit(function, *arguments)

    def result(self, handle: Any, timeout_s: float) -> Any:
        return handle.result(timeout_s)

    def map(self, values: Sequence[Any]) -> list[Any]:
        return list(self._executor.map(tasks.echo, values))

    def map_chunked(self, values: Sequence[Any], size: int) -> list[Any]:
        return list(self._executor.map(tasks.echo, values, chunksize=size))
