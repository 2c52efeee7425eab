"""Examples of a rule: what it must report and what it must let pass, with builders for what rules see.

They are part of each rule's file, so that a reader sees the boundary next to the code, and one test runs them all.
Values are invented; `NOW_MS` is the moment of the use in question.
"""

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from alerts.conduct import Challenges, Conduct, Guessed, NewPair, Refused, Spread, Surge
from alerts.model import (
    AccessClass,
    AccessOutcome,
    Evidence,
    KekAccess,
    KekAct,
    KekUse,
    KekUseStatus,
    KeyChange,
    KeyUse,
    KeyView,
    Principal,
    PrincipalKind,
    RecentUse,
    Severity,
    VaultAccess,
)
from alerts.thresholds import DAY_MS, MINUTE_MS
from cryptocore.clock import rfc3339_ms
from cryptocore.events import Operation, Outcome

NOW_MS: Final = 1_763_260_867_000
KEY_ID: Final = "5f2a" * 8
FLEET: Final = "6d1b7c2e-0000-4000-8000-00000000f1ee"
STRANGER: Final = "8c1f0a9e-0000-4000-8000-0000000000e2"

S = TypeVar("S", KeyUse, VaultAccess, KekAct, KekAccess, KekUse, Conduct, Challenges)


@dataclass(frozen=True, slots=True)
class Example(Generic[S]):
    """`severity` None: the rule must stay silent; otherwise it must report exactly this severity."""

    name: str
    subject: S
    severity: Severity | None


def fires(name: str, severity: Severity, subject: S) -> Example[S]:
    """Give an example that must be reported."""
    return Example(name, subject, severity)


def silent(name: str, subject: S) -> Example[S]:
    """Give an example that must pass."""
    return Example(name, subject, None)


def key_view(*, revoked_ago_ms: int | None = None, decoy: bool = False) -> KeyView:
    """A key at revision 7; revoked by it where `revoked_ago_ms` is given."""
    if revoked_ago_ms is None:
        return KeyView(id=KEY_ID, version=1, state="active", revision=7, decoy=decoy)
    return KeyView(
        id=KEY_ID,
        version=1,
        state="revoked",
        revision=7,
        revoked_ms=NOW_MS - revoked_ago_ms,
        revoked_in=7,
        revocation_reason="compromise_suspected",
        decoy=decoy,
    )


def key_use(operation: Operation, outcome: Outcome, **changes: Any) -> KeyUse:
    """One use by billing, at NOW_MS unless changed."""
    values: dict[str, Any] = {
        "event_id": "01939f00-0000-7000-8000-000000000001",
        "operation": operation,
        "outcome": outcome,
        "reason": None,
        "effective_ms": NOW_MS,
        "service": "billing",
        "actor": "user:4711",
        "purpose": "crm-sync",
        "tenant": "t-88",
        "key": key_view(),
        "key_revision": 7,
    }
    return KeyUse(**(values | changes))


def earlier(
    count: int,
    *,
    every_ms: int,
    operation: Operation = Operation.DECRYPT,
    outcome: Outcome = Outcome.FAILED,
    reason: str | None = None,
) -> tuple[RecentUse, ...]:
    """`count` uses before NOW_MS, `every_ms` apart, oldest first."""
    return tuple(
        RecentUse(
            event_id=f"01939f00-0000-7000-8000-1{back:011d}",
            effective_ms=NOW_MS - back * every_ms,
            operation=operation,
            outcome=outcome,
            revision=7,
            version=1,
            actor="user:4711",
            purpose="crm-sync",
            service="billing",
            reason=reason,
        )
        for back in range(count, 0, -1)
    )


def vault_access(
    operation: str, outcome: AccessOutcome | None = AccessOutcome.SUCCEEDED, **changes: Any
) -> VaultAccess:
    """One administrative record about kv-prod/tenant-kek, by a workload, unless changed."""
    status = {
        None: None,
        AccessOutcome.SUCCEEDED: 200,
        AccessOutcome.DENIED: 403,
        AccessOutcome.FAILED: 500,
        AccessOutcome.THROTTLED: 429,
        AccessOutcome.NOT_FOUND: 404,
    }[outcome]
    values: dict[str, Any] = {
        "time": rfc3339_ms(NOW_MS),
        "operation": operation,
        "access_class": AccessClass.ADMIN,
        "outcome": outcome,
        "denial": "access_policy" if outcome is AccessOutcome.DENIED else None,
        "http_status": status,
        "vault": "kv-prod",
        "object_kind": "key",
        "object_name": "tenant-kek",
        "object_version": None,
        "principal": Principal(STRANGER, PrincipalKind.WORKLOAD),
        "address": "203.0.113.7",
        "network": "203.0.113.0/24",
        "tls_version": "TLS1_3",
        "correlation_id": "",
        "shape": "envelope",
        "key_change": None,
        "access_id": "a1" * 32,
        "resource_id": None,
        "time_us": NOW_MS * 1000,
    }
    return VaultAccess(**(values | changes))


