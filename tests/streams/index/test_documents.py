import dataclasses
import json
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.model import (
    AccessClass,
    AccessOutcome,
    KekUse,
    KekUseStatus,
    KeyChange,
    Principal,
    PrincipalKind,
    Strength,
    VaultAccess,
)
from cryptocore.batch import Seal
from cryptocore.clock import parse_rfc3339, rfc3339
from cryptocore.events import (
    AuditEvent,
    ChainOpen,
    Durability,
    Head,
    Heartbeat,
    KekRef,
    KeyRef,
    Operation,
    Outcome,
    OwnerRef,
    Phase,
    Reason,
    Tally,
    VaultAttempt,
    encode_line,
)
from cryptocore.keys import KeyState
from streams.index import documents
from streams.index.documents import DAY_MS, OUT_OF_RANGE
from streams.index.mappings import unmapped
from streams.index.port import DocKind, Document
from streams.messages import Message

APPEND_MS = parse_rfc3339("2026-11-16T02:41:08.000000Z") // 1000
SEAL = Seal(
    deployment=bytes(16),
    instance=bytes(range(16)),
    generation=1,
    partition=2,
    sequence=3,
    count=1,
    sealed_at_ms=APPEND_MS - 200,
    previous=b"p" * 32,
    value_sha256=b"v" * 32,
    signer_id=b"s" * 16,
)


def fragment(append_ms: int = APPEND_MS, *, suspect: bool = False) -> documents.BatchFragment:
    return documents.batch_fragment(SEAL, SEAL.digest, append_ms, suspect)


