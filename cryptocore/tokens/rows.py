"""Rows of tokens: how they are found, written and erased. Functions of an open transaction; nothing here decides.

A row that ends has its ciphertext overwritten with zeros, then taken away, and becomes a tombstone, all in one
transaction with its event. What the database itself still keeps of the old bytes is docs/tokens.md's to say.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from cryptocore.envelope import Owner, tenant_prefix
from cryptocore.errors import EnvelopeInvalid, RecordInvalid
from cryptocore.events import KeyRef
from cryptocore.lines.texts import MAX_VERSION, owner_parts
from cryptocore.store.token_tables import TOKEN, TURN

_KEY_ID_DIGITS: Final = 32


class Ended(StrEnum):
    """How a generation of a token came to its end."""

    REGENERATED = "regenerated"
    EXPIRED = "expired"
    INVALIDATED = "invalidated"


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What may be said aloud about one generation of a token.

    Attributes:
        generation: from 1; each value of a token is one.
        key_id: the DEK that its ciphertext is under, in hex.
        ended_ms: when its ciphertext was erased; None while it is there.
        ended_by: the actor.
        ended_reason: as in its event.
    """

    owner: Owner
    token_id: str
    generation: int
    key_id: str
    key_version: int
    stored_ms: int
    expires_ms: int
    ended_ms: int | None = None
    ended_as: Ended | None = None
    ended_by: str | None = None
    ended_reason: str | None = None

    @property
    def key(self) -> KeyRef | None:
        """Name the DEK in an event; None where somebody wrote what names no key."""
        if len(self.key_id) != _KEY_ID_DIGITS or not 1 <= self.key_version <= MAX_VERSION:
            return None
        return KeyRef(id=self.key_id, version=self.key_version, kind="dek")


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row with its ciphertext, which is empty when the row is a tombstone."""

    info: TokenInfo
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Which tokens an act reaches: all that have everything that is given.

    Attributes:
        integration_id: of any tenant, unless one is given as well.
        key_id: 16 bytes.
    """

    owner: Owner | None = None
    token_id: str | None = None
    tenant_id: str | None = None
    integration_id: str | None = None
    key_id: bytes | None = None
    key_version: int | None = None

    @property
    def names_somebody(self) -> bool:
        """Say whether it names an owner, a tenant, an integration or a key: less is everybody's."""
        return any(given is not None for given in (self.owner, self.tenant_id, self.integration_id, self.key_id))

    def conditions(self) -> list[ColumnElement[bool]]:
        """Give the conditions on the rows. A tenant is found by the owner, which is authenticated with the value."""
        given = [TOKEN.c[name] == value for name, value in self._columns().items() if value is not None]
        if self.tenant_id is not None and self.integration_id is None:
            prefix = tenant_prefix(self.tenant_id)
            given += [TOKEN.c.owner > prefix, TOKEN.c.owner < prefix + b"\xff"]
        return given

    def _columns(self) -> dict[str, Any]:
        owner = None if self.owner is None else self.owner.encode()
        integration_id = self.integration_id
        if self.tenant_id is not None and integration_id is not None:
            owner, integration_id = Owner.tenant(self.tenant_id, integration_id).encode(), None
        return {
            "owner": owner,
            "token_id": self.token_id,
            "integration_id": integration_id,
            "key_id": self.key_id,
            "key_version": self.key_version,
        }


def live(
    connection: Connection, reach: Reach, *, limit: int, expired_ms: int | None = None, after: TokenInfo | None = None
) -> list[TokenRow]:
    """Read rows that have a ciphertext, in the order of their names.

    One that names no owner or no token is passed over: nobody can use it, and it must not keep the others alive.

    Args:
        expired_ms: only those whose time was over then.
        after: only those whose name comes later.
    """
    query = _of(reach).where(TOKEN.c.ended_ms.is_(None)).limit(limit)
    if expired_ms is not None:
        query = query.where(TOKEN.c.expires_ms <= expired_ms)
    found: list[TokenRow] = []
    last = None if after is None else (after.owner.encode(), after.token_id)
    while len(found) < limit:
        rows = connection.execute(query if last is None else query.where(_later(*last))).mappings().all()
        found += _readable(rows)
        if len(rows) < limit:
            break
        last = (rows[-1]["owner"], rows[-1]["token_id"])
    return found[:limit]


def tombstones(connection: Connection, reach: Reach, *, limit: int) -> list[TokenRow]:
    """Read what is left of tokens that ended, the latest ends first."""
    query = _of(reach).where(TOKEN.c.ended_ms.is_not(None)).order_by(None).order_by(TOKEN.c.ended_ms.desc())
    return _readable(connection.execute(query.limit(limit)).mappings())


def listed(connection: Connection, reach: Reach | None, *, ended: bool, limit: int) -> list[TokenInfo]:
    """List tokens, or tombstones with `ended`; without a reach all of them."""
    find = tombstones if ended else live
    return [row.info for row in find(connection, reach or Reach(), limit=limit)]


