"""What is matched: attempts that services say they made, accesses that the vault logged, and when the two agree.

A wrap explains a KeyWrap, an unwrap a KeyUnwrap; which act on a KEK explains which administrative record is a table of
docs/formats.md, "The join".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from alerts.model import AccessOutcome, KeyChange, Strength
from alerts.thresholds import Limits
from cryptocore.clock import parse_rfc3339
from cryptocore.events import VaultAttempt
from streams.joining.correlate import Claim
from streams.joining.joinstate import ClaimState, UseState

VAULT_OPERATION: Final = {
    "wrap": "KeyWrap",
    "unwrap": "KeyUnwrap",
    "create": "KeyCreate",
    "activate": "KeyUpdate",
    "rotate": "KeyRotate",
    "rewrap": "KeyUpdate",
    "suspend": "KeyUpdate",
    "resume": "KeyUpdate",
    "revoke": "KeyUpdate",
    "archive": "KeyBackup",
    "destroy": "KeyDelete",
}
"""What a service does, and the record that it most likely leaves: all operations that make a claim."""

USES: Final = frozenset({"wrap", "unwrap"})
_EXPLAINED_BY: Final = {
    operation: frozenset(acts.split())
    for operation, acts in {
        "KeyWrap": "wrap",
        "KeyUnwrap": "unwrap",
        "KeyCreate": "create rotate",
        "KeyImport": "create",
        "KeyRestore": "create resume",
        "KeyRotate": "rotate",
        "KeyRotateIfDue": "rotate",
        "KeyRotationPolicySet": "create rotate",
        "KeyBackup": "archive",
        "KeyDelete": "destroy",
        "KeyPurge": "destroy",
        "KeyRecover": "resume",
    }.items()
}
_DISABLES: Final = frozenset({"suspend", "revoke", "archive"})
_ENABLES: Final = frozenset({"activate", "resume"})
_ADJUSTS: Final = frozenset({"activate", "rotate", "rewrap"})
_NOTHING: Final[frozenset[str]] = frozenset()

_MS: Final = 1_000
_UNAUTHORIZED: Final = 401


@dataclass(slots=True, eq=False)
class Attempt:
    """One request that a service says it made. `outcome` None: unknown, so any agrees; `kek` is `vault/name`.

    `operation` is the event's.
    """

    claim: bytes
    number: int
    source: str
    kek: str
    operation: str
    version: str | None
    outcome: str | None
    request_id: str | None
    call_id: str
    from_us: int
    to_us: int
    expected: bool
    taken: "Access | None" = None
    settled: bool = False

    @property
    def order(self) -> tuple[int, bytes, int]:
        return self.from_us, self.claim, self.number


@dataclass(slots=True, eq=False)
class Access:
    """One vault record by a principal of `source`, and the attempt that explains it.

    `explained_by` are the operations of events that may.
    """

    ident: bytes
    source: str
    kek: str
    explained_by: frozenset[str]
    version: str | None
    outcome: str
    correlation_id: str | None
    time_us: int
    attempt: Attempt | None = None
    strength: Strength | None = None

    @property
    def order(self) -> tuple[int, bytes]:
        return self.time_us, self.ident


def agree(access: Access, attempt: Attempt) -> bool:
    """Whether everything but the ids agrees; a version that one side does not name is no contradiction."""
    return (
        access.kek == attempt.kek
        and access.source == attempt.source
        and attempt.operation in access.explained_by
        and attempt.from_us <= access.time_us <= attempt.to_us
        and attempt.outcome in {None, access.outcome}
        and (access.version is None or attempt.version is None or access.version == attempt.version)
    )


def explained_by(operation: str, change: KeyChange | None) -> frozenset[str]:
    """Say which operations of events may explain a record; a KeyUpdate is known by what it asked for."""
    if operation != "KeyUpdate":
        return _EXPLAINED_BY.get(operation, _NOTHING)
    if change is None:
        return _DISABLES | _ENABLES | _ADJUSTS
    if change.enabled is None:
        return _ADJUSTS
    return _ENABLES if change.enabled else _DISABLES


def access_of(ident: bytes, known: UseState, source: str) -> Access:
    """Take from a vault record what is matched by; acts on all versions of a key, or for a new one, match any."""
    use, act = known.use, known.act
    of_version = act is None or use.operation == "KeyUpdate"
    return Access(
        ident=ident,
        source=source,
        kek=f"{use.vault}/{use.name}",
        explained_by=explained_by(use.operation, None if act is None else act.key_change),
        version=use.version if of_version else None,
        outcome=use.outcome,
        correlation_id=use.correlation_id.lower() if use.correlation_id else None,
        time_us=use.time_us,
    )


def attempts_of(ident: bytes, known: ClaimState, limits: Limits) -> list[Attempt]:
    """List what a claim may stand for: its attempts, or one per call id where nobody knows how the call ended."""
    claim = known.claim
    if claim.phase != "intent" and (claim.attempts or claim.outcome != "unknown"):
        return [_told(ident, number, attempt, known, limits) for number, attempt in enumerate(claim.attempts)]
    begun_ms = known.intent_ms if known.intent_ms is not None else claim.effective_ms
    from_us = (begun_ms - limits.join_slack_ms) * _MS
    to_us = (begun_ms + limits.intent_reach_ms) * _MS
    return [
        _attempt(ident, number, known, call_id, None, None, from_us, to_us)
        for number, call_id in enumerate(_unique(known.call_ids or claim.call_ids))
    ]


def outcome_of(http_status: int) -> str:
    """Class an answer of the vault as its log's records are classed."""
    if 200 <= http_status < 300:  # noqa: PLR2004 - every status of success
        return AccessOutcome.SUCCEEDED
    return _OUTCOMES.get(http_status, AccessOutcome.FAILED)


