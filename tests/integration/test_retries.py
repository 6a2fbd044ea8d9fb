"""Failures: tried again by the policy, and kept with their history when that is used up."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest

from poolmgr import Client, TaskFailed
from poolmgr.errors import BadArguments, BadOption, WorkerDied, WrongState
from poolmgr.model import TaskState


def test_a_failed_task_is_tried_again_until_it_succeeds(client: Client) -> None:
    future = client.submit("fail_until", 3)
    assert future.result(timeout=10) == 3
    task = client.task(future.id)
    assert (task.state, task.attempt, task.failures) == (TaskState.COMPLETED, 3, 2)
    assert [(each.attempt, each.cause, each.type, each.message) for each in task.attempts] == [
        (1, "task_failed", "ValueError", "attempt 1"),
        (2, "task_failed", "ValueError", "attempt 2"),
    ]


def test_the_back_off_doubles_up_to_its_limit(client: Client) -> None:
    patient = client.using(max_retries=4, retry_backoff_s=0.05, max_backoff_s=0.1)
    future = patient.submit("fail", "always")
    with pytest.raises(TaskFailed, match="always"):
        future.result(timeout=10)
    attempts = client.task(future.id).attempts
    waits = [after.started_at - before.ended_at for before, after in pairwise(attempts)]
    assert len(waits) == 4
    for wait_s, least_s in zip(waits, (0.05, 0.1, 0.1, 0.1), strict=True):
        assert wait_s >= least_s - 0.001  # the worker's clock and the daemon's are read at different moments
    client.purge(future.id)


def test_a_task_that_used_up_its_failures_is_a_dead_letter_with_its_history(client: Client) -> None:
    future = client.using(max_retries=1).submit("fail", "no luck")
    with pytest.raises(TaskFailed, match="ValueError: no luck") as raised:
        future.result(timeout=10)
    assert raised.value.type == "ValueError"
    assert raised.value.task_id == future.id
    assert "raise ValueError(text)" in raised.value.traceback
    assert "poolmgr/worker/" not in raised.value.traceback

    [letter] = client.dead_letters()
    assert (letter.id, letter.state, letter.cause, letter.message) == (future.id, "dead", "task_failed", "no luck")
    task = client.task(future.id)
    assert (task.attempt, task.failures, len(task.attempts)) == (2, 2, 2)
    assert all("raise ValueError(text)" in each.traceback for each in task.attempts)
    with pytest.raises(TaskFailed, match="no luck"):
        client.result(future.id)
    assert client.purge(future.id) == 1
    assert client.dead_letters() == []


def test_a_dead_letter_is_requeued_as_a_new_task(client: Client) -> None:
    durable = client.using(max_retries=0).submit("fail_until", 2)
    call = client.using(max_retries=0, durable=False).submit("fail_until", 2)
    for future in (durable, call):
        with pytest.raises(TaskFailed):
            future.result(timeout=10)
    made = client.requeue()
    assert set(made) == {durable.id, call.id}
    for old, new in made.items():
        with pytest.raises(TaskFailed, match="attempt 1"):  # a new task, with attempts of its own
            client.result(new, timeout=10)
        assert client.task(new).origin == old
        assert client.task(old).requeued_as == new
        assert client.task(old).state is TaskState.DEAD
    assert set(client.requeue()) == set(made.values())
    for task in client.dead_letters():
        if task.requeued_as is not None and task.id not in made:
            with pytest.raises(TaskFailed):
                client.result(task.requeued_as, timeout=10)
    assert client.purge() == 6
    assert client.dead_letters() == []


def test_dead_letters_are_chosen_by_name_cause_and_age(client: Client) -> None:
    once = client.using(max_retries=0)
    futures = [once.submit("fail", "a"), once.using(durable=False).submit("fail", "b"), once.submit("leave", 3)]
    for future in futures:
        with pytest.raises(TaskFailed):
            future.result(timeout=10)
    failed, called, left = (future.id for future in futures)

    def chosen(**which: Any) -> set[str]:
        return {letter.id for letter in client.dead_letters(**which)}

    assert chosen() == {failed, called, left}
    assert chosen(name="fail") == chosen(cause="task_failed") == {failed, called}
    assert chosen(cause="worker_died", older_than_s=0) == {left}
    assert chosen(name="fail", cause="worker_died") == chosen(older_than_s=3600) == set()
    assert len(client.dead_letters(2)) == 2

    [(old, new)] = client.requeue(cause="worker_died").items()
    assert old == left
    with pytest.raises(WorkerDied):
        client.result(new, timeout=10)
    assert client.requeue(name="leave", older_than_s=3600) == {}
    assert client.purge(older_than_s=3600) == 0
    assert client.purge(name="fail") == 2
    assert chosen() == {left, new}
    for wrong in ({"older_than_s": -1}, {"name": ""}, {"cause": 3}):
        with pytest.raises(BadOption):
            client.purge(**wrong)
    with pytest.raises(BadOption, match="not both"):
        client.purge(left, name="leave")
    assert client.purge() == 2


def test_two_who_requeue_all_at_once_requeue_each_dead_letter_once(client: Client) -> None:
    futures = [client.using(max_retries=0).submit("fail_until", 2) for _ in range(20)]
    for future in futures:
        with pytest.raises(TaskFailed):
            future.result(timeout=10)
    with ThreadPoolExecutor(4) as threads:
        made = [each.result() for each in [threads.submit(client.requeue) for _ in range(4)]]
    for new in [new for each in made for new in each.values()]:
        with pytest.raises(TaskFailed):
            client.result(new, timeout=10)
    old = [id for each in made for id in each if id in {future.id for future in futures}]
    assert sorted(old) == sorted(future.id for future in futures)
    client.purge()


def test_a_requeued_task_keeps_its_options_and_arguments(client: Client) -> None:
    future = client.using(max_retries=0, priority=3).submit("fail", "as it was")
    with pytest.raises(TaskFailed):
        future.result(timeout=10)
    [new] = client.requeue(future.id).values()
    with pytest.raises(TaskFailed, match="as it was"):
        client.result(new, timeout=10)
    assert client.task(new).priority == 3
    assert client.purge() == 2


@pytest.mark.parametrize(
    ("handler", "argument", "attempts"),
    [
        ("ask", "throttled", 2),
        ("ask", "slowly", 2),  # by its base class
        ("ask", "other", 1),
        ("look_up", "key", 1),  # KeyError, by its base class LookupError
    ],
)
def test_the_exception_decides_whether_it_is_tried_again(
    client: Client, handler: str, argument: str, attempts: int
) -> None:
    future = client.using(max_retries=1).submit(handler, argument)
    with pytest.raises(TaskFailed):
        future.result(timeout=10)
    assert client.task(future.id).attempt == attempts
    client.purge(future.id)


def test_retry_says_when_it_wants_to_come_back(client: Client) -> None:
    slow = client.using(retry_backoff_s=30)
    future = slow.submit("come_back", 0.05, 3)
    assert future.result(timeout=10) == 3
    first, second = client.task(future.id).attempts
    assert second.started_at - first.ended_at >= 0.049
    assert first.message == "not yet"
    assert client.using(retry_backoff_s=0.01).run("come_back", None, 2) == 2
    with pytest.raises(TaskFailed, match="not yet"):
        client.using(max_retries=1).run("come_back", 0.0, 5)
    client.purge()


def test_what_would_fail_again_is_not_tried_again(client: Client) -> None:
    future = client.submit("add", wrong=1)
    with pytest.raises(BadArguments):
        future.result(timeout=10)
    assert client.task(future.id).attempt == 1
    client.purge(future.id)


def test_a_death_is_the_tasks_failure_and_tells_how(client: Client) -> None:
    assert client.run("die_once") == 2
    with pytest.raises(WorkerDied, match=r"signal 9 \(SIGKILL\)"):
        client.using(max_retries=0).run("die")
    with pytest.raises(WorkerDied, match=r"signal 11 \(SIGSEGV\)"):
        client.using(max_retries=0).run("die", int(signal.SIGSEGV))
    with pytest.raises(WorkerDied, match="exit code 3"):
        client.using(max_retries=0).run("leave", 3)
    client.purge()


def test_a_task_that_kills_its_workers_is_quarantined(client: Client) -> None:
    future = client.using(max_retries=50).submit("die")
    with pytest.raises(WorkerDied, match=r"quarantined: it killed 3 workers; the last: .*SIGKILL"):
        future.result(timeout=10)
    assert client.task(future.id).attempt == 3
    client.purge(future.id)


def test_a_requeue_while_another_task_holds_the_key_is_refused(client: Client) -> None:
    keyed = client.using(key="the-one", max_retries=0)
    future = keyed.submit("fail", "first")
    with pytest.raises(TaskFailed):
        future.result(timeout=10)
    second = client.using(key="the-one", delay_s=1000).submit("add", 1, 2)
    second.accepted(timeout=10)
    with pytest.raises(WrongState, match="has the same key 'the-one'"):
        client.requeue(future.id)
    assert second.cancel()
    client.purge()