def latest(connection: Connection, owner: Owner, token_id: str) -> TokenRow | None:
    """Read the last generation of a token; None when there never was one."""
    query = _of(Reach(owner=owner, token_id=token_id)).order_by(None).order_by(TOKEN.c.generation.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else _row(row)


def write(connection: Connection, row: TokenRow) -> None:
    """Insert a new generation, alive or as a tombstone; the database refuses one that somebody else has written."""
    info = row.info
    connection.execute(
        insert(TOKEN).values(
            owner=info.owner.encode(),
            token_id=info.token_id,
            generation=info.generation,
            integration_id=info.owner.integration_id,
            key_id=bytes.fromhex(info.key_id),
            key_version=info.key_version,
            ciphertext=row.ciphertext or None,
            stored_ms=info.stored_ms,
            expires_ms=info.expires_ms,
            **_ending(info),
        )
    )


def erase(connection: Connection, row: TokenRow, ended: TokenInfo) -> bool:
    """Overwrite a row's ciphertext, take it away and leave the tombstone; False when the row is not as it was read."""
    where = _same(row.info)
    zeroed = update(TOKEN).where(where).values(ciphertext=bytes(len(row.ciphertext)))
    if connection.execute(zeroed).rowcount != 1:
        return False
    connection.execute(update(TOKEN).where(where).values(ciphertext=None, **_ending(ended)))
    return True


def replace_ciphertext(connection: Connection, row: TokenRow, moved: TokenRow) -> bool:
    """Put the same value under another key version; False when the row is not as it was read."""
    same = _same(row.info) & (TOKEN.c.ciphertext == row.ciphertext)
    values = {
        "ciphertext": moved.ciphertext,
        "key_id": bytes.fromhex(moved.info.key_id),
        "key_version": moved.info.key_version,
    }
    return connection.execute(update(TOKEN).where(same).values(**values)).rowcount == 1


def take_turn(connection: Connection, job: str, *, now_ms: int, every_ms: int) -> bool:
    """Say whether this runner is the one that does a job now: nobody else was, for `every_ms`."""
    taken = update(TURN).where((TURN.c.job == job) & (TURN.c.taken_ms <= now_ms - every_ms)).values(taken_ms=now_ms)
    if connection.execute(taken).rowcount == 1:
        return True
    if connection.execute(select(TURN.c.job).where(TURN.c.job == job)).first() is not None:
        return False
    try:
        with connection.begin_nested():
            connection.execute(insert(TURN).values(job=job, taken_ms=now_ms))
    except IntegrityError:
        return False
    return True


_ORDER: Final = (TOKEN.c.owner, TOKEN.c.token_id, TOKEN.c.generation)


def _of(reach: Reach) -> Select[Any]:
    return select(TOKEN).where(*reach.conditions()).order_by(*_ORDER)


def _same(info: TokenInfo) -> Any:
    return (
        (TOKEN.c.owner == info.owner.encode())
        & (TOKEN.c.token_id == info.token_id)
        & (TOKEN.c.generation == info.generation)
        & TOKEN.c.ended_ms.is_(None)
    )


def _ending(info: TokenInfo) -> dict[str, Any]:
    return {
        "ended_ms": info.ended_ms,
        "ended_as": None if info.ended_as is None else info.ended_as.value,
        "ended_by": info.ended_by,
        "ended_reason": info.ended_reason,
    }


def _later(owner: bytes, token_id: str) -> ColumnElement[bool]:
    return (TOKEN.c.owner > owner) | ((TOKEN.c.owner == owner) & (TOKEN.c.token_id > token_id))


def _readable(rows: Iterable[RowMapping]) -> list[TokenRow]:
    found = []
    for row in rows:
        with contextlib.suppress(RecordInvalid):
            found.append(_row(row))
    return found


_TYPES: Final = {
    "owner": bytes,
    "token_id": str,
    "generation": int,
    "key_id": bytes,
    "key_version": int,
    "ciphertext": bytes | None,
    "stored_ms": int,
    "expires_ms": int,
    "ended_ms": int | None,
}
"""SQLite keeps in a column whatever somebody puts there."""


def _row(row: RowMapping) -> TokenRow:
    typed = all(isinstance(row[name], kind) for name, kind in _TYPES.items())
    if not typed or not owner_parts[row["token_id"]]:
        raise RecordInvalid("token", "a row that nobody of us wrote")
    try:
        owner = Owner.decode(row["owner"])
        ended_as = None if row["ended_as"] is None else Ended(row["ended_as"])
    except (EnvelopeInvalid, ValueError, TypeError):
        raise RecordInvalid("token", "a row that nobody of us wrote") from None
    info = TokenInfo(
        owner=owner,
        token_id=row["token_id"],
        generation=row["generation"],
        key_id=row["key_id"].hex(),
        key_version=row["key_version"],
        stored_ms=row["stored_ms"],
        expires_ms=row["expires_ms"],
        ended_ms=row["ended_ms"],
        ended_as=ended_as,
        ended_by=row["ended_by"],
        ended_reason=row["ended_reason"],
    )
    return TokenRow(info, row["ciphertext"] or b"")
