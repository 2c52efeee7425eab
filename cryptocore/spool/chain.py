"""One partition of a spool in memory: rows waiting to be sealed, the head, batches waiting to be sent."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from cryptocore.batch import NO_PREVIOUS
from cryptocore.spool.entries import Entry

SEAL_LINES: Final = 500
SEAL_BYTES: Final = 256 * 1024
ROW_LINES: Final = 100
ROW_BYTES: Final = 128 * 1024
"""Of one row; a batch takes whole rows until it is full, so it stays far below what the format allows."""
_LABEL: Final = b"keytrail/spool-row/v1\0"


@dataclass(slots=True)
class Row:
    """The lines that one commit added to one partition."""

    id: int
    number: int
    count: int
    oldest_at: str
    value: bytes = field(repr=False)
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Unsent:
    """A sealed batch that the transport does not have yet."""

    partition: int
    sequence: int
    size: int
    oldest_at: str
    last_row: int


@dataclass(slots=True)
class Chain:
    """One partition: its rows not yet sealed, its head, its batches not yet sent."""

    partition: int
    sequence: int = 0
    previous: bytes = NO_PREVIOUS
    sealed_at_ms: int = 0
    next_row: int = 0
    row_digest: bytes = NO_PREVIOUS
    rows: deque[Row] = field(default_factory=deque)
    lines: int = 0
    size: int = 0
    due_ms: int = 0
    unsent: deque[Unsent] = field(default_factory=deque)

    def full(self) -> bool:
        return self.lines >= SEAL_LINES or self.size >= SEAL_BYTES

    def take(self) -> list[Row]:
        """Take the rows of one batch."""
        taken: list[Row] = []
        lines = size = 0
        while self.rows and lines < SEAL_LINES and size < SEAL_BYTES:
            row = self.rows.popleft()
            lines, size = lines + row.count, size + len(row.value)
            taken.append(row)
        self.lines -= lines
        self.size -= size
        return taken


def in_rows(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Cut the lines of one commit so that a batch never outgrows its limits."""
    rows: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if len(rows[-1]) >= ROW_LINES or size >= ROW_BYTES:
            rows.append([])
            size = 0
        rows[-1].append(entry)
        size += len(entry.line)
    return rows


def row_digest(previous: bytes, partition: int, row: Row) -> bytes:
    """Chain a row to the one before it in its partition."""
    place = partition.to_bytes(2, "big") + row.number.to_bytes(8, "big") + row.count.to_bytes(4, "big")
    return sha256(_LABEL + previous + place + row.oldest_at.encode() + row.value).digest()
