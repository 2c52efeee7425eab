"""Decrypts of a revoked DEK: the key was taken out of service, and somebody still uses it.

An unwrap is told only where it names a revision from before the revocation, long after it: a recovery unwraps too, and
names the revoked one.
"""

from typing import Final

from alerts.examples import earlier, fires, key_use, key_view, silent
from alerts.model import Evidence, Finding, KeyUse, Rule, Scope, Severity
from alerts.thresholds import HOUR_MS, MINUTE_MS, Limits
from alerts.words import duration, short_id
from cryptocore.events import Operation, Outcome

RULE = Rule(
    id="revoked_key_decrypt",
    title="Decrypt with a revoked key",
    scope=Scope.KEY,
    severity=Severity.HIGH,
    policy="9.5c",
    technique="T1552",
    known_gaps="A process with its own copy of the DEK leaves no event; only its KEK unwraps show. A use that the "
    "key's state no longer remembers (32 back) is missed when the revoke itself arrives late.",
    first_step="find out from the actor's service why the revoked key is still asked for; if it succeeded, stop that "
    "service and re-encrypt what the key protected",
)

READS: Final = frozenset({Operation.DECRYPT, Operation.UNWRAP})
"""Acts that are told where they name an old revision of a revoked version; nobody else needs to tell of it then."""


def evaluate(use: KeyUse, limits: Limits) -> Finding | None:
    """Report every decrypt after the revocation; one that succeeded means that revocation does not hold."""
    key = use.key
    if use.operation not in READS or key is None or key.revoked_ms is None:
        return None
    is_older = use.key_revision < (key.revoked_in or 0)
    if use.effective_ms <= key.revoked_ms and is_older:
        return None  # late arrival of a use that was still allowed
    if use.operation is Operation.UNWRAP and not (is_older and use.effective_ms - key.revoked_ms > _lag_ms(limits)):
        return None
    succeeded = use.outcome is Outcome.SUCCEEDED
    after_ms = use.effective_ms - key.revoked_ms
    return Finding.of(
        RULE,
        severity=Severity.CRITICAL if succeeded else RULE.severity,
        summary=f"{use.operation if succeeded else f'attempt to {use.operation}'} with key {short_id(key.id)} version "
        f"{key.version}, {_when(after_ms)} its revocation ({key.revocation_reason or 'no reason given'})",
        effective_ms=use.effective_ms,
        tenant=use.tenant,
        key=key.id,
        who=f"{use.actor} through {use.service}, purpose {use.purpose}",
        sure=_sure(use, after_ms, limits),
        evidence=(Evidence("event", use.event_id, use.effective_ms),),
        facts={"outcome": use.outcome.value, "after_revocation_ms": str(after_ms), "service": use.service},
    )


def _lag_ms(limits: Limits) -> int:
    """How long a process may not know of a revocation: the age of a cache, and two clocks."""
    return limits.state_max_age_ms + limits.join_slack_ms


def _when(after_ms: int) -> str:
    return f"{duration(after_ms)} after" if after_ms >= 0 else f"dated {duration(-after_ms)} before"


def _sure(use: KeyUse, after_ms: int, limits: Limits) -> str:
    if after_ms < 0:
        return "high: the event carries the revoked revision, so its own date cannot be right"
    if use.outcome is Outcome.SUCCEEDED and after_ms <= limits.state_max_age_ms:
        return (
            f"high that it happened; within the {duration(limits.state_max_age_ms)} in which a cache may not know yet. "
            "One such use is the price of caching; later ones are not"
        )
    return "high: the event is sealed by its service, and the revocation is in the key's signed history"


EXAMPLES = (
    fires(
        "revoked an hour ago, decrypt denied",
        Severity.HIGH,
        key_use(Operation.DECRYPT, Outcome.DENIED, key=key_view(revoked_ago_ms=HOUR_MS)),
    ),
    fires(
        "revoked an hour ago, decrypt succeeded",
        Severity.CRITICAL,
        key_use(Operation.DECRYPT, Outcome.SUCCEEDED, key=key_view(revoked_ago_ms=HOUR_MS), key_revision=6),
    ),
    fires(
        "dated before the revocation, yet it names the revoked revision",
        Severity.CRITICAL,
        key_use(Operation.DECRYPT, Outcome.SUCCEEDED, key=key_view(revoked_ago_ms=-MINUTE_MS), key_revision=7),
    ),
    fires(
        "revoked an hour ago, and a process with an old copy of the record unwraps the DEK",
        Severity.CRITICAL,
        key_use(Operation.UNWRAP, Outcome.SUCCEEDED, key=key_view(revoked_ago_ms=HOUR_MS), key_revision=6),
    ),
    silent(
        "an unwrap that knows of the revocation: a recovery reads under two approvals",
        key_use(Operation.UNWRAP, Outcome.SUCCEEDED, key=key_view(revoked_ago_ms=HOUR_MS), key_revision=7),
    ),
    silent(
        "an unwrap of a minute after, by a cache that may not know yet",
        key_use(Operation.UNWRAP, Outcome.SUCCEEDED, key=key_view(revoked_ago_ms=MINUTE_MS), key_revision=6),
    ),
    silent(
        "use before the revocation, arriving late",
        key_use(Operation.DECRYPT, Outcome.SUCCEEDED, key=key_view(revoked_ago_ms=-HOUR_MS), key_revision=6),
    ),
    silent("the key is active", key_use(Operation.DECRYPT, Outcome.FAILED, recent=earlier(3, every_ms=MINUTE_MS))),
    silent(
        "encryption with a revoked key is refused by the library and no decrypt",
        key_use(Operation.ENCRYPT, Outcome.DENIED, key=key_view(revoked_ago_ms=HOUR_MS)),
    ),
    silent("no key is known", key_use(Operation.DECRYPT, Outcome.FAILED, key=None, key_revision=0)),
)
