"""loky, which is joblib's."""

from __future__ import annotations

import loky

from benchmarks.peers.executor import ExecutorAdapter


class Adapter(ExecutorAdapter):
    """Its own start method: a fresh interpreter each, which is what it is chosen for."""

    about = f"loky {loky.__version__}: ProcessPoolExecutor, its start method; map, submit; map in chunks"

    def _start(self, workers: int) -> None:
        self._executor = self._loky = loky.ProcessPoolExecutor(workers)

    def stop(self) -> None:
        if self.workers:
            self._loky.shutdown(kill_workers=True)
