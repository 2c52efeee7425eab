"""The ISO week that a report is about, in the time zone of its readers."""

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, TypedDict
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_LABEL: Final = re.compile(r"(\d{4})-W(\d{2})")
DAYS: Final = 7


class Span(TypedDict):
    """A half-open range of time, as the index takes it."""

    since_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the week: its name, and where it begins and ends in milliseconds since the epoch."""

    name: str
    since_ms: int
    until_ms: int

    @property
    def span(self) -> Span:
        return {"since_ms": self.since_ms, "until_ms": self.until_ms}


@dataclass(frozen=True, slots=True)
class Week:
    """Seven days from Monday; `since_ms` to `until_ms` is half open, and a day may have 23 or 25 hours."""

    label: str
    tz: str
    monday: date
    days: tuple[Day, ...]

    @property
    def since_ms(self) -> int:
        return self.days[0].since_ms

    @property
    def until_ms(self) -> int:
        return self.days[-1].until_ms

    @property
    def span(self) -> Span:
        return {"since_ms": self.since_ms, "until_ms": self.until_ms}

    @property
    def title(self) -> str:
        """The week as a person says it: its number, its Monday and Sunday, its zone."""
        sunday = self.monday + timedelta(days=DAYS - 1)
        year, number, _ = self.monday.isocalendar()
        return f"Week {number}, {year} (Mon {_day(self.monday)} \u2013 Sun {_day(sunday)}, {self.tz})"

    @property
    def previous(self) -> "Week":
        """The week before, in the same zone."""
        return _week(self.monday - timedelta(days=DAYS), self.tz)

    def local(self, ms: int) -> str:
        """Say a moment in the week's zone: `2026-11-16 02:41`."""
        return f"{datetime.fromtimestamp(ms / 1000, ZoneInfo(self.tz)):%Y-%m-%d %H:%M}"

    def between(self, first_ms: int, last_ms: int) -> str:
        """Say from when to when, without repeating the day."""
        first, last = self.local(first_ms), self.local(last_ms)
        if first == last:
            return first
        return f"{first} to {last[11:] if first[:10] == last[:10] else last}"


def parse_week(label: str, tz: str) -> Week:
    """Read `2026-W47` and the name of a time zone.

    Raises:
        ValueError: no such week, or no such zone.
    """
    match = _LABEL.fullmatch(label)
    if match is None:
        raise ValueError(f"not a week like 2026-W47: {label!r}")
    try:
        ZoneInfo(tz)
    except (ZoneInfoNotFoundError, OSError, ValueError) as err:
        raise ValueError(f"no such time zone: {tz!r}") from err
    return _week(date.fromisocalendar(int(match[1]), int(match[2]), 1), tz)


def _week(monday: date, tz: str) -> Week:
    year, number, _ = monday.isocalendar()
    dates = [monday + timedelta(days=place) for place in range(DAYS + 1)]
    starts = [_midnight_ms(day, tz) for day in dates]
    days = tuple(
        Day(f"{day:%a} {day.day}", since_ms, until_ms)
        for day, since_ms, until_ms in zip(dates, starts, starts[1:], strict=False)
    )
    return Week(f"{year}-W{number:02}", tz, monday, days)


def _midnight_ms(day: date, tz: str) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(tz)).timestamp() * 1000)


def _day(day: date) -> str:
    return f"{day.day} {day:%b}"
