"""When the ticks of a schedule are, also on the days on which clocks are put forward or back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from poolmgr.errors import BadOption
from poolmgr.manager.timetable import Timetable
from poolmgr.schedule import Timing

TABLE: Final = Timetable()
BERLIN: Final = "Europe/Berlin"  # 2026-03-29 02:00 +01 -> 03:00 +02; 2026-10-25 03:00 +02 -> 02:00 +01
NEW_YORK: Final = "America/New_York"  # 2026-03-08 02:00 -05 -> 03:00 -04; 2026-11-01 02:00 -04 -> 01:00 -05
LORD_HOWE: Final = "Australia/Lord_Howe"  # by 30 min: 2026-10-04 02:00 -> 02:30 +11; 2026-04-05 02:00 -> 01:30

# (expression, zone, from this local time on, the next ticks as local times with their offsets)
CASES: Final = [
    # what falls into the gap runs right after it, once
    ("30 2 * * *", BERLIN, "2026-03-28 12:00", ["03-29 03:00+02:00", "03-30 02:30+02:00"]),
    ("0 2 * * *", BERLIN, "2026-03-28 12:00", ["03-29 03:00+02:00", "03-30 02:00+02:00"]),
    ("0,30 2 * * *", BERLIN, "2026-03-28 12:00", ["03-29 03:00+02:00", "03-30 02:00+02:00", "03-30 02:30+02:00"]),
    ("30 2 * * *", NEW_YORK, "2026-03-07 12:00", ["03-08 03:00-04:00", "03-09 02:30-04:00"]),
    ("15 2 * * *", LORD_HOWE, "2026-10-03 12:00", ["10-04 02:30+11:00", "10-05 02:15+11:00"]),
    # what falls into the repeated hour runs once, the first time
    ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["10-25 02:30+02:00", "10-26 02:30+01:00"]),
    ("30 1 * * *", NEW_YORK, "2026-10-31 12:00", ["11-01 01:30-04:00", "11-02 01:30-05:00"]),
    ("45 1 * * *", LORD_HOWE, "2026-04-04 12:00", ["04-05 01:45+11:00", "04-06 01:45+10:30"]),
    # around them nothing happens
    ("0 3 * * *", BERLIN, "2026-03-28 12:00", ["03-29 03:00+02:00", "03-30 03:00+02:00"]),
    ("59 1 * * *", BERLIN, "2026-03-28 12:00", ["03-29 01:59+01:00", "03-30 01:59+02:00"]),
    ("0 3 * * *", BERLIN, "2026-10-24 12:00", ["10-25 03:00+01:00", "10-26 03:00+01:00"]),
    # with a star for the minute or hour, the clock as it is
    ("*/30 * * * *", BERLIN, "2026-03-29 01:15", ["03-29 01:30+01:00", "03-29 03:00+02:00", "03-29 03:30+02:00"]),
    (
        "*/30 * * * *", BERLIN, "2026-10-25 01:45",
        ["10-25 02:00+02:00", "10-25 02:30+02:00", "10-25 02:00+01:00", "10-25 02:30+01:00", "10-25 03:00+01:00"],
    ),
    ("0 * * * *", NEW_YORK, "2026-11-01 00:30", ["11-01 01:00-04:00", "11-01 01:00-05:00", "11-01 02:00-05:00"]),
    ("0 * * * *", LORD_HOWE, "2026-10-04 00:30", ["10-04 01:00+10:30", "10-04 03:00+11:00"]),
    ("*/15 * * * *", LORD_HOWE, "2026-04-05 01:35", [
        "04-05 01:45+11:00", "04-05 01:30+10:30", "04-05 01:45+10:30", "04-05 02:00+10:30",
    ]),
    # and on all other days
    ("30 8 * * MON-FRI", BERLIN, "2026-05-01 12:00", ["05-04 08:30+02:00", "05-05 08:30+02:00"]),
    ("0 0 L * *", "UTC", "2026-02-10 00:00", ["02-28 00:00+00:00", "03-31 00:00+00:00"]),
    ("0 12 * * MON#1", NEW_YORK, "2026-06-01 12:00", ["07-06 12:00-04:00", "08-03 12:00-04:00"]),
    ("30 0 1 1 * *", "UTC", "2026-06-01 12:00", ["07-01 01:00+00:00"]),  # with seconds: 01:00:30
]  # fmt: skip


def _wall(text: str, zone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def _local(wall: float, zone: str) -> str:
    text = datetime.fromtimestamp(wall, ZoneInfo(zone)).isoformat(" ")
    return text[5:16] + text[19:]


def _ticks(timing: Timing, wall: float, count: int) -> list[float]:
    found: list[float] = []
    for _ in range(count):
        tick = TABLE.after(timing, 0.0, wall)
        assert tick is not None
        found.append(wall := tick)
    return found


@pytest.mark.parametrize(("cron", "zone", "since", "expected"), CASES)
def test_ticks_follow_the_local_clock_as_debians_cron_does(
    cron: str, zone: str, since: str, expected: list[str]
) -> None:
    timing = Timing(cron=cron, timezone=zone)
    start = _wall(since, zone)
    ticks = _ticks(timing, start, len(expected))
    assert [_local(tick, zone) for tick in ticks] == expected
    assert TABLE.between(timing, 0.0, start, ticks[-1], 100) == ticks


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, LORD_HOWE])
@pytest.mark.parametrize("cron", ["30 2 * * *", "45 1,2 * * *", "*/10 * * * *", "0 */2 * * *"])
def test_the_ticks_are_the_same_from_wherever_one_looks(cron: str, zone: str) -> None:
    timing = Timing(cron=cron, timezone=zone)
    for day in ("2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01"):
        start = _wall(f"{day} 00:00", zone)
        ticks = TABLE.between(timing, 0.0, start, start + 6 * 3600, 1000)
        for minute in range(0, 6 * 60, 17):
            wall = start + 60 * minute + 0.5
            later = [tick for tick in ticks if tick > wall]
            assert TABLE.between(timing, 0.0, wall, start + 6 * 3600, 1000) == later
            assert not later or TABLE.after(timing, 0.0, wall) == later[0]


def test_of_many_ticks_the_latest_are_told() -> None:
    timing = Timing(cron="* * * * *")
    year_s = 365 * 86400.0
    assert TABLE.between(timing, 0.0, 0.0, year_s, 3) == [year_s - 120, year_s - 60, year_s]
    assert TABLE.between(timing, 0.0, year_s - 61, year_s, 3) == [year_s - 60, year_s]
    assert TABLE.between(timing, 0.0, year_s - 59, year_s - 1, 3) == []


@pytest.mark.parametrize("every_s", [0.1, 0.7, 60.0, 86400.0, 1e9])
def test_an_interval_counts_from_its_anchor_and_does_not_drift(every_s: float) -> None:
    timing, anchor = Timing(every_s=every_s), 1_700_000_000.123
    wall = anchor
    for number in range(1, 200):
        tick = TABLE.after(timing, anchor, wall)
        assert tick == anchor + number * every_s
        wall = tick
    until = anchor + 150.5 * every_s
    expected = [anchor + number * every_s for number in range(141, 151)]
    assert TABLE.between(timing, anchor, anchor, until, 10) == expected
    assert TABLE.between(timing, anchor, expected[-3], expected[-1], 10) == expected[-2:]
    assert TABLE.between(timing, anchor, expected[-1], until, 10) == []


def test_a_year_of_tenths_of_a_second_is_no_work() -> None:
    found = TABLE.between(Timing(every_s=0.1), 0.0, 0.0, 365 * 86400.0, 5)
    assert len(found) == 5
    assert found[-1] <= 365 * 86400.0 < found[-1] + 0.1


@pytest.mark.parametrize(
    ("timing", "says"),
    [
        (Timing(cron="61 * * * *"), "Bad minute"),
        (Timing(cron="* * * *"), "Wrong number of fields"),
        (Timing(cron="every day"), "it takes minute, hour"),
        (Timing(cron="0 0 31 2 *"), "cron '0 0 31 2"),
        (Timing(cron="0 0 * * MON#5,TUE#9"), "cannot be read"),
        (Timing(cron="0 0 */31 * MON#5"), "never comes"),
        (Timing(cron="0 0 * * *", timezone="Europe/Atlantis"), "unknown time zone 'Europe/Atlantis'"),
        (Timing(cron="0 0 * * *", timezone="../../etc/passwd"), "unknown time zone"),
        (Timing(cron="0 0 * * *", timezone="Europe"), "unknown time zone"),
        (Timing(cron="0 0 * * *", timezone="x\0y"), "unknown time zone"),
    ],
)
def test_what_cannot_be_read_is_refused(timing: Timing, says: str) -> None:
    with pytest.raises(BadOption, match=says.replace("*", r"\*")):
        TABLE.check(timing, datetime(2026, 1, 1, tzinfo=UTC).timestamp())


def test_where_no_time_zones_are_installed_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoneinfo.ZoneInfo", _no_zone)
    monkeypatch.setattr("zoneinfo.available_timezones", set)
    with pytest.raises(BadOption, match="install tzdata"):
        TABLE.check(Timing(cron="0 0 * * *", timezone="Asia/Tokyo"), 0.0)
    TABLE.check(Timing(cron="0 0 * * *"), 0.0)  # UTC needs none


def _no_zone(name: str) -> ZoneInfo:
    raise KeyError(name)
