"""What people read: amounts, tables, and the pages made of them, from fixed data."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from poolmgr.breaker import BreakerInfo, BreakerState
from poolmgr.cli import pages
from poolmgr.cli.breakers import breaker_table
from poolmgr.cli.tables import cut, duration, entry, printable, short, span, table
from poolmgr.model import AttemptInfo, Event, TaskInfo, TaskState, WorkerInfo, WorkerState, as_map
from poolmgr.post_mortem import PostMortem


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m 0s"), (3599, "59m 59s"), (7530, "2h 5m"), (273_600, "3d 4h")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0.00 us"),
        (0.000085, "85.0 us"),
        (0.0009996, "1.00 ms"),
        (0.0012, "1.20 ms"),
        (0.1234, "123 ms"),
        (2.5, "2.50 s"),
        (300.0, "300 s"),
    ],
)
def test_spans_have_three_digits(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (99_999, "99999"), (123_456, "123k"), (1_234_567, "1.2M"), (99_900_000, "99.9M"), (2 * 10**9, "2.0G")],
)
def test_counts_take_five_columns(count: int, text: str) -> None:
    assert short(count) == text
    assert len(text) <= 5


def test_text_from_elsewhere_cannot_move_the_cursor() -> None:
    assert printable(" a\x1b[2Jb\nc ") == "a [2Jb c"
    assert cut("abcdef", 4) == "abc…"


def test_a_table_is_as_wide_as_its_cells_and_no_wider_than_80() -> None:
    assert table(("id", "count"), [("a", "1"), ("bcd", "100")], right="count").splitlines() == [
        "id   count",
        "a        1",
        "bcd    100",
    ]
    wide = table(("id", "message"), [("a" * 32, "x" * 200)], flexible="message")
    assert max(map(len, wide.splitlines())) == 80
    assert wide.endswith("…")


def test_an_entry_wraps_between_its_parts() -> None:
    lines = entry("label", ["x" * 30] * 5).splitlines()
    assert lines == [
        "label    " + "x" * 30 + ", " + "x" * 30 + ",",
        "         " + "x" * 30 + ", " + "x" * 30 + ",",
        "         " + "x" * 30,
    ]


def worker(number: int) -> WorkerInfo:
    """A worker that is as wide as they come."""
    return WorkerInfo(
        id=f"worker-{number}",
        pid=4_194_000 + number,
        state=WorkerState.UNHEALTHY if number == 3 else WorkerState.BUSY,
        healthy=number != 3,
        tasks_executed=12_345_678,
        current_task="0190ab12" * 4,
        current_name="a_long_name_of_a_task",
        uptime_s=86_000.0,
        cpu_percent=100.0,
        memory_mb=1234.5,
        restarts=12_345,
    )


def status(**changes: dict[str, Any]) -> dict[str, Any]:
    """An answer to ``status``, with ``changes`` to its parts."""
    found: dict[str, Any] = {
        "pid": 4242,
        "epoch": 3,
        "mode": "managed",
        "compiled": False,
        "cgroup": None,
        "memory_limits": {
            "worker_memory_limit_mb": 512,
            "statm": "10 Hz",
            "rlimit_data": "in force",
            "cgroup_memory_max": "not enforced by the kernel (no memory controller)",
        },
        "version": "0.1.0",
        "pool": {
            "size": 20,
            "min": 5,
            "max": 50,
            "uptime_s": 7530.2,
            "shutting_down": False,
            "generation": 2,
            "app": ["myapp.tasks"],
            "tasks_known": ["thumbnail", "crawl"],
        },
        "workers": {
            "total": 20,
            "ready": 17,
            "busy": 2,
            "starting": 0,
            "draining": 0,
            "unhealthy": 1,
            "failed": 0,
            "stuck": 0,
            "spawned": 22,
            "reuse_rate": 0.9991,
        },
        "tasks": {
            "submitted": 1_234_567,
            "completed": 1_234_000,
            "failed_attempts": 12,
            "retried": 9,
            "queued": 500,
            "scheduled": 3,
            "running": 2,
            "dead": 4,
            "cancelled": 0,
            "expired": 0,
            "interrupted": 0,
            "preempted": 0,
            "shed": 0,
        },
        "performance": {
            "throughput_per_s": 51_234.25,
            "run_s": {"p50": 0.000012, "p95": 0.0013, "p99": 1.2},
            "wait_s": {"p50": 0.0001, "p95": None, "p99": None},
            "worker_reuse_rate": 0.9991,
        },
        "health": {"status": "healthy", "capacity": 0.95, "alerts": []},
        "memory": {"level": "normal", "percent": 31.2, "stalled_percent": 0.0, "why": "", "held_from": None},
        "queue": {"depth": 503, "average_wait_s": 0.0123, "paused": []},
        "store": {"commits": 99, "pending": 0, "error": None},
        "worker_list": [as_map(worker(number)) for number in range(20)],
    }
    for part, values in changes.items():
        found[part] = {**found[part], **values}
    return found


def test_the_status_page_tells_which_build_it_is() -> None:
    head = pages.status_page({**status(), "compiled": True}).splitlines()[0]
    assert head.startswith("poolmgr 0.1.0 (compiled), managed, ")


def test_the_status_page_tells_all_in_few_lines() -> None:
    top, _, bottom = pages.status_page(status()).partition("\n\n")
    assert top.splitlines() == [
        "poolmgr 0.1.0, managed, pid 4242, epoch 3, generation 2, up 2h 5m",
        "workers  20 of 20 (5 to 50), 17 ready, 2 busy, 1 unhealthy",
        "app      myapp.tasks, 2 handlers",
        "tasks    1,234,567 submitted, 1,234,000 completed, 2 running, 500 queued,",
        "         4 dead, 12 failed attempts, 9 retried, 3 scheduled",
        "queue    503 waiting, average wait 12.3 ms",
        "speed    51,234.2 tasks/s, run p50 12.0 us p95 1.30 ms p99 1.20 s,",
        "         wait p50 100 us p95 - p99 -",
        "memory   31% in use, pressure normal",
        "health   healthy, capacity 95%, worker reuse 0.9991",
        "limits   512 MB a worker, statm 10 Hz, RLIMIT_DATA,",
        "         cgroup memory.max: not enforced by the kernel (no memory controller)",
    ]
    assert bottom.splitlines()[0].split() == [
        "worker", "pid", "state", "tasks", "running", "up", "cpu", "memory", "restarts"
    ]  # fmt: skip
    assert bottom.splitlines()[4].startswith("worker-3   4194003  unhealthy  12.3M  a_")
    assert len(bottom.splitlines()) == 21


def test_the_status_page_fits_80_columns_whatever_happens() -> None:
    page = pages.status_page(
        status(
            health={"alerts": ["worker-7 died three times before it was ready, " * 4]},
            queue={"paused": [f"task_number_{number}" for number in range(20)]},
            store={"error": "the disk is full", "pending": 7},
            pool={"shutting_down": True, "app": [f"package.module_{number}" for number in range(9)]},
            tasks={"cancelled": 1, "expired": 1, "interrupted": 1},
        )
    )
    assert max(map(len, page.splitlines())) <= 80
    for part in ("shutting down", "task_number_19 paused", "refuses: the disk is full", "alert    worker-7"):
        assert part in page


def test_the_status_page_tells_of_names_that_are_held_back() -> None:
    breakers = [
        BreakerInfo(name, BreakerState(state), 3)._asdict()
        for name, state in (("fetch", "open"), ("mail", "half-open"), ("report", "closed"))
    ]
    page = pages.status_page(status() | {"breakers": breakers})
    assert "breakers fetch open, 3 failures, mail half-open, 3 failures\n" in page


def test_the_status_page_tells_how_the_pool_is_scaled() -> None:
    last = {"at": time.time() - 3690, "before": 5, "after": 10, "reason": "9 tasks wait, for 2.0 s"}
    scaling = {"reason": "nothing more waits than can be begun; min_workers is reached", "last": last}
    page = pages.status_page(status() | {"autoscale": scaling})
    assert "scaling  nothing more waits than can be begun; min_workers is reached\n" in page
    assert "         last, 1h 1m ago: from 5 to 10 workers: 9 tasks wait, for 2.0 s\n" in page
    assert "last" not in pages.status_page(status() | {"autoscale": {**scaling, "last": None}})
    assert "scaling" not in pages.status_page(status() | {"autoscale": None})


def test_the_table_of_breakers() -> None:
    found = [
        BreakerInfo("fetch", BreakerState.OPEN, 3, 900.0, 1020.0, False, "ConnectionError: no " * 9),
        BreakerInfo("mail", BreakerState.HALF_OPEN, 4, 900.0, 1020.0, True, "late"),
        BreakerInfo("print", BreakerState.HALF_OPEN, 5, 900.0),
        BreakerInfo("report", BreakerState.CLOSED, 1, error="bad"),
    ]
    head, *rows = breaker_table(found, 1000.0).splitlines()
    assert head.split() == ["name", "state", "failures", "opened", "next", "try", "error"]
    assert max(map(len, rows)) <= 80
    assert rows[0].startswith("fetch   open              3  1m 40s ago  in 20s    ConnectionError")
    assert rows[1].split() == ["mail", "half-open", "4", "1m", "40s", "ago", "runs", "late"]
    assert rows[2].split() == ["print", "half-open", "5", "1m", "40s", "ago", "any", "time"]
    assert rows[3].split() == ["report", "closed", "1", "-", "-", "bad"]
    assert breaker_table([], 0.0) == "all breakers are closed"


def test_a_slot_without_a_process_has_a_row_too() -> None:
    gone = worker(1)._replace(pid=None, state=WorkerState.FAILED, current_task=None, current_name=None)
    assert pages.worker_table([as_map(gone)]).splitlines()[1].split()[:5] == ["worker-1", "-", "failed", "12.3M", "-"]


def test_the_health_page() -> None:
    found = {
        "status": "degraded",
        "capacity": 0.5,
        "alerts": ["worker-1 failed"],
        "workers": {"total": 2, "healthy": 1, "unhealthy": 1},
        "uptime_s": 61.0,
    }
    assert pages.health_page(found).splitlines() == [
        "health   degraded, capacity 50%, 1 of 2 workers healthy, up 1m 1s",
        "alert    worker-1 failed",
    ]


DEAD = TaskInfo(
    id="0190ab12" * 4,
    name="crawl",
    state=TaskState.DEAD,
    durable=True,
    attempt=1,
    failures=1,
    submitted_at=1000.0,
    ended_at=1001.0,
    cause="task_failed",
    message="no route\nto host",
    attempts=(
        AttemptInfo(1, "worker-2", 1000.0, 1000.25, "task_failed", "OSError", "no route", "Traceback:\n  line 1\n"),
    ),
)


def test_the_task_page_has_each_bad_attempt_with_its_traceback() -> None:
    page = pages.task_page(DEAD)
    assert "cause      task_failed: no route to host\n" in page
    assert page.endswith(
        "\n\nattempt 1 on worker-2, 250 ms: task_failed: OSError: no route\n    Traceback:\n      line 1"
    )
    assert "requeued" not in page


def test_the_task_page_has_the_post_mortem_of_an_attempt() -> None:
    found = PostMortem(
        signal=11,
        signal_name="SIGSEGV",
        core_dumped=True,
        peak_memory_mb=61.6,
        stacks='Current thread:\n  File "a.py", line 1 in f\n',
        output="".join(f"line {number}\n" for number in range(30)) + "\x1b[31mred",
        ran_before=(("ab", "resize"), ("cd", "crop")),
    )
    page = pages.task_page(DEAD._replace(attempts=(DEAD.attempts[0]._replace(post_mortem=found),)))
    assert "\n  process: signal 11 (SIGSEGV), core dumped, peak memory 62 MB\n" in page
    assert "\n  ran before: resize ab, crop cd\n" in page
    assert '\n  stacks:\n    Current thread:\n      File "a.py", line 1 in f\n' in page
    assert "\n  output, the last 20 of 31 lines (--json has them all):\n    line 11\n" in page
    assert page.endswith("\n    line 29\n     [31mred")


def test_tables_of_tasks() -> None:
    assert pages.task_table([]) == "no tasks"
    assert pages.dead_table([]) == "no dead letters"
    row = pages.dead_table([DEAD._replace(requeued_as="1" * 32)]).splitlines()[1]
    assert row == f"{DEAD.id}  crawl  task_failed  requeued: no route to host"
    assert pages.task_table([DEAD._replace(submitted_at=None)]).splitlines()[1].split() == [
        DEAD.id, "crawl", "dead", "10", "1", "-"
    ]  # fmt: skip


def test_groups_are_shown_where_there_are_several() -> None:
    workers = [as_map(worker(number)._replace(group="default" if number else "a-long-name")) for number in range(4)]
    groups = {
        "default": {"size": 18, "of_use": 17, "capabilities": ["default"], "reserved": False},
        "gpu": {"size": 2, "of_use": 2, "capabilities": ["cuda", "gpu"], "reserved": True},
    }
    page = pages.status_page(status() | {"groups": groups, "worker_list": workers})
    assert "groups   default 17 of 18, gpu 2 of 2 (cuda reserved)" in page.splitlines()
    assert max(map(len, page.splitlines())) <= 80
    assert re.search(r"^worker-0 +a-long-… ", page, re.MULTILINE)
    assert re.search(r"^worker-1 +default  ", page, re.MULTILINE)


def test_an_event_is_one_line() -> None:
    line = pages.event_line(Event("task-failed", 1000.5, {"task_id": "ab", "error": "two\nlines"}))
    assert line[8:] == ".500 task-failed      task_id=ab error=two lines"
