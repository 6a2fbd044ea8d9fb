"""Payloads in parts are the payloads that they are as a whole."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolmgr.errors import BadValue, PayloadTooLarge
from poolmgr.wire import values
from poolmgr.wire.messages import PAYLOAD_LIMIT

LARGE = bytes(range(256)) * 160  # 40 KB
ARRAY = numpy.arange(20_000, dtype="<i4").reshape(100, 200)


class Source:
    """A payload in a file, without the file."""

    def __init__(self, content: bytes, size: int | None = None) -> None:
        self._content = content
        self.size = len(content) if size is None else size
        self.most = 0  # bytes that were read at once

    def read(self, offset: int, count: int) -> bytes:
        self.most = max(self.most, count)
        return self._content[offset : offset + count]

    def read_own(self, offset: int, count: int) -> bytearray:
        return bytearray(self.read(offset, count).ljust(count, b"\0"))


VALUES: list[Any] = [
    LARGE,
    [LARGE],
    [1, LARGE, "x", None, [LARGE, b"short", [LARGE, 2.5]], {"a": (1, 2)}],
    [LARGE] * 20,
    [*range(30), LARGE],
]


@pytest.mark.parametrize("value", VALUES)
def test_the_parts_of_a_value_are_the_value(value: Any) -> None:
    found = values.value_parts(value)
    assert found is not None
    assert any(each is LARGE for each in found)  # not a copy
    whole = b"".join(found)
    assert whole == values.pack(value)
    assert values.read(Source(whole)) == value


def test_what_comes_back_as_something_else_does_so_in_parts_too() -> None:
    for value in (bytearray(LARGE), memoryview(LARGE), [bytearray(LARGE)]):
        found = values.value_parts(value)
        assert found is not None
        assert b"".join(found) == values.pack(value)
    assert values.value_parts(memoryview(LARGE)[::2]) is None
    assert values.value_parts(memoryview(LARGE).cast("I")) is None


def test_a_call_in_parts_is_the_call() -> None:
    for args, kwargs in (((LARGE,), {}), ((1, LARGE), {"size": 3}), ((LARGE, [LARGE]), {"x": LARGE})):
        found = values.call_parts(args, kwargs)
        assert found is not None
        whole = b"".join(found)
        assert whole == values.pack_call(args, kwargs)
        assert values.read_call(Source(whole)) == ([*args], kwargs)
    assert values.call_parts((1, b"short", [2]), {"x": 1}) is None
    assert values.call_parts((), {"x": LARGE}) is None  # packed as a whole


def test_large_binaries_are_read_by_themselves_and_can_be_written_to() -> None:
    whole = values.pack_call((b"first", LARGE, [LARGE]), {})
    [first, second, [third]], _ = values.read_call(Source(whole), writable=True)
    assert (type(first), type(second), type(third)) == (bytes, bytearray, bytearray)
    assert second == third == LARGE
    source = Source(whole)
    values.read_call(source)
    assert source.most == len(LARGE)


@pytest.mark.parametrize("array", [ARRAY, ARRAY.astype("<f8"), numpy.zeros((3, 0, 2)), ARRAY.T, ARRAY[::2, ::3]])
def test_arrays_are_written_from_where_they_are(array: Any) -> None:
    whole = values.pack_call((array, 5), {})
    found = values.call_parts((array, 5), {})
    if found is not None:
        assert b"".join(found) == whole
    [back, five], _ = values.read_call(Source(whole))
    assert five == 5
    assert back.dtype == array.dtype
    assert numpy.array_equal(back, array)
    back[...] = 0  # it is the handler's own


def test_what_cannot_be_packed_is_refused_with_the_path_to_it() -> None:
    with pytest.raises(BadValue, match=r"args\[1\]\[0\]: cannot carry a value of type object"):
        values.call_parts((LARGE, [object()]), {})
    with pytest.raises(PayloadTooLarge):
        values.value_parts([bytes(PAYLOAD_LIMIT)])
    with pytest.raises(BadValue, match="dtype object"):
        values.value_parts(numpy.array([object()] * 10_000))


def test_what_is_not_large_but_much_is_read_as_a_whole() -> None:
    for value in ([[number] for number in range(50_000)], {"x": LARGE}, "text" * 50_000, [("x", LARGE)]):
        whole = values.pack(value)
        assert values.read(Source(whole)) == value


def test_a_damaged_payload_is_an_error() -> None:
    whole = values.pack_call((1, LARGE, "x"), {"y": 2})
    for source in (
        Source(whole[:-1]),
        Source(whole + b"\x01"),
        Source(b"\xc1" + whole),
        Source(whole[:90], len(whole)),
    ):
        with pytest.raises(BadValue):
            values.read_call(source)
    with pytest.raises(BadValue, match="array of its arguments"):
        values.read_call(Source(values.pack(LARGE)))
    with pytest.raises(BadValue):
        values.read(Source(b""))


LEAVES = st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=9) | st.binary(max_size=9) | st.just(LARGE)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=5), max_leaves=20)


@settings(max_examples=200)
@given(TREES)
def test_any_value_is_the_same_in_parts(value: Any) -> None:
    whole = values.pack(value)
    found = values.value_parts(value)
    assert found is None or b"".join(found) == whole
    assert values.read(Source(whole)) == value


@settings(max_examples=300)
@given(st.lists(LEAVES | st.just([LARGE, [1]]), max_size=4), st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_whatever_is_read_it_is_a_value_or_an_error(args: list[Any], at: int, byte: int, cut: bool) -> None:
    whole = bytearray(values.pack_call(tuple(args), {}))
    at %= min(len(whole), 200)
    whole[at] = byte
    content = bytes(whole[:at] if cut else whole)
    try:
        expected: Any = values.unpack(content)
    except BadValue:
        expected = BadValue
    try:
        found: Any = values.read(Source(content))
    except BadValue:
        found = BadValue
    if repr(found) != repr(expected):  # which tells NaN from nothing else
        # What is there once as a whole may have more behind it, or less, than what is read by its parts.
        assert BadValue in (found, expected)
