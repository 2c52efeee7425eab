"""The request of a destruction and its certificate: what is signed, and what is read from it. No I/O.

Destruction is two dated facts. `overwritten_at`: the row is zeroed, then removed, its tombstone signed, and no instance
uses what it remembers any longer. `unrecoverable_after`: no declared copy of the store holds the wrapped DEK any more,
or no KEK version that ever wrapped it exists any more, whichever is earlier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import msgspec

from cryptocore.clock import parse_rfc3339, rfc3339_ms
from cryptocore.errors import FormatError
from cryptocore.life.approval_pairs import Verified, by_key, two_people
from cryptocore.life.approvals import Action, ApprovalInvalid, SignedApproval
from cryptocore.life.copies import Copies
from cryptocore.records import KeyRecord
from cryptocore.registry import Registry, Role
from cryptocore.signing import SIGNER_ID_SIZE, SignatureInvalid, Signer, verify

REQUEST: Final = "keytrail/destruction-request/v1"
CERTIFICATE: Final = "keytrail/destruction-certificate/v1"
DAY_MS: Final = 24 * 3600 * 1000
COOLING_OFF_DAYS: Final = 7
MOST_DAYS: Final = 365
NOT_ESTABLISHED: Final = "not established"
MAX_ITEMS: Final = 10_000

S = TypeVar("S", bound=msgspec.Struct)


class DestructionInvalid(FormatError):
    """A request or certificate that does not parse or whose signature does not hold."""


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key version as it was approved for destruction."""

    key_id: str
    version: int
    revision: int
    record_sha256: str


