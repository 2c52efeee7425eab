"""How far a destruction is, as its row says it: marks that the transaction of each step sets.

That one was called off is stated, too, and signed: a column that somebody sets back does not bring it to life again.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from sqlalchemy import Connection, update

from cryptocore.audit import no_arrow
from cryptocore.care.statements import Statements
from cryptocore.events import KeyRef
from cryptocore.store.key_store import database_ms
from cryptocore.store.rotation_tables import DESTRUCTION

KIND: Final = "called_off"
"""Of the statement; its subject is the destruction's id, its body says nothing more."""


class CalledOff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is stated of a destruction that was called off."""


def calling_off(ident: bytes, stated: Statements, key: KeyRef) -> Callable[[Connection], None]:
    """Mark and state that it is called off; what that writes raises `Refusal` where it has begun, or was before."""

    def write(connection: Connection) -> None:
        now_ms = database_ms(connection)
        where = (DESTRUCTION.c.destruction_id == ident) & DESTRUCTION.c.begun_ms.is_(None)
        change = update(DESTRUCTION).where(where & DESTRUCTION.c.restored_ms.is_(None)).values(restored_ms=now_ms)
        if stated.history(connection, ident.hex()) or connection.execute(change).rowcount != 1:
            raise no_arrow("the destruction has begun, or was called off", key)
        stated.append(connection, ident.hex(), CalledOff(), before=None, now_ms=now_ms)

    return write


def beginning(ident: bytes, stated: Statements) -> Callable[[Connection], None]:
    """Mark that it has begun; what that writes raises `Refusal` where it was called off, as marked or as stated."""

    def write(connection: Connection) -> None:
        if stated.history(connection, ident.hex()):
            raise no_arrow("the destruction was called off")
        where = (DESTRUCTION.c.destruction_id == ident) & DESTRUCTION.c.restored_ms.is_(None)
        if connection.execute(update(DESTRUCTION).where(where).values(begun_ms=database_ms(connection))).rowcount != 1:
            raise no_arrow("the destruction was called off")

    return write


def ending(ident: bytes) -> Callable[[Connection], None]:
    """Mark that its wrapped DEKs are removed."""

    def write(connection: Connection) -> None:
        where = DESTRUCTION.c.destruction_id == ident
        connection.execute(update(DESTRUCTION).where(where).values(overwritten_ms=database_ms(connection)))

    return write
