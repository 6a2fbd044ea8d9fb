"""What one client is told: put together, and written once a turn."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from poolmgr.errors import NotAllowed, PayloadTooLarge
from poolmgr.parcels.parcel import Parcel
from poolmgr.parcels.passing import FileMessage
from poolmgr.parcels.stream import Stream
from poolmgr.payload import Payload, inline
from poolmgr.server.peer import Peer
from poolmgr.wire.framing import encode, in_parts
from poolmgr.wire.messages import COMPLETED, COMPLETED_MANY, REFUSAL, RESPONSE
from poolmgr.wire.parts import LARGE_BYTES, Part

_log = logging.getLogger(__name__)

_MANY = 1000  # results in one message, and at most those of one worker more
_SMALL_BYTES = 16 * 1024  # a result of at most so many goes with others
UNREAD_LIMIT = 256 << 20  # bytes not read by the client, at which it is cut off


class InParts:
    """The value of an answer that may be large, and is not to be copied."""

    def parts(self) -> list[Part]:
        """It as MessagePack."""
        raise NotImplementedError


class Replies:
    """The half of a ``Connection`` that writes: most of ``outbox.Port``."""

    def __init__(self) -> None:
        self._transport: Stream
        self._peer: Peer
        self._client = 0
        self._closing = False
        self._out: list[Part] = []
        self._is_large = False  # something of that
        self._completed: list[bytes] = []  # tasks whose results are yet to be put in a message
        self._results: list[bytes] = []  # ... and those
        self._takes_many = False  # it understands COMPLETED_MANY
        self._takes_files = False

    @property
    def may_take_files(self) -> bool:
        """Whether payloads may travel as files: with the daemon's own user alone. Whoever holds a file may read what is
        written to it later, if the kernel can be made to tell too little (pages that were spliced out of it)."""
        return self._peer.uid == os.geteuid()

    def take_files(self) -> None:
        if not self.may_take_files:
            raise NotAllowed("files are taken from the daemon's own user alone: send payloads in their messages")
        self._takes_files = True
        self._transport.take_files()

    def completed(self, task_id: bytes, result: Payload) -> None:
        if not isinstance(result, bytes):
            self._send_file(task_id, result)
            return
        if len(result) >= LARGE_BYTES:
            self._send_parts(task_id, result)
            return
        if not self._takes_many or len(result) > _SMALL_BYTES:
            self.send((COMPLETED, task_id, result))
            return
        self._completed.append(task_id)
        self._results.append(result)
        if len(self._results) >= _MANY:
            self._put_together()

    def completed_many(self, task_ids: Sequence[bytes], results: Sequence[Payload]) -> None:
        small = {*map(type, results)} == {bytes} and max(map(len, results)) <= _SMALL_BYTES
        if not self._takes_many or not small:
            for task_id, result in zip(task_ids, results, strict=True):
                self.completed(task_id, result)
            return
        self._completed += task_ids
        self._results += results  # type: ignore[arg-type]  # all of them are bytes
        if len(self._results) >= _MANY:
            self._put_together()

    def _send_file(self, task_id: bytes, result: Payload) -> None:
        if not self._takes_files or not isinstance(result, Parcel):
            self._send_parts(task_id, inline(result))
            return
        self.flush()
        if not self._closing:
            message = encode((COMPLETED, task_id, len(result)))
            whole = lambda: encode((COMPLETED, task_id, result.content()))  # noqa: E731
            self._transport.write_file(FileMessage(message, result, whole))
            self._check_unread()

    def _send_parts(self, task_id: bytes, result: bytes) -> None:
        if self._completed:
            self._put_together()
        self._out += in_parts((COMPLETED, task_id, None), 2, [result])
        self._is_large = True

    def _put_together(self) -> None:
        ids, results = self._completed, self._results
        if len(ids) == 1:
            self._out.append(encode((COMPLETED, ids[0], results[0])))
        else:
            self._out.append(encode((COMPLETED_MANY, ids, results)))
        self._completed, self._results = [], []

    def send(self, message: tuple[Any, ...]) -> None:
        if self._completed:
            self._put_together()
        try:
            self._out.append(encode(message))
        except PayloadTooLarge as error:  # whatever it is, it is no reason to fail anybody else
            _log.error("client %d is not told a message of type %d: %s", self._client, message[0], error)

    def flush(self) -> None:
        if self._completed:
            self._put_together()
        if not self._out or self._closing:
            self._out.clear()
            return
        if self._is_large:
            self._transport.writelines(self._out)
            self._is_large = False
        else:
            self._transport.write(b"".join(self._out) if len(self._out) > 1 else self._out[0])
        self._out.clear()
        self._check_unread()

    def _check_unread(self) -> None:
        if self._transport.get_write_buffer_size() > UNREAD_LIMIT:
            _log.warning("client %d (pid %s) does not read its results: cut off", self._client, self._peer.pid)
            self._transport.abort()

    def answer(self, request: int, value: Any) -> None:
        if self._completed:
            self._put_together()
        if isinstance(value, InParts):
            self._out += [b"\x93" + encode((RESPONSE, request))[1:], *value.parts()]
            self._is_large = True
            return
        try:
            self._out.append(encode((RESPONSE, request, value)))
        except PayloadTooLarge as error:
            self.send((REFUSAL, request, error.code, str(error)))
