"""What can go wrong, and how often. Each seed knows some of the kinds only: rare meetings of two become likely."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.simulation.world import World

# kind -> how likely it strikes where it could, in a seed that knows it
KINDS: Final[dict[str, float]] = {
    # a worker's life
    "spawn-failure": 0.15,
    "slow-start": 0.15,
    "crash-before-ready": 0.2,
    "broken-start": 0.15,
    "crash-idle": 0.03,
    "hang-idle": 0.02,
    "unkillable": 0.3,
    # a worker's task
    "crash-in-task": 0.08,
    "crash-after-result": 0.06,
    "hang-asleep": 0.03,
    "hang-stopped": 0.05,
    "hang-running": 0.04,
    "garbage": 0.04,
    "duplicate-reply": 0.1,
    "wrong-reply": 0.05,
    "worn": 0.05,
    "over-limit": 0.05,
    "over-estimated": 0.1,
    "over-at-rest": 0.1,
    "over-idle": 0.03,
    "slow-pipe": 0.1,
    "wiped-page": 0.5,  # by what kills its worker, or is long
    # the daemon and its store
    "slow-commit": 0.1,
    "store-busy": 0.1,
    "store-full": 0.02,
    "store-failing": 0.05,
    "read-refused": 0.2,
    "death-before-commit": 0.01,
    "death-in-commit": 0.01,
    "death-after-commit": 0.01,
    "death-in-upkeep": 0.1,
    "daemon-death": 0.001,
    "memory-rises": 0.5,
    "memory-stalls": 0.1,
    "memory-unmeasured": 0.1,
    "blocked": 0.004,
    "late-message": 0.05,
    # everybody else
    "clock-jump": 0.02,
    "client-loss": 0.04,
    "app-changed": 0.3,
    "template-death": 0.3,
    "hanging-trial": 0.3,
}


class Faults:
    """Decides whether a fault strikes, and counts those that did."""

    def __init__(self, world: World) -> None:
        self.struck: Counter[str] = Counter()
        self.calm = False  # nothing goes wrong any more
        self._world = world
        share = world.random.choice((0.0, 0.2, 0.4, 0.6))
        self._known = {kind: rate for kind, rate in KINDS.items() if world.chance(share)}

    def strikes(self, kind: str) -> bool:
        """Whether ``kind`` strikes here and now."""
        rate = self._known.get(kind)
        if rate is None or not self._world.chance(rate):
            return False
        self.struck[kind] += 1
        return True

    def stop(self) -> None:
        """From now on nothing goes wrong any more."""
        self._known.clear()
        self.calm = True
