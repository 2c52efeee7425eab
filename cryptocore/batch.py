"""The sealed batch: one Kafka message of 1 to 1000 lines, its seal, and the signature over the seal.

Sealing and opening of one batch by itself. How a chain grows, what a gap or a fork is, and whose clock to believe is
for those who see more than one batch.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from cryptocore.errors import BatchRejected, EventInvalid
from cryptocore.events import Line, decode_line
from cryptocore.lines.plain_uses import PlainUse, ReadLine, read_lines
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import SEALED_BATCH, SIGNATURE_SIZE, SignatureInvalid, Signer, verify

MAX_LINES: Final = 1000
MAX_VALUE: Final = 900 * 1024
SEAL_HEADER: Final = "kt-seal"
SIGNATURE_HEADER: Final = "kt-sig"
SEAL_SIZE: Final = 141
ID_SIZE: Final = 16
DIGEST_SIZE: Final = 32
NO_PREVIOUS: Final = bytes(DIGEST_SIZE)
"""What the first batch of a chain names as the one before it."""

_LAYOUT: Final = struct.Struct(">4sB16s16sHHQIQ32s32s16s")
_MAGIC: Final = b"KTSB"
_FORMAT: Final = 1
_MAX_U16: Final = 0xFFFF
_MAX_INTEGER: Final = 2**53 - 1


@dataclass(frozen=True)
class Seal:
    """What is signed of a batch: where it belongs, what came before it, and the digest of its lines."""

    deployment: bytes
    instance: bytes
    generation: int
    partition: int
    sequence: int
    count: int
    sealed_at_ms: int
    previous: bytes
    value_sha256: bytes
    signer_id: bytes

    def __post_init__(self) -> None:
        _check_seal(self)

    def encode(self) -> bytes:
        """Write the 141 bytes."""
        return _LAYOUT.pack(
            _MAGIC,
            _FORMAT,
            self.deployment,
            self.instance,
            self.generation,
            self.partition,
            self.sequence,
            self.count,
            self.sealed_at_ms,
            self.previous,
            self.value_sha256,
            self.signer_id,
        )

    @classmethod
    def decode(cls, raw: bytes) -> "Seal":
        """Read the 141 bytes.

        Raises:
            BatchRejected: they are no seal of version 1.
        """
        if len(raw) != SEAL_SIZE:
            raise BatchRejected("rejected", SEAL_HEADER, f"not {SEAL_SIZE} bytes")
        magic, version, *fields = _LAYOUT.unpack(raw)
        if magic != _MAGIC or version != _FORMAT:
            raise BatchRejected("rejected", SEAL_HEADER, "not a seal of version 1")
        return cls(*fields)

    @cached_property
    def digest(self) -> bytes:
        """Name the batch: what its successor calls `previous`."""
        return sha256(self.encode()).digest()


def _check_seal(seal: Seal) -> None:
    sizes = {"deployment": ID_SIZE, "instance": ID_SIZE, "signer_id": ID_SIZE}
    sizes |= {"previous": DIGEST_SIZE, "value_sha256": DIGEST_SIZE}
    for name, size in sizes.items():
        if len(getattr(seal, name)) != size:
            raise BatchRejected("rejected", f"seal.{name}", f"not {size} bytes")
    limits = {"generation": (0, _MAX_U16), "partition": (0, _MAX_U16), "count": (1, MAX_LINES)}
    limits |= {"sequence": (0, _MAX_INTEGER), "sealed_at_ms": (0, _MAX_INTEGER)}
    for name, (least, most) in limits.items():
        if not least <= getattr(seal, name) <= most:
            raise BatchRejected("rejected", f"seal.{name}", f"not within {least} and {most}")
    if (seal.sequence == 0) != (seal.previous == NO_PREVIOUS):
        raise BatchRejected("rejected", "seal.previous", "zeros at sequence 0, and nowhere else")


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """The three parts of the message, as they travel."""

    value: bytes = field(repr=False)
    seal: bytes
    signature: bytes

    def headers(self) -> list[tuple[str, bytes]]:
        """Give the message's two headers."""
        return [(SEAL_HEADER, self.seal), (SIGNATURE_HEADER, self.signature)]

    @classmethod
    def from_headers(cls, value: bytes, headers: Sequence[tuple[str, bytes]]) -> "SealedBatch":
        """Take a message apart.

        Raises:
            BatchRejected: a header is missing, repeated, of another size, or one too many.
        """
        found: dict[str, bytes] = {}
        for name, content in headers:
            if name not in (SEAL_HEADER, SIGNATURE_HEADER):
                raise BatchRejected("rejected", "headers", "one that does not belong here")
            if name in found:
                raise BatchRejected("rejected", name, "repeated")
            found[name] = content
        for name, size in ((SEAL_HEADER, SEAL_SIZE), (SIGNATURE_HEADER, SIGNATURE_SIZE)):
            if name not in found:
                raise BatchRejected("rejected", name, "missing")
            if found[name] is None or len(found[name]) != size:
                raise BatchRejected("rejected", name, f"not {size} bytes")
        return cls(value=value, seal=found[SEAL_HEADER], signature=found[SIGNATURE_HEADER])


