"""Decrypts of a revoked DEK: the key was taken out of service, and somebody still uses it."""

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


def evaluate(use: KeyUse, limits: Limits) -> Finding | None:
    """Report every decrypt after the revocation; one that succeeded means that revocation does not hold."""
    key = use.key
    if use.operation is not Operation.DECRYPT or key is None or key.revoked_ms is None:
        return None
    if use.effective_ms <= key.revoked_ms and use.key_revision < (key.revoked_in or 0):
        return None  # late arrival of a use that was still allowed
    succeeded = use.outcome is Outcome.SUCCEEDED
    after_ms = use.effective_ms - key.revoked_ms
    return Finding.of(
        RULE,
        severity=Severity.CRITICAL if succeeded else RULE.severity,
        summary=f"{'decrypt' if succeeded else 'attempt to decrypt'} with key {short_id(key.id)} version "
        f"{key.version}, {_when(after_ms)} its revocation ({key.revocation_reason or 'no reason given'})",
        effective_ms=use.effective_ms,
        tenant=use.tenant,
        key=key.id,
        who=f"{use.actor} through {use.service}, purpose {use.purpose}",
        sure=_sure(use, after_ms, limits),
        evidence=(Evidence("event", use.event_id, use.effective_ms),),
        facts={"outcome": use.outcome.value, "after_revocation_ms": str(after_ms), "service": use.service},
    )


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
