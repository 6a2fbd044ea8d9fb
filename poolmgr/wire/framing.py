"""A stream of bytes as messages, and back. No I/O here: bytes in, messages out.

There is no length prefix, because MessagePack delimits itself: one message is one array whose first element is an int,
and the next one follows directly (messages.py lists them).

A ``Decoder`` takes whatever a read returned. It trusts nobody: whatever a peer may send, what comes out is messages or
a ``ProtocolError``, and what it costs is bounded by ``Limits``.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from msgpack import OutOfData, Packer, Unpacker, unpackb

from poolmgr.errors import PayloadTooLarge, ProtocolError
from poolmgr.wire.messages import FRAME_LIMIT, PAYLOAD_LIMIT
from poolmgr.wire.parts import LARGE_BYTES, Part, bin_head

READ_BYTES: Final = 256 * 1024  # that one read takes at most, of whatever messages come from
_KEEP_BYTES: Final = 1 << 20  # msgpack's buffers only grow: one that served a larger message is dropped
# What a decoder's buffer begins with. msgpack writes through all of it again and again, so all of it becomes resident;
# its default is 1 MB, for each peer.
_BUFFER_BYTES: Final = 1 << 16


def read_buffer() -> memoryview:
    """Room for what one read takes, to be used for each. It takes no memory but where it has been written to.

    It is a mapping of its own because that begins with a page. What malloc makes of so much begins 16 bytes behind one,
    and there a processor of AMD's Zen family copies from the pages of a pipe at a quarter of its speed (53 us for 64
    KiB, in place of 13).
    """
    return memoryview(mmap.mmap(-1, READ_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Limits(NamedTuple):
    """What one message may cost its reader.

    Attributes:
        frame_bytes: its size; give or take one read.
        items: the length of any one array or map in it.
        structure_bytes: what it may take beside the contents of long binaries and texts; give or take one read. In
            memory one byte of structure becomes up to 60, one byte of a binary stays one.
    """

    frame_bytes: int
    items: int
    structure_bytes: int


# What anybody may send: payloads are binaries, so the rest is short. The longest is a request with a list of ids.
ENVELOPE: Final = Limits(frame_bytes=FRAME_LIMIT, items=4096, structure_bytes=4 << 20)
# What a client bears from its own daemon: status maps, and lists of all tasks.
ANSWER: Final = Limits(frame_bytes=FRAME_LIMIT, items=1 << 20, structure_bytes=FRAME_LIMIT)


class Decoder:
    """The messages of one peer's stream.

    Attributes:
        complete: after ``feed`` has raised: the messages that came whole before the damage. They are as good as any.
    """

    __slots__ = (
        "_broken",
        "_fed",
        "_feed",
        "_grown",
        "_limits",
        "_one_by_one",
        "_pending",
        "_position",
        "_structure",
        "_tell",
        "_unpack",
        "_unpacker",
        "complete",
    )
    _fed: int  # bytes fed to this unpacker
    _position: int  # how far it had come when a read last left a message in pieces
    _grown: bool  # whether its buffer is worth giving back
    _one_by_one: bool  # the last read was one message, and no more: so nothing of another is here

    def __init__(self, limits: Limits = ENVELOPE) -> None:
        self._limits = limits
        self._broken: str | None = None
        self._pending = 0  # bytes of the message that is not whole yet (all but what came in the read that began it)
        self._structure = 0  # bytes of it that were not the inside of a binary or text
        self._one_by_one = True
        self.complete: list[list[Any]] = []
        self._renew()

    def feed(self, data: bytes | bytearray | memoryview) -> list[list[Any]]:
        """The messages that ``data`` (at most ``FRAME_LIMIT`` bytes) completes; often one, perhaps none.

        Raises:
            ProtocolError: the stream is no sequence of messages, or exceeds a limit. The stream is lost: each further
                call raises it again.
        """
        if self._broken is not None:
            raise ProtocolError(self._broken)
        if LARGE_BYTES <= len(data) <= READ_BYTES and self._one_by_one and (whole := self._whole(data)) is not None:
            return [whole]
        self._fed += len(data)
        self._one_by_one = False
        messages: list[Any] = []  # of arrays, as will be seen
        try:
            self._feed(data)
            messages.append(self._unpack())
            # Asking for one message too many costs msgpack an exception, more than a whole message. So where one read
            # brought one message, which is what a caller who waits for each result sees, nobody asks.
            if self._tell() != self._fed:
                for message in self._unpacker:  # compiled, extend() would not keep what came before an error
                    messages.append(message)  # noqa: PERF402
            else:
                self._one_by_one = True
        except OutOfData:
            self._wait(len(data))
            return messages
        except MemoryError:
            raise
        except Exception as error:
            raise self._break(messages, _reason(error)) from None
        for message in messages:
            if type(message) is not list or not message or type(message[0]) is not int:
                raise self._break(messages, f"a message is an array that begins with a number, got {_kind(message)}")
        if self._pending:
            self._settle()
        return messages

    def _whole(self, data: bytes | bytearray | memoryview) -> list[Any] | None:
        """The one message that ``data`` is, read from where it lies: to feed it to msgpack takes another copy. None: it
        is none, or not one alone, or something is wrong with it, which ``feed`` will find, too."""
        items = self._limits.items
        try:
            message: Any = unpackb(
                data, raw=False, strict_map_key=True, max_array_len=items, max_map_len=items, max_ext_len=0,
                ext_hook=_refuse_extension,
            )  # fmt: skip
        except MemoryError:
            raise
        except Exception:
            return None
        return message if type(message) is list and message and type(message[0]) is int else None

    def _wait(self, size: int) -> None:
        """``size`` bytes have come, and the message is still not whole."""
        self._pending += size
        position = self._tell()  # stands still while the inside of a binary or text comes in
        if position != self._position:
            self._structure += size - (self._fed - position)
            self._position = position
        if self._pending > self._limits.frame_bytes:
            raise self._break([], f"a message exceeds the frame limit of {self._limits.frame_bytes >> 20} MB")
        if self._structure > self._limits.structure_bytes:
            raise self._break([], f"a message has over {self._limits.structure_bytes >> 20} MB beside its payload")

    def _settle(self) -> None:
        """A message that took several reads is whole."""
        self._grown = self._grown or self._pending > _KEEP_BYTES
        self._pending = self._structure = 0
        if self._grown and self._tell() == self._fed:
            self._renew()

    def _renew(self) -> None:
        self._unpacker = Unpacker(
            max_buffer_size=2 * self._limits.frame_bytes,
            read_size=_BUFFER_BYTES,
            max_array_len=self._limits.items,
            max_map_len=self._limits.items,
            max_ext_len=0,  # extension types live in payloads only
            ext_hook=_refuse_extension,
            raw=False,
            strict_map_key=True,
        )
        self._feed = self._unpacker.feed
        self._unpack = self._unpacker.unpack
        self._tell = self._unpacker.tell
        self._fed = 0
        self._position = 0
        self._grown = False

    def _break(self, messages: list[Any], reason: str) -> ProtocolError:
        """Let go of the stream. Of ``messages``, those before the first that is none are whole."""
        self._broken = reason
        self.complete = []
        for message in messages:
            if type(message) is not list or not message or type(message[0]) is not int:
                break
            self.complete.append(message)
        self._renew()  # so that what the peer sent does not stay in memory
        return ProtocolError(reason)


def encoder() -> Callable[[Any], bytes]:
    """What turns a message (a list or tuple, a number first) into bytes. For one thread: take one for each.

    The function returned raises ``PayloadTooLarge`` for a message that no peer would accept, and ``TypeError``,
    ``ValueError`` or ``OverflowError`` for what MessagePack cannot carry (that is a mistake of ours: the values of
    users are payloads).
    """
    pack = Packer().pack

    def encode(message: Any) -> bytes:
        nonlocal pack
        packed = pack(message)
        if len(packed) > _KEEP_BYTES:
            pack = Packer().pack
            if len(packed) > FRAME_LIMIT:
                raise PayloadTooLarge(
                    f"a message of {len(packed) >> 20} MB exceeds the frame limit of {FRAME_LIMIT >> 20} MB"
                )
        return packed

    return encode


encode: Final = encoder()  # of the process's main thread, or of its loop


def in_parts(
    message: Sequence[Any], at: int, payload: Sequence[Part], pack: Callable[[Sequence[Any]], bytes] = encode
) -> list[Part]:
    """``message``, of fewer than 16 elements, with a large binary in the place ``at``, where something else stands; in
    parts that are to be sent one behind the other. The binary's are not copied, as by ``pack``.

    Raises:
        PayloadTooLarge: no peer would accept it.
    """
    size = sum(map(len, payload))
    if size > PAYLOAD_LIMIT:
        raise PayloadTooLarge(f"a payload of {size >> 20} MB exceeds the limit of {PAYLOAD_LIMIT >> 20} MB")
    head = bytes((0x90 | len(message),)) + pack(message[:at])[1:] + bin_head(size)  # an array's head is one byte
    return [head, *payload, pack(message[at + 1 :])[1:]] if len(message) > at + 1 else [head, *payload]


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code} outside of a payload")


def _kind(message: Any) -> str:
    if type(message) is list:
        return f"one that begins with {type(message[0]).__name__}" if message else "an empty one"
    return type(message).__name__


def _reason(error: Exception) -> str:
    text = str(error)
    return f"not a message: {text[:200] if text else type(error).__name__}"
