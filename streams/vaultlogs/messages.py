"""Messages of the topic `vault-access`: a record as received, and the key that brings all copies of it together.

A feed reads only as much as the key needs. The record travels whole, so that a better normaliser can read it again
(docs/formats.md, "Vault attempts and the join").
"""

from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from cryptocore.clock import rfc3339
from streams.vaultlogs.fields import Record
from streams.vaultlogs.objects import place
from streams.vaultlogs.operations import classify
from streams.vaultlogs.rejection import VaultRecordRejected
from streams.vaultlogs.shapes import read

UNPLACED: Final = b"/"
"""Key of what names no vault: it will be rejected, once, by whoever owns that partition."""


class VaultRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One message; `fetched_at` is RFC 3339, `original` the record as received."""

    v: Literal[1]
    feed: str
    resource_id: str | None = None
    fetched_at: str
    original: Raw


_encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(VaultRecord).decode


def file_key(original: Record) -> bytes:
    """Return `vault/name` of a record in lower case, `vault/` where it names no object; never raises."""
    try:
        fields = read(original)
        where = place(fields, classify(fields.operation or "")[0])
        return UNPLACED if where.vault is None else f"{where.vault}/{where.name or ''}".encode()
    except (VaultRecordRejected, UnicodeEncodeError):
        return UNPLACED


def wrap(original: dict[str, Any], *, feed: str, resource_id: str | None, fetched_us: int) -> bytes:
    """Write the message of one record.

    Args:
        original: the record as decoded, unchanged.
        feed: which feed read it.
        resource_id: the vault's resource id where the feed knows it apart from the record.
        fetched_us: when the feed got it.
    """
    return _encode(
        VaultRecord(
            v=1,
            feed=feed,
            resource_id=resource_id or None,
            fetched_at=rfc3339(fetched_us),
            original=Raw(_encode(original)),
        )
    )
