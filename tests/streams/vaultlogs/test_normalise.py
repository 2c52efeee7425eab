"""The facts about single records, one by one."""

import hashlib
import json
from typing import Any

import pytest

from alerts.model import AccessClass, AccessOutcome, KeyChange, PrincipalKind
from streams.vaultlogs.normalise import Reason, VaultRecordRejected, normalise
from tests.streams.vaultlogs.records import RESOURCE, VERSION, WORKLOAD, Record, as_azkv, as_diagnostics, record

OID_CLAIM = "http://schemas.microsoft.com/identity/claims/objectidentifier"


def rejected(original: Record, resource_id: str | None = None) -> VaultRecordRejected:
    with pytest.raises(VaultRecordRejected) as caught:
        normalise(original, resource_id=resource_id)
    return caught.value


def test_an_unwrap_names_key_version_caller_and_network() -> None:
    access = normalise(record("KeyUnwrap"))

    assert (access.operation, access.access_class, access.outcome) == ("KeyUnwrap", "use", "succeeded")
    assert (access.vault, access.object_kind, access.object_name) == ("kt-prod", "key", "tokens-kek")
    assert access.object_version == VERSION
    assert access.principal.id == WORKLOAD["oid"].lower()
    assert access.principal.kind is PrincipalKind.WORKLOAD
    assert (access.address, access.network, access.tls_version) == ("20.50.1.7", "20.50.1.0/24", "TLS1_3")
    assert access.correlation_id == "49c05377-7187-4f18-8374-0e101bba261d"
    assert access.time_us == 1_794_796_867_123_456
    assert access.time == "2026-11-16T02:41:07.1234567Z"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "succeeded"),
        (202, "succeeded"),
        (401, "denied"),
        (403, "denied"),
        (404, "not_found"),
        (409, "failed"),
        (429, "throttled"),
        (500, "failed"),
    ],
)
def test_the_status_decides_and_result_type_never_does(status: int, outcome: str) -> None:
    original = record("KeyPurge", status)
    assert original["resultType"] == "Success"

    assert normalise(original).outcome == outcome


@pytest.mark.parametrize(
    ("signature", "outcome"), [("Forbidden", "denied"), ("Not Found", "not_found"), ("Accepted", "succeeded")]
)
def test_without_a_status_the_signature_decides(signature: str, outcome: str) -> None:
    original = record() | {"resultSignature": signature}
    del original["properties"]["httpStatusCode"]

    access = normalise(original)

    assert (access.outcome, access.http_status) == (outcome, None)


def test_a_known_operation_without_any_status_is_rejected() -> None:
    original = record() | {"resultSignature": "Success"}
    del original["properties"]["httpStatusCode"]

    assert rejected(original).reason is Reason.STATUS


@pytest.mark.parametrize("status", [True, 99, 600, 1e400, "two hundred", [200], 200.5])
def test_what_is_no_status_code_is_rejected(status: object) -> None:
    assert rejected(record(httpStatusCode=status)).reason is Reason.STATUS


@pytest.mark.parametrize(
    ("properties", "sentence", "denial"),
    [
        ({"isAccessPolicyMatch": False}, "", "access_policy"),
        ({"isRbacAuthorized": False}, "", "rbac"),
        ({"isAddressAuthorized": False, "isRbacAuthorized": True}, "", "firewall"),
        ({}, "Operation unwrapKey is not allowed on a disabled key.", "key_disabled"),
        ({}, "Operation unwrapKey is not permitted on this key.", "key_operation"),
        ({"isAddressAuthorized": False}, "Public network access is disabled and request is not from", "public_network"),
        ({}, "The request is not allowed; use a first party service.", "first_party"),
        ({}, "Something new", "unknown_403"),
    ],
)
def test_a_403_has_kinds(properties: dict[str, Any], sentence: str, denial: str) -> None:
    original = record("KeyUnwrap", 403, **properties) | {"resultDescription": sentence}

    assert normalise(original).denial == denial


def test_a_success_has_no_denial_even_with_a_flag_that_says_no() -> None:
    assert normalise(record(isAccessPolicyMatch=False)).denial is None


def challenge() -> Record:
    return record("Authentication", 401, id=None) | {"identity": {}, "resultSignature": "Unauthorized"}


def test_a_challenge_is_no_access_and_no_failure() -> None:
    access = normalise(challenge())

    assert (access.access_class, access.outcome, access.denial, access.http_status) == ("challenge", None, None, 401)


