"""Administrative records of Azure's Activity Log: what was done to a vault, or to its diagnostic settings.

One act leaves a Started and a Succeeded (or Failed) record under one correlation id, and Key Vault's own log has it
too, some milliseconds apart. All are kept, as class admin; a Started one has no outcome yet. They share vault and
principal, so that findings about them fall together.
"""

from typing import Final

from streams.vaultlogs.fields import Fields, Record, Shape, from_json, nested, text
from streams.vaultlogs.objects import resource
from streams.vaultlogs.rejection import Reason, VaultRecordRejected

STARTED: Final = frozenset({"start", "started", "accept", "accepted"})
SUCCEEDED: Final = frozenset({"success", "succeeded"})
FAILED: Final = frozenset({"failure", "failed"})


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
    )


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
