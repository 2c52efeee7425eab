"""A thousand sign-in challenges to one address, and no token after them: a caller without credentials."""

from alerts.conduct import Challenges
from alerts.examples import challenges, fires, silent
from alerts.model import Finding, Rule, Scope, Severity
from alerts.thresholds import Limits
from alerts.words import TIMES, duration

RULE = Rule(
    id="lone_challenges",
    title="Sign-in challenges that no token follows",
    scope=Scope.PRINCIPAL,
    severity=Severity.LOW,
    policy="9.5b",
    technique="T1595",
    known_gaps="By address: whoever uses many stays below a thousand on each, and behind a shared exit one caller with "
    "a token hides those without. Records without an address are not counted.",
    first_step="find out whose address it is; an uptime probe without a token is the usual answer, a scanner the other",
)


def evaluate(challenges: Challenges, limits: Limits) -> Finding | None:
    """Report an address at a thousand lone challenges within a day."""
    if challenges.count < limits.lone_challenges:
        return None
    lasting = duration((challenges.time_us - challenges.first_us) // 1000)
    return Finding.of(
        RULE,
        summary=f"{challenges.count} {TIMES} asked to sign in within {lasting}, and never came with a token",
        effective_ms=challenges.time_us // 1000,
        key=challenges.vaults[0] if challenges.vaults else "vaults",
        principal=f"address:{challenges.address}",
        who=f"nobody whom the vault's record names, {challenges.address}",
        sure="high: the vault's own answers; nothing was handed out",
        evidence=challenges.evidence,
        facts={"count": str(challenges.count), "vaults": ", ".join(challenges.vaults[:8])},
    )


EXAMPLES = (
    fires("a scanner", Severity.LOW, challenges(1_000)),
    silent("clients that start and sign in", challenges(999)),
)
