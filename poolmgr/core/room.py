"""Room in the queue: how many tasks may wait, and who waits until there is room for more.

A *place* is room for one more task to wait. There are as many as ``max_queue_depth`` says, for all tasks together, and
for those of one name as ``max_queued`` says. A submit takes a place if there is one that nobody else has been promised,
and is refused if not. Whoever would rather wait asks for places first, and stands in line for them (``ask``). Places
that are given (``give``) are kept for that client's next submits of that name (``use``); those that it does not use in
time, or gives back (``withdraw``), others get.

Who is next. All who wait for places of one name and band (CRITICAL or not) stand in one line, in the order in which
they have come. Of the first of all lines for whom there is room the one who has come first is next: so a name that is
full hides nobody. Who asks for many gets a share of what there is, at least one, and asks again behind the others. A
submit that has not waited gets nothing that somebody waits for.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from poolmgr.core.deadlines import NEVER
from poolmgr.core.effects import Answer, Refusal
from poolmgr.core.state import State
from poolmgr.errors import PoolError, QueueFull, ShuttingDown, WrongState
from poolmgr.model import CRITICAL_MOST, TaskOptions

KEPT_S: Final = 5.0  # places that nobody uses are others' then: whoever is given some is about to submit
REQUESTS: Final = 10_000  # of one client that may wait
_OVER_KEPT: Final = 64


class _Waiter:
    """One who asks for ``tasks`` places. ``token`` is what it is answered by; ``request``, its client's name for it."""

    __slots__ = ("client", "max_queued", "name", "number", "request", "tasks", "token", "urgent")

    def __init__(self, number: int, client: int, request: int, token: int, name: str, tasks: int) -> None:
        self.number = number
        self.client = client
        self.request = request
        self.token = token  # 0: it waits no more
        self.name = name
        self.tasks = tasks
        self.urgent = False
        self.max_queued = 0


class _Places:
    """Places that a client may use. ``left`` of them it has not used yet."""

    __slots__ = ("client", "left", "name", "request", "until", "urgent")

    def __init__(self, waiter: _Waiter, left: int, until: float) -> None:
        self.client = waiter.client
        self.request = waiter.request
        self.name = waiter.name
        self.urgent = waiter.urgent
        self.left = left
        self.until = until


class Asked(NamedTuple):
    """Who asks: a client by the number of its request, to be answered by ``token``."""

    client: int
    request: int
    token: int


