from dataclasses import fields, replace
from hashlib import sha256
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptocore.batch import MAX_VALUE, NO_PREVIOUS, SEAL_SIZE, OpenedBatch, Seal, SealedBatch, open_batch, seal_batch
from cryptocore.errors import BatchRejected
from cryptocore.events import (
    AuditEvent,
    ChainOpen,
    Durability,
    KeyRef,
    Operation,
    Outcome,
    OwnerRef,
    Phase,
    Reason,
    encode_line,
)
from cryptocore.partitions import partition_key, partition_of
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import SEALED_BATCH, Signer

SIGNER = Signer.from_private_bytes(b"\x07" * 32)
ENTRY = RegisteredSigner(
    signer_id=SIGNER.signer_id,
    public_key=SIGNER.public_key,
    source="billing",
    roles=frozenset({Role.EVENTS}),
    vault_principals=(),
    person=None,
    valid_from_ms=1000,
    valid_until_ms=9000,
)
DEPLOYMENT = b"\xd0" * 16
INSTANCE = b"\x1a" * 16
REGISTRY = Registry(DEPLOYMENT, (ENTRY,))
KEY_ID = "3f" * 16
EVENT = AuditEvent(
    id="6a1f9c52-8e0b-4f0e-9a51-3c2d7e4b1a90",
    phase=Phase.SINGLE,
    operation=Operation.DECRYPT,
    outcome=Outcome.SUCCEEDED,
    occurred_at="2026-11-16T02:41:07.123456Z",
    service="billing",
    key=KeyRef(id=KEY_ID, version=3),
    owner=OwnerRef(secret_name="smtp"),
    actor="user:4711",
    purpose="crm-sync",
)
OPEN = ChainOpen(
    id="0d7e6b31-25c4-4a8f-8a6e-51f0c2b9d3e7",
    at="2026-11-16T02:41:07.000000Z",
    service="billing",
    durability=Durability.VOLUME,
)
RAW = [encode_line(OPEN), encode_line(EVENT)]
VALUE = b"".join(raw + b"\n" for raw in RAW)
SEALED: dict[str, Any] = {
    "count": 2,
    "deployment": DEPLOYMENT,
    "instance": INSTANCE,
    "generation": 1,
    "partition": 5,
    "sequence": 0,
    "previous": NO_PREVIOUS,
    "sealed_at_ms": 2000,
    "signer": SIGNER,
}


def sealed(value: bytes = VALUE, **changes: Any) -> SealedBatch:
    return seal_batch(value, **{**SEALED, **changes})


def opened(batch: SealedBatch, registry: Registry = REGISTRY, **changes: Any) -> OpenedBatch:
    return open_batch(batch, registry, **{"generation": 1, "partition": 5, "append_ms": 2000, **changes})


def resealed(value: bytes = VALUE, **changes: Any) -> SealedBatch:
    """Sign a seal that `seal_batch` would not make."""
    seal = replace(Seal.decode(sealed().seal), value_sha256=sha256(value).digest(), **changes).encode()
    return SealedBatch(value, seal, SIGNER.sign(SEALED_BATCH, seal))


def finding(batch: SealedBatch, registry: Registry = REGISTRY, **changes: Any) -> tuple[str, str]:
    with pytest.raises(BatchRejected) as caught:
        opened(batch, registry, **changes)
    return caught.value.finding, caught.value.field


def test_a_batch_opens_with_its_lines_and_their_bytes() -> None:
    batch = sealed()

    result = opened(SealedBatch.from_headers(VALUE, batch.headers()))

    assert result.lines == [OPEN, EVENT]
    assert result.raw_lines == RAW
    assert result.digest == result.seal.digest == sha256(batch.seal).digest()
    assert result.signer == ENTRY
    assert not result.suspect


def test_the_seal_has_the_places_that_the_format_gives() -> None:
    raw = sealed(sequence=3, previous=b"\x44" * 32).seal

    assert len(raw) == SEAL_SIZE == 141
    assert raw[:5] == b"KTSB\x01"
    assert raw[5:21] == DEPLOYMENT
    assert raw[21:37] == INSTANCE
    assert raw[37:61].hex() == "0001000500000000000000030000000200000000000007d0"
    assert raw[61:93] == b"\x44" * 32
    assert raw[93:125] == sha256(VALUE).digest()
    assert raw[125:] == SIGNER.signer_id


@given(
    st.builds(
        Seal,
        deployment=st.binary(min_size=16, max_size=16),
        instance=st.binary(min_size=16, max_size=16),
        generation=st.integers(0, 65535),
        partition=st.integers(0, 65535),
        sequence=st.integers(1, 2**53 - 1),
        count=st.integers(1, 1000),
        sealed_at_ms=st.integers(0, 2**53 - 1),
        previous=st.binary(min_size=32, max_size=32).filter(any),
        value_sha256=st.binary(min_size=32, max_size=32),
        signer_id=st.binary(min_size=16, max_size=16),
    )
)
def test_a_seal_is_read_back_from_its_bytes(seal: Seal) -> None:
    assert Seal.decode(seal.encode()) == seal


