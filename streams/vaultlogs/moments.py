"""Times of vault records: seven digits kept as text for order, six as a number for arithmetic."""

import re
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptocore.clock import EPOCH, rfc3339
from streams.vaultlogs.rejection import Reason, VaultRecordRejected

_FORM: Final = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:(Z)|([+-])(\d\d):(\d\d))", re.ASCII)
_LAST_SECOND: Final = 4_102_444_800  # the year 2100


def moment(value: object) -> tuple[str, int]:
    """Read a time with its zone and 0 to 9 digits of a second.

    Returns:
        The time in UTC with exactly seven digits, so that its text sorts as time does, and microseconds since 1970.

    Raises:
        VaultRecordRejected: another form, no such date, or outside 1970 to 2100.
    """
    match = _FORM.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise VaultRecordRejected(Reason.TIME, "time", "not an RFC 3339 time with its zone")
    date, clock, digits, utc, sign, hours, minutes = match.groups()
    ticks = ((digits or "") + "0000000")[:7]
    try:
        second = _second(f"{date}T{clock}")
    except ValueError as error:
        raise VaultRecordRejected(Reason.TIME, "time", "no such date or time of day") from error
    if utc is None:
        ahead = int(hours) * 3600 + int(minutes) * 60
        second -= ahead if sign == "+" else -ahead
        date, clock = rfc3339(max(second, 0) * 1_000_000)[:19].split("T")
    if not 0 <= second < _LAST_SECOND:
        raise VaultRecordRejected(Reason.TIME, "time", "outside 1970 to 2100")
    return f"{date}T{clock}.{ticks}Z", second * 1_000_000 + int(ticks[:6])


@lru_cache(4096)
def _second(utc: str) -> int:
    return int(datetime.fromisoformat(f"{utc}+00:00").timestamp() - EPOCH.timestamp())


def from_epoch_seconds(seconds: int) -> str | None:
    """Write the epoch seconds of a key's attributes as RFC 3339; None outside 1970 to 2100."""
    return rfc3339(seconds * 1_000_000) if 0 <= seconds < _LAST_SECOND else None
