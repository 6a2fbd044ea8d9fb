"""Modelled workers: they keep to the protocol of wire/messages.py, until a fault says that they do not.

A worker reads its task pipe in order and runs one task after the other. Before a task it publishes the page; if its
last task took over 1 ms it then reads the control channel, and does not begin what was recalled. It writes each result
before it begins the next task. What it wrote is read by the manager also after its death.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from poolmgr.core.effects import Start
from poolmgr.core.failure import Failure
from poolmgr.core.memory_limits import TRIM_S
from poolmgr.payload import inline
from tests.simulation.faults import Faults
from tests.simulation.scripts import CANCELLED, INTERRUPTED, Course, course, result_of
from tests.simulation.streaming import Chunk, Streaming
from tests.simulation.world import World

POLL_AFTER_S = 0.001  # as the worker has it
_FUTURE_FENCE = 1 << 40


class Ready(NamedTuple):
    capabilities: frozenset[str]


class Done(NamedTuple):
    fence: int
    begun_at: float
    ended_at: float
    payload: bytes


class Raised(NamedTuple):
    fence: int
    begun_at: float
    ended_at: float
    failure: Failure


class Released(NamedTuple):
    """It has given this task up, as it was asked to."""

    fence: int
    begun_at: float
    ended_at: float


class Recalled(NamedTuple):
    fences: list[int]


class Report(NamedTuple):
    fence: int
    fraction: float
    message: str


class Worn(NamedTuple):
    """A task has left the process in a state in which it begins no other."""

    fence: int


class Garbage(NamedTuple):
    """What the protocol does not know, or BROKEN: the manager cannot go on with this worker."""

    error: str


Message = Ready | Done | Raised | Released | Recalled | Report | Worn | Garbage | Chunk


class Manager(Protocol):
    """Who hears a worker."""

    def readable(self, process: Process) -> None:
        """There is something in its result pipe."""
        ...

    def beats(self, process: Process) -> None:
        """Its heart has beaten."""
        ...

    def ended(self, process: Process) -> None:
        """The process is dead, and can be reaped."""
        ...

    def sample(self, process: Process, used_mb: float) -> None:
        """Its memory is looked at."""
        ...

    def begins(self, process: Process, start: Start) -> None:
        """Truth, not a message: it begins this task now."""
        ...

    def leaves(self, process: Process, start: Start) -> None:
        """Truth, not a message: it no longer runs this task."""
        ...

    def cut_short(self, start: Start) -> None:
        """Truth, not a message: it was told to end this task early, and does."""
        ...


class Process:
    """One worker process, from its fork to its death."""

    def __init__(self, world: World, faults: Faults, manager: Manager, worker: str, incarnation: int, pid: int) -> None:
        self.worker = worker
        self.incarnation = incarnation
        self.pid = pid
        self.alive = True
        self.how = "exited with 0"
        self.killed_for = ""
        self.killed_at = 0.0
        self.thawed_at = 0.0
        self.sent_at = 0.0
        self.frozen = ""  # asleep | stopped | running: no heart beats
        self.page = (0, 0.0)
        self.cap_mb: int | None = None  # the limit of the task that is to begin
        self.weight_mb = 10.0
        self.wiped = 0  # the fence of a task that has made its page show less
        self.outbox: deque[Message] = deque()
        self.current: Start | None = None
        self.begun_at = 0.0
        self.waits = False  # its stream was last seen to wait for its reader
        self.waited_at = 0.0  # when that was, or when it was seen to go on
        self._world = world
        self._faults = faults
        self._manager = manager
        self._is_ready = False
        self._inbox: deque[Start] = deque()
        self._last_arrival = 0.0
        self._eof = False
        self._unread_recall = 0
        self._recalled = 0
        self._selects = world.chance(0.5)  # reads the control channel also while it is idle
        self._last_s = 0.0
        self._course = Course(0.0)
        self._streaming: Streaming | None = None  # while it runs a generator that was not told to end
        self._credits: dict[int, tuple[int, int]] = {}
        self._step = 0  # what was arranged for an earlier step is void
        self._last_fence = 0

    # ------------------------------------------------------------------------------------------ life

    def begin(self, heartbeat_s: float, on_trial: bool) -> None:
        """Import, start up, be ready. On trial, it may be code that never is."""
        self._beat(heartbeat_s)
        if on_trial and self._faults.strikes("hanging-trial"):
            return
        if self._faults.strikes("crash-before-ready"):
            self._world.after(self._world.between(0.001, 0.5), self._die, "killed by signal 11")
        elif self._faults.strikes("broken-start"):
            self._world.after(0.01, self._babble, "a startup hook failed")
        else:
            slow = self._faults.strikes("slow-start")
            self._world.after(self._world.between(0.001, 12.0 if slow else 0.02), self._started)

    def _started(self) -> None:
        if self.alive and not self._is_ready:
            self._is_ready = True
            number = int(self.worker.rpartition("-")[2])
            self._write(Ready(frozenset({"even"} if number % 2 == 0 else {"odd"})))
            self._turn()

    def _beat(self, interval_s: float) -> None:
        if self.alive:
            if not self.frozen:
                self._manager.beats(self)
            self._world.after(interval_s, self._beat, interval_s)

    def _die(self, how: str) -> None:
        if not self.alive:
            return
        self.alive = False
        self.how = how
        self._step += 1
        self._manager.ended(self)

    def vanish(self) -> None:
        """The daemon has died, and its warden has killed everything."""
        self.alive = False
        self._step += 1
        self.current = None

    def _babble(self, error: str) -> None:
        if self.alive:
            self._write(Garbage(error))

    def _write(self, message: Message) -> None:
        self.outbox.append(message)
        self._manager.readable(self)

    # ------------------------------------------------------------------------------------------ what it is sent

    def send(self, start: Start) -> None:
        """Write a task to its pipe: it arrives later, but in order."""
        self.sent_at = self._world.now
        slow = self._faults.strikes("slow-pipe")
        arrival = self._world.now + self._world.between(0.000005, 0.02 if slow else 0.00005)
        self._last_arrival = max(arrival, self._last_arrival)
        self._world.at(self._last_arrival, self._arrives, start)

    def _arrives(self, start: Start) -> None:
        self._inbox.append(start)
        if len(self._inbox) == 1 and self.current is None:
            self._turn()

    def close_tasks(self) -> None:
        """No more tasks will come."""
        self._last_arrival = max(self._world.now + 0.00001, self._last_arrival)
        self._world.at(self._last_arrival, self._closed)

    def _closed(self) -> None:
        self._eof = True
        if self.current is None:
            self._turn()

    def recall(self, fence: int) -> None:
        """RECALL on the control channel."""
        self._unread_recall = max(fence, self._unread_recall)
        if self._selects and self.current is None and self._is_ready and not self.frozen and self.alive:
            self._read_control()

    def interrupt(self, fence: int, reason: str) -> None:
        """INTERRUPT on the control channel, and SIGUSR1: the handler is told, if it is this one's."""
        if not self.alive or self.frozen or not self._is_ready:
            return
        self._read_control()
        if self.current is not None and self.current.fence == fence and not self._course.deaf:
            if reason == "preempt":
                if self._streaming is not None:  # it does at its next chunk, or as it waits
                    self._streaming.gives_way = self._world.chance(0.9)
                    self._world.after(self._world.between(0.00001, 0.001), self._next_chunk, self._step)
                elif self._world.chance(0.6):  # else it keeps no checkpoints, and does not look
                    self._world.after(self._world.between(0.00001, 0.5), self._release, self._step)
                return
            if reason == "cancelled" and self._world.chance(0.5):
                return  # it does not look
            heard = (None, CANCELLED) if reason == "cancelled" else (INTERRUPTED,)
            self._course = Course(0.0, self._world.random.choice(heard))
            self._streaming = None
            self._manager.cut_short(self.current)
            self._step += 1
            self._world.after(self._world.between(0.00001, 0.01), self._finish, self._step)

    def resume(self) -> None:
        """SIGCONT."""
        if self.frozen == "stopped":
            self._thaw()
            if self._faults.strikes("hang-stopped"):
                self._world.after(0.3, self._freeze, "stopped", self._step)
            if self.current is not None:
                self._world.after(self._world.between(0.0001, 0.1), self._go_on, self._step)
            else:
                self._turn()

    def credit(self, fence: int, up_to: int, size: int) -> None:
        """CREDIT on the control channel."""
        self._credits[fence] = (up_to, size)
        if self._streaming is not None and self._streaming.fence == fence:
            self._world.after(self._world.between(0.00001, 0.0005), self._next_chunk, self._step)

    def kill(self, reason: str, grace_s: float) -> None:
        """SIGTERM and SIGCONT now, SIGKILL when the grace is over."""
        if not self.killed_for:
            self.killed_for, self.killed_at = reason, self._world.now
        unkillable = self._faults.strikes("unkillable")
        if grace_s > 0:
            self.resume()
            if not unkillable and self._world.chance(0.5):
                self._world.after(self._world.between(0.0001, grace_s), self._die, "killed by signal 15")
        self._world.after(grace_s + 0.0001, self._be_killed, unkillable)

    def _be_killed(self, unkillable: bool) -> None:
        """SIGKILL: not one more instruction of its own; but in D state the kernel does not let it go yet."""
        if not unkillable:
            self._die("killed by signal 9")
        elif self.alive:
            self.frozen = "asleep"
            self._step += 1
            self._world.after(self._world.between(5.0, 30.0), self._die, "killed by signal 9")

    # ------------------------------------------------------------------------------------------ its main loop

    def _turn(self) -> None:
        """Between two tasks: begin the next, or wait for it, or go."""
        if not self.alive or self.frozen or self.current is not None or not self._is_ready:
            return
        if self._inbox:
            self._next(self._inbox.popleft())
        elif self._eof:
            self._die("exited with 0")
        elif self._faults.strikes("crash-idle"):
            self._world.after(self._world.between(0.0001, 1.0), self._crash_idle, self._step)
        elif self._faults.strikes("hang-idle"):
            self._freeze(self._world.random.choice(("asleep", "stopped")), self._step)
        elif self._faults.strikes("over-idle"):
            self._manager.sample(self, 600.0)
            self._world.after(self._world.between(0.5, 2 * TRIM_S), self._sample_idle, self._step)

    def _sample_idle(self, step: int) -> None:
        """Once it was told to give memory back, which does not always help."""
        if step == self._step and self.alive:
            self._manager.sample(self, 600.0 if self._world.chance(0.5) else 10.0)

    def _crash_idle(self, step: int) -> None:
        if step == self._step and self.current is None:
            self._die("killed by signal 9")

    def _next(self, start: Start) -> None:
        self.page = (start.fence, self._world.now)
        if self._last_s > POLL_AFTER_S:
            self._read_control()
        if start.fence > self._recalled:
            self._run(start)
            return
        self.page = (0, self._world.now)
        self._write(Recalled([start.fence]))
        self._turn()

    def _read_control(self) -> None:
        if not self._unread_recall:
            return
        self._recalled = max(self._recalled, self._unread_recall)
        self._unread_recall = 0
        dropped = [start.fence for start in self._inbox if start.fence <= self._recalled]
        self._inbox = deque(start for start in self._inbox if start.fence > self._recalled)
        self._write(Recalled(dropped))

    def _run(self, start: Start) -> None:
        self.current = start
        self.begun_at = self._world.now
        self._step += 1
        self._manager.begins(self, start)
        self._course = way = course(self._world, start.name)
        self._take_memory()
        if way.wipes and self._faults.strikes("wiped-page"):
            self.page = (0, self.begun_at)
            self.wiped = start.fence
        if way.progress:
            self._world.after(way.run_s / 2, self._report, self._step)
        if start.name == "stream":
            self._streaming = Streaming(self._world, start, self._credits)
            self._world.after(way.run_s, self._next_chunk, self._step)
        else:
            self._suffer(way)

    def _next_chunk(self, step: int) -> None:
        """A generator goes on, if it may."""
        streaming = self._streaming
        if step != self._step or streaming is None or not self.alive or self.frozen:
            return
        if streaming.trouble_in == 0:
            streaming.trouble_in = -1
            self._suffer(self._course)
            return
        if streaming.next >= streaming.total:
            self._course = Course(0.0)
            self._finish(step)
            return
        messages = streaming.messages()
        for message in messages or ():
            self._write(message)
        if streaming.gives_way:
            self._release(step)
            return
        if messages is None:
            return  # until it has credit
        streaming.trouble_in -= 1
        self._step += 1
        self._world.after(self._course.run_s, self._next_chunk, self._step)

    def _suffer(self, way: Course) -> None:
        """What is to go wrong does, or else the task goes on to its end."""
        if way.crash or self._faults.strikes("crash-in-task"):
            self._world.after(way.run_s, self._crash_in_task, self._step)
        elif self._faults.strikes("garbage"):
            self._world.after(way.run_s, self._garble, self._step)
        else:
            for kind in ("asleep", "stopped", "running"):
                if self._faults.strikes(f"hang-{kind}"):
                    self._world.after(way.run_s, self._freeze, kind, self._step)
                    return
            if way.failure is not None:
                self._streaming = None
            self._world.after(way.run_s, self._go_on, self._step)

    def _go_on(self, step: int) -> None:
        if self._streaming is not None:
            self._next_chunk(step)
        else:
            self._finish(step)

    def _take_memory(self) -> None:
        """Too much, or what looks like too much at first; most tasks are not looked at."""
        over, seems = self._faults.strikes("over-limit"), self._faults.strikes("over-estimated")
        self.weight_mb = 600.0 if over else 10.0
        if over or seems:
            self._manager.sample(self, 600.0)

    def _report(self, step: int) -> None:
        if step == self._step and self.current is not None and not self.frozen:
            self._write(Report(self.current.fence, 0.5, "half of it"))

    def _crash_in_task(self, step: int) -> None:
        if step == self._step:
            self._die("killed by signal 11")

    def _garble(self, step: int) -> None:
        if step == self._step and self.alive:
            self._write(Garbage("bytes that are no message"))
            self._world.after(0.5, self._go_on, step)

    def _freeze(self, kind: str, step: int) -> None:
        if step != self._step or not self.alive:
            return
        self.frozen = kind
        if kind == "running":
            self._world.after(self._world.between(1.0, 20.0), self._comes_back, step)

    def _comes_back(self, step: int) -> None:
        if step == self._step and self.alive:
            self._thaw()
            self._go_on(step)

    def _thaw(self) -> None:
        self.frozen = ""
        self.thawed_at = self._world.now
        self._manager.beats(self)  # the heart has waited to

    def _release(self, step: int) -> None:
        """It gives up what it runs: at the next chunk, or checkpoint."""
        start = self.current
        if step != self._step or start is None or not self.alive or self.frozen:
            return
        now = self._world.now
        self._leave(start, Released(start.fence, self.begun_at, now))
        self._went_on(start)

    def _finish(self, step: int) -> None:
        start = self.current
        if step != self._step or start is None or not self.alive or self.frozen:
            return
        now = self._world.now
        failure = self._course.failure
        if failure is None:
            answer: Message = Done(start.fence, self.begun_at, now, result_of(inline(start.payload)))
        else:
            answer = Raised(start.fence, self.begun_at, now, failure)
        self._leave(start, answer)
        if self._last_fence and self._faults.strikes("wrong-reply"):
            wrong = self._world.random.choice((self._last_fence, 0, _FUTURE_FENCE))
            self._write(Done(wrong, now, now, b"nobody's result"))
        self._went_on(start)

    def _leave(self, start: Start, answer: Message) -> None:
        self._manager.leaves(self, start)
        self.current = self._streaming = None
        self._step += 1
        self._write(answer)
        if self._faults.strikes("duplicate-reply"):
            self._write(answer)

    def _went_on(self, start: Start) -> None:
        self._last_fence = start.fence
        self._last_s = self._world.now - self.begun_at
        if self._faults.strikes("worn"):
            self._recalled = _FUTURE_FENCE
            self._write(Worn(start.fence))
        if self._faults.strikes("crash-after-result"):
            self._die("killed by signal 11")
        else:
            self._world.after(0.000002, self._turn)

    # ------------------------------------------------------------------------------------------ being looked at

    @property
    def verdict(self) -> str:
        """What /proc shows."""
        if not self.alive:
            return "gone"
        return self.frozen or "asleep"  # also one that is well, but waits: only its heart tells the difference
