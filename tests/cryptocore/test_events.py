import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cryptocore.clock import rfc3339
from cryptocore.errors import EventInvalid
from cryptocore.events import (
    MAX_LINE,
    AuditEvent,
    ChainClose,
    ChainOpen,
    Durability,
    Head,
    Heartbeat,
    KekRef,
    KeyRef,
    Line,
    Operation,
    Outcome,
    OwnerRef,
    Phase,
    Reason,
    Tally,
    VaultAttempt,
    decode_line,
    decode_lines,
    encode_line,
    json_schema,
    kek_key_id,
)
from cryptocore.keys import KeyState
from cryptocore.partitions import MAX_PARTITIONS

ID = "6a1f9c52-8e0b-4f0e-9a51-3c2d7e4b1a90"
OTHER_ID = "0d7e6b31-25c4-4a8f-8a6e-51f0c2b9d3e7"
TIME = "2026-11-16T02:41:07.123456Z"
KEY_ID = "3f" * 16
SINGLE: dict[str, Any] = {
    "v": 1,
    "type": "key",
    "id": ID,
    "phase": "single",
    "operation": "decrypt",
    "outcome": "succeeded",
    "occurred_at": TIME,
    "service": "billing",
    "key": {"id": KEY_ID, "version": 3, "revision": 7, "kind": "dek", "state": "active"},
    "owner": {"tenant_id": "t-88", "integration_id": "crm"},
    "actor": "user:4711",
    "purpose": "crm-sync",
}
KEK = {"vault": "kv-prod", "name": "tokens", "version": "0c9a"}
INTENT = {**SINGLE, "phase": "intent", "operation": "unwrap", "kek": KEK, "call_ids": [OTHER_ID]}
del INTENT["outcome"]
ATTEMPT = {"call_id": OTHER_ID, "request_id": "req-1", "http_status": 200, "started_at": TIME, "ended_at": TIME}
OUTCOME = {
    **SINGLE,
    "phase": "outcome",
    "operation": "unwrap",
    "kek": KEK,
    "intent_id": OTHER_ID,
    "vault_attempts": [ATTEMPT],
}
SUMMARY = {
    **SINGLE,
    "operation": "summary",
    "outcome": "failed",
    "reason": "rate_limited",
    "counts": [{"operation": "decrypt", "outcome": "failed", "reason": "bad_tag", "count": 412}],
}
HEARTBEAT: dict[str, Any] = {
    "v": 1,
    "type": "heartbeat",
    "id": ID,
    "at": TIME,
    "service": "billing",
    "heads": [{"generation": 0, "partition": 3, "sequence": 12, "digest": "ab" * 32}],
    "tallies": [{"operation": "decrypt", "outcome": "succeeded", "count": 9}],
}
OPEN = {"v": 1, "type": "chain.open", "id": ID, "at": TIME, "service": "billing", "durability": "volume"}

validator = Draft202012Validator(json_schema())


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: item for name, item in document.items() if name not in names}


