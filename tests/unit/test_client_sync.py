"""The sync client, against a daemon that is a thread of this process."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgpack
import pytest

from poolmgr.client.batches import IN_FLIGHT
from poolmgr.client.dial import check_peer
from poolmgr.client.sync import Client
from poolmgr.errors import (
    BadOption,
    BadValue,
    ConnectionLost,
    NotAllowed,
    NotFound,
    NotRunning,
    PayloadTooLarge,
    PoolError,
    ShuttingDown,
    TaskCancelled,
    TaskFailed,
    TaskTimeout,
    Unavailable,
    UsageError,
    VersionMismatch,
    WrongState,
)
from poolmgr.model import Event
from poolmgr.wire.messages import ERROR, HELLO, PROTOCOL_VERSION, REQUEST, SUBMIT
from poolmgr.wire.values import pack, unpack_call
from tests.unit.client_questions import ID, KEY, QUESTIONS, Asked
from tests.unit.fake_daemon import GRACE_S, FakeDaemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(str(tmp_path / "s")) as running:
        yield running


@pytest.fixture
def pool(daemon: FakeDaemon) -> Iterator[Client]:
    client = Client(daemon.path)
    yield client
    client.close()


def echo(value: object, size: int = 1) -> object:
    return value


def options_of(submit: list[Any]) -> Any:
    return None if submit[4] is None else msgpack.unpackb(submit[4])


# ------------------------------------------------------------------------------------------------- connecting


def test_no_daemon_is_a_clear_error(tmp_path: Path) -> None:
    for place in (tmp_path / "s", tmp_path / "missing" / "s"):
        with pytest.raises(NotRunning, match="poolmgr start"):
            Client(str(place))


def test_a_socket_that_nobody_listens_on_is_no_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "s"))
    with pytest.raises(NotRunning):
        Client(str(tmp_path / "s"))


def test_the_socket_may_come_from_the_environment(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLMGR_SOCKET", daemon.path)
    with Client() as pool:
        assert pool.run("echo", 1) == 1


def test_a_daemon_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with pytest.raises(Unavailable, match="did not answer"):
            Client(str(tmp_path / "s"), timeout_s=0.01)


def test_a_daemon_that_takes_no_connection_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as other:
        full.bind(str(tmp_path / "s"))
        full.listen(0)
        other.connect(str(tmp_path / "s"))
        with pytest.raises(Unavailable, match="did not take the connection"):
            Client(str(tmp_path / "s"), timeout_s=0.01)


@pytest.mark.parametrize("timeout_s", [0.05, 0.0])
def test_signals_do_not_make_a_connection_of_one_that_is_not_taken(tmp_path: Path, timeout_s: float) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as other:
            full.bind(str(tmp_path / "s"))
            full.listen(0)
            other.connect(str(tmp_path / "s"))
            signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
            with pytest.raises(Unavailable, match="did not take the connection"):
                Client(str(tmp_path / "s"), timeout_s=timeout_s)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def test_a_daemon_of_another_version_is_refused(tmp_path: Path) -> None:
    with FakeDaemon(str(tmp_path / "s"), version=PROTOCOL_VERSION + 1) as daemon:
        with pytest.raises(VersionMismatch):
            Client(daemon.path)
        daemon.gone.get(timeout=GRACE_S)


def test_a_directory_of_another_user_is_refused(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(os.path.dirname(daemon.path), 65534, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with pytest.raises(NotAllowed, match="neither you nor root"):
        Client(daemon.path)


def test_a_daemon_of_another_user_is_refused() -> None:
    peer = SimpleNamespace(getsockopt=lambda *_: struct.pack("3i", 1, os.geteuid() + 1, 0))
    with pytest.raises(NotAllowed, match="runs as user"):
        check_peer(cast(socket.socket, peer), "/run/s")
    check_peer(cast(socket.socket, peer), "/run/s", os.geteuid() + 1)


def test_the_daemon_is_told_who_comes(daemon: FakeDaemon) -> None:
    with Client(daemon.path, name="importer"):
        assert daemon.hear(HELLO)[3] == {"name": "importer", "pid": os.getpid(), "many": True}


# ---------------------------------------------------------------------------------------------------- handing over


def test_a_handler_is_named_by_itself_or_by_its_name(daemon: FakeDaemon, pool: Client) -> None:
    named = SimpleNamespace(__poolmgr_task__=SimpleNamespace(name="echo"), __name__="other")
    for handler in (echo, "echo", named):
        assert pool.run(cast(Any, handler), 3) == 3
        assert daemon.hear(SUBMIT)[2] == "echo"


@pytest.mark.parametrize("handler", [lambda: 1, partial(echo, 1), 5])
def test_what_has_no_name_is_refused(pool: Client, handler: Any) -> None:
    with pytest.raises(UsageError, match="no name"):
        pool.submit(handler)


def test_arguments_are_carried_by_place_and_by_name(daemon: FakeDaemon, pool: Client) -> None:
    pool.submit(echo, (1, {"x"}), size=3)
    assert unpack_call(daemon.hear(SUBMIT)[3]) == ([(1, {"x"})], {"size": 3})


def test_a_value_that_cannot_be_carried_is_refused_with_its_path(pool: Client) -> None:
    with pytest.raises(BadValue, match=r"args\[0\]\['x'\]\[1\]"):
        pool.submit(echo, {"x": [1, object()]})
    assert pool.run("echo", 1) == 1


def test_arguments_over_the_limit_are_refused(tmp_path: Path) -> None:
    with FakeDaemon(str(tmp_path / "s"), info={"payload_limit": 100}) as daemon, Client(daemon.path) as pool:
        with pytest.raises(PayloadTooLarge):
            pool.submit("echo", bytes(200))
        assert pool.run("echo", 1) == 1


def test_work_handed_over_is_durable_and_calls_are_not(daemon: FakeDaemon, pool: Client) -> None:
    pool.submit("echo", 1)
    pool.run("echo", 1)
    list(pool.map("echo", [1]))
    assert [options_of(daemon.hear(SUBMIT)) for _ in range(3)] == [None, {"durable": False}, {"durable": False}]


def test_options_are_checked_merged_and_sent(daemon: FakeDaemon, pool: Client) -> None:
    urgent = pool.using(priority=0, retry_on=ValueError).using(delay_s=3, priority=1)
    urgent.submit("echo", 1)
    urgent.run("echo", 1)
    urgent.using(durable=True).run("echo", 1)
    common = {"priority": 1, "retry_on": ["ValueError"], "delay_s": 3.0}
    assert options_of(daemon.hear(SUBMIT)) == common
    assert options_of(daemon.hear(SUBMIT)) == {"durable": False, **common}
    assert options_of(daemon.hear(SUBMIT)) == {"durable": True, **common}
    for wrong in ({"priority": 101}, {"prority": 1}):
        with pytest.raises(BadOption):
            pool.using(**wrong)


def test_run_raises_as_the_task_failed(pool: Client) -> None:
    with pytest.raises(TaskFailed, match="ValueError: boo"):
        pool.run("fail", "boo")


# ------------------------------------------------------------------------------------------------------------ map


def test_map_gives_results_in_the_order_of_its_inputs(daemon: FakeDaemon, pool: Client) -> None:
    assert list(pool.map("echo", range(10_000))) == list(range(10_000))
    assert list(pool.map("echo", "abc", (1, 2), chunksize=1)) == ["a", "b"]
    assert list(pool.map("echo", [])) == []
    assert list(pool.map("echo")) == []


def test_map_knows_how_much_is_left(pool: Client) -> None:
    results = pool.map("echo", range(1000))
    assert len(results) == 1000
    next(results)
    assert len(results) == 999
    assert bool(results)
    assert results.__length_hint__() == 999
    endless = pool.map("echo", itertools.count())
    assert endless.__length_hint__() == 0
    with pytest.raises(TypeError):
        len(endless)


def test_map_reads_its_inputs_as_results_are_taken(pool: Client) -> None:
    read = itertools.count()
    results = pool.map("echo", read)
    assert [next(results) for _ in range(6000)] == list(range(6000))
    assert next(read) <= 6000 + IN_FLIGHT


def test_map_sends_the_first_before_it_is_asked(daemon: FakeDaemon, pool: Client) -> None:
    results = pool.map("echo", [1, 2])
    assert unpack_call(daemon.hear(SUBMIT)[3]) == ([1], {})
    results.close()
    assert list(results) == []


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [((1, 2, object(), 4), BadValue), ((x if x < 3 else 1 // 0 for x in (1, 2, 3)), ZeroDivisionError)],
)
def test_map_raises_at_the_place_of_an_input_that_fails(pool: Client, inputs: Any, kind: type[Exception]) -> None:
    results = pool.map("echo", inputs)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(kind):
        next(results)
    assert list(results) == []


def test_map_ends_with_the_first_failure_and_cancels_the_rest(daemon: FakeDaemon, pool: Client) -> None:
    results = pool.map("fail", ["boo", "later"], chunksize=1)
    with pytest.raises(TaskFailed, match="boo"):
        next(results)
    assert list(results) == []


def test_letting_go_of_a_map_cancels_what_was_not_taken(daemon: FakeDaemon, pool: Client) -> None:
    results = pool.map("hold", range(3))
    keys = {daemon.hear(SUBMIT)[1] for _ in range(3)}
    del results
    assert {daemon.hear(REQUEST)[3]["id"] for _ in range(3)} == keys
    assert pool.run("echo", 1) == 1


def test_a_result_of_map_that_does_not_come_in_time_ends_it(daemon: FakeDaemon, pool: Client) -> None:
    with pytest.raises(TimeoutError):
        list(pool.map("hold", [1], timeout=0.001))
    assert daemon.hear(REQUEST)[2] == "cancel"


def test_a_chunk_has_at_least_one(pool: Client) -> None:
    with pytest.raises(ValueError, match="chunksize"):
        pool.map("echo", [1], chunksize=0)


# ------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked.method)
def test_a_request_is_asked_and_its_answer_read(daemon: FakeDaemon, pool: Client, asked: Asked) -> None:
    daemon.answers[asked.command] = asked.answer
    assert getattr(pool, asked.method)(*asked.args, **asked.kwargs) == asked.returned
    assert daemon.hear(REQUEST)[2:] == [asked.command, asked.arguments]


def test_a_refused_request_raises_its_code(pool: Client) -> None:
    with pytest.raises(NotFound, match="no worker"):
        pool.worker("worker-99")


@pytest.mark.parametrize("wrong", ["", "xyz", "ab", "ab" * 17, None])
def test_what_is_no_id_is_not_found(pool: Client, wrong: Any) -> None:
    with pytest.raises(NotFound, match="32 hex digits"):
        pool.task(wrong)


def test_no_more_tasks_can_be_named_than_a_request_may_carry(pool: Client) -> None:
    with pytest.raises(BadValue, match="at once"):
        pool.purge(*[ID] * 5000)
    with pytest.raises(NotFound, match="no purge"):
        pool.purge(*[ID] * 4096)


def test_scale_takes_numbers_only(pool: Client) -> None:
    with pytest.raises(BadValue, match="scale"):
        pool.scale("many")


def test_the_result_of_a_task_of_another_process_is_waited_for(daemon: FakeDaemon, pool: Client) -> None:
    daemon.ends[KEY] = (22, KEY, pack("done"))
    assert pool.result(ID) == "done"
    daemon.ends[KEY] = (23, KEY, "dead", "timeout", pack({"message": "too long"}))
    with pytest.raises(TaskTimeout, match="too long"):
        pool.result(ID)
    with pytest.raises(TimeoutError):
        pool.result("ff" * 16, timeout=0.001)


def test_the_result_of_a_task_of_this_client_needs_no_question(daemon: FakeDaemon, pool: Client) -> None:
    peer = daemon.peer()
    future = pool.submit("hold", 5)
    daemon.hear(SUBMIT)
    peer.release()
    assert pool.result(future.id) == future.result() == 5


def test_a_daemon_that_does_not_answer_a_request_is_given_up(tmp_path: Path) -> None:
    with FakeDaemon(str(tmp_path / "s")) as daemon:
        pool = Client(daemon.path, timeout_s=0.5)
        daemon.reads.clear()
        with pytest.raises(Unavailable, match="'status'"):
            pool.status()
        pool.close()


# --------------------------------------------------------------------------------------------------------- events


def test_events_come_until_they_are_closed(pool: Client) -> None:
    with pool.events() as events:
        assert next(events) == Event("task-started", 1.5, {"n": 0})
        assert next(events) == Event("task-completed", 1.5, {"n": 1})
        events.close()
        assert list(events) == []
    assert pool.run("echo", 1) == 1


def test_events_may_be_chosen_by_name(pool: Client) -> None:
    with pool.events("task-completed") as events:
        assert next(events).name == "task-completed"


def test_events_end_with_an_error_when_the_daemon_goes(daemon: FakeDaemon, pool: Client) -> None:
    with pool.events("none-of-these") as events:
        daemon.peer()
        daemon.peer().send((ERROR, "shutting_down", "I stop"))
        with pytest.raises(ShuttingDown):
            next(events)


# -------------------------------------------------------------------------------------------------------- the end


def test_leaving_the_block_waits_until_everything_is_acknowledged(daemon: FakeDaemon) -> None:
    with Client(daemon.path) as pool:
        futures = [pool.submit("swallow") for _ in range(100)]
    for future in futures:
        future.accepted(timeout=0)
        with pytest.raises(ConnectionLost, match="is safe"):
            future.result()


def test_flush_gives_up_in_time(daemon: FakeDaemon, pool: Client) -> None:
    pool.flush()
    daemon.acknowledges = False
    pool.submit("echo", 1)
    with pytest.raises(TimeoutError):
        pool.flush(timeout=0.001)


def test_flush_raises_when_the_connection_breaks_before(daemon: FakeDaemon, pool: Client) -> None:
    daemon.acknowledges = False
    pool.submit("garbage")
    with pytest.raises(PoolError):
        pool.flush()


def test_a_call_that_was_under_way_is_cancelled_by_close(pool: Client) -> None:
    future = pool.using(durable=False).submit("hold", 1)
    pool.close()
    with pytest.raises(TaskCancelled):
        future.result()
    assert future.cancelled()


def test_cancel_is_true_only_if_the_task_never_began(pool: Client) -> None:
    assert pool.submit("hold", 1).cancel()
    assert not pool.submit("swallow").cancel()
    ends = pool.submit("hold", "begun")
    assert not ends.cancel(), "its end comes with the answer, and does not take its place"
    assert ends.cancelled()


def test_a_closed_client_says_so(pool: Client) -> None:
    pool.close()
    pool.close()
    for attempt in (lambda: pool.run("echo", 1), pool.status, pool.events, lambda: pool.submit("echo")):
        with pytest.raises(WrongState, match="closed"):
            attempt()


def test_the_next_call_after_the_daemon_came_back_works(daemon: FakeDaemon) -> None:
    with Client(daemon.path, reconnect_s=0) as pool:
        lost = pool.submit("swallow")
        daemon.stop()
        with pytest.raises(ConnectionLost):
            lost.result()
        with pytest.raises(NotRunning):
            pool.run("echo", 1)
        with FakeDaemon(daemon.path):
            assert pool.run("echo", 1) == 1


def test_a_forked_child_makes_its_own_connection(daemon: FakeDaemon, pool: Client) -> None:
    pending = pool.submit("hold", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks while there are threads
        child = os.fork()
    if not child:
        try:
            right = pool.run("echo", 5) == 5 and isinstance(pending.exception(), ConnectionLost)
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.run("echo", 6) == 6
    assert not pending.done()


def test_a_client_without_futures_does_not_import_them() -> None:
    program = "import sys, poolmgr.client.sync; print(*sorted({'asyncio', 'concurrent', 'logging'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