@given(st.integers(0, 8 * SEAL_SIZE - 1))
def test_no_bit_of_a_seal_can_be_changed(bit: int) -> None:
    batch = sealed()
    changed = bytearray(batch.seal)
    changed[bit // 8] ^= 1 << bit % 8

    with pytest.raises(BatchRejected):
        opened(replace(batch, seal=bytes(changed)))


@given(st.integers(0, 8 * len(VALUE) - 1))
def test_no_bit_of_the_value_can_be_changed(bit: int) -> None:
    changed = bytearray(VALUE)
    changed[bit // 8] ^= 1 << bit % 8

    assert finding(replace(sealed(), value=bytes(changed)))[0] == "seal_invalid"


def test_the_finding_names_what_is_wrong() -> None:
    stranger = Signer.generate()
    foreign_line = encode_line(EVENT).replace(b'"billing"', b'"crm"') + b"\n"
    batch = sealed()

    assert finding(batch, Registry(b"\xd1" * 16, (ENTRY,))) == ("deployment_mismatch", "seal.deployment")
    assert finding(sealed(signer=stranger)) == ("signer_unknown", "seal.signer_id")
    assert finding(replace(batch, signature=stranger.sign(SEALED_BATCH, batch.seal))) == ("seal_invalid", "kt-sig")
    assert finding(batch, partition=6) == ("seal_invalid", "seal.partition")
    assert finding(batch, generation=2) == ("seal_invalid", "seal.partition")
    assert finding(resealed(count=3)) == ("seal_invalid", "seal.count")
    assert finding(replace(batch, value=VALUE[:-1])) == ("seal_invalid", "value")
    assert finding(sealed(VALUE + foreign_line, count=3)) == ("source_mismatch", "line 3: service")
    assert finding(sealed(VALUE + b"{}\n", count=3)) == ("rejected", "line 3: type")
    assert finding(resealed(VALUE + b"{", count=2)) == ("rejected", "line 3: line")
    assert finding(replace(batch, value=bytes(MAX_VALUE + 1))) == ("rejected", "value")
    assert finding(replace(batch, seal=batch.seal[:-1])) == ("rejected", "kt-seal")
    assert finding(replace(batch, seal=b"KTSB\x02" + batch.seal[5:])) == ("rejected", "kt-seal")


def test_a_signature_for_another_purpose_seals_nothing() -> None:
    batch = sealed()

    assert finding(replace(batch, signature=SIGNER.sign("keytrail/key-record/v1", batch.seal)))[0] == "seal_invalid"


@pytest.mark.parametrize(
    ("entry", "append_ms"),
    [(ENTRY, 999), (ENTRY, 9000), (replace(ENTRY, roles=frozenset({Role.KEYS})), 2000)],
)
def test_a_signer_speaks_within_its_role_and_the_append_time(entry: RegisteredSigner, append_ms: int) -> None:
    assert finding(sealed(), Registry(DEPLOYMENT, (entry,)), append_ms=append_ms)[0] == "signer_unknown"


def test_what_a_compromised_signer_says_is_kept_and_marked() -> None:
    registry = Registry(DEPLOYMENT, (replace(ENTRY, compromised_from_ms=3000),))

    assert not opened(sealed(), registry, append_ms=2999).suspect
    assert opened(sealed(), registry, append_ms=3000).suspect


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda headers: headers[:1], "kt-sig"),
        (lambda headers: headers[1:], "kt-seal"),
        (lambda headers: [*headers, headers[0]], "kt-seal"),
        (lambda headers: [*headers, ("traceparent", b"00")], "headers"),
        (lambda headers: [headers[0], ("kt-sig", b"\0" * 63)], "kt-sig"),
        (lambda headers: [("kt-seal", None), headers[1]], "kt-seal"),
    ],
)
def test_a_message_has_exactly_its_two_headers(change: Any, field: str) -> None:
    with pytest.raises(BatchRejected) as caught:
        SealedBatch.from_headers(VALUE, change(sealed().headers()))

    assert (caught.value.finding, caught.value.field) == ("rejected", field)


@pytest.mark.parametrize(
    ("value", "changes", "field"),
    [
        (VALUE, {"count": 3}, "value"),
        (VALUE[:-1], {"count": 2}, "value"),
        (b"", {"count": 0}, "value"),
        (b"\n" * 1001, {"count": 1001}, "seal.count"),
        (b"x" * MAX_VALUE + b"\n", {"count": 1}, "value"),
        (VALUE, {"deployment": b""}, "seal.deployment"),
        (VALUE, {"partition": 65536}, "seal.partition"),
        (VALUE, {"sequence": -1}, "seal.sequence"),
        (VALUE, {"sequence": 1}, "seal.previous"),
        (VALUE, {"previous": b"\x01" * 32}, "seal.previous"),
    ],
)
def test_what_every_receiver_would_refuse_is_not_sealed(value: bytes, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BatchRejected) as caught:
        sealed(value, **changes)

    assert caught.value.field == field


@given(st.binary(max_size=40), st.integers(1, 64))
def test_a_partition_is_the_crc_of_the_key(key: bytes, count: int) -> None:
    assert partition_of(key, count) == crc32(key) % count


def test_a_line_goes_by_its_key_or_the_key_it_claimed_or_its_instance() -> None:
    unknown: dict[str, Any] = {
        "id": EVENT.id,
        "phase": Phase.SINGLE,
        "operation": Operation.DECRYPT,
        "outcome": Outcome.DENIED,
        "reason": Reason.UNKNOWN_KEY,
        "occurred_at": EVENT.occurred_at,
        "service": "billing",
        "owner": EVENT.owner,
        "actor": EVENT.actor,
        "purpose": EVENT.purpose,
    }

    assert partition_key(EVENT, INSTANCE) == bytes.fromhex(KEY_ID)
    assert partition_key(AuditEvent(**unknown, claimed_key_id="4e" * 16), INSTANCE) == b"\x4e" * 16
    assert partition_key(AuditEvent(**unknown), INSTANCE) == INSTANCE
    assert partition_key(OPEN, INSTANCE) == INSTANCE


def test_printing_a_batch_shows_no_lines() -> None:
    assert "user:4711" not in repr(sealed())
    assert "user:4711" not in repr(opened(sealed()))
    assert {entry.name for entry in fields(SealedBatch)} == {"value", "seal", "signature"}
