"""A vault's audit log is cut: its diagnostic setting was deleted, or written so that the audit log stays off.

The Activity Log tells of it; the vault's own log cannot, and says nothing from then on. Who takes the sight away first
is often about to do what must not be seen.
"""

from typing import Final

from alerts.examples import fires, silent, vault_access
from alerts.model import AccessOutcome, Evidence, Finding, Rule, Scope, Severity, VaultAccess
from alerts.thresholds import Limits
from alerts.words import short_id

RULE = Rule(
    id="vault_logging_cut",
    title="A vault's audit log was cut",
    scope=Scope.KEK,
    severity=Severity.CRITICAL,
    policy="8.2",
    technique="T1562.008",
    known_gaps="Needs the Activity Log in a feed. Where only the Started record of the act arrives, nothing is said. "
    "The destination may be cut instead (the workspace, the hub, the storage account): then vault_silent is what "
    "shows. A body that Azure left out of the record is judged as not known.",
    first_step="put the diagnostic setting back, then read what the identity did before and after in the Activity Log",
)

_DELETED: Final = "microsoft.insights/diagnosticsettings/delete"
_WRITTEN: Final = "microsoft.insights/diagnosticsettings/write"


def evaluate(access: VaultAccess, limits: Limits) -> Finding | None:  # noqa: ARG001 - every rule has this signature
    """Report each deletion, and each write that turns the audit log off or may do so."""
    if access.outcome is None or access.vault is None:
        return None  # a Started record: its end follows
    if access.operation == _DELETED:
        cuts, does = True, "deletes a diagnostic setting"
    elif access.operation == _WRITTEN and access.audit_log is not True:
        cuts = access.audit_log is False
        does = "writes a diagnostic setting" + (" with the audit log off" if cuts else "; the record does not say how")
    else:
        return None
    severity = _severity(access.outcome, cuts=cuts)
    if severity is None:
        return None
    return Finding.of(
        RULE,
        severity=severity,
        summary=f"{_who(access)} {does} of {access.vault}: {_ended(access)}",
        effective_ms=access.time_us // 1000,
        key=access.vault,
        principal=access.principal.id or "",
        who=_who(access),
        sure="high: the Activity Log's own record" if cuts else "low: the record lacks the setting's content",
        evidence=(Evidence("vault-access", access.access_id, access.time_us // 1000),),
        facts={"operation": access.operation, "outcome": access.outcome.value},
    )


def _severity(outcome: AccessOutcome, *, cuts: bool) -> Severity | None:
    if outcome is AccessOutcome.SUCCEEDED:
        return Severity.CRITICAL if cuts else Severity.MEDIUM
    if not cuts:
        return None
    return Severity.HIGH if outcome is AccessOutcome.DENIED else Severity.MEDIUM


def _ended(access: VaultAccess) -> str:
    if access.outcome is AccessOutcome.SUCCEEDED:
        return "done"
    if access.outcome is AccessOutcome.DENIED:
        return f"denied ({access.denial or access.http_status or 'forbidden'})"
    return "failed"


def _who(access: VaultAccess) -> str:
    caller = access.principal
    if caller.id is None:
        return caller.upn or f"somebody unnamed at {access.address or 'an unknown address'}"
    return caller.upn or f"identity {short_id(caller.id)}"


def _act(operation: str, outcome: AccessOutcome | None, *, audit_log: bool | None = None) -> VaultAccess:
    """One record of the Activity Log about a diagnostic setting of kv-prod."""
    return vault_access(
        operation, outcome, shape="activity_log", object_kind=None, object_name=None, audit_log=audit_log
    )


_DONE: Final = AccessOutcome.SUCCEEDED

EXAMPLES = (
    fires("a diagnostic setting is deleted", Severity.CRITICAL, _act(_DELETED, _DONE)),
    fires("it is written with the audit log off", Severity.CRITICAL, _act(_WRITTEN, _DONE, audit_log=False)),
    fires("a deletion is denied", Severity.HIGH, _act(_DELETED, AccessOutcome.DENIED)),
    fires("a deletion of what is not there", Severity.MEDIUM, _act(_DELETED, AccessOutcome.NOT_FOUND)),
    fires("a write whose content is not in the record", Severity.MEDIUM, _act(_WRITTEN, _DONE)),
    silent("a write that keeps the audit log on", _act(_WRITTEN, _DONE, audit_log=True)),
    silent("a write without content that was denied", _act(_WRITTEN, AccessOutcome.DENIED)),
    silent("the deletion has only started: its end is judged", _act(_DELETED, None)),
    silent("a write to the vault itself is the administration rule's", _act("microsoft.keyvault/vaults/write", _DONE)),
)
