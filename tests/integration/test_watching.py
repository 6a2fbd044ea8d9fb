"""What can be seen of a pool: its log, progress, events, status and questions about tasks and workers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from poolmgr import AsyncClient, Client
from poolmgr.client.results import EventStream
from poolmgr.errors import TaskFailed, WorkerDied
from poolmgr.model import Event
from poolmgr.version import is_compiled
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import Gate


def logged(pool: Pool, text: str) -> str:
    """The first line of the daemon's log with this text, once it is there."""

    def find() -> str:
        return next((line for line in pool.log.read_text().splitlines() if text in line), "")

    return until(find, f"{text!r} is logged")


# ------------------------------------------------------------------------------------------ the log


def test_output_is_logged_with_its_worker_and_task(client: Client, shared_pool: Pool) -> None:
    """Line by line, from Python and from below it; a line that was not finished ends with its task."""
    id = client.run("chat", 3)
    for text in ("line 0", "line 1", "line 2", "written past Python", "unfinished"):
        line = logged(shared_pool, f"{id} stdout| {text}")
        assert "[worker-" in line
    logged(shared_pool, f"{id} stderr| to stderr")


def test_output_of_prefetched_tasks_is_each_ones_own(lone: Client, lone_pool: Pool) -> None:
    ids = list(lone.map("chat", [2] * 100))  # of five lines each: half of what a worker may print in five seconds
    assert len(set(ids)) == 100
    for id in ids:
        logged(lone_pool, f"{id} stdout| line 1")
    said = [line.split(" stdout| ")[0] for line in lone_pool.log.read_text().splitlines() if " stdout| line" in line]
    assert {sum(id in each for each in said) for id in ids} == {2}


def test_a_tasks_log_has_levels(client: Client, shared_pool: Pool) -> None:
    id = client.run("log", "said this")
    assert " ERROR " in logged(shared_pool, f"{id} error| error said this")
    assert " WARNING " in logged(shared_pool, f"{id} warning| warning said this")
    assert f"{id} info|" not in shared_pool.log.read_text()  # log_worker_info is off


def test_what_a_handler_tells_pythons_logging_is_logged(client: Client, shared_pool: Pool) -> None:
    client.run("use_logging", "by the standard library")
    assert "[worker-" in logged(shared_pool, "stderr| by the standard library")


def test_the_last_words_of_a_worker_are_logged(client: Client, shared_pool: Pool) -> None:
    with pytest.raises(WorkerDied):
        client.using(max_retries=0).run("say_and_die", "farewell")
    logged(shared_pool, "stdout| farewell")
    client.purge()


def test_output_before_the_end_is_logged(start_pool: Callable[..., Pool]) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client:
        client.run("chat", 100)
    assert pool.stop() == 0
    log = pool.log.read_text()
    assert "stdout| line 99" in log
    assert "stdout| unfinished" in log


# ------------------------------------------------------------------------------------------ progress


def test_progress_reaches_whoever_waits(client: Client, gate: Gate) -> None:
    future = client.submit("advance", gate.path)
    assert future.progress is None or future.progress[0] == 0.25
    for fraction, message in ((0.25, "a quarter"), (0.75, "three quarters")):
        gate.begun()
        until(lambda: future.progress == (fraction, message), "progress is told")  # noqa: B023 - called at once
        assert future.running()
        gate.open()
    future.result(timeout=10)
    assert future.progress == (0.75, "three quarters")


# ------------------------------------------------------------------------------------------ events


@pytest.fixture
def events(shared_pool: Pool) -> Iterator[EventStream]:
    """All events of the shared pool from here on."""
    with shared_pool.client() as client, client.events() as events:
        yield events


def of_task(events: EventStream, id: str, last: str) -> list[Event]:
    """The events of one task, up to the one named ``last``."""
    found: list[Event] = []
    while not found or found[-1].name != last:
        event = next(events)
        if event.fields.get("task_id") == id:
            found.append(event)
    return found


