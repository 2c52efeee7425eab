"""Names that do not exist, many of them within ten minutes: somebody guesses."""

from alerts.conduct import Conduct
from alerts.examples import conduct, fires, guessed, silent
from alerts.model import Finding, Rule, Scope, Severity
from alerts.thresholds import Limits

RULE = Rule(
    id="names_guessed",
    title="Names guessed",
    scope=Scope.PRINCIPAL,
    severity=Severity.MEDIUM,
    policy="9.5b",
    technique="T1580",
    known_gaps="Counts different names within two aligned windows of five minutes; who guesses slowly stays below. "
    "A deployment that asks for many secrets before they are made looks the same.",
    first_step="read the names: a word list means probing, the names of one application mean a missing deployment",
)


def evaluate(conduct: Conduct, limits: Limits) -> Finding | None:
    """Report ten different names that were not found."""
    guessed = conduct.guessed
    if guessed is None or guessed.names < limits.names_guessed:
        return None
    return Finding.of(
        RULE,
        summary=f"{guessed.names} names that do not exist within ten minutes, such as "
        f"{', '.join(name[:64] for name in guessed.examples)}",
        effective_ms=conduct.time_us // 1000,
        key=conduct.vault,
        principal=conduct.principal_id,
        who=conduct.who,
        sure="high: the vault's own answers; nothing was handed out by these",
        evidence=guessed.evidence,
        facts={"names": str(guessed.names)},
    )


EXAMPLES = (
    fires("ten names of a word list", Severity.MEDIUM, conduct(guessed=guessed(10))),
    silent("an application asks for what is not deployed yet", conduct(guessed=guessed(9))),
    silent("all that was asked for exists", conduct()),
)
