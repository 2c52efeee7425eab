"""How values are said to people: durations, ids, times. English, UTC, no more digits than help."""

from typing import Final

from alerts.thresholds import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from cryptocore.clock import rfc3339_ms

TO: Final = "\u2013"
TIMES: Final = "\u00d7"
DOT: Final = "\u00b7"
BECAME: Final = "\u2192"
_SHORT = 12
_KINDS: Final = {"user": "user", "workload": "workload", "azure_service": "service of Azure"}


def duration(ms: int) -> str:
    """Say a length of time in its largest fitting unit: `850 ms`, `1.8 s`, `12 min`, `3 h`, `6 d`."""
    if ms < SECOND_MS:
        return f"{ms} ms"
    if ms < MINUTE_MS:
        return f"{ms / SECOND_MS:.1f} s".replace(".0 s", " s")
    if ms < 2 * HOUR_MS:
        return f"{ms // MINUTE_MS} min"
    return f"{ms // HOUR_MS} h" if ms < 2 * DAY_MS else f"{ms // DAY_MS} d"


def short_id(ident: str) -> str:
    """Cut a long id in the middle, as `8c1f0a9e…00e2`; the whole one is in the evidence."""
    return ident if len(ident) <= _SHORT + 1 else f"{ident[:8]}…{ident[-4:]}"


def identity(kind: str, ident: str, label: str | None = None, belongs: str = "") -> str:
    """Name a vault's caller: `ci-deploy (workload 8c1f0a9e…00e2)`, or without a label `workload 8c1f0a9e…00e2`."""
    known = f"{_KINDS.get(kind, 'identity')} {short_id(ident)}{belongs}"
    return f"{label} ({known})" if label else known


def moment(ms: int) -> str:
    """Say when, to the second: `2026-11-16 02:41:07`."""
    return rfc3339_ms(ms)[:19].replace("T", " ")


def span(first_ms: int, last_ms: int) -> str:
    """Say from when to when, without repeating the day: `2026-11-16 02:41:07` to `02:44:10 UTC`."""
    first, last = moment(first_ms), moment(last_ms)
    if first == last:
        return f"{first} UTC"
    return f"{first}{TO}{last[11:] if first[:10] == last[:10] else last} UTC"


def printable(text: str) -> str:
    """Replace what a terminal would obey or hide: names in logs are written by strangers."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "?" for sign in text)
