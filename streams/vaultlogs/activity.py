"""Administrative records of Azure's Activity Log: what was done to a vault, its diagnostic settings, its roles.

One act leaves a Started and a Succeeded (or Failed) record under one correlation id, and Key Vault's own log has it
too, some milliseconds apart. All are kept, as class admin; a Started one has no outcome yet. They share vault and
principal, so that findings about them fall together.
"""

import re
from typing import Final

from streams.vaultlogs.fields import Fields, Record, Shape, from_json, nested, text, truth
from streams.vaultlogs.objects import resource
from streams.vaultlogs.rejection import Reason, VaultRecordRejected

ROLE_WRITTEN: Final = "microsoft.authorization/roleassignments/write"
SETTING_WRITTEN: Final = "microsoft.insights/diagnosticsettings/write"
STARTED: Final = frozenset({"start", "started", "accept", "accepted"})
SUCCEEDED: Final = frozenset({"success", "succeeded"})
FAILED: Final = frozenset({"failure", "failed"})
_GUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=/?$)")
_AUDIT: Final = frozenset({"auditevent", "audit", "alllogs"})
"""Names under which a diagnostic setting speaks of a vault's audit log: the category, and the groups that hold it."""


def read(record: Record) -> Fields:
    """Read a record as exported (Event Hubs, blob), as its REST API gives it, or as a row of AzureActivity.

    Raises:
        VaultRecordRejected: another category, or nothing that lies within a vault.
    """
    row = "OperationNameValue" in record
    category = _value(record, "CategoryValue" if row else "category")
    if category is not None and category.lower() != "administrative":
        raise VaultRecordRejected(Reason.OTHER_RESOURCE, "category", "no administrative act")
    resource_id = text(record, "_ResourceId") or text(record, "resourceId") or text(record, "ResourceId")
    if resource_id is None or resource(resource_id).vault is None:
        raise VaultRecordRejected(Reason.OTHER_RESOURCE, "resourceId", "no key vault, and nothing within one")
    return _row(record, resource_id) if row else _exported(record, resource_id)


def _row(row: Record, resource_id: str) -> Fields:
    progress = text(row, "ActivityStatusValue") or text(row, "ActivityStatus")
    return Fields(
        shape=Shape.ACTIVITY_LOG,
        time=row.get("TimeGenerated"),
        operation=text(row, "OperationNameValue"),
        resource_id=resource_id,
        signature=text(row, "ActivitySubstatusValue"),
        reference=text(row, "EventDataId") or progress,
        progress=progress,
        address=text(row, "CallerIpAddress"),
        correlation_id=text(row, "CorrelationId"),
        claims=_claims(nested(row, "Claims_d") or nested(row, "Claims"), text(row, "Caller")),
        request_body=_body(nested(row, "Properties_d") or nested(row, "Properties")),
    )


def _exported(record: Record, resource_id: str) -> Fields:
    properties = nested(record, "properties")
    identity = nested(record, "identity")
    claims = nested(identity, "claims") or nested(record, "claims")
    progress = _value(record, "resultType") or _value(record, "status")
    return Fields(
        shape=Shape.ACTIVITY_LOG,
        time=record.get("time") or record.get("eventTimestamp"),
        operation=_value(record, "operationName"),
        resource_id=resource_id,
        signature=text(properties, "statusCode") or text(record, "resultSignature") or _value(record, "subStatus"),
        reference=text(record, "eventDataId") or text(properties, "eventDataId") or progress,
        progress=progress,
        address=text(record, "callerIpAddress") or text(nested(record, "httpRequest"), "clientIpAddress"),
        correlation_id=text(record, "correlationId"),
        claims=_claims(claims, text(record, "caller")),
        request_body=_body(properties),
    )


def audit_log(fields: Fields) -> bool | None:
    """Say whether a diagnostic setting, as written, keeps the vault's audit log on.

    None where the record does not say: without the request's body, or with one that does not speak of logs (a setting
    for metrics).
    """
    body = from_json(fields.request_body) if isinstance(fields.request_body, str) else fields.request_body
    logs = nested(body, "properties").get("logs") if isinstance(body, dict) else None
    if not isinstance(logs, list):
        return None
    audit = [one for one in logs if isinstance(one, dict) and _is_audit(one)]
    return any(truth(one.get("enabled")) is True for one in audit)


def role(fields: Fields) -> tuple[str | None, str | None]:
    """Return what a role assignment gives, by the id of the role definition, and to whom; None = not said."""
    body = from_json(fields.request_body) if isinstance(fields.request_body, str) else fields.request_body
    if not isinstance(body, dict):
        return None, None
    properties = nested(body, "properties") or nested(body, "Properties")
    given = text(properties, "roleDefinitionId") or text(properties, "RoleDefinitionId") or ""
    holder = text(properties, "principalId") or text(properties, "PrincipalId") or ""
    found = [_GUID.search(value.lower()) for value in (given, holder)]
    return (None if found[0] is None else found[0][0]), (None if found[1] is None else found[1][0])


def _is_audit(entry: Record) -> bool:
    names = (entry.get("category"), entry.get("categoryGroup"))
    return any(isinstance(name, str) and name.lower() in _AUDIT for name in names)


def _body(properties: Record) -> object:
    return properties.get("requestbody") or properties.get("requestBody")


def _claims(claims: Record, caller: str | None) -> Record:
    """Use the claims; where there are none, the caller is a UPN or the id of a workload."""
    if claims or caller is None:
        return claims
    return {"upn" if "@" in caller else "oid": caller}


def _value(record: Record, name: str) -> str | None:
    """Return a text, or the `value` of a localised one."""
    value = record.get(name)
    if isinstance(value, str) and value[:1] == "{":
        value = from_json(value)
    return text(value, "value") if isinstance(value, dict) else text(record, name)
