"""Administrative acts on KEKs and their vaults: judged one by one, by what they do, from the first one on.

Nothing is learned here: an act that can end the keys or take them elsewhere is told even where it is usual. Only an act
that an event of ours explains is not told: then somebody did it through keytrail, and the trail says who and why.
"""

from typing import Final, NamedTuple

from alerts.certainty import sureness
from alerts.examples import FLEET, fires, kek_act, kek_use, key_change, silent
from alerts.model import (
    AccessClass,
    AccessOutcome,
    Evidence,
    Finding,
    KekAct,
    KekUse,
    KekUseStatus,
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
    known_gaps="Writes of a vault that only the Activity Log shows, and role assignments, need that log in a feed; "
    "roles given above the vault (resource group, subscription) are not seen. What a vault write changed in its access "
    "policy is not in the record, only that it was written. A compromised service with the role `keys` can invent an "
    "event for what its own identity does.",
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
    # The same as the Activity Log names them: seen there alone where the vault's own log is cut, or does not reach us.
    "microsoft.keyvault/vaults/write": _Act(
        "writes a vault's properties, access policies among them", _MEDIUM, _MEDIUM
    ),
    "microsoft.keyvault/vaults/accesspolicies/write": _Act("writes a vault's access policies", _MEDIUM, _MEDIUM),
    "microsoft.keyvault/vaults/delete": _Act(
        "deletes a vault; it can be recovered until its retention ends", _HIGH, _HIGH
    ),
    "microsoft.keyvault/locations/deletedvaults/purge/action": _Act(
        "destroys a deleted vault for good", _CRITICAL, _HIGH
    ),
    "microsoft.authorization/roleassignments/delete": _Act("takes a role on the vault from somebody", _LOW, _MEDIUM),
}

_NAMES: Final = {
    "microsoft.keyvault/vaults/write": "vault write",
    "microsoft.keyvault/vaults/accesspolicies/write": "access policy write",
    "microsoft.keyvault/vaults/delete": "vault deletion",
    "microsoft.keyvault/locations/deletedvaults/purge/action": "vault purge",
    "microsoft.authorization/roleassignments/write": "role assignment",
    "microsoft.authorization/roleassignments/delete": "removal of a role assignment",
}
"""What the Activity Log's operations are called; the vault's own speak for themselves."""

_ROLE_STEP: Final = (
    "ask who decided it; take the role back (az role assignment delete) unless somebody can say why it was given"
)
ROLE_GIVEN: Final = "microsoft.authorization/roleassignments/write"
_ROLES: Final = {
    # Who may change keys or who may use them (7.1): a thief gives that to himself first.
    "00482a5a-887f-4fb3-b363-3b7fe8e74483": ("Key Vault Administrator", _HIGH),
    "14b46e9e-c2b7-41b4-b07b-48a6ebf60603": ("Key Vault Crypto Officer", _HIGH),
    "12338af0-0e69-4776-bea7-57ae8d297424": ("Key Vault Crypto User", _HIGH),
    "e147488a-f6f5-4113-8e2d-b22465e65bf6": ("Key Vault Crypto Service Encryption User", _HIGH),
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635": ("Owner", _HIGH),
    "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9": ("User Access Administrator", _HIGH),
    "b24988ac-6180-42a0-ab88-20f7382dd24c": ("Contributor", _HIGH),
    # These reach no key.
    "21090545-7ca7-4776-b22c-e363652d74d2": ("Key Vault Reader", _LOW),
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": ("Key Vault Secrets Officer", _MEDIUM),
    "4633458b-17de-408a-b874-0445c86b69e6": ("Key Vault Secrets User", _MEDIUM),
    "a4417e6f-fecd-4de8-b567-7b0420556985": ("Key Vault Certificates Officer", _MEDIUM),
}