_OUTCOMES: Final = {
    401: AccessOutcome.DENIED,
    403: AccessOutcome.DENIED,
    404: AccessOutcome.NOT_FOUND,
    429: AccessOutcome.THROTTLED,
}


def _told(ident: bytes, number: int, told: VaultAttempt, known: ClaimState, limits: Limits) -> Attempt:
    """An attempt without an answer may have reached the vault as late as an open intent's; none takes longer."""
    started_us = parse_rfc3339(told.started_at)
    unanswered_us = started_us + (limits.intent_reach_ms - limits.join_slack_ms) * _MS
    ended_us = unanswered_us if told.ended_at is None else min(parse_rfc3339(told.ended_at), unanswered_us)
    slack_us = limits.join_slack_ms * _MS
    return _attempt(
        ident,
        number,
        known,
        told.call_id,
        told.request_id,
        told.http_status,
        started_us - slack_us,
        ended_us + slack_us,
    )


def _attempt(  # noqa: PLR0917 - the parts of an attempt, called twice above
    ident: bytes,
    number: int,
    known: ClaimState,
    call_id: str,
    request_id: str | None,
    http_status: int | None,
    from_us: int,
    to_us: int,
) -> Attempt:
    claim = known.claim
    return Attempt(
        claim=ident,
        number=number,
        source=claim.source,
        kek=f"{claim.vault}/{claim.name}".lower(),
        operation=claim.operation,
        version=claim.version,
        outcome=None if http_status is None else outcome_of(http_status),
        request_id=request_id.lower() if request_id else None,
        call_id=call_id.lower(),
        from_us=from_us,
        to_us=to_us,
        expected=http_status not in {None, _UNAUTHORIZED},
        settled=call_id.lower() in known.settled,
    )


def _unique(call_ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(call_ids))


def prefer(claim: Claim, over: Claim) -> bool:
    """Whether one claim of a call replaces another: an outcome the intent, a known outcome an unknown one."""
    return _weight(claim) < _weight(over)


def _weight(claim: Claim) -> tuple[bool, bool, str]:
    return claim.phase == "intent", claim.outcome in {None, "unknown"}, claim.event_id
