"""Every error has one stable code, and comes back from it as itself."""

from __future__ import annotations

import copy
import pickle

import pytest

from poolmgr import errors
from poolmgr.errors import PoolError, TaskFailed, TaskTimeout, Unavailable, UsageError

CLASSES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, PoolError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_a_code_leads_back_to_its_class(cls: type[PoolError]) -> None:
    error = errors.from_code(cls.code, "the text")
    assert type(error) is cls
    assert str(error) == "the text"


def test_codes_are_unique_and_words() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes) == len(errors.BY_CODE)
    assert all(code.isidentifier() and code.islower() for code in codes)


PUBLISHED = {
    "already_running",
    "app",
    "bad_arguments",
    "bad_option",
    "bad_result",
    "bad_descriptor",
    "bad_value",
    "cancelled",
    "config",
    "connection_lost",
    "error",
    "expired",
    "id_conflict",
    "interrupted",
    "lost",
    "payload_lost",
    "not_allowed",
    "not_found",
    "chunks_dropped",
    "not_running",
    "out_of_memory",
    "outcome_unknown",
    "payload_too_large",
    "protocol",
    "queue_full",
    "shed",
    "shutting_down",
    "reload_failed",
    "start_failed",
    "store_unavailable",
    "task_failed",
    "timeout",
    "unavailable",
    "unknown_task",
    "usage",
    "version_mismatch",
    "worker_died",
    "wrong_state",
}


def test_codes_are_stable() -> None:
    assert set(errors.BY_CODE) == PUBLISHED


def test_every_class_says_what_to_do() -> None:
    assert all(cls.__doc__ and cls.__doc__ != PoolError.__doc__ for cls in CLASSES if cls is not PoolError)


def test_the_tree_says_who_must_act() -> None:
    for cls in set(CLASSES) - {PoolError}:
        assert sum(issubclass(cls, branch) for branch in (UsageError, Unavailable, TaskFailed)) == 1


def test_an_unknown_code_of_a_newer_peer_is_a_plain_error() -> None:
    error = errors.from_code("out_of_coffee", "the text")
    assert type(error) is PoolError
    assert str(error) == "the text"
    assert type(errors.failure("out_of_coffee", "the text", task_id="ab")) is TaskFailed


def test_a_failure_is_always_a_task_failed() -> None:
    failed = errors.failure("timeout", "ran over 5 s", task_id="ab", type="T", traceback="line 1\n")
    assert type(failed) is TaskTimeout
    assert (failed.message, failed.task_id, failed.type, failed.traceback) == ("ran over 5 s", "ab", "T", "line 1\n")
    assert str(failed) == "T: ran over 5 s\n\nline 1"
    # The scheduler may end a task with the code of another branch, such as unknown_task.
    assert type(errors.failure("unknown_task", "no such handler", task_id="ab")) is TaskFailed


def test_the_text_of_a_failure_leaves_out_what_is_not_known() -> None:
    assert str(TaskFailed("gone")) == "gone"
    assert str(TaskFailed("bad", type="ValueError")) == "ValueError: bad"


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if issubclass(cls, TaskFailed)])
def test_failures_can_be_pickled_and_copied(cls: type[TaskFailed]) -> None:
    failed = cls("bad", task_id="ab", type="ValueError", traceback="line 1")
    for twin in (pickle.loads(pickle.dumps(failed)), copy.copy(failed), copy.deepcopy(failed)):
        assert type(twin) is cls
        assert vars(twin) == vars(failed)
        assert str(twin) == str(failed)
