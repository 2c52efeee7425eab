"""How many of our services' calls the vaults' logs show, per vault and hour: below 98 % for half an hour is a finding.

The join tallies, in the partition of each KEK, every call that the vault answered, from 15 minutes after its event
came: Azure delivers within that time nearly always. The one partition of `sources` adds the tallies of a vault up and
judges them; a record that comes later corrects them. Hours are those of the calls, waiting goes by the broker's time.

Few calls prove nothing: what is missing must be more than Azure's own losses can explain (`too_many`).
"""

from collections.abc import Iterator
from math import sqrt
from typing import Final, Literal

import msgspec
from msgspec import Struct

from alerts.model import Finding, Severity
from alerts.system import system_finding
from alerts.thresholds import HOUR_MS, MINUTE_MS, Limits
from alerts.words import duration
from cryptocore.clock import rfc3339_ms
from streams.findings import FindingBook
from streams.messages import SOURCES, Effects
from streams.state import Kind, State

TELL_MS: Final = MINUTE_MS
"""A partition tells what it tallied at most this often for each vault and hour."""
KEEP_MS: Final = 6 * HOUR_MS
"""How long an hour can still be corrected: the join keeps a call for less."""
MAX_VAULTS: Final = 4_096
_VAULT: Final = b"match:"
_encode = msgspec.json.Encoder().encode


class Tallied(Struct, frozen=True, kw_only=True, tag_field="type", tag="tallied"):
    """Calls of one hour that a partition of the join counts more, or fewer, than it told before."""

    v: Literal[1] = 1
    vault: str
    hour_ms: int
    expected: int
    missing: int


class Tally(Struct, array_like=True):
    """One vault and hour in a partition of the join; `told_…` is what `sources` knows."""

    expected: int = 0
    missing: int = 0
    told_expected: int = 0
    told_missing: int = 0
    told_ms: int = 0

    @property
    def told(self) -> bool:
        """Whether nothing is to be told."""
        return (self.expected, self.missing) == (self.told_expected, self.told_missing)


