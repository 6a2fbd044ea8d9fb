"""Workers of an asyncio program's own. Run it with: python examples/private_pool.py"""

from __future__ import annotations

import asyncio

from poolmgr import Pool, TaskFailed, task


@task(timeout_s=10, max_retries=0)
def word_count(text: str) -> int:
    """A handler. The workers import this module as ``private_pool``."""
    if not text:
        raise ValueError("nothing to count")
    return len(text.split())


async def main() -> None:
    # A daemon that is this program's own, without any files; it ends with the block, or with the program.
    async with Pool(size=4, app="private_pool", min_workers=2) as pool:
        pool.on("pool-scaled-up", lambda event: print(f"scaled up to {event.fields['new_size']}"))

        print(await pool.submit(word_count, "to be or not to be"))
        print(*await asyncio.gather(*(pool.submit(word_count, "a " * n) for n in range(1, 6))))
        print([count async for count in pool.map(word_count, ["one", "one two"])])
        try:
            await pool.submit(word_count, "")
        except TaskFailed as error:
            print(f"{error.code}: {error.type}: {error.message}")

        print(f"now {await pool.scale_up(2)} workers")
        metrics = await pool.metrics()
        print(f"{metrics['tasks']['completed']} tasks completed")


if __name__ == "__main__":
    asyncio.run(main())
