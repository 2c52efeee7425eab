"""The state of one partition: records kept as bytes, decoded when touched, and what changed since the last cut.

Keys are a kind byte and an id; values are 0x01 and JSON (design: state topic). A record is a msgspec Struct that its
step declares; `get` hands out the live object, and only `put` marks it changed.
"""

from enum import IntEnum
from typing import TypeVar, cast

import msgspec

MAX_LIVE = 4_096
"""Records of one partition that stay decoded from one cut to the next: a key's history takes a few KiB."""
_VERSION = b"\x01"
_encode = msgspec.json.Encoder().encode

R = TypeVar("R", bound=msgspec.Struct)


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


class State:
    """All records of one input partition."""

    def __init__(self) -> None:
        self._stored: dict[Kind, dict[bytes, bytes]] = {kind: {} for kind in Kind}
        self._live: dict[tuple[Kind, bytes], msgspec.Struct] = {}
        self._changed: dict[tuple[Kind, bytes], None] = {}

    def get(self, kind: Kind, ident: bytes, record_type: type[R]) -> R | None:
        """Return the record, or None; the same object as long as it is kept decoded."""
        live = self._live.get((kind, ident))
        if live is not None:
            return cast("R", live)
        raw = self._stored[kind].get(ident)
        if raw is None:
            return None
        record = msgspec.json.decode(memoryview(raw)[1:], type=record_type)
        self._live[kind, ident] = record
        return record

    def put(self, kind: Kind, ident: bytes, record: msgspec.Struct) -> None:
        """Keep the record and mark it changed."""
        key = (kind, ident)
        self._live[key] = record
        self._changed[key] = None
        self._stored[kind].setdefault(ident, b"")

    def forget(self, kind: Kind, ident: bytes) -> None:
        """Drop the record; the next cut writes a tombstone."""
        self._live.pop((kind, ident), None)
        if self._stored[kind].pop(ident, None) is not None:
            self._changed[kind, ident] = None

    def idents(self, kind: Kind) -> list[bytes]:
        """Ids of all records of a kind, in the order they came."""
        return list(self._stored[kind])

    def count(self, kind: Kind) -> int:
        return len(self._stored[kind])

    @property
    def changed(self) -> bool:
        return bool(self._changed)

    @property
    def pending(self) -> int:
        """How many records the next cut will write."""
        return len(self._changed)

    def cut(self) -> list[tuple[bytes, bytes | None]]:
        """Encode what changed since the last cut (None = tombstone); many decoded objects are let go."""
        changes: list[tuple[bytes, bytes | None]] = []
        for kind, ident in self._changed:
            record = self._live.get((kind, ident))
            raw = None if record is None else _VERSION + _encode(record)
            if raw is not None:
                self._stored[kind][ident] = raw
            changes.append((bytes((kind,)) + ident, raw))
        self._changed.clear()
        if len(self._live) > MAX_LIVE:
            self._live.clear()
        return changes

    def load(self, key: bytes, value: bytes | None) -> None:
        """Take one record of the state log, in log order."""
        kind, ident = Kind(key[0]), key[1:]
        if value is None:
            self._stored[kind].pop(ident, None)
        elif value[:1] != _VERSION:
            raise ValueError(f"state record {key.hex()}: unknown version {value[:1].hex()}")
        else:
            self._stored[kind][ident] = value

    def dump(self) -> dict[bytes, bytes]:
        """Every record as it would be read back: for comparing two runs."""
        out = {bytes((kind,)) + ident: raw for kind, kept in self._stored.items() for ident, raw in kept.items()}
        for (kind, ident), record in self._live.items():
            out[bytes((kind,)) + ident] = _VERSION + _encode(record)
        return out