def test_the_events_of_a_task_that_completes(client: Client, events: EventStream) -> None:
    future = client.using(priority=3).submit("add", 1, 2)
    future.result(timeout=10)
    submitted, started, completed = of_task(events, future.id, "task-completed")
    assert (submitted.name, submitted.fields) == (
        "task-submitted",
        {"task_id": future.id, "name": "add", "priority": 3},
    )
    assert started.name == "task-started"
    assert set(started.fields) == {"task_id", "name", "worker_id", "attempt"}
    assert set(completed.fields) == {"task_id", "name", "worker_id", "duration_s", "attempt"}
    assert 0 <= completed.fields["duration_s"] < 5
    assert submitted.at <= started.at <= completed.at


def test_the_events_of_a_task_that_fails(client: Client, events: EventStream) -> None:
    future = client.using(max_retries=1).submit("fail", "no luck")
    with pytest.raises(TaskFailed):
        future.result(timeout=10)
    found = of_task(events, future.id, "task-dead")
    assert [event.name for event in found] == [
        "task-submitted", "task-started", "task-failed", "task-started", "task-failed", "task-dead",
    ]  # fmt: skip
    first, second, dead = found[2], found[4], found[5]
    for failed, retried in ((first, True), (second, False)):
        assert failed.fields["code"] == "task_failed"
        assert failed.fields["error"] == "ValueError: no luck"
        assert failed.fields["retried"] is retried
        assert failed.fields["worker_id"].startswith("worker-")
    assert {"code": "task_failed", "error": "no luck", "failures": 2}.items() <= dead.fields.items()
    client.purge()


def test_the_events_of_a_worker_that_dies(client: Client, events: EventStream) -> None:
    worker = client.workers()[0]
    client.run("add", 1, 2)
    with pytest.raises(WorkerDied):
        client.using(max_retries=0).run("die", int(signal.SIGKILL))
    exited = next(event for event in events if event.name == "worker-exited")
    assert {"worker_id", "pid", "how", "executed"} <= set(exited.fields)
    assert exited.fields["how"] == "signal 9 (SIGKILL)"
    started = next(event for event in events if event.name == "worker-started")
    assert started.fields["worker_id"] == exited.fields["worker_id"]
    assert started.fields["pid"] != exited.fields["pid"]
    assert worker.id
    client.purge()


def test_events_can_be_chosen_and_end_when_closed(client: Client) -> None:
    with client.events("task-completed") as events:
        client.run("add", 1, 2)
        assert next(events).name == "task-completed"
    assert list(events) == []


def test_scaling_is_told(client: Client) -> None:
    with client.events("pool-scaled-up", "pool-scaled-down") as events:
        client.scale(6)
        assert (up := next(events)).name == "pool-scaled-up"
        assert up.fields == {"count": 2, "new_size": 6, "group": "default", "reason": "asked for"}
        client.scale(4)
        assert (down := next(events)).name == "pool-scaled-down"
        assert down.fields == {"count": 2, "new_size": 4, "group": "default", "reason": "asked for"}


def test_a_shutdown_is_told(start_pool: Callable[..., Pool]) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client, client.events("pool-shutdown") as events:
        pool.signal(signal.SIGTERM)
        assert next(events).name == "pool-shutdown"


# ------------------------------------------------------------------------------------------ status


