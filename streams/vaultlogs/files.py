"""Vault logs in files and folders: every record with its place, every failure with its reason, nothing loaded whole.

NDJSON (the blob export PT1H.json above all) is read line by line; only a document that spans lines is held in memory,
up to a bound. The last line of a blob that is still being written may be cut short: that is said as such.
"""

import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from streams.vaultlogs.containers import MAX_RECORD, NotJson, Unreadable, unpack
from streams.vaultlogs.hints import seems
from streams.vaultlogs.messages import file_key, wrap

__all__ = ("FileReason", "FileRecord", "FileRejected", "Read", "file_key", "read", "read_file", "wrap")

MAX_DOCUMENT: Final = 256 * 1_048_576
"""Bytes of a document that does not come line by line."""
MAX_LINE: Final = 4 * MAX_RECORD
"""Bytes of a line after the first; a line may be a container (Event Hubs sends up to 1 MiB at once)."""
SUFFIXES: Final = frozenset({".json", ".ndjson", ".jsonl", ".log", ".txt"})
TABULAR: Final = frozenset({".csv", ".tsv", ".xlsx"})
_BOM: Final = b"\xef\xbb\xbf"
_GZIP: Final = b"\x1f\x8b"
_OPEN: Final = (b"[", b"{", b",")
"""How the first line of a document ends that goes on; a record of its own never does."""
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_CHUNK: Final = 65_536


class FileReason(StrEnum):
    """Why a file, a line or an item was not read."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNSUPPORTED_FILE = "unsupported_file"
    NOT_UTF8 = "not_utf8"
    DAMAGED_ARCHIVE = "damaged_archive"
    DOCUMENT_TOO_LONG = "document_too_long"
    LINE_TOO_LONG = "line_too_long"
    RECORD_TOO_LONG = "record_too_long"
    NOT_JSON = "not_json"
    CUT_SHORT = "cut_short"
    NOT_AN_OBJECT = "not_an_object"
    ROW_OF_OTHER_LENGTH = "row_of_other_length"


class FileRecord(NamedTuple):
    """One record and its place: the line (None where the document spans lines) and the item of that document."""

    path: Path
    line: int | None
    original: dict[str, Any]
    item: int = 1


class FileRejected(NamedTuple):
    """What could not be read, and where."""

    path: Path
    line: int | None
    reason: FileReason
    item: int | None = None


Read = FileRecord | FileRejected


def read(paths: Iterable[Path]) -> Iterator[Read]:
    """Read files, and folders with all below them, in the order of their names."""
    for path in walk(paths):
        if _is_file(path):
            yield from read_file(path)
        elif path.is_dir():
            yield FileRejected(path, None, FileReason.UNREADABLE)
        else:
            yield FileRejected(path, None, FileReason.MISSING)


def walk(paths: Iterable[Path]) -> Iterator[Path]:
    """List what `read` looks at: files as they are named, and of folders what is a log or claims to hold one.

    Hidden files and other kinds are skipped; a table export and a folder that cannot be listed are not, because silence
    would mislead.
    """
    for path in paths:
        if path.is_dir():
            files, closed = below(path)
            yield from sorted([*(file for file in files if _suffix(file) in SUFFIXES | TABULAR), *closed])
        else:
            yield path


def below(folder: Path) -> tuple[list[Path], list[Path]]:
    """What lies below a folder, by name: its files, and the folders that cannot be listed; nothing hidden."""
    closed: list[Path] = []
    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=lambda problem: closed.append(Path(problem.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place) / name for name in names if not name.startswith(".")]
    return sorted(filter(_is_file, files)), sorted(closed)


def _is_file(path: Path) -> bool:
    """Whether it is one to open; one that may not even be looked at is, so that opening it says so."""
    try:
        return path.is_file()
    except PermissionError:
        return True


def _suffix(path: Path) -> str:
    return (Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix).lower()


def read_file(path: Path) -> Iterator[Read]:
    """Read one file, packed with gzip or not; never raises for what is in it."""
    if _suffix(path) in TABULAR:
        yield FileRejected(path, None, FileReason.UNSUPPORTED_FILE)
        return
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == _GZIP
            if packed:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield from _read_stream(path, unpacked)
            else:
                yield from _read_stream(path, raw)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        yield FileRejected(path, None, FileReason.DAMAGED_ARCHIVE)
    except OSError:
        yield FileRejected(path, None, FileReason.UNREADABLE)


def _read_stream(path: Path, stream: io.BufferedIOBase) -> Iterator[Read]:
    """Decide by the first line that says something: is it a document, lines follow; is it the start of one, read it."""
    number = 0
    for first in iter(lambda: stream.readline(MAX_DOCUMENT + 1), b""):
        number += 1
        if number == 1 and first.startswith(_UTF16):
            yield FileRejected(path, None, FileReason.NOT_UTF8)
            return
        line = first.removeprefix(_BOM) if number == 1 else first
        if not line.strip():
            continue
        if len(line) > MAX_DOCUMENT:
            yield FileRejected(path, None, FileReason.DOCUMENT_TOO_LONG)
        elif seems(line) is not None:
            yield FileRejected(path, None, FileReason.UNSUPPORTED_FILE)
        elif spans_lines(line):
            yield from _read_document(path, line, stream)
        else:
            yield from _read_line(path, number, line)
            yield from _read_lines(path, number, stream)
        return


def spans_lines(first: bytes) -> bool:
    """Tell by its first line that says something whether a file is one document over many lines."""
    return first.rstrip().endswith(_OPEN)


def _read_document(path: Path, line: bytes, stream: io.BufferedIOBase) -> Iterator[Read]:
    """Read a document that spans lines; one that does not parse is one rejection, whatever is left of it."""
    document = line + stream.read(MAX_DOCUMENT + 1 - len(line))
    if len(document) > MAX_DOCUMENT:
        yield FileRejected(path, None, FileReason.DOCUMENT_TOO_LONG)
        return
    try:
        yield from _placed(path, None, document)
    except NotJson:
        yield FileRejected(path, None, FileReason.NOT_JSON)


def _read_lines(path: Path, number: int, stream: io.BufferedIOBase) -> Iterator[Read]:
    """Read the lines after line `number`."""
    for line in iter(lambda: stream.readline(MAX_LINE + 1), b""):
        number += 1
        if len(line) > MAX_LINE:
            while line and not line.endswith(b"\n"):
                line = stream.readline(_CHUNK)  # noqa: PLW2901 - the rest of the same line
            yield FileRejected(path, number, FileReason.LINE_TOO_LONG)
        elif line.strip():
            yield from _read_line(path, number, line)


def _read_line(path: Path, number: int, line: bytes) -> Iterator[Read]:
    try:
        yield from _placed(path, number, line)
    except NotJson:
        cut = not line.endswith(b"\n") and line.lstrip().startswith((b"{", b"["))
        yield FileRejected(path, number, FileReason.CUT_SHORT if cut else FileReason.NOT_JSON)


def _placed(path: Path, line: int | None, document: bytes) -> Iterator[Read]:
    for item, found in enumerate(unpack(document), start=1):
        if isinstance(found, Unreadable):
            yield FileRejected(path, line, FileReason(found.reason), item)
        else:
            yield FileRecord(path, line, found, item)