def decrypt(**changes: Any) -> AuditEvent:
    fields: dict[str, Any] = {
        "id": "7b0f8f5e-3f1c-4f0a-9d53-9b1d5a6d1c11",
        "phase": Phase.SINGLE,
        "operation": Operation.DECRYPT,
        "outcome": Outcome.DENIED,
        "reason": Reason.KEY_STATE,
        "occurred_at": "2026-11-16T02:41:07.123456Z",
        "service": "billing",
        "key": KeyRef(id="ab" * 16, version=3, revision=7, kind="dek", state=KeyState.REVOKED),
        "owner": OwnerRef(tenant_id="t-88", integration_id="crm"),
        "actor": "user:4711",
        "purpose": "crm-sync",
        "host": "node-7",
        "address": "10.1.2.3",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    return AuditEvent(**fields | changes)


def vault_access(**changes: Any) -> VaultAccess:
    fields: dict[str, Any] = {
        "time": "2026-11-16T02:41:07.1234567Z",
        "operation": "KeyUnwrap",
        "access_class": AccessClass.USE,
        "outcome": AccessOutcome.SUCCEEDED,
        "denial": None,
        "http_status": 200,
        "vault": "kv-prod",
        "object_kind": "key",
        "object_name": "tenant-kek",
        "object_version": "c1",
        "principal": Principal("8c1f", PrincipalKind.WORKLOAD, app_id="a1"),
        "address": "203.0.113.7",
        "network": None,
        "tls_version": "TLS1_3",
        "correlation_id": "c-1",
        "shape": "diagnostic",
        "key_change": KeyChange(enabled=False, operations=("wrapKey",)),
        "access_id": "f0" * 32,
        "resource_id": "/subscriptions/s/vaults/kv-prod",
        "time_us": parse_rfc3339("2026-11-16T02:41:07.123456Z"),
    }
    return VaultAccess(**fields | changes)


def kek_use(**changes: Any) -> KekUse:
    fields: dict[str, Any] = {
        "id": "f0" * 32,
        "status": KekUseStatus.MATCHED,
        "strength": Strength.EXACT,
        "reason": None,
        "final": True,
        "vault": "kv-prod",
        "name": "tenant-kek",
        "version": "c1",
        "operation": "unwrap",
        "outcome": "succeeded",
        "time_us": parse_rfc3339("2026-11-16T02:41:07.123456Z"),
        "principal_id": "8c1f",
    }
    return KekUse(**fields | changes)


ALERT = {
    "alert_id": "a" * 64,
    "number": "KT-1042",
    "rule_id": "unaccounted_kek_access",
    "title": "KEK used outside our services",
    "severity": "critical",
    "status": "open",
    "count": 14,
    "first_at": "2026-11-16T02:41:07.123456Z",
    "last_at": "2026-11-16T02:44:00.000000Z",
    "opened_at": "2026-11-16T02:52:31.000000Z",
    "updated_at": "2026-11-16T02:52:31.000000Z",
    "tenant": "",
    "key": "kv-prod/tenant-kek",
    "principal": "8c1f",
    "who": "ci-deploy",
    "summary": "14 unwraps succeeded",
    "sure": "high",
    "first_step": "disable the identity",
    "runbook": "docs/runbooks/unaccounted_kek_access.md",
    "facts": {"address": "203.0.113.7"},
    "evidence": [{"kind": "vault-access", "id": "f0" * 32, "at_ms": 1}],
    "text": "CRITICAL KEK used outside our services",
    "delivered": [{"channel": "webhook", "kind": "opened", "at": "2026-11-16T02:52:32.000000Z"}],
}


def all_kinds() -> list[Document]:
    event = decrypt()
    wrap = decrypt(
        id=str(uuid.UUID(int=2)),
        phase=Phase.OUTCOME,
        operation=Operation.UNWRAP,
        outcome=Outcome.SUCCEEDED,
        reason=None,
        intent_id=str(uuid.UUID(int=3)),
        kek=KekRef(vault="kv-prod", name="tenant-kek", version="c1"),
        vault_attempts=(VaultAttempt(call_id=str(uuid.UUID(int=4)), started_at="2026-11-16T02:41:07.000000Z"),),
    )
    control = Heartbeat(
        id=str(uuid.UUID(int=5)),
        at="2026-11-16T02:41:07.123456Z",
        service="billing",
        heads=(Head(generation=1, partition=2, sequence=3, digest="d" * 64),),
        tallies=(Tally(operation=Operation.DECRYPT, outcome=Outcome.SUCCEEDED, count=7),),
    )
    message = Message("key-events", 1, 7, APPEND_MS, None, b"nonsense")
    return [
        documents.event_document(event, encode_line(event), batch=fragment()),
        documents.event_document(wrap, encode_line(wrap), batch=fragment()),
        documents.control_document(control, encode_line(control), batch=fragment()),
        documents.vault_access_document(vault_access(), {"category": "AuditEvent"}, APPEND_MS),
        documents.kek_use_document(kek_use(), 2, b"\x05f0"),
        documents.alert_document(ALERT, 3, b"\x08f0"),
        documents.rejected_document(message, "seal_invalid", "kt-seal", "missing"),
    ]


def test_an_event_can_be_found_by_who_what_and_which_key_and_keeps_its_line_as_received() -> None:
    raw = encode_line(decrypt())

    document = documents.event_document(decrypt(), raw, batch=fragment(suspect=True))

    assert document.kind is DocKind.EVENT
    assert document.id == decrypt().id
    assert document.day_ms == parse_rfc3339("2026-11-16T00:00:00.000000Z") // 1000
    assert document.version == 0
    assert raw in document.body
    assert json.loads(document.body) == {
        "@timestamp": "2026-11-16T02:41:07.123456Z",
        "event": {"id": decrypt().id, "action": "decrypt", "outcome": "failure"},
        "service": {"name": "billing"},
        "user": {"id": "user:4711"},
        "host": {"name": "node-7"},
        "source": {"address": "10.1.2.3"},
        "trace": {"id": "4bf92f3577b34da6a3ce929d0e0e4736"},
        "keytrail": {
            "phase": "single",
            "purpose": "crm-sync",
            "outcome": "denied",
            "reason": "key_state",
            "tenant_id": "t-88",
            "integration_id": "crm",
            "key": {"id": "ab" * 16, "version": 3, "revision": 7, "kind": "dek", "state": "revoked"},
            "appended_at": "2026-11-16T02:41:08.000000Z",
            "sealed_at": "2026-11-16T02:41:07.800000Z",
            "suspect": True,
            "batch": {
                "instance": bytes(range(16)).hex(),
                "generation": 1,
                "partition": 2,
                "sequence": 3,
                "digest": SEAL.digest.hex(),
            },
            "line": json.loads(raw),
        },
    }


@pytest.mark.parametrize(
    ("occurred_at", "believed"),
    [
        ("2026-10-12T02:41:08.000000Z", True),
        ("2026-10-12T02:41:07.999999Z", False),
        ("2026-11-17T02:41:08.000000Z", True),
        ("2026-11-17T02:41:08.000001Z", False),
        ("1970-01-01T00:00:00.000000Z", False),
        ("9999-12-31T23:59:59.999999Z", False),
    ],
)
def test_a_day_is_believed_from_35_days_before_to_one_day_after_the_append_time(
    occurred_at: str,
    *,
    believed: bool,
) -> None:
    event = decrypt(occurred_at=occurred_at)

    document = documents.event_document(event, encode_line(event), batch=fragment())
    body = json.loads(document.body)

    assert (document.day_ms != OUT_OF_RANGE) is believed
    assert body["keytrail"].get("out_of_range", False) is not believed
    assert body["@timestamp"] == (occurred_at if believed else "2026-11-16T02:41:08.000000Z")
    assert body["keytrail"]["line"]["occurred_at"] == occurred_at


def test_a_wild_clock_of_a_sealer_is_no_obstacle() -> None:
    wild = dataclasses.replace(SEAL, sealed_at_ms=2**53 - 1)

    shared = documents.batch_fragment(wild, wild.digest, APPEND_MS, False)

    assert b'"sealed_at":"2026-12-21' in shared.body


def test_all_fields_of_all_kinds_are_in_the_strict_mappings() -> None:
    for document in all_kinds():
        assert unmapped(document.kind, json.loads(document.body)) == []


def test_a_field_without_a_mapping_is_named() -> None:
    assert unmapped(DocKind.EVENT, {"@timestamp": "", "keytrail": {"key": {"colour": 1}, "x": 1}}) == [
        "keytrail.key.colour",
        "keytrail.x",
    ]


def test_a_control_line_names_its_type() -> None:
    opened = ChainOpen(
        id=str(uuid.UUID(int=9)), at="2026-11-16T02:41:07.123456Z", service="billing", durability=Durability.VOLUME
    )

    body = json.loads(documents.control_document(opened, encode_line(opened), batch=fragment()).body)

    assert body["keytrail"]["type"] == "chain.open"
    assert body["keytrail"]["line"]["durability"] == "volume"


def test_a_vault_record_keeps_its_fields_its_seven_digits_and_what_was_received() -> None:
    received = {"time": "2026-11-16T02:41:07.1234567Z", "odd": [None, 1.5]}

    body = json.loads(documents.vault_access_document(vault_access(), received, APPEND_MS).body)

    assert body["@timestamp"] == "2026-11-16T02:41:07.123456Z"
    assert body["time"] == "2026-11-16T02:41:07.1234567Z"
    assert body["class"] == "use"
    assert body["principal"] == {"id": "8c1f", "kind": "workload", "app_id": "a1", "upn": None, "resource": None}
    assert body["original"] == received
    assert "time_us" not in body


def test_a_vault_record_as_raw_bytes_is_spliced_in() -> None:
    raw = b'{ "b" : 1 , "a" : 2 }'

    document = documents.vault_access_document(vault_access(), msgspec.Raw(raw), APPEND_MS)

    assert raw in document.body


def test_a_vault_record_from_another_age_is_shown_when_it_arrived() -> None:
    old = vault_access(time_us=0)

    document = documents.vault_access_document(old, {}, APPEND_MS)

    assert document.day_ms == OUT_OF_RANGE
    assert json.loads(document.body)["@timestamp"] == "2026-11-16T02:41:08.000000Z"


def test_documents_that_change_carry_their_revision_as_version() -> None:
    use = documents.kek_use_document(kek_use(), 4, b"\x05key")
    alert = documents.alert_document(ALERT, 9, b"\x08key")

    assert (use.version, use.state_key, use.day_ms) == (4, b"\x05key", None)
    assert json.loads(use.body)["revision"] == 4
    assert (alert.version, alert.id) == (9, "a" * 64)
    assert json.loads(alert.body)["@timestamp"] == ALERT["first_at"]


def test_a_rejected_message_leaves_its_place_and_its_digest_but_not_its_content() -> None:
    message = Message("key-events", 1, 7, APPEND_MS, None, b"a secret")

    document = documents.rejected_document(message, "seal_invalid", "kt-seal", "missing")

    assert document.id == "key-events/1/7"
    assert b"secret" not in document.body


@given(
    purpose=st.text(min_size=1),
    actor=st.text(min_size=1),
    name=st.text(min_size=1),
    operation=st.text(),
    problem=st.text(),
)
def test_no_text_breaks_out_of_its_field(purpose: str, actor: str, name: str, operation: str, problem: str) -> None:
    made = [
        documents.kek_use_document(kek_use(purpose=purpose, actor=actor, name=name), 1, b""),
        documents.vault_access_document(vault_access(operation=operation, object_name=name), {"x": problem}, APPEND_MS),
        documents.alert_document({**ALERT, "summary": problem, "who": actor}, 1, b""),
        documents.rejected_document(Message("t", 0, 0, APPEND_MS, None, b""), name, purpose, problem),
    ]

    for document in made:
        assert b"\n" not in document.body
        assert unmapped(document.kind, json.loads(document.body)) == []
    assert json.loads(made[0].body)["purpose"] == purpose
    assert json.loads(made[1].body)["operation"] == operation
    assert json.loads(made[2].body)["summary"] == problem
    assert json.loads(made[3].body)["problem"] == problem


@given(st.integers(min_value=0, max_value=40 * DAY_MS * 1000))
def test_the_day_of_an_event_is_the_day_of_its_timestamp(ago_us: int) -> None:
    occurred_at = rfc3339(APPEND_MS * 1000 - ago_us)
    event = decrypt(occurred_at=occurred_at)

    document = documents.event_document(event, encode_line(event), batch=fragment())

    assert document.day_ms is not None
    if document.day_ms != OUT_OF_RANGE:
        assert rfc3339(document.day_ms * 1000)[:10] == occurred_at[:10]