def test_a_401_of_somebody_or_on_something_is_no_challenge() -> None:
    named = challenge() | {"identity": {"claim": dict(WORKLOAD)}}
    unwrap = record("KeyUnwrap", 401) | {"identity": {}}
    about_a_key = record("Authentication", 401) | {"identity": {}}
    other_status = challenge()
    other_status["properties"]["httpStatusCode"] = 403

    assert normalise(named).outcome is AccessOutcome.DENIED
    assert normalise(about_a_key).outcome is AccessOutcome.DENIED
    assert normalise(unwrap).access_class is AccessClass.USE
    assert normalise(unwrap).denial == "unauthenticated"
    assert normalise(other_status).access_class is AccessClass.ADMIN


@pytest.mark.parametrize(
    ("claims", "ident", "kind"),
    [
        ({"oid": "A", "appid": "b"}, "a", "workload"),
        ({OID_CLAIM: "A", "appid": "b"}, "a", "workload"),
        ({"appid": "B"}, "b", "workload"),
        ({"xms_mirid": "/Subscriptions/X"}, "/subscriptions/x", "workload"),
        ({"xms_az_rid": "/Subscriptions/Y"}, "/subscriptions/y", "workload"),
        ({"oid": "a", "scp": "user_impersonation"}, "a", "user"),
        ({"oid": "a", "upn": "Jane@Example.org"}, "a", "user"),
        ({"upn": "jane@example.org"}, None, "user"),
        ({"oid": "None", "appid": ""}, None, "unknown"),
        ({}, None, "unknown"),
    ],
)
def test_one_actor_in_any_spelling_is_one_principal(claims: dict[str, str], ident: str | None, kind: str) -> None:
    principal = normalise(record() | {"identity": {"claim": claims}}).principal

    assert (principal.id, principal.kind) == (ident, kind)


def test_an_identity_that_cannot_be_read_is_rejected_not_ignored() -> None:
    assert rejected(record() | {"identity": '{"claim": {"oid": '}).reason is Reason.IDENTITY
    assert rejected(record() | {"identity": ["somebody"]}).reason is Reason.IDENTITY


@pytest.mark.parametrize(
    ("logged", "address", "network"),
    [
        ("20.50.1.7", "20.50.1.7", "20.50.1.0/24"),
        ("20.50.1.7:50412", "20.50.1.7", "20.50.1.0/24"),
        ("[2603:1020:201:10::5]:443", "2603:1020:201:10::5", "2603:1020:201::/48"),
        ("2603:1020:201:10::5", "2603:1020:201:10::5", "2603:1020:201::/48"),
        ("::ffff:20.50.1.7", "20.50.1.7", "20.50.1.0/24"),
        ("10.1.2.3", "10.1.2.3", "private"),
        ("100.64.9.9", "100.64.9.9", "private"),
        ("fde4:8dba:82e1::c4", "fde4:8dba:82e1::c4", "private"),
        ("<Redacted>", None, None),
        ("X.X.X.X", None, None),
        ("", None, None),
        ("999.1.1.1:80", None, None),
    ],
)
def test_an_address_is_kept_without_its_port_and_with_its_network(
    logged: str, address: str | None, network: str | None
) -> None:
    access = normalise(record() | {"callerIpAddress": logged})

    assert (access.address, access.network) == (address, network)


def test_private_endpoints_trusted_services_and_subnets_say_more_than_the_address() -> None:
    assert normalise(record(addressAuthorizationType="PrivateEndpoint")).network == "private"
    assert normalise(record(trustedService="Azure Storage")).network == "microsoft"
    assert normalise(record(subnetId="(unknown)")).network == "20.50.1.0/24"
    assert normalise(record(subnetId="/subscriptions/S/subnets/A")).network == "/subscriptions/s/subnets/a"


def key_update(**key: object) -> Record:
    return record("KeyUpdate", keyProperties={"type": "RSA", **key})


def test_a_key_update_says_what_it_asked_for_and_what_it_does_not_say_is_unknown() -> None:
    disabled = normalise(key_update(attributes={"enabled": False, "exp": 1_800_000_000}))
    narrowed = normalise(key_update(operations=["wrapKey"]))
    silent = normalise(key_update(attributes={"hsmPlatform": "0"}))

    assert disabled.key_change == KeyChange(False, "2027-01-15T08:00:00.000000Z", None)
    assert narrowed.key_change == KeyChange(None, None, ("wrapKey",))
    assert silent.key_change is None


