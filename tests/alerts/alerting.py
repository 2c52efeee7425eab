"""Alerts out of the rules' own examples, for the tests of what follows a finding."""

from alerts import grouping, lifecycle
from alerts.examples import NOW_MS
from alerts.lifecycle import Alert
from alerts.model import Finding, FindingMessage, FindingResolved, Severity
from alerts.rules import ALL_RULES
from alerts.thresholds import DEFAULT_LIMITS, SECOND_MS

LATER_MS = NOW_MS + 30 * SECOND_MS


def example(rule_id: str, name: str) -> Finding:
    """The finding of one example of a rule."""
    detection = next(each for each in ALL_RULES if each.rule.id == rule_id)
    subject = next(each.subject for each in detection.examples if each.name == name)
    finding: Finding | None = detection.evaluate(subject, DEFAULT_LIMITS)
    assert finding is not None
    return finding


STRANGER = example("unaccounted_kek_access", "a stranger unwraps")


def told(
    finding: Finding = STRANGER, *, count: int = 1, opened_ms: int | None = None, last_ms: int | None = None
) -> FindingMessage:
    """The message that a finding's partition sends."""
    mark = grouping.fingerprint(finding)
    first_ms = finding.effective_ms if opened_ms is None else opened_ms
    return FindingMessage(
        finding_id=grouping.finding_id(mark, first_ms),
        fingerprint=mark.hex(),
        opened_ms=first_ms,
        count=count,
        first_ms=first_ms,
        last_ms=first_ms if last_ms is None else last_ms,
        finding=finding,
    )


def explained(message: FindingMessage, retracted: int) -> FindingResolved:
    return FindingResolved(
        finding_id=message.finding_id,
        fingerprint=message.fingerprint,
        count=message.count,
        retracted=retracted,
        at_ms=LATER_MS,
        explanation="the event came late and explains it",
    )


def alert_of(message: FindingMessage, *, now_ms: int = LATER_MS) -> Alert:
    """An alert that was opened and settled."""
    alert_id = grouping.alert_id(bytes.fromhex(message.fingerprint), message.finding_id)
    alert = lifecycle.opened(message, alert_id=alert_id, number=1042, now_ms=now_ms)
    lifecycle.settle(alert, now_ms=now_ms, limits=DEFAULT_LIMITS)
    return alert


def finding(rule_id: str = "r", *, severity: Severity = Severity.HIGH, at_ms: int = NOW_MS, **parts: str) -> Finding:
    return Finding(
        rule_id=rule_id,
        title="Something",
        severity=severity,
        summary="happened",
        effective_ms=at_ms,
        **parts,  # type: ignore[arg-type]
    )
