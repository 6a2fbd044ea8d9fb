"""Periodic tasks with a real daemon: made, listed, declared by the app, and killed at any moment."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolmgr import AsyncClient, Client, Timing
from poolmgr import Pool as PrivatePool
from poolmgr.client import commands
from poolmgr.core.changes import ScheduleRecord
from poolmgr.core.schedule import task_id
from poolmgr.errors import BadOption, NotFound, PayloadTooLarge, PoolError, ReloadFailed, UnknownTask, WrongState
from poolmgr.manager.timetable import Timetable
from poolmgr.model import TaskInfo, TaskState
from poolmgr.schedule import ScheduleInfo
from poolmgr.server.commands import COMMANDS
from scripts.proofs.pool import NotStarted, Pool, until
from tests.integration.conftest import APPS

Make = Callable[..., Pool]

SOON = Timing(every_s=0.2)
YEARLY = Timing(cron="0 0 1 1 *")


def made_by(client: Client, schedule: str) -> list[TaskInfo]:
    """The tasks that a schedule has made, the oldest first."""
    return [each for each in reversed(client.tasks(limit=10_000)) if each.origin == f"schedule:{schedule}"]


def test_a_schedule_makes_a_task_at_each_tick_until_it_is_removed(client: Client) -> None:
    made = client.using(priority=3).schedule("sums", SOON, "add", 1, b=2)
    assert (made.id, made.name, made.every_s, made.paused, made.last_tick) == ("sums", "add", 0.2, False, None)
    until(lambda: len(made_by(client, "sums")) >= 3, "three ticks")
    [found] = [each for each in client.schedules(upcoming=2) if each.id == "sums"]
    client.unschedule("sums")
    tasks = made_by(client, "sums")
    assert [client.result(each.id, timeout=10) for each in tasks] == [3] * len(tasks)
    assert {(each.priority, each.durable) for each in tasks} == {(3, True)}
    assert found.last_task in {each.id for each in tasks}
    assert found.upcoming[1] - found.upcoming[0] == pytest.approx(0.2)
    assert [each.id for each in client.schedules()] == []
    with pytest.raises(NotFound, match="no schedule 'sums'"):
        client.unschedule("sums")


@pytest.mark.parametrize(
    ("error", "says", "id", "timing", "name", "options"),
    [
        (BadOption, "a schedule's id is", "a b", SOON, "add", {}),
        (BadOption, "a schedule's id is", "app:add", SOON, "add", {}),
        (BadOption, "either cron or every_s", "s", Timing(), "add", {}),
        (BadOption, "either cron or every_s", "s", Timing("* * * * *", 5.0), "add", {}),
        (BadOption, "at least 0.1", "s", Timing(every_s=0.01), "add", {}),
        (BadOption, "at least 0.1", "s", Timing(every_s=float("nan")), "add", {}),
        (BadOption, "cannot be read", "s", Timing("whenever"), "add", {}),
        (BadOption, "Wrong number of fields", "s", Timing("* * * *"), "add", {}),
        (BadOption, "unknown time zone 'Mars'", "s", Timing("* * * * *", timezone="Mars"), "add", {}),
        (BadOption, "belongs to cron", "s", SOON._replace(timezone="Europe/Berlin"), "add", {}),
        (BadOption, "missed takes 'once'", "s", SOON._replace(missed="never"), "add", {}),
        (BadOption, "durable=False cannot be", "s", SOON, "add", {"durable": False}),
        (BadOption, "take no at", "s", SOON, "add", {"at": 1e9}),
        (UnknownTask, "did you mean 'add'", "s", SOON, "ad", {}),
        (UnknownTask, "unknown task", "s", SOON, "poolmgr:call", {}),
    ],
)
def test_what_cannot_be_scheduled_is_refused(
    client: Client, error: type[PoolError], says: str, id: str, timing: Timing, name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(error, match=says):
        client.using(**options).schedule(id, timing, name)
    assert client.schedules() == []


def test_large_arguments_are_refused(client: Client) -> None:
    with pytest.raises(PayloadTooLarge, match="pass a path"):
        client.schedule("s", SOON, "size_of", bytes(5 << 20))
    assert client.schedules() == []


def test_the_async_client_has_the_same(shared_pool: Pool) -> None:
    async def session() -> None:
        async with AsyncClient(str(shared_pool.socket)) as client:
            made = await client.schedule("yearly", YEARLY, "add", 1)
            assert await client.schedules() == [made]
            assert (await client.pause_schedule("yearly")).upcoming == ()
            assert (await client.resume_schedule("yearly")).upcoming == made.upcoming
            await client.unschedule("yearly")
            assert await client.schedules() == []

    asyncio.run(session())


def test_the_group_may_look_at_schedules_and_no_more() -> None:
    assert [name for name, command in COMMANDS.items() if "schedule" in name and command.open_to_group] == ["schedules"]


def test_a_private_pool_keeps_no_schedules_not_even_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(APPS)

    async def session() -> None:
        async with PrivatePool(size=1, app="scheduled") as pool:
            with pytest.raises(BadOption, match="private pool"):
                await pool.schedule("mine", SOON, "beat")
            await pool.run("beat")
            assert await pool._ask(commands.schedules(1)) == []

    asyncio.run(session())


def test_schedules_survive_and_a_paused_one_stays_so(start_pool: Make) -> None:
    pool = start_pool()
    with pool.client() as client:
        client.schedule("yearly", YEARLY._replace(timezone="Asia/Tokyo", missed="skip"), "add", 1)
        client.schedule("paused", SOON, "add", 2)
        before = client.pause_schedule("paused")
    pool.kill()
    pool.start()
    with pool.client() as client:
        paused, yearly = client.schedules()
        assert paused == before
        assert (yearly.cron, yearly.timezone, yearly.missed) == ("0 0 1 1 *", "Asia/Tokyo", "skip")
        count = len(made_by(client, "paused"))
        client.resume_schedule("paused")
        until(lambda: len(made_by(client, "paused")) > count, "it goes on")


DECLARING = """
from poolmgr import Timing, task
{more}
@task(schedule=Timing(cron="0 0 1 1 *"))
def yearly():
    pass
