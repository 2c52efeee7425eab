"""A file that grows: what is new in it since a position, in parts, each with the position after it.

Lines (the blob export PT1H.json above all) are taken one by one; a last line that is cut short is left for later, and
one that is whole although no newline follows yet is taken. A document over many lines, or a packed file, is taken as a
whole or not at all. A file that was replaced is another file, and read from its start.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from msgspec.structs import replace

from streams.feeds.durable import Position
from streams.vaultlogs.containers import NotJson, Unreadable, unpack
from streams.vaultlogs.files import (
    MAX_LINE,
    FileReason,
    FileRecord,
    FileRejected,
    Read,
    read_file,
    spans_lines,
)

PART: Final = 500
"""Records after which a position is given."""
MARK: Final = 4096
"""Bytes at either end of what was taken by which the file is known again."""
_BOM: Final = b"\xef\xbb\xbf"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_CHUNK: Final = 65_536
_GZIP: Final = b"\x1f\x8b"
_BROKEN: Final = frozenset({FileReason.NOT_JSON, FileReason.DAMAGED_ARCHIVE, FileReason.CUT_SHORT})
"""What a document that is still being written looks like."""


@dataclass(slots=True)
class Part:
    """What was found, and the position once all of it is safe; None: look again as if nothing had been read."""

    position: Position | None
    found: list[Read] = field(default_factory=list)
    replaced: bool = False


def follow(path: Path, known: Position | None, *, settled: bool) -> Iterator[Part]:
    """Read what is new.

    Args:
        path: an existing file.
        known: the last position, None for a file never seen.
        settled: nobody has written to the file for a while: a document that is not whole will not become so.

    Raises:
        OSError: the file cannot be read, or went away.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        seen = Position(size=status.st_size, mtime_ns=status.st_mtime_ns)
        if known is not None and is_unchanged(known, status):
            return
        replaced = known is not None and not _same(file, known, status.st_size)
        first = _first_line(file)
        if first.startswith(_UTF16):
            rejected = FileRejected(path, None, FileReason.NOT_UTF8)
            yield Part(replace(seen, offset=seen.size, whole=True), [rejected], replaced)
        elif first.startswith(_GZIP) or spans_lines(first):
            yield _document(path, seen, replaced=replaced, settled=settled)
        elif known is None or known.whole or replaced:
            yield from _lines(path, file, seen, replaced=replaced)
        else:
            yield from _lines(path, file, replace(seen, offset=known.offset, lines=known.lines), replaced=False)


def is_unchanged(known: Position, status: os.stat_result) -> bool:
    """Tell whether nothing was written since the position was taken."""
    return (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns)


def _same(file: IO[bytes], known: Position, size: int) -> bool:
    """Tell whether the file still begins with what was taken of it; a whole document is simply read again."""
    if known.whole or known.offset == 0:
        return True
    return size >= known.offset and _marks(file, known.offset) == (known.head, known.tail)


def _marks(file: IO[bytes], offset: int) -> tuple[str, str]:
    """Digest the first bytes and the last ones before the offset; the file stands at the offset afterwards."""
    length = min(MARK, offset)
    file.seek(0)
    head = file.read(length)
    file.seek(offset - length)
    tail = file.read(length)
    return hashlib.sha256(head).hexdigest(), hashlib.sha256(tail).hexdigest()


def _first_line(file: IO[bytes]) -> bytes:
    """Return the first line that says something, as far as a line may go."""
    file.seek(0)
    for line in iter(lambda: file.readline(MAX_LINE + 1), b""):
        if line.removeprefix(_BOM).strip():
            return line.removeprefix(_BOM)
    return b""


def _document(path: Path, seen: Position, *, replaced: bool, settled: bool) -> Part:
    found = list(read_file(path))
    broken = any(isinstance(item, FileRejected) and item.reason in _BROKEN for item in found)
    if broken and not settled:
        return Part(None, replaced=replaced)
    return Part(replace(seen, offset=seen.size, whole=True), found, replaced)


def _lines(path: Path, file: IO[bytes], start: Position, *, replaced: bool) -> Iterator[Part]:
    """Read whole lines from the position on. Only the last part's position says that the file was read to its end."""
    offset, lines, cut = start.offset, start.lines, False
    found: list[Read] = []
    file.seek(offset)
    while line := file.readline(MAX_LINE + 1):
        taken = _taken(path, file, lines + 1, line, first=offset == 0)
        if taken is None:
            cut = True
            break
        length, ended, items = taken
        offset, lines = offset + length, lines + ended
        found += items
        if len(found) >= PART:
            head, tail = _marks(file, offset)
            yield Part(Position(offset=offset, lines=lines, size=-1, head=head, tail=tail), found, replaced)
            found, replaced = [], False
    head, tail = _marks(file, offset)
    yield Part(replace(start, offset=offset, lines=lines, head=head, tail=tail, cut=cut), found, replaced)


def _taken(
    path: Path, file: IO[bytes], number: int, line: bytes, *, first: bool
) -> tuple[int, bool, list[Read]] | None:
    """Return a line's length, whether it has ended, and what is in it; None where it is cut short."""
    ended = line.endswith(b"\n")
    if not ended and len(line) > MAX_LINE:
        length = len(line)
        while line and not line.endswith(b"\n"):
            line = file.readline(_CHUNK)
            length += len(line)
        return (length, True, [FileRejected(path, number, FileReason.LINE_TOO_LONG)]) if line else None
    said = line.removeprefix(_BOM) if first else line
    if not said.strip():
        return len(line), ended, []
    try:
        found = list(unpack(said))
    except NotJson:
        return (len(line), True, [FileRejected(path, number, FileReason.NOT_JSON)]) if ended else None
    items: list[Read] = [
        FileRejected(path, number, FileReason(one.reason), item)
        if isinstance(one, Unreadable)
        else FileRecord(path, number, one, item)
        for item, one in enumerate(found, start=1)
    ]
    return len(line), ended, items
