"""What the proof ``memory-kernel`` does as root inside of a throw-away system, with a service of systemd's.

Run as ``python -m scripts.proofs.under_kernel ROUNDS``; it prints a line of JSON for each figure:
[label, value, unit, limits].
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from poolmgr import Client, TaskFailed
from poolmgr.model import AttemptInfo
from scripts.proofs.pool import HERE, until
from scripts.proofs.under_systemd import figure, holds, run, show, systemctl

UNIT: Final = "limited"
LIMIT_MB: Final = 64
WORKERS: Final = 3
SOCKET: Final = "/run/limited.sock"
PATIENCE_S: Final = 120.0  # the system inside is a slow one


def main(rounds: int) -> None:
    """Start a service, and have its tasks killed."""
    _start()
    before = show(UNIT, "MainPID")
    with Client(SOCKET) as pool:
        limits = pool.metrics()["memory_limits"]
        print(f"limits: {limits}", flush=True)
        holds("memory.max is in force", limits["cgroup_memory_max"] == "in force")
        group = Path(pool.metrics()["cgroup"])
        until(lambda: _limits_in(group) == [str(LIMIT_MB << 20)] * WORKERS, "each worker's group has it", PATIENCE_S)
        holds("each worker's group has it", True)
        _kill(pool, rounds, "a memfd that nobody maps", LIMIT_MB * 3, False)
        _kill(pool, rounds, "the same, in a child", LIMIT_MB * 3, True)
        more = pool.using(max_retries=0, memory_limit_mb=LIMIT_MB * 4, timeout_s=PATIENCE_S)
        holds("a task with a higher limit may", more.run("hog_unmapped", LIMIT_MB * 2) == LIMIT_MB * 2)
        until(lambda: _limits_in(group) == [str(LIMIT_MB << 20)] * WORKERS, "all are as they were", PATIENCE_S)
        holds("  and its worker's is as it was afterwards", True)
        small = pool.using(max_retries=0, memory_limit_mb=LIMIT_MB // 4, timeout_s=PATIENCE_S)
        attempt = _failed(pool, small.submit("hog_unmapped", LIMIT_MB // 2).id)
        holds("a task with a lower one may not", attempt.cause == "out_of_memory")
        holds("the pool answers", pool.run("square", 7, 0.0) == 49)
    holds(
        "the daemon is the same, and active", show(UNIT, "MainPID") == before and show(UNIT, "ActiveState") == "active"
    )
    systemctl("stop", UNIT)
    holds("it ends well", show(UNIT, "Result") == "success")


def _start() -> None:
    properties = ("Delegate=yes", "OOMPolicy=continue", "NotifyAccess=all", f"WorkingDirectory={HERE}")
    settings = {
        "POOLMGR_POOL_SIZE": WORKERS,
        "POOLMGR_WORKER_MEMORY_LIMIT_MB": LIMIT_MB,
        "POOLMGR_SOCKET": SOCKET,
        "POOLMGR_BREAKER_FAILURES": 0,
        "POOLMGR_STATE_DIR": "/run/limited-state",
        "PYTHONPATH": os.environ["PYTHONPATH"],
    }
    run(
        "systemd-run", f"--unit={UNIT}", "--service-type=notify", "--collect",
        *(f"--property={each}" for each in properties),
        *(f"--setenv={name}={value}" for name, value in settings.items()),
        sys.executable, "-P", "-m", "poolmgr", "start", "--foreground", "--app", "hogs",
    )  # fmt: skip


def _limits_in(group: Path) -> list[str]:
    return [(each / "memory.max").read_text().strip() for each in sorted(group.glob("worker-*"))]


def _kill(pool: Client, rounds: int, what: str, mb: int, in_child: bool) -> None:
    """Beside two others, one of which takes something, too, but not too much."""
    blamed = harmed = told = 0
    for _ in range(rounds):
        tasks = pool.using(max_retries=0, timeout_s=PATIENCE_S)
        others = [tasks.submit("crawl", LIMIT_MB // 4, 3.0), tasks.submit("square", 3, 3.0)]
        until(lambda: pool.metrics()["tasks"]["running"] == 2, "both run", PATIENCE_S)
        attempt = _failed(pool, tasks.submit("hog_unmapped", mb, in_child).id)
        blamed += attempt.cause == "out_of_memory"
        told += attempt.post_mortem is not None and attempt.post_mortem.oom_killed
        harmed += [other.result(timeout=PATIENCE_S) for other in others] != [LIMIT_MB // 4, 9]
        until(lambda: all(each.state == "ready" for each in pool.workers()), "all are ready", PATIENCE_S)
    figure(f"{what}: killed for it, and charged", blamed, at_least=rounds)
    figure("  known to be the kernel's doing", told, at_least=rounds)
    figure("  others that were harmed", harmed, at_most=0)


def _failed(pool: Client, task: str) -> AttemptInfo:
    try:
        pool.result(task, timeout=PATIENCE_S)
    except TaskFailed:
        pass
    [attempt] = pool.task(task).attempts
    print(f"{attempt.cause}: {attempt.message}", flush=True)
    return attempt


if __name__ == "__main__":
    main(int(sys.argv[1]))
