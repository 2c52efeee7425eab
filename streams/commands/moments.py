"""Moments as people type them: a date, an RFC 3339 time in UTC, or how long ago."""

import re
from datetime import UTC, datetime
from typing import Final

from alerts.thresholds import DAY_MS, HOUR_MS, MINUTE_MS

_AGO: Final = re.compile(r"([1-9]\d{0,4})([mhd])")
_UNITS: Final = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}


def moment_ms(text: str, *, now_ms: int) -> int:
    """Read `2026-11-20`, `2026-11-20T08:00:00Z` or `36h` (m, h, d), to milliseconds since the epoch.

    Raises:
        ValueError: it is none of them.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_ms - int(ago[1]) * _UNITS[ago[2]]
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round(moment.timestamp() * 1000)


def coming_ms(text: str, *, now_ms: int) -> int:
    """Read a date, an RFC 3339 time or `7d`, which here is how far ahead; to milliseconds since the epoch.

    Raises:
        ValueError: it is none of them.
    """
    ahead = _AGO.fullmatch(text)
    if ahead is not None:
        return now_ms + int(ahead[1]) * _UNITS[ahead[2]]
    return moment_ms(text, now_ms=now_ms)
