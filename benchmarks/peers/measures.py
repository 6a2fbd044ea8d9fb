"""The scenarios, in terms of what every adapter can do: the same code measures poolmgr and its peers.

Each function takes an adapter and answers with figures by name; ``seconds`` is how long it took. What it got back is
checked: a result that is wrong fails the measure.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import family
from benchmarks.pairs import percentile
from benchmarks.peers import tasks
from benchmarks.peers.adapter import PeerAdapter

Figures = dict[str, float]

CHUNK = 100
PATIENCE_S = 30.0
_STARTING_S = 150.0
_NAP_S = 0.01
_SHORT_NAP_S = 0.001
_QUEUED_BYTES = 100
_BEFORE = 20  # of so many queued tasks one is queued before memory is looked at: what is prefetched, pages at hand
_SETTLED_MB = 0.05
_LOOK_S = 0.25
_LONGER = 1.5
_LONGEST_NAP_S = 1.0


def _rate(values: list[Any], work: Callable[[list[Any]], list[Any]]) -> Figures:
    began = time.perf_counter()
    results = work(values)
    seconds = time.perf_counter() - began
    if results != values:
        raise AssertionError("wrong results")
    return {"rate": len(values) / seconds, "seconds": seconds}


def map_rate(adapter: PeerAdapter, tasks: int) -> Figures:
    """No-op tasks by map, each on its own."""
    return _rate(list(range(tasks)), adapter.map)


def submit_rate(adapter: PeerAdapter, tasks: int) -> Figures:
    """No-op tasks, each by a call of submit."""
    return _rate(list(range(tasks)), adapter.submit_all)


def chunked_rate(adapter: PeerAdapter, tasks: int) -> Figures:
    """No-op items by map, in chunks."""
    return _rate(list(range(tasks)), lambda values: adapter.map_chunked(values, CHUNK))


def latency(adapter: PeerAdapter, tasks: int) -> Figures:
    """No-op calls, one after the other."""
    began = time.perf_counter()
    taken = []
    for number in range(tasks):
        called = time.perf_counter()
        if adapter.call(number) != number:
            raise AssertionError("wrong result")
        taken.append(1e6 * (time.perf_counter() - called))
    return {"p50": percentile(taken, 50), "p99": percentile(taken, 99), "seconds": time.perf_counter() - began}


def echo_rate(adapter: PeerAdapter, tasks: int, size: int) -> Figures:
    """Large values there and back; a megabyte that went both ways counts once."""
    found = _rate([adapter.payload(size)] * tasks, adapter.map)
    return {"rate": size * found["rate"] / 1e6, "seconds": found["seconds"]}


def start(adapter: PeerAdapter, workers: int) -> Figures:
    """Start it. It is there when each worker has run a task."""
    began = time.perf_counter()
    adapter.start(workers)
    seconds = _see(workers, adapter, _NAP_S, "not all workers have run a task", _STARTING_S) - began
    return {"cold start": seconds, "idle memory": family.pss_mb(family.descendants(os.getpid())), "seconds": seconds}


def _see(enough: int, adapter: PeerAdapter, nap_s: float, otherwise: str, patience_s: float = PATIENCE_S) -> float:
    """Have as many short tasks under way as there are workers, until so many processes have been seen to run one; when
    that was. Returns once nothing is under way.

    They become longer, since a peer that hands them out slowly keeps only a few workers busy with short ones.
    """
    give_up_at = time.monotonic() + patience_s
    handles = deque(adapter.submit(tasks.nap, nap_s) for _ in range(adapter.workers))
    ended = 0
    while len(adapter.seen) < enough:
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{otherwise} within {patience_s:g} s")
        adapter.seen.add(adapter.worker_of(adapter.result(handles.popleft(), patience_s)))
        ended += 1
        if ended % adapter.workers == 0:
            nap_s = min(_LONGEST_NAP_S, nap_s * _LONGER)
        handles.append(adapter.submit(tasks.nap, nap_s))
    found = time.perf_counter()
    for handle in handles:
        adapter.seen.add(adapter.worker_of(adapter.result(handle, patience_s)))
    return found


def queue_memory(adapter: PeerAdapter, tasks_at_most: int, seconds: float) -> Figures:
    """Memory of a task that waits. The pool is of no more use afterwards."""
    release = adapter.directory / "release"
    for _ in range(2 * adapter.workers):
        adapter.submit(tasks.wait, str(release))
    payload = adapter.payload(_QUEUED_BYTES)
    for _ in range(tasks_at_most // _BEFORE):
        adapter.submit(tasks.echo, payload)
    adapter.flush()
    before = _settled_mb(adapter)
    began = time.perf_counter()
    queued = 0
    while queued < tasks_at_most and (queued < tasks_at_most // 10 or time.perf_counter() - began < seconds):
        adapter.submit(tasks.echo, payload)
        queued += 1
    adapter.flush()
    grown = _settled_mb(adapter) - before
    if grown <= 0:
        raise RuntimeError(f"what {queued} tasks took was too little to be seen")
    return {"memory": grown * 2**20 / queued, "queued": queued, "seconds": time.perf_counter() - began}


def _settled_mb(adapter: PeerAdapter) -> float:
    """The memory of all that may hold a queue, once it has stopped growing."""
    size_mb, earlier_mb = 0.0, -1.0
    give_up_at = time.monotonic() + PATIENCE_S
    while abs(size_mb - earlier_mb) > _SETTLED_MB and time.monotonic() < give_up_at:
        time.sleep(_LOOK_S)
        pids = family.descendants(os.getpid())
        pids += [os.getpid()] if adapter.queue_in_caller else []
        earlier_mb, size_mb = size_mb, family.pss_mb(pids, files=False)
    return size_mb


def kill_recovery(adapter: PeerAdapter, number: int) -> Figures:
    """Kill a busy worker, and see a new one work. ``number`` tells one kill of a pool from the next."""
    began_file = adapter.directory / f"stay-{number}"
    adapter.submit(tasks.stay, str(began_file))
    victim = adapter.worker_of([int(each) for each in _read(began_file).split()])
    before = len(adapter.seen | {victim})
    adapter.seen.add(victim)
    began = time.perf_counter()
    os.kill(victim, signal.SIGKILL)
    seconds = _see(before + 1, adapter, _SHORT_NAP_S, "no new worker has run a task") - began
    return {"recovery": 1000 * seconds, "seconds": seconds}


def _read(file: Path) -> str:
    give_up_at = time.monotonic() + PATIENCE_S
    while not file.exists():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"no task began within {PATIENCE_S:g} s")
        time.sleep(_SHORT_NAP_S)
    return file.read_text()


MEASURES: dict[str, Callable[..., Figures]] = {
    each.__name__: each
    for each in (map_rate, submit_rate, chunked_rate, latency, echo_rate, start, queue_memory, kill_recovery)
}
