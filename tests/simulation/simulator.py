"""Runs the real scheduler in virtual time among faults, from one seed: ``python -m tests.simulation.simulator SEED``.

A run has two parts. First clients act and faults strike. Then both stop, what was paused is resumed, and everything
must drain: every task final, every worker ready, everyone told. In between, after each step, ``check_invariants`` and
the oracle look. The same seed gives the same run, line for line, in any process.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from poolmgr.config import Group, Settings
from poolmgr.core.scheduler import WINDOW_BYTES
from poolmgr.model import WorkerState
from tests.simulation.clients import Clients
from tests.simulation.disk import Disk
from tests.simulation.faults import Faults
from tests.simulation.journal import Journal
from tests.simulation.medium import Medium, Memory
from tests.simulation.oracle import Oracle
from tests.simulation.readers import Readers
from tests.simulation.shell import HEARTBEAT_S, Shell
from tests.simulation.sqlite_file import File
from tests.simulation.ticks import TickCheck
from tests.simulation.world import World

_SETTLES_WITHIN_S: Final = 1_800.0
_STEPS: Final = 20_000
_BYTES: Final = (100, 1_000, WINDOW_BYTES)  # payloads have up to some 300
_AGING_S: Final = (0.0, 0.0, 0.0, 0.0, 0.1)  # of one seed after the other
_IN_MEMORY: Final = 5  # one seed of so many has the memory store; the others the product's, on a file


class Run(NamedTuple):
    """What a run that held has seen."""

    seed: int
    digest: str  # of the whole log
    steps: int
    virtual_s: float
    epochs: int
    faults: Counter[str]
    refusals: Counter[str]  # of the store
    inputs: Counter[str]
    effects: Counter[str]
    finals: Counter[str]
    codes: Counter[str]
    events: Counter[str]


class SimulationFailed(AssertionError):
    """A promise was broken. The message holds the log's last lines, and how to see it again."""


class Simulation:
    """One run."""

    def __init__(self, seed: int, keep: int | None = 60) -> None:
        self.seed = seed
        self.world = World(seed)
        self.journal = Journal(keep)
        self.faults = Faults(self.world)
        self.medium: Medium = Memory() if seed % _IN_MEMORY == 0 else File()
        self.disk = Disk(self.world, self.faults, self.medium)
        self.oracle = Oracle(self.disk)
        self.readers = Readers(self.world, self.oracle)
        self.ticks = TickCheck(self.world, self.oracle)
        self.settings = _settings(self.world, _AGING_S[seed % len(_AGING_S)])
        self.window = self.world.random.choice((2, 4, 8, 4000)), _BYTES[seed % len(_BYTES)]  # tasks, bytes of payloads
        self.clients = Clients(self.world, self.faults, self.oracle, self.readers, self.world.random.randrange(10, 70))
        self.shell: Shell | None = None
        self.steps = 0
        self.epochs = 0
        self._calm_since: float | None = None

    def run(self) -> Run:
        """The whole run, or ``SimulationFailed``."""
        try:
            self._start()
            self.world.after(0.05, self.clients.act)
            while not self._settled():
                assert self.world.step(), "nothing will ever happen again"
            self.oracle.check_settled()
        except Exception as error:
            raise SimulationFailed(self._report(error)) from error
        finally:
            self.medium.remove()
        return Run(
            self.seed, self.journal.digest(), self._steps(), self.world.now - 1_000.0, self.epochs, self.faults.struck,
            self.disk.refusals, self.journal.inputs, self.journal.effects, self.oracle.finals, self.oracle.codes,
            self.oracle.events,
        )  # fmt: skip

    def _start(self) -> None:
        self.epochs += 1
        shell = Shell(
            self.world, self.journal, self.faults, self.disk, self.oracle, self.readers, self.ticks, self.settings,
            self.window, self._over,
        )  # fmt: skip
        self.shell = shell
        changed = self.faults.strikes("app-changed")
        shell.begin(lambda name: not (changed and name == "dropped"))
        if shell.alive:  # it may die as it is told of the first measure
            self.clients.begin(shell)
            self.readers.begin(shell)

    def _over(self, how: str) -> None:
        assert self.shell is not None
        self.steps += self.shell.steps
        self.shell = None
        self.clients.gone()
        self.readers.gone()
        self.world.after(self.world.between(0.05, 3.0), self._start)

    def _steps(self) -> int:
        return self.steps + (self.shell.steps if self.shell is not None else 0)

    def _settled(self) -> bool:
        if self.clients.acts_left > 0:
            assert self._steps() < _STEPS, "it does not come to an end"
            return False
        now = self.world.now
        if self._calm_since is None:
            self._calm_since = now
            self.faults.stop()
            self.disk.heal()
            self._tend()
        shell = self.shell
        busy = shell is not None and (shell.busy or shell.scheduler.state.schedules)
        if shell is None or busy or not shell.disk.idle or not shell.quiet:
            self._check_settling(now - self._calm_since)
            return False
        slots = shell.scheduler.state.slots.values()
        if all(slot.state is WorkerState.READY for slot in slots) and not shell.scheduler.rollout.active:
            return True
        self._check_settling(now - self._calm_since)
        return False

    def _check_settling(self, calm_s: float) -> None:
        """Each time that a breaker has opened, its tasks had to wait for that long."""
        held_s = self.oracle.events["breaker-opened"] * self.settings.breaker_open_s
        assert calm_s < _SETTLES_WITHIN_S + held_s, f"it does not settle: {self._unsettled()}"

    def _tend(self) -> None:
        if self.shell is not None:
            self.shell.hear(self.clients.tend, self.shell)
        self.world.after(1.0, self._tend)

    def _unsettled(self) -> str:
        if self.shell is None:
            return "no daemon"
        state = self.shell.scheduler.state
        tasks = [f"{task.name} {task.id.hex()[-6:]} {task.state} {task.slot}" for task in state.tasks.values()]
        slots = [
            f"{slot.id}.{slot.incarnation} {slot.state} holds {len(slot.in_flight)}" for slot in state.slots.values()
        ]
        return f"{tasks}, {slots}"

    def _report(self, error: Exception) -> str:
        tail = "\n".join(self.journal.lines)
        return (
            f"{tail}\n\nseed {self.seed}, step {self._steps()}, {self.world.now - 1_000.0:.6f} s:\n"
            f"{type(error).__name__}: {error}\n"
            f"see it again with: .venv/bin/python -m tests.simulation.simulator {self.seed}"
        )


