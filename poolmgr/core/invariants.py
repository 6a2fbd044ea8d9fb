"""What must hold between any two inputs. The simulator and the stateful tests ask after every step."""

from __future__ import annotations

from poolmgr.breaker import BreakerState
from poolmgr.core.allotment import Allotment, weight
from poolmgr.core.breakers import BLOCK
from poolmgr.core.deadlines import NEVER
from poolmgr.core.ready_queue import ReadyQueue
from poolmgr.core.row import Row
from poolmgr.core.scheduler import Scheduler
from poolmgr.core.shelf import Shelf, may_be_shelved
from poolmgr.core.slot import Slot
from poolmgr.core.state import State
from poolmgr.core.storeroom import Storeroom
from poolmgr.core.stream import Stream
from poolmgr.core.task import Task
from poolmgr.model import FINAL, TaskState, WorkerState


def check_invariants(scheduler: Scheduler) -> None:
    """Raise ``AssertionError`` with what is wrong.

    1. No live task is final; each is in exactly one place: the queue (or beyond a shelf's beginning), the schedule, or
       one worker's line.
    2. The queue's length is the number of tasks in it, and every one of them can be reached from a heap.
    3. A worker's line is in order of its fences; only its first task is running; all know their worker.
    4. A task's current fence is unique: at most one current attempt a task, and none of two tasks share one.
    5. Failures are within bounds: at most ``max_retries`` while a task lives; never ``poison_after`` kills. No more
       deaths than that are free because no page has shown whose they were.
    6. A worker's state fits what it holds: ready is empty, busy is not, none without a process holds anything.
    7. No limit is exceeded, and the running counts are right.
    8. Deduplication keys that are held by a live task name it.
    9. Who may be given work has the code of the current generation, unless the workers are being rolled over.
    10. A worker belongs to a group of the pool, and holds only tasks that it is fit for.
    11. Where a row has a shelf, all that is queued stands before its beginning, what waits beyond it behind; and a row
        that is short is being read, or about to be.
    12. Of the tasks that were twice interrupted at most one is in flight.
    13. What is known of payloads that wait is what they weigh: of each row, of the schedule, and of all together. In
        quiet, what may be put away of a line weighs no more than all may have, but for its next task and one more; or
        that much was of no use, when it was tried last. (The schedule's order is another once the clock was set.)
    14. A schedule's next tick is none that has had its turn; a paused one has none; all others have, or say why not.
    15. A name is held back by its circuit breaker as long as that says so. Half-open, it has one probe, and that is in
        flight; of all that was started since it opened no more may run than that, and those that took too long.
    16. What is to give its worker up may be run again.
    17. How many tasks wait is known: all, those of the names that have a limit, and the places that were promised.
    18. Streams keep their order, and hold what the counts say. No worker waits that may go on (core/stream.py).
    """
    state = scheduler.state
    in_flight: dict[bytes, Slot] = {}
    fences: dict[int, bytes] = {}
    for slot in state.slots.values():
        _check_slot(slot)
        rolled = scheduler.rollout.active or state.shutting_down
        assert rolled or not slot.open or slot.generation == state.generation, f"{slot.id} takes work with old code"
        assert state.groups[slot.group.name] is slot.group, f"{slot.id} is of an unknown group"
        last = 0
        for position, task in enumerate(slot.in_flight):
            assert task.id not in in_flight, f"{_name(task)} is in flight twice"
            assert task.fence not in fences, f"fence {task.fence} is current twice"
            assert last < task.fence <= state.last_fence, f"{slot.id}: fences out of order"
            assert task.slot == slot.id, f"{_name(task)} does not know its worker"
            assert slot.fits(task.options.requires), f"{slot.id} is not fit for {_name(task)}"
            expected = TaskState.QUEUED if position else TaskState.RUNNING
            assert task.state is expected, f"{_name(task)} at {position} in flight is {task.state}"
            may_go = task.fence != slot.preempting or task.options.restartable
            assert may_go, f"{_name(task)} is to be preempted, and may not be run again"
            in_flight[task.id] = slot
            fences[task.fence] = task.id
            last = task.fence
    alone = [id.hex() for id in in_flight if id in state.tasks and state.tasks[id].runs_alone]
    assert len(alone) <= 1, f"these were interrupted twice, and run beside one another: {alone}"
    _check_tasks(state, in_flight)
    _check_queue(state.queue, scheduler.storeroom)
    _check_weights(state, scheduler.storeroom)
    _check_limits(state)
    _check_room(scheduler)
    _check_schedules(state)
    _check_breakers(state)
    _check_streams(state)


def _check_slot(slot: Slot) -> None:
    held = len(slot.in_flight)
    if slot.state is WorkerState.READY:
        assert not held, f"{slot.id} is ready and holds {held}"
    elif slot.state is WorkerState.BUSY:
        assert held, f"{slot.id} is busy and holds nothing"
    elif slot.state in (WorkerState.STARTING, WorkerState.STOPPED, WorkerState.FAILED, WorkerState.STUCK):
        assert not held, f"{slot.id} is {slot.state} and holds {held}"


