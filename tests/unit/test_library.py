"""What names stand for is remembered, and found changed, whether or not a dictionary can tell that it was."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from poolmgr.worker import library
from poolmgr.worker.library import Bindings, Library


@pytest.fixture(params=["versions", "compared"])
def namespace(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A module's namespace; in the second round of one that cannot tell whether it was changed."""
    if request.param == "compared":
        monkeypatch.setattr(library, "_HAS_VERSIONS", False)
    module = types.ModuleType("some_module")
    vars(module).update(first=len, second=print)
    return vars(module)


def test_what_is_as_it_was_is_not_changed(namespace: dict[str, Any]) -> None:
    bindings = Bindings(namespace, ["first", "second"])
    assert bindings.changed() == "" == bindings.changed()


def test_a_name_that_stands_for_something_else(namespace: dict[str, Any]) -> None:
    bindings = Bindings(namespace, ["first", "second"])
    namespace["second"] = max
    assert bindings.changed() == "second" == bindings.changed()


def test_a_name_that_is_gone(namespace: dict[str, Any]) -> None:
    bindings = Bindings(namespace, ["first", "second"])
    del namespace["first"]
    assert bindings.changed() == "first"


def test_what_is_new_is_no_change_and_hides_none(namespace: dict[str, Any]) -> None:
    bindings = Bindings(namespace, ["first", "second"])
    namespace["third"] = max
    assert bindings.changed() == ""
    namespace["first"] = max
    assert bindings.changed() == "first"


def test_what_was_put_back_can_be_changed_again(namespace: dict[str, Any]) -> None:
    bindings = Bindings(namespace, ["first", "second"])
    namespace["first"] = max
    bindings.put_back()
    assert bindings.changed() == ""
    assert namespace["first"] is len
    namespace["first"] = min
    assert bindings.changed() == "first"


def test_a_module_whose_attribute_is_set(namespace: dict[str, Any]) -> None:
    module = types.ModuleType("another")
    vars(module).update(work=len, rest=print)
    bindings = Bindings(vars(module), ["work", "rest"])

    def patch() -> None:
        module.work = max  # type: ignore[attr-defined]

    for _ in range(100):  # also as the interpreter does it once it has specialised that
        patch()
        assert bindings.changed() == "work"
        bindings.put_back()
        assert bindings.changed() == ""


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="CPython has no version of a dictionary any more")
def test_this_python_can_tell_without_comparing() -> None:
    assert library._HAS_VERSIONS


def test_the_library_knows_the_modules_and_what_is_replaced_the_most() -> None:
    remembered = Library()
    assert remembered.modules.changed() == ""
    assert {"builtins", "os", "time"} <= {name for name, _ in remembered.functions}
