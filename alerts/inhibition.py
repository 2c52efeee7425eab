"""One incident per cause: what an alert tells of already is no second alert beside it, whichever of the two came first.

In Alertmanager's words: an open alert (source) inhibits what else is said of the same cause (target). Two relations:
- a deterministic alert about a principal in a vault inhibits what the baselines say of the same principal, vault and
  time;
- what is said of a vault's log as a whole (it was cut, it misses many calls) inhibits what follows from it, whenever
  that is noticed.
A source never hides what is worse than itself, nor while a person silenced it.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec.structs import replace

from alerts.lifecycle import NOTIFIED_FROM, Alert, ends
from alerts.model import Finding, FindingMessage, Severity
from alerts.thresholds import Limits

SOURCES: Final = frozenset({"unaccounted_kek_access", "kek_administration", "disabled_kek_wrap", "vault_logging_cut"})
TARGETS: Final = frozenset(
    {"first_seen_access", "volume_anomaly", "fan_out", "denied_burst", "names_guessed", "kek_drift"}
)
BLIND: Final[Mapping[str, frozenset[str]]] = {
    "vault_logging_cut": frozenset({"vault_silent", "match_ratio_low", "audit_coverage"}),
    "match_ratio_low": frozenset({"audit_coverage"}),
}
"""What is said of a vault's log as a whole, and what follows from it for as long as that is open."""
_FOLLOWS: Final = frozenset().union(*BLIND.values())

INHIBITED_KEPT: Final = 64
"""Findings that an alert keeps as its evidence, to be told when it is explained away."""

Place = tuple[str, str]
"""Principal and vault; "" for the principal where the vault's log itself is what the alert is about."""


def source_places(finding: Finding) -> Iterator[Place]:
    """Yield where an alert with this finding may inhibit others."""
    vault = finding.key.partition("/")[0]
    if finding.rule_id in SOURCES and finding.principal and vault:
        yield finding.principal.lower(), vault
    if finding.rule_id in BLIND and vault:
        yield "", vault


def target_place(finding: Finding) -> Place | None:
    """Return where another alert may inhibit this finding; None where none ever does."""
    vault = finding.key.partition("/")[0]
    if finding.rule_id in TARGETS and finding.principal and vault:
        return finding.principal.lower(), vault
    return ("", vault) if finding.rule_id in _FOLLOWS and vault else None


def inhibits(alert: Alert, finding: Finding, *, now_ms: int, limits: Limits) -> bool:
    """Say whether an alert of the same place tells of this finding's cause already, at least as loudly."""
    return _tells(alert, finding.severity, (finding.effective_ms,), finding.rule_id, now_ms=now_ms, limits=limits)


def supersedes(alert: Alert, other: Alert, *, now_ms: int, limits: Limits) -> bool:
    """Say the same of an alert that was there before: of all that it gathered."""
    span = (other.first_ms, other.last_ms)
    rule_id = other.finding.rule_id
    return other.status != "resolved" and _tells(alert, other.severity, span, rule_id, now_ms=now_ms, limits=limits)


def inhibit(alert: Alert, message: FindingMessage, *, now_ms: int, limits: Limits) -> bool:
    """Take another rule's finding up as evidence of the same cause; returns whether it told anything new.

    Beyond the bound a finding is not kept: a vault may hold thousands of KEKs, and an alert is one record.
    """
    known = alert.inhibited.get(message.finding_id)
    if known is not None and known.count >= message.count:
        return False
    if known is None and len(alert.inhibited) >= INHIBITED_KEPT:
        return False
    alert.inhibited = alert.inhibited | {message.finding_id: message}
    proof = sorted({*alert.finding.evidence, *message.finding.evidence}, key=lambda one: (one.at_ms, one.kind, one.id))
    alert.finding = replace(alert.finding, evidence=ends(proof, limits.evidence))
    alert.heard_ms = now_ms
    return True


def supersede(alert: Alert, by: Alert, *, now_ms: int, limits: Limits) -> None:
    """End an alert because one that came later tells of the same cause; what it gathered goes over as evidence."""
    for ident, told in alert.told.items():
        message = FindingMessage(
            finding_id=ident,
            fingerprint=alert.fingerprint,
            opened_ms=alert.first_ms,
            count=max(0, told.count - told.retracted),
            first_ms=alert.first_ms,
            last_ms=alert.last_ms,
            finding=alert.finding,
        )
        inhibit(by, message, now_ms=now_ms, limits=limits)
    alert.superseded_by = by.name
    alert.resolved_by = f"{by.name} tells of the same cause"
    alert.heard_ms = now_ms


def revive(alert: Alert, *, now_ms: int) -> None:
    """Let an alert stand by itself again: the one that superseded it does not tell of it any more."""
    alert.superseded_by, alert.resolved_by = "", ""
    alert.heard_ms = now_ms


def _tells(
    alert: Alert, severity: Severity, times_ms: tuple[int, ...], rule_id: str, *, now_ms: int, limits: Limits
) -> bool:
    if rule_id in _FOLLOWS:
        near = rule_id in BLIND.get(alert.finding.rule_id, ())
    else:
        quiet_ms = limits.incident_quiet_ms
        near = all(alert.first_ms - quiet_ms <= at_ms <= alert.last_ms + quiet_ms for at_ms in times_ms)
    loud = alert.severity.rank >= max(severity.rank, NOTIFIED_FROM.rank)
    return alert.status == "open" and near and loud and alert.silenced_until_ms <= now_ms
