"""A caller's rows, as `reencrypt` asks for them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from cryptocore.envelope import Owner
from cryptocore.store.cursors import Progress


@dataclass(frozen=True, slots=True)
class Row:
    """A ciphertext of the caller.

    Attributes:
        id: unique; rows are listed in its order, as Python compares texts.
        owner: for whom it is encrypted now.
        record: the place it is encrypted for now.
        to_owner: for whom it shall be; None: the same.
        to_record: the place it shall be for; None: the same.
    """

    id: str
    ciphertext: bytes = field(repr=False)
    owner: Owner
    record: str
    to_owner: Owner | None = None
    to_record: str | None = None


class Rows(Protocol):
    """The caller's rows."""

    def after(self, row_id: str) -> AsyncIterator[Row]:
        """List the rows whose id is greater, in the order of their ids; the empty text: all."""

    async def replace(self, row: Row, ciphertext: bytes) -> bool:
        """Put a ciphertext in the place of the row's, if it still holds that one; say whether it did."""


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """How a run ended: what it did, and the ids of rows that failed, at most 1,000."""

    progress: Progress
    failed: tuple[str, ...]