class Room:
    """The places, those that are promised, and who waits for some."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._limit = state.settings.max_queue_depth
        self._count = 0
        self._lines: dict[tuple[str, bool], deque[_Waiter]] = {}
        self._waiters: dict[int, dict[int, _Waiter]] = {}  # those that wait: by client, by request
        self._times: list[tuple[float, int, _Waiter]] = []  # until when they wait; some of them wait no more
        self._over = 0
        self._given: dict[int, dict[int, _Places]] = {}  # by client, by request
        self._oldest: deque[_Places] = deque()  # the same, and some that have been used up, in the order of ``until``
        self._acts_at = NEVER  # when some have waited for long enough, or not used what they have
        self._promised = 0
        self._promised_urgent = 0
        self._promised_of: dict[str, int] = {}  # by name

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._state.waiting_for_room

    # ------------------------------------------------------------------------------------------ without waiting

    def is_there(self, options: TaskOptions, name: str, wanted: int) -> bool:
        """Whether so many more tasks of these options may wait, as far as can be told without making room."""
        if options.max_queued and self._free_of(name, options.max_queued) < wanted:
            return False
        if not self._limit or self._state.waiting + self._promised + wanted <= self._limit:
            return not self.waiting
        return False

    def check(self, options: TaskOptions, name: str, wanted: int, now: float) -> None:
        """The same, when all that can start has been started. CRITICAL tasks have as many places once more, which no
        others take: what is for emergencies is not to be refused because of what is not.

        Raises:
            QueueFull: they may not; the message says why, and what to do.
        """
        self.give(now)
        if options.max_queued and self._free_of(name, options.max_queued) < wanted:
            raise self._full(name, options.max_queued)
        if self._limit and self._free(is_urgent(options)) < wanted:
            raise self._full("", 0)

    def _free(self, urgent: bool) -> int:
        free = self._limit - self._state.waiting - self._promised
        return max(free, self._limit - _critical_waiting(self._state) - self._promised_urgent) if urgent else free

    def _free_of(self, name: str, max_queued: int) -> int:
        return max_queued - self._state.crowds.get(name, 0) - self._promised_of.get(name, 0)

    def _full(self, name: str, max_queued: int) -> QueueFull:
        waiting = self._state.crowds.get(name, 0) if max_queued else self._state.waiting
        what, limit, which = "tasks", self._limit, "max_queue_depth"
        if max_queued:
            what, limit, which = f"tasks {name!r}", max_queued, "max_queued"
        promised = self._promised_of.get(name, 0) if max_queued else self._promised
        told = f", {promised} places are promised" if promised else ""
        return QueueFull(
            f"{waiting} {what} wait{told}, and {limit} may ({which}): submit again when some have ended, wait for room "
            "with block=True, or raise the limit"
        )

    # ------------------------------------------------------------------------------------------ in line

    def admit(self, client: int, request: int) -> None:
        """Whether this client may ask, by a request of that number.

        Raises:
            ShuttingDown: no new work is taken.
            QueueFull: too many requests of this client wait.
            WrongState: an earlier request of that number waits, or has places.
        """
        own = self._waiters.get(client, {})
        if self._state.shutting_down:
            raise _shutting_down()
        if request in own or request in self._given.get(client, {}):
            raise WrongState(f"request {request} waits for room, or has places: give each another number")
        if len(own) >= REQUESTS:
            raise QueueFull(f"{REQUESTS} requests of this client wait for room: let some of them have it first")

    def ask(self, who: Asked, name: str, options: TaskOptions, tasks: int, timeout_s: float | None, now: float) -> None:
        """So many tasks of these options are to be submitted: ``Answer(token, places)`` follows when there is room for
        some of them, with their number; a ``Refusal`` where there is none within ``timeout_s``. ``admit`` was asked.
        """
        own = self._waiters.setdefault(who.client, {})
        self._count += 1
        waiter = _Waiter(self._count, *who, name, tasks)
        waiter.urgent, waiter.max_queued = is_urgent(options), options.max_queued
        own[who.request] = waiter
        self._lines.setdefault((name, waiter.urgent), deque()).append(waiter)
        self._state.waiting_for_room += 1
        if timeout_s is not None:
            heappush(self._times, (now + timeout_s, waiter.number, waiter))
            self._act_at(now + timeout_s)

    def give(self, now: float) -> None:
        """Promise what room there is to those who wait for it."""
        while self.waiting and (waiter := self._next()) is not None:
            free = waiter.tasks
            if self._limit:
                free = min(free, max(1, self._free(waiter.urgent) // self.waiting))
            if waiter.max_queued:
                free = min(free, max(1, self._free_of(waiter.name, waiter.max_queued) // self.waiting))
            self._state.effects.append(Answer(waiter.token, free, 0))
            self._leaves(waiter)
            places = _Places(waiter, free, now + KEPT_S)
            self._given.setdefault(waiter.client, {})[waiter.request] = places
            self._oldest.append(places)
            self._promise(places, free)
            self._act_at(places.until)

    def _next(self) -> _Waiter | None:
        found = None
        for line in self._lines.values():
            first = line[0]
            if (found is None or first.number < found.number) and self._fits(first):
                found = first
        return found

    def _fits(self, waiter: _Waiter) -> bool:
        if waiter.max_queued and self._free_of(waiter.name, waiter.max_queued) < 1:
            return False
        return not self._limit or self._free(waiter.urgent) >= 1

    def use(self, client: int, name: str) -> bool:
        """Whether the client has been given a place for a task of that name. It has one less then: the task is to be
        submitted now."""
        for request, places in self._given.get(client, {}).items():
            if places.name == name:
                places.left -= 1
                self._promise(places, -1)
                if not places.left:
                    del self._given[client][request]
                while self._oldest and not self._oldest[0].left:
                    self._oldest.popleft()
                return True
        return False

    def withdraw(self, client: int, request: int) -> None:
        """The client does not wait any more by that request, nor will it use what it was given by it."""
        waiter = self._waiters.get(client, {}).get(request)
        if waiter is not None:
            self._state.effects.append(Answer(waiter.token, 0, 0))
            self._leaves(waiter)
        places = self._given.get(client, {}).pop(request, None)
        if places is not None:
            self._take_back(places)

    def disconnected(self, client: int) -> None:
        """The client has gone, and what it waited for and was given is others'."""
        for waiter in list(self._waiters.pop(client, {}).values()):
            self._state.effects.append(Answer(waiter.token, 0, 0))
            self._leaves(waiter)
        for places in self._given.pop(client, {}).values():
            self._take_back(places)

    # ------------------------------------------------------------------------------------------ time

    def act(self, now: float) -> None:
        """Before effects are handed over: whoever waits gets what room there is, or is told that there will be none."""
        if self._state.shutting_down:
            for waiters in list(self._waiters.values()):
                for waiter in list(waiters.values()):
                    self._refuse(waiter, _shutting_down())
        if self._acts_at <= now:
            self._end_what_is_over(now)
        self.give(now)

    def _end_what_is_over(self, now: float) -> None:
        """Whoever has waited for as long as it would is told so; places that were not used are others'."""
        self._acts_at = NEVER
        while self._times and self._times[0][0] <= now:
            waiter = heappop(self._times)[2]
            if waiter.token:
                crowded = waiter.max_queued and self._free_of(waiter.name, waiter.max_queued) < 1
                full = self._full(waiter.name, waiter.max_queued) if crowded else self._full("", 0)
                self._refuse(waiter, QueueFull(f"there was no room in time: {full}"))
        while self._oldest and (self._oldest[0].until <= now or not self._oldest[0].left):
            places = self._oldest.popleft()
            if places.left:
                del self._given[places.client][places.request]
                self._take_back(places)
        if self._times:
            self._act_at(self._times[0][0])
        if self._oldest:
            self._act_at(self._oldest[0].until)

    def _act_at(self, when: float) -> None:
        """Have the scheduler woken then, at the latest: ``act`` follows."""
        if when < self._acts_at:
            self._acts_at = when
            self._state.deadlines.add(when, "room", None)

    def check_counts(self) -> None:
        """Raise ``AssertionError`` where what is counted is not what there is."""
        waiters = [waiter for own in self._waiters.values() for waiter in own.values()]
        in_line = {waiter.number for line in self._lines.values() for waiter in line}
        assert len(waiters) == self.waiting, f"{len(waiters)} requests wait for room, the count says {self.waiting}"
        assert in_line == {waiter.number for waiter in waiters}, "a request for room is in no line"
        assert all(waiter.token for waiter in waiters), "a request for room has been answered, and waits"
        given = [places for own in self._given.values() for places in own.values()]
        assert all(places.left > 0 for places in given), "places that were used up are kept"
        assert self._promised == sum(places.left for places in given), "the places that are promised are counted wrong"
        assert self._promised_urgent == sum(places.left for places in given if places.urgent)
        of_name: dict[str, int] = {}
        for places in given:
            of_name[places.name] = of_name.get(places.name, 0) + places.left
        assert self._promised_of == of_name, f"of the names {of_name} are promised, the counts say {self._promised_of}"

    # ------------------------------------------------------------------------------------------ own needs

    def _refuse(self, waiter: _Waiter, error: PoolError) -> None:
        self._state.effects.append(Refusal(waiter.token, error.code, str(error)))
        self._leaves(waiter)

    def _leaves(self, waiter: _Waiter) -> None:
        waiter.token = 0
        self._state.waiting_for_room -= 1
        key = (waiter.name, waiter.urgent)
        line = self._lines[key]
        if line[0] is waiter:
            line.popleft()
        else:
            line.remove(waiter)
        if not line:
            del self._lines[key]
        own = self._waiters.get(waiter.client)
        if own is not None:
            del own[waiter.request]
            if not own:
                del self._waiters[waiter.client]
        self._over += 1
        if self._over > _OVER_KEPT and self._over * 2 > len(self._times):
            self._over = 0
            self._times = [entry for entry in self._times if entry[2].token]
            heapify(self._times)

    def _promise(self, places: _Places, more: int) -> None:
        self._promised += more
        if places.urgent:
            self._promised_urgent += more
        self._promised_of[places.name] = self._promised_of.get(places.name, 0) + more
        if not self._promised_of[places.name]:
            del self._promised_of[places.name]

    def _take_back(self, places: _Places) -> None:
        self._promise(places, -places.left)
        places.left = 0


def is_urgent(options: TaskOptions) -> bool:
    """Whether it is CRITICAL, and now."""
    return options.priority <= CRITICAL_MOST and not options.delay_s and options.at is None


def _critical_waiting(state: State) -> int:
    """How many CRITICAL tasks are queued, wherever they are. Looks at every row."""
    rows = (row for lane in state.queue.lanes for row in lane.rows.values() if row.priority <= CRITICAL_MOST)
    return sum(row.waiting + row.shelved for row in rows)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the daemon is shutting down and takes no new work")
