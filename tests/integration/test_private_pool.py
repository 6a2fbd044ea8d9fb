"""``Pool``: a private daemon for an asyncio program."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from poolmgr import Pool, TaskFailed
from poolmgr.errors import (
    AppError,
    BadOption,
    ConfigError,
    ConnectionLost,
    StartFailed,
    TaskCancelled,
    UnknownTask,
    WrongState,
)
from poolmgr.model import Event
from tests.integration.conftest import APPS, Gate


@pytest.fixture(autouse=True)
def app_on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The app is found as the program finds its modules. No pool is left when the test ends."""
    monkeypatch.syspath_prepend(str(APPS))
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


def with_pool(work: Callable[[Pool], Awaitable[Any]], **settings: Any) -> Any:
    async def main() -> Any:
        async with Pool(settings.pop("size", 2), **{"app": "handlers", "min_workers": 1, **settings}) as pool:
            return await work(pool)

    return asyncio.run(main())


def test_a_private_daemon_does_not_load_openssl() -> None:
    async def work(pool: Pool) -> str:
        [daemon] = [each for each in psutil.Process().children() if "poolmgr.daemon.private" in each.cmdline()]
        return " ".join(each.path for each in daemon.memory_maps())

    maps = with_pool(work)
    assert "uvloop" in maps
    assert "libssl" not in maps
    assert "libcrypto" not in maps


def test_submit_run_map() -> None:
    async def work(pool: Pool) -> None:
        assert await pool.submit("add", 1, 2) == 3
        assert await pool.run("add", 3, 4) == 7
        assert [each async for each in pool.map("add", [1, 2], [10, 20])] == [11, 22]
        with pytest.raises(TaskFailed):
            await pool.using(max_retries=0).submit("fail", "no")
        with pytest.raises(UnknownTask):
            await pool.submit("no_such_task")

    with_pool(work)


def test_a_name_that_always_fails_is_held_back_until_it_is_reset() -> None:
    async def work(pool: Pool) -> None:
        calls = pool.using(max_retries=0)
        for _ in range(2):
            with pytest.raises(TaskFailed):
                await calls.submit("fail", "no")
        [breaker] = await pool.breakers()
        assert (breaker.name, breaker.state) == ("fail", "open")
        held = calls.submit("fail", "no")
        await pool.reset_breaker("fail")
        with pytest.raises(TaskFailed):
            await held
        [breaker] = await pool.breakers()
        assert (breaker.state, breaker.failures) == ("closed", 1)

    with_pool(work, breaker_failures=2)


def test_it_scales_and_tells_of_itself() -> None:
    async def work(pool: Pool) -> None:
        assert await pool.scale_up(2) == 4
        assert await pool.scale_down(3) == 1
        with pytest.raises(BadOption):
            await pool.scale_down(1)
        with pytest.raises(BadOption, match="whole number"):
            await pool.scale_up(-1)
        assert (await pool.metrics())["pool"]["size"] == 1
        while len(await pool.workers()) != 1:
            pass
        while (await pool.health())["status"] != "healthy":
            pass
        [left] = await pool.workers()
        assert (await pool.worker(left.id)).pid == left.pid

    with_pool(work)


def test_nothing_is_durable() -> None:
    async def work(pool: Pool) -> None:
        with pytest.raises(BadOption, match="AsyncClient"):
            pool.using(durable=True)
        assert (await pool.metrics())["store"]["pending"] == 0

    with_pool(work)


def test_events_reach_their_reactions() -> None:
    async def work(pool: Pool) -> None:
        loop = asyncio.get_running_loop()
        defects: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: defects.append(context))
        heard: list[Event] = []
        second: asyncio.Future[Event] = loop.create_future()

        async def react(event: Event) -> None:
            second.set_result(event)
            raise ValueError("an async reaction's own")

        def fail(event: Event) -> None:
            raise ValueError("a reaction's own")

        pool.on("task-completed", fail)
        pool.on("task-completed", heard.append)
        pool.on("task-completed", react)
        future = pool.submit("add", 1, 2)
        assert await future == 3
        event = await second
        assert heard == [event]
        assert event.fields["task_id"] == future.id
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [type(each["exception"]) for each in defects] == [ValueError, ValueError]

    with_pool(work)


