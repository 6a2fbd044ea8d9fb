"""How much memory the pool takes at most, under each load of this directory's README.

    python measure.py [pooled | normal | chunked | shedding] [--json]

starts a daemon with poolmgr.toml on a socket of its own, gives it the load, and adds up what all its processes have,
every 20 ms: their own share of memory (PSS), and the files in memory in which large arguments travel.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from poolmgr import Client, TaskFuture
from poolmgr.errors import TaskShed

HERE: Final = Path(__file__).resolve().parent
_KB: Final = 1024
_MB: Final = 1 << 20
_LOOK_S: Final = 0.020


class Load(NamedTuple):
    """So many runs of an agent, each with so much context and so large a prompt, as fast as the queue takes them."""

    runs: int
    context_mb: int
    promised_mb: int  # that it takes at most
    prompt_mb: int = 10
    step_s: float = 1.0
    chunks: int = 0  # that each run sends; 0: it is one step, and sends none
    chunk_mb: int = 0
    heartbeats: bool = False


LOADS: Final = {
    # Two workers near their limit, and a queue full of large prompts.
    "pooled": Load(runs=9, context_mb=360, promised_mb=978),
    # Two agents of the usual size, and heartbeats between them.
    "normal": Load(runs=9, context_mb=190, promised_mb=628, heartbeats=True),
    # Two agents that work in steps of 50 MB, whose chunks are read as they come.
    "chunked": Load(runs=9, context_mb=50, promised_mb=428, step_s=0.1, chunks=20, chunk_mb=5),
    # Two workers near their limit, and the host is short of memory: after one of them has given way.
    "shedding": Load(runs=2, context_mb=360, promised_mb=478, step_s=0.4, chunks=12),
}


class Found(NamedTuple):
    """What was measured, in megabytes; ``runs`` that ended well."""

    peak_mb: float
    idle_mb: float
    daemon_mb: float
    worker_mb: float  # the largest of them
    runs: int
    waited: int  # places in the queue that were taken, at most


@contextmanager
def daemon(**settings: object) -> Iterator[tuple[str, int]]:
    """A daemon of this directory's settings, but for these: its socket and process id."""
    with tempfile.TemporaryDirectory(prefix="pm-") as directory:
        socket = f"{directory}/s"
        command = [sys.executable, "-m", "poolmgr", "start", "--foreground", "--config", str(HERE / "poolmgr.toml")]
        command += ["--socket", socket, "--state-dir", f"{directory}/state"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("POOLMGR_")}
        environ |= {f"POOLMGR_{name.upper()}": str(value) for name, value in settings.items()}
        process = subprocess.Popen(command, cwd=HERE, env=environ, stderr=subprocess.DEVNULL)
        try:
            _wait_for(socket, process)
            yield socket, process.pid
        finally:
            process.terminate()
            process.wait()


