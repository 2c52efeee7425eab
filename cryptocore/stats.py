"""What a core has done in this process, for whoever looks after the service: numbers, and nothing that is secret.

Everything counts from the process's start (or its fork) and only grows, but for what is marked "now".
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import TYPE_CHECKING, Any, Self

import msgspec

from cryptocore.clock import Clock, parse_rfc3339
from cryptocore.events import Tally
from cryptocore.revocations import Revocation

if TYPE_CHECKING:
    from cryptocore.emitter import Emitter


@dataclass(slots=True)
class Counts:
    """What the parts of a core count as they work; each is raised on the core's event loop alone.

    The attributes are those of `CoreStats` with the same names.
    """

    cache_hits: int = 0
    cache_misses: int = 0
    cache_evictions: int = 0
    failures_remembered: int = 0
    outage_grace_uses: int = 0
    vault_unwraps: int = 0
    vault_wraps: int = 0
    vault_failures: int = 0
    vault_throttled: int = 0
    vault_over_budget: int = 0


class RevocationWindow(msgspec.Struct, frozen=True):
    """From the change of a key's state to the drop of its DEK in this process, over the last 1,000 drops.

    Attributes:
        measured: drops that were measured, at most 1,000.
        last_ms: the latest one.
        median_ms: half of them took at most this long.
        most_ms: the longest one.
    """

    measured: int
    last_ms: int
    median_ms: int
    most_ms: int

    @classmethod
    def of(cls, revocations: Sequence[Revocation]) -> Self | None:
        """Sum up what was measured; None when nothing was."""
        if not revocations:
            return None
        windows = [revocation.after_ms for revocation in revocations]
        return cls(len(windows), windows[-1], median_low(windows), max(windows))


class CoreStats(msgspec.Struct, frozen=True, kw_only=True):
    """`core.stats()`: one look at a core.

    Attributes:
        service: the source of its events.
        instance: this process, as its chains name it; lower-case hex.
        open: now: whether it was opened and not closed.
        committed: single and outcome events that are durable, by operation and outcome.
        events_committed: their sum.
        batches_sent: sealed batches of this process that the log has.
        lines_sent: lines in them: events, intents, heartbeats.
        spool_bytes: now: lines and batches that the log does not have yet.
        spool_quota_bytes: how many there may be; a tenth is kept for outcomes, denials and the life cycle.
        oldest_unsent_age_ms: now: how long the oldest of them has waited; None when the log has all.
        audit_failures: calls that raised `AuditUnavailable` because their event could not be made durable.
        cache_entries: now: key versions remembered.
        cache_hits: uses whose DEK was in memory.
        cache_misses: uses whose DEK was not, and for which the vault was asked or another's request awaited.
        cache_evictions: key versions forgotten because others needed their place (`dek_max_entries`).
        failures_remembered: calls refused without asking, since the same had failed a moment before (`failure_s`).
        outage_grace_uses: uses of a DEK past its age while the vault did not answer (`vault_outage_grace_s`).
        vault_unwraps: unwraps that the vault did.
        vault_wraps: wraps that it did.
        vault_failures: calls that it refused, or that failed; throttled ones among them.
        vault_throttled: calls that it answered with 429.
        vault_over_budget: calls that were not made, for want of a token in this process's budget.
        revocation_window: the measured one; None when no DEK was dropped yet because of a key's state.
    """

    service: str
    instance: str
    open: bool
    committed: tuple[Tally, ...]
    events_committed: int
    batches_sent: int
    lines_sent: int
    spool_bytes: int
    spool_quota_bytes: int
    oldest_unsent_age_ms: int | None
    audit_failures: int
    cache_entries: int
    cache_hits: int
    cache_misses: int
    cache_evictions: int
    failures_remembered: int
    outage_grace_uses: int
    vault_unwraps: int
    vault_wraps: int
    vault_failures: int
    vault_throttled: int
    vault_over_budget: int
    revocation_window: RevocationWindow | None

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON has it: texts, numbers, lists and dicts."""
        found: dict[str, Any] = msgspec.json.decode(self.as_json())
        return found

    def as_json(self) -> bytes:
        """Give it as one line of JSON."""
        return msgspec.json.encode(self)


def look(
    emitter: "Emitter", counts: Counts, *, entries: int, revocations: Sequence[Revocation], clock: Clock, is_open: bool
) -> CoreStats:
    """Put together what emitter and core know; reads memory only, and may be called on any thread."""
    committed = sorted(emitter.committed.items())
    oldest_at = emitter.oldest_unsent_at()
    waited_us = None if oldest_at is None else clock.now_us() - parse_rfc3339(oldest_at)
    return CoreStats(
        service=emitter.service,
        instance=emitter.instance.hex(),
        open=is_open,
        committed=tuple(Tally(operation=key[0], outcome=key[1], count=count) for key, count in committed),
        events_committed=sum(count for _, count in committed),
        batches_sent=emitter.sent.batches,
        lines_sent=emitter.sent.lines,
        spool_bytes=emitter.spool_bytes,
        spool_quota_bytes=emitter.quota_bytes,
        oldest_unsent_age_ms=None if waited_us is None else max(0, waited_us // 1000),
        audit_failures=emitter.failures,
        cache_entries=entries,
        **asdict(counts),
        revocation_window=RevocationWindow.of(revocations),
    )
