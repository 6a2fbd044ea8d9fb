"""dask.distributed, on one machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask.bag
import distributed

from benchmarks.peers import adapter, tasks


class Adapter(adapter.PeerAdapter):
    """A LocalCluster of processes with one thread each, without its dashboard."""

    about = (
        f"dask.distributed {distributed.__version__}: LocalCluster, one thread a process, no dashboard; chunks by "
        f"dask.bag; {adapter.PROCESSORS} processes where speed counts"
    )
    cannot = adapter.NOT_DURABLE
    fastest = adapter.PROCESSORS
    queue_in_caller = True  # its scheduler is in the process that makes the cluster

    def _start(self, workers: int) -> None:
        self._cluster = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, local_directory=str(self.directory)
        )
        self._client = distributed.Client(self._cluster)
        self._waiting: list[Any] = []

    def stop(self) -> None:
        if self.workers:
            self._client.close()
            self._cluster.close()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        handle = self._client.submit(function, *arguments, pure=False)
        if function is not tasks.nap:
            self._waiting.append(handle)  # a future that nobody holds is a task that is cancelled
        return handle

    def result(self, handle: Any, timeout_s: float) -> Any:
        return handle.result(timeout_s)

    def submit_all(self, values: Sequence[Any]) -> list[Any]:
        handles = [self._client.submit(tasks.echo, value, pure=False) for value in values]
        return list(self._client.gather(handles))

    def map(self, values: Sequence[Any]) -> list[Any]:
        return list(self._client.gather(self._client.map(tasks.echo, values, pure=False)))

    def map_chunked(self, values: Sequence[Any], size: int) -> list[Any]:
        chunks = dask.bag.from_sequence(values, partition_size=size).map(tasks.echo)
        return list(self._client.compute(chunks).result())

    def call(self, value: Any) -> Any:
        return self._client.submit(tasks.echo, value, pure=False).result()
