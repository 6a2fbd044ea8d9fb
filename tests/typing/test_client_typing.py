"""Work is checked against the handler's signature: mypy accepts the right calls and refuses the wrong ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from mypy import api

ROOT: Final = Path(__file__).resolve().parents[2]

# Lines that end in "# error" must be refused, all others must pass.
CALLS: Final = """
from concurrent.futures import Executor as StandardExecutor, as_completed
from typing import Any, assert_type

from poolmgr import AsyncClient, Client, Executor, Pool, TaskFuture, task


@task
def thumbnail(path: str, size: int = 128) -> bytes:
    return b""


@task(name="fetch", timeout_s=5)
async def fetch(url: str, *, fn: str = "") -> str:
    return url


def plain(number: int) -> float:
    return number / 2


def sync_calls(pool: Client) -> None:
    assert_type(pool.submit(thumbnail, "a.png"), TaskFuture[bytes])
    assert_type(pool.submit(thumbnail, "a.png", size=64).result(timeout=5), bytes)
    assert_type(pool.submit(fetch, "https://example.org", fn="x"), TaskFuture[str])
    assert_type(pool.submit("thumbnail", 1, 2, anything=3), TaskFuture[Any])
    assert_type(pool.using(priority=0).submit(plain, 3), TaskFuture[float])
    assert_type(pool.run(thumbnail, "a.png", size=64), bytes)
    assert_type(pool.run(fetch, "https://example.org"), str)
    assert_type(list(pool.map(thumbnail, ["a.png"], [64])), list[bytes])
    assert_type(list(pool.map(fetch, ["a"], chunksize=8)), list[str])
    for future in as_completed([pool.submit(plain, 1)]):
        assert_type(future.result(), float)

    pool.submit(thumbnail)  # error
    pool.submit(thumbnail, 5)  # error
    pool.submit(thumbnail, "a.png", size="64")  # error
    pool.submit(thumbnail, "a.png", colour="red")  # error
    pool.submit(fetch, 5)  # error
    pool.run(plain, "three")  # error
    pool.using(priority=0).run(plain)  # error
    pool.submit(3)  # error
    wrong: int = pool.run(thumbnail, "a.png")  # error


async def async_calls(pool: AsyncClient) -> None:
    assert_type(await pool.submit(thumbnail, "a.png", size=64), bytes)
    assert_type(await pool.submit(fetch, "https://example.org"), str)
    assert_type(await pool.run(fetch, "https://example.org"), str)
    assert_type([each async for each in pool.map(plain, [1, 2])], list[float])

    pool.submit(thumbnail, 5)  # error
    await pool.run(fetch)  # error


def executors(client: Client) -> None:
    executor: StandardExecutor = Executor(client=client.using(priority=50))
    with Executor(4, initializer=print, initargs=(1,)) as own:
        assert_type(own.submit(plain, 3).result(), float)
        assert_type(own.submit(lambda: 3).result(), int)
        assert_type(list(own.map(plain, [1, 2], timeout=3, chunksize=2)), list[float])
        own.submit(plain)  # error
        own.submit(plain, "three")  # error
    Executor("4")  # error


async def pools() -> None:
    async with Pool(4, app=["myapp.tasks"], task_timeout_s=5) as pool:
        assert_type(await pool.submit(thumbnail, "a.png", size=64), bytes)
        assert_type(await pool.scale_up(3), int)
        pool.on("task-completed", print)
        pool.submit(thumbnail, 5)  # error
        await pool.scale_up("3")  # error
"""


def test_calls_are_checked_against_the_handlers_signature(tmp_path: Path) -> None:
    expected = {number for number, line in enumerate(CALLS.splitlines(), 1) if line.endswith("# error")}
    program = tmp_path / "program.py"
    program.write_text(CALLS, encoding="utf-8")
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path), "--no-pretty"]
    printed, problems, _ = api.run([*options, str(program)])
    refused = {int(number) for number in re.findall(r"program\.py:(\d+): error: ", printed)}
    assert problems == ""
    assert expected
    assert refused == expected, printed