def _check_tasks(state: State, in_flight: dict[bytes, Slot]) -> None:
    queued = scheduled = 0
    calls: dict[int, set[bytes]] = {client: set() for client in state.sessions}
    for id, task in state.tasks.items():
        past = task.past
        assert id == task.id
        assert task.state not in FINAL, f"{_name(task)} is {task.state} and still here"
        places = task.in_queue + task.past.beyond + (task.state is TaskState.SCHEDULED) + (id in in_flight)
        assert places == 1, f"{_name(task)} ({task.state}) is in {places} places"
        queued += task.in_queue
        scheduled += task.state is TaskState.SCHEDULED
        assert past.failures <= task.options.max_retries, f"{_name(task)} has failed {past.failures} times"
        assert past.kills < state.settings.poison_after, f"{_name(task)} has killed {past.kills} workers"
        free = past.unshown - past.failures
        assert free <= state.settings.poison_after, f"{_name(task)}: {free} deaths have cost it nothing"
        assert task.attempt >= past.failures, f"{_name(task)}: more failures than attempts"
        assert (task.fence != 0) == (task.slot is not None), f"{_name(task)}: a fence without a worker"
        if task.owner:
            calls[task.owner].add(id)
        if task.options.key is not None:
            assert state.keys[task.options.key][0] == id, f"{_name(task)} does not hold its key"
    known = {client: set(session.calls) for client, session in state.sessions.items()}
    assert calls == known, f"clients have the calls {calls}, known are {known}"
    assert queued == len(state.queue), f"{queued} tasks are queued, the queue says {len(state.queue)}"
    assert scheduled == state.scheduled, f"{scheduled} tasks are scheduled, the count says {state.scheduled}"
    for id in in_flight:
        assert id in state.tasks, f"task {id.hex()} is in flight and not known"


def _check_queue(queue: ReadyQueue, storeroom: Storeroom) -> None:
    reachable = 0
    for lane in queue.lanes:
        for row in lane.rows.values():
            alive = sum(1 for _ in row) if len(row) else 0  # most rows are empty, most of the time
            assert row.waiting == alive, f"row {row.priority} {row.group}: {row.waiting} waiting is wrong"
            reachable += alive
            if alive:
                assert (row.entry is not None) != row.parked, f"row {row.priority} {row.group} can not be reached"
            assert not row.parked or queue.holds(row), f"row {row.priority} of {lane.name} is parked and not held"
            assert not alive or all(task.options.durable == lane.durable for task in row), f"{lane.name} is mixed"
            if row.shelf is not None:
                _check_shelf(queue, row, row.shelf, storeroom)
    assert reachable == len(queue), f"{reachable} of {len(queue)} queued tasks can be reached"


def _check_shelf(queue: ReadyQueue, row: Row, shelf: Shelf, storeroom: Storeroom) -> None:
    where = f"row {row.priority} {row.group}"
    assert row in queue.shelved_rows, f"{where}: its shelf is not counted"
    assert shelf.count > 0 or storeroom.reading or storeroom.untidy, f"{where}: its shelf is empty"
    assert all((0.0, task.order) <= shelf.after for task in row), f"{where}: a task is queued out of its turn"
    assert all((0.0, task.order) > shelf.after for task in shelf.beyond), f"{where}: a task waits beyond in vain"
    assert shelf.beyond == sorted(shelf.beyond, key=lambda task: task.order)
    assert row.waiting or shelf.asked or row in queue.wanting, f"{where} is empty, and nobody reads its shelf"


def _check_weights(state: State, storeroom: Storeroom) -> None:
    queue = state.queue
    scheduled = [task for task in state.tasks.values() if task.state is TaskState.SCHEDULED]
    scheduled.sort(key=lambda task: (state.stored_due(task), task.order))
    assert state.scheduled_weight == weight(scheduled), f"the schedule weighs {weight(scheduled)}"
    held = state.scheduled_weight + storeroom.expected_bytes
    if not state.clock_was_set:
        _check_bounded("the schedule", scheduled, storeroom.schedule_most_bytes, state.payloads, storeroom)
    for lane in queue.lanes:
        for row in lane.rows.values():
            if len(row) or row.weight:
                where = f"row {row.priority} {row.group}"
                assert row.weight == weight(row), f"{where}: it weighs {weight(row)}, the count says {row.weight}"
                assert row.counted == (row.weight if row.weight > queue.light else 0), f"{where}: it is counted wrong"
                line = sorted(row, key=lambda task: task.order)
                _check_bounded(where, line, row.most_bytes, state.payloads, storeroom)
            held += row.counted + (0 if row.shelf is None else weight(row.shelf.beyond))
    assert held == state.payloads.held, f"{held} bytes wait in memory, the count says {state.payloads.held}"