def test_status_has_all_that_operators_ask(client: Client, shared_pool: Pool, gate: Gate) -> None:
    held = client.submit("hold", gate.path)
    begun = gate.begun()
    status = client.status()
    assert (status["pid"], status["epoch"], status["mode"]) == (shared_pool.pid, 1, "managed")
    assert status["compiled"] == is_compiled(), "the daemon is of the build that is tested"
    assert {"size", "min", "max", "uptime_s", "shutting_down"} <= set(status["pool"])
    assert {"total", "ready", "busy", "unhealthy", "spawned", "reuse_rate"} <= set(status["workers"])
    assert {
        "submitted", "completed", "failed_attempts", "queued", "scheduled", "running", "dead", "cancelled", "expired",
    } <= set(status["tasks"])  # fmt: skip
    assert {"throughput_per_s", "run_s", "wait_s"} <= set(status["performance"])
    assert {"p50", "p95", "p99"} <= set(status["performance"]["run_s"])
    assert (status["health"]["status"], status["health"]["capacity"]) == ("healthy", 1.0)
    assert {"depth", "average_wait_s"} <= set(status["queue"])
    assert (status["workers"]["busy"], status["tasks"]["running"]) == (1, 1)

    worker = client.worker(begun.worker)
    assert (worker.pid, worker.state, worker.healthy) == (begun.pid, "busy", True)
    assert (worker.current_task, worker.current_name, worker.in_flight) == (held.id, "hold", 1)
    assert worker.uptime_s > 0
    task = client.task(held.id)
    assert (task.state, task.assigned_to, task.attempt) == ("running", begun.worker, 1)
    gate.open()
    held.result(timeout=10)
    until(lambda: client.worker(begun.worker).memory_mb > 1, "it has been measured")
    assert client.worker(begun.worker).current_task is None


def test_counts_add_up(client: Client) -> None:
    before = client.metrics()["tasks"]
    assert list(client.map("add", range(20), range(20))) == [2 * number for number in range(20)]
    with pytest.raises(TaskFailed):
        client.using(max_retries=2).run("fail", "three times")
    client.using(delay_s=1000).submit("add", 1).cancel()
    waits = client.using(delay_s=1000).submit("add", 2)
    waits.accepted()
    after = client.metrics()["tasks"]
    changed = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert changed == {
        "submitted": 23, "completed": 20, "failed_attempts": 3, "retried": 2, "dead": 1, "cancelled": 1, "scheduled": 1,
    }  # fmt: skip
    assert waits.cancel()
    client.purge()


def test_tasks_are_listed_newest_first(client: Client) -> None:
    ids = [client.submit("whoami").id for _ in range(5)]
    for id in ids:
        client.result(id, timeout=10)
    found = [task.id for task in client.tasks(name="whoami", state="completed", limit=3)]
    assert found == ids[:1:-1]
    assert [task.id for task in client.tasks(name="whoami", limit=2, before=found[-1])] == ids[1::-1]


def test_garbage_is_collected_by_idle_workers(client: Client, gate: Gate) -> None:
    held = client.submit("hold", gate.path)
    gate.begun()
    assert client.collect_garbage() == {"workers": 3}
    gate.open()
    held.result(timeout=10)


def test_the_settings_are_told(client: Client, shared_pool: Pool) -> None:
    config = client.config()
    assert (config["pool_size"], config["socket"], config["app"]) == (4, str(shared_pool.socket), ["handlers"])


# ------------------------------------------------------------------------------------------ tasks, from inside


def test_async_handlers_are_first_class(client: Client) -> None:
    assert client.run("gather", [1, 2, 3]) == 12
    assert list(client.map("gather", [[number] for number in range(50)])) == [2 * number for number in range(50)]


def test_a_task_knows_itself(client: Client) -> None:
    future = client.submit("describe_me")
    me = future.result(timeout=10)
    assert (me["id"], me["name"], me["attempt"]) == (future.id, "describe_me", 1)
    assert me["worker"].startswith("worker-")


def test_a_handler_may_have_another_name_and_options(client: Client) -> None:
    future = client.submit("named.otherwise")
    assert future.result(timeout=10) == "named"
    assert client.task(future.id).priority == 3


def test_the_async_client_does_the_same(shared_pool: Pool) -> None:
    async def use() -> None:
        async with AsyncClient(str(shared_pool.socket)) as client:
            assert await client.run("add", 1, 2) == 3
            future = client.submit("add", 3, 4)
            assert await future == 7
            assert [each async for each in client.map("add", range(100), range(100))] == list(range(0, 200, 2))
            assert len(await client.workers()) == 4

    asyncio.run(use())


def test_workers_are_their_own_process_groups(client: Client) -> None:
    pid = client.run("whoami")
    assert os.getpgid(pid) == pid
    assert client.run("threads") <= 2  # the task's, and the heart
