"""Far more different objects within ten minutes than this principal ever touched: somebody collects."""

from alerts.conduct import Conduct
from alerts.examples import conduct, fires, silent, spread
from alerts.model import Finding, Rule, Scope, Severity
from alerts.thresholds import DAY_MS, Limits

RULE = Rule(
    id="fan_out",
    title="Many more objects than usual within ten minutes",
    scope=Scope.PRINCIPAL,
    severity=Severity.MEDIUM,
    policy="9.5b",
    technique="T1555.006",
    known_gaps="Silent up to ten objects, and before 30 active windows and seven days; a principal without a past is "
    "told by first_seen_access. Who collects slowly, or by an identity that reads everything each night, stays below "
    "its own past. A restart of a service with more than ten objects after 30 windows of few is told once.",
    first_step="compare the list of objects with what the service needs; if it needs only some, disable the identity "
    "and rotate what was read",
)


def evaluate(conduct: Conduct, limits: Limits) -> Finding | None:
    """Report when the objects of two windows are beyond twice the 99th percentile of the past, and beyond ten."""
    spread = conduct.spread
    if spread is None or conduct.learning(limits) or not conduct.spreads(limits):
        return None
    where = f"{spread.vaults} vaults, most of them in {conduct.vault}" if spread.vaults > 1 else conduct.vault
    return Finding.of(
        RULE,
        summary=f"{spread.objects} different objects within ten minutes in {where}; usually at most {spread.usual}",
        effective_ms=conduct.time_us // 1000,
        key=conduct.vault,
        principal=conduct.principal_id,
        who=conduct.who,
        sure=f"high that it is more than ever: {spread.active} active windows stand behind it",
        evidence=spread.evidence,
        facts={"objects": str(spread.objects), "usual_objects": str(spread.usual), "vaults": str(spread.vaults)},
    )


EXAMPLES = (
    fires("forty secrets where three are usual", Severity.MEDIUM, conduct(spread=spread(40, usual=3))),
    fires("just beyond the floor, in two vaults", Severity.MEDIUM, conduct(spread=spread(11, usual=3, vaults=2))),
    silent("at the floor", conduct(spread=spread(10, usual=3))),
    silent("the nightly backup reads all of them", conduct(spread=spread(220, usual=220))),
    silent("accepted", conduct(spread=spread(40, usual=3, accepted=25))),
    silent("too few windows to know", conduct(spread=spread(40, usual=3, active=29))),
    silent("six days are no past", conduct(principal_age_ms=6 * DAY_MS, spread=spread(40, usual=3))),
    silent("the vault is new to the monitor", conduct(vault_age_ms=6 * DAY_MS, spread=spread(40, usual=3))),
)
