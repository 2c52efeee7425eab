"""How much of what happened in the vaults was seen and explained: counts per vault and hour, out of the index.

An hour is *blind* where the vault answered calls of ours and its own log shows nothing at all; *partly* where it shows
some and misses others; *silent* where nobody has anything to say of it, which is no proof that nothing happened. With a
declaration, a vault that should have spoken within the time and did not is blind as a whole.
"""

from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from alerts.thresholds import HOUR_MS
from cryptocore.clock import rfc3339_ms
from streams.feeds.vaults import VaultDeclarations
from streams.index.port import DocKind, EventIndex
from streams.presence.sightings import OWN_SHAPES

STATUSES: Final = ("matched", "unaccounted", "unlogged", "pending", "not_evaluated", "allowed")


class Sight(StrEnum):
    """What one hour of a vault's log was worth."""

    SEEN = "seen"
    PARTLY = "partly"
    BLIND = "blind"
    SILENT = "silent"


class Hour(Struct, frozen=True, kw_only=True):
    """One hour of one vault; `records` are those of the vault's own log, of any operation."""

    start_ms: int
    records: int
    uses: dict[str, int]

    @property
    def sight(self) -> Sight:
        """Say what the vault's log was worth in this hour."""
        unlogged = self.uses.get("unlogged", 0)
        if self.records:
            return Sight.PARTLY if unlogged else Sight.SEEN
        return Sight.BLIND if unlogged else Sight.SILENT


class Coverage(Struct, frozen=True):
    """One vault's hours, without gaps, oldest first.

    `declared` says whether vaults.toml names it, None where there is no such file; `quiet_ms` is how long its log may
    say nothing, 0 where nobody said.
    """

    vault: str
    hours: tuple[Hour, ...]
    declared: bool | None = None
    quiet_ms: int = 0

    @property
    def records(self) -> int:
        """How many records of its own log there are."""
        return sum(hour.records for hour in self.hours)

    @property
    def sight(self) -> Sight:
        """Say what the vault's log was worth in all this time."""
        if not self.records:
            late = self.quiet_ms and len(self.hours) * HOUR_MS >= self.quiet_ms
            return Sight.BLIND if late or self.count(Sight.BLIND) else Sight.SILENT
        return Sight.PARTLY if self.count(Sight.BLIND) or self.count(Sight.PARTLY) else Sight.SEEN

    def total(self, status: str) -> int:
        """Add up the uses of a status."""
        return sum(hour.uses.get(status, 0) for hour in self.hours)

    def count(self, sight: Sight) -> int:
        """Count hours."""
        return sum(hour.sight is sight for hour in self.hours)

    def shown(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "vault": self.vault,
            "sight": self.sight.value,
            "declared": self.declared,
            "records": self.records,
            "hours": len(self.hours),
            "hours_blind": self.count(Sight.BLIND),
            "hours_partly": self.count(Sight.PARTLY),
            "hours_silent": self.count(Sight.SILENT),
            **{status: self.total(status) for status in STATUSES},
            "by_hour": [
                {"hour": rfc3339_ms(hour.start_ms), "sight": hour.sight.value, "records": hour.records}
                | {status: hour.uses.get(status, 0) for status in STATUSES}
                for hour in self.hours
            ],
        }


async def read(
    index: EventIndex, *, since_ms: int, until_ms: int, declared: VaultDeclarations | None = None
) -> list[Coverage]:
    """Count whole hours, from the one that holds `since_ms` to the one that holds the last moment before `until_ms`.

    Args:
        index: what is read.
        since_ms: where the time begins.
        until_ms: where it ends, not included.
        declared: the vaults that there are, each of which is listed; without it, those of which the index knows.

    Raises:
        IndexUnavailable: the index does not answer.
    """
    starts = range(since_ms // HOUR_MS * HOUR_MS, until_ms, HOUR_MS)
    counted = {start_ms: await _hour(index, start_ms) for start_ms in starts}
    known = {} if declared is None else declared.vaults
    vaults = sorted({*known, *(vault for found in counted.values() for vault in found)})
    none: dict[str, int] = {}
    return [
        Coverage(
            vault,
            tuple(_judged(start_ms, found.get(vault, none)) for start_ms, found in counted.items()),
            None if declared is None else vault in known,
            known[vault].quiet_ms if vault in known else 0,
        )
        for vault in vaults
    ]


async def _hour(index: EventIndex, start_ms: int) -> dict[str, dict[str, int]]:
    """Count by vault: its records under "records", its uses by their status."""
    until_ms = start_ms + HOUR_MS
    found: dict[str, dict[str, int]] = {}
    records = await index.count_by(DocKind.VAULT_ACCESS, ["vault", "shape"], since_ms=start_ms, until_ms=until_ms)
    for (vault, shape), count in records.items():
        if vault and shape in OWN_SHAPES:
            counts = found.setdefault(vault, {})
            counts["records"] = counts.get("records", 0) + count
    uses = await index.count_by(DocKind.KEK_USE, ["vault", "status"], since_ms=start_ms, until_ms=until_ms)
    for (vault, status), count in uses.items():
        found.setdefault(vault, {})[status] = count
    return found


def _judged(start_ms: int, counts: dict[str, int]) -> Hour:
    uses = {status: count for status, count in counts.items() if status != "records"}
    return Hour(start_ms=start_ms, records=counts.get("records", 0), uses=uses)