"""
BEAT = """
@task(schedule=Timing(every_s={every_s}), priority=4)
def beat():
    pass
"""


def test_schedules_that_the_code_declares_come_and_go_with_it(make_pool: Make, short_path: Callable[[], Path]) -> None:
    directory = short_path()
    app = directory / "declared.py"
    app.write_text(DECLARING.format(more=BEAT.format(every_s=0.2)))
    pool = make_pool(directory=directory, app="declared", app_directory=directory)
    pool.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # versions of one second and one size are one to its cache
    pool.start()
    with pool.client() as client:
        beat, yearly = client.schedules()
        assert [(each.id, each.name, each.declared) for each in (beat, yearly)] == [
            ("app:beat", "beat", True), ("app:yearly", "yearly", True),
        ]  # fmt: skip
        task = until(lambda: made_by(client, "app:beat"), "it beats")[0]
        assert task.priority == 4
        with pytest.raises(WrongState, match="belongs to the app's code"):
            client.unschedule("app:beat")
        client.schedule("mine", YEARLY, "yearly")
        client.pause_schedule("app:yearly")
        app.write_text(DECLARING.format(more=BEAT.format(every_s='"often"')))
        with pytest.raises(ReloadFailed, match="every_s takes seconds"):
            client.reload()
        app.write_text(DECLARING.format(more=BEAT.format(every_s='"often"').replace("every_s", "cron")))
        with pytest.raises(ReloadFailed, match="the schedule of the task 'beat': cron 'often' cannot be read"):
            client.reload()
        assert [each.id for each in client.schedules()] == ["app:beat", "app:yearly", "mine"]
        app.write_text(DECLARING.format(more=""))
        client.reload()
        assert [(each.id, each.paused) for each in client.schedules()] == [("app:yearly", True), ("mine", False)]
    assert pool.stop() == 0
    app.write_text(DECLARING.format(more=BEAT.format(every_s='"often"').replace("every_s", "cron")))
    with pytest.raises(NotStarted, match="the schedule of the task 'beat'"):
        pool.start()


def test_a_schedule_whose_handler_is_gone_says_so_and_waits(make_pool: Make, short_path: Callable[[], Path]) -> None:
    directory = short_path()
    app = directory / "changing.py"
    old = "from poolmgr import task\n@task\ndef {}(): return 'done'\n"
    app.write_text(old.format("work"))
    pool = make_pool(directory=directory, app="changing", app_directory=directory)
    pool.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    pool.start()
    with pool.client() as client:
        client.schedule("s", SOON, "work")
        until(lambda: made_by(client, "s"), "a tick")
        app.write_text(old.format("other"))
        client.reload()
        trouble = until(lambda: client.schedules()[0].trouble, "it is told")
        assert "unknown task 'work'" in trouble
        assert any("schedule s: unknown task 'work'" in alert for alert in client.health()["alerts"])
        count = len(made_by(client, "s"))
        app.write_text(old.format("work"))
        client.reload()
        until(lambda: len(made_by(client, "s")) > count, "it goes on")
        assert client.schedules()[0].trouble == ""


def ids_until(info: ScheduleInfo) -> list[str]:
    """The ids of the tasks of all ticks that a schedule has come by."""
    assert info.every_s is not None
    assert info.last_tick is not None
    timing = Timing(every_s=info.every_s)
    record = ScheduleRecord(info.id, info.name, b"", None, timing, False, info.created_at, info.created_at)
    ticks = Timetable().between(timing, info.created_at, info.created_at, info.last_tick, 10_000)
    return [task_id(record, tick).hex() for tick in ticks]


NOTING = """
import os
from poolmgr import current_task, task

@task(max_retries=0)
def note(path):
    with open(path, "a") as file:
        file.write(current_task().id + "\\n")
"""


def test_kill_9_around_ticks_neither_loses_nor_doubles_one(make_pool: Make, short_path: Callable[[], Path]) -> None:
    directory = short_path()
    (directory / "noting.py").write_text(NOTING)
    pool = make_pool(directory=directory, app="noting", app_directory=directory)
    notes = directory / "notes"
    around = random.Random(4711)
    pool.start()
    with pool.client() as client:
        client.schedule("pulse", SOON._replace(missed="all"), "note", str(notes))
    for _ in range(4):
        with pool.client() as client:
            moment = client.schedules()[0].upcoming[0] + around.uniform(-0.02, 0.03)
        until(lambda moment=moment: time.time() >= moment, "a moment near a tick")  # type: ignore[misc]
        pool.kill()
        pool.start()
    with pool.client() as client:
        paused = client.pause_schedule("pulse")
        expected = ids_until(paused)
        until(lambda: all(each.ended_at for each in made_by(client, "pulse")), "all have ended")
        found = made_by(client, "pulse")
        assert [each.id for each in found] == expected
        assert {each.state for each in found} == {TaskState.COMPLETED}
        runs = Counter(notes.read_text().split())
        for each in found:  # a run more only where the daemon died under the one before
            assert 1 <= runs[each.id] <= each.attempt