GOOD = {
    "a decrypt": SINGLE,
    "an internal owner": {**SINGLE, "owner": {"secret_name": "smtp"}},
    "an intent": INTENT,
    "its outcome": OUTCOME,
    "an outcome nobody answered": {
        **OUTCOME,
        "outcome": "failed",
        "reason": "vault_unreachable",
        "vault_attempts": [{"call_id": OTHER_ID, "started_at": TIME}],
    },
    "an unknown outcome": without({**OUTCOME, "outcome": "unknown", "reason": "crashed"}, "vault_attempts"),
    "an unknown key": without(
        {**SINGLE, "outcome": "denied", "reason": "unknown_key", "claimed_key_id": KEY_ID}, "key"
    ),
    "a use of a token": {**SINGLE, "operation": "token.use", "token_id": "8f3c/access"},
    "a revoke with a note": {
        **SINGLE,
        "operation": "revoke",
        "reason": "compromise_suspected",
        "note": "Laptop gestohlen, “Ticket 12”",
    },
    "a token store": without({**SINGLE, "operation": "token.store"}, "key"),
    "a summary": without(SUMMARY, "key"),
    "a re-encryption under a grant": {**SINGLE, "operation": "reencrypt", "recovery": True},
    "a use in an outage": {**SINGLE, "outage_grace": True, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"},
    "a host": {**SINGLE, "host": "billing-7f9c4-x2", "address": "fd00::17"},
    "an open": OPEN,
    "an adopter's open": {**OPEN, "continues": "5b" * 16},
    "a heartbeat": HEARTBEAT,
    "a first heartbeat": {**HEARTBEAT, "heads": [], "tallies": []},
    "a close": {**HEARTBEAT, "type": "chain.close", "oldest_unsent_at": TIME},
}

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no version": (without(SINGLE, "v"), "v"),
    "version 2": ({**SINGLE, "v": 2}, "v"),
    "version true": ({**SINGLE, "v": True}, "v"),
    "no type": (without(SINGLE, "type"), "type"),
    "another type": ({**SINGLE, "type": "chain.fork"}, "type"),
    "an unknown field": ({**SINGLE, "plaintext": "x"}, "plaintext"),
    "an unknown field inside": ({**SINGLE, "key": {"id": KEY_ID, "dek": "x"}}, "key.dek"),
    "null": ({**SINGLE, "reason": None}, "reason"),
    "a float": ({**SINGLE, "key": {"id": KEY_ID, "version": 1.5}}, "key.version"),
    "an empty list": ({**SINGLE, "call_ids": []}, "call_ids"),
    "false": ({**SINGLE, "recovery": False}, "recovery"),
    "an id in upper case": ({**SINGLE, "id": ID.upper()}, "id"),
    "an id with a newline": ({**SINGLE, "id": ID + "\n"}, "id"),
    "five digits": ({**SINGLE, "occurred_at": "2026-11-16T02:41:07.12345Z"}, "occurred_at"),
    "an offset": ({**SINGLE, "occurred_at": "2026-11-16T02:41:07.123456+00:00"}, "occurred_at"),
    "a leap second": ({**SINGLE, "occurred_at": "2026-12-31T23:59:60.000000Z"}, "occurred_at"),
    "hour 24": ({**SINGLE, "occurred_at": "2026-12-31T24:00:00.000000Z"}, "occurred_at"),
    "a week date": ({**SINGLE, "occurred_at": "2026-W47-1T02:41:07.123456Z"}, "occurred_at"),
    "a purpose in upper case": ({**SINGLE, "purpose": "CRM"}, "purpose"),
    "a purpose too long": ({**SINGLE, "purpose": "p" * 65}, "purpose"),
    "an actor without kind": ({**SINGLE, "actor": "4711"}, "actor"),
    "an actor with a blank": ({**SINGLE, "actor": "user:Jane Doe"}, "actor"),
    "no actor": (without(SINGLE, "actor"), "actor"),
    "a service with a slash": ({**SINGLE, "service": "billing/eu"}, "service"),
    "a short key id": ({**SINGLE, "key": {"id": "3f"}}, "key.id"),
    "version 0": ({**SINGLE, "key": {"id": KEY_ID, "version": 0}}, "key.version"),
    "a revision beyond 2^53": ({**SINGLE, "key": {"id": KEY_ID, "revision": 2**53}}, "key.revision"),
    "a state of its own": ({**SINGLE, "key": {"id": KEY_ID, "state": "retired"}}, "key.state"),
    "no key": (without(SINGLE, "key"), "key"),
    "no owner": (without(SINGLE, "owner"), "owner"),
    "half an owner": ({**SINGLE, "owner": {"tenant_id": "t-88"}}, "owner"),
    "two owners": (
        {**SINGLE, "owner": {"tenant_id": "t", "integration_id": "i", "secret_name": "s"}},
        "owner",
    ),
    "an owner with a blank": ({**SINGLE, "owner": {"secret_name": "a b"}}, "owner.secret_name"),
    "an owner outside ASCII": ({**SINGLE, "owner": {"secret_name": "schlüssel"}}, "owner.secret_name"),
    "an intent with an outcome": ({**INTENT, "outcome": "succeeded"}, "outcome"),
    "a single without outcome": (without(SINGLE, "outcome"), "outcome"),
    "a single with an intent_id": ({**SINGLE, "intent_id": OTHER_ID}, "intent_id"),
    "an outcome without intent_id": (without(OUTCOME, "intent_id"), "intent_id"),
    "an unknown single": ({**SINGLE, "outcome": "unknown"}, "outcome"),
    "a failure without reason": ({**SINGLE, "outcome": "failed"}, "reason"),
    "a denial with a motive": ({**SINGLE, "outcome": "denied", "reason": "operator"}, "reason"),
    "a success with a cause": ({**SINGLE, "reason": "bad_tag"}, "reason"),
    "a decrypt with a motive": ({**SINGLE, "reason": "operator"}, "reason"),
    "exception text as reason": ({**SINGLE, "outcome": "failed", "reason": "KeyError('x')"}, "reason"),
    "an unwrap without kek": (without(INTENT, "kek"), "kek"),
    "a kek in upper case": ({**INTENT, "kek": {**KEK, "vault": "KV-prod"}}, "kek.vault"),
    "an unwrap intent without call ids": (without(INTENT, "call_ids"), "call_ids"),
    "the same call id twice": ({**INTENT, "call_ids": [OTHER_ID, OTHER_ID]}, "call_ids"),
    "seventeen call ids": ({**INTENT, "call_ids": [str(UUID(int=n)) for n in range(17)]}, "call_ids"),
    "call ids on a decrypt": ({**SINGLE, "call_ids": [OTHER_ID]}, "call_ids"),
    "a success without attempts": (without(OUTCOME, "vault_attempts"), "vault_attempts"),
    "attempts on an intent": ({**INTENT, "vault_attempts": [ATTEMPT]}, "vault_attempts"),
    "an attempt with status 99": (
        {**OUTCOME, "vault_attempts": [{**ATTEMPT, "http_status": 99}]},
        "vault_attempts[0].http_status",
    ),
    "an attempt without start": (
        {**OUTCOME, "vault_attempts": [without(ATTEMPT, "started_at")]},
        "vault_attempts[0].started_at",
    ),
    "a claimed id beside a key": ({**SINGLE, "claimed_key_id": KEY_ID}, "claimed_key_id"),
    "a note on a decrypt": ({**SINGLE, "note": "hello"}, "note"),
    "a note by a service": ({**SINGLE, "operation": "revoke", "actor": "service:x", "note": "hello"}, "note"),
    "a note with a newline": ({**SINGLE, "operation": "revoke", "note": "a\nb"}, "note"),
    "a token id on a decrypt": ({**SINGLE, "token_id": "access"}, "token_id"),
    "a token id with a blank": ({**SINGLE, "operation": "token.use", "token_id": "a b"}, "token_id"),
    "a note too long": ({**SINGLE, "operation": "revoke", "note": "n" * 513}, "note"),
    "recovery on a decrypt": ({**SINGLE, "recovery": True}, "recovery"),
    "an outage on a revoke": ({**SINGLE, "operation": "revoke", "outage_grace": True}, "outage_grace"),
    "a summary without counts": (without(SUMMARY, "counts"), "counts"),
    "a summary of successes": (
        {**SUMMARY, "counts": [{"operation": "decrypt", "outcome": "succeeded", "reason": "bad_tag", "count": 1}]},
        "counts[0].outcome",
    ),
    "counts on a decrypt": ({**SINGLE, "counts": SUMMARY["counts"]}, "counts"),
    "an address with a port": ({**SINGLE, "address": "10.0.0.1 :80"}, "address"),
    "a trace id with a blank": ({**SINGLE, "trace_id": "a b"}, "trace_id"),
    "a durability of its own": ({**OPEN, "durability": "memory"}, "durability"),
    "an open without service": (without(OPEN, "service"), "service"),
    "continues too short": ({**OPEN, "continues": "5b"}, "continues"),
    "a heartbeat without heads": (without(HEARTBEAT, "heads"), "heads"),
    "a head with partition 65536": (
        {**HEARTBEAT, "heads": [{**HEARTBEAT["heads"][0], "partition": 65536}]},
        "heads[0].partition",
    ),
    "a head with a short digest": (
        {**HEARTBEAT, "heads": [{**HEARTBEAT["heads"][0], "digest": "ab"}]},
        "heads[0].digest",
    ),
    "a heartbeat that never opened": ({**HEARTBEAT, "durability": "volume"}, "durability"),
}