def _settings(world: World, aging_s: float) -> Settings:
    one = world.random.choice
    pool_size = one((1, 2, 3, 5))
    groups = []
    if pool_size > 1 and world.chance(0.5):
        limit, reserved = one((0, 1, 3)), world.chance(0.5)
        capabilities = one(((), ("even",), ("even", "odd")))
        groups = [
            Group(name="g", size=1, capabilities=capabilities, reserved=reserved, max_tasks_per_worker=limit),
        ]
    return Settings(
        pool_size=pool_size,
        groups=tuple(groups),
        min_workers=1,
        max_workers=8,
        load_balancing=one(("most-recent", "round-robin", "least-loaded")),
        max_tasks_per_worker=one((0, 0, 1, 4)),
        max_worker_age_s=one((0.0, 0.0, 15.0)),
        idle_timeout_s=one((0.0, 0.0, 2.0)),
        heartbeat_interval_s=HEARTBEAT_S,
        zombie_after_s=5.0,
        auto_restart=world.chance(0.95),
        max_restart_attempts=one((0, 1, 3)),
        restart_cooldown_s=one((0.1, 2.0)),
        graceful_shutdown_timeout_s=4.0,
        retry_jitter=one(("ten-percent", "full", "none")),
        poison_after=one((1, 2, 3, 3)),
        max_queue_depth=one((0, 0, 0, 20)),
        breaker_failures=one((0, 1, 2, 3)),
        breaker_window_s=one((1.0, 60.0)),
        breaker_open_s=one((0.1, 1.0, 5.0)),
        preempt_grace_s=one((0.0, 0.2, 1.0)),
        preempt_min_run_s=one((0.0, 0.1, 1.0)),
        aging_s=aging_s,
        autoscale=world.chance(0.3),
        autoscale_wait_s=one((0.2, 2.0)),
        autoscale_idle_s=one((2.0, 20.0)),
        stream_limit_mb=one((0, 1, 1024)),
    )


def simulate(seed: int) -> Run:
    """Run one seed. Raises ``SimulationFailed``."""
    return Simulation(seed).run()


def main(arguments: Sequence[str]) -> int:
    """Run the seeds given; show the log of each and what was found."""
    show = sys.stdout.write
    for seed in map(int, arguments):
        simulation = Simulation(seed, keep=None)
        try:
            run = simulation.run()
        except SimulationFailed as failed:
            show(f"{failed}\n")
            return 1
        show("\n".join(simulation.journal.lines))
        show(f"\nseed {seed} held: {run.steps} steps, {run.virtual_s:.1f} s, {run.epochs} epochs, {run.digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