class Tallies:
    """The tallies of one partition of the join."""

    def __init__(self) -> None:
        self._news: dict[bytes, None] = {}

    def restore(self, state: State) -> None:
        """Find what is to be told."""
        found = ((ident, state.get(Kind.BIN, ident, Tally)) for ident in state.idents(Kind.BIN))
        self._news = {ident: None for ident, tally in found if tally is not None and not tally.told}

    def count(self, vault: str, at_ms: int, state: State, *, expected: int, missing: int) -> None:
        """Add answered calls of a moment, and how many of them no record shows; either may be negative."""
        ident = f"{at_ms // HOUR_MS}/{vault}".encode()
        tally = state.get(Kind.BIN, ident, Tally)
        if tally is None:
            if state.count(Kind.BIN) >= MAX_VAULTS:
                return
            tally = Tally()
        tally.expected += expected
        tally.missing += missing
        state.put(Kind.BIN, ident, tally)
        self._news[ident] = None

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Tell what is due, and forget hours that nothing can correct any more."""
        for ident in list(self._news):
            tally = state.get(Kind.BIN, ident, Tally)
            if tally is None or now_ms - tally.told_ms < TELL_MS:
                continue
            del self._news[ident]
            if tally.told:
                continue
            effects.send(SOURCES, ident, _encode(_news(ident, tally)))
            tally.told_expected, tally.told_missing, tally.told_ms = tally.expected, tally.missing, now_ms
            state.put(Kind.BIN, ident, tally)

    def prune(self, now_ms: int, state: State) -> None:
        """Forget hours that nothing can correct any more."""
        for ident in state.idents(Kind.BIN):
            tally = state.get(Kind.BIN, ident, Tally)
            if tally is not None and tally.told and now_ms - tally.told_ms >= KEEP_MS:
                state.forget(Kind.BIN, ident)


def _news(ident: bytes, tally: Tally) -> Tallied:
    hour, _, vault = ident.decode().partition("/")
    return Tallied(
        vault=vault,
        hour_ms=int(hour) * HOUR_MS,
        expected=tally.expected - tally.told_expected,
        missing=tally.missing - tally.told_missing,
    )


class Hour(Struct, array_like=True):
    """Calls of one hour; `low_ms` is since when too many are missing, `told` whether that is a hit of the finding."""

    expected: int = 0
    missing: int = 0
    low_ms: int = 0
    told: bool = False
    heard_ms: int = 0


class VaultHours(Struct):
    """What is known of one vault, by hour in milliseconds."""

    hours: dict[int, Hour] = {}


def too_many(expected: int, missing: int, limits: Limits) -> bool:
    """Say whether more is missing than 2 % and than the losses of Azure's delivery can explain.

    Those are about 1 %; four standard deviations and three calls above that, chance gives an alert in years. So an hour
    with up to three calls is never judged; one with 4 when all are missing, one with 100 from 9, one with 3,000 from
    61.
    """
    usual = limits.match_loss * expected
    return missing > max((1 - limits.match_ratio) * expected, usual + 4 * sqrt(usual) + 3)


class MatchWatch:
    """The judge of all vaults, part of the sources agent; its findings are in that agent's book."""

    def __init__(self, limits: Limits, book: FindingBook) -> None:
        self._limits = limits
        self._book = book
        self._low: dict[str, None] = {}

    def restore(self, state: State) -> None:
        """Find the vaults that are to be looked at."""
        self._low = {}
        for ident in state.idents(Kind.METER):
            known = state.get(Kind.METER, ident, VaultHours) if ident.startswith(_VAULT) else None
            if known is not None and any(hour.low_ms or hour.told for hour in known.hours.values()):
                self._low[ident.removeprefix(_VAULT).decode()] = None

    def take(self, tallied: Tallied, now_ms: int, state: State, effects: Effects) -> None:
        """Add a tally."""
        ident = _VAULT + tallied.vault.encode()
        known = state.get(Kind.METER, ident, VaultHours)
        if known is None:
            if state.count(Kind.METER) >= 3 * MAX_VAULTS:
                return
            known = VaultHours()
        hour = known.hours.get(tallied.hour_ms, Hour())
        hour.expected += tallied.expected
        hour.missing += tallied.missing
        hour.heard_ms = now_ms
        low = too_many(hour.expected, hour.missing, self._limits)
        hour.low_ms = (hour.low_ms or now_ms) if low else 0
        kept = {at_ms: one for at_ms, one in known.hours.items() if one.told or now_ms - one.heard_ms < KEEP_MS}
        known.hours = dict(sorted({**kept, tallied.hour_ms: hour}.items()))
        if low or any(one.told for one in known.hours.values()):
            self._low[tallied.vault] = None
        state.put(Kind.METER, ident, known)
        self._judge(tallied.vault, now_ms, state, effects)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Judge the hours that are low."""
        for vault in list(self._low):
            self._judge(vault, now_ms, state, effects)

    def _judge(self, vault: str, now_ms: int, state: State, effects: Effects) -> None:
        """Tell of what has been low for long; take it back when its records came, or when a later hour is whole."""
        known = state.get(Kind.METER, _VAULT + vault.encode(), VaultHours)
        if known is None or vault not in self._low:
            return
        whole_ms = max(self._whole(known, now_ms), default=None)
        for at_ms, hour in known.hours.items():
            later_is_whole = whole_ms is not None and whole_ms > at_ms
            if hour.told and (not hour.low_ms or later_is_whole):
                self._book.retract(
                    finding(vault, at_ms, hour), _reason(at_ms, hour, whole_ms), now_ms, state, effects, hits=1
                )
                hour.told = False
                state.put(Kind.METER, _VAULT + vault.encode(), known)
            elif _is_due(hour, now_ms, self._limits) and not later_is_whole:
                hour.told = True
                state.put(Kind.METER, _VAULT + vault.encode(), known)
                self._book.report(finding(vault, at_ms, hour), now_ms, state, effects)
        if not any(hour.told or (hour.low_ms and not _past(hour, now_ms)) for hour in known.hours.values()):
            self._low.pop(vault, None)

    def _whole(self, known: VaultHours, now_ms: int) -> Iterator[int]:
        """Hours that are over, looked at, and in which the log would have shown that it is still broken."""
        limits = self._limits
        for at_ms, hour in known.hours.items():
            over = now_ms >= at_ms + HOUR_MS + limits.unlogged_first_look_ms + limits.match_low_ms
            if over and not hour.low_ms and too_many(hour.expected, hour.expected, limits):
                yield at_ms


def _is_due(hour: Hour, now_ms: int, limits: Limits) -> bool:
    return hour.low_ms > 0 and not hour.told and now_ms - hour.low_ms >= limits.match_low_ms


def _past(hour: Hour, now_ms: int) -> bool:
    return now_ms - hour.heard_ms >= KEEP_MS


def finding(vault: str, at_ms: int, hour: Hour) -> Finding:
    """Say what the log of a vault does not show of an hour; all hours of a vault have one fingerprint."""
    span = f"{rfc3339_ms(at_ms)[:16].replace('T', ' ')} UTC"
    found = hour.expected - hour.missing
    shows = f"{found:,} of {hour.expected:,}" if found else f"none of {hour.expected:,}"
    return system_finding(
        "match_ratio_low",
        summary=f"the log of {vault} shows {shows} calls of our services in the hour from {span}",
        effective_ms=at_ms,
        severity=None if found else Severity.HIGH,
        key=vault,
        sure="high: the vault answered those calls, by the events of the services that made them",
        facts={"expected": str(hour.expected), "missing": str(hour.missing), "ratio": f"{ratio(hour):.1f} %"},
    )


def ratio(hour: Hour) -> float:
    """Percent of the calls that the log shows."""
    return 100 * (hour.expected - hour.missing) / hour.expected if hour.expected else 100.0


def _reason(at_ms: int, hour: Hour, whole_ms: int | None) -> str:
    if not hour.low_ms:
        return f"records came late: the log shows {ratio(hour):.1f} % of the hour from {rfc3339_ms(at_ms)[11:16]}"
    after = duration((whole_ms or at_ms) - at_ms)
    return f"the log shows the calls again, {after} later; what it misses before stays missing"
