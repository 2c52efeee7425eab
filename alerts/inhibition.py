"""One incident per cause: a sign against a baseline is no second alert beside a deterministic one of the same act.

In Alertmanager's words: an open alert about a principal in a vault (source) inhibits what the baselines say of the same
principal, vault and time (target). It never hides what is worse than itself, nor while a person silenced it.
"""

from typing import Final

from alerts.lifecycle import NOTIFIED_FROM, Alert
from alerts.model import Finding
from alerts.thresholds import Limits

SOURCES: Final = frozenset({"unaccounted_kek_access", "kek_administration", "disabled_kek_wrap"})
TARGETS: Final = frozenset({"first_seen_access", "volume_anomaly", "fan_out", "denied_burst", "names_guessed"})

Place = tuple[str, str]


def place(finding: Finding) -> Place | None:
    """Return principal and vault that inhibition goes by; None where the finding names not both."""
    vault = finding.key.partition("/")[0]
    return (finding.principal.lower(), vault) if finding.principal and vault else None


def inhibits(alert: Alert, finding: Finding, *, now_ms: int, limits: Limits) -> bool:
    """Say whether an alert of the same place tells of this finding's cause already, at least as loudly."""
    near = alert.first_ms - limits.incident_quiet_ms <= finding.effective_ms <= alert.last_ms + limits.incident_quiet_ms
    loud = alert.severity.rank >= max(finding.severity.rank, NOTIFIED_FROM.rank)
    return alert.status == "open" and near and loud and alert.silenced_until_ms <= now_ms
