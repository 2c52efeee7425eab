"""The port to the index: documents in, found again by a few exact fields and a time range.

Two adapters, one contract test: `elastic` (production) and `embedded` (SQLite: demo, replay).
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from msgspec import Struct


class DocKind(StrEnum):
    """One family of documents, one index name pattern each."""

    EVENT = "event"
    CONTROL = "control"
    VAULT_ACCESS = "vault-access"
    KEK_USE = "kek-use"
    ALERT = "alert"
    REJECTED = "rejected"


class Document(Struct, frozen=True, gc=False):
    """One document as bytes.

    `day_ms` names the index by the event's day; None for kinds that live in one index. `version` 0 is written once
    (`create`: the same id again changes nothing); above 0 it is an external version, and only a higher one overwrites.
    `state_key` is (kind byte | id) of the state record a versioned document belongs to.
    """

    kind: DocKind
    id: str
    body: bytes
    day_ms: int | None
    version: int = 0
    state_key: bytes | None = None


class Refused(NamedTuple):
    """A document that the index will never take, and why; its text holds no field values."""

    document: Document
    reason: str


class IndexUnavailable(Exception):
    """The index did not answer, or asked to wait; nothing is known to be written; try again."""


class EventIndex(Protocol):
    """Where documents are written and found. Times are milliseconds since the epoch, ranges half open."""

    async def ensure(self) -> None:
        """Create templates or tables; safe to repeat."""

    async def write(self, documents: Sequence[Document]) -> list[Refused]:
        """Write all or raise IndexUnavailable; an id that is already there is success."""

    async def find(
        self,
        kind: DocKind,
        *,
        where: Mapping[str, str | int | bool] | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return documents by @timestamp, then id, oldest first; `where` maps dotted fields to exact values."""

    async def count_by(
        self,
        kind: DocKind,
        fields: Sequence[str],
        *,
        where: Mapping[str, str | int | bool] | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> dict[tuple[str, ...], int]:
        """Count documents by the values of dotted fields (a missing one counts under "")."""

    async def close(self) -> None:
        """Let go of connections."""
