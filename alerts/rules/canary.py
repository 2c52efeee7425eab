"""The canary: an event that one service leaves every minute so that somebody hears when the way to an alert is broken.

It goes where alerts go (service, log, rule, triage, delivery), to a route of its own, and never becomes an alert.
"""

from typing import Final

from alerts.examples import fires, key_use, silent
from alerts.model import Evidence, Finding, KeyUse, Rule, Scope, Severity
from alerts.thresholds import Limits
from cryptocore.events import Operation, Outcome

SOURCE: Final = "keytrail-canary"
"""The registered source whose refused uses are canaries; the seal vouches for it."""

RULE = Rule(
    id="canary",
    title="Canary",
    scope=Scope.KEY,
    severity=Severity.INFO,
    policy="9.1d",
    known_gaps="Shows that the way from an event to a delivery is open for one key on one partition; another partition "
    "may still lag (keytrail_lag_messages).",
    first_step="nothing: this is how the monitor shows that it is alive",
)


def evaluate(use: KeyUse, limits: Limits) -> Finding | None:
    """Tell of every refused use of the canary's service; `facts` names the event."""
    del limits
    if use.service != SOURCE or use.outcome is not Outcome.DENIED:
        return None
    return Finding.of(
        RULE,
        severity=RULE.severity,
        summary="The way from an event to a delivery is open",
        effective_ms=use.effective_ms,
        key=use.service,
        who=use.service,
        sure="high: the event is sealed by the canary",
        evidence=(Evidence("event", use.event_id, use.effective_ms),),
        facts={"event_id": use.event_id},
    )


EXAMPLES = (
    fires(
        "the canary's event",
        Severity.INFO,
        key_use(Operation.REENCRYPT, Outcome.DENIED, reason="key_state", key=None, service=SOURCE),
    ),
    silent("another service's refused use", key_use(Operation.REENCRYPT, Outcome.DENIED, reason="key_state", key=None)),
)
