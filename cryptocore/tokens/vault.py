"""Tokens of other systems, kept for an owner: stored, used, regenerated, ended; each act with its event.

What it decides: whether a token lives, by the database's time, and that one which ended never comes back. The value is
an envelope of the owner's DEK whose record names the token, its generation and its expiry (docs/formats.md, "Tokens"),
so a row whose expiry somebody moved on opens as nothing. SQL is in rows.py; ending many in endings.py.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from cryptocore.audit import Refusal, Subject, no_arrow
from cryptocore.care.terms import Terms
from cryptocore.envelope import Header, Owner
from cryptocore.errors import TokenInvalid
from cryptocore.events import KeyRef, Operation, Outcome, Reason
from cryptocore.keys import KeyReason
from cryptocore.lines.texts import owner_parts
from cryptocore.store.key_store import database_ms, outbox_row
from cryptocore.tokens import rows as token_rows
from cryptocore.tokens.endings import Endings, Purged
from cryptocore.tokens.life import Read, check_expiry, check_value, living, next_generation, over, token_record
from cryptocore.tokens.rotation import is_due, packaged_terms, replacing
from cryptocore.tokens.rows import Ended, Reach, TokenInfo, TokenRow
from cryptocore.wrapping import Secret

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore
    from cryptocore.parts import Parts

LOOK_AGAIN_S: Final = 0.1
"""After so long between reading a row and opening its value, as when the vault was asked, the row is read again."""


class TokenVault:
    """Keeps tokens in the database of the core's keys. Actor and purpose are given with a call, or from context.

    Args:
        core: encrypts and decrypts; its store must be a database that has the tables of tokens.
        terms: say when a regenerated token rotates its owner's DEK; the packaged ones unless given.
    """

    def __init__(self, core: "CryptoCore", terms: Terms | None = None) -> None:
        self._core = core
        self._terms = terms or packaged_terms()

    @property
    def _parts(self) -> "Parts":
        """The core's parts as they are now: after a fork they are others."""
        return self._core.parts

    @property
    def _endings(self) -> Endings:
        return Endings(self._core.parts)

    def _monotonic(self) -> float:
        return self._core.parts.clock.monotonic()

    async def store(
        self,
        owner: Owner,
        token_id: str,
        value: bytes,
        *,
        expires_at_ms: int,
        actor: str | None = None,
        purpose: str | None = None,
        create_missing: bool = False,
    ) -> TokenInfo:
        """Keep a new token.

        Args:
            owner: whose it is.
            token_id: its name within the owner, 1 to 128 visible ASCII characters; it appears in events.
            value: up to 64 KiB.
            expires_at_ms: from then on, by the database's time, it cannot be used; bound into the ciphertext.
            create_missing: make a key when the owner never had one.

        Raises:
            InvalidTransition: there is such a token already (`regenerate` replaces it), or its time is over.
            TokenInvalid: name, value or expiry beyond their limits.
            CoreError: as `CryptoCore.encrypt`.
        """
        held, value = Secret(value), b""  # many a tool prints the variables of an error's frames
        subject = self._subject(owner, token_id, actor, purpose)
        check_value(held, expires_at_ms)

        async def work() -> TokenInfo:
            read = await self._read(owner, token_id)
            check_expiry(read, expires_at_ms, self._monotonic())
            if read.row is not None and read.row.info.ended_ms is None:
                if not read.is_over(self._monotonic()):
                    raise no_arrow("there is such a token; regenerate replaces it")
                await self._endings.one(Operation.TOKEN_EXPIRE, owner, subject, reason=KeyReason.SCHEDULED)
                read = await self._read(owner, token_id)
            planned = next_generation(owner, token_id, read, expires_at_ms)
            row = await self._encrypted(planned, held, subject, create_missing=create_missing)
            await self._write(Operation.TOKEN_STORE, row, subject)
            return row.info

        return await self._parts.acts.live(Operation.TOKEN_STORE, subject, work())

    async def use(self, owner: Owner, token_id: str, *, actor: str | None = None, purpose: str | None = None) -> bytes:
        """Give out the value of a token.

        1. Who acts.
        2. The token lives, by the database's time.
        3. Its ciphertext opens under its name, generation and expiry.
        4. It still lives, however long that took.
        5. The event is durable; only then the value is handed out.

        Raises:
            AccessDenied: there is no such token, or it ended, or its time is over.
            DecryptionFailed: the row is not what was stored, such as one whose expiry was moved on.
            CoreError: as `CryptoCore.decrypt`.
        """
        # 1
        subject = self._subject(owner, token_id, actor, purpose)
        await self._core.open()
        try:
            # 2
            read = await self._read(owner, token_id)
            row = living(read, self._monotonic())
            # 3
            record = token_record(row.info)
            held = Secret(
                await self._core.decrypt(
                    row.ciphertext, owner=owner, record=record, actor=subject.actor, purpose=subject.purpose
                )
            )
            # 4
            if self._monotonic() - read.monotonic >= LOOK_AGAIN_S:
                read = await self._read(owner, token_id)
                if living(read, self._monotonic()).info.generation != row.info.generation:
                    raise over(row.info, "was regenerated meanwhile")
            living(read, self._monotonic())
        except Refusal as refusal:
            return await self._parts.relay.refuse(Operation.TOKEN_USE, subject, refusal)
        # 5
        header = Header.parse(row.ciphertext)  # authenticated by now, as the columns are not
        about = subject.about(self._key(header.key_id, header.key_version))
        await self._parts.audit.record(self._parts.audit.event(Operation.TOKEN_USE, about, outcome=Outcome.SUCCEEDED))
        return held.reveal()

    async def regenerate(
        self,
        owner: Owner,
        token_id: str,
        value: bytes,
        *,
        expires_at_ms: int,
        actor: str | None = None,
        purpose: str | None = None,
    ) -> TokenInfo:
        """Replace a token that lives, or one that expired, by its new value; the DEK is rotated first (policy 6.3b).

        It is not where the terms give its classification an interval, and the DEK is younger (`token_rotation`).
        The old ciphertext is erased in the transaction that writes the new one. When the DEK cannot be rotated nothing
        has changed, and the call can be repeated.

        Raises:
            InvalidTransition: there is no such token, it was invalidated, or somebody changed it meanwhile.
            TokenInvalid: value or expiry beyond their limits.
            CoreError: as `CryptoCore.rotate` and `CryptoCore.encrypt`.
        """
        held, value = Secret(value), b""  # many a tool prints the variables of an error's frames
        subject = self._subject(owner, token_id, actor, purpose)
        check_value(held, expires_at_ms)

        async def work() -> TokenInfo:
            read = await self._read(owner, token_id)
            check_expiry(read, expires_at_ms, self._monotonic())
            if read.row is None or read.row.info.ended_as is Ended.INVALIDATED:
                raise no_arrow("there is no token to regenerate" if read.row is None else "the token was invalidated")
            if await is_due(self._parts, owner, self._terms):
                reason = KeyReason.TOKEN_REGENERATED
                await self._core.rotate(owner, reason=reason, actor=subject.actor, purpose=subject.purpose)
            planned = next_generation(owner, token_id, read, expires_at_ms)
            row = await self._encrypted(planned, held, subject, create_missing=False)
            await self._write(Operation.TOKEN_REGENERATE, row, subject, before=read.row)
            return row.info

        return await self._parts.acts.live(Operation.TOKEN_REGENERATE, subject, work())

    async def expire(
        self, owner: Owner, token_id: str, *, actor: str | None = None, purpose: str | None = None
    ) -> TokenInfo:
        """End a token whose time is over, or that nobody needs any more; `regenerate` may give it a new value.

        Needs the database only. A token that ended before is left as it is.

        Raises:
            InvalidTransition: there is no such token.
            KeyUnavailable: the database does not answer.
        """
        subject = self._subject(owner, token_id, actor, purpose)
        return await self._endings.one(Operation.TOKEN_EXPIRE, owner, subject, reason=KeyReason.SCHEDULED)

    async def invalidate(
        self,
        owner: Owner,
        token_id: str,
        *,
        reason: KeyReason = KeyReason.OPERATOR,
        actor: str | None = None,
        purpose: str | None = None,
        note: str | None = None,
    ) -> TokenInfo:
        """End a token for good: only `store` gives its name a value again. Errors as `expire`; the database only."""
        subject = self._subject(owner, token_id, actor, purpose)
        return await self._endings.one(Operation.TOKEN_INVALIDATE, owner, subject, reason=reason, note=note)

    async def invalidate_all(
        self,
        reach: Reach,
        *,
        reason: KeyReason,
        actor: str | None = None,
        purpose: str | None = None,
        note: str | None = None,
    ) -> int:
        """End every token of a tenant, of an integration, or under a key: for emergencies. The database only.

        Each hundred is one transaction, with an event for each token; repeat the call when it was cut off.

        Returns:
            How many ended.

        Raises:
            ConfigurationError: the reach names nothing.
            KeyUnavailable: the database does not answer; those before have ended.
        """
        subject = Subject.of(actor, purpose)
        return await self._endings.many(reach, subject, reason=reason, note=note)

    async def purge_expired(
        self, *, dry_run: bool = True, actor: str | None = None, purpose: str | None = None
    ) -> Purged:
        """Erase tokens whose time is over by the database's clock (policy 6.4c); by default only list them.

        Raises:
            KeyUnavailable: the database does not answer; those before have ended.
        """
        return await self._endings.purge(Subject.of(actor, purpose), dry_run=dry_run)

    async def tokens(self, reach: Reach | None = None, *, ended: bool = False, limit: int = 1_000) -> list[TokenInfo]:
        """List tokens, or tombstones with `ended`; no value is read, so there is no event.

        Raises:
            KeyUnavailable: the database does not answer.
        """
        return await self._parts.ask(lambda connection: token_rows.listed(connection, reach, ended=ended, limit=limit))

    # --- behind it -------------------------------------------------------------------------------------------------

    def _subject(self, owner: Owner, token_id: str, actor: str | None, purpose: str | None) -> Subject:
        if not owner_parts[token_id]:
            raise TokenInvalid("token_id", "not 1 to 128 visible ASCII characters")
        return replace(Subject.of(actor, purpose, owner.ref()), token_id=token_id)

    async def _read(self, owner: Owner, token_id: str) -> Read:
        monotonic = self._monotonic()

        def read(connection: Connection) -> Read:
            return Read(token_rows.latest(connection, owner, token_id), database_ms(connection), monotonic)

        return await self._parts.keyring.run(self._parts.store.transaction, read)

    async def _encrypted(self, planned: TokenInfo, held: Secret, subject: Subject, *, create_missing: bool) -> TokenRow:
        ciphertext = await self._core.encrypt(
            held.reveal(),
            owner=planned.owner,
            record=token_record(planned),
            actor=subject.actor,
            purpose=subject.purpose,
            create_missing=create_missing,
        )
        header = Header.parse(ciphertext)
        info = replace(planned, key_id=header.key_id.hex(), key_version=header.key_version)
        return TokenRow(info, ciphertext)

    async def _write(
        self, operation: Operation, row: TokenRow, subject: Subject, *, before: TokenRow | None = None
    ) -> None:
        """Write a generation and its event; the one before ends in the same transaction, if it lives."""
        self._parts.lifecycle.revisions.check_signer()  # without the role keys no relay would believe the event
        reason = Reason.TOKEN_REGENERATED if operation is Operation.TOKEN_REGENERATE else None
        about = subject.about(self._key(bytes.fromhex(row.info.key_id), row.info.key_version))
        event = self._parts.audit.event(operation, about, outcome=Outcome.SUCCEEDED, reason=reason)
        sent = outbox_row(event, self._parts.signer)

        write = replacing(before, row, subject.actor, sent)
        await self._parts.keyring.run(self._parts.store.transaction, write)

    def _key(self, key_id: bytes, version: int) -> KeyRef:
        entry = self._parts.cache.get(key_id, version)
        return KeyRef(id=key_id.hex(), version=version, kind="dek") if entry is None else entry.key
