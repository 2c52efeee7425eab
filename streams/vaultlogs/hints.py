"""What a file that cannot be read seems to be, by its first bytes, and what its owner can do about it."""

import gzip
import zlib
from pathlib import Path
from typing import Final

_HEAD: Final = 4_096
_MAGIC: Final = (
    (b"PK\x03\x04", "a ZIP archive or an Excel file: unpack it, or export the records as JSON"),
    (b"Obj\x01", "Avro, as Event Hubs Capture writes it: read the hub with `keytrail vault-feed eventhub` instead"),
    (b"PAR1", "Parquet: export the records as JSON"),
    (b"SQLite format 3\x00", "a SQLite database: export the records as JSON"),
    (b"%PDF", "a PDF: export the records as JSON"),
)
_BINARY: Final = "no text: look where it comes from, and export the records as JSON"
_MARKUP: Final = "HTML or XML, perhaps a page that was saved instead of the file: download it again"
_TABLE: Final = "a table (CSV): export the records as JSON instead"
_DELIMITERS: Final = (b",", b";", b"\t")
_COLUMNS: Final = 4
"""A heading with fewer columns is no export of Key Vault records."""
_WORDS: Final = {
    "missing": "it is not there",
    "unreadable": "the file could not be opened: look at its permissions",
    "not_utf8": "seems to be UTF-16, as Windows PowerShell writes it: write it again as UTF-8",
    "damaged_archive": "the gzip file is damaged or cut off: copy it again",
    "document_too_long": "one JSON document beyond the limit of 256 MiB: export shorter spans of time",
    "line_too_long": "longer than 4 MiB: no export of records has such lines",
    "record_too_long": "longer than 1 MiB: Azure's records are shorter",
    "cut_short": "the end of the last record is missing: the file was copied while it was written, so copy it again",
    "not_an_object": "a record is a JSON object, and this is none",
    "row_of_other_length": "the row has another number of fields than the table has columns",
}


def seems(first: bytes) -> str | None:
    """Say what a file is by its first line that says something; None where it may hold records as JSON."""
    start = first.lstrip()
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if b"\x00" in first:
        return _BINARY
    if start.startswith(b"<"):
        return _MARKUP
    columns = max(start.count(delimiter) for delimiter in _DELIMITERS) + 1
    is_table = columns >= _COLUMNS and not any(sign in start for sign in (b"{", b"}", b'":'))
    return _TABLE if is_table and not start.startswith(b"[") else None


def explained(path: Path, line: int | None, reason: str) -> str:
    """Return a reason with what it means for this file, in one line for people."""
    if reason == "unsupported_file":
        return f"{reason}: seems to be {_by_name(path) or seems(first_line(path)) or _BINARY}"
    if reason != "not_json":
        return f"{reason}: {_WORDS[reason]}" if reason in _WORDS else reason
    if line is not None:
        return f"{reason}: the line is no JSON document; the file's other lines were read"
    return f"{reason}: begins as JSON and does not parse to its end: cut off or edited, so copy or export it again"


def _by_name(path: Path) -> str | None:
    names = path.name.lower().removesuffix(".gz")
    if names.endswith((".csv", ".tsv")):
        return _TABLE
    return _MAGIC[0][1] if names.endswith(".xlsx") else None


def first_line(path: Path) -> bytes:
    """Read the first line that says something, packed or not; nothing where that fails."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            head = gzip.GzipFile(fileobj=file).read(_HEAD) if packed else file.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return b""
    return next((line for line in head.splitlines() if line.strip()), b"")
