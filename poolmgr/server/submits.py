"""A client's submits, on their way to the intake: one by one, or many that are alike together, which costs a fifth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from sys import intern
from typing import Any, NamedTuple

from poolmgr.errors import BadDescriptor, BadOption, PayloadTooLarge, PoolError, ProtocolError, StoreUnavailable
from poolmgr.manager.lookups import Found
from poolmgr.manager.manager import Manager
from poolmgr.parcels.parcel import Parcel
from poolmgr.server.options import OptionCache
from poolmgr.server.resent import is_known
from poolmgr.wire.messages import PAYLOAD_LIMIT, SUBMIT, SUBMIT_MANY

SUBMITS = frozenset({SUBMIT, SUBMIT_MANY})
Refused = Callable[[bytes, PoolError], None]
_PAYLOADS = frozenset({bytes, Parcel, BadDescriptor})
_FEW = 4  # fewer than these are not worth to be put together


class Submits:
    """Those of one connection, in their order. Of each that is refused, ``refused`` is told by its id, and why: it is
    handed in with each call, since a connection that its submits knew would be freed by the collector alone, and late.
    """

    def __init__(self, manager: Manager, options: OptionCache, client: int) -> None:
        self._intake = manager.scheduler.intake
        self._tasks = manager.scheduler.state.tasks
        self._recent = manager.shell.recent_ids
        self._options = options
        self._client = client

    def take(self, messages: list[list[Any]], number: int, at: float, refused: Refused) -> int:
        """Take ``messages[number]``, a submit, and perhaps some behind it. Returns the number of the first that is not
        taken: ``number`` itself, where the store is to be asked first.

        Raises:
            ProtocolError: a message is not as docs/protocol.md says. Those before it were taken.
        """
        message = messages[number]
        if message[0] == SUBMIT_MANY:
            many = _Many.of(message)
            if self._together(many, at):
                return number + 1
            singles = many.one_by_one()
            messages[number : number + 1] = singles
            return self._each(messages, number, number + len(singles), at, refused)
        end = _end_of_alike(messages, number)
        if end - number >= _FEW and self._together(_Many.put_together(messages[number:end]), at):
            return end
        return self._each(messages, number, end, at, refused)

    def _each(self, messages: list[list[Any]], number: int, end: int, at: float, refused: Refused) -> int:
        for each in range(number, end):
            if not self.one(messages[each], at, refused):
                return each
        return end

    def one(
        self, message: list[Any], at: float, refused: Refused, found: Found | StoreUnavailable | None = None
    ) -> bool:
        """Take a SUBMIT. False if the store is to be asked first, or again; ``found`` is what it said.

        Raises:
            ProtocolError: as ``take``.
        """
        try:
            _, task_id, name, payload, packed, watch, *more = message
        except ValueError:
            raise ProtocolError("a SUBMIT of the wrong length") from None
        if type(name) is not str or type(payload) not in _PAYLOADS or type(watch) is not bool:
            raise ProtocolError("a SUBMIT of the wrong shape")
        if type(task_id) is not bytes or len(task_id) != 16:
            raise ProtocolError("a SUBMIT's id is not 16 bytes")
        waited = bool(more) and more[0] is True  # it has been given a place: that is used, whatever becomes of this
        if type(payload) is BadDescriptor:  # not raised: that would tie it to frames that hold other payloads
            self._refuse(task_id, name, waited, payload, refused)
            return True
        try:
            if len(payload) > PAYLOAD_LIMIT:
                raise PayloadTooLarge(f"the payload is over {PAYLOAD_LIMIT} bytes")
            options = self._options.resolve(name, packed)
        except (PoolError, TypeError) as error:
            if isinstance(error, TypeError):
                error = BadOption("options are a MessagePack map in a bin")
            self._refuse(task_id, name, waited, error, refused)
            return True
        try:
            has_place = False
            if options.durable and task_id not in self._tasks and not self._recent.is_new(task_id):
                if found is None or not self._is_answered(task_id, found):
                    return False
                has_place = waited and self._intake.room.use(self._client, name)
                if is_known(self._intake, self._client, message, found):
                    return True
            elif waited:
                has_place = self._intake.room.use(self._client, name)
            # One text for all tasks of the name, where each message brings its own. Only handlers' names come so far.
            made = self._intake.submit(
                at, task_id, intern(name), payload, options, self._client, watch, has_place=has_place
            )
            if made and options.durable:
                self._recent.take((task_id,))
        except PoolError as error:
            refused(task_id, error)
        return True

    def _refuse(self, task_id: bytes, name: str, waited: bool, error: PoolError, refused: Refused) -> None:
        if waited:
            self._intake.room.use(self._client, name)
        self._intake.refused(self._client)
        refused(task_id, error)

    def _is_answered(self, task_id: bytes, found: Found | StoreUnavailable) -> bool:
        """Whether what the store said holds for this one. Not if it was asked for fewer; or if another connection has
        submitted it meanwhile, and it has left the memory again."""
        if isinstance(found, StoreUnavailable):
            return True
        return task_id in found.asked and (task_id in found.taken or task_id not in self._recent)

    def _together(self, many: _Many, at: float) -> bool:
        """False, and nothing has happened, if one of them may fare otherwise than another, or may be known."""
        ids, name, payloads, packed, watch, waited = many
        if waited is True or not many.is_sound():  # each place is used on its own
            return False
        try:
            options = self._options.resolve(name, packed)
        except (PoolError, TypeError):
            return False
        if not (self._recent.are_new(ids) if options.durable else len(set(ids)) == len(ids)):
            return False
        if not self._intake.submit_many(at, ids, name, payloads, options, self._client, watch):
            return False
        if options.durable:
            self._recent.take(ids)
        return True


def one_by_one(messages: Iterable[list[Any]]) -> list[list[Any]]:
    """The same messages, with SUBMITs for each SUBMIT_MANY, up to one that is not as it should be: when its turn comes,
    it is refused as a SUBMIT that is not."""
    found: list[list[Any]] = []
    for message in messages:
        try:
            found += [message] if message[0] != SUBMIT_MANY else _Many.of(message).one_by_one()
        except ProtocolError:
            return [*found, [SUBMIT]]
    return found


class _Many(NamedTuple):
    """Submits that differ in nothing but their ids and payloads. What these are is not known before ``is_sound``."""

    ids: list[Any]
    name: Any
    payloads: list[Any]
    options: Any
    watch: Any
    waited: Any = False

    @classmethod
    def of(cls, message: list[Any]) -> _Many:
        """Those of a SUBMIT_MANY."""
        if len(message) < 6:
            raise ProtocolError("a SUBMIT_MANY of the wrong length")
        many = cls(*message[1:7])
        if type(many.ids) is not list or type(many.payloads) is not list or not many.ids:
            raise ProtocolError("a SUBMIT_MANY without two arrays, of ids and of payloads")
        if len(many.ids) != len(many.payloads):
            raise ProtocolError(f"a SUBMIT_MANY of {len(many.ids)} ids and {len(many.payloads)} payloads")
        return many

    @classmethod
    def put_together(cls, messages: list[list[Any]]) -> _Many:
        """SUBMITs that are alike."""
        _, _, name, _, options, watch = messages[0]
        return cls([each[1] for each in messages], name, [each[3] for each in messages], options, watch)

    def is_sound(self) -> bool:
        """Whether each of them is as docs/protocol.md says."""
        return (
            type(self.name) is str
            and type(self.watch) is bool
            and set(map(type, self.ids)) == {bytes} == set(map(type, self.payloads))
            and set(map(len, self.ids)) == {16}
            and max(map(len, self.payloads)) <= PAYLOAD_LIMIT
        )

    def one_by_one(self) -> list[list[Any]]:
        """As SUBMITs."""
        _, name, _, options, watch, waited = self
        more = (True,) if waited is True else ()
        pairs = zip(self.ids, self.payloads, strict=True)
        return [[SUBMIT, id, name, payload, options, watch, *more] for id, payload in pairs]


def _end_of_alike(messages: list[list[Any]], number: int) -> int:
    """The number behind the last of the SUBMITs from ``number`` on that differ in ids and payloads only."""
    first = messages[number]
    number += 1
    if number == len(messages) or len(first) != 6:
        return number
    _, _, name, _, options, watch = first
    for message in islice(messages, number, None):
        if message[0] != SUBMIT or len(message) != 6 or message[2] != name or message[4] != options:
            break
        if message[5] is not watch:
            break
        number += 1
    return number
