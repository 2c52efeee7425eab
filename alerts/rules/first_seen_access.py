"""A principal does something for the first time: a vault, a class of operation, an object it never touched."""

from collections.abc import Sequence
from typing import Any, Final

from alerts.conduct import Conduct, NewPair, raised, target
from alerts.examples import conduct, fires, new_pair, silent
from alerts.model import AccessClass, Evidence, Finding, Rule, Scope, Severity
from alerts.thresholds import DAY_MS, Limits
from alerts.words import duration

RULE = Rule(
    id="first_seen_access",
    title="First access of its kind by this principal",
    scope=Scope.PRINCIPAL,
    severity=Severity.MEDIUM,
    policy="9.5b",
    technique="T1078",
    known_gaps="Says nothing in a vault's first seven days, nor of new objects in a class that the principal has used "
    "for less than seven days and fifty events, or habitually (three days of thirty). A thief who does only what the "
    "owner of the identity does every day shows nothing new. Denied and missing objects are other rules'.",
    first_step="ask the owner of the identity whether this access was meant; if nobody knows, disable the identity",
)

_ADMIN: Final = AccessClass.ADMIN
_SHOWN: Final = 4
_CITED: Final = 8


def evaluate(conduct: Conduct, limits: Limits) -> Finding | None:
    """Report one incident for all that is new in this vault; a young principal's is milder, never silent."""
    if conduct.learning(limits):
        return None
    worth = [pair for pair in conduct.new if _is_told(pair, conduct, limits)]
    if not worth:
        return None
    severity = max((_severity(pair, limits) for pair in worth), key=lambda severity: severity.rank)
    if conduct.young(limits):
        severity = raised(severity, -1)
    if len({(pair.object_kind, pair.name) for pair in worth}) >= limits.fan_out_floor:
        severity = raised(severity)
    return Finding.of(
        RULE,
        severity=severity,
        summary=_summary(worth, conduct.vault),
        effective_ms=conduct.time_us // 1000,
        key=conduct.vault,
        principal=conduct.principal_id,
        who=conduct.who,
        sure=_sure(conduct, limits),
        evidence=tuple(Evidence("vault-access", pair.access_id, pair.at_us // 1000) for pair in worth[:_CITED]),
        facts={"new": str(len(worth)), "operations": ", ".join(sorted({pair.operation[:64] for pair in worth})[:8])},
    )


def _is_told(pair: NewPair, conduct: Conduct, limits: Limits) -> bool:
    if pair.told is not None and pair.told.rank >= Severity.MEDIUM.rank:
        return False  # another rule reports the same act, and asks for the same look
    if pair.access_class is _ADMIN:
        return True
    if conduct.relearning:
        return False
    if pair.class_age_ms is None:
        return True
    known = pair.class_age_ms >= limits.learn_ms and pair.class_events >= limits.learn_events
    return known and not pair.forgotten and pair.novel_days < limits.habitual_days


def _severity(pair: NewPair, limits: Limits) -> Severity:
    if pair.access_class is _ADMIN and pair.class_age_ms is None:
        return Severity.HIGH
    if pair.access_class is _ADMIN and pair.novel_days < limits.habitual_days:
        return Severity.MEDIUM
    return Severity.MEDIUM if pair.class_age_ms is None else Severity.LOW


def _summary(worth: Sequence[NewPair], vault: str) -> str:
    shown = "; ".join(
        f"{pair.operation[:64]} on {target(pair.object_kind, pair.name, vault)}" for pair in worth[:_SHOWN]
    )
    more = f" and {len(worth) - _SHOWN} more" if len(worth) > _SHOWN else ""
    return f"never done before by this principal: {shown}{more}"


def _sure(conduct: Conduct, limits: Limits) -> str:
    if conduct.young(limits):
        age = duration(conduct.principal_age_ms)
        return f"medium: the principal is known for {age} only, so all it does is new; a new service looks the same"
    return (
        f"medium: the vault's own record, against {conduct.principal_events} events of this principal in "
        f"{duration(conduct.principal_age_ms)}; new work looks the same"
    )


_KNOWN: dict[str, Any] = {"class_age_ms": 20 * DAY_MS, "class_events": 400}

EXAMPLES = (
    fires("a known principal's first read of any secret here", Severity.MEDIUM, conduct(new=(new_pair(),))),
    fires("the first administrative act", Severity.HIGH, conduct(new=(new_pair("SecretDelete", _ADMIN),))),
    fires("one more secret, by somebody who reads others", Severity.LOW, conduct(new=(new_pair(**_KNOWN),))),
    fires(
        "a principal that appeared tonight",
        Severity.LOW,
        conduct(principal_age_ms=0, principal_events=0, new=(new_pair(),)),
    ),
    fires(
        "one that appeared tonight and reads ten secrets at once",
        Severity.MEDIUM,
        conduct(principal_age_ms=0, principal_events=0, new=tuple(new_pair(name=f"s-{n}") for n in range(10))),
    ),
    fires(
        "one that appeared tonight and deletes a secret",
        Severity.MEDIUM,
        conduct(principal_age_ms=0, principal_events=0, new=(new_pair("SecretDelete", _ADMIN),)),
    ),
    fires(
        "a pipeline that creates a secret for each new customer does it again",
        Severity.LOW,
        conduct(new=(new_pair("SecretSet", _ADMIN, novel_days=3, **_KNOWN),)),
    ),
    fires(
        "an administrative act after a reset",
        Severity.HIGH,
        conduct(relearning=True, new=(new_pair("SecretDelete", _ADMIN),)),
    ),
    silent("the vault itself is new to the monitor", conduct(vault_age_ms=6 * DAY_MS, new=(new_pair(),))),
    silent("a person asked to learn anew", conduct(relearning=True, new=(new_pair(),))),
    silent(
        "another rule reports the same act",
        conduct(new=(new_pair("KeyPurge", _ADMIN, object_kind="key", told=Severity.CRITICAL),)),
    ),
    silent("meeting new secrets is its habit", conduct(new=(new_pair(novel_days=3, **_KNOWN),))),
    silent("too many objects to remember them all", conduct(new=(new_pair(forgotten=True, **_KNOWN),))),
    silent("a class begun this week", conduct(new=(new_pair(class_age_ms=3 * DAY_MS, class_events=400),))),
    silent("nothing new", conduct()),
)
