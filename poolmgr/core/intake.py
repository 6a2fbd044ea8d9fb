"""What clients ask of the scheduler: submits, cancels, watches, pauses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from poolmgr.core.changes import TaskRecord, TaskRequeued
from poolmgr.core.dispatch import Dispatcher
from poolmgr.core.effects import Answer, Look, Same
from poolmgr.core.lifecycle import Lifecycle
from poolmgr.core.limits import NameLimits
from poolmgr.core.past import NO_PAST, Past
from poolmgr.core.room import Room, is_urgent
from poolmgr.core.state import Session, State
from poolmgr.core.streams import Streams
from poolmgr.core.task import Task, Watchers
from poolmgr.errors import IdConflict, NotFound, ShuttingDown, StoreUnavailable, WrongState
from poolmgr.model import TaskOptions, TaskState
from poolmgr.payload import Payload

_WATCHERS_FEW = 8


class Intake:
    """The clients' side of the scheduler."""

    def __init__(
        self, state: State, dispatcher: Dispatcher, lifecycle: Lifecycle, room: Room, streams: Streams
    ) -> None:
        self.state = state
        self.room = room
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle
        self._streams = streams
        self._queue_limit = state.settings.max_queue_depth

    def connected(self, client: int) -> None:
        """A client has come. Its number is never used again, and is at least 1."""
        self.state.sessions[client] = Session(client)

    def disconnected(self, client: int, now: float) -> None:
        """A client has gone: what it waited for as a call is cancelled; if it runs already, its handler is told."""
        self.room.disconnected(client)
        session = self.state.sessions.pop(client, None)
        if session is None:
            return
        self._streams.disconnected(client, now)
        for task in list(session.calls.values()):
            task.owner = 0
            task.watchers = tuple(each for each in task.watchers if each[0] != client)
            heirs = [each[0] for each in task.watchers if each[0] in self.state.sessions]
            if heirs:  # others, by its key or its id: it is theirs now
                task.owner = heirs[0]
                self.state.sessions[task.owner].calls[task.id] = task
            elif task.slot is None:
                self._lifecycle.cancel(task, now)
            else:
                self._tell_handler(task)

    def refused(self, client: int) -> None:
        """A submit that never came so far as to be one; it counts all the same."""
        session = self.state.sessions.get(client)
        if session is not None:
            session.submits += 1
            self.state.counted(client, session)

    def submit(
        self,
        now: float,
        id: bytes,
        name: str,
        payload: Payload,
        options: TaskOptions,
        client: int,
        watch: bool,
        *,
        origin: bytes | str | None = None,
        has_place: bool = False,
    ) -> bool:
        """A new task. ``client`` 0 is nobody: the task is acknowledged to none, and never cancelled with its client.
        One with an ``origin`` is no other's double: its key was looked at before. ``has_place``: it waited for room
        (``Room.use``). False: it is an earlier task.

        Raises:
            ShuttingDown, StoreUnavailable, QueueFull, IdConflict, WrongState (a call has its key): refused; nothing
                has changed, but that the submit is counted.
        """
        state = self.state
        session = state.sessions.get(client)
        if session is not None:
            session.submits += 1
            state.counted(client, session)
        if id in state.tasks:
            self._resent(state.tasks[id], name, payload, options, client, watch)
            return False
        if state.shutting_down:
            raise ShuttingDown("the daemon is shutting down and takes no new work")
        if options.key is not None and origin is None and self._deduplicated(options, id, client, watch, now):
            return False
        if options.durable and state.store_trouble:
            raise self._not_kept()
        if (self._queue_limit or options.max_queued) and not has_place:
            self._check_room(options, name, 1, now)
        if options.rate_limit is not None or options.max_concurrency or name in state.limits:
            self.limit(name, options)
        state.last_order = order = state.last_order + 1
        usual = f"client-{client}" if session is None else session.group
        group = usual if options.group is None else options.group
        owner = 0 if options.durable or session is None else client
        watchers = () if not watch or session is None else session.watching
        past = NO_PAST if origin is None else Past(origin=origin, cautious=isinstance(origin, str))
        wall = now + state.wall_offset
        task = Task(id, name, payload, options, group, order, owner, now, wall, watchers, past)
        if options.durable:
            state.added(task, session)
        elif session is not None:
            session.calls[id] = task
        state.statistics.submitted += 1
        if options.delay_s or options.at is not None:
            self._lifecycle.admit(task, *self._due(options, now), now)
        else:
            self._lifecycle.admit(task, None, None, now)
        if state.listening:
            commit = state.commit if options.durable else 0
            state.emit("task-submitted", {"task_id": id.hex(), "name": name, "priority": options.priority}, commit)
        return True

    def submit_many(
        self,
        now: float,
        ids: Sequence[bytes],
        name: str,
        payloads: Sequence[bytes],
        options: TaskOptions,
        client: int,
        watch: bool,
    ) -> bool:
        """As many calls of ``submit``, for less. False: nothing has changed, and they are to be submitted one by one:
        what becomes of one may depend on those before it. No id is there twice."""
        state = self.state
        session = state.sessions.get(client)
        if session is None or not _is_simple(options) or state.shutting_down or state.listening:
            return False
        if state.shedding and options.sheddable:
            return False
        if self._queue_limit and not self.room.is_there(options, name, len(ids)):
            return False
        durable = options.durable
        if (durable and state.store_trouble) or name in state.limits or not state.tasks.keys().isdisjoint(ids):
            return False
        group = session.group if options.group is None else options.group
        owner = 0 if durable else client
        watchers = session.watching if watch else ()
        order, wall = state.last_order, now + state.wall_offset
        tasks = []
        for id, payload in zip(ids, payloads, strict=True):
            order += 1
            tasks.append(Task(id, name, payload, options, group, order, owner, now, wall, watchers))
        state.last_order = order
        weighs = sum(map(len, payloads))
        if durable:
            state.added_many(tasks, weighs, session)
        else:
            session.calls.update(zip(ids, tasks, strict=True))
        session.submits += len(tasks)
        state.counted(client, session)
        state.statistics.submitted += len(tasks)
        self._lifecycle.admit_many(ids, tasks, weighs)
        return True

    def _not_kept(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"nothing durable is taken, since the store refuses to write: {self.state.store_trouble}"
        )

    def _check_room(self, options: TaskOptions, name: str, wanted: int, now: float) -> None:
        """Whether so many more of these options may wait. Raises ``QueueFull``."""
        if not self.room.is_there(options, name, wanted):
            self._dispatcher.dispatch(now)  # of those that came together with these, some need not wait
            self.room.check(options, name, wanted, now)

    def _due(self, options: TaskOptions, now: float) -> tuple[float | None, float | None]:
        """When a task may run, as boot time, and the wall time that this follows, if any."""
        due_at = now + options.delay_s if options.delay_s else None
        if options.at is not None and options.at - self.state.wall_offset > (due_at or 0.0):
            return options.at - self.state.wall_offset, options.at
        return due_at, None

    def known(self, record: TaskRecord, name: str, payload: Payload, client: int, watch: bool) -> None:
        """A submit of an id that the store has, and that is final: it is acknowledged, and told its outcome.

        Raises:
            IdConflict: its content is another; nothing has changed, but that the submit is counted.
        """
        self.refused(client)
        if record.name != name or record.payload != payload:
            raise _id_conflict(record.id)
        self.state.effects.append(Same(client, record.id, record.id, True, watch, 0))

    def _resent(self, known: Task, name: str, payload: Payload, options: TaskOptions, client: int, watch: bool) -> None:
        other_options = known.options != options and not known.past.cautious  # what is default may differ since then
        if known.name != name or known.payload != payload or other_options:
            raise _id_conflict(known.id)
        if watch:
            self._add_watcher(known, client, known.id)
        session = self.state.sessions.get(client)
        if known.options.durable and session is not None:
            session.commit = self.state.settled()

    def _deduplicated(self, options: TaskOptions, id: bytes, client: int, watch: bool, now: float) -> bool:
        assert options.key is not None
        held = self.state.keys.get(options.key)
        if held is None:
            return False
        first = self.state.tasks.get(held[0])
        if first is None and held[1] <= now:
            return False
        if first is not None and options.durable and not first.options.durable:  # it may be lost, and this may not
            raise WrongState(
                f"task {first.id.hex()}, which has the same key {options.key!r}, is not durable: submit this one when "
                "that has ended, with durable=False, or with a key of its own"
            )
        if first is not None and watch:
            self._add_watcher(first, client, id)
        commit = 0
        if first is None or first.options.durable:  # this is acknowledged by the first: no sooner than that one
            commit = self.state.settled()
            if (session := self.state.sessions.get(client)) is not None:
                session.commit = commit
        self.state.effects.append(Same(client, id, held[0], first is None, watch, commit))
        return True

    def holds_key(self, key: str, now: float) -> bool:
        """Whether a submit with this key would be an earlier task."""
        held = self.state.keys.get(key)
        return held is not None and (held[0] in self.state.tasks or held[1] > now)

    def limit(self, name: str, options: TaskOptions) -> None:
        """From now on this name has the limits that these options carry."""
        limits = self.state.limits.get(name)
        if limits is None:
            if options.rate_limit is None and not options.max_concurrency:
                return
            limits = self.state.limits[name] = NameLimits()
            limits.running = sum(task.name == name for slot in self.state.slots.values() for task in slot.in_flight)
        before = (limits.starts, limits.per_s, limits.max_concurrency)
        limits.update(options)
        if (limits.starts, limits.per_s, limits.max_concurrency) != before:  # what the old ones held may run now
            self.state.queue.unblock(name, "rate")
            self.state.queue.unblock(name, "concurrency")

    def requeue(self, made: Sequence[tuple[TaskRecord, bytes]], now: float) -> None:
        """Submit dead tasks again, each as a new one with the id beside it: all or none. Old and new remember it.

        Raises:
            ShuttingDown, StoreUnavailable, QueueFull: nothing has changed.
            WrongState: another task holds a key, or two of these have the same; nothing has changed.
        """
        if self.state.shutting_down:
            raise ShuttingDown("the daemon is shutting down and takes no new work")
        if self.state.store_trouble and any(record.options.durable for record, _ in made):
            raise self._not_kept()
        self._check_keys([record for record, _ in made])
        if made and (self._queue_limit or any(record.options.max_queued for record, _ in made)):
            self._check_room_for_all([record for record, _ in made], now)
        for record, new_id in made:
            self.submit(
                now, new_id, record.name, record.payload, record.options, 0, False, origin=record.id, has_place=True
            )
            self.state.fact(TaskRequeued(record.id, new_id), record.options.durable)

    def _check_room_for_all(self, records: Sequence[TaskRecord], now: float) -> None:
        """Whether all of them may wait, by the queue's limit and by those of their names."""
        of_name: dict[str, list[TaskOptions]] = {}
        for record in records:
            of_name.setdefault(record.name, []).append(record.options)
        urgent = all(is_urgent(record.options) for record in records)
        asked = next((r.options for r in records if is_urgent(r.options) is urgent), records[0].options)
        self._check_room(asked._replace(max_queued=0), "", len(records), now)
        for name, options in of_name.items():
            limited = [each for each in options if each.max_queued]
            if limited:
                self._check_room(limited[-1], name, len(limited), now)

    def _check_keys(self, records: Sequence[TaskRecord]) -> None:
        """No two tasks of one key live at the same time."""
        first_with: dict[str, TaskRecord] = {}
        for record in records:
            key = record.options.key
            if key is None:
                continue
            held = self.state.keys.get(key)
            if held is not None and held[0] in self.state.tasks:
                raise WrongState(f"task {held[0].hex()}, which has the same key {key!r}, has not ended yet")
            first = first_with.setdefault(key, record)
            if first is not record:
                both = f"tasks {first.id.hex()} and {record.id.hex()}"
                raise WrongState(f"{both} have the same key {key!r}: requeue one of them, by its id")

    def watch(self, task_id: bytes, client: int) -> bool:
        """Tell ``client`` the task's end. False if the task is not live: it may have ended, ask the store."""
        task = self.state.tasks.get(task_id)
        if task is None:
            return False
        self._add_watcher(task, client, task_id)
        return True

    def _add_watcher(self, task: Task, client: int, known_as: bytes) -> None:
        """A tuple while they are few, as nearly always; else a dict, from which those who have gone are dropped."""
        watchers: Watchers = task.watchers
        who = (client, None if known_as == task.id else known_as)
        if who in watchers:
            return
        count = len(watchers)
        if count < _WATCHERS_FEW:
            task.watchers = (*watchers, who)
        else:
            if isinstance(watchers, tuple) or not count & (count - 1):  # each time that they have doubled
                watchers = {each: None for each in watchers if each[0] in self.state.sessions}
                task.watchers = watchers
            watchers[who] = None

    def cancel(self, task_id: bytes, kill: bool, token: int, now: float) -> None:
        """Cancel a task; ``Answer(token, True)`` follows if it never began, or was ended by ``kill``, else False.

        One that runs, and is not to be killed, goes on: its handler is told, and may return. It does not run again,
        nor in another epoch.

        Raises:
            NotFound: no live task has that id.
        """
        task = self.state.tasks.get(task_id)
        if task is None:
            raise NotFound(f"no task {task_id.hex()} that has not ended")
        if task.slot is None:
            task.past = task.past._replace(cancel_tokens=(*task.past.cancel_tokens, token), kill_wanted=kill)
            self._lifecycle.cancel(task, now)
            return
        if task.state is TaskState.RUNNING and not kill:
            self.state.effects.append(Answer(token, False, self.state.unwanted(task)))
        else:
            tokens, killed = (*task.past.cancel_tokens, token), task.past.kill_wanted or kill
            task.past = task.past._replace(cancel_tokens=tokens, kill_wanted=killed)
        self._tell_handler(task)
        if task.state is not TaskState.RUNNING:
            self._dispatcher.recall(self.state.slots[task.slot])

    def _tell_handler(self, task: Task) -> None:
        """A task in flight is not wanted any more. Where it is only assumed to have begun, or waits for its turn, the
        page decides when it is told, or killed."""
        task.past = task.past._replace(cancel_wanted=True)
        if task.state is TaskState.RUNNING:
            assert task.slot is not None
            slot = self.state.slots[task.slot]
            self.state.effects.append(Look(slot.id, slot.incarnation))

    def clear(self, now: float) -> int:
        """Cancel every task that waits in memory and is not assigned; how many there were."""
        return self.cancel_waiting(list(self.state.tasks.values()), now)

    def cancel_waiting(self, tasks: Sequence[Task], now: float) -> int:
        """Cancel those of ``tasks``, all live, that wait and are not assigned; how many there were."""
        waiting = [task for task in tasks if task.slot is None]
        for task in waiting:
            self._lifecycle.cancel(task, now)
        return len(waiting)

    def pause(self, name: str) -> None:
        """Start no task of this name until ``resume``."""
        self.state.paused[name] = None
        self.state.queue.block(name, "paused")

    def resume(self, name: str) -> None:
        """Start tasks of this name again."""
        self.state.paused.pop(name, None)
        self.state.queue.unblock(name, "paused")


@lru_cache(maxsize=256)
def _is_simple(options: TaskOptions) -> bool:
    """Whether no more is to be done for a task of these options than to queue it."""
    return (
        options.key is None
        and options.rate_limit is None
        and options.expires_s is None
        and options.at is None
        and not options.max_concurrency
        and not options.max_queued
        and not options.delay_s
    )


def _id_conflict(id: bytes) -> IdConflict:
    return IdConflict(f"task {id.hex()} was submitted before with other content: use a new id")
