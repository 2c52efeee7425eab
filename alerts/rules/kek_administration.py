"""Administrative acts on KEKs and their vaults: judged one by one, by what they do, from the first one on.

Nothing is learned here: an act that can end the keys or take them elsewhere is told even where it is usual.
"""

from typing import Final, NamedTuple

from alerts.examples import FLEET, fires, key_change, silent, vault_access
from alerts.model import (
    AccessClass,
    AccessOutcome,
    Evidence,
    Finding,
    KeyChange,
    Principal,
    PrincipalKind,
    Rule,
    Scope,
    Severity,
    VaultAccess,
)
from alerts.thresholds import Limits
from alerts.words import identity

RULE = Rule(
    id="kek_administration",
    title="Administrative act on a KEK or its vault",
    scope=Scope.KEK,
    severity=Severity.MEDIUM,
    policy="9.4b",
    technique="T1485",
    known_gaps="Role assignments and diagnostic settings are in the Activity Log, not here. What a vault write changed "
    "in its access policy is not in the record, only that it was written.",
    first_step="ask the person or pipeline behind the identity for the change ticket; recover a deleted key before its "
    "retention ends",
)


class _Act(NamedTuple):
    """What an operation does to the keys, and how bad it is when done and when refused."""

    does: str
    done: Severity
    refused: Severity


_INFO, _LOW, _MEDIUM, _HIGH, _CRITICAL = Severity

_ACTS: Final = {
    # What ends keys: all data under them is lost unless somebody has a backup (policy 9.2b, 9.3).
    "KeyPurge": _Act("destroys a deleted KEK for good", _CRITICAL, _HIGH),
    "VaultPurge": _Act("destroys a deleted vault for good", _CRITICAL, _HIGH),
    "KeyDelete": _Act("deletes a KEK; it can be recovered until its retention ends", _HIGH, _HIGH),
    "VaultDelete": _Act("deletes a vault; it can be recovered until its retention ends", _HIGH, _HIGH),
    # What moves keys over the vault's border: KEKs are created in it and never leave it (6.1, 6.2).
    "KeyBackup": _Act("takes a copy of a KEK out of the vault", _HIGH, _HIGH),
    "KeyRestore": _Act("brings a copy of a KEK into a vault, with its old permissions", _HIGH, _MEDIUM),
    "KeyImport": _Act("brings in a KEK that was made elsewhere", _HIGH, _MEDIUM),
    # What changes who may do what: the record does not say what changed, so somebody has to look (7.1).
    "VaultPut": _Act("writes a vault's properties, access policies among them", _MEDIUM, _MEDIUM),
    "VaultPatch": _Act("changes a vault's properties, access policies among them", _MEDIUM, _MEDIUM),
    # What brings keys back: right after a mistake, wrong after a destruction that was meant (9.2c).
    "KeyRecover": _Act("brings a deleted KEK back", _LOW, _LOW),
    "VaultRecover": _Act("brings a deleted vault back", _LOW, _LOW),
    # The life cycle that the policy wants (6.3a); refused, it leaves an old key in use.
    "KeyCreate": _Act("creates a KEK or a new version of one", _LOW, _MEDIUM),
    "KeyRotationPolicySet": _Act("sets when a KEK rotates", _LOW, _MEDIUM),
    "KeyRotate": _Act("rotates a KEK", _INFO, _MEDIUM),
    "KeyRotateIfDue": _Act("rotates a KEK that was due", _INFO, _MEDIUM),
}


