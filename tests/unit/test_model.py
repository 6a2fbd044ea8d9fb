"""Options are checked by name, type and range; infos survive the way over the wire."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolmgr import model
from poolmgr.errors import BadOption
from poolmgr.model import (
    AttemptInfo,
    TaskInfo,
    TaskOptions,
    TaskState,
    WorkerInfo,
    WorkerState,
    as_map,
    check_options,
    exception_name,
    new_task_id,
    task_info,
    to_wire,
    worker_info,
)


class Throttled(Exception):
    pass


# ------------------------------------------------------------------------------- task ids


def test_task_ids_are_16_bytes_that_begin_with_the_wall_time() -> None:
    before = time.time_ns() // 1_000_000
    task_id = new_task_id()
    after = time.time_ns() // 1_000_000
    assert len(task_id) == 16
    assert before <= int.from_bytes(task_id[:6], "big") <= after
    assert len({new_task_id() for _ in range(1000)}) == 1000


# ------------------------------------------------------------------------------- options

ACCEPTED: list[tuple[str, Any, Any]] = [
    ("priority", 0, 0),
    ("priority", 100, 100),
    ("timeout_s", 5, 5.0),
    ("timeout_s", None, None),
    ("timeout_s", 0, None),
    ("soft_timeout_s", 0.5, 0.5),
    ("max_retries", 0, 0),
    ("retry_backoff_s", 0, 0.0),
    ("max_backoff_s", 2, 2.0),
    ("retry_on", ValueError, frozenset({"ValueError"})),
    ("retry_on", (OSError, "app.Throttled"), frozenset({"OSError", "app.Throttled"})),
    ("retry_on", [], frozenset()),
    ("retry_on", None, None),
    ("no_retry_on", {Throttled}, frozenset({f"{__name__}.Throttled"})),
    ("no_retry_on", None, frozenset()),
    ("requires", "gpu", frozenset({"gpu"})),
    ("requires", ["gpu", "big"], frozenset({"gpu", "big"})),
    ("affinity", "model-7", "model-7"),
    ("affinity", None, None),
    ("group", "tenant", "tenant"),
    ("key", "k", "k"),
    ("delay_s", 3, 3.0),
    ("at", 1e9, 1e9),
    ("at", datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC), 1e9),
    ("at", None, None),
    ("expires_s", 60, 60.0),
    ("expires_s", 0, None),
    ("durable", False, False),
    ("restartable", True, True),
    ("sheddable", True, True),
    ("memory_limit_mb", 64, 64),
    ("memory_limit_mb", 0, None),
    ("ephemeral", True, True),
    ("rate_limit", "20/m", (20, 60.0)),
    ("rate_limit", "1 / s", (1, 1.0)),
    ("rate_limit", (5, 2), (5, 2.0)),
    ("rate_limit", [5, 0.5], (5, 0.5)),
    ("rate_limit", None, None),
    ("max_concurrency", 3, 3),
    ("max_queued", 3, 3),
    ("result_ttl_s", 0, 0.0),
]

REFUSED: list[tuple[str, Any]] = [
    ("priority", -1),
    ("priority", 101),
    ("priority", 1.0),
    ("priority", True),
    ("priority", "10"),
    ("timeout_s", -1),
    ("timeout_s", "5"),
    ("timeout_s", True),
    ("timeout_s", float("nan")),
    ("timeout_s", float("inf")),
    ("soft_timeout_s", -0.1),
    ("max_retries", -1),
    ("max_retries", 1.5),
    ("max_retries", None),
    ("retry_backoff_s", None),
    ("max_backoff_s", float("inf")),
    ("retry_on", 5),
    ("retry_on", [5]),
    ("no_retry_on", [""]),
    ("requires", 5),
    ("requires", None),
    ("requires", [None]),
    ("affinity", 5),
    ("affinity", ""),
    ("group", b"bytes"),
    ("key", 5),
    ("key", ("k",)),
    ("key", ("k", -1)),
    ("key_window_s", -1),
    ("delay_s", -1),
    ("delay_s", None),
    ("delay_s", 10**400),
    ("max_retries", 10**30),
    ("rate_limit", "²/m"),
    ("rate_limit", "1" * 5000 + "/m"),
    ("rate_limit", (5, float("nan"))),
    ("retry_on", 0),
    ("no_retry_on", False),
    ("at", "tomorrow"),
    ("at", float("-inf")),
    ("expires_s", "soon"),
    ("durable", 1),
    ("restartable", None),
    ("sheddable", "no"),
    ("memory_limit_mb", 0.5),
    ("ephemeral", 0),
    ("rate_limit", "20"),
    ("rate_limit", "20/y"),
    ("rate_limit", "0/m"),
    ("rate_limit", "-1/m"),
    ("rate_limit", (5, 0)),
    ("rate_limit", (True, 1)),
    ("rate_limit", (5,)),
    ("rate_limit", 20),
    ("max_concurrency", -1),
    ("max_queued", -1),
    ("result_ttl_s", -1),
]


@pytest.mark.parametrize(("name", "given_value", "held"), ACCEPTED)
def test_an_option_is_brought_into_the_form_that_is_held(name: str, given_value: Any, held: Any) -> None:
    checked = check_options({name: given_value})
    assert checked == {name: held}
    assert type(checked[name]) is type(held)
    assert getattr(TaskOptions().override({name: given_value}), name) == held


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(BadOption, match=name):
        check_options({name: value})


def test_every_option_is_checked_and_tested() -> None:
    names = set(TaskOptions._fields)
    assert set(model._CHECKS) == names
    assert {name for name, _, _ in ACCEPTED} | {"key_window_s"} == names
    assert {name for name, _ in REFUSED} == names


def test_a_key_may_bring_its_window() -> None:
    assert check_options({"key": ("k", 60)}) == {"key": "k", "key_window_s": 60.0}
    assert check_options({"key": ["k", 0.5]}) == {"key": "k", "key_window_s": 0.5}


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadOption, match=r"unknown task option 'priorty'; did you mean 'priority'\?"):
        check_options({"priorty": 1})
    with pytest.raises(BadOption, match=r"did you mean 'timeout_s'\?"):
        check_options({"timeout": 1})
    with pytest.raises(BadOption, match=r"unknown task option 'xyzzy'; the options are priority, timeout_s, "):
        check_options({"xyzzy": 1})


def test_override_keeps_the_rest() -> None:
    options = TaskOptions(priority=3, group="a").override({"priority": 5, "durable": False})
    assert options == TaskOptions(priority=5, group="a", durable=False)
    assert options.override({}) is options


def test_options_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        TaskOptions().priority = 5  # type: ignore[misc]


@given(st.dictionaries(st.sampled_from(list(model._CHECKS)), st.none() | st.integers() | st.text() | st.floats()))
def test_any_options_are_checked_or_refused(changes: dict[str, Any]) -> None:
    try:
        checked = check_options(changes)
    except BadOption:
        return
    assert check_options(checked) == checked


@pytest.mark.parametrize(("name", "given_value", "held"), ACCEPTED)
def test_options_survive_the_wire(name: str, given_value: Any, held: Any) -> None:
    sent = msgpack.unpackb(msgpack.packb(to_wire(check_options({name: given_value}))))
    assert TaskOptions().override(sent) == TaskOptions().override({name: given_value})


def test_equal_options_are_equal_on_the_wire() -> None:
    names = [f"capability-{number}" for number in range(20)]
    assert to_wire(check_options({"requires": names})) == to_wire(check_options({"requires": names[::-1]}))


def test_exceptions_are_known_by_their_qualified_names() -> None:
    assert exception_name(ValueError) == "ValueError"
    assert exception_name(Throttled) == f"{__name__}.Throttled"
    assert exception_name(json.JSONDecodeError) == "json.decoder.JSONDecodeError"


# ------------------------------------------------------------------------------- infos

ATTEMPT = AttemptInfo(1, "worker-3", 10.0, 11.0, "task_failed", "ValueError", "bad", "line 1")
TASK = TaskInfo("ab" * 16, "add", TaskState.DEAD, durable=True, attempt=1, ended_at=11.0, attempts=(ATTEMPT, ATTEMPT))
WORKER = WorkerInfo("worker-3", 123, WorkerState.BUSY, healthy=True, capabilities=("gpu",), uptime_s=1.5)


@pytest.mark.parametrize("carry", [lambda found: json.loads(json.dumps(found)), lambda found: packed(found)])
def test_infos_survive_json_and_messagepack(carry: Any) -> None:
    task = task_info(carry(as_map(TASK)))
    assert task == TASK
    assert type(task.state) is TaskState
    worker = worker_info(carry(as_map(WORKER)))
    assert worker == WORKER
    assert type(worker.state) is WorkerState
    assert type(worker.capabilities) is tuple


def packed(found: Any) -> Any:
    return msgpack.unpackb(msgpack.packb(found))


def test_maps_hold_every_field_as_a_plain_value() -> None:
    found = as_map(TASK)
    assert set(found) == set(TaskInfo._fields)
    assert found["state"] == "dead"
    assert found["attempts"] == [as_map(ATTEMPT)] * 2
    assert set(as_map(WORKER)) == set(WorkerInfo._fields)


def test_what_a_newer_peer_adds_is_left_out() -> None:
    newer = as_map(TASK) | {"colour": "red"}
    newer["attempts"] = [as_map(ATTEMPT) | {"colour": "red"}] * 2
    assert task_info(newer) == TASK
    assert worker_info(as_map(WORKER) | {"colour": "red"}) == WORKER


def test_what_an_older_peer_leaves_out_has_its_default() -> None:
    assert task_info({"id": "ab", "name": "add", "state": "queued"}) == TaskInfo("ab", "add", TaskState.QUEUED)
    least = {"id": "worker-0", "pid": None, "state": "failed", "healthy": False}
    assert worker_info(least) == WorkerInfo("worker-0", None, WorkerState.FAILED, healthy=False)


def test_the_final_states_are_four() -> None:
    assert {"completed", "dead", "cancelled", "expired"} == model.FINAL


def test_the_priority_bands_cover_everything_once() -> None:
    covered = [number for _, first, last in model.PRIORITY_BANDS for number in range(first, last + 1)]
    assert covered == list(range(101))