def test_a_denied_key_update_still_says_what_was_asked() -> None:
    original = key_update(attributes={"enabled": False})
    original["properties"]["httpStatusCode"] = 403

    access = normalise(original)

    assert (access.outcome, access.key_change) == ("denied", KeyChange(False))


def test_only_a_key_update_changes_a_key() -> None:
    assert normalise(record("KeyGet", keyProperties={"attributes": {"enabled": False}})).key_change is None


@pytest.mark.parametrize(
    ("operation", "access_class"),
    [
        *[(f"Key{verb}", "use") for verb in ("Sign", "Verify", "Wrap", "Unwrap", "Encrypt", "Decrypt")],
        ("SecretGet", "use"),
        *[(name, "read") for name in ("KeyGet", "KeyGetDeleted", "KeyRotationPolicyGet", "VaultGet")],
        *[(name, "read") for name in ("SecretGetDeleted", "CertificateGet", "CertificatePolicyGet")],
        *[(name, "list") for name in ("KeyList", "KeyListVersions", "KeyListDeleted", "VaultList")],
        *[(name, "list") for name in ("SecretListVersions", "CertificateIssuersList")],
        *[(f"Key{verb}", "admin") for verb in ("Create", "Import", "Delete", "Update", "Purge", "Backup", "Restore")],
        *[(f"Key{verb}", "admin") for verb in ("Recover", "Rotate", "RotateIfDue", "RotationPolicySet")],
        *[(f"Vault{verb}", "admin") for verb in ("Put", "Delete", "Patch", "Recover", "Purge")],
        *[(name, "admin") for name in ("SecretSet", "CertificateImport", "BackupCreate")],
        *[(f"{kind}NearExpiryEventGridNotification", "notification") for kind in ("Key", "Secret")],
        ("KeyExpiredEventGridNotification", "notification"),
        ("KeyTeleport", "unknown"),
        ("keyunwrap", "use"),
    ],
)
def test_every_operation_has_a_class(operation: str, access_class: str) -> None:
    assert normalise(record(operation)).access_class == access_class


def test_a_notification_in_the_audit_log_has_no_outcome() -> None:
    access = normalise(record("KeyNearExpiryEventGridNotification") | {"identity": {}})

    assert (access.outcome, access.http_status, access.principal.id) == (None, None, None)


def test_an_unknown_operation_is_kept_with_its_outcome() -> None:
    access = normalise(record("KeyTeleport", 403))

    assert (access.operation, access.outcome, access.object_name) == ("KeyTeleport", "denied", "tokens-kek")


@pytest.mark.parametrize(
    ("time", "kept", "micros"),
    [
        ("2026-11-16T02:41:07.1234567Z", "2026-11-16T02:41:07.1234567Z", 123_456),
        ("2026-11-16T02:41:07.123Z", "2026-11-16T02:41:07.1230000Z", 123_000),
        ("2026-11-16T02:41:07Z", "2026-11-16T02:41:07.0000000Z", 0),
        ("2026-11-16T04:41:07.1234567+02:00", "2026-11-16T02:41:07.1234567Z", 123_456),
    ],
)
def test_times_are_utc_with_seven_digits(time: str, kept: str, micros: int) -> None:
    access = normalise(record() | {"time": time})

    assert (access.time, access.time_us) == (kept, 1_794_796_867_000_000 + micros)


@pytest.mark.parametrize(
    "time",
    [
        None,
        "",
        1_794_796_867,
        "yesterday",
        "2026-11-16T02:41:07",
        "2026-02-30T00:00:00Z",
        "2026-11-16T24:01:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:30:00+01:00",
        "9999-12-31T23:59:59Z",
        "२०२६-11-16T02:41:07Z",
    ],
)
def test_what_is_no_time_is_rejected(time: object) -> None:
    assert rejected(record() | {"time": time}).reason is Reason.TIME


