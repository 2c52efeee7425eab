"""What a file or a response holds: records out of the containers that Azure's exports come in.

`{"records": […]}`, `{"value": […]}`, a JSON array, one object, Log Analytics tables of columns and rows. Items are cut
out as raw JSON first, so that a large container costs its bytes and not its objects.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

MAX_RECORD: Final = 1_048_576
"""Bytes of one record; Azure's own limit for one is 256 KiB, and vault-access takes no larger message."""


class Unreadable(NamedTuple):
    """Something in a container that is no record; `reason` is one of files.FileReason."""

    reason: str


class NotJson(Exception):
    """The bytes are no JSON document, or one that Azure's exports never are."""


class _Column(Struct):
    name: str


class _Table(Struct):
    columns: list[_Column]
    rows: list[Raw]


class _Tables(Struct):
    tables: list[_Table]


class _Keys(Struct):
    """Which of the containers' names an object has, without decoding what is under them."""

    records: Raw | msgspec.UnsetType = msgspec.UNSET
    value: Raw | msgspec.UnsetType = msgspec.UNSET
    tables: Raw | msgspec.UnsetType = msgspec.UNSET


_items = msgspec.json.Decoder(list[Raw]).decode
_keys = msgspec.json.Decoder(_Keys).decode
_tables = msgspec.json.Decoder(_Tables).decode
_any = msgspec.json.Decoder().decode


def unpack(document: bytes) -> Iterator[dict[str, Any] | Unreadable]:
    """Yield the records of one JSON document, and one Unreadable for each item that is none.

    Raises:
        NotJson: at the first step, before anything was yielded.
    """
    start = document[:64].lstrip()[:1]
    try:
        if start == b"[":
            items = _items(document)
        elif start == b"{":
            found = _contained(document)
            if isinstance(found, dict | Unreadable):
                yield found
                return
            if isinstance(found, _Tables):
                yield from _rows(found)
                return
            items = found
        else:
            raise NotJson
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise NotJson from error
    for item in items:
        yield _record(item)


def _contained(document: bytes) -> dict[str, Any] | Unreadable | _Tables | list[Raw]:
    keys = _keys(document)
    for raw in (keys.records, keys.value):
        if isinstance(raw, Raw) and bytes(raw)[:1] == b"[":
            return _items(raw)
    if isinstance(keys.tables, Raw) and bytes(keys.tables)[:1] == b"[":
        return _tables(document)
    if len(document) > MAX_RECORD:
        return Unreadable("record_too_long")
    one: dict[str, Any] = _any(document)  # it begins as an object does
    return one


def _record(item: Raw) -> dict[str, Any] | Unreadable:
    if len(memoryview(item)) > MAX_RECORD:
        return Unreadable("record_too_long")
    decoded = _decoded(item)
    return decoded if isinstance(decoded, dict) else Unreadable("not_an_object")


def _rows(tables: _Tables) -> Iterator[dict[str, Any] | Unreadable]:
    for table in tables.tables:
        names = [column.name for column in table.columns]
        for raw in table.rows:
            row = _decoded(raw)
            if not isinstance(row, list) or len(row) != len(names):
                yield Unreadable("row_of_other_length")
            else:
                yield dict(zip(names, row, strict=True))


def _decoded(raw: Raw) -> object:
    try:
        return _any(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
