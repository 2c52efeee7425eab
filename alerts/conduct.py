"""What rules of scope principal see: one principal's conduct in one vault within one bin of five minutes.

`streams` counts and remembers, and puts here what a rule needs for its verdict; the rules hold the limits. Several
rules may see signs in the same conduct: `incident` makes one finding of them, for one person to look at once.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from alerts.model import AccessClass, Evidence, Finding, PrincipalKind, Severity
from alerts.thresholds import Limits
from alerts.words import short_id

NEW_NETWORK: Final = "new_network"
"""The sign that is never told alone."""
_WORST: Final = Severity.HIGH
"""A baseline knows what is unusual, never that it is wrong: no sum of its signs is critical."""


class NewPair(Struct, frozen=True, kw_only=True):
    """Something this principal did with success and has not done within the last 30 days: an object and a class.

    `object_kind` "" = the vault itself. `class_age_ms` None: nothing of the class in this vault before. `novel_days`
    are days of the last 30 on which it met new objects; `told` is what another rule said of the same act.
    """

    object_kind: str
    name: str
    access_class: AccessClass
    operation: str
    at_us: int
    access_id: str
    class_age_ms: int | None
    class_events: int = 0
    novel_days: int = 0
    forgotten: bool = False
    told: Severity | None = None


class Surge(Struct, frozen=True, kw_only=True):
    """How often one object was used in this bin, against the 99th percentile of past active bins."""

    object_kind: str
    name: str
    access_class: AccessClass
    count: int
    usual: int
    accepted: int
    active: int
    age_ms: int
    access_id: str
    at_us: int

    def allowed(self, limits: Limits) -> int:
        """The highest count that is not told."""
        return allowed(self.usual, self.accepted, floor=limits.volume_floor, factor=limits.usual_factor)

    def beyond(self, limits: Limits) -> bool:
        """Whether there is past enough to judge, and this is far more than it."""
        known = self.active >= limits.active_windows and self.age_ms >= limits.learn_ms
        return known and self.count > self.allowed(limits)


class Spread(Struct, frozen=True, kw_only=True):
    """How many different objects, in all vaults, within two bins; this vault has the most of them."""

    objects: int
    usual: int
    accepted: int
    active: int
    vaults: int
    evidence: tuple[Evidence, ...]

    def allowed(self, limits: Limits) -> int:
        """The highest number of objects that is not told."""
        return allowed(self.usual, self.accepted, floor=limits.fan_out_floor, factor=limits.usual_factor)


class Refused(Struct, frozen=True, kw_only=True):
    """Answers 403 within two bins, in all vaults; `held` of the objects are ones that it used before."""

    count: int
    objects: int
    held: int
    denials: tuple[str, ...]
    evidence: tuple[Evidence, ...]


class Guessed(Struct, frozen=True, kw_only=True):
    """Names that do not exist, asked for within two bins, in all vaults."""

    names: int
    examples: tuple[str, ...]
    evidence: tuple[Evidence, ...]


class Conduct(Struct, frozen=True, kw_only=True):
    """One principal, one vault, one bin; `time_us` is the first thing in it that any rule may tell.

    `vault_age_ms` is since the monitor first saw the vault; `relearning`: a person reset this baseline within the time
    of learning. `new_networks` are empty where the principal is too young for a network to be new.
    """

    principal_id: str
    principal_kind: PrincipalKind
    principal_label: str | None
    principal_age_ms: int
    principal_events: int
    relearning: bool = False
    address: str | None
    vault: str
    vault_age_ms: int
    time_us: int
    new: tuple[NewPair, ...] = ()
    surges: tuple[Surge, ...] = ()
    spread: Spread | None = None
    refused: Refused | None = None
    guessed: Guessed | None = None
    new_networks: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        """The principal as people know it, and from where."""
        name = f"{self.principal_label} " if self.principal_label else ""
        known = self.principal_kind is not PrincipalKind.UNKNOWN
        kind = self.principal_kind.value.replace("_", " ") if known else "identity"
        return f"{name}({kind} {short_id(self.principal_id)}), {self.address or 'address unknown'}"

    def learning(self, limits: Limits) -> bool:
        """Whether the monitor does not know this vault long enough to call anything unusual."""
        return self.vault_age_ms < limits.learn_ms

    def spreads(self, limits: Limits) -> bool:
        """Whether there is past enough to judge, and these are far more objects than in it."""
        spread = self.spread
        known = spread is not None and spread.active >= limits.active_windows and not self.young(limits)
        return known and spread is not None and spread.objects > spread.allowed(limits)

    def at(self, time_us: int) -> "Conduct":
        """The same, dated."""
        return replace(self, time_us=time_us)

    def young(self, limits: Limits) -> bool:
        """Whether the principal itself is too new to have habits."""
        return self.principal_age_ms < limits.learn_ms or self.principal_events < limits.learn_events


class Challenges(Struct, frozen=True, kw_only=True):
    """Sign-in challenges of one address since it last came with a token."""

    address: str
    network: str | None
    count: int
    first_us: int
    time_us: int
    vaults: tuple[str, ...]
    evidence: tuple[Evidence, ...]


def allowed(usual: int, accepted: int, *, floor: int, factor: int) -> int:
    """Return the highest count that is not told: never below the floor, whatever the past says."""
    return max(floor, factor * max(usual, accepted))


def raised(severity: Severity, by: int = 1) -> Severity:
    """Move a severity up or down, between low and high."""
    order = list(Severity)
    return order[min(max(severity.rank + by, Severity.LOW.rank), _WORST.rank)]


def target(object_kind: str, name: str, vault: str) -> str:
    """Say what was touched: `secret kv-prod/smtp`, or the vault itself."""
    return f"{object_kind} {vault}/{name}" if name else f"vault {vault}"


def incident(findings: Sequence[Finding], conduct: Conduct, *, before: AbstractSet[str] = frozenset()) -> Finding:
    """Make one finding of all signs: the worst one's words first, and one step more severe where two signs meet.

    Args:
        findings: of rules about this conduct, at least one, in the order of the rules.
        conduct: what they are about.
        before: signs that the same incident has shown already.
    """
    worst = max(findings, key=lambda finding: finding.severity.rank)
    others = [finding for finding in findings if finding is not worst]
    now = {finding.rule_id for finding in findings} | ({NEW_NETWORK} if conduct.new_networks else set())
    signs = sorted(now | before)
    summary = "; also ".join([worst.summary, *(finding.summary for finding in others)])
    if conduct.new_networks:
        summary += f"; from a network not seen with this principal before: {', '.join(conduct.new_networks[:3])}"
    if earlier := sorted(before - now):
        summary += f"; earlier in the same incident: {', '.join(earlier)}"
    return replace(
        worst,
        severity=raised(worst.severity) if len(signs) > 1 else worst.severity,
        summary=summary,
        evidence=tuple(dict.fromkeys(proof for finding in (worst, *others) for proof in finding.evidence)),
        facts={key: value for finding in (*others, worst) for key, value in finding.facts.items()}
        | {"signs": ", ".join(signs)},
    )
