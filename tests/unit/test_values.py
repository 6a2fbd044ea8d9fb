"""What travels in payloads: everything comes back as it was, or is refused with the path to it."""

from __future__ import annotations

import enum
import math
import socket
import subprocess
import sys
import threading
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import ModuleType
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolmgr.errors import BadValue, PayloadTooLarge
from poolmgr.wire import extensions, values
from poolmgr.wire.messages import PAYLOAD_LIMIT
from poolmgr.wire.values import MAX_NESTING, pack, pack_call, unpack, unpack_call


@dataclass
class Point:
    x: int
    y: Any = 0
    trail: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    length: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", self.length + len(self.name))


@dataclass
class Bare:
    x: int


class Undecorated(Point):
    pass


@dataclass
class Counted(dict[str, int]):
    total: int = 0


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Segment(namedtuple("Segment", ["start", "end"])):
    __slots__ = ()

    def length(self) -> int:
        return int(self.end - self.start)


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Odd(enum.Enum):
    SOCKET = socket.socket


class Text(str):
    __slots__ = ()


class Outer:
    @dataclass
    class Inner:
        x: int


class OwnZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, moment: datetime | None) -> None:
        return None

    def tzname(self, moment: datetime | None) -> None:
        return None


def same(left: Any, right: Any) -> bool:
    """Equal, of the same types all the way down, and NaN is NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, Point):
        return same(vars(left), vars(right))
    if isinstance(left, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if isinstance(left, Decimal):
        return str(left) == str(right)
    return bool(left == right)


# ------------------------------------------------------------------------------- what is carried

BERLIN = ZoneInfo("Europe/Berlin")
CARRIED = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    2**4000,
    1.5,
    float("-inf"),
    float("nan"),
    "",
    "grüße",
    b"\x00\xff",
    [],
    [1, [2, [3]]],
    (),
    (1, (2, [3, (4,)])),
    {},
    {"a": 1, 2: "b", b"c": None, None: 0, 1.5: (), (1, (2,)): {1}, frozenset({1}): 3},
    set(),
    {1, "a", (2, 3)},
    frozenset({1, frozenset({2})}),
    1 - 2j,
    datetime(2026, 2, 3, 4, 5, 6, 789),  # noqa: DTZ001 - naive ones must travel too
    datetime(2026, 2, 3, 4, 5, fold=1),  # noqa: DTZ001
    datetime(2026, 2, 3, tzinfo=UTC),
    datetime(2026, 2, 3, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    datetime(1880, 1, 1, tzinfo=timezone(timedelta(seconds=3208))),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    datetime.min,  # noqa: DTZ901
    date(2026, 2, 3),
    time(1, 2, 3, 4, fold=1),
    time(1, 2, tzinfo=UTC),
    time(1, 2, tzinfo=BERLIN),
    timedelta(days=-1, seconds=5, microseconds=7),
    timedelta.max,
    Decimal("1.50"),
    Decimal("-0"),
    Decimal("1E+3"),
    Decimal("sNaN12"),
    uuid.UUID(int=7),
    Path("/a/b"),
    Path("not/utf8/\udcff"),
    PurePosixPath("a"),
    PureWindowsPath("C:\\a\\b"),
    Point(1, (2, 3), [Point(4)]),
    Frozen("abc"),
    Outer.Inner(1),
    Pair(1, Pair({2})),
    Segment(1, 3),
    Colour.RED,
    Level.LOW,
    Access.READ | Access.WRITE,
    {Colour.RED: Level.LOW},
]


def _name(value: Any) -> str:
    """The same in every process: the order of a set is not."""
    shown = len(value) if isinstance(value, set | frozenset) else str(value)[:30]
    return f"{type(value).__name__}-{shown}"


@pytest.mark.parametrize("value", CARRIED, ids=_name)
def test_comes_back_as_it_was(value: Any) -> None:
    assert same(unpack(pack(value)), value)
    assert same(unpack(pack([{"deep": (value,)}])), [{"deep": (value,)}])


def test_the_fold_and_the_zone_come_back() -> None:
    value = unpack(pack(datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)))
    assert (value.fold, value.tzinfo) == (1, BERLIN)
    assert value.utcoffset() == timedelta(hours=1)


def test_buffers_come_back_as_bytes() -> None:
    assert unpack(pack([bytearray(b"a"), memoryview(b"b")])) == [b"a", b"b"]


def test_a_timestamp_of_messagepack_is_a_datetime_in_utc() -> None:
    assert unpack(msgpack.packb(msgpack.Timestamp(86400))) == datetime(1970, 1, 2, tzinfo=UTC)


def test_a_dataclass_is_not_initialised_again() -> None:
    frozen = unpack(pack(Frozen("abc")))
    assert frozen.length == 3


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.uuids()
    | st.complex_numbers(allow_nan=False)
)
keys = st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(keys, max_size=4)
        | st.builds(Point, st.integers(), inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=12,
)


@given(st.lists(anything, max_size=3), st.dictionaries(st.text(), anything, max_size=3))
@settings(max_examples=100)
def test_any_call_comes_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert same(unpack_call(pack_call(tuple(args), kwargs)), (args, kwargs))


def test_a_call_without_keywords_is_one_array() -> None:
    assert pack_call((1, "a"), {}) == msgpack.packb([[1, "a"]])
    assert pack_call((), {"size": 64}) == msgpack.packb([[], {"size": 64}])
    assert unpack_call(msgpack.packb([[1]])) == ([1], {})


# ------------------------------------------------------------------------------- what is refused


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def itself_in_a_tuple() -> Any:
    inner: dict[str, Any] = {}
    inner["up"] = (1, inner)
    return inner


def nested(wrap: Callable[[Any], Any], depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = wrap(value)
    return value


def unset() -> Bare:
    value = Bare(1)
    del value.x
    return value


def of_main() -> Any:
    return type("Task", (), {"__module__": "__main__", "__dataclass_fields__": {}})()


def made_in_a_function() -> Any:
    @dataclass
    class Hidden:
        x: int

    return Hidden(1)


REFUSED = [
    ({"x": [0, 1, 2, object()]}, "args[0]['x'][3]: cannot carry a value of type object"),
    ((1, {2: {3, frozenset({len})}}), "args[0][1][2]{<frozenset>}{<builtin_function_or_method>}: cannot carry"),
    ({(1, len): 0}, "args[0].keys(){<tuple>}[1]: cannot carry a value of type builtin_function_or_method"),
    (Point(1, [object()]), "args[0].y[0]: cannot carry a value of type object"),
    (Pair(1, object()), "args[0].right: cannot carry a value of type object"),
    (unset(), "args[0]: cannot carry a tests.unit.test_values.Bare whose field 'x' is not set"),
    (Odd.SOCKET, "args[0].value: cannot carry a value of type type"),
    (Text("a"), "would come back as a plain str: convert it with str()"),
    (OrderedDict(a=1), "type collections.OrderedDict, which would come back as a plain dict"),
    ([defaultdict(int)], "args[0][0]: cannot carry a value of type collections.defaultdict"),
    (Undecorated(1), "args[0]: cannot carry a value of type tests.unit.test_values.Undecorated"),
    (Counted(), "makes its instances in __new__"),
    (of_main(), "__main__ is another module in the worker"),
    (made_in_a_function(), "define it at the top of a module"),
    ("\ud800", "args[0]: cannot carry text that is not valid Unicode"),
    ({"\ud800": 1}, "args[0].keys(){'\\ud800'}: cannot carry text that is not valid Unicode"),
    (PureWindowsPath("\ud800"), "args[0]: cannot carry text that is not valid Unicode"),
    (memoryview(b"abcd")[::2], "args[0]: memoryview: underlying buffer is not C-contiguous"),
    ([datetime(2026, 1, 1, tzinfo=OwnZone())], "args[0][0]: cannot carry a time zone of type tests"),
    (itself(), "args[0][0]: a value that contains itself cannot be carried"),
    (itself_in_a_tuple(), "args[0]['up'][1]: a value that contains itself cannot be carried"),
    (nested(lambda inner: [inner], 5000), "[0]: nested more than 500 deep"),
    (nested(lambda inner: {"a": inner}, 5000), "['a']: nested more than 500 deep"),
    (nested(lambda inner: (inner,), MAX_NESTING + 1), f"nested more than {MAX_NESTING} deep"),
    (nested(lambda inner: (inner,), 5000), f"nested more than {MAX_NESTING} deep"),
    (nested(Point, MAX_NESTING + 1), f"nested more than {MAX_NESTING} deep"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_is_refused_with_the_path_to_it(value: Any, message: str) -> None:
    with pytest.raises(BadValue) as caught:
        pack_call((value,), {})
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400
    assert unpack(pack("still fine")) == "still fine"


def test_paths_name_keyword_arguments_and_results() -> None:
    with pytest.raises(BadValue, match=r"^kwargs\['size'\]\[1\]: cannot carry"):
        pack_call((1,), {"first": 1, "size": [1, object()]})
    with pytest.raises(BadValue, match=r"^args\[2\]: cannot carry"):
        pack_call((1, 2, object()), {})
    with pytest.raises(BadValue, match=r"^result\['x'\]: cannot carry a value of type socket\.socket$"):
        pack({"x": socket.socket.__new__(socket.socket)})
    with pytest.raises(BadValue, match=r"^args\[0\]\[0\]: cannot carry"):
        pack((object(),), "args[0]")


def test_a_shared_object_is_not_one_that_contains_itself() -> None:
    shared = [1]
    assert unpack(pack([shared, (shared,)])) == [[1], ([1],)]
    with pytest.raises(BadValue, match=r"^result\[2\]: cannot carry"):
        pack([shared, shared, object()])


def test_the_deepest_nesting_comes_back() -> None:
    value = nested(lambda inner: (inner,), MAX_NESTING)
    assert unpack(pack(value)) == value
    value = nested(lambda inner: [inner], 450)
    assert unpack(pack(value)) == value


def test_a_payload_over_the_limit_is_refused_with_its_size() -> None:
    payload = bytes(PAYLOAD_LIMIT)
    with pytest.raises(PayloadTooLarge, match=r"the arguments take 63\.94 MB, and the limit is 63\.94 MB: write"):
        pack_call((payload,), {})
    with pytest.raises(PayloadTooLarge, match="the result takes"):
        pack(payload)
    assert len(pack(payload[:-5])) == PAYLOAD_LIMIT


def test_packers_of_large_payloads_are_not_kept() -> None:
    free = values._outermost._free
    before = list(free)
    pack(bytes(2 << 20))
    assert len(free) <= len(before)
    pack(1)
    assert len(free) >= 1


def test_threads_may_pack_at_once() -> None:
    value = nested(lambda inner: (inner, {1}), 5)
    expected = pack(value)
    wrong: list[bytes] = []

    def work() -> None:
        wrong.extend(packed for packed in (pack(value) for _ in range(300)) if packed != expected)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


# ------------------------------------------------------------------------------- payloads of peers


def extension(code: int, value: Any) -> bytes:
    data = value if isinstance(value, bytes) else msgpack.packb(value)
    packed = msgpack.packb(msgpack.ExtType(code, data))
    assert isinstance(packed, bytes)
    return packed


def record(name: str, fields: dict[str, Any], module: str = __name__) -> bytes:
    return extension(extensions.RECORD, [module, name, fields])


def test_a_class_is_never_imported_for_a_peer() -> None:
    assert "this" not in sys.modules
    with pytest.raises(BadValue, match=r"the class this\.Zen is not loaded in this process: import this first"):
        unpack(record("Zen", {}, module="this"))
    assert "this" not in sys.modules


def test_no_getattr_of_a_module_runs_for_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    lazy = ModuleType("lazy_module")
    lazy.__dict__["__getattr__"] = asked.append
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)
    with pytest.raises(BadValue, match="not loaded"):
        unpack(record("Thing", {}, module="lazy_module"))
    assert not asked


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("subprocess", "Popen"), ("builtins", "dict"), (__name__, "Undecorated"), (__name__, "Colour")],
)
def test_only_dataclasses_and_named_tuples_are_rebuilt(module: str, name: str) -> None:
    assert "subprocess" in sys.modules
    with pytest.raises(BadValue, match=r"not loaded|neither a dataclass nor a named tuple"):
        unpack(record(name, {}, module=module))


def test_only_enums_are_looked_up_as_enums() -> None:
    with pytest.raises(BadValue, match="is not an enum here"):
        unpack(extension(extensions.ENUM, ["subprocess", "Popen", ["true"]]))
    with pytest.raises(BadValue, match="'blue' is not a valid Colour"):
        unpack(extension(extensions.ENUM, [__name__, "Colour", "blue"]))


def test_versions_of_a_class_may_differ_by_fields_with_defaults() -> None:
    assert unpack(record("Point", {"x": 1})) == Point(1, 0, [])
    assert unpack(record("Pair", {"left": 1})) == Pair(1)
    with pytest.raises(BadValue, match="without its field 'x', which has no default"):
        unpack(record("Point", {}))
    with pytest.raises(BadValue, match="without its field 'left', which has no default"):
        unpack(record("Pair", {}))
    with pytest.raises(BadValue, match=r"Point has no field 'z' here"):
        unpack(record("Point", {"x": 1, "z": 2}))


def test_an_unknown_extension_type_is_named() -> None:
    with pytest.raises(BadValue, match="extension type 99 is not known here"):
        unpack(extension(99, b""))


def test_an_unknown_time_zone_is_named() -> None:
    with pytest.raises(BadValue, match="the time zone 'Mars/Olympus' is not known here"):
        unpack(extension(extensions.DATETIME, ["2026-01-01T00:00:00+00:00", 0, "Mars/Olympus"]))


def test_nesting_that_would_overrun_the_stack_is_refused() -> None:
    data = b"\x90"
    for _ in range(1000):
        data = extension(extensions.TUPLE, data)
    with pytest.raises(BadValue, match=f"nested more than {MAX_NESTING} deep"):
        unpack(data)


@pytest.mark.parametrize(
    "payload", [b"", b"\x01", b"\x90", b"\x91\x01", b"\x92\x90\x90", b"\x92\x90\x81\x01\x02", b"\x93\x90\x80\x80"]
)
def test_what_is_no_call_is_refused(payload: bytes) -> None:
    with pytest.raises(BadValue):
        unpack_call(payload)


@given(st.binary(max_size=64))
@settings(max_examples=100)
def test_garbage_is_a_value_or_a_bad_value(garbage: bytes) -> None:
    for code in range(20):
        for payload in (garbage, extension(code, garbage)):
            try:
                unpack(payload)
            except BadValue:
                pass


@given(st.integers(1, 18), anything)
@settings(max_examples=100)
def test_an_extension_of_the_wrong_shape_is_a_value_or_a_bad_value(code: int, content: Any) -> None:
    try:
        unpack(extension(code, pack(content)))
    except BadValue:
        pass


# ------------------------------------------------------------------------------- numpy, and what importing costs


def test_numpy_arrays_come_back() -> None:
    np = pytest.importorskip("numpy")
    arrays = [
        np.arange(12, dtype="<i4").reshape(3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10)[::2],
        np.array(5.0),
        np.zeros((0, 3)),
        np.array(["a", "bc"]),
        np.array([True, False]),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
        np.array([1], dtype=">u2"),
    ]
    for array in arrays:
        found = unpack(pack([array]))[0]
        assert type(found) is np.ndarray
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert (found == array).all()
        assert found.flags.writeable


def test_numpy_scalars_come_back() -> None:
    np = pytest.importorskip("numpy")
    for scalar in (np.float64(1.5), np.int32(-1), np.bool_(True), np.str_("grüße"), np.datetime64("2026-01-01")):
        found = unpack(pack((scalar,)))[0]
        assert type(found) is type(scalar)
        assert found == scalar


def test_numpy_objects_and_structures_are_refused() -> None:
    np = pytest.importorskip("numpy")
    for value in (np.array([object()]), np.zeros(1, dtype="i4,f8"), np.zeros(1, dtype="i4,f8")[0]):
        with pytest.raises(BadValue, match=r"^result\[0\]: cannot carry numpy values of dtype"):
            pack([value])
    with pytest.raises(BadValue, match="cannot carry numpy values of dtype object"):
        unpack(extension(extensions.ARRAY, ["|O", [1], b"12345678"]))
    with pytest.raises(BadValue, match="cannot be read"):
        unpack(extension(extensions.ARRAY, ["<i4", [1 << 40], b"1234"]))


def test_an_array_without_numpy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(BadValue, match="numpy is not installed here"):
        unpack(extension(extensions.ARRAY, ["<i4", [1], b"1234"]))
    with pytest.raises(BadValue, match="numpy is not installed here"):
        unpack(extension(extensions.SCALAR, ["<i4", b"1234"]))


def test_importing_values_imports_no_library_for_them() -> None:
    heavy = ["decimal", "uuid", "pathlib", "zoneinfo", "dataclasses", "numpy", "socket", "inspect"]
    code = f"import sys; import poolmgr.wire.values; print([each for each in {heavy} if each in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:] = {sys.path}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
