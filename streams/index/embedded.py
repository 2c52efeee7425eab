"""The index in one SQLite file: for the demo and for replays, where one process writes and reads.

Calls do their work at once, in the caller's thread: a bulk takes milliseconds and nobody else is waiting.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from cryptocore.clock import rfc3339_ms
from streams.index.port import DocKind, Document, IndexUnavailable, Refused

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS documents (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    at TEXT NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;
CREATE INDEX IF NOT EXISTS documents_by_time ON documents (kind, at, id);
"""
_SIMULATED: Final = 1
# Written once, or overwritten by a higher version alone.
_WRITE: Final = """
INSERT INTO documents (kind, id, at, version, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (kind, id) DO UPDATE SET at = excluded.at, version = excluded.version, body = excluded.body
WHERE excluded.version > documents.version
"""
_decode = msgspec.json.decode


class _Timed(msgspec.Struct):
    at: str = msgspec.field(name="@timestamp")


_timestamp = msgspec.json.Decoder(_Timed).decode


class EmbeddedIndex:
    """EventIndex over a SQLite file, made when it is not there.

    Args:
        simulated: mark a new file as holding made-up data, for whoever reports on it later.
    """

    def __init__(self, path: Path, *, simulated: bool = False) -> None:
        self._path = path
        self._mark = simulated
        self._connection: sqlite3.Connection | None = None

    async def ensure(self) -> None:
        self._connected().executescript(_SCHEMA)
        if self._mark:
            self._connected().execute(f"PRAGMA user_version = {_SIMULATED}")

    @property
    def simulated(self) -> bool:
        """Whether the file says that its data is made up."""
        (version,) = self._connected().execute("PRAGMA user_version").fetchone()
        return bool(version == _SIMULATED)

    async def write(self, documents: Sequence[Document]) -> list[Refused]:
        rows, refused = _rows(documents)
        connection = self._connected()
        try:
            with connection:
                connection.executemany(_WRITE, rows)
        except sqlite3.OperationalError as err:
            raise IndexUnavailable(f"SQLite: {err}") from err
        return refused

    async def find(
        self,
        kind: DocKind,
        *,
        where: Mapping[str, str | int | bool] | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        condition, values = _condition(kind, where, since_ms, until_ms)
        query = f"SELECT body FROM documents WHERE {condition} ORDER BY at, id LIMIT ?"  # noqa: S608 - no value in it
        rows = self._read(query, [*values, -1 if limit is None else limit])
        return [_decode(body) for (body,) in rows]

    async def count_by(
        self,
        kind: DocKind,
        fields: Sequence[str],
        *,
        where: Mapping[str, str | int | bool] | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> dict[tuple[str, ...], int]:
        condition, values = _condition(kind, where, since_ms, until_ms)
        columns = ", ".join(f"{_TEXT} AS field_{place}" for place in range(len(fields)))
        groups = ", ".join(f"field_{place}" for place in range(len(fields)))
        query = f"SELECT {columns}, count(*) FROM documents WHERE {condition} GROUP BY {groups}"  # noqa: S608 - the same
        paths = [path for field in fields for path in (_path(field), _path(field))]
        return {tuple(found): count for *found, count in self._read(query, [*paths, *values])}

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = sqlite3.connect(self._path)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = NORMAL")
            except sqlite3.OperationalError as err:
                raise IndexUnavailable(f"SQLite: {err}") from err
        return self._connection

    def _read(self, query: str, values: Sequence[str | int]) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._connected().execute(query, values)
        except sqlite3.OperationalError as err:
            raise IndexUnavailable(f"SQLite: {err}") from err


def _rows(documents: Iterable[Document]) -> tuple[list[tuple[str, str, str, int, str]], list[Refused]]:
    rows: list[tuple[str, str, str, int, str]] = []
    refused: list[Refused] = []
    for document in documents:
        try:
            at = _timestamp(document.body).at
            rows.append((document.kind, document.id, at, document.version, document.body.decode()))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            refused.append(Refused(document, "not a JSON object with @timestamp"))
    return rows, refused


# As text: true and false by their names, a missing field as "".
_TEXT: Final = (
    "CASE json_type(body, ?) WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' "
    "ELSE coalesce(CAST(json_extract(body, ?) AS TEXT), '') END"
)


def _condition(
    kind: DocKind,
    where: Mapping[str, str | int | bool] | None,
    since_ms: int | None,
    until_ms: int | None,
) -> tuple[str, list[str | int]]:
    terms = ["kind = ?"]
    values: list[str | int] = [kind]
    for sign, limit_ms in ((">=", since_ms), ("<", until_ms)):
        if limit_ms is not None:
            terms.append(f"at {sign} ?")
            values.append(rfc3339_ms(limit_ms))
    for field, wanted in (where or {}).items():
        if isinstance(wanted, bool):
            terms.append("json_type(body, ?) = ?")
            values += [_path(field), "true" if wanted else "false"]
        else:
            terms.append("json_extract(body, ?) = ?")
            values += [_path(field), wanted]
    return " AND ".join(terms), values


def _path(field: str) -> str:
    """Turn `keytrail.key.id` into SQLite's JSON path; a quote cannot be part of a name of ours."""
    if '"' in field:
        raise ValueError("a field's name holds no quote")
    return '$."' + '"."'.join(field.split(".")) + '"'