def test_a_reaction_may_come_before_the_start() -> None:
    async def main() -> None:
        pool = Pool(1, app="handlers")
        heard: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        pool.on("task-started", heard.set_result)
        async with pool:
            pool.submit("add", 1, 2)
            assert (await heard).fields["name"] == "add"

    asyncio.run(main())


def test_a_graceful_shutdown_ends_what_was_submitted(gate: Gate) -> None:
    async def main() -> None:
        pool = await Pool(1, app="handlers").start()
        futures = [pool.submit("hold", gate.path, str(at)) for at in range(3)]
        ending = asyncio.create_task(pool.shutdown())
        await asyncio.to_thread(gate.begun)
        with pytest.raises(WrongState, match="shut down"):
            pool.submit("add", 1, 2)
        gate.open(3)
        await ending
        assert all(future.done() and not future.cancelled() for future in futures)
        await pool.shutdown()

    asyncio.run(main())


def test_a_running_task_is_cancelled_by_force_alone(gate: Gate) -> None:
    async def main() -> None:
        async with Pool(1, app="handlers") as pool:
            future = pool.submit("hold", gate.path, "now")
            await asyncio.to_thread(gate.begun)
            assert not await pool.cancel(future.id)
            assert await pool.cancel(future.id, kill=True)
            with pytest.raises(TaskCancelled):
                await future

    asyncio.run(main())


def test_a_shutdown_need_not_be_graceful(gate: Gate) -> None:
    async def main() -> None:
        pool = await Pool(1, app="handlers").start()
        futures = [pool.submit("hold", gate.path, str(at)) for at in range(3)]
        await asyncio.to_thread(gate.begun)
        await pool.shutdown(graceful=False)
        for future in futures:
            with pytest.raises(TaskCancelled):
                await future

    asyncio.run(main())


def test_an_error_in_the_block_ends_it_at_once(gate: Gate) -> None:
    async def work(pool: Pool) -> None:
        pool.submit("hold", gate.path, "")
        await asyncio.to_thread(gate.begun)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with_pool(work)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"app": "broken_import"}, AppError, "No module named 'no_such_module_anywhere'"),
        ({"app": ["handlers", "no_such_app"]}, AppError, "No module named 'no_such_app'"),
        ({"app": "failing_hook"}, StartFailed, "Traceback"),
        ({"pool_sizes": 3}, ConfigError, "the private pool: unknown setting 'pool_sizes'; did you mean 'pool_size'"),
        ({"min_workers": 3}, ConfigError, "min_workers"),
        ({"socket": "/tmp/x"}, ConfigError, "neither a socket file nor a disk"),
        ({"size": 0}, ConfigError, "pool_size"),
    ],
)
def test_it_says_why_it_does_not_start(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    async def work(pool: Pool) -> None:
        raise AssertionError

    with pytest.raises(error, match=text):
        with_pool(work, **settings)


def test_a_start_can_be_cancelled() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Pool(1, app="slow_import").start()

    asyncio.run(main())


def test_it_is_used_in_its_order() -> None:
    async def main() -> None:
        pool = Pool(1, app="handlers")
        with pytest.raises(ConnectionLost, match="not started"):
            pool.submit("add", 1, 2)
        await pool.shutdown()
        pool = await Pool(1, app="handlers").start()
        with pytest.raises(WrongState, match="before"):
            await pool.start()
        await pool.shutdown()

    asyncio.run(main())


def test_a_daemon_that_dies_is_told() -> None:
    async def work(pool: Pool) -> None:
        pid = (await pool.metrics())["pid"]
        future = pool.submit("add", 1, 2)
        await future
        os.kill(pid, 9)
        with pytest.raises(ConnectionLost):  # as it breaks
            await pool.metrics()
        with pytest.raises(ConnectionLost, match="gone"):
            await pool.metrics()

    with_pool(work)


def test_settings_of_the_environment_are_not_its(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def work(pool: Pool) -> None:
        assert len(await pool.workers()) == 2

    monkeypatch.setenv("POOLMGR_POOL_SIZE", "7")
    monkeypatch.setenv("POOLMGR_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("POOLMGR_NO_SUCH_SETTING", "7")
    with_pool(work)
    assert not list(tmp_path.iterdir())
    assert sys.path[0] == str(APPS)