def evaluate(seen: KekAct, limits: Limits) -> Finding | None:
    """Report each act of the table, and each KeyUpdate by what it asked for, unless an event explains it."""
    access, judged = seen.access, seen.judged
    if access.access_class is not AccessClass.ADMIN or access.outcome is None or access.vault is None:
        return None
    act = _act(access)
    if act is None or (judged is not None and judged.status is not KekUseStatus.UNEXPLAINED):
        return None
    target = access.vault if access.object_name is None else f"{access.vault}/{access.object_name}"
    return Finding.of(
        RULE,
        severity=_severity(act, access.outcome),
        summary=f"{_NAMES.get(access.operation, access.operation)} on {target} {_ended(access)}: {act.does}",
        effective_ms=access.time_us // 1000,
        key=target,
        principal=access.principal.id or "",
        who=_who(access),
        sure=_sure(judged, limits) + ("" if access.outcome is AccessOutcome.SUCCEEDED else "; nothing was changed"),
        evidence=(Evidence("vault-access", access.access_id, access.time_us // 1000),),
        facts=_facts(access, access.outcome, judged),
        first_step=_ROLE_STEP if access.operation == ROLE_GIVEN else RULE.first_step,
    )


def _act(access: VaultAccess) -> _Act | None:
    if access.operation == "KeyUpdate":
        return _update(access.key_change)
    return (
        _role(access.role, access.given_to or "somebody")
        if access.operation == ROLE_GIVEN
        else _ACTS.get(access.operation)
    )


def _role(role: str | None, holder: str) -> _Act:
    """Judge a role assignment by what the role permits; what nobody knows is taken for the worse."""
    if role is None:
        return _Act(f"gives {holder} a role on the vault; the record does not say which", _HIGH, _MEDIUM)
    name, severity = _ROLES.get(role, (f"an unknown one ({role})", _HIGH))
    return _Act(f"gives {holder} a role on the vault: {name}", severity, _MEDIUM)


def _sure(judged: KekUse | None, limits: Limits) -> str:
    if judged is None or judged.source is None or judged.reason == "no_batches":
        return "high: the vault's own record"
    return f"{sureness(judged, limits)}; what was done is sure: the vault's own record"


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
    return f"{identity(caller.kind, caller.id, caller.upn or caller.resource)}, {access.address or 'address unknown'}"


def _facts(access: VaultAccess, outcome: AccessOutcome, judged: KekUse | None) -> dict[str, str]:
    facts = {"outcome": outcome.value, "operation": access.operation}
    if judged is not None and judged.reason:
        facts["reason"] = judged.reason
    if judged is not None and judged.source:
        facts["source"] = judged.source
    if access.denial:
        facts["denial"] = access.denial
    if access.address:
        facts["address"] = access.address
    return facts


_DENIED = AccessOutcome.DENIED
_WRITES: Final = "microsoft.keyvault/vaults"
_OURS: Final = {"operation": "KeyDelete", "principal_id": FLEET, "source": "billing"}


def _on_vault(operation: str, role: str | None = None) -> KekAct:
    """One record of the Activity Log about kv-prod."""
    return kek_act(operation, shape="activity_log", object_kind=None, object_name=None, role=role)


EXAMPLES = (
    fires("a KEK is purged", Severity.CRITICAL, kek_act("KeyPurge")),
    fires("a purge is denied", Severity.HIGH, kek_act("KeyPurge", _DENIED)),
    fires("a delete is denied", Severity.HIGH, kek_act("KeyDelete", _DENIED)),
    fires("a purge of what is not there", Severity.MEDIUM, kek_act("KeyPurge", AccessOutcome.NOT_FOUND)),
    fires("a KEK is backed up", Severity.HIGH, kek_act("KeyBackup")),
    fires("a KEK is disabled", Severity.HIGH, kek_act("KeyUpdate", key_change=key_change(enabled=False))),
    fires("an update that names no attribute", Severity.MEDIUM, kek_act("KeyUpdate", key_change=key_change())),
    fires(
        "an expiry is set",
        Severity.LOW,
        kek_act("KeyUpdate", key_change=key_change(expires_at="2027-01-01T00:00:00Z")),
    ),
    fires("a rotation, as planned", Severity.INFO, kek_act("KeyRotate")),
    fires("a rotation is denied", Severity.MEDIUM, kek_act("KeyRotate", _DENIED)),
    fires(
        "access policies may have changed",
        Severity.MEDIUM,
        kek_act("VaultPatch", object_kind=None, object_name=None),
    ),
    fires(
        "access policies are written, by the Activity Log",
        Severity.MEDIUM,
        _on_vault(f"{_WRITES}/accesspolicies/write"),
    ),
    fires("a vault is deleted, by the Activity Log", Severity.HIGH, _on_vault(f"{_WRITES}/delete")),
    fires(
        "a role that may use keys is given",
        Severity.HIGH,
        _on_vault(ROLE_GIVEN, "12338af0-0e69-4776-bea7-57ae8d297424"),
    ),
    fires("a role is given, nobody knows which", Severity.HIGH, _on_vault(ROLE_GIVEN)),
    fires(
        "a role that only reads is given", Severity.LOW, _on_vault(ROLE_GIVEN, "21090545-7ca7-4776-b22c-e363652d74d2")
    ),
    fires(
        "one of our identities deletes a KEK, and no event says so",
        Severity.HIGH,
        kek_act("KeyDelete", judged=kek_use(KekUseStatus.UNEXPLAINED, "no_event", behind_ms=0, instances=2, **_OURS)),
    ),
    silent(
        "a KEK is deleted through keytrail", kek_act("KeyDelete", judged=kek_use(KekUseStatus.EXPLAINED, None, **_OURS))
    ),
    silent(
        "its event may still come",
        kek_act("KeyDelete", judged=kek_use(KekUseStatus.PENDING, None, final=False, **_OURS)),
    ),
    silent(
        "a key is read",
        kek_act("KeyGet", access_class=AccessClass.READ, principal=Principal(FLEET, PrincipalKind.WORKLOAD)),
    ),
    silent("a secret is set: no KEK", kek_act("SecretSet", object_kind="secret", object_name="smtp")),
    silent(
        "Event Grid says that a key is about to expire: nobody acted",
        kek_act("KeyNearExpiryEventGridNotification", None, access_class=AccessClass.NOTIFICATION),
    ),
)