def kek_act(
    operation: str,
    outcome: AccessOutcome | None = AccessOutcome.SUCCEEDED,
    *,
    judged: KekUse | None = None,
    **changes: Any,
) -> KekAct:
    """One such record, as the join judged it where that is given."""
    return KekAct(access=vault_access(operation, outcome, **changes), judged=judged)


def key_change(*, enabled: bool | None = None, expires_at: str | None = None, operations: Any = None) -> KeyChange:
    """What a KeyUpdate asked for."""
    return KeyChange(enabled=enabled, expires_at=expires_at, operations=operations)


def kek_use(status: KekUseStatus, reason: str | None, **changes: Any) -> KekUse:
    """One unwrap under kv-prod/tenant-kek by a principal of no source, judged for good, unless changed."""
    values: dict[str, Any] = {
        "id": "a1" * 32,
        "status": status,
        "strength": None,
        "reason": reason,
        "final": True,
        "vault": "kv-prod",
        "name": "tenant-kek",
        "version": "c0ffee00c0ffee00c0ffee00c0ffee00",
        "operation": "KeyUnwrap",
        "outcome": "succeeded",
        "time_us": NOW_MS * 1000,
        "principal_id": STRANGER,
        "principal_kind": "workload",
        "address": "203.0.113.7",
        "access_id": "a1" * 32,
    }
    return KekUse(**(values | changes))


_PROOF: Final = (Evidence("vault-access", "a1" * 32, NOW_MS),)


def conduct(**changes: Any) -> Conduct:
    """Five minutes of a workload that is known for 40 days in kv-prod, itself known for 60, unless changed."""
    values: dict[str, Any] = {
        "principal_id": STRANGER,
        "principal_kind": PrincipalKind.WORKLOAD,
        "principal_label": None,
        "principal_age_ms": 40 * DAY_MS,
        "principal_events": 4_000,
        "address": "203.0.113.7",
        "vault": "kv-prod",
        "vault_age_ms": 60 * DAY_MS,
        "time_us": NOW_MS * 1000,
    }
    return Conduct(**(values | changes))


def new_pair(
    operation: str = "SecretGet", access_class: AccessClass = AccessClass.USE, *, name: str = "smtp", **changes: Any
) -> NewPair:
    """One secret, in a class that the principal never used in this vault, unless changed."""
    values: dict[str, Any] = {
        "object_kind": "secret",
        "name": name,
        "access_class": access_class,
        "operation": operation,
        "at_us": NOW_MS * 1000,
        "access_id": "a1" * 32,
        "class_age_ms": None,
    }
    return NewPair(**(values | changes))


def surge(count: int, *, usual: int, accepted: int = 0, active: int = 210, age_ms: int = 40 * DAY_MS) -> Surge:
    """`count` reads of one secret."""
    return Surge(
        object_kind="secret",
        name="smtp",
        access_class=AccessClass.USE,
        count=count,
        usual=usual,
        accepted=accepted,
        active=active,
        age_ms=age_ms,
        access_id="a1" * 32,
        at_us=NOW_MS * 1000,
    )


def spread(objects: int, *, usual: int, accepted: int = 0, active: int = 210, vaults: int = 1) -> Spread:
    """So many different objects within ten minutes."""
    return Spread(objects=objects, usual=usual, accepted=accepted, active=active, vaults=vaults, evidence=_PROOF)


def refused(count: int, *, objects: int, held: int = 0) -> Refused:
    """So many answers 403."""
    return Refused(count=count, objects=objects, held=held, denials=("rbac",), evidence=_PROOF)


def guessed(names: int) -> Guessed:
    """So many names that do not exist."""
    return Guessed(names=names, examples=("kv-prod/secret/admin", "kv-prod/secret/root"), evidence=_PROOF)


def challenges(count: int) -> Challenges:
    """So many challenges of one address within forty minutes."""
    return Challenges(
        address="198.51.100.9",
        network="198.51.100.0/24",
        count=count,
        first_us=(NOW_MS - 40 * MINUTE_MS) * 1000,
        time_us=NOW_MS * 1000,
        vaults=("kv-prod",),
        evidence=_PROOF,
    )
