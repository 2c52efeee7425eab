"""What the trail knows of one key: its versions' lives, its last uses, and how often it was used.

Records of the state of `key-events`. They do not depend on the order in which the batches of several senders came:
uses are kept by time, and a life-cycle event finds its place by its revision.
"""

from bisect import insort
from collections.abc import Sequence
from enum import StrEnum
from struct import Struct as Layout
from typing import Final, overload
from uuid import UUID

from msgspec import Struct

from alerts.model import KeyView, RecentUse
from alerts.thresholds import Limits
from cryptocore.events import AuditEvent, Operation, Outcome, Reason

MAX_VERSIONS: Final = 64
"""Versions of a key that are remembered; beyond them the lowest is forgotten."""
MAX_REVISIONS: Final = 16
"""Life-cycle events of a version whose digests are remembered."""

_OPERATIONS: Final = tuple(Operation)
_OUTCOMES: Final = tuple(Outcome)
_OPERATION_CODE: Final = {operation: code for code, operation in enumerate(_OPERATIONS)}
_OUTCOME_CODE: Final = {outcome: code for code, outcome in enumerate(_OUTCOMES)}
COUNTED: Final = {(act, end): f"{act}/{end}" for act in _OPERATIONS for end in _OUTCOMES}
"""Under which name uses are counted."""
_REASONS: Final = (None, *Reason)
_REASON_CODE: Final = {reason: code for code, reason in enumerate(_REASONS)}
_FAILED: Final = frozenset({Outcome.DENIED, Outcome.FAILED})
_USE: Final = Layout(">Q16sBBBQI")
PACKED_ACT: Final = slice(24, 27)
"""Where a packed use says what was done and how it ended."""
PACKED_KEY: Final = slice(27, 39)
"""Where it says which revision and version of the key."""
PACKED_WHO: Final = slice(39, None)
"""Where it says by whom, for what and through which service."""


class LifeCycle(StrEnum):
    """What a life-cycle event is to the history of its version."""

    TAKEN = "taken"
    EARLIER = "earlier"
    REPEATED = "repeated"
    REGRESSION = "regression"


class VersionHistory(Struct, array_like=True):
    """One version of a key.

    `revision` is the highest that a life-cycle event told, 0 where none was seen; below `first`, the first one seen,
    nothing is missing. `skipped` maps revisions that are missing in between to when that was noticed; `ahead_ms` says
    since when uses name a revision that no life-cycle event has told. Both are append times.
    """

    version: int
    state: str | None = None
    revision: int = 0
    first: int = 0
    changed_ms: int = 0
    digests: dict[int, bytes] = {}
    skipped: dict[int, int] = {}
    used: int = 0
    ahead_ms: int = 0
    revoked_ms: int | None = None
    revoked_in: int | None = None
    revocation_reason: str | None = None

    def judge(self, revision: int, digest: bytes) -> LifeCycle:
        """Say what a life-cycle event of this revision is; changes nothing."""
        known = self.digests.get(revision)
        if known is not None:
            return LifeCycle.REPEATED if known == digest else LifeCycle.REGRESSION
        if revision > self.revision:
            return LifeCycle.TAKEN
        if revision in self.skipped or revision < self.first:
            return LifeCycle.EARLIER
        # its digest is no longer remembered: it can only be a repeat
        return LifeCycle.REPEATED if revision < self.revision - MAX_REVISIONS else LifeCycle.REGRESSION

    def note(self, revision: int, digest: bytes, append_ms: int) -> None:
        """Keep the digest of a taken or earlier life-cycle event, and which revisions are missing."""
        self.digests = dict(sorted({**self.digests, revision: digest}.items())[-MAX_REVISIONS:])
        if revision <= self.revision:
            self.skipped = {missing: since for missing, since in self.skipped.items() if missing != revision}
            return
        if self.revision:
            missing = range(max(self.revision + 1, revision - MAX_REVISIONS), revision)
            self.skipped = {**self.skipped, **dict.fromkeys(missing, append_ms)}
        else:
            self.first = revision
        self.revision = revision
        self.ahead_ms = 0 if revision >= self.used else append_ms

    def waiting(self) -> list[int]:
        """Since when life-cycle events are waited for that nobody was told of yet."""
        return [since for since in (*self.skipped.values(), self.ahead_ms) if since]

    def overdue(self, now_ms: int, patience_ms: int) -> list[str]:
        """Say what was waited for too long; a skipped revision is told once, one in use again with its next use."""
        told = []
        late = [revision for revision, since in self.skipped.items() if since and now_ms - since >= patience_ms]
        if late:
            self.skipped = {**self.skipped, **dict.fromkeys(late, 0)}
            told.append(f"no event told of revisions {late[0]} to {late[-1]} of version {self.version}")
        if self.ahead_ms and now_ms - self.ahead_ms >= patience_ms:
            self.ahead_ms = 0
            told.append(
                f"revision {self.used} of version {self.version} is in use and no event told of it; "
                f"revision {self.revision} is the last one known",
            )
        return told


