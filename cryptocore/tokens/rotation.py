"""A token gets a new value: whether that rotates its owner's DEK, and how one generation takes the place of another.

Policy 6.3b asks for a rotation whenever a token is regenerated, 3.5 for rotation by classification and threat level. An
access token that lives for an hour would be 720 rotations a month, each of them work that has to end.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from cryptocore.care.classes import Labels
from cryptocore.care.terms import Terms
from cryptocore.care.threat import Threats
from cryptocore.envelope import Owner
from cryptocore.events import Reason
from cryptocore.keys import KeyState
from cryptocore.store.key_store import StoreConflict, database_ms
from cryptocore.tokens import rows as token_rows
from cryptocore.tokens.rows import Ended, TokenRow

if TYPE_CHECKING:
    from cryptocore.parts import Parts

_ACTIVATED: Final = 2
"""The revision that activates a version. One that was changed since tells no more how old its DEK is."""


@cache
def packaged_terms() -> Terms:
    """Read the packaged terms, once."""
    return Terms.load()


async def is_due(parts: "Parts", owner: Owner, terms: Terms) -> bool:
    """Say whether the owner's DEK is to be rotated before a token of his gets a new value.

    1. Only a version that encrypts, of a known age, may stay; everything else is the rotation's to judge.
    2. Its classification and the threat level say how old it may be.

    Raises:
        KeyUnavailable: the store does not answer, or is not to be believed.
    """
    # 1
    newest = await parts.read(parts.store.newest, owner)
    if newest is None or not newest.newest or newest.record.state is not KeyState.ACTIVE:
        return True
    if newest.record.revision > _ACTIVATED:
        return True
    # 2
    label = await Labels(parts).of(newest.key_id.hex())
    level = (await Threats(parts).now()).level
    interval_ms = terms.regenerated_ms(None if label is None else label.classification, level)
    age_ms = await parts.ask(database_ms) - newest.record.changed_at_ms
    return not 0 <= age_ms < interval_ms


def replacing(
    before: TokenRow | None, row: TokenRow, actor: str, sent: Callable[[Connection], None]
) -> Callable[[Connection], None]:
    """Write a generation and what is `sent` with it; the one before ends in the same transaction, if it lives.

    Returns:
        What writes it; it raises StoreConflict when somebody changed the one before meanwhile.
    """

    def write(connection: Connection) -> None:
        if before is not None and before.info.ended_ms is None:
            ended = replace(
                before.info,
                ended_ms=database_ms(connection),
                ended_as=Ended.REGENERATED,
                ended_by=actor,
                ended_reason=Reason.TOKEN_REGENERATED.value,
            )
            if not token_rows.erase(connection, before, ended):
                raise StoreConflict
        token_rows.write(connection, row)
        sent(connection)

    return write
