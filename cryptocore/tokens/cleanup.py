"""Tokens whose time is over are erased on a schedule (policy 6.4c): a coroutine in each process, one runner a time."""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from cryptocore.context import acting
from cryptocore.errors import Failed
from cryptocore.store.key_store import database_ms
from cryptocore.tokens import rows as token_rows
from cryptocore.tokens.vault import TokenVault

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cryptocore.core import CryptoCore

_log = logging.getLogger(__name__)

JOB: Final = "token-cleanup"
JITTER: Final = 0.2
"""Part of the period by which each wait is shortened at random, so that a fleet does not ask all at once."""
_ACTOR: Final = "process:token-cleanup"
_PURPOSE: Final = "token-cleanup"


async def token_cleanup(core: "CryptoCore", every_s: float) -> None:
    """Erase expired tokens again and again, until cancelled; run it in each process, for example with its lifespan.

    Of all processes on one database, one erases in each period. A failure is logged and tried again next time.

    Args:
        core: of the process.
        every_s: the period; a token outlives its expiry, unusable, by at most so long.
    """
    while True:
        drawn = int.from_bytes(core.parts.ids(2), "big") / 0xFFFF
        await asyncio.sleep(every_s * (1 - JITTER * drawn))
        try:
            await clean_up(core, every_s)
        except Failed as err:
            _log.warning("expired tokens wait for the next clean-up: %s", err)


async def clean_up(core: "CryptoCore", every_s: float) -> int | None:
    """Erase expired tokens, unless another process did within most of the period.

    Returns:
        How many were erased; None when it was another one's turn.

    Raises:
        KeyUnavailable: the database does not answer.
    """
    parts = core.parts
    taken = partial(_taken, every_ms=int(every_s * 1000 * (1 - JITTER)))
    if not await parts.ask(taken):
        return None
    with acting(_ACTOR, _PURPOSE):
        return len((await TokenVault(core).purge_expired(dry_run=False)).tokens)


def _taken(connection: "Connection", *, every_ms: int) -> bool:
    return token_rows.take_turn(connection, JOB, now_ms=database_ms(connection), every_ms=every_ms)
