"""Vault records made by hand, and one record written in each of the shapes.

No raw KeyUnwrap, KeyWrap, KeyUpdate or AZKVAuditLogs row is public. These follow a real KeyBackup record, plus
`properties.algorithm`; the rows follow the published columns of their tables.
"""

import json
from typing import Any

VAULT = "kt-prod"
RESOURCE = "/SUBSCRIPTIONS/7FE1B682/RESOURCEGROUPS/PROD/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/KT-PROD"
VERSION = "0123456789abcdef0123456789abcdef"
WORKLOAD = {"oid": "AAAA0000-0000-4000-8000-00000000000A", "appid": "BBBB0000-0000-4000-8000-00000000000B"}
Record = dict[str, Any]


def record(operation: str = "KeyUnwrap", status: int = 200, **properties: Any) -> Record:
    """One AuditEvent of the envelope; a property given as None is left out."""
    host = f"https://{VAULT}.vault.azure.net"
    return {
        "time": "2026-11-16T02:41:07.1234567Z",
        "category": "AuditEvent",
        "operationName": operation,
        "resultType": "Success",
        "correlationId": "49C05377-7187-4f18-8374-0e101bba261d",
        "callerIpAddress": "20.50.1.7:50412",
        "identity": {"claim": dict(WORKLOAD)},
        "properties": {
            name: value
            for name, value in {
                "id": f"{host}/keys/Tokens-KEK",
                "clientInfo": "azsdk-python-keyvault-keys/4.10.0",
                "httpStatusCode": status,
                "requestUri": f"{host}/keys/Tokens-KEK/{VERSION}/{operation[3:].lower()}key?api-version=7.6",
                "isRbacAuthorized": True,
                "algorithm": "RSA-OAEP-256",
                "tlsVersion": "TLS1_3",
                **properties,
            }.items()
            if value is not None
        },
        "resourceId": RESOURCE,
        "operationVersion": "7.6",
        "resultSignature": "OK",
        "durationMs": "12",
    }


def as_diagnostics(envelope: Record) -> Record:
    """The row of AzureDiagnostics that the same record becomes: flat, typed by suffix, values as text."""
    properties = envelope["properties"]
    key = properties.get("keyProperties", {})
    row = {
        "Type": "AzureDiagnostics",
        "Category": "AuditEvent",
        "TimeGenerated": envelope["time"],
        "OperationName": envelope["operationName"],
        "ResultType": "Success",
        "ResultSignature": envelope["resultSignature"],
        "ResultDescription": envelope.get("resultDescription", "None"),
        "CorrelationId": envelope["correlationId"],
        "CallerIPAddress": envelope["callerIpAddress"],
        "ResourceId": envelope["resourceId"],
        "_ResourceId": envelope["resourceId"].lower(),
        "id_s": properties.get("id", ""),
        "requestUri_s": properties["requestUri"],
        "httpStatusCode_d": float(properties["httpStatusCode"]),
        "isRbacAuthorized_b": str(properties.get("isRbacAuthorized")),
        "isAccessPolicyMatch_b": str(properties.get("isAccessPolicyMatch")),
        "tlsVersion_s": properties.get("tlsVersion", "None"),
        "subnetId_s": properties.get("subnetId", ""),
        "identity_claim_oid_s": "",
        "keyProperties_attributes_enabled_b": str(key.get("attributes", {}).get("enabled")),
        "keyProperties_attributes_exp_d": str(key.get("attributes", {}).get("exp")),
        "keyProperties_operations_s": json.dumps(key["operations"]) if "operations" in key else "None",
    }
    claims = envelope["identity"].get("claim", {})
    for name, value in claims.items():
        column = "".join(letter if letter.isalnum() else "_" for letter in name).replace("___", "_")
        row[f"identity_claim_{column}_{'g' if name in {'oid', 'appid'} else 's'}"] = value
    return row


def as_azkv(envelope: Record, *, identity_as_text: bool = False) -> Record:
    """The row of AZKVAuditLogs that the same record becomes."""
    properties = envelope["properties"]
    identity = envelope["identity"]
    return {
        "Type": "AZKVAuditLogs",
        "TimeGenerated": envelope["time"],
        "OperationName": envelope["operationName"],
        "ResultType": "Success",
        "ResultSignature": envelope["resultSignature"],
        "ResultDescription": envelope.get("resultDescription", ""),
        "CorrelationId": envelope["correlationId"],
        "CallerIpAddress": envelope["callerIpAddress"],
        "_ResourceId": envelope["resourceId"].lower(),
        "Id": properties.get("id", ""),
        "RequestUri": properties["requestUri"],
        "HttpStatusCode": properties["httpStatusCode"],
        "Identity": json.dumps(identity) if identity_as_text else identity,
        "IsRbacAuthorized": str(properties.get("isRbacAuthorized")).lower(),
        "IsAccessPolicyMatch": properties.get("isAccessPolicyMatch"),
        "Tlsversion": properties.get("tlsVersion", ""),
        "SubnetId": properties.get("subnetId", ""),
        "KeyProperties": json.dumps(properties.get("keyProperties", {})),
    }


def as_managed_hsm(envelope: Record) -> Record:
    """The record as Managed HSM writes it: status and URI at the top, the identity a JSON text."""
    properties = dict(envelope["properties"])
    flat = {name: properties.pop(name) for name in ("httpStatusCode", "requestUri", "subnetId") if name in properties}
    claims = dict(envelope["identity"].get("claim", {}))
    oid, upn = claims.pop("oid", None), claims.pop("upn", None)
    if oid is not None:
        claims["http_schemas_microsoft_com_identity"] = {"claims": {"objectidentifier": oid}}
    if upn is not None:
        claims["http_schemas_xmlsoap_org_ws_2005_05_identity"] = {"claims": {"upn": upn}}
    return {
        **envelope,
        **flat,
        "durationMs": 12,
        "identity": json.dumps({"claim": claims} if claims else {}),
        "properties": properties,
    }
