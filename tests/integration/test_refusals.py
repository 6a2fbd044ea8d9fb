"""What cannot be done is refused, with a code, to whoever asked for it; everybody else goes on."""

from __future__ import annotations

import decimal

import pytest

from poolmgr import Client
from poolmgr.errors import (
    BadArguments,
    BadOption,
    BadResult,
    BadValue,
    NotFound,
    PayloadTooLarge,
    PoolError,
    UnknownTask,
    UsageError,
    WrongState,
)
from poolmgr.wire.messages import PAYLOAD_LIMIT


def test_an_unknown_task_name_is_refused_with_the_nearest(client: Client) -> None:
    future = client.submit("ad", 1, 2)
    for ask in (future.accepted, future.result):
        with pytest.raises(UnknownTask, match=r"unknown task 'ad'; did you mean 'add'\?"):
            ask(timeout=10)
    with pytest.raises(UnknownTask):
        client.run("no_such_thing")
    with pytest.raises(NotFound):
        client.task(future.id)


def test_a_report_as_large_as_a_message_may_be_is_cut_and_costs_nobody(client: Client) -> None:
    size = 64 * 2**20 - 26
    future = client.submit("report_at_length", size)
    assert future.result(timeout=30) == size
    assert client.run("add", 1, 2) == 3


def test_an_unknown_name_is_not_paused(client: Client) -> None:
    with pytest.raises(UnknownTask, match=r"unknown task 'ad'; did you mean 'add'\?"):
        client.pause("ad")


@pytest.mark.parametrize("call", [((), {}), ((1, 2, 3), {}), ((1,), {"c": 3}), ((1, 2), {"a": 1})])
def test_wrong_arguments_fail_the_task_once_and_say_what_is_wrong(
    client: Client, call: tuple[tuple[object, ...], dict[str, object]]
) -> None:
    args, kwargs = call
    future = client.submit("add", *args, **kwargs)
    with pytest.raises(BadArguments, match=r"add\(\)") as raised:
        future.result(timeout=10)
    assert raised.value.type == "TypeError"
    assert client.task(future.id).failures == 1
    client.purge(future.id)


def test_a_type_error_inside_a_handler_is_the_handlers(client: Client) -> None:
    with pytest.raises(PoolError) as raised:
        client.using(max_retries=0).run("add", "text", 1)
    assert raised.value.code == "task_failed"
    assert 'can only concatenate str (not "int") to str' in str(raised.value)
    client.purge()


def test_a_value_that_cannot_be_carried_is_refused_with_its_path(client: Client) -> None:
    with pytest.raises(BadValue, match=r"args\[1\]\['deep'\]\[2\]"):
        client.submit("add", 1, {"deep": [1, 2, object()]})
    with pytest.raises(BadValue, match=r"kwargs\['b'\]|b\["):
        client.submit("add", 1, b=[lambda: None])
    assert client.run("echo", decimal.Decimal("1.20")) == decimal.Decimal("1.20")


def test_a_result_that_cannot_be_carried_fails_the_task_with_its_path(client: Client) -> None:
    future = client.submit("result_of_no_kind")
    with pytest.raises(BadResult, match=r"\['deep'\]\[1\]"):
        future.result(timeout=10)
    assert client.task(future.id).failures == 1
    client.purge(future.id)


@pytest.mark.parametrize("priority", [-1, 101, 1.5, "first", True])
def test_a_priority_out_of_range_is_refused(client: Client, priority: object) -> None:
    with pytest.raises(BadOption, match=r"priority takes a whole number from 0 \(first\) to 100 \(last\)"):
        client.using(priority=priority)


def test_an_unknown_option_is_refused_with_the_nearest(client: Client) -> None:
    with pytest.raises(BadOption, match="did you mean 'timeout_s'"):
        client.using(timeout=3)


def test_a_payload_over_the_limit_is_refused_and_the_connection_lives(client: Client) -> None:
    with pytest.raises(PayloadTooLarge, match="write large data to a file and pass its path"):
        client.submit("size_of", bytes(PAYLOAD_LIMIT + 1))
    assert client.run("size_of", bytes(1000)) == 1000


def test_a_result_over_the_limit_fails_its_task_alone(client: Client) -> None:
    future = client.using(durable=False).submit("zeros", PAYLOAD_LIMIT + 1)
    with pytest.raises(BadResult, match="the limit is"):
        future.result(timeout=30)
    assert client.run("zeros", 10) == bytes(10)
    client.purge()


def test_what_has_no_name_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(UsageError, match="has no name that the daemon's app could know"):
        client.submit(lambda: None)


def test_questions_about_what_is_not_there(client: Client) -> None:
    nothing = "0" * 32
    for ask in (client.task, client.result, client.cancel, client.requeue, client.purge):
        with pytest.raises(NotFound):
            ask(nothing)
    with pytest.raises(NotFound, match="32 hex digits"):
        client.task("nonsense")
    with pytest.raises(NotFound, match="no worker 'worker-99'"):
        client.worker("worker-99")
    with pytest.raises(NotFound):
        client.stop_worker("worker-99")
    with pytest.raises(BadOption):
        client.tasks(state="sleeping")
    with pytest.raises(BadOption):
        client.scale(10_000)


def test_only_dead_tasks_are_requeued(client: Client) -> None:
    future = client.submit("add", 1, 2)
    assert future.result(timeout=10) == 3
    with pytest.raises(WrongState, match="only dead tasks can be requeued"):
        client.requeue(future.id)
