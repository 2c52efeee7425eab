"""The state of one partition: records kept as bytes, decoded when touched, and what changed since the last cut.

Keys are a kind byte and an id; values are 0x02 and MessagePack, or 0x01 and JSON, which is read and no longer written
(docs/decisions/0011). A record is a msgspec Struct that its step declares; `get` hands out the live object, and only
`put` marks it changed.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final, TypeVar, cast, overload

import msgspec

MAX_LIVE = 4_096
"""Records of one partition that stay decoded from one cut to the next: a key's history takes a few KiB."""
_JSON: Final = 0x01
_MSGPACK: Final = 0x02
_VERSION: Final = bytes((_MSGPACK,))
_encode = msgspec.msgpack.Encoder().encode

R = TypeVar("R", bound=msgspec.Struct)


def encode(record: Any) -> bytes:
    """Return the value of a state record."""
    return _VERSION + _encode(record)


@overload
def decode(raw: bytes) -> Any: ...
@overload
def decode(raw: bytes, record_type: type[R]) -> R: ...
def decode(raw: bytes, record_type: Any = Any) -> Any:
    """Read the value of a state record; without a type, as plain lists, maps, texts, bytes and numbers."""
    read = msgspec.json.decode if raw[0] == _JSON else msgspec.msgpack.decode
    return read(memoryview(raw)[1:], type=record_type)


class Kind(IntEnum):
    """The first byte of a state key."""

    POSITION = 0x00
    KEY = 0x01
    CHAIN = 0x02
    KEK = 0x03
    CLAIM = 0x04
    USE = 0x05
    PRINCIPAL = 0x06
    SOURCE = 0x07
    FINGERPRINT = 0x08
    SEEN = 0x09
    METER = 0x0A
    ALERT = 0x0B
    BIN = 0x0C
    ADDRESS = 0x0D
    ROTATION = 0x0E


class Records:
    """The records of one kind, by id: as bytes, decoded, and those changed since the last cut.

    A step that touches a record for each of many events may use `live` and `changed` themselves, for a record that it
    found in `live` or got by `get`.
    """

    __slots__ = ("changed", "live", "stored")

    def __init__(self) -> None:
        self.stored: dict[bytes, bytes] = {}
        self.live: dict[bytes, msgspec.Struct] = {}
        self.changed: dict[bytes, None] = {}

    def get(self, ident: bytes, record_type: type[R]) -> R | None:
        """Return the record, or None; the same object as long as it is kept decoded."""
        live = self.live.get(ident)
        if live is not None:
            return cast("R", live)
        raw = self.stored.get(ident)
        if raw is None:
            return None
        record = decode(raw, record_type)
        self.live[ident] = record
        return record

    def put(self, ident: bytes, record: msgspec.Struct) -> None:
        """Keep the record and mark it changed."""
        self.live[ident] = record
        self.changed[ident] = None
        self.stored.setdefault(ident, b"")

    def forget(self, ident: bytes) -> None:
        """Drop the record; the next cut writes a tombstone."""
        self.live.pop(ident, None)
        if self.stored.pop(ident, None) is not None:
            self.changed[ident] = None

    def cut(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Encode what changed since the last cut; None where the record was dropped."""
        live, stored = self.live, self.stored
        for ident in self.changed:
            record = live.get(ident)
            if record is None:
                yield ident, None
            else:
                raw = stored[ident] = encode(record)
                yield ident, raw
        self.changed.clear()


class State:
    """All records of one input partition."""

    def __init__(self) -> None:
        self._records: dict[Kind, Records] = {kind: Records() for kind in Kind}
        self._by_number = {int(kind): records for kind, records in self._records.items()}  # `Kind()` is slow

    def records(self, kind: Kind) -> Records:
        """All records of a kind, for who touches many."""
        return self._records[kind]

    def get(self, kind: Kind, ident: bytes, record_type: type[R]) -> R | None:
        """Return the record, or None; the same object as long as it is kept decoded."""
        return self._records[kind].get(ident, record_type)

    def put(self, kind: Kind, ident: bytes, record: msgspec.Struct) -> None:
        """Keep the record and mark it changed."""
        self._records[kind].put(ident, record)

    def forget(self, kind: Kind, ident: bytes) -> None:
        """Drop the record; the next cut writes a tombstone."""
        self._records[kind].forget(ident)

    def idents(self, kind: Kind) -> list[bytes]:
        """Ids of all records of a kind, in the order they came."""
        return list(self._records[kind].stored)

    def count(self, kind: Kind) -> int:
        return len(self._records[kind].stored)

    @property
    def changed(self) -> bool:
        return any(records.changed for records in self._records.values())

    @property
    def pending(self) -> int:
        """How many records the next cut will write."""
        return sum(len(records.changed) for records in self._records.values())

    def cut(self) -> list[tuple[bytes, bytes | None]]:
        """Encode what changed since the last cut (None = tombstone); many decoded objects are let go."""
        changes = [
            (bytes((kind,)) + ident, raw) for kind, records in self._records.items() for ident, raw in records.cut()
        ]
        if sum(len(records.live) for records in self._records.values()) > MAX_LIVE:
            for records in self._records.values():
                records.live.clear()
        return changes

    def load(self, key: bytes, value: bytes | None) -> None:
        """Take one record of the state log, in log order."""
        records = self._by_number.get(key[0])
        if records is None:
            raise ValueError(f"state record {key.hex()}: unknown kind")
        if value is None:
            records.stored.pop(key[1:], None)
        elif not value or value[0] not in {_MSGPACK, _JSON}:
            raise ValueError(f"state record {key.hex()}: unknown version {value[:1].hex()}")
        else:
            records.stored[key[1:]] = value

    def dump(self) -> dict[bytes, bytes]:
        """Every record as it would be read back: for comparing two runs."""
        out: dict[bytes, bytes] = {}
        for kind, records in self._records.items():
            first = bytes((kind,))
            out |= {first + ident: raw for ident, raw in records.stored.items()}
            out |= {first + ident: encode(record) for ident, record in records.live.items()}
        return out
