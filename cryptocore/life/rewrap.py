"""Rewrap: the same DEKs under another version of their KEK, or under another KEK.

Everything but destroyed versions, the archived and revoked ones too: a KEK version may be disabled only when nothing
hangs on it. Optimistic and safe to run twice, by two processes at once, and again after a crash: what is under the
target already is left alone, and a row that somebody else moved on is not touched.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, select, tuple_

from cryptocore.audit import Refusal, Subject, not_believed
from cryptocore.cache import key_ref
from cryptocore.envelope import KEY_ID_SIZE
from cryptocore.errors import CoreError
from cryptocore.events import Operation
from cryptocore.keys import KeyAct, KeyReason, KeyState, permits
from cryptocore.life.revisions import WrappedDek
from cryptocore.parts import Parts
from cryptocore.store import cursors
from cryptocore.store.cursors import Pace, Progress
from cryptocore.store.key_store import Change, KeyVersion, StoreConflict
from cryptocore.store.tables import KEY_VERSION
from cryptocore.wrapping import algorithm_of

PAGE: Final = 64
"""Versions claimed and committed together: what a crash makes somebody do again."""
CONCURRENCY: Final = 32
MAX_FAILURES: Final = 20
"""Failures in a row after which a run stops: the vault, or the right to use it, is gone."""

_WORKERS: Final = 3
"""Pages under way at once, so that the vault is not idle while one of them is written."""

Name = tuple[bytes, int]


class Rewrap:
    """One run.

    Args:
        parts: of the core.
        alias: the KEK under which the DEKs are.
        to_alias: the KEK under which they shall be.
        kek_version: of `to_alias`.
        reason: what the events give.
        subject: who acts.
        concurrency: versions under way at once.
        per_second: versions begun in a second, at most.
        progress: is told after each page.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        alias: str,
        to_alias: str,
        kek_version: str,
        reason: KeyReason,
        subject: Subject,
        concurrency: int = CONCURRENCY,
        per_second: float | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._parts = parts
        self._alias = alias
        self._to = (to_alias, kek_version)
        self._reason = reason
        self._subject = subject
        self._turns = asyncio.Semaphore(max(1, concurrency))
        self._pace = Pace(per_second, parts.clock)
        self._tell = progress
        self._name = f"rewrap/{alias}/{to_alias}/{kek_version}"
        self._waiting = waiting(alias, to_alias, kek_version)
        self._progress = Progress()
        self._in_a_row = 0

    async def run(self) -> Progress:
        """Rewrap all that is not under the target.

        1. Pages behind the shared cursor, each claimed for this process alone.
        2. Everything that is left from the start: failed before, claimed by who died, or made meanwhile.

        Raises:
            CoreError: too many failures in a row; the last one's.
        """
        with contextlib.suppress(StoreConflict):
            await self._transaction(cursors.begin(self._name))
        total = await self._transaction(self._count)
        self._progress = Progress(total=total)
        # 1
        ended = await asyncio.gather(*(self._pages() for _ in range(_WORKERS)), return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException):
                raise error from None
        # 2
        cursor = cursors.START
        while page := await self._transaction(partial(self._find, behind=cursor)):
            await self._page(page)
            cursor = _cursor(page[-1])
        return self._progress

    async def _pages(self) -> None:
        claim = cursors.claim(self._name, self._find, _cursor)
        while page := await self._transaction(claim):
            await self._page(page)

    async def _page(self, page: Sequence[Name]) -> None:
        known = await self._read(page)
        made = await asyncio.gather(*(self._one(name, known.get(name)) for name in page), return_exceptions=True)
        changes = [change for change in made if isinstance(change, Change)]
        if changes:
            await self._write(changes)
        for error in made:
            if isinstance(error, BaseException):
                raise error from None
        if self._tell is not None:
            self._tell(self._progress)

    async def _read(self, page: Sequence[Name]) -> dict[Name, KeyVersion]:
        """Read a page at once; whatever is wrong is found by who reads a row that is missing here."""
        try:
            return await self._parts.keyring.run(self._parts.store.page, page)
        except Refusal:
            return {}

    async def _one(self, name: Name, known: KeyVersion | None) -> Change | None:
        """Wrap one DEK anew, and see that it comes back; the row is not written yet."""
        async with self._turns:
            if self._in_a_row >= MAX_FAILURES:
                return None
            await self._pace.turn()
            try:
                return await self._wrapped(name, known)
            except Refusal as refusal:
                await self._failed(name, refusal)
        return None

    async def _wrapped(self, name: Name, known: KeyVersion | None) -> Change | None:
        parts = self._parts
        version = known or await parts.keyring.run(parts.store.version, *name)
        if version is None or not self._needs(version):
            self._progress = replace(self._progress, skipped=self._progress.skipped + 1)
            return None
        subject = Subject(self._subject.actor, self._subject.purpose, version.owner.ref(), key_ref(version))
        try:
            wrapped = await self._moved(version, subject)
        except Refusal as refusal:
            refusal.key = subject.key
            raise
        self._in_a_row = 0
        return parts.lifecycle.revisions.rewrapped(version, wrapped, self._reason, subject)

    async def _moved(self, version: KeyVersion, subject: Subject) -> WrappedDek:
        parts, record = self._parts, version.record
        wrapper = parts.keyring.wrapper(record.kek_alias)
        if record.wrap_alg != algorithm_of(wrapper):
            raise not_believed(f"wrap_alg: {record.wrap_alg.name} is not what its KEK's wrapper does")
        dek = await parts.calls.unwrap(
            wrapper,
            version.wrapped_dek,
            kek_version=record.kek_version,
            owner=version.owner,
            commitment=record.commitment,
            subject=subject,
            control=True,
        )
        alias, kek_version = self._to
        return await parts.lifecycle.wraps.wrap(
            dek,
            version.key_id,
            version.number,
            version.owner,
            kek_alias=alias,
            subject=subject,
            kek_version=kek_version,
        )

    async def _write(self, changes: Sequence[Change]) -> None:
        """Write a page at once; when somebody else changed one of its versions meanwhile, each for itself."""
        try:
            await self._parts.lifecycle.apply(changes)
        except StoreConflict:
            if len(changes) == 1:  # it was changed: the look from the start takes it again, if it still needs it
                self._progress = replace(self._progress, skipped=self._progress.skipped + 1)
                return
            for change in changes:
                await self._write([change])
        else:
            self._progress = replace(self._progress, done=self._progress.done + len(changes))
            self._parts.relay.wake()

    async def _failed(self, name: Name, refusal: Refusal) -> None:
        """Leave the event of a failure and go on.

        Raises:
            CoreError: it was one too many.
        """
        self._in_a_row += 1
        self._progress = replace(self._progress, failed=self._progress.failed + 1)
        try:
            await self._parts.relay.refuse(Operation.REWRAP, self._subject.claiming(name[0]), refusal)
        except CoreError:
            if self._in_a_row >= MAX_FAILURES:
                raise

    def _needs(self, version: KeyVersion) -> bool:
        record = version.record
        under = (record.kek_alias, record.kek_version)
        return under[0] == self._alias and under != self._to and permits(record.state, version.newest, KeyAct.REWRAP)

    def _find(self, connection: Connection, behind: bytes) -> Sequence[Name]:
        where = self._waiting
        if behind:
            name = (behind[:KEY_ID_SIZE], int.from_bytes(behind[KEY_ID_SIZE:], "big"))
            where &= tuple_(KEY_VERSION.c.key_id, KEY_VERSION.c.version) > tuple_(*name)
        query = select(KEY_VERSION.c.key_id, KEY_VERSION.c.version).where(where)
        rows = connection.execute(query.order_by(KEY_VERSION.c.key_id, KEY_VERSION.c.version).limit(PAGE))
        return [(key_id, number) for key_id, number in rows]

    def _count(self, connection: Connection) -> int:
        query = select(func.count()).select_from(KEY_VERSION).where(self._waiting)
        return connection.execute(query).scalar_one()

    async def _transaction(self, work: Callable[[Connection], Any]) -> Any:
        try:
            return await self._parts.keyring.run(self._parts.store.transaction, work)
        except Refusal as refusal:
            raise refusal.public() from None


def waiting(alias: str, to_alias: str, kek_version: str) -> ColumnElement[bool]:
    """Say which rows, by their columns, are under a KEK and not yet under the target."""
    where = (KEY_VERSION.c.kek_alias == alias) & (KEY_VERSION.c.state != KeyState.DESTROYED.value)
    return where & (KEY_VERSION.c.kek_version != kek_version) if alias == to_alias else where


def _cursor(name: Name) -> bytes:
    return name[0] + name[1].to_bytes(4, "big")
