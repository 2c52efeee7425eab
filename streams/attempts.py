"""What is matched: attempts that services say they made, accesses that the vault logged, and when the two agree."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from alerts.model import AccessOutcome, KekUse, Strength
from alerts.thresholds import Limits
from cryptocore.clock import parse_rfc3339
from cryptocore.events import VaultAttempt
from streams.correlate import Claim
from streams.joinstate import ClaimState

VAULT_OPERATION: Final = {"wrap": "KeyWrap", "unwrap": "KeyUnwrap"}

_MS: Final = 1_000
_UNAUTHORIZED: Final = 401


@dataclass(slots=True, eq=False)
class Attempt:
    """One request that a service says it made. `outcome` None: unknown, so any agrees; `kek` is `vault/name`."""

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
    """One vault record by a principal of `source`, and the attempt that explains it."""

    ident: bytes
    source: str
    kek: str
    operation: str
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
        and access.operation == attempt.operation
        and attempt.from_us <= access.time_us <= attempt.to_us
        and attempt.outcome in {None, access.outcome}
        and (access.version is None or attempt.version is None or access.version == attempt.version)
    )


def access_of(ident: bytes, use: KekUse, source: str) -> Access:
    """Take from a vault record what is matched by."""
    return Access(
        ident=ident,
        source=source,
        kek=f"{use.vault}/{use.name}",
        operation=use.operation,
        version=use.version,
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
        operation=VAULT_OPERATION[claim.operation],
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