BEYOND_A_SCHEMA = {
    "30 February": ({**SINGLE, "occurred_at": "2026-02-30T02:41:07.123456Z"}, "occurred_at"),
    "29 February of a common year": ({**SINGLE, "occurred_at": "2027-02-29T02:41:07.123456Z"}, "occurred_at"),
    "a chain with two heads": (
        {**HEARTBEAT, "heads": [HEARTBEAT["heads"][0], {**HEARTBEAT["heads"][0], "sequence": 13}]},
        "heads",
    ),
    "two counts of one thing": (
        {**SUMMARY, "counts": [*SUMMARY["counts"], {**SUMMARY["counts"][0], "count": 1}]},
        "counts",
    ),
    "two attempts with one call id": (
        {**OUTCOME, "vault_attempts": [ATTEMPT, {**ATTEMPT, "http_status": 500}]},
        "vault_attempts",
    ),
}


@pytest.mark.parametrize("document", GOOD.values(), ids=GOOD)
def test_a_good_line_is_read_whatever_the_order_and_the_blanks(document: dict[str, Any]) -> None:
    backwards = dict(reversed(document.items()))

    line = decode_line(compact(document))

    assert decode_line(compact(backwards)) == line
    assert decode_line(json.dumps(document, indent=1).encode()) == line
    assert json.loads(encode_line(line)) == document
    validator.validate(document)


