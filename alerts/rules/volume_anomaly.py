"""Far more uses of one object in five minutes than this principal ever needed."""

from alerts.conduct import Conduct, target
from alerts.examples import conduct, fires, silent, surge
from alerts.model import Evidence, Finding, Rule, Scope, Severity
from alerts.thresholds import DAY_MS, Limits

RULE = Rule(
    id="volume_anomaly",
    title="Far more accesses than usual",
    scope=Scope.PRINCIPAL,
    severity=Severity.MEDIUM,
    policy="9.5b",
    technique="T1555.006",
    known_gaps="Silent up to 20 in five minutes, and before 30 active windows and seven days. Whoever "
    "grows by less than double at a time trains it. What happens in fewer than one of a hundred active windows, a "
    "yearly batch or the restart of a large fleet, is told each time until the level is accepted.",
    first_step="ask the owner of the identity what changed; if it was a new version or a batch, accept the new level",
)
_CITED = 8


def evaluate(conduct: Conduct, limits: Limits) -> Finding | None:
    """Report the objects whose count is beyond twice the 99th percentile of past active windows, and beyond 20."""
    if conduct.learning(limits):
        return None
    found = [surge for surge in conduct.surges if surge.beyond(limits)]
    if not found:
        return None
    worst = max(found, key=lambda surge: (surge.count, surge.object_kind, surge.name))
    more = f", and {len(found) - 1} other objects likewise" if len(found) > 1 else ""
    return Finding.of(
        RULE,
        summary=f"{worst.count} {worst.access_class} accesses to "
        f"{target(worst.object_kind, worst.name, conduct.vault)} in five minutes; usually at most {worst.usual}{more}",
        effective_ms=conduct.time_us // 1000,
        key=conduct.vault,
        principal=conduct.principal_id,
        who=conduct.who,
        sure=f"high that it is more than ever: {worst.active} active windows stand behind it; a new version of the "
        "software looks the same",
        evidence=tuple(Evidence("vault-access", surge.access_id, surge.at_us // 1000) for surge in found[:_CITED]),
        facts={
            "count": str(worst.count),
            "usual": str(worst.usual),
            "allowed": str(worst.allowed(limits)),
            "objects": str(len(found)),
        },
    )


EXAMPLES = (
    fires("a hundred times the usual", Severity.MEDIUM, conduct(surges=(surge(400, usual=4),))),
    fires("just beyond the floor", Severity.MEDIUM, conduct(surges=(surge(21, usual=2),))),
    fires("beyond twice what was accepted", Severity.MEDIUM, conduct(surges=(surge(801, usual=4, accepted=400),))),
    silent("at the floor", conduct(surges=(surge(20, usual=2),))),
    silent("twice the usual", conduct(surges=(surge(200, usual=100),))),
    silent("accepted", conduct(surges=(surge(400, usual=4, accepted=400),))),
    silent("too few windows to know", conduct(surges=(surge(400, usual=4, active=29),))),
    silent("six days are no past", conduct(surges=(surge(400, usual=4, age_ms=6 * DAY_MS),))),
    silent("the vault is new to the monitor", conduct(vault_age_ms=6 * DAY_MS, surges=(surge(400, usual=4),))),
)