@dataclass(frozen=True, slots=True)
class OpenedBatch:
    """A batch whose seal held, with its lines read: plain uses as such, all others decoded."""

    seal: Seal
    digest: bytes
    signer: RegisteredSigner
    read: list[ReadLine] = field(repr=False)
    raw_lines: list[bytes] = field(repr=False)
    suspect: bool

    @property
    def lines(self) -> list[Line]:
        """Decode every line, for who reads few batches."""
        both = zip(self.read, self.raw_lines, strict=True)
        return [decode_line(raw) if isinstance(line, PlainUse) else line for line, raw in both]


def seal_batch(
    value: bytes,
    *,
    count: int,
    deployment: bytes,
    instance: bytes,
    generation: int,
    partition: int,
    sequence: int,
    previous: bytes,
    sealed_at_ms: int,
    signer: Signer,
) -> SealedBatch:
    """Seal lines that are already written.

    Args:
        value: the lines, each ended by a newline.
        count: how many there are.
        deployment: the deployment's id, 16 bytes.
        instance: the process's id, 16 bytes.
        generation: of the topic.
        partition: of the topic.
        sequence: the number in the chain (instance, generation, partition), from 0.
        previous: the digest of the batch before it; zeros at 0.
        sealed_at_ms: the sender's clock.
        signer: of the service.

    Raises:
        BatchRejected: every receiver would refuse the batch.
    """
    if len(value) > MAX_VALUE:
        raise BatchRejected("rejected", "value", f"longer than {MAX_VALUE} bytes")
    if value.count(b"\n") != count or not value.endswith(b"\n"):
        raise BatchRejected("rejected", "value", f"not {count} lines, each ended by a newline")
    seal = Seal(
        deployment=deployment,
        instance=instance,
        generation=generation,
        partition=partition,
        sequence=sequence,
        count=count,
        sealed_at_ms=sealed_at_ms,
        previous=previous,
        value_sha256=sha256(value).digest(),
        signer_id=signer.signer_id,
    ).encode()
    return SealedBatch(value=value, seal=seal, signature=signer.sign(SEALED_BATCH, seal))


def open_batch(
    batch: SealedBatch,
    registry: Registry,
    *,
    generation: int,
    partition: int,
    append_ms: int,
) -> OpenedBatch:
    """Verify one batch and decode its lines.

    1. The seal is one of version 1, and the value within its limit.
    2. It was made for this deployment.
    3. Its signer is registered for events at the time the broker appended the batch.
    4. The signature over the seal holds.
    5. It was made for this generation and partition of the topic.
    6. The value is the one sealed.
    7. There are as many lines as the seal says, and each is a line of version 1.
    8. Each line's `service` is the source that the registry names for the signer.

    The caller still owes: the place in the chain (duplicate, fork, gap), `effective_at`, and keeping the lines of a
    batch marked `suspect` out of everything that counts as evidence.

    Raises:
        BatchRejected: its `finding` is `rejected`, `deployment_mismatch`, `signer_unknown`, `seal_invalid` or
            `source_mismatch`.
    """
    # 1
    seal = Seal.decode(batch.seal)
    if len(batch.value) > MAX_VALUE:
        raise BatchRejected("rejected", "value", f"longer than {MAX_VALUE} bytes")
    # 2
    if seal.deployment != registry.deployment:
        raise BatchRejected("deployment_mismatch", "seal.deployment", "not this deployment")
    # 3
    signer = registry.get(seal.signer_id)
    if signer is None or not signer.usable(Role.EVENTS, append_ms):
        raise BatchRejected("signer_unknown", "seal.signer_id", "not registered for events at the append time")
    # 4
    try:
        verify(signer.public_key, SEALED_BATCH, batch.seal, batch.signature)
    except SignatureInvalid as err:
        raise BatchRejected("seal_invalid", SIGNATURE_HEADER, "does not hold") from err
    # 5
    if (seal.generation, seal.partition) != (generation, partition):
        raise BatchRejected("seal_invalid", "seal.partition", "sealed for another partition or generation")
    # 6
    if not compare_digest(sha256(batch.value).digest(), seal.value_sha256):
        raise BatchRejected("seal_invalid", "value", "not the value that was sealed")
    # 7
    pieces = batch.value.split(b"\n")
    if len(pieces) != seal.count + 1:
        raise BatchRejected("seal_invalid", "seal.count", "not the number of lines")
    try:
        read = read_lines(pieces, signer.source)
    except EventInvalid as err:
        raise BatchRejected("rejected", err.field, err.problem) from err
    # 8
    _check_source(read, signer.source)
    return OpenedBatch(
        seal=seal,
        digest=sha256(batch.seal).digest(),
        signer=signer,
        read=read,
        raw_lines=pieces[:-1],
        suspect=signer.suspect(append_ms),
    )


def _check_source(lines: Iterable[ReadLine], source: str) -> None:
    """Compare the services; a plain use was read as one of this source."""
    for number, line in enumerate(lines, 1):
        if not isinstance(line, PlainUse) and line.service != source:
            raise BatchRejected("source_mismatch", f"line {number}: service", f"the signer speaks for {source}")
