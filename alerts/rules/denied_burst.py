"""Several objects refused within ten minutes: somebody tries doors, or a service lost its permission."""

from typing import Final

from alerts.conduct import Conduct
from alerts.examples import conduct, fires, refused, silent
from alerts.model import Finding, Rule, Scope, Severity
from alerts.thresholds import Limits

RULE = Rule(
    id="denied_burst",
    title="Denied on several objects",
    scope=Scope.PRINCIPAL,
    severity=Severity.MEDIUM,
    policy="9.5b",
    technique="T1580",
    known_gaps="Counts within two aligned windows of five minutes: a burst that straddles three may be missed, and so "
    "may a slow one. A list that is denied names no object.",
    first_step="see which objects: doors that the principal never used mean probing; its own mean a lost permission",
)
_LOST: Final = 2
"""Where at least one half of the objects are the principal's own, it lost a permission rather than tried doors."""


def evaluate(conduct: Conduct, limits: Limits) -> Finding | None:
    """Report five answers 403 on three objects; milder where the principal used most of them before."""
    refused = conduct.refused
    if refused is None or refused.count < limits.denied or refused.objects < limits.denied_keys:
        return None
    lost = refused.held * _LOST >= refused.objects
    return Finding.of(
        RULE,
        severity=Severity.LOW if lost else Severity.MEDIUM,
        summary=f"{refused.count} times denied ({', '.join(refused.denials)}) on {refused.objects} objects within ten "
        f"minutes, {refused.held} of which it used before",
        effective_ms=conduct.time_us // 1000,
        key=conduct.vault,
        principal=conduct.principal_id,
        who=conduct.who,
        sure="medium: a permission or a network rule that was taken away looks like this"
        if lost
        else "high: the vault's own answers; nothing was handed out by these",
        evidence=refused.evidence,
        facts={"denied": str(refused.count), "denied_objects": str(refused.objects)},
    )


EXAMPLES = (
    fires("three doors tried, never used before", Severity.MEDIUM, conduct(refused=refused(5, objects=3))),
    fires("its own objects, after a change of policy", Severity.LOW, conduct(refused=refused(40, objects=6, held=6))),
    silent("the one benign 403 of each process start", conduct(refused=refused(4, objects=4))),
    silent("one disabled key, asked for again and again", conduct(refused=refused(500, objects=1, held=1))),
    silent("nothing was denied", conduct()),
)