@pytest.mark.parametrize(("document", "field"), (BAD | BEYOND_A_SCHEMA).values(), ids=BAD | BEYOND_A_SCHEMA)
def test_a_bad_line_is_refused_and_its_field_named(document: dict[str, Any], field: str) -> None:
    with pytest.raises(EventInvalid) as caught:
        decode_line(compact(document))

    assert caught.value.field == field


@pytest.mark.parametrize("document", [document for document, _ in BAD.values()], ids=list(BAD))
def test_the_schema_refuses_what_the_decoder_refuses(document: dict[str, Any]) -> None:
    assert not validator.is_valid(document)


def test_the_key_id_of_a_kek_is_of_its_names_whatever_their_case() -> None:
    assert kek_key_id("kv-prod", "tokens") == kek_key_id("KV-Prod", "Tokens") == "41150fc3d67f1834fab26459cef987d7"
    assert kek_key_id("kv-prod", "other") != kek_key_id("kv-prod", "tokens")


def test_a_bad_line_in_a_batch_is_named_by_its_number() -> None:
    value = compact(SINGLE) + b"\n" + compact(without(SINGLE, "actor")) + b"\n"

    with pytest.raises(EventInvalid, match=r"^line 2: actor: missing$"):
        decode_lines(value)


@pytest.mark.parametrize(
    ("written", "instead", "field"),
    [
        (b'"phase":"single"', b'"phase":"single","phase":"single"', "phase"),
        (b'"version":3', b'"version":3,"version":3', "version"),
        (b'"v":1', b'"version":3', "version"),
        (b'"revision":7', b'"revision":null', "revision"),
        (b'"revision":7', b'"revision":7.0', "key.revision"),
        (b'"revision":7', b'"revision":7e0', "key.revision"),
        (b'"revision":7', b'"revision":-0', "key.revision"),
        (b'"purpose":"crm-sync"', b'"purpose":"crm-sync","purpos\\u0065":"crm-sync"', "purpose"),
        (b'"key":{', b'"key":null,"key":{', "key"),
        (b'"v":1,', b'"v":1,"v":1,', "v"),
        (b'"v":1,"type":"key",', b'"type":"key",', "v"),
        (b'"v":1,"type":"key",', b'"type":"key","key":null,', "key"),
    ],
)
def test_what_only_the_bytes_show_is_found_in_a_line_and_in_a_batch(written: bytes, instead: bytes, field: str) -> None:
    good = compact(SINGLE)
    bad = good.replace(written, instead)

    for read in (decode_line, lambda raw: decode_lines(good + b"\n" + raw + b"\n" + good + b"\n")):
        with pytest.raises(EventInvalid) as caught:
            read(bad)
        assert caught.value.field.removeprefix("line 2: ") == field


def test_a_line_without_v_beside_a_line_with_two_is_found() -> None:
    good = compact(SINGLE)
    value = good.replace(b'"v":1,', b"") + b"\n" + good.replace(b'"v":1,', b'"v":1,"v":1,') + b"\n"

    with pytest.raises(EventInvalid, match=r"^line 1: v: missing$"):
        decode_lines(value)


@pytest.mark.parametrize(
    "value",
    [
        compact(SINGLE),
        compact(SINGLE) + b"\n\n",
        b"\n",
        json.dumps(SINGLE, indent=0).encode() + b"\n",
        compact(SINGLE) + compact(SINGLE) + b"\n",
        b"\xef\xbb\xbf" + compact(SINGLE) + b"\n",
        compact(SINGLE).replace(b"t-88", b"t-\xff8") + b"\n",
        compact(SINGLE).replace(b"t-88", b"t-\\ud800") + b"\n",
        b"[]\n",
        b"[" * 5000 + b"\n",
    ],
)
def test_a_value_that_is_not_lines_of_json_is_refused(value: bytes) -> None:
    with pytest.raises(EventInvalid):
        decode_lines(value)


