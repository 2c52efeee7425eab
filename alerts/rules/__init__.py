"""All rules, by name, and how they are run: over what they see, each on its own."""

from collections.abc import Sequence
from typing import Any, Final

from alerts.conduct import Challenges, Conduct
from alerts.detection import Detection
from alerts.model import Finding, KekAccess, KekAct, KekUse, KeyUse, KeyView, RecentUse, VaultAccess
from alerts.rules import (
    canary,
    crypto_failures,
    decoy_key_use,
    denied_burst,
    disabled_kek_wrap,
    fan_out,
    first_seen_access,
    kek_administration,
    lone_challenges,
    names_guessed,
    revoked_key_decrypt,
    unaccounted_kek_access,
    vault_logging_cut,
    volume_anomaly,
)
from alerts.system import system_finding
from alerts.thresholds import Limits
from cryptocore.lines.vocabulary import Outcome

ALL_RULES: Final[tuple[Detection[Any], ...]] = (
    Detection(revoked_key_decrypt.RULE, KeyUse, revoked_key_decrypt.evaluate, revoked_key_decrypt.EXAMPLES),
    Detection(decoy_key_use.RULE, KeyUse, decoy_key_use.evaluate, decoy_key_use.EXAMPLES),
    Detection(canary.RULE, KeyUse, canary.evaluate, canary.EXAMPLES),
    Detection(crypto_failures.RULE, KeyUse, crypto_failures.evaluate, crypto_failures.EXAMPLES),
    Detection(unaccounted_kek_access.RULE, KekUse, unaccounted_kek_access.evaluate, unaccounted_kek_access.EXAMPLES),
    Detection(kek_administration.RULE, KekAct, kek_administration.evaluate, kek_administration.EXAMPLES),
    Detection(disabled_kek_wrap.RULE, KekAccess, disabled_kek_wrap.evaluate, disabled_kek_wrap.EXAMPLES),
    Detection(vault_logging_cut.RULE, VaultAccess, vault_logging_cut.evaluate, vault_logging_cut.EXAMPLES),
    Detection(fan_out.RULE, Conduct, fan_out.evaluate, fan_out.EXAMPLES),
    Detection(volume_anomaly.RULE, Conduct, volume_anomaly.evaluate, volume_anomaly.EXAMPLES),
    Detection(first_seen_access.RULE, Conduct, first_seen_access.evaluate, first_seen_access.EXAMPLES),
    Detection(denied_burst.RULE, Conduct, denied_burst.evaluate, denied_burst.EXAMPLES),
    Detection(names_guessed.RULE, Conduct, names_guessed.evaluate, names_guessed.EXAMPLES),
    Detection(lone_challenges.RULE, Challenges, lone_challenges.evaluate, lone_challenges.EXAMPLES),
)

LOOKING_BACK: Final = tuple(detection for detection in ALL_RULES if detection.rule is revoked_key_decrypt.RULE)
"""Rules that judge by the key's state alone, and so can judge a remembered use again when that state arrives late."""

_BY_TYPE: Final[dict[type, tuple[Detection[Any], ...]]] = {
    seen: tuple(detection for detection in ALL_RULES if detection.sees is seen)
    for seen in (KeyUse, VaultAccess, KekAct, KekAccess, KekUse, Conduct, Challenges)
}


Subject = KeyUse | VaultAccess | KekAct | KekAccess | KekUse | Conduct | Challenges


def run(subject: Subject, limits: Limits) -> list[Finding]:
    """Give the subject to every rule that sees its type; a rule that raises becomes a finding about the rule."""
    found = []
    for detection in _BY_TYPE[type(subject)]:
        finding = evaluate(detection, subject, limits)
        if finding is not None:
            found.append(finding)
    return found


def is_ordinary(outcome: Outcome, revoked_ms: int | None, *, decoy: bool = False) -> bool:
    """Say whether no rule over KeyUse can fire: a success with a version that nobody revoked, and no decoy.

    Nearly all uses of a fleet are ordinary, so the keys agent asks this before it builds what rules see. A test gives
    ordinary uses to every rule; whoever writes one that fires on them has to change this function.
    """
    return outcome is Outcome.SUCCEEDED and revoked_ms is None and not decoy


def look_back(view: KeyView, tenant: str, recent: Sequence[RecentUse], limits: Limits) -> list[Finding]:
    """Judge remembered uses of a key again, now that `view` says that it was revoked."""
    uses = (_remembered(view, tenant, use) for use in recent)
    found = (evaluate(detection, use, limits) for use in uses for detection in LOOKING_BACK)
    return [finding for finding in found if finding is not None]


def evaluate(detection: Detection[Any], subject: Subject, limits: Limits) -> Finding | None:
    """Run one rule; never raises."""
    try:
        return detection.evaluate(subject, limits)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not become "no match"
        rule = detection.rule.id
        return system_finding(
            "rule_error",
            summary=f"{rule} raised {type(error).__name__} on a {type(subject).__name__} and judged nothing",
            effective_ms=subject.effective_ms if isinstance(subject, KeyUse) else subject.time_us // 1000,
            key=rule,
            principal=type(error).__name__,
            facts={"rule": rule, "error": type(error).__name__},
        )


def _remembered(view: KeyView, tenant: str, use: RecentUse) -> KeyUse:
    return KeyUse(
        event_id=use.event_id,
        operation=use.operation,
        outcome=use.outcome,
        reason=use.reason,
        effective_ms=use.effective_ms,
        service=use.service,
        actor=use.actor,
        purpose=use.purpose,
        tenant=tenant,
        key=view,
        key_revision=use.revision,
    )