class Carried(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """An approval as it came, and, in a certificate, whose it is."""

    approval: str
    sig: str
    person: str | None = None


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What two people asked for, and when it may be done."""

    v: Literal[1] = 1
    id: str
    deployment: str
    service: str
    items: list[Item]
    requested_at: str
    due_at: str
    approvals: list[Carried]

    def __post_init__(self) -> None:
        """Refuse what is no time; read from bytes, it is then not of version 1."""
        parse_rfc3339(self.requested_at), parse_rfc3339(self.due_at)

    @property
    def requested_ms(self) -> int:
        """When it was asked for, by the database's clock."""
        return parse_rfc3339(self.requested_at) // 1000

    @property
    def due_ms(self) -> int:
        """When the cooling-off ends."""
        return parse_rfc3339(self.due_at) // 1000

    def signed_approvals(self) -> list[SignedApproval]:
        """Give the approvals as they were signed.

        Raises:
            ApprovalInvalid: one of them is none.
        """
        return _signed(self.approvals)


def _signed(carried: Sequence[Carried]) -> list[SignedApproval]:
    return [SignedApproval.decode(msgspec.json.encode({"approval": one.approval, "sig": one.sig})) for one in carried]


@dataclass(frozen=True, slots=True)
class Destruction:
    """How far a destruction is.

    Attributes:
        due_ms: the end of its cooling-off; not before that anything is overwritten.
        restored_ms: it was called off then.
        overwritten_ms: wrapped DEKs were removed then, by the database's clock.
        certificate: two lines, once it was issued.
    """

    id: str
    request: Request
    due_ms: int
    restored_ms: int | None
    begun_ms: int | None
    overwritten_ms: int | None
    certificate: bytes | None


@dataclass(frozen=True, slots=True)
class Disbelieved:
    """A destruction whose row is not to be believed, and why."""

    id: str
    problem: str


class KekVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A KEK version that wrapped the DEK at some time, and when it was purged, if it was."""

    alias: str
    version: str
    purged_at: str | None = None


class DeclaredCopy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A copy of the key store, as declared."""

    name: str
    retention_days: int


class DeclaredCopies(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file of copies that the certificate stands on."""

    sha256: str
    complete: bool
    reviewed: str
    reviewed_by: str
    copies: list[DeclaredCopy]


class Destroyed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A key version that is no more."""

    key_id: str
    version: int
    owner: dict[str, str]
    approved_record_sha256: str
    tombstone_revision: int
    tombstone_sha256: str
    keks: list[KekVersion]
    unrecoverable_after: str


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What can be shown of a destruction."""

    v: Literal[1] = 1
    type: Literal["destruction"] = "destruction"
    id: str
    deployment: str
    service: str
    issued_at: str
    requested_at: str
    due_at: str
    overwritten_at: str
    instances: str
    unrecoverable_after: str
    items: list[Destroyed]
    copies: DeclaredCopies
    approvals: list[Carried]


def sign(document: msgspec.Struct, label: str, signer: Signer) -> tuple[bytes, bytes]:
    """Write a document once, and sign the very bytes."""
    raw = msgspec.json.encode(document)
    return raw, signer.sign(label, raw)


def believed(
    raw: bytes, kind: type[S], label: str, registry: Registry, *, signature: bytes, signer_id: bytes, at_ms: int
) -> S:
    """Read a signed document.

    Raises:
        DestructionInvalid: it does not parse, or nobody with the role `keys` at that time signed it.
    """
    entry = registry.get(signer_id) if len(signer_id) == SIGNER_ID_SIZE else None
    if entry is None or not entry.usable(Role.KEYS, at_ms) or entry.suspect(at_ms):
        raise DestructionInvalid("signer_id", "not registered for keys at that time")
    try:
        verify(entry.public_key, label, raw, signature)
        return msgspec.json.decode(raw, type=kind)
    except SignatureInvalid:
        raise DestructionInvalid("signature", "does not hold") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise DestructionInvalid("json", "not of version 1") from None


def carried_by(verified: Sequence[Verified]) -> list[Carried]:
    """Show approvals with their persons."""
    return [Carried(**one.signed.to_json(), person=one.person) for one in verified]


def certificate_text(certificate: Certificate, signer: Signer) -> bytes:
    """Write a certificate: two lines, the certificate's JSON, and who signed the first line without its newline."""
    raw, signature = sign(certificate, CERTIFICATE, signer)
    seal = {"signer_id": signer.signer_id.hex(), "sig": signature.hex()}
    return raw + b"\n" + msgspec.json.encode(seal) + b"\n"


class _Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    signer_id: str
    sig: str


def read_certificate(text: bytes, registry: Registry) -> Certificate:
    """Read a certificate and believe it: its signature, and that the people it names approved each of its items.

    The caller still owes, where it has the key store's history: that the tombstones named are there.

    Raises:
        DestructionInvalid: it does not parse, is another deployment's, or a signature in it does not hold.
    """
    lines = text.split(b"\n")
    if len(lines) != 3 or lines[2]:  # noqa: PLR2004 - two lines, each ended
        raise DestructionInvalid("certificate", "not two lines")
    try:
        seal = msgspec.json.decode(lines[1], type=_Seal)
        signer_id, signature = bytes.fromhex(seal.signer_id), bytes.fromhex(seal.sig)
        issued_ms = parse_rfc3339(msgspec.json.decode(lines[0], type=Certificate).issued_at) // 1000
    except (msgspec.MsgspecError, ValueError):
        raise DestructionInvalid("certificate", "not of version 1") from None
    certificate = believed(
        lines[0], Certificate, CERTIFICATE, registry, signature=signature, signer_id=signer_id, at_ms=issued_ms
    )
    if certificate.deployment != registry.deployment.hex():
        raise DestructionInvalid("deployment", "not this deployment")
    _check_approvals(certificate, registry)
    return certificate


def _check_approvals(certificate: Certificate, registry: Registry) -> None:
    """Verify the approvals at the time when they were given: whoever signs certificates cannot make them up."""
    try:
        requested_ms = parse_rfc3339(certificate.requested_at) // 1000
        pairs = by_key(_signed(certificate.approvals))
        verified: list[Verified] = []
        for item in certificate.items:
            pair = pairs.get((bytes.fromhex(item.key_id), item.version), [])
            verified += two_people(pair, registry, action=Action.DESTROY, at_ms=requested_ms)
            if verified[-1].approval.subject_sha256.hex() != item.approved_record_sha256:
                raise DestructionInvalid("approvals", "of another record than that of the item")
    except (ApprovalInvalid, ValueError) as err:
        raise DestructionInvalid("approvals", "not by two people for each item") from err
    if certificate.approvals != carried_by(verified):
        raise DestructionInvalid("approvals", "not in the order of the items, or of other persons")


def unrecoverable_ms(
    overwritten_ms: int, copies: Copies, keks: Sequence[tuple[str, str]], purged: Mapping[tuple[str, str], int]
) -> int | None:
    """Say when a wrapped DEK can be unwrapped by nobody any more; None: not established.

    The earlier of: every declared copy has expired, where all are declared; every KEK version that ever wrapped it is
    purged.
    """
    moments = []
    if copies.retention_ms is not None:
        moments.append(overwritten_ms + copies.retention_ms)
    if keks and all(kek in purged for kek in keks):
        moments.append(max(overwritten_ms, *(purged[kek] for kek in keks)))
    return min(moments, default=None)


def keks_of(history: Sequence[KeyRecord]) -> list[tuple[str, str]]:
    """List the KEK versions that wrapped a DEK at any time, the first one first."""
    return list(dict.fromkeys((record.kek_alias, record.kek_version) for record in history))


def shown_ms(moment_ms: int | None) -> str:
    """Write a moment, or that none is established."""
    return NOT_ESTABLISHED if moment_ms is None else rfc3339_ms(moment_ms)


def declared(copies: Copies) -> DeclaredCopies:
    """Show what a certificate stands on."""
    return DeclaredCopies(
        sha256=copies.sha256,
        complete=copies.complete,
        reviewed=copies.reviewed,
        reviewed_by=copies.reviewed_by,
        copies=[DeclaredCopy(name=copy.name, retention_days=copy.retention_days) for copy in copies.declared],
    )
