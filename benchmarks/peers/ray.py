"""Ray, on one machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from benchmarks.peers import adapter, tasks

_STORE_BYTES = 512 << 20


class Adapter(adapter.PeerAdapter):
    """A local cluster with as many processors as there are to be workers, without its dashboard."""

    about = (
        f"Ray {ray.__version__}: local cluster, no dashboard, object store of 512 MiB; "
        f"{adapter.PROCESSORS} processors where speed counts"
    )
    cannot = adapter.NO_CHUNKS | adapter.NOT_DURABLE
    fastest = adapter.PROCESSORS
    queue_in_caller = True

    def _start(self, workers: int) -> None:
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=_STORE_BYTES,
            _temp_dir=str(self.directory),
        )
        self._functions = {function: ray.remote(function) for function in tasks.ALL}

    def stop(self) -> None:
        if self.workers:
            ray.shutdown()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._functions[function].remote(*arguments)

    def result(self, handle: Any, timeout_s: float) -> Any:
        return ray.get(handle, timeout=timeout_s)
