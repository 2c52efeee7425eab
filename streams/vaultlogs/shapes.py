"""Which shape a record has, and the readers of the audit log's own shapes.

Blob and Event Hubs carry one envelope; Managed HSM flattens it and turns the identity into a JSON text;
AzureDiagnostics flattens everything into typed columns; AZKVAuditLogs has columns of its own. All say the same.
"""

from typing import Final

from streams.vaultlogs import activity, eventgrid
from streams.vaultlogs.fields import Fields, Record, Shape, claims_of, description, nested, text
from streams.vaultlogs.principals import OBJECT_ID
from streams.vaultlogs.rejection import Reason, VaultRecordRejected

_DIAGNOSTIC_MARKS: Final = frozenset({"httpStatusCode_d", "id_s", "requestUri_s", "identity_claim_appid_g"})
_TEXT: Final = ("_s", "_g", "")
_NUMBER: Final = ("_d", "_s", "")
_BOOLEAN: Final = ("_b", "_s", "")
_CLAIMS: Final = {
    "oid": "identity_claim_oid",
    OBJECT_ID: "identity_claim_http_schemas_microsoft_com_identity_claims_objectidentifier",
    "appid": "identity_claim_appid",
    "upn": "identity_claim_upn",
    "scp": "identity_claim_scp",
    "xms_mirid": "identity_claim_xms_mirid",
    "xms_az_rid": "identity_claim_xms_az_rid",
}
_LONG_UPN: Final = "identity_claim_http_schemas_xmlsoap_org_ws_2005_05_identity_claims_upn"


def read(record: Record) -> Fields:
    """Read one record of any shape.

    Raises:
        VaultRecordRejected: it has none of the shapes.
    """
    operation = record.get("operationName")
    if isinstance(operation, str):
        if "/" in operation or record.get("category") == "Administrative":
            return activity.read(record)
        return _envelope(record)
    if isinstance(operation, dict) or "OperationNameValue" in record:
        return activity.read(record)
    if isinstance(record.get("OperationName"), str):
        if record.get("Type") == "AzureDiagnostics" or not _DIAGNOSTIC_MARKS.isdisjoint(record):
            return _azure_diagnostics(record)
        return _azkv_audit_logs(record)
    if "eventType" in record or "specversion" in record:
        return eventgrid.read(record)
    raise VaultRecordRejected(Reason.UNKNOWN_SHAPE, "record", "no shape of a Key Vault log that we know")


def _envelope(record: Record) -> Fields:
    properties = nested(record, "properties")
    resource_id = text(record, "resourceId")
    flat = "httpStatusCode" in record or isinstance(record.get("identity"), str)
    hsm = flat or (resource_id is not None and "/managedhsms/" in resource_id.lower())
    key = nested(properties, "keyProperties")
    attributes = nested(key, "attributes")
    inner = record if hsm and "httpStatusCode" not in properties else properties
    return Fields(
        shape=Shape.MANAGED_HSM if hsm else Shape.ENVELOPE,
        time=record.get("time"),
        operation=text(record, "operationName"),
        resource_id=resource_id,
        status=inner.get("httpStatusCode"),
        signature=text(record, "resultSignature"),
        description=description(record, "resultDescription"),
        object_id=text(properties, "id") or (text(record, "id") if hsm else None),
        request_uri=text(inner, "requestUri"),
        address=text(record, "callerIpAddress"),
        correlation_id=text(record, "correlationId"),
        claims=claims_of(record, "identity"),
        policy_match=properties.get("isAccessPolicyMatch"),
        rbac_authorized=properties.get("isRbacAuthorized"),
        address_authorized=properties.get("isAddressAuthorized"),
        address_type=text(properties, "addressAuthorizationType"),
        trusted_service=properties.get("trustedService"),
        subnet_id=text(inner, "subnetId"),
        tls_version=text(properties, "tlsVersion") or (text(record, "tlsVersion") if hsm else None),
        key_enabled=attributes.get("enabled"),
        key_expires=attributes.get("exp"),
        key_operations=key.get("operations"),
    )


def _azure_diagnostics(row: Record) -> Fields:
    return Fields(
        shape=Shape.AZURE_DIAGNOSTICS,
        time=row.get("TimeGenerated"),
        operation=text(row, "OperationName"),
        resource_id=text(row, "ResourceId") or text(row, "_ResourceId"),
        status=_column(row, "httpStatusCode", _NUMBER),
        signature=text(row, "ResultSignature"),
        description=description(row, "ResultDescription"),
        object_id=_words(row, "id"),
        request_uri=_words(row, "requestUri"),
        address=text(row, "CallerIPAddress"),
        correlation_id=text(row, "CorrelationId"),
        claims=_column_claims(row),
        policy_match=_column(row, "isAccessPolicyMatch", _BOOLEAN),
        rbac_authorized=_column(row, "isRbacAuthorized", _BOOLEAN),
        address_authorized=_column(row, "isAddressAuthorized", _BOOLEAN),
        address_type=_words(row, "addressAuthorizationType"),
        trusted_service=_column(row, "trustedService", _TEXT),
        subnet_id=_words(row, "subnetId"),
        tls_version=_words(row, "tlsVersion"),
        key_enabled=_column(row, "keyProperties_attributes_enabled", _BOOLEAN),
        key_expires=_column(row, "keyProperties_attributes_exp", _NUMBER),
        key_operations=_column(row, "keyProperties_operations", _TEXT),
    )


def _column_claims(row: Record) -> Record:
    claims = {claim: value for claim, column in _CLAIMS.items() if (value := _words(row, column)) is not None}
    if "upn" not in claims:
        label = _words(row, _LONG_UPN) or text(row, "identity_claim")  # the bare column holds a UPN
        if label is not None:
            claims["upn"] = label
    return claims


def _azkv_audit_logs(row: Record) -> Fields:
    properties = nested(row, "Properties")
    key = nested(row, "KeyProperties")
    attributes = nested(key, "attributes")
    return Fields(
        shape=Shape.AZKV_AUDIT_LOGS,
        time=row.get("TimeGenerated"),
        operation=text(row, "OperationName"),
        resource_id=text(row, "_ResourceId") or text(row, "ResourceId"),
        status=row.get("HttpStatusCode"),
        signature=text(row, "ResultSignature"),
        description=description(row, "ResultDescription"),
        object_id=text(row, "Id") or text(properties, "id"),
        request_uri=text(row, "RequestUri") or text(properties, "requestUri"),
        address=text(row, "CallerIpAddress"),
        correlation_id=text(row, "CorrelationId"),
        claims=claims_of(row, "Identity"),
        policy_match=row.get("IsAccessPolicyMatch"),
        rbac_authorized=row.get("IsRbacAuthorized"),
        address_authorized=row.get("IsAddressAuthorized"),
        address_type=text(row, "AddressAuthorizationType"),
        trusted_service=row.get("TrustedService"),
        subnet_id=text(row, "SubnetId"),
        tls_version=text(row, "Tlsversion") or text(row, "TlsVersion"),
        key_enabled=attributes.get("enabled"),
        key_expires=attributes.get("exp"),
        key_operations=key.get("operations"),
    )


def _column(row: Record, name: str, suffixes: tuple[str, ...]) -> object:
    """Return the first of a field's columns that says something: two types of a value make two columns."""
    for suffix in suffixes:
        value = row.get(name + suffix)
        if value is not None and value != "" and value != "None":  # noqa: PLR1714 - the value may not be hashable
            return value
    return None


def _words(row: Record, name: str) -> str | None:
    return text(row, f"{name}_s") or text(row, f"{name}_g") or text(row, name)
