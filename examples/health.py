"""How the pool is: healthy, degraded, healthy again. Run it with: python examples/health.py"""

from __future__ import annotations

import os
import signal

from private_daemon import private_daemon

from poolmgr import Client, task


@task
def square(number: int) -> int:
    return number * number


def show(pool: Client) -> None:
    health = pool.health()
    workers = health["workers"]
    print(
        f"{health['status']}: capacity {health['capacity']:.0%}, {workers['healthy']} of {workers['total']} workers "
        f"healthy, {len(health['alerts'])} alerts"
    )


def main() -> None:
    # A worker that dies before it was of any use is replaced after a pause, here of half a second, not at once:
    # its slot might be broken. One that has worked is replaced within milliseconds.
    with private_daemon(app="health", restart_cooldown_s=0.5) as socket, Client(socket) as pool:
        show(pool)

        with pool.events("worker-exited", "worker-started") as events:
            for worker in pool.workers()[:2]:
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
            replaced = 0
            while replaced < 2:
                event = next(events)
                print(f"  {event.name}: {event.fields['worker_id']}, pid {event.fields['pid']}")
                show(pool)
                replaced += event.name == "worker-started"

        # The figures behind it. `poolmgr status` shows the same to people, `poolmgr status --json` to programs.
        list(pool.map(square, range(1_000)))
        metrics = pool.metrics()
        tasks, speed = metrics["tasks"], metrics["performance"]
        print(f"{tasks['completed']:,} tasks completed, {tasks['dead']} dead, {metrics['queue']['depth']} waiting")
        print(f"worker reuse {speed['worker_reuse_rate']:.3f}, median run {speed['run_s']['p50'] * 1e6:.0f} us")


if __name__ == "__main__":
    main()
