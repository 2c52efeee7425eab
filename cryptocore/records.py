"""Signed key records: what a store must show before its row is believed.

RSA-OAEP is public-key encryption, so whoever can write the row could insert a DEK of their own choice. Each revision of
a key version is therefore signed by a service with the role `keys`, and names its predecessor.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeVar

from cryptocore.envelope import KEY_ID_SIZE, MAX_KEY_VERSION, Suite, lp16
from cryptocore.errors import RecordInvalid
from cryptocore.keys import KeyReason, KeyState, leads_to
from cryptocore.registry import Registry, Role
from cryptocore.signing import KEY_RECORD, SIGNATURE_SIZE, SignatureInvalid, Signer, verify
from cryptocore.wrapping import COMMITMENT_SIZE, WrapAlgorithm

Meaning = TypeVar("Meaning")

MAX_NAME: Final = 128
MAX_INTEGER: Final = 2**53 - 1
DIGEST_SIZE: Final = 32
NO_PREVIOUS: Final = bytes(DIGEST_SIZE)
NO_WRAPPED_DEK: Final = sha256(b"").digest()
"""The `wrapped_dek_sha256` of a version whose wrapped DEK is removed."""

_MAGIC: Final = b"KTKR"
_FORMAT: Final = 1
_HEAD: Final = struct.Struct(">4sB16s16sIQBBB32s")
_TAIL: Final = struct.Struct(">B32s32sQIQ32s32s16s")
_LENGTH: Final = struct.Struct(">H")
_FIRST_STATES: Final = frozenset({KeyState.PRE_ACTIVATION, KeyState.ACTIVE})


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One revision of one key version. `superseded_by` and `retire_at_ms`: 0 = none."""

    deployment: bytes
    key_id: bytes
    key_version: int
    revision: int
    state: KeyState
    reason: KeyReason
    suite: Suite
    owner_sha256: bytes
    kek_alias: str
    kek_version: str
    wrap_alg: WrapAlgorithm
    wrapped_dek_sha256: bytes
    commitment: bytes
    changed_at_ms: int
    superseded_by: int
    retire_at_ms: int
    previous_record_sha256: bytes
    event_sha256: bytes
    signer_id: bytes

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_sense(self)

    def encode(self) -> bytes:
        """Write the bytes that are signed."""
        head = _HEAD.pack(
            _MAGIC,
            _FORMAT,
            self.deployment,
            self.key_id,
            self.key_version,
            self.revision,
            self.state.code,
            self.reason.code,
            self.suite,
            self.owner_sha256,
        )
        tail = _TAIL.pack(
            self.wrap_alg,
            self.wrapped_dek_sha256,
            self.commitment,
            self.changed_at_ms,
            self.superseded_by,
            self.retire_at_ms,
            self.previous_record_sha256,
            self.event_sha256,
            self.signer_id,
        )
        return head + lp16(self.kek_alias.encode("ascii")) + lp16(self.kek_version.encode("ascii")) + tail

    @classmethod
    def decode(cls, raw: bytes) -> "KeyRecord":
        """Read what `encode` writes, and nothing else.

        Raises:
            RecordInvalid: names the field.
        """
        if len(raw) < _HEAD.size:
            raise RecordInvalid("record", "too short")
        magic, version, deployment, key_id, key_version, revision, state, reason, suite, owner = _HEAD.unpack_from(raw)
        if magic != _MAGIC or version != _FORMAT:
            raise RecordInvalid("record", "not a key record of version 1")
        kek_alias, at = _read_name("kek_alias", raw, _HEAD.size)
        kek_version, at = _read_name("kek_version", raw, at)
        if len(raw) - at != _TAIL.size:
            raise RecordInvalid("record", "too short or too long")
        wrap_alg, wrapped, committed, changed, superseded, retire, previous, event, signer_id = _TAIL.unpack_from(
            raw,
            at,
        )
        return cls(
            deployment=deployment,
            key_id=key_id,
            key_version=key_version,
            revision=revision,
            state=_read_code("state", KeyState.from_code, state),
            reason=_read_code("reason", KeyReason.from_code, reason),
            suite=_read_code("suite", Suite, suite),
            owner_sha256=owner,
            kek_alias=kek_alias,
            kek_version=kek_version,
            wrap_alg=_read_code("wrap_alg", WrapAlgorithm, wrap_alg),
            wrapped_dek_sha256=wrapped,
            commitment=committed,
            changed_at_ms=changed,
            superseded_by=superseded,
            retire_at_ms=retire,
            previous_record_sha256=previous,
            event_sha256=event,
            signer_id=signer_id,
        )

    def topic_key(self) -> bytes:
        """Give the key of its message in the key-state topic."""
        return self.key_id + self.key_version.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """A record's bytes and the signature over them."""

    record: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Write the value of its message in the key-state topic."""
        return self.record + self.signature

    @classmethod
    def decode(cls, raw: bytes) -> "SignedRecord":
        """Take such a value apart.

        Raises:
            RecordInvalid: it is too short for one.
        """
        if len(raw) <= SIGNATURE_SIZE:
            raise RecordInvalid("record", "too short")
        return cls(record=raw[:-SIGNATURE_SIZE], signature=raw[-SIGNATURE_SIZE:])


def sign_record(record: KeyRecord, signer: Signer) -> SignedRecord:
    """Sign a record.

    Raises:
        RecordInvalid: it names another signer.
    """
    if record.signer_id != signer.signer_id:
        raise RecordInvalid("signer_id", "not that of the signer")
    raw = record.encode()
    return SignedRecord(record=raw, signature=signer.sign(KEY_RECORD, raw))


def verify_record(signed: SignedRecord, registry: Registry, *, at_ms: int) -> KeyRecord:
    """Read a record and believe it.

    1. It is a key record of version 1, and made for this deployment.
    2. Its signer is registered with role `keys` at `at_ms`, and its key was not in other hands by then.
    3. The signature holds.

    The caller still owes: the owner, the wrapped DEK's digest, the revision against those seen, the predecessor.

    Args:
        signed: the record as stored or received.
        registry: of this deployment.
        at_ms: when it was signed, as well as the caller knows: the broker's append time, else `changed_at_ms`.

    Raises:
        RecordInvalid: names the field.
    """
    # 1
    record = KeyRecord.decode(signed.record)
    if record.deployment != registry.deployment:
        raise RecordInvalid("deployment", "not this deployment")
    # 2
    entry = registry.get(record.signer_id)
    if entry is None or not entry.usable(Role.KEYS, at_ms):
        raise RecordInvalid("signer_id", "not registered for keys at that time")
    if entry.suspect(at_ms):
        raise RecordInvalid("signer_id", "its key was in other hands at that time")
    # 3
    try:
        verify(entry.public_key, KEY_RECORD, signed.record, signed.signature)
    except SignatureInvalid as err:
        raise RecordInvalid("signature", "does not hold") from err
    return record


_UNCHANGING: Final = ("deployment", "key_id", "key_version", "suite", "owner_sha256", "commitment")


def check_successor(previous: KeyRecord, previous_bytes: bytes, following: KeyRecord) -> None:
    """Check that `following` is the next revision of the same key version.

    Raises:
        RecordInvalid: names the field that breaks the history.
    """
    for name in _UNCHANGING:
        if getattr(previous, name) != getattr(following, name):
            raise RecordInvalid(name, "never changes within a key version")
    if following.revision != previous.revision + 1:
        raise RecordInvalid("revision", "not the next one")
    if following.previous_record_sha256 != sha256(previous_bytes).digest():
        raise RecordInvalid("previous_record_sha256", "not that of the revision before")
    if following.state is not previous.state and not leads_to(previous.state, following.state):
        raise RecordInvalid("state", f"nothing leads from {previous.state} to {following.state}")
    if following.superseded_by < previous.superseded_by:
        raise RecordInvalid("superseded_by", "a version once superseded stays so")
    removed = previous.wrapped_dek_sha256 == NO_WRAPPED_DEK
    if removed and following.wrapped_dek_sha256 != NO_WRAPPED_DEK:
        raise RecordInvalid("wrapped_dek_sha256", "a removed DEK does not come back")


_SIZES: Final = {
    "deployment": KEY_ID_SIZE,
    "key_id": KEY_ID_SIZE,
    "owner_sha256": DIGEST_SIZE,
    "wrapped_dek_sha256": DIGEST_SIZE,
    "commitment": COMMITMENT_SIZE,
    "previous_record_sha256": DIGEST_SIZE,
    "event_sha256": DIGEST_SIZE,
    "signer_id": KEY_ID_SIZE,
}
_LIMITS: Final = {
    "key_version": (1, MAX_KEY_VERSION),
    "revision": (1, MAX_INTEGER),
    "changed_at_ms": (0, MAX_INTEGER),
    "superseded_by": (0, MAX_KEY_VERSION),
    "retire_at_ms": (0, MAX_INTEGER),
}


def _check_sizes(record: KeyRecord) -> None:
    for name, size in _SIZES.items():
        if len(getattr(record, name)) != size:
            raise RecordInvalid(name, f"not {size} bytes")
    for name, (least, most) in _LIMITS.items():
        if not least <= getattr(record, name) <= most:
            raise RecordInvalid(name, f"not within {least} and {most}")
    for name in ("kek_alias", "kek_version"):
        text: str = getattr(record, name)
        if not 1 <= len(text) <= MAX_NAME or not all("!" <= char <= "~" for char in text):
            raise RecordInvalid(name, f"not 1 to {MAX_NAME} visible ASCII characters")


def _check_sense(record: KeyRecord) -> None:
    if (record.revision == 1) != (record.previous_record_sha256 == NO_PREVIOUS):
        raise RecordInvalid("previous_record_sha256", "zeros at revision 1, and nowhere else")
    if record.revision == 1 and record.state not in _FIRST_STATES:
        raise RecordInvalid("state", "a version begins as pre-activation or active")
    if record.state is KeyState.REVOKED and record.reason is KeyReason.NONE:
        raise RecordInvalid("reason", "a revocation has one")
    if record.superseded_by and record.superseded_by <= record.key_version:
        raise RecordInvalid("superseded_by", "not a later version")
    if record.wrapped_dek_sha256 == NO_WRAPPED_DEK and record.state is not KeyState.DESTROYED:
        raise RecordInvalid("wrapped_dek_sha256", "only a destroyed version has no wrapped DEK")


def _read_name(field: str, raw: bytes, at: int) -> tuple[str, int]:
    start = at + _LENGTH.size
    if len(raw) < start:
        raise RecordInvalid(field, "cut short")
    end = start + _LENGTH.unpack_from(raw, at)[0]
    if len(raw) < end:
        raise RecordInvalid(field, "cut short")
    return raw[start:end].decode("latin-1"), end


def _read_code(field: str, meaning: Callable[[int], Meaning], code: int) -> Meaning:
    try:
        return meaning(code)
    except ValueError as err:
        raise RecordInvalid(field, "not a known number") from err
