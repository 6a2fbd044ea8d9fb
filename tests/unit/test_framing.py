"""Any split of a stream gives the same messages; whatever a peer sends, it is messages or a ProtocolError."""

from __future__ import annotations

import ctypes
import mmap
import re
import tracemalloc
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolmgr import errors
from poolmgr.errors import PayloadTooLarge, ProtocolError
from poolmgr.wire import extensions, messages
from poolmgr.wire.framing import ANSWER, ENVELOPE, READ_BYTES, Decoder, Limits, encode, encoder, read_buffer
from poolmgr.wire.messages import FRAME_LIMIT

SUBMIT = [messages.SUBMIT, bytes(16), "add", b"\x91\x92\x01\x02", None, True]

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.binary(), inner, max_size=4),
    max_leaves=8,
)
some_messages = st.lists(
    st.builds(lambda number, rest: [number, *rest], st.integers(0, 200), st.lists(plain, max_size=5)), max_size=8
)


def feed_all(decoder: Decoder, stream: bytes, cuts: list[int]) -> list[list[Any]]:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [message for start, end in pairwise(edges) for message in decoder.feed(stream[start:end])]


# ------------------------------------------------------------------------------- what comes out


def test_a_read_with_one_message_with_many_and_with_none() -> None:
    decoder = Decoder()
    assert decoder.feed(encode(SUBMIT)) == [SUBMIT]
    assert decoder.feed(encode(SUBMIT) * 3) == [SUBMIT] * 3
    assert decoder.feed(b"") == []
    assert decoder.feed(encode(SUBMIT)[:7]) == []
    assert decoder.feed(encode(SUBMIT)[7:] + encode([1])) == [SUBMIT, [1]]


@given(some_messages, st.lists(st.integers(0, 400), max_size=12))
@settings(max_examples=100)
def test_any_split_gives_the_same_messages(sent: list[list[Any]], cuts: list[int]) -> None:
    stream = b"".join(map(encode, sent))
    assert feed_all(Decoder(), stream, cuts) == sent
    assert feed_all(Decoder(), stream, list(range(len(stream)))) == sent


