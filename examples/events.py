"""Watch what happens while it happens. Run it with: python examples/events.py"""

from __future__ import annotations

from private_daemon import private_daemon

from poolmgr import Client, current_task, task

CUPS = 3


@task(retry_backoff_s=0.1)
def brew(cup: int) -> str:
    """Makes a cup of coffee. The second one needs a second attempt."""
    me = current_task()
    me.progress(0.5, "grinding")
    if cup == 2 and me.attempt == 1:
        raise RuntimeError("no water")
    me.progress(1.0, "poured")
    return f"cup {cup}"


def main() -> None:
    with private_daemon(app="events") as socket, Client(socket) as pool:
        # From here on these events come, on a connection of their own. Without names: all that happens.
        with pool.events("task-submitted", "task-started", "task-failed", "task-completed") as events:
            futures = [pool.submit(brew, cup) for cup in range(1, CUPS + 1)]
            cup_of = {future.id: f"cup {cup}" for cup, future in enumerate(futures, 1)}
            completed = 0
            for event in events:
                about = event.fields
                known = [
                    f"{name} {about[name]}" for name in ("attempt", "worker_id", "error", "retried") if name in about
                ]
                print(f"{event.name:15} {cup_of[about['task_id']]:6} {', '.join(known)}".rstrip())
                completed += event.name == "task-completed"
                if completed == CUPS:
                    break

        # What a handler reports on its way reaches its future.
        for future in futures:
            print(f"{future.result()}: last progress {future.progress}")


if __name__ == "__main__":
    main()
