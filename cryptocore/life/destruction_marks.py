"""How far a destruction is, as its row says it: marks that the transaction of each step sets."""

from collections.abc import Callable

from sqlalchemy import Connection, update

from cryptocore.audit import no_arrow
from cryptocore.store.key_store import database_ms
from cryptocore.store.rotation_tables import DESTRUCTION


def beginning(ident: bytes) -> Callable[[Connection], None]:
    """Mark that it has begun; what that writes raises `Refusal` where it was called off."""

    def write(connection: Connection) -> None:
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
