"""Time as an argument: the wall clock in microseconds, the monotonic clock in seconds, and RFC 3339 with six digits."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """What cryptocore, the spool, the local vault and the in-memory log need to know of time."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01T00:00:00Z."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


def rfc3339(us: int) -> str:
    """Write microseconds since the epoch as `2026-11-16T02:41:07.123456Z`."""
    second, micros = divmod(us, 1_000_000)
    return f"{_second(second)}.{micros:06d}Z"


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    """Write a second once: thousands of events share it."""
    return (EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339_ms(ms: int) -> str:
    """Write milliseconds since the epoch in the same form."""
    return rfc3339(ms * 1000)


def parse_rfc3339(text: str) -> int:
    """Read exactly the form that `rfc3339` writes.

    Raises:
        ValueError: another form, or no such date.
    """
    if len(text) != 27 or text[-1] != "Z" or text[7] != "-" or text[10] != "T" or text[19] != ".":  # noqa: PLR2004
        raise ValueError(f"not a UTC time with six digits and Z: {text!r}")
    return (datetime.fromisoformat(text) - EPOCH) // _MICROSECOND