def test_views_of_a_buffer_will_do() -> None:
    buffer = bytearray(encode(SUBMIT) * 2)
    found = Decoder().feed(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert found == [SUBMIT] * 2


def test_a_tuple_is_sent_as_an_array() -> None:
    assert encode((1, ("a", b"b"))) == msgpack.packb([1, ["a", b"b"]])
    assert encoder()([1, {"a": [None]}]) == msgpack.packb([1, {"a": [None]}])


def test_a_large_message_in_many_reads() -> None:
    large = [messages.DONE, 1, 0.0, 0.0, bytes(3 << 20)]
    stream = encode(large) + encode(SUBMIT)
    decoder = Decoder()
    before = decoder._unpacker
    assert feed_all(decoder, stream, list(range(0, len(stream), 1 << 16))) == [large, SUBMIT]
    assert decoder._unpacker is not before  # the large buffer is given back
    assert feed_all(decoder, stream, list(range(0, len(stream), 1 << 16))) == [large, SUBMIT]


def test_large_messages_come_whole_however_they_are_cut() -> None:
    """One that is all of a read takes a way of its own, which ends where others come with it."""
    large = [messages.DONE, 1, 0.0, 0.0, bytes(40_000)]
    one, other = encode(large), encode(SUBMIT)
    for reads in (
        [one, one, one], [one, other, one], [one + one, one, one], [one[:-5], one[-5:], one], [other, one + other, one],
        [one + one[:35_000], one[35_000:], one], [one[:100], one[100:] + one, other, one],
    ):  # fmt: skip
        decoder = Decoder()
        found = [message for read in reads for message in decoder.feed(memoryview(read))]
        assert b"".join(map(encode, found)) == b"".join(reads)


def test_what_looks_like_a_large_message_within_another_is_none() -> None:
    """A read may end between two elements, and the next element may be all of the next read."""
    inner = [1 << 40, *range(1 << 40, (1 << 40) + 4000)]
    large, other = encode([messages.RECALLED, inner]), encode(SUBMIT)
    assert encode(inner) == large[2:]
    for before in (b"", other, other * 3, large):
        for cut in range(1, 40):
            stream = before + large + other
            decoder = Decoder()
            reads = (stream[: len(before) + cut], stream[len(before) + cut : -len(other)], other)
            found = [message for read in reads for message in decoder.feed(read)]
            assert b"".join(map(encode, found)) == stream


@pytest.mark.parametrize("first", [True, False])
def test_what_is_wrong_with_a_large_message_is_found(first: bool) -> None:
    large = bytes(40_000)
    for garbage in (
        encode(["no number", large]),
        encode([1, large])[:-40_000] + b"\xc1" * 40_000 + b"\xc1",
        msgpack.packb({1: large}),
        msgpack.packb([1, large, msgpack.ExtType(5, b"x")]),
        msgpack.packb([1, large, list(range(5000))]),
        msgpack.packb([1, large, {1: 2}]),
    ):
        decoder = Decoder()
        if first:
            assert len(decoder.feed(encode([1, large]))) == 1
        with pytest.raises(ProtocolError):
            decoder.feed(garbage)
        with pytest.raises(ProtocolError):
            decoder.feed(encode([1]))


def test_what_nobody_would_accept_is_not_encoded() -> None:
    with pytest.raises(PayloadTooLarge, match="exceeds the frame limit of 64 MB"):
        encode([1, bytes(FRAME_LIMIT)])
    assert encode([1]) == b"\x91\x01"


def test_the_longest_payload_fits_a_frame() -> None:
    stream = encode([messages.SUBMIT, bytes(16), "n" * 1000, bytes(messages.PAYLOAD_LIMIT), b"o" * 1000, True])
    decoder = Decoder()
    step = 1 << 20
    found = [message for at in range(0, len(stream), step) for message in decoder.feed(stream[at : at + step])]
    assert len(found) == 1


# ------------------------------------------------------------------------------- what is refused

GARBAGE = {
    "a byte that MessagePack never uses": b"\xc1",
    "a number": b"\x01",
    "a map": b"\x81\xa1a\x01",
    "an empty array": b"\x90",
    "an array that begins with a string": b"\x91\xa1a",
    "an array that begins with true": b"\x91\xc3",
    "an array that begins with a float": b"\x91\xcb" + bytes(8),
    "text that is no UTF-8": b"\x92\x01\xa1\xff",
    "an int as a key": b"\x92\x01\x81\x01\x01",
    "an array as a key": b"\x92\x01\x81\x90\x01",
    "an empty extension value": b"\x92\x01\xc7\x00\x05",
    "an extension value": b"\x92\x01\xd4\x05\x00",
    "a timestamp": b"\x92\x01\xd6\xff\x00\x00\x00\x00",
    "an array of 2**32 - 1": b"\x92\x01\xdd\xff\xff\xff\xff",
    "a map of 2**32 - 1": b"\x92\x01\xdf\xff\xff\xff\xff",
    "an array over the limit": b"\x92\x01\xdc\x10\x01",
    "nesting without end": b"\x92\x01" + b"\x91" * 5000,
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_breaks_the_stream(garbage: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(encode(SUBMIT)) == [SUBMIT]
    with pytest.raises(ProtocolError) as caught:
        decoder.feed(encode([1]) + encode([2]) + garbage + encode([3]))
    assert decoder.complete == [[1], [2]]
    assert len(str(caught.value)) < 300
    with pytest.raises(ProtocolError, match=re.escape(str(caught.value))):
        decoder.feed(encode([4]))


def test_the_text_says_what_is_wrong() -> None:
    with pytest.raises(ProtocolError, match="begins with a number, got one that begins with str"):
        Decoder().feed(b"\x91\xa1a")
    with pytest.raises(ProtocolError, match="begins with a number, got an empty one"):
        Decoder().feed(b"\x90")
    with pytest.raises(ProtocolError, match="begins with a number, got int"):
        Decoder().feed(b"\x01")
    with pytest.raises(ProtocolError, match="extension type 5 outside of a payload"):
        Decoder().feed(b"\x92\x01\xc7\x00\x05")


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
@settings(max_examples=200)
def test_random_bytes_are_messages_or_a_protocol_error(stream: bytes, cuts: list[int]) -> None:
    check_untrusted(stream, cuts)


@given(some_messages, st.integers(0, 400), st.integers(0, 255), st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=100)
def test_one_wrong_byte_is_messages_or_a_protocol_error(
    sent: list[list[Any]], place: int, byte: int, cuts: list[int]
) -> None:
    stream = bytearray(b"".join(map(encode, sent)))
    if stream:
        stream[place % len(stream)] = byte
    check_untrusted(bytes(stream), cuts)


def check_untrusted(stream: bytes, cuts: list[int]) -> None:
    decoder = Decoder()
    try:
        found = feed_all(decoder, stream, cuts)
    except ProtocolError:
        found = decoder.complete
    for message in found:
        assert type(message) is list
        assert type(message[0]) is int


def test_a_client_takes_longer_lists_than_a_daemon() -> None:
    answer = encode([messages.RESPONSE, 1, list(range(5000))])
    assert Decoder(ANSWER).feed(answer)[0][2] == list(range(5000))
    with pytest.raises(ProtocolError, match="5000 exceeds max_array_len"):
        Decoder(ENVELOPE).feed(answer)


# ------------------------------------------------------------------------------- what it may cost

SMALL = Limits(frame_bytes=64 << 10, items=4096, structure_bytes=8 << 10)


@pytest.mark.parametrize(
    "begin", [b"\x92\x01\xc6\xff\xff\xff\xff", b"\x92\x01\xdb\xff\xff\xff\xff", b"\xdc\x10\x00\x01"]
)
def test_a_declared_length_allocates_nothing(begin: bytes) -> None:
    tracemalloc.start()
    try:
        decoder = Decoder()
        assert decoder.feed(begin) == []
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def fed_before_the_error(begin: bytes, part: bytes, message: str) -> int:
    """How many bytes a decoder with small limits takes of a message that does not end."""
    decoder = Decoder(SMALL)
    fed = []

    def feed_on() -> None:
        for data in chain([begin], repeat(part, 1 << 10)):
            fed.append(len(data))
            assert decoder.feed(data) == []

    with pytest.raises(ProtocolError, match=message):
        feed_on()
    return sum(fed)


def test_a_binary_without_end_is_cut_off_at_the_frame_limit() -> None:
    fed = fed_before_the_error(b"\x92\x01\xc6\xff\xff\xff\xff", bytes(1024), "exceeds the frame limit")
    assert SMALL.frame_bytes < fed <= SMALL.frame_bytes + 2048


@pytest.mark.parametrize("item", [b"\x90", b"\xa1a", b"\xc4\x00", b"\x01", b"\x80"])
def test_structure_without_end_is_cut_off_much_sooner(item: bytes) -> None:
    fed = fed_before_the_error(b"\xdc\x10\x00\x01", b"\xdc\x01\x00" + item * 256, "beside its payload")
    assert fed <= SMALL.structure_bytes + 2048


def test_binaries_are_no_structure() -> None:
    sent = [[messages.SUBMIT, bytes(16), "add", bytes(20 << 10), bytes(20 << 10), True]] * 3
    stream = b"".join(map(encode, sent))
    for step in (100, 1024, 5000):
        decoder = Decoder(SMALL)
        found = [message for at in range(0, len(stream), step) for message in decoder.feed(stream[at : at + step])]
        assert found == sent


def test_a_read_buffer_begins_with_a_page_and_is_empty() -> None:
    buffer = read_buffer()
    assert len(buffer) == READ_BYTES
    assert ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % mmap.PAGESIZE == 0
    assert not any(buffer)


# ------------------------------------------------------------------------------- docs/protocol.md says the same

ROOT = Path(__file__).parents[2]


def document() -> str:
    return (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8").replace("\\|", "|")


def test_the_document_has_every_message_in_its_shape() -> None:
    source = Path(messages.__file__).read_text()
    declared = re.findall(r"^([A-Z_]+): Final = (\d+)  # (\[.*\])(?:  |$)", source, re.MULTILINE)
    limits = {
        "PROTOCOL_VERSION",
        "CREDIT_BY_DEFAULT",
        "CREDIT_BYTES_BY_DEFAULT",
        *(name for name in vars(messages) if name.endswith("_LIMIT")),
    }
    assert {name for name, _, _ in declared} == {name for name in vars(messages) if name.isupper()} - limits
    rows = set(re.findall(r"^\| (\d+) \| `(\[.*?\])` \|", document(), re.MULTILINE))
    assert rows == {(number, shape) for _, number, shape in declared}


def test_the_document_has_every_extension_type() -> None:
    section = document().partition("\n## Values\n")[2]
    rows = {int(code) for code in re.findall(r"^\| (-?\d+) \| [a-zA-Z]", section, re.MULTILINE)}
    assert rows == extensions.DECODERS.keys() | {-1}


def test_the_document_has_every_error_code() -> None:
    listed = set(re.findall(r"^\| `([a-z_]+)` \| [A-Z][a-z]+ \| ", document(), re.MULTILINE))
    assert listed == set(errors.BY_CODE)