def _wait_for(socket: str, process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + 30
    while time.monotonic() < give_up_at and process.poll() is None:
        if os.path.exists(socket):
            with Client(socket) as pool:
                if pool.health()["status"] == "healthy":
                    return
        time.sleep(_LOOK_S)
    raise SystemExit("the daemon did not start: run `poolmgr start --foreground --config poolmgr.toml` to see why")


class Memory:
    """Looks at a daemon and its children again and again, in a thread."""

    def __init__(self, daemon: int) -> None:
        self.peak = self.daemon_peak = self.worker_peak = 0
        self._daemon = daemon
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look_again, daemon=True)
        self.now = self._look()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _look_again(self) -> None:
        while not self._stopped.wait(_LOOK_S):
            self._look()

    def _look(self) -> int:
        """The bytes of all of them. Pages of files in memory count once, whoever has them open or mapped."""
        total, files = 0, {}
        for pid in (self._daemon, *_children(self._daemon)):
            own = _own_bytes(pid)
            files.update(_memory_files(pid))
            if pid == self._daemon:
                self.daemon_peak = max(self.daemon_peak, own)
            else:
                self.worker_peak = max(self.worker_peak, own)
            total += own
        total += sum(files.values())
        self.peak = max(self.peak, total)
        return total


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _own_bytes(pid: int) -> int:
    """Its share of all memory that is no file in memory. Nothing of a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    sizes = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    return (sizes["Pss_Anon:"] + sizes["Pss_File:"]) * _KB


def _memory_files(pid: int) -> dict[int, int]:
    """The bytes of each file in memory that it has open, by inode."""
    found = {}
    try:
        for each in os.scandir(f"/proc/{pid}/fd"):
            if os.readlink(each.path).startswith("/memfd:"):
                status = os.stat(each.path)
                found[status.st_ino] = status.st_blocks * 512
    except OSError:
        pass
    return found


def measure(load: Load) -> Found:
    """Run one load."""
    with daemon() as (socket, pid), Client(socket) as pool, ThreadPoolExecutor(load.runs) as threads:
        memory = Memory(pid)
        runs, depth = [], 0
        for _ in range(load.runs):
            run = _submit(pool, load)
            runs.append(threads.submit(_read, run, load))
            if load.heartbeats:
                pool.using(durable=False).submit("heartbeat")  # refused while the queue is full: then it is left out
            depth = max(depth, pool.metrics()["queue"]["depth"])
        ended = sum(run.result() for run in runs)
        memory.stop()
        return _found(memory, ended, depth)


def measure_shedding(load: Load) -> Found:
    """Two agents run, that is more than this host has; what is had once one of them has given way, until it goes on.

    A host of more than a gigabyte is made short of memory by thresholds just above what is in use.
    """
    with daemon(memory_thresholds=_thresholds(load)) as (socket, pid), Client(socket) as pool:
        memory = Memory(pid)
        with pool.events("task-preempted") as events:
            runs = [_submit(pool, load) for _ in range(load.runs)]
            preempted = next(events).fields["task_id"]
        beats = [pool.using(durable=False).submit("heartbeat") for _ in range(3)]
        while any(worker.state not in ("ready", "busy") for worker in pool.workers()):  # one has ended, with its memory
            time.sleep(_LOOK_S)
        memory.peak = 0
        depth = pool.metrics()["queue"]["depth"]
        while pool.task(preempted).state == "queued":
            time.sleep(_LOOK_S)
        memory.stop()
        shed = sum(isinstance(beat.exception(timeout=60), TaskShed) for beat in beats)
        ended = sum(_read(run, load) for run in runs)
        if shed < len(beats):
            raise SystemExit(f"memory was short, and {shed} of {len(beats)} heartbeats were shed")
        return _found(memory, ended, depth)


def _thresholds(load: Load) -> str:
    """Such that one agent of this load is not too much, and two are."""
    with daemon() as (socket, _), Client(socket) as pool:
        percent = pool.status()["memory"]["percent"]
    total_mb = psutil.virtual_memory().total / _MB
    if total_mb <= 1024:
        return "70,85,95"
    one = 100 * load.context_mb / total_mb
    critical = math.ceil(percent + 1.2 * one)
    if critical > percent + 1.9 * one:
        raise SystemExit(f"shedding cannot be shown here: of {total_mb:,.0f} MB, two agents are too small a part")
    return f"{critical - 1},{critical},99"


def _submit(pool: Client, load: Load) -> TaskFuture[Any]:
    """Hand one run over; wait for room in the queue."""
    prompt = os.urandom(load.prompt_mb * _MB)
    patient = pool.using(block=True)
    if load.chunks:
        return patient.submit("agent_in_chunks", prompt, load.context_mb, load.chunks, load.chunk_mb, load.step_s)
    return patient.submit("agent_run", prompt, load.context_mb, load.step_s)


def _read(run: TaskFuture[Any], load: Load) -> bool:
    """Read a run to its end; whether all is there."""
    if load.chunks:
        return [len(chunk) for chunk in run] == [load.chunk_mb * _MB] * load.chunks
    return bool(run.result() == load.context_mb + load.prompt_mb)


def _found(memory: Memory, ended: int, depth: int) -> Found:
    return Found(memory.peak / _MB, memory.now / _MB, memory.daemon_peak / _MB, memory.worker_peak / _MB, ended, depth)


def main(words: list[str]) -> None:
    """Measure the loads that are named, or all."""
    names = [word for word in words if word in LOADS] or list(LOADS)
    for name in names:
        load = LOADS[name]
        found = measure_shedding(load) if name == "shedding" else measure(load)
        if "--json" in words:
            print(json.dumps({"load": name, "promised_mb": load.promised_mb, "asked": load.runs, **found._asdict()}))
        else:
            print(
                f"{name}: {found.peak_mb:.0f} MB at most, of {load.promised_mb} (idle {found.idle_mb:.0f}, the daemon "
                f"{found.daemon_mb:.0f}, a worker {found.worker_mb:.0f}); {found.runs} of {load.runs} runs ended well, "
                f"{found.waited} waited at a time"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
