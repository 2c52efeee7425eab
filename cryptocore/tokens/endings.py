"""How tokens end: one by name, all that an emergency reaches, those whose time is over. Needs the database only.

A token's ciphertext is overwritten and taken away, its tombstone is written and its event put into the outbox in one
transaction: there is no flag that says "ended" beside a ciphertext that is still there. Neither spool, vault nor Kafka
is asked; also what is refused is told through the outbox.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sqlalchemy import Connection

from cryptocore.audit import Subject, no_arrow
from cryptocore.envelope import Owner
from cryptocore.errors import ConfigurationError
from cryptocore.events import Operation, Outcome, Reason
from cryptocore.keys import KeyReason
from cryptocore.parts import Parts
from cryptocore.store.key_store import StoreConflict, database_ms, outbox_row
from cryptocore.tokens import rows as token_rows
from cryptocore.tokens.rows import Ended, Reach, TokenInfo, TokenRow

CHUNK: Final = 100
"""Tokens that end in one transaction: short enough that nobody waits long for its locks."""
_ATTEMPTS: Final = 3
_ENDED_AS: Final = {Operation.TOKEN_EXPIRE: Ended.EXPIRED, Operation.TOKEN_INVALIDATE: Ended.INVALIDATED}
_OPERATIONS: Final = {
    Ended.EXPIRED: Operation.TOKEN_EXPIRE,
    Ended.INVALIDATED: Operation.TOKEN_INVALIDATE,
    Ended.REGENERATED: Operation.TOKEN_REGENERATE,
}


@dataclass(frozen=True, slots=True)
class Purged:
    """Tokens whose time was over: erased, or only found by a dry run."""

    tokens: tuple[TokenInfo, ...]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class _Ending:
    """How some tokens end, and what their events say."""

    operation: Operation
    subject: Subject
    reason: Reason | None
    note: str | None = None

    def of(self, info: TokenInfo, now_ms: int) -> TokenInfo:
        return replace(
            info,
            ended_ms=now_ms,
            ended_as=_ENDED_AS[self.operation],
            ended_by=self.subject.actor,
            ended_reason=None if self.reason is None else self.reason.value,
        )


class Endings:
    """Ends tokens of one database."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def one(
        self, operation: Operation, owner: Owner, subject: Subject, *, reason: KeyReason, note: str | None = None
    ) -> TokenInfo:
        """End the token that the subject names. One that ended before stays as it is, but an invalidation holds.

        Raises:
            InvalidTransition: there never was one.
            KeyUnavailable: the database does not answer.
        """
        ending = _Ending(operation, subject, _motive(reason), note)
        self._event(ending, subject)  # actor, purpose and note are of the format's form, or nothing is changed
        assert subject.token_id is not None
        return await self._parts.acts.in_database(self._one(ending, owner, subject.token_id))

    async def many(self, reach: Reach, subject: Subject, *, reason: KeyReason, note: str | None) -> int:
        """End every token within reach, a chunk at a time, until none lives.

        Raises:
            ConfigurationError: the reach names nothing.
            KeyUnavailable: the database does not answer; those of earlier chunks have ended.
        """
        if not reach.names_somebody:
            raise ConfigurationError("say which tokens: of a tenant, an integration, an owner or a key")
        ending = _Ending(Operation.TOKEN_INVALIDATE, subject, _motive(reason), note)
        self._event(ending, subject)
        return len(await self._parts.acts.in_database(self._chunks(ending, reach, expired=False)))

    async def purge(self, subject: Subject, *, dry_run: bool) -> Purged:
        """Erase tokens whose time is over, or list them.

        Raises:
            KeyUnavailable: the database does not answer; those of earlier chunks have ended.
        """
        ending = _Ending(Operation.TOKEN_EXPIRE, subject, Reason.SCHEDULED)
        self._event(ending, subject)
        if dry_run:
            return Purged(tuple(await self._expired()), dry_run=True)
        return Purged(
            tuple(await self._parts.acts.in_database(self._chunks(ending, Reach(), expired=True))), dry_run=False
        )

    # --- behind it -------------------------------------------------------------------------------------------------

    async def _one(self, ending: _Ending, owner: Owner, token_id: str) -> TokenInfo:
        def end(connection: Connection) -> TokenInfo | None:
            row = token_rows.latest(connection, owner, token_id)
            if row is None:
                refused = self._event(ending, ending.subject, refused=True)
                refused(connection)
                return None
            if _holds(row.info, ending.operation):
                return row.info
            ended = self._end(connection, _to_end(row), ending)
            if ended is None:
                raise StoreConflict
            return ended

        for attempt in range(_ATTEMPTS):
            try:
                ended = await self._parts.ask(end)
            except StoreConflict:
                if attempt + 1 == _ATTEMPTS:
                    raise
            else:
                if ended is None:
                    raise no_arrow("there is no such token").public() from None
                return ended
        raise AssertionError("the loop returns or raises")

    async def _chunks(self, ending: _Ending, reach: Reach, *, expired: bool) -> list[TokenInfo]:
        """End what is found until nothing is; a token that somebody ends meanwhile has its event from there."""
        ended: list[TokenInfo] = []

        def chunk(connection: Connection) -> tuple[int, list[TokenInfo]]:
            expired_ms = database_ms(connection) if expired else None
            found = token_rows.live(connection, reach, limit=CHUNK, expired_ms=expired_ms)
            done = (self._end(connection, row, ending) for row in found)
            return len(found), [info for info in done if info is not None]

        while True:
            found, done = await self._parts.ask(chunk)
            ended += done
            if not found:
                return ended

    async def _expired(self) -> list[TokenInfo]:
        found: list[TokenInfo] = []

        def page(connection: Connection, after: TokenInfo | None) -> list[TokenRow]:
            now_ms = database_ms(connection)
            return token_rows.live(connection, Reach(), limit=CHUNK, expired_ms=now_ms, after=after)

        while rows := await self._parts.ask(partial(page, after=found[-1] if found else None)):
            found += (row.info for row in rows)
        return found

    def _end(self, connection: Connection, row: TokenRow, ending: _Ending) -> TokenInfo | None:
        """End one row; None when it is not as it was read any more."""
        ended = ending.of(row.info, database_ms(connection))
        if row.info.ended_as is not None:
            token_rows.write(connection, TokenRow(ended, b""))
        elif not token_rows.erase(connection, row, ended):
            return None
        about = replace(ending.subject, owner=ended.owner.ref(), token_id=ended.token_id, key=ended.key)
        self._event(ending, about)(connection)
        return ended

    def _event(self, ending: _Ending, about: Subject, *, refused: bool = False) -> Callable[[Connection], None]:
        event = self._parts.audit.event(
            ending.operation,
            about,
            outcome=Outcome.DENIED if refused else Outcome.SUCCEEDED,
            reason=Reason.UNKNOWN_KEY if refused else ending.reason,
            note=ending.note,
        )
        return outbox_row(event, self._parts.signer)


def _holds(info: TokenInfo, operation: Operation) -> bool:
    """Say whether the token has ended so already; an invalidation is more than an expiry."""
    return info.ended_as is not None and operation in (Operation.TOKEN_EXPIRE, _OPERATIONS[info.ended_as])


def _to_end(row: TokenRow) -> TokenRow:
    """Give the row to end: of a tombstone, which does not change any more, a further one."""
    if row.info.ended_as is None:
        return row
    return TokenRow(replace(row.info, generation=row.info.generation + 1), b"")


def _motive(reason: KeyReason) -> Reason | None:
    return None if reason is KeyReason.NONE else Reason(reason.value)
