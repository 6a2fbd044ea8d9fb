"""What is measured: the scenarios, their figures, and what poolmgr is to reach in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final


class Kind(Enum):
    """What a scenario needs of a pool."""

    SERVING = "a pool that goes on serving"
    FRESH = "a pool of its own for each run, 20 workers"
    RECOVERY = "a pool of 20 workers, whose workers are killed"
    DURABLE = "a pool that keeps its tasks on disk, synced before they are acknowledged"


@dataclass(frozen=True)
class Figure:
    """One number that a run of a scenario gives.

    Attributes:
        key: its name in what the measure answers, and, with the scenario's name, everywhere else.
        aim: what poolmgr is to reach, where that is a number of its own.
        aim_ratio: how many times as good as the best peer it is to be.
    """

    key: str
    unit: str
    more_is_better: bool
    aim: float | None = None
    aim_ratio: float | None = None


@dataclass(frozen=True)
class Scenario:
    """A way to use a pool.

    Attributes:
        measure: the function of benchmarks/peers/measures.py that runs it.
        sized: whether it takes a number of tasks, which is chosen so that a run takes its time on each peer.
        least: of these tasks; the first try has so many.
        most: of them; what is in flight at once must not fill the memory.
        arguments: further ones of the measure.
    """

    name: str
    text: str
    kind: Kind
    measure: str
    figures: tuple[Figure, ...]
    sized: bool = True
    least: int = 100
    most: int = 200_000
    arguments: Mapping[str, Any] = field(default_factory=dict)


KIB: Final = 1024
_RATE: Final = "tasks/s"

SCENARIOS: Final = (
    Scenario(
        "map",
        "no-op tasks by the peer's map, each task on its own (chunksize 1)",
        Kind.SERVING,
        "map_rate",
        (Figure("rate", _RATE, True, aim=60_000, aim_ratio=2.5),),
    ),
    Scenario(
        "submit",
        "no-op tasks, each submitted by a call of its own; then the result of each",
        Kind.SERVING,
        "submit_rate",
        (Figure("rate", _RATE, True, aim=40_000, aim_ratio=2.0),),
    ),
    Scenario(
        "chunked",
        "no-op items by the peer's map in chunks of 100",
        Kind.SERVING,
        "chunked_rate",
        (Figure("rate", "items/s", True, aim_ratio=1.0),),
        most=2_000_000,
    ),
    Scenario(
        "latency",
        "one no-op call after the other, each waited for",
        Kind.SERVING,
        "latency",
        (Figure("p50", "us", False, aim=130), Figure("p99", "us", False, aim=500)),
        most=20_000,
    ),
    Scenario(
        "echo-64k",
        "tasks that return their argument of 64 KiB, each on its own; MB of arguments",
        Kind.SERVING,
        "echo_rate",
        (Figure("rate", "MB/s", True, aim_ratio=1.5),),
        least=20,
        most=2_000,
        arguments={"size": 64 * KIB},
    ),
    Scenario(
        "echo-1m",
        "tasks that return their argument of 1 MiB, each on its own; MB of arguments",
        Kind.SERVING,
        "echo_rate",
        (Figure("rate", "MB/s", True, aim_ratio=1.5),),
        least=5,
        most=200,
        arguments={"size": KIB * KIB},
    ),
    Scenario(
        "start",
        "from a program that runs and has imported the peer, to 20 workers that have each run a task: pools of its own "
        "fork them from it, where they can; daemons, brokers and workers of the others, poolmgr too, are executed and "
        "import what they need. Then what they take, idle, with their broker, without the program that uses them (PSS: "
        "of a page that workers share with that program, its share is left out, too)",
        Kind.FRESH,
        "start",
        (Figure("cold start", "s", False, aim=0.35), Figure("idle memory", "MB", False, aim=80)),
        sized=False,
    ),
    Scenario(
        "queue",
        "what memory grows by, for each task of 100 bytes that waits while all workers are busy",
        Kind.FRESH,
        "queue_memory",
        (Figure("memory", "bytes", False, aim=700),),
        sized=False,
    ),
    Scenario(
        "kill",
        "kill -9 of a worker in the middle of a task, until a new process has run a task",
        Kind.RECOVERY,
        "kill_recovery",
        (Figure("recovery", "ms", False),),  # until it is ready, by the daemon's own word: scripts/prove kills
        sized=False,
    ),
    Scenario(
        "durable",
        "no-op tasks, each submitted by a call of its own, kept on disk; then the result of each",
        Kind.DURABLE,
        "submit_rate",
        (Figure("rate", _RATE, True, aim=15_000),),
    ),
    Scenario(
        "durable-latency",
        "one no-op task after the other, kept on disk, each result waited for",
        Kind.DURABLE,
        "latency",
        (Figure("p50", "us", False), Figure("p99", "us", False)),
        most=20_000,
    ),
)
NAMES: Final = tuple(scenario.name for scenario in SCENARIOS)
# The aim of durable-latency is not a number of its own: so much above what one fdatasync takes on the same disk.
ABOVE_FDATASYNC_US: Final = 150