def evaluate(access: VaultAccess, limits: Limits) -> Finding | None:  # noqa: ARG001 - every rule has this signature
    """Report each act of the table, and each KeyUpdate by what it asked for."""
    if access.access_class is not AccessClass.ADMIN or access.outcome is None or access.vault is None:
        return None
    act = _update(access.key_change) if access.operation == "KeyUpdate" else _ACTS.get(access.operation)
    if act is None:
        return None
    target = access.vault if access.object_name is None else f"{access.vault}/{access.object_name}"
    return Finding.of(
        RULE,
        severity=_severity(act, access.outcome),
        summary=f"{access.operation} on {target} {_ended(access)}: {act.does}",
        effective_ms=access.time_us // 1000,
        key=target,
        principal=access.principal.id or "",
        who=_who(access),
        sure="high: the vault's own record"
        + ("" if access.outcome is AccessOutcome.SUCCEEDED else "; nothing was changed"),
        evidence=(Evidence("vault-access", access.access_id, access.time_us // 1000),),
        facts=_facts(access, access.outcome),
    )


def _update(change: KeyChange | None) -> _Act:
    """Judge a KeyUpdate: an attribute that the record does not name is unknown, never false."""
    if change is None:
        return _Act("changes a KEK's attributes; the record does not say which", _MEDIUM, _MEDIUM)
    if change.enabled is False:
        return _Act("disables a KEK: unwraps fail, wraps may go on", _HIGH, _HIGH)
    if change.operations is not None:
        return _Act(f"sets what a KEK may be used for: {', '.join(change.operations) or 'nothing'}", _MEDIUM, _MEDIUM)
    if change.enabled is True:
        return _Act("enables a KEK", _MEDIUM, _MEDIUM)
    if change.expires_at is not None:
        return _Act(f"sets a KEK's expiry to {change.expires_at}, which does not stop unwraps", _LOW, _MEDIUM)
    return _Act("changes a KEK's attributes; the record does not say which", _MEDIUM, _MEDIUM)


def _severity(act: _Act, outcome: AccessOutcome) -> Severity:
    if outcome is AccessOutcome.SUCCEEDED:
        return act.done
    if outcome is AccessOutcome.DENIED:
        return act.refused
    return min(act.done, _MEDIUM, key=lambda severity: severity.rank)  # 404, 409, 429: tried, and nothing happened


def _ended(access: VaultAccess) -> str:
    if access.outcome is AccessOutcome.DENIED:
        return f"was denied ({access.denial or access.http_status})"
    if access.outcome is AccessOutcome.SUCCEEDED:
        return "succeeded"
    return f"failed ({access.http_status})"


def _who(access: VaultAccess) -> str:
    caller = access.principal
    if caller.id is None:
        return f"nobody whom the vault's record names, {access.address or 'address unknown'}"
    return f"{identity(caller.kind, caller.id, caller.upn)}, {access.address or 'address unknown'}"


def _facts(access: VaultAccess, outcome: AccessOutcome) -> dict[str, str]:
    facts = {"outcome": outcome.value, "operation": access.operation}
    if access.denial:
        facts["denial"] = access.denial
    if access.address:
        facts["address"] = access.address
    return facts


_DENIED = AccessOutcome.DENIED

EXAMPLES = (
    fires("a KEK is purged", Severity.CRITICAL, vault_access("KeyPurge")),
    fires("a purge is denied", Severity.HIGH, vault_access("KeyPurge", _DENIED)),
    fires("a delete is denied", Severity.HIGH, vault_access("KeyDelete", _DENIED)),
    fires("a purge of what is not there", Severity.MEDIUM, vault_access("KeyPurge", AccessOutcome.NOT_FOUND)),
    fires("a KEK is backed up", Severity.HIGH, vault_access("KeyBackup")),
    fires("a KEK is disabled", Severity.HIGH, vault_access("KeyUpdate", key_change=key_change(enabled=False))),
    fires("an update that names no attribute", Severity.MEDIUM, vault_access("KeyUpdate", key_change=key_change())),
    fires(
        "an expiry is set",
        Severity.LOW,
        vault_access("KeyUpdate", key_change=key_change(expires_at="2027-01-01T00:00:00Z")),
    ),
    fires("a rotation, as planned", Severity.INFO, vault_access("KeyRotate")),
    fires("a rotation is denied", Severity.MEDIUM, vault_access("KeyRotate", _DENIED)),
    fires(
        "access policies may have changed",
        Severity.MEDIUM,
        vault_access("VaultPatch", object_kind=None, object_name=None),
    ),
    silent(
        "a key is read",
        vault_access("KeyGet", access_class=AccessClass.READ, principal=Principal(FLEET, PrincipalKind.WORKLOAD)),
    ),
    silent("a secret is set: no KEK", vault_access("SecretSet", object_kind="secret", object_name="smtp")),
    silent(
        "Event Grid says that a key is about to expire: nobody acted",
        vault_access("KeyNearExpiryEventGridNotification", None, access_class=AccessClass.NOTIFICATION),
    ),
)
