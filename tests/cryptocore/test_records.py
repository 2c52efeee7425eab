from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptocore.envelope import Owner, Suite
from cryptocore.errors import RecordInvalid
from cryptocore.keys import KeyReason, KeyState
from cryptocore.records import (
    NO_PREVIOUS,
    NO_WRAPPED_DEK,
    KeyRecord,
    SignedRecord,
    check_successor,
    sign_record,
    verify_record,
)
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import Signer
from cryptocore.wrapping import WrapAlgorithm

SIGNER = Signer.from_private_bytes(b"\x07" * 32)
ENTRY = RegisteredSigner(
    signer_id=SIGNER.signer_id,
    public_key=SIGNER.public_key,
    source="billing",
    roles=frozenset({Role.KEYS}),
    vault_principals=(),
    person=None,
    valid_from_ms=1000,
    valid_until_ms=9000,
)
REGISTRY = Registry(b"\xd0" * 16, (ENTRY,))
FIRST = KeyRecord(
    deployment=b"\xd0" * 16,
    key_id=b"\x11" * 16,
    key_version=1,
    revision=1,
    state=KeyState.ACTIVE,
    reason=KeyReason.NONE,
    suite=Suite.XAES_256_GCM,
    owner_sha256=Owner.tenant("t-88", "crm").digest(),
    kek_alias="tokens",
    kek_version="0c9a",
    wrap_alg=WrapAlgorithm.RSA_OAEP_256,
    wrapped_dek_sha256=sha256(b"wrapped").digest(),
    commitment=b"\x22" * 32,
    changed_at_ms=2000,
    superseded_by=0,
    retire_at_ms=0,
    previous_record_sha256=NO_PREVIOUS,
    event_sha256=b"\x33" * 32,
    signer_id=SIGNER.signer_id,
)


def successor(previous: KeyRecord, **changes: Any) -> KeyRecord:
    linked = {"revision": previous.revision + 1, "previous_record_sha256": sha256(previous.encode()).digest()}
    return replace(previous, **{**linked, **changes})


REVOKED = successor(FIRST, state=KeyState.REVOKED, reason=KeyReason.COMPROMISE_SUSPECTED)
DESTROYED = successor(REVOKED, state=KeyState.DESTROYED, wrapped_dek_sha256=NO_WRAPPED_DEK)

names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)
records = st.builds(
    successor,
    st.just(FIRST),
    revision=st.integers(2, 2**53 - 1),
    key_version=st.integers(1, 100),
    state=st.sampled_from([KeyState.ACTIVE, KeyState.SUSPENDED, KeyState.ARCHIVED, KeyState.DESTROYED]),
    reason=st.sampled_from(KeyReason),
    kek_alias=names,
    kek_version=names,
    wrap_alg=st.sampled_from(WrapAlgorithm),
    changed_at_ms=st.integers(0, 2**53 - 1),
    superseded_by=st.just(0) | st.integers(101, 2**32 - 1),
    retire_at_ms=st.integers(0, 2**53 - 1),
)


@given(records)
def test_a_record_is_read_back_from_its_bytes(record: KeyRecord) -> None:
    assert KeyRecord.decode(record.encode()) == record


@given(records, st.data())
def test_bytes_cut_or_added_are_refused(record: KeyRecord, data: st.DataObject) -> None:
    raw = record.encode()
    cut = data.draw(st.integers(0, len(raw) - 1))

    for wrong in (raw[:cut], raw + b"\0"):
        with pytest.raises(RecordInvalid):
            KeyRecord.decode(wrong)


def test_a_record_has_the_places_that_the_format_gives() -> None:
    raw = FIRST.encode()

    assert raw[:5] == b"KTKR\x01"
    assert raw[5:21] == FIRST.deployment
    assert raw[21:37] == FIRST.key_id
    assert raw[37:52] == bytes.fromhex("00000001 0000000000000001 02 00 01")
    assert raw[52:84] == FIRST.owner_sha256
    assert raw[84:98] == b"\0\x06tokens\0\x040c9a"
    assert raw[98] == 1
    assert raw[-16:] == FIRST.signer_id
    assert len(raw) == 99 + 32 + 32 + 8 + 4 + 8 + 32 + 32 + 16
    assert FIRST.topic_key() == FIRST.key_id + b"\0\0\0\x01"


def test_a_signed_record_is_believed() -> None:
    signed = sign_record(FIRST, SIGNER)

    assert verify_record(SignedRecord.decode(signed.encode()), REGISTRY, at_ms=2000) == FIRST


