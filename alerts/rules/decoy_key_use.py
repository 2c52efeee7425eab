"""Use of a decoy: a key that no service has a reason to touch, so whoever does is looking around with our access."""

from alerts.examples import fires, key_use, key_view, silent
from alerts.model import Evidence, Finding, KeyUse, Rule, Scope, Severity
from alerts.thresholds import HOUR_MS, Limits
from alerts.words import short_id
from cryptocore.events import Operation, Outcome
from cryptocore.lines.vocabulary import DATA_USES

RULE = Rule(
    id="decoy_key_use",
    title="A decoy key was used",
    scope=Scope.KEY,
    severity=Severity.CRITICAL,
    policy="9.1d",
    technique="T1555",
    known_gaps="Seen through the events of our services only: who unwraps the decoy's DEK straight at the vault shows "
    "as a use of its KEK that no event explains. Rewraps and other acts of the life cycle are people's work, no use.",
    first_step="treat the actor and the service in the event as taken over: stop the service's identity, then look at "
    "everything both touched since the first use",
)

USES = DATA_USES | {Operation.TOKEN_USE}


def evaluate(use: KeyUse, limits: Limits) -> Finding | None:
    """Report every use, however it ended: that it was tried is what counts."""
    del limits
    key = use.key
    if key is None or not key.decoy or use.operation not in USES:
        return None
    succeeded = use.outcome is Outcome.SUCCEEDED
    return Finding.of(
        RULE,
        severity=RULE.severity,
        summary=f"{use.operation} with decoy key {short_id(key.id)} "
        f"{'succeeded' if succeeded else f'was tried ({use.outcome})'}; no service has a reason to",
        effective_ms=use.effective_ms,
        tenant=use.tenant,
        key=key.id,
        who=f"{use.actor} through {use.service}, purpose {use.purpose}",
        sure="high: the event is sealed by its service, and the key is a decoy by the monitor's own configuration",
        evidence=(Evidence("event", use.event_id, use.effective_ms),),
        facts={"outcome": use.outcome.value, "operation": use.operation.value, "service": use.service},
    )


EXAMPLES = (
    fires(
        "a decoy decrypts",
        Severity.CRITICAL,
        key_use(Operation.DECRYPT, Outcome.SUCCEEDED, key=key_view(decoy=True)),
    ),
    fires(
        "a decoy's ciphertext was tried for another owner",
        Severity.CRITICAL,
        key_use(Operation.DECRYPT, Outcome.DENIED, key=key_view(decoy=True)),
    ),
    fires(
        "a revoked decoy was tried",
        Severity.CRITICAL,
        key_use(Operation.ENCRYPT, Outcome.DENIED, key=key_view(decoy=True, revoked_ago_ms=HOUR_MS)),
    ),
    silent("any other key", key_use(Operation.DECRYPT, Outcome.SUCCEEDED)),
    silent("a decoy is rewrapped with all others", key_use(Operation.UNWRAP, Outcome.FAILED, key=key_view(decoy=True))),
    silent("no key is known", key_use(Operation.DECRYPT, Outcome.FAILED, key=None, key_revision=0)),
)
