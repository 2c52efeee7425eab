"""Approvals: what two people must sign before what cannot be undone is done.

An approval is 125 bytes and a signature, and names exactly what it allows: for a key, the very record that the approver
saw. Whom to believe is in approval_pairs.py; where approvals are used, in approval_desk.py.
"""

import base64
import binascii
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Final

import msgspec

from cryptocore.envelope import KEY_ID_SIZE, MAX_KEY_VERSION
from cryptocore.errors import FormatError
from cryptocore.records import MAX_INTEGER, KeyRecord, SignedRecord
from cryptocore.signing import APPROVAL, SIGNER_ID_SIZE, Signer

SIZE: Final = 125
NONCE_SIZE: Final = 16
SUBJECT_SIZE: Final = 32
_FORMAT: Final = struct.Struct(">16sB16sIQ32sQQ16s16s")
_NO_KEY: Final = bytes(KEY_ID_SIZE)


class ApprovalInvalid(FormatError):
    """An approval that does not parse, is not believed, or does not allow this."""


class Action(IntEnum):
    """What is approved; the number is the `action` byte."""

    DESTROY = 1
    PURGE = 2
    ACCEPT_LOSS = 3
    RECOVERY_GRANT = 4
    SILENCE = 5
    ALLOW_LIST = 6
    REVIEW = 7


ON_KEYS: Final = frozenset({Action.DESTROY, Action.RECOVERY_GRANT})
"""Their subject is a key record; that of the others is a file or a JSON text, and their key fields are zero."""


@dataclass(frozen=True, slots=True)
class Approval:
    """What one person allows, from `not_before_ms` inclusive to `expires_ms` exclusive."""

    deployment: bytes
    action: Action
    key_id: bytes
    key_version: int
    revision: int
    subject_sha256: bytes
    not_before_ms: int
    expires_ms: int
    nonce: bytes
    signer_id: bytes

    def __post_init__(self) -> None:
        for name, size in _SIZES.items():
            if len(getattr(self, name)) != size:
                raise ApprovalInvalid(name, f"not {size} bytes")
        for name, most in _LIMITS.items():
            if not 0 <= getattr(self, name) <= most:
                raise ApprovalInvalid(name, f"not within 0 and {most}")
        if self.action in ON_KEYS:
            if not self.key_version or not self.revision:
                raise ApprovalInvalid("key_version", "a version and a revision of a key, both from 1")
        elif (self.key_id, self.key_version, self.revision) != (_NO_KEY, 0, 0):
            raise ApprovalInvalid("key_id", "zeros, as version and revision, where the subject is not a key")
        if self.not_before_ms >= self.expires_ms:
            raise ApprovalInvalid("expires_ms", "not after not_before_ms")

    @classmethod
    def of_key(
        cls,
        action: Action,
        signed: SignedRecord,
        *,
        not_before_ms: int,
        expires_ms: int,
        nonce: bytes,
        signer_id: bytes,
    ) -> "Approval":
        """Approve an act on a key version as its record, which the approver verified, says it is now.

        Args:
            nonce: 16 random bytes, new for each approval.
        """
        record = KeyRecord.decode(signed.record)
        return cls(
            deployment=record.deployment,
            action=action,
            key_id=record.key_id,
            key_version=record.key_version,
            revision=record.revision,
            subject_sha256=sha256(signed.record).digest(),
            not_before_ms=not_before_ms,
            expires_ms=expires_ms,
            nonce=nonce,
            signer_id=signer_id,
        )

    @classmethod
    def of_file(
        cls,
        action: Action,
        content: bytes,
        *,
        deployment: bytes,
        not_before_ms: int,
        expires_ms: int,
        nonce: bytes,
        signer_id: bytes,
    ) -> "Approval":
        """Approve the very bytes of a file or a JSON text."""
        return cls(
            deployment=deployment,
            action=action,
            key_id=_NO_KEY,
            key_version=0,
            revision=0,
            subject_sha256=sha256(content).digest(),
            not_before_ms=not_before_ms,
            expires_ms=expires_ms,
            nonce=nonce,
            signer_id=signer_id,
        )

    def encode(self) -> bytes:
        """Write the bytes that are signed."""
        return _FORMAT.pack(
            self.deployment,
            self.action,
            self.key_id,
            self.key_version,
            self.revision,
            self.subject_sha256,
            self.not_before_ms,
            self.expires_ms,
            self.nonce,
            self.signer_id,
        )

    @classmethod
    def decode(cls, raw: bytes) -> "Approval":
        """Read what `encode` writes, and nothing else.

        Raises:
            ApprovalInvalid: names the field.
        """
        if len(raw) != SIZE:
            raise ApprovalInvalid("approval", f"not {SIZE} bytes")
        deployment, action, *rest = _FORMAT.unpack(raw)
        if action not in list(Action):
            raise ApprovalInvalid("action", "not a known number")
        return cls(deployment, Action(action), *rest)

    @property
    def names(self) -> tuple[Action, bytes, int, int, bytes]:
        """What it is for; approvals of one act agree in this."""
        return self.action, self.key_id, self.key_version, self.revision, self.subject_sha256


_SIZES: Final = {
    "deployment": KEY_ID_SIZE,
    "key_id": KEY_ID_SIZE,
    "subject_sha256": SUBJECT_SIZE,
    "nonce": NONCE_SIZE,
    "signer_id": SIGNER_ID_SIZE,
}
_LIMITS: Final = {
    "key_version": MAX_KEY_VERSION,
    "revision": MAX_INTEGER,
    "not_before_ms": MAX_INTEGER,
    "expires_ms": MAX_INTEGER,
}


class _Carried(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    approval: str
    sig: str


@dataclass(frozen=True, slots=True)
class SignedApproval:
    """An approval's bytes and the signature over them; it is not printed, since until it is used it may be used."""

    approval: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def to_json(self) -> dict[str, str]:
        """Give the object in which it is carried."""
        return {
            "approval": base64.b64encode(self.approval).decode(),
            "sig": base64.b64encode(self.signature).decode(),
        }

    def encode(self) -> bytes:
        """Write it as compact JSON."""
        return msgspec.json.encode(self.to_json())

    @classmethod
    def decode(cls, text: bytes) -> "SignedApproval":
        """Read the JSON in which it is carried.

        Raises:
            ApprovalInvalid: another form; names the field.
        """
        try:
            carried = msgspec.json.decode(text, type=_Carried)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ApprovalInvalid("json", 'not {"approval": base64, "sig": base64}') from None
        return cls(_bytes("approval", carried.approval), _bytes("sig", carried.sig))


def sign_approval(approval: Approval, signer: Signer) -> SignedApproval:
    """Sign an approval.

    Raises:
        ApprovalInvalid: it names another signer.
    """
    if approval.signer_id != signer.signer_id:
        raise ApprovalInvalid("signer_id", "not that of the signer")
    raw = approval.encode()
    return SignedApproval(raw, signer.sign(APPROVAL, raw))


def _bytes(field: str, text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApprovalInvalid(field, "not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise ApprovalInvalid(field, "not base64 as it is written") from None
    return raw
