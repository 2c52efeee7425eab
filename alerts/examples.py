"""Examples of a rule: what it must report and what it must let pass, with builders for what rules see.

They are part of each rule's file, so that a reader sees the boundary next to the code, and one test runs them all.
Values are invented; `NOW_MS` is the moment of the use in question.
"""

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from alerts.model import (
    AccessClass,
    AccessOutcome,
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
from cryptocore.clock import rfc3339_ms
from cryptocore.events import Operation, Outcome

NOW_MS: Final = 1_763_260_867_000
KEY_ID: Final = "5f2a" * 8
FLEET: Final = "6d1b7c2e-0000-4000-8000-00000000f1ee"
STRANGER: Final = "8c1f0a9e-0000-4000-8000-0000000000e2"

S = TypeVar("S", KeyUse, VaultAccess, KekUse)


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


def key_view(*, revoked_ago_ms: int | None = None) -> KeyView:
    """A key at revision 7; revoked by it where `revoked_ago_ms` is given."""
    if revoked_ago_ms is None:
        return KeyView(id=KEY_ID, version=1, state="active", revision=7)
    return KeyView(
        id=KEY_ID,
        version=1,
        state="revoked",
        revision=7,
        revoked_ms=NOW_MS - revoked_ago_ms,
        revoked_in=7,
        revocation_reason="compromise_suspected",
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