class KeyHistory(Struct, array_like=True):
    """One key, or the uses of one service that named none.

    `uses` holds the last ones by time, oldest first; `failures` the last denied and failed ones, which may be older.
    """

    tenant: str = ""
    integration: str = ""
    last_ms: int = 0
    counts: dict[str, int] = {}
    versions: list[VersionHistory] = []
    uses: list[bytes] = []
    failures: list[bytes] = []

    def version(self, number: int, *, told: bool = False) -> VersionHistory:
        """The version of this number; a new one when it was not known.

        When there are too many, only the life cycle (`told`) makes room, and first at the cost of a version of which
        it told nothing: uses of invented versions never push out what is known of a real one.
        """
        for known in self.versions:
            if known.version == number:
                return known
        fresh = VersionHistory(number)
        versions = self.versions
        if len(versions) >= MAX_VERSIONS:
            if not told:
                return fresh
            versions.remove(next((known for known in versions if not known.revision), versions[0]))
        self.versions = sorted([*versions, fresh], key=lambda known: known.version)
        return fresh

    def count(self, operation: Operation, outcome: Outcome) -> None:
        name = COUNTED[operation, outcome]
        counts = self.counts
        if name in counts:
            counts[name] += 1
        else:
            self.counts = dict(sorted({**counts, name: 1}.items()))

    def remember(self, event: AuditEvent, outcome: Outcome, effective_ms: int, limits: Limits) -> None:
        """Count a use, and keep it among the last ones; a denied or failed one also among the last of those."""
        self.count(event.operation, outcome)
        self.last_ms = max(self.last_ms, effective_ms)
        use = pack_use(event, outcome, effective_ms)
        _keep(self.uses, use, limits.recent_uses)
        if outcome in _FAILED:
            _keep(self.failures, use, limits.recent_failures)


def _keep(uses: list[bytes], use: bytes, most: int) -> None:
    if not uses or use > uses[-1]:
        uses.append(use)
    else:
        insort(uses, use)
    if len(uses) > most:
        del uses[0]


def view_of(key_id: str, version: VersionHistory, *, decoy: bool = False) -> KeyView:
    """The version as rules see it."""
    return KeyView(
        id=key_id,
        version=version.version,
        state=version.state,
        revision=version.revision,
        revoked_ms=version.revoked_ms,
        revoked_in=version.revoked_in,
        revocation_reason=version.revocation_reason,
        decoy=decoy,
    )


def pack_use(event: AuditEvent, outcome: Outcome, effective_ms: int) -> bytes:
    """Write one use so that packed uses sort by time."""
    key = event.key
    head = _USE.pack(
        effective_ms,
        bytes.fromhex(event.id.replace("-", "")),
        _OPERATION_CODE[event.operation],
        _OUTCOME_CODE[outcome],
        _REASON_CODE[event.reason],
        0 if key is None else key.revision or 0,
        0 if key is None else key.version or 0,
    )
    return head + f"{event.actor} {event.purpose} {event.service}".encode()


def unpack_use(packed: bytes) -> RecentUse:
    """Read what `pack_use` wrote."""
    effective_ms, ident, operation, outcome, reason, revision, version = _USE.unpack_from(packed)
    actor, purpose, service = packed[_USE.size :].decode().split(" ")
    return RecentUse(
        str(UUID(bytes=ident)),
        effective_ms,
        _OPERATIONS[operation],
        _OUTCOMES[outcome],
        revision,
        version,
        actor,
        purpose,
        service,
        _REASONS[reason],
    )


class Recent(Sequence[RecentUse]):
    """Packed uses, oldest first, read when a rule looks: most rules do not."""

    __slots__ = ("_packed",)

    def __init__(self, packed: list[bytes]) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, place: int) -> RecentUse: ...
    @overload
    def __getitem__(self, place: slice) -> list[RecentUse]: ...
    def __getitem__(self, place: int | slice) -> RecentUse | list[RecentUse]:
        packed = self._packed
        return unpack_use(packed[place]) if isinstance(place, int) else list(map(unpack_use, packed[place]))
