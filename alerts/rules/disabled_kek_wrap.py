"""Wraps under a disabled KEK: a vault refuses to unwrap then, but is reported to go on wrapping.

Whoever wraps makes data keys that nobody can open while the KEK is disabled: either a service was not told, or somebody
locks data away.
"""

from typing import Final

from alerts.examples import FLEET, fires, silent, vault_access
from alerts.model import (
    AccessClass,
    AccessOutcome,
    Evidence,
    Finding,
    KekAccess,
    Principal,
    PrincipalKind,
    Rule,
    Scope,
    Severity,
)
from alerts.thresholds import Limits
from alerts.words import identity

RULE = Rule(
    id="disabled_kek_wrap",
    title="Wrap under a disabled KEK",
    scope=Scope.KEK,
    severity=Severity.HIGH,
    policy="9.4b",
    technique="T1486",
    known_gaps="Knows a KEK as disabled from the vault's record of the KeyUpdate: one that was disabled before the log "
    "was read, or by its expiry, is not known. A wrap whose record comes before that of the KeyUpdate is not looked at "
    "again. Where the KeyUpdate names no version and the KEK got a new one since, nothing is told.",
    first_step="find who disabled the KEK and why; point the service at the current version and rewrap what it wrapped",
)

WRAPS: Final = frozenset({"KeyWrap", "KeyEncrypt"})


def evaluate(seen: KekAccess, limits: Limits) -> Finding | None:  # noqa: ARG001 - every rule is given the limits
    """Report each wrap that the vault did under a version that its own log says is disabled."""
    access = seen.access
    if access.operation not in WRAPS or access.outcome is not AccessOutcome.SUCCEEDED or not _is_disabled(seen):
        return None
    target = f"{access.vault}/{access.object_name}"
    caller = access.principal
    who = identity(caller.kind, caller.id, caller.upn) if caller.id else "nobody whom the vault's record names"
    return Finding.of(
        RULE,
        summary=f"{access.operation} on {target} succeeded, which is disabled since {seen.changed_at}",
        effective_ms=access.time_us // 1000,
        key=target,
        principal=caller.id or "",
        who=f"{who}, {access.address or 'address unknown'}",
        sure="high: the vault's own records of the KeyUpdate and of the wrap",
        evidence=(Evidence("vault-access", access.access_id, access.time_us // 1000),),
        facts={"operation": access.operation, "disabled_at": seen.changed_at or ""},
    )


def _is_disabled(seen: KekAccess) -> bool:
    """Whether the version that was used is the one that was disabled, and was so when it was used."""
    access = seen.access
    if seen.enabled is not False or seen.changed_at is None or access.time <= seen.changed_at:
        return False
    if seen.changed_version and access.object_version:
        return seen.changed_version == access.object_version
    return seen.renewed_at is None or seen.renewed_at <= seen.changed_at


_USER: Final = Principal(FLEET, PrincipalKind.WORKLOAD)
_BEFORE, _AFTER = "2025-11-16T02:40:00.0000000Z", "2025-11-16T02:42:00.0000000Z"


def _wrap(
    operation: str = "KeyWrap",
    outcome: AccessOutcome = AccessOutcome.SUCCEEDED,
    *,
    version: str = "v1",
    **state: object,
) -> KekAccess:
    """A wrap at 02:41:07 of a KEK that was disabled a minute before, unless changed."""
    access = vault_access(
        operation,
        outcome,
        access_class=AccessClass.USE,
        object_version=version,
        principal=_USER,
        time="2025-11-16T02:41:07.0000000Z",
    )
    known: dict[str, object] = {"enabled": False, "changed_at": _BEFORE, "changed_version": "v1"}
    return KekAccess(access=access, **(known | state))  # type: ignore[arg-type]


EXAMPLES = (
    fires("a wrap a minute after the KEK was disabled", Severity.HIGH, _wrap()),
    fires("data is encrypted with the disabled KEK itself", Severity.HIGH, _wrap("KeyEncrypt")),
    fires("the KeyUpdate named no version, and there is no newer one", Severity.HIGH, _wrap(changed_version=None)),
    silent("the vault refused", _wrap(outcome=AccessOutcome.DENIED)),
    silent("a wrap of before, arriving late", _wrap(changed_at=_AFTER)),
    silent("an old version is disabled, the current one is used", _wrap(version="v2")),
    silent("rotated since, and the KeyUpdate named no version", _wrap(changed_version=None, renewed_at=_AFTER)),
    silent("enabled again", _wrap(enabled=True)),
    silent("nobody ever said", _wrap(enabled=None, changed_at=None)),
    silent("an unwrap, which a disabled KEK refuses anyway", _wrap("KeyUnwrap")),
)