def lp16(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


def test_the_access_id_is_the_one_of_the_format() -> None:
    original = record("KeyUnwrap")
    parts = (
        RESOURCE.lower(),
        "2026-11-16T02:41:07.1234567Z",
        "KeyUnwrap",
        "49C05377-7187-4f18-8374-0e101bba261d",
        "https://kt-prod.vault.azure.net/keys/Tokens-KEK",
        "200",
    )
    expected = hashlib.sha256(b"keytrail/vault-access/v1\x00" + b"".join(map(lp16, parts))).hexdigest()

    assert normalise(original).access_id == expected
    assert normalise(as_diagnostics(original)).access_id == expected
    assert normalise(as_azkv(original)).access_id == expected


@pytest.mark.parametrize(
    "change",
    [
        {"time": "2026-11-16T02:41:07.1234568Z"},
        {"operationName": "KeyWrap"},
        {"correlationId": "another"},
        {"resourceId": RESOURCE.replace("PROD/", "TEST/")},
    ],
)
def test_another_time_operation_correlation_or_resource_is_another_access(change: Record) -> None:
    assert normalise(record() | change).access_id != normalise(record()).access_id


def test_one_correlation_id_with_two_statuses_is_two_accesses() -> None:
    assert normalise(record(status=200)).access_id != normalise(record(status=403)).access_id


def activity(progress: str, **change: Any) -> Record:
    return {
        "time": f"2026-11-16T02:41:0{7 if progress == 'Start' else 8}.1234567Z",
        "resourceId": RESOURCE,
        "operationName": "MICROSOFT.KEYVAULT/VAULTS/WRITE",
        "category": "Administrative",
        "resultType": progress,
        "resultSignature": "Started." if progress == "Start" else "Succeeded.OK",
        "callerIpAddress": "20.50.1.7",
        "correlationId": "c1",
        "identity": {"authorization": {}, "claims": {OID_CLAIM: "AAAA", "appid": "B"}},
        **change,
    }


def test_the_activity_log_tells_a_start_without_outcome_and_an_end_with_one() -> None:
    started, ended = normalise(activity("Start")), normalise(activity("Success"))

    assert (started.access_class, started.outcome) == ("admin", None)
    assert (ended.access_class, ended.outcome, ended.http_status) == ("admin", "succeeded", 200)
    assert started.access_id != ended.access_id
    assert {started.vault, ended.vault} == {"kt-prod"}
    assert started.principal == ended.principal
    assert ended.principal.id == "aaaa"


def test_cutting_the_diagnostic_settings_of_a_vault_is_an_act_on_the_vault() -> None:
    settings = f"{RESOURCE}/PROVIDERS/MICROSOFT.INSIGHTS/DIAGNOSTICSETTINGS/AUDIT"
    name = "MICROSOFT.INSIGHTS/DIAGNOSTICSETTINGS/DELETE"

    access = normalise(activity("Success", resourceId=settings, operationName=name))

    assert (access.vault, access.access_class, access.outcome) == ("kt-prod", "admin", "succeeded")
    assert access.operation == "microsoft.insights/diagnosticsettings/delete"


def test_an_administrative_act_that_was_refused_is_denied() -> None:
    access = normalise(activity("Failure", resultSignature="Failed.Forbidden"))

    assert (access.outcome, access.http_status) == ("denied", 403)


def test_the_activity_log_of_other_resources_and_categories_is_not_ours() -> None:
    machine = "/SUBSCRIPTIONS/X/RESOURCEGROUPS/R/PROVIDERS/MICROSOFT.COMPUTE/VIRTUALMACHINES/V"

    assert rejected(activity("Success", resourceId=machine)).reason is Reason.OTHER_RESOURCE
    assert rejected(activity("Success", category="Policy")).reason is Reason.OTHER_RESOURCE


def test_the_activity_log_is_the_same_from_its_api_and_from_its_table() -> None:
    api = activity("Success") | {
        "operationName": {"value": "Microsoft.KeyVault/vaults/write", "localizedValue": "Update Key Vault"},
        "category": {"value": "Administrative"},
        "status": {"value": "Succeeded"},
        "subStatus": {"value": "OK"},
        "eventDataId": "e1",
    }
    del api["resultType"], api["resultSignature"]
    row = {
        "TimeGenerated": api["time"],
        "OperationNameValue": "MICROSOFT.KEYVAULT/VAULTS/WRITE",
        "CategoryValue": "Administrative",
        "ActivityStatusValue": "Success",
        "ActivitySubstatusValue": "OK",
        "Caller": "aaaa",
        "CallerIpAddress": "20.50.1.7",
        "CorrelationId": "c1",
        "EventDataId": "e1",
        "_ResourceId": RESOURCE.lower(),
    }

    from_api, from_table = normalise(api), normalise(row)

    assert from_api.outcome == from_table.outcome == "succeeded"
    assert from_api.operation == from_table.operation == "microsoft.keyvault/vaults/write"
    assert from_api.principal.id == from_table.principal.id == "aaaa"


def test_event_grid_names_the_object_by_its_parts_where_it_has_no_id() -> None:
    event = {
        "id": "1",
        "topic": RESOURCE,
        "eventType": "Microsoft.KeyVault.KeyNearExpiry",
        "eventTime": "2026-11-16T02:41:07.1234567Z",
        "data": {"VaultName": "kt-prod", "ObjectType": "Key", "ObjectName ": "Tokens-KEK", "Version": f" {VERSION}"},
    }

    access = normalise(event)

    assert (access.access_class, access.outcome, access.http_status) == ("notification", None, None)
    assert (access.object_kind, access.object_name, access.object_version) == ("key", "tokens-kek", VERSION)
    assert rejected(event | {"eventType": "Microsoft.Storage.BlobCreated"}).reason is Reason.OTHER_RESOURCE


def test_what_is_no_vault_record_is_rejected_with_a_reason() -> None:
    metric = {"count": 1, "metricName": "ServiceApiHit", "time": "2026-11-16T02:41:00Z"}
    firewall = as_diagnostics(record()) | {
        "ResourceId": "/SUBSCRIPTIONS/X/PROVIDERS/MICROSOFT.NETWORK/AZUREFIREWALLS/F",
    }
    backups = record() | {"resourceId": RESOURCE.replace("KEYVAULT", "RECOVERYSERVICES")}

    assert rejected({}).reason is Reason.UNKNOWN_SHAPE
    assert rejected(metric).reason is Reason.UNKNOWN_SHAPE
    assert rejected(firewall).reason is Reason.OTHER_RESOURCE
    assert rejected(backups).reason is Reason.OTHER_RESOURCE


def test_half_a_surrogate_pair_and_endless_texts_are_rejected() -> None:
    assert rejected(record() | {"correlationId": "\ud800"}).reason is Reason.TEXT
    assert rejected(record() | {"identity": {"claim": {"upn": "\ud800"}}}).reason is Reason.TEXT
    assert rejected(record() | {"correlationId": "a" * 20_000}).reason is Reason.TOO_LONG


def setting_written(logs: Any, *, as_row: bool = False) -> Record:
    body = json.dumps({"properties": {"workspaceId": "w"} | ({} if logs is None else {"logs": logs})})
    settings = f"{RESOURCE}/PROVIDERS/MICROSOFT.INSIGHTS/DIAGNOSTICSETTINGS/AUDIT"
    name = "MICROSOFT.INSIGHTS/DIAGNOSTICSETTINGS/WRITE"
    if as_row:
        return {
            "TimeGenerated": "2026-11-16T02:41:07.1234567Z",
            "OperationNameValue": name,
            "ActivityStatusValue": "Success",
            "Caller": "aaaa",
            "_ResourceId": settings.lower(),
            "Properties_d": json.dumps({"requestbody": body}),
        }
    return activity("Success", resourceId=settings, operationName=name, properties={"requestbody": body})


@pytest.mark.parametrize("as_row", [False, True])
@pytest.mark.parametrize(
    ("logs", "audit_log"),
    [
        ([{"category": "AuditEvent", "enabled": True}], True),
        ([{"categoryGroup": "allLogs", "enabled": True}], True),
        ([{"categoryGroup": "audit", "enabled": "true"}], True),
        ([{"category": "AuditEvent", "enabled": False}, {"category": "Other", "enabled": True}], False),
        ([{"category": "AuditEvent"}], False),
        ([], False),
        ([1, None, {"category": ["AuditEvent"]}], False),
        ("AuditEvent", None),
        (None, None),
    ],
)
def test_a_written_diagnostic_setting_says_whether_the_audit_log_stays_on(
    logs: Any, audit_log: bool | None, as_row: bool
) -> None:
    assert normalise(setting_written(logs, as_row=as_row)).audit_log is audit_log


def test_a_setting_whose_body_is_missing_cut_or_long_says_nothing_and_is_kept() -> None:
    whole = setting_written([{"category": "AuditEvent", "enabled": False}])
    bodies = [whole["properties"]["requestbody"][:40], "", 5, json.dumps({"properties": [], "pad": "x" * 100_000})]

    found = [normalise(whole | {"properties": {"requestbody": body}}).audit_log for body in bodies]

    assert found == [None] * 4