@given(st.integers(0, 8 * len(FIRST.encode()) - 1))
def test_no_bit_of_a_signed_record_can_be_changed(bit: int) -> None:
    signed = sign_record(FIRST, SIGNER)
    changed = bytearray(signed.record)
    changed[bit // 8] ^= 1 << bit % 8

    with pytest.raises(RecordInvalid):
        verify_record(SignedRecord(bytes(changed), signed.signature), REGISTRY, at_ms=2000)


def test_a_dek_inserted_by_a_database_writer_is_not_believed() -> None:
    inserted = replace(FIRST, wrapped_dek_sha256=sha256(b"mine").digest(), commitment=b"\x44" * 32)
    stranger = Signer.generate()

    forged = SignedRecord(inserted.encode(), sign_record(FIRST, SIGNER).signature)
    foreign = sign_record(replace(inserted, signer_id=stranger.signer_id), stranger)

    with pytest.raises(RecordInvalid, match=r"^signature: "):
        verify_record(forged, REGISTRY, at_ms=2000)
    with pytest.raises(RecordInvalid, match=r"^signer_id: "):
        verify_record(foreign, REGISTRY, at_ms=2000)


@pytest.mark.parametrize(
    ("entry", "at_ms"),
    [
        (replace(ENTRY, roles=frozenset({Role.EVENTS})), 2000),
        (ENTRY, 999),
        (ENTRY, 9000),
        (replace(ENTRY, compromised_from_ms=1500), 2000),
    ],
)
def test_a_signer_without_role_time_or_trust_is_not_believed(entry: RegisteredSigner, at_ms: int) -> None:
    with pytest.raises(RecordInvalid, match=r"^signer_id: "):
        verify_record(sign_record(FIRST, SIGNER), Registry(REGISTRY.deployment, (entry,)), at_ms=at_ms)


def test_a_record_of_another_deployment_is_not_believed() -> None:
    with pytest.raises(RecordInvalid, match=r"^deployment: "):
        verify_record(sign_record(FIRST, SIGNER), Registry(b"\xd1" * 16, (ENTRY,)), at_ms=2000)


def test_nobody_signs_in_another_name() -> None:
    with pytest.raises(RecordInvalid, match=r"^signer_id: "):
        sign_record(FIRST, Signer.generate())


def test_a_history_of_linked_revisions_holds() -> None:
    for previous, following in ((FIRST, REVOKED), (REVOKED, DESTROYED)):
        check_successor(previous, previous.encode(), following)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: successor(REVOKED, state=KeyState.ACTIVE, reason=KeyReason.OPERATOR), "state"),
        (lambda: successor(FIRST, revision=3), "revision"),
        (lambda: successor(FIRST, previous_record_sha256=b"\x01" * 32), "previous_record_sha256"),
        (lambda: successor(FIRST, commitment=b"\x44" * 32), "commitment"),
        (lambda: successor(FIRST, owner_sha256=b"\x44" * 32), "owner_sha256"),
        (lambda: successor(FIRST, key_version=2), "key_version"),
        (lambda: successor(FIRST, key_id=b"\x12" * 16), "key_id"),
        (lambda: successor(FIRST, deployment=b"\xd1" * 16), "deployment"),
    ],
)
def test_a_broken_history_is_named(make: Callable[[], KeyRecord], field: str) -> None:
    following = make()
    previous = REVOKED if following.revision == 3 and field == "state" else FIRST

    with pytest.raises(RecordInvalid) as caught:
        check_successor(previous, previous.encode(), following)

    assert caught.value.field == field


def test_superseded_and_removed_are_for_good() -> None:
    superseded = successor(FIRST, superseded_by=2)

    with pytest.raises(RecordInvalid, match=r"^superseded_by: "):
        check_successor(superseded, superseded.encode(), successor(superseded, superseded_by=0))
    with pytest.raises(RecordInvalid, match=r"^wrapped_dek_sha256: "):
        check_successor(
            DESTROYED, DESTROYED.encode(), successor(DESTROYED, wrapped_dek_sha256=sha256(b"back").digest())
        )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"previous_record_sha256": b"\x01" * 32}, "previous_record_sha256"),
        ({"revision": 2}, "previous_record_sha256"),
        ({"state": KeyState.SUSPENDED}, "state"),
        ({"superseded_by": 1}, "superseded_by"),
        ({"wrapped_dek_sha256": NO_WRAPPED_DEK}, "wrapped_dek_sha256"),
        ({"key_version": 0}, "key_version"),
        ({"revision": 2**53, "previous_record_sha256": b"\x01" * 32}, "revision"),
        ({"kek_alias": ""}, "kek_alias"),
        ({"kek_alias": "a" * 129}, "kek_alias"),
        ({"kek_version": "schlüssel"}, "kek_version"),
        ({"commitment": b"short"}, "commitment"),
    ],
)
def test_a_record_that_makes_no_sense_is_not_made(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(RecordInvalid) as caught:
        replace(FIRST, **changes)

    assert caught.value.field == field


def test_a_revocation_has_a_reason() -> None:
    with pytest.raises(RecordInvalid, match=r"^reason: "):
        successor(FIRST, state=KeyState.REVOKED)


@pytest.mark.parametrize(
    ("at", "byte", "field"), [(49, 7, "state"), (50, 7, "reason"), (51, 2, "suite"), (98, 3, "wrap_alg")]
)
def test_a_number_without_meaning_is_named(at: int, byte: int, field: str) -> None:
    raw = bytearray(FIRST.encode())
    raw[at] = byte

    with pytest.raises(RecordInvalid) as caught:
        KeyRecord.decode(bytes(raw))

    assert caught.value.field == field
    assert field in {entry.name for entry in fields(KeyRecord)}
