"""Rows of the key store, and when they are believed: their signed record holds, and their columns agree with it."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sqlalchemy import RowMapping

from cryptocore.envelope import Owner
from cryptocore.errors import EnvelopeInvalid, KeyRecordRollback, RecordInvalid
from cryptocore.records import KeyRecord, SignedRecord, verify_record
from cryptocore.registry import Registry


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """A key version whose record was verified, or is about to be written."""

    record: KeyRecord = field(repr=False)
    signed: SignedRecord = field(repr=False)
    owner: Owner
    wrapped_dek: bytes = field(repr=False)

    @property
    def key_id(self) -> bytes:
        return self.record.key_id

    @property
    def number(self) -> int:
        return self.record.key_version

    @property
    def newest(self) -> bool:
        """Whether nothing superseded it."""
        return self.record.superseded_by == 0


def verified(row: RowMapping, registry: Registry) -> tuple[KeyRecord, SignedRecord]:
    """Believe the record of a row, and nothing else of it.

    Raises:
        RecordInvalid: it does not hold.
    """
    for name in ("record", "signature"):
        _check_bytes(name, row[name])
    signed = SignedRecord(record=row["record"], signature=row["signature"])
    record = verify_record(signed, registry, at_ms=KeyRecord.decode(signed.record).changed_at_ms)
    return record, signed


def believed(row: RowMapping, registry: Registry) -> KeyVersion:
    """Believe a row whose columns agree with its record.

    Raises:
        RecordInvalid: it is not to be believed.
        KeyRecordRollback: its own history is ahead of it.
    """
    record, signed = verified(row, registry)
    for name in ("owner", "wrapped_dek"):
        _check_bytes(name, row[name])
    try:
        owner = Owner.decode(row["owner"])
    except EnvelopeInvalid as err:
        raise RecordInvalid("owner", err.problem) from None
    version = KeyVersion(record=record, signed=signed, owner=owner, wrapped_dek=row["wrapped_dek"])
    for name, value in columns_of(version).items():
        if row[name] != value:
            raise RecordInvalid(name, "the row does not agree with its record")
    if owner.digest() != record.owner_sha256:
        raise RecordInvalid("owner", "the row does not agree with its record")
    if sha256(version.wrapped_dek).digest() != record.wrapped_dek_sha256:
        raise RecordInvalid("wrapped_dek", "the row does not agree with its record")
    if row["last_revision"] != record.revision:
        raise KeyRecordRollback("the history of the key version is ahead of it, or gone")
    return version


def columns_of(version: KeyVersion) -> dict[str, Any]:
    """Write the columns that are an index over a record."""
    record = version.record
    return {
        "key_id": record.key_id,
        "version": record.key_version,
        "revision": record.revision,
        "state": record.state.value,
        "owner": version.owner.encode(),
        "superseded_by": record.superseded_by,
        "retire_at_ms": record.retire_at_ms,
        "kek_alias": record.kek_alias,
        "kek_version": record.kek_version,
        "wrapped_dek": version.wrapped_dek,
    }


def _check_bytes(name: str, value: object) -> None:
    """SQLite keeps a text in a column of bytes when somebody puts it there."""
    if not isinstance(value, bytes):
        raise RecordInvalid(name, "not bytes")
