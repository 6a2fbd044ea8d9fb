"""A ProcessPoolExecutor that bears a crash, and takes lambdas. Run it with: python examples/executor.py"""

from __future__ import annotations

import os
from concurrent.futures import as_completed

from poolmgr import BrokenWorker, Executor

model: dict[str, int] = {}


def load(factor: int) -> None:
    """The initializer: once in each worker process."""
    model["factor"] = factor


def predict(number: int) -> int:
    return model["factor"] * number


def parse(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise LookupError(f"no number: {text}") from error


def main() -> None:
    # A daemon of its own, without any files; it ends with the block. Executor(client=...) uses one that runs already.
    with Executor(4, initializer=load, initargs=(3,)) as executor:
        print(*executor.map(predict, range(8)))

        # Any callable: lambdas and closures, too.
        base = 40
        print(executor.submit(lambda: base + 2).result())

        # Exceptions are those that were raised, with their causes and the traceback in the worker.
        error = executor.submit(parse, "four").exception()
        assert error is not None
        print(f"{error!r}, because of {error.__cause__!r}")

        # A call that kills its process fails alone.
        fatal = executor.submit(os._exit, 3)
        others = [executor.submit(abs, -number) for number in range(5)]
        print("the others:", *sorted(call.result() for call in as_completed(others)))
        try:
            fatal.result()
        except BrokenWorker as death:
            print(death)


if __name__ == "__main__":
    main()