def test_lines_come_back_with_their_bytes_as_received() -> None:
    raws = [compact(SINGLE), json.dumps(OPEN).encode(), compact(HEARTBEAT)]

    lines, raw_lines = decode_lines(b"".join(raw + b"\n" for raw in raws))

    assert raw_lines == raws
    assert [type(line) for line in lines] == [AuditEvent, ChainOpen, Heartbeat]


def test_a_line_may_have_16_kib_and_no_byte_more() -> None:
    note = {**SINGLE, "operation": "revoke", "note": "n"}
    full = compact(note)
    full = full[:-1] + b" " * (MAX_LINE - len(full)) + b"}"
    longer = full[:-1] + b" }"

    assert isinstance(decode_line(full), AuditEvent)
    for value in (longer, compact(SINGLE) + b"\n" + longer):
        with pytest.raises(EventInvalid, match="longer than 16384 bytes"):
            decode_lines(value + b"\n")


def test_a_refusal_repeats_no_value() -> None:
    secret = "hunter2-hunter2"
    documents = [
        {**SINGLE, "operation": secret},
        {**SINGLE, "purpose": secret.upper()},
        {**SINGLE, "actor": secret},
        {**SINGLE, "key": {"id": secret}},
        {**SINGLE, "key": secret},
        {**SINGLE, "type": secret},
        {**SINGLE, "reason": secret},
        {**SINGLE, f"{secret}`'": secret},
        {**SINGLE, "owner": {"secret_name": f"{secret} {secret}"}},
    ]

    for document in documents:
        with pytest.raises(EventInvalid) as caught:
            decode_line(compact(document))
        assert secret not in str(caught.value).lower()
        assert caught.value.__cause__ is None


def test_what_a_receiver_would_refuse_is_not_written() -> None:
    with pytest.raises(EventInvalid, match=r"^key\.version: "):
        encode_line(msgspec.structs.replace(decode_event(SINGLE), key=KeyRef(id=KEY_ID, version=0)))
    with pytest.raises(EventInvalid, match=r"^purpose: "):
        msgspec.structs.replace(decode_event(SINGLE), purpose="Kundenabgleich!")


def test_fields_are_written_in_the_order_of_the_format() -> None:
    line = decode_event({**SINGLE, "host": "h", "address": "10.0.0.1"})

    assert encode_line(line) == (
        b'{"v":1,"type":"key","id":"6a1f9c52-8e0b-4f0e-9a51-3c2d7e4b1a90","phase":"single","operation":"decrypt",'
        b'"outcome":"succeeded","occurred_at":"2026-11-16T02:41:07.123456Z","service":"billing","key":{"id":"'
        + KEY_ID.encode()
        + b'","version":3,"revision":7,"kind":"dek","state":"active"},"owner":{"tenant_id":"t-88",'
        b'"integration_id":"crm"},"actor":"user:4711","purpose":"crm-sync","host":"h","address":"10.0.0.1"}'
    )


def test_a_shape_once_judged_good_does_not_let_another_through() -> None:
    decode_line(compact(SINGLE))

    for wrong in ({"recovery": True}, {"claimed_key_id": KEY_ID}, {"note": "x"}, {"intent_id": OTHER_ID}):
        with pytest.raises(EventInvalid):
            decode_line(compact({**SINGLE, **wrong}))


def decode_event(document: dict[str, Any]) -> AuditEvent:
    line = decode_line(compact(document))
    assert isinstance(line, AuditEvent)
    return line


@dataclass(frozen=True)
class Words:
    """Strategies for the texts of a line."""

    visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
    uuid = st.uuids().map(str)
    time = st.integers(0, 4_102_444_800_000_000).map(rfc3339)
    hex16 = st.binary(min_size=16, max_size=16).map(bytes.hex)
    name = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


