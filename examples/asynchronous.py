"""The same with asyncio: async handlers, and the async client. Run it with: python examples/asynchronous.py"""

from __future__ import annotations

import asyncio

from private_daemon import private_daemon

from poolmgr import AsyncClient, task


@task
async def shout(text: str) -> str:
    """An async handler runs on its worker's event loop, which lives as long as the worker."""
    await asyncio.sleep(0.01)
    return text.upper()


async def talk(socket: str) -> None:
    async with AsyncClient(socket) as pool:
        print(await pool.run(shout, "one"))

        future = pool.submit(shout, "two")  # not a coroutine: it does not wait
        await future.accepted()
        print(await future)

        print(*await asyncio.gather(*(pool.run(shout, word) for word in ("three", "four"))))

        async for result in pool.map(shout, ["five", "six", "seven"]):
            print(result)


def main() -> None:
    with private_daemon(app="asynchronous") as socket:
        asyncio.run(talk(socket))


if __name__ == "__main__":
    main()