def _check_bounded(where: str, line: list[Task], bearable: int, payloads: Allotment, storeroom: Storeroom) -> None:
    may_go = sorted(len(task.payload) for task in line[1:] if may_be_shelved(task))
    too_many = sum(may_go[:-1]) > max(payloads.whole, bearable)
    assert storeroom.reading or storeroom.untidy or not too_many, (
        f"{where}: {sum(may_go)} of {weight(line)} bytes may go"
    )


def _check_limits(state: State) -> None:
    for name, limits in state.limits.items():
        running = sum(task.name == name for slot in state.slots.values() for task in slot.in_flight)
        assert limits.running == running, f"{name}: {running} run, the count says {limits.running}"


def _check_room(scheduler: Scheduler) -> None:
    state = scheduler.state
    waiting = state.queue.depth + state.all_scheduled
    assert state.waiting == waiting, f"{waiting} tasks wait, the count says {state.waiting}"
    crowds: dict[str, int] = {}
    for task in state.tasks.values():
        if task.options.max_queued and task.slot is None:
            crowds[task.name] = crowds.get(task.name, 0) + 1
    assert state.crowds == crowds, f"of the names {crowds} wait, the counts say {state.crowds}"
    scheduler.room.check_counts()


def _check_schedules(state: State) -> None:
    for id, schedule in state.schedules.items():
        record, tick = schedule.record, schedule.next_tick
        assert id == record.id
        assert record.created_at <= record.last_tick, f"schedule {id} ticked before it was made"
        assert tick is None or tick > record.last_tick or schedule.trouble, f"schedule {id} is at its tick {tick} again"
        assert tick is None or not record.paused, f"schedule {id} is paused, and has a next tick"


def _check_breakers(state: State) -> None:
    for lane in state.queue.lanes:
        assert BLOCK not in lane.blocks or lane.name in state.breakers, f"{lane.name} is held back, and has no breaker"
    for name, breaker in state.breakers.items():
        closed = breaker.state is BreakerState.CLOSED
        assert breaker.name == name
        held = [BLOCK in lane.blocks for lane in state.queue.lanes if lane.name == name]
        assert all(each == breaker.holds for each in held), f"{name}: its breaker and the queue do not agree"
        most = state.settings.breaker_failures
        assert 0 < breaker.failures < most or not closed, f"{name} failed {breaker.failures} times, and is not open"
        assert breaker.failures >= most or closed, f"{name} is open after {breaker.failures} failures"
        assert (breaker.due_at < NEVER) == breaker.holds, f"{name}: its breaker is not looked at again"
        fences = {task.fence for slot in state.slots.values() for task in slot.in_flight if task.name == name}
        assert not breaker.probe or breaker.probe in fences, f"{name}: its probe {breaker.probe} does not run"
        trying = sum(fence > breaker.since for fence in fences)
        assert closed or trying <= breaker.late + (breaker.probe != 0), f"{name}: {trying} probes run"


def _check_streams(state: State) -> None:
    held = 0
    for id, stream in state.streams.items():
        where, task = f"the stream of {id.hex()}", state.tasks.get(id)
        assert task is not None or (stream.readers and not stream.resumable), f"{where} is of no live task"
        assert not stream.ended, f"{where} has ended"
        _check_stream(where, stream)
        held += 0 if stream.durable else stream.bytes
        if task is not None and task.fence and task.fence == stream.fence and stream.durable:
            assert not stream.is_owed(state.streams.limit_of(stream)), f"{where}: its worker waits, and may go on"
    left = 0
    for id, stream in state.streams.left.items():
        assert id not in state.streams, f"the stream {id.hex()}, which was left, goes on"
        _check_stream(f"the left stream of {id.hex()}", stream)
        left += stream.bytes
    assert left == state.streams.left.held, f"{left} bytes are left, the count says {state.streams.left.held}"
    assert held + left == state.streams.held, f"{held + left} bytes are held, the count says {state.streams.held}"


def _check_stream(where: str, stream: Stream) -> None:
    assert 0 <= stream.dropped <= stream.committed <= stream.kept, f"{where} has lost its order"
    assert 0 <= stream.first <= stream.kept, f"{where} goes on from where it has not been"
    assert stream.first == 0 or stream.checkpoint is not None, f"{where} goes on from nothing"
    if stream.durable:
        assert not stream.held, f"{where} is held in memory"
    else:
        assert stream.committed == stream.kept, f"{where} waits for a commit"
        assert len(stream.held) == stream.kept - stream.dropped, f"{where} holds other chunks than it has"
    if stream.slowest is not None and not stream.durable:
        assert not stream.held or stream.dropped >= stream.slowest, f"{where} holds what all have passed"


def _name(task: Task) -> str:
    return f"task {task.id.hex()}"