def events() -> st.SearchStrategy[AuditEvent]:
    owner = st.one_of(
        st.builds(OwnerRef, tenant_id=Words.visible, integration_id=Words.visible),
        st.builds(OwnerRef, secret_name=Words.visible),
    )
    key = st.builds(
        KeyRef,
        id=Words.hex16,
        version=st.none() | st.integers(1, 2**32 - 1),
        revision=st.none() | st.integers(1, 2**53 - 1),
        kind=st.sampled_from([None, "dek", "kek"]),
        state=st.none() | st.sampled_from(KeyState),
    )
    attempt = st.builds(
        VaultAttempt,
        call_id=Words.uuid,
        request_id=st.none() | Words.visible,
        http_status=st.none() | st.integers(100, 599),
        started_at=Words.time,
        ended_at=st.none() | Words.time,
    )
    shared: dict[str, st.SearchStrategy[Any]] = {
        "id": Words.uuid,
        "occurred_at": Words.time,
        "service": Words.name,
        "owner": owner,
        "key": key,
        "actor": st.builds("{}:{}".format, st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True), Words.visible),
        "purpose": Words.name,
        "trace_id": st.none() | st.from_regex(r"[0-9A-Za-z._-]{1,64}", fullmatch=True),
    }
    return st.one_of(
        st.builds(
            AuditEvent,
            **shared,
            phase=st.just(Phase.SINGLE),
            operation=st.sampled_from([Operation.ENCRYPT, Operation.REENCRYPT]),
            outcome=st.just(Outcome.SUCCEEDED),
            outage_grace=st.booleans(),
        ),
        st.builds(
            AuditEvent,
            **shared | {"actor": Words.visible.map("user:{}".format)},
            phase=st.just(Phase.SINGLE),
            operation=st.just(Operation.REVOKE),
            outcome=st.just(Outcome.SUCCEEDED),
            reason=st.just(Reason.OPERATOR),
            note=st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=512),
        ),
        st.builds(
            AuditEvent,
            **shared,
            phase=st.just(Phase.OUTCOME),
            intent_id=Words.uuid,
            operation=st.just(Operation.WRAP),
            outcome=st.just(Outcome.SUCCEEDED),
            kek=st.just(KekRef(vault="kv", name="k", version="1")),
            vault_attempts=st.lists(attempt, min_size=1, max_size=4, unique_by=lambda made: made.call_id).map(tuple),
        ),
    )


def control_lines() -> st.SearchStrategy[Line]:
    shared = {"id": Words.uuid, "at": Words.time, "service": Words.name}
    heads = st.lists(
        st.builds(
            Head,
            generation=st.integers(0, 2),
            partition=st.integers(0, 65535),
            sequence=st.integers(0, 2**53 - 1),
            digest=st.binary(min_size=32, max_size=32).map(bytes.hex),
        ),
        max_size=5,
        unique_by=lambda head: (head.generation, head.partition),
    ).map(tuple)
    tallies = st.dictionaries(
        st.tuples(st.sampled_from(Operation), st.sampled_from(Outcome)), st.integers(1, 2**53 - 1), max_size=5
    ).map(
        lambda counts: tuple(
            Tally(operation=operation, outcome=outcome, count=count) for (operation, outcome), count in counts.items()
        )
    )
    return st.one_of(
        st.builds(ChainOpen, **shared, durability=st.sampled_from(Durability), continues=st.none() | Words.hex16),
        *(
            st.builds(kind, **shared, heads=heads, tallies=tallies, oldest_unsent_at=st.none() | Words.time)
            for kind in (Heartbeat, ChainClose)
        ),
    )


@given(st.lists(st.one_of(events(), control_lines()), min_size=1, max_size=5))
def test_lines_written_are_read_back_the_same_and_fit_the_schema(lines: list[Line]) -> None:
    raws = [encode_line(line) for line in lines]

    read, raw_lines = decode_lines(b"".join(raw + b"\n" for raw in raws))

    assert read == lines
    assert raw_lines == raws
    for raw in raws:
        validator.validate(json.loads(raw))


@given(events(), st.data())
def test_a_repeated_member_is_always_found(event: AuditEvent, data: st.DataObject) -> None:
    raw = encode_line(event)
    members = json.loads(raw)
    name = data.draw(st.sampled_from(sorted(members)))
    twice = raw[:-1] + b"," + compact({name: members[name]})[1:]

    with pytest.raises(EventInvalid, match="repeated"):
        decode_line(twice)


def test_a_heartbeat_of_the_most_partitions_fits_into_a_line_whatever_its_numbers() -> None:
    heads = tuple(
        Head(generation=65_535, partition=65_535 - number, sequence=2**53 - 1, digest="f" * 64)
        for number in range(MAX_PARTITIONS)
    )
    tallies = tuple(
        Tally(operation=operation, outcome=outcome, count=2**53 - 1) for operation in Operation for outcome in Outcome
    )
    heartbeat = Heartbeat(
        id="01939f00-0000-7000-8000-000000000001",
        at="2026-11-16T02:41:07.123456Z",
        service="s" * 64,
        heads=heads,
        tallies=tallies,
        oldest_unsent_at="2026-11-16T02:41:07.123456Z",
    )

    assert decode_line(encode_line(heartbeat)) == heartbeat
