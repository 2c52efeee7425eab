"""Key versions and DEKs for whoever is about to use them: from memory while that will do, else from store and vault.

One read of a version and one unwrap at a time, however many callers wait; a failure is remembered for a moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from copy import copy
from typing import Any, TypeVar

from cryptocore import forking
from cryptocore.audit import Refusal, StoreAway, Subject, not_believed, rolled_back
from cryptocore.cache import Entry, KeyCache
from cryptocore.clock import Clock
from cryptocore.dek import Dek
from cryptocore.envelope import Owner
from cryptocore.errors import KeyRecordRollback, KeyUnavailable, RecordInvalid
from cryptocore.events import Reason
from cryptocore.revocations import Heard
from cryptocore.store.key_store import KeyStore, KeyVersion
from cryptocore.vaultcalls import OUTAGE, VaultCalls, vault_refusal
from cryptocore.wrapping import KeyWrapper, algorithm_of

T = TypeVar("T")


class Keyring:
    """Finds key versions and unwraps their DEKs.

    Args:
        threads: read the store on threads; without, reads block, and their order is the program's.
    """

    def __init__(
        self,
        store: KeyStore,
        cache: KeyCache,
        calls: VaultCalls,
        wrappers: Mapping[str, KeyWrapper],
        *,
        clock: Clock,
        threads: bool,
    ) -> None:
        self._store = store
        self._cache = cache
        self._calls = calls
        self._wrappers = wrappers
        self._clock = clock
        self._threads = threads
        self._limits = cache.limits
        self._counts = cache.counts
        self._flights: dict[object, asyncio.Task[Any]] = {}
        self._failed: dict[object, tuple[float, Refusal]] = {}

    # --- versions --------------------------------------------------------------------------------------------------

    def fresh(self, entry: Entry | None) -> bool:
        """Say whether the store was asked lately enough."""
        return entry is not None and self._clock.monotonic() - entry.checked_at < self._limits.state_recheck_s

    async def version(self, key_id: bytes, number: int) -> Entry | None:
        """Find a key version; None when there is none.

        Raises:
            Refusal: the store does not answer, or is not to be believed.
        """
        entry = self._cache.get(key_id, number)
        if entry is not None and self.fresh(entry):
            return entry
        return await self._reread(("version", key_id, number), entry, lambda: self._read_version(key_id, number))

    async def newest(self, owner: Owner) -> Entry | None:
        """Find the version that encrypts for an owner, or the last one when none does; None when there is none.

        Raises:
            Refusal: the store does not answer, or is not to be believed.
        """
        entry = self._cache.newest(owner)
        if entry is not None and self.fresh(entry) and entry.version.newest:
            return entry
        return await self._reread(("newest", owner.encode()), entry, lambda: self._read_newest(owner))

    async def current(self, entry: Entry) -> Entry:
        """Say what is known of a version after a wait, in which it may have been revoked.

        Raises:
            Refusal: the store does not answer, or is not to be believed.
        """
        if self._cache.get(*_name(entry)) is entry and self.fresh(entry):
            return entry
        again = await self.version(*_name(entry))
        if again is None:
            raise not_believed("version: its row is gone")
        return again

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Ask the store something; its refusals to be believed become refusals of ours.

        Raises:
            Refusal: the store does not answer, or is not to be believed.
            StoreConflict: the key was changed meanwhile.
        """
        try:
            return await asyncio.to_thread(forking.whole, function, *args) if self._threads else function(*args)
        except RecordInvalid as err:
            raise not_believed(f"{err.field}: {err.problem}") from None
        except KeyRecordRollback as err:
            raise rolled_back(str(err)) from None
        except KeyUnavailable as err:
            raise StoreAway(str(err), retryable=err.retryable) from None

    def remember(self, version: KeyVersion, asked_at: float, *, newest: bool = False) -> Entry:
        """Take a version as the store said it was when it was asked.

        Raises:
            Refusal: this process has seen a later revision.
        """
        try:
            return self._cache.put(version, asked_at, newest=newest)
        except KeyRecordRollback as err:
            self._cache.forget(version.key_id)
            raise rolled_back(str(err)) from None
        except RecordInvalid as err:
            raise not_believed(f"{err.field}: {err.problem}") from None

    def changed(self, versions: list[KeyVersion]) -> None:
        """Forget what was remembered of versions that this process just changed, and remember their revisions."""
        for version in versions:
            self._cache.restrict(version.record, Heard.OWN, self._clock.monotonic())
            self._cache.forget(version.key_id)
            self._cache.forget_newest(version.owner)
            self._cache.saw(version)

    async def _read_version(self, key_id: bytes, number: int) -> Entry | None:
        asked_at, version = await self._ask(self._store.version, key_id, number)
        return None if version is None else self.remember(version, asked_at)

    async def _read_newest(self, owner: Owner) -> Entry | None:
        asked_at, version = await self._ask(self._store.newest, owner)
        return None if version is None else self.remember(version, asked_at, newest=True)

    async def _ask(self, function: Callable[..., KeyVersion | None], *args: Any) -> tuple[float, KeyVersion | None]:
        """Read a version; once more when a change was made, or seen, while the read was under way."""
        try:
            async with asyncio.timeout(self._limits.store_wait_s):
                asked_at = self._clock.monotonic()
                version = await self.run(function, *args)
                if version is not None and self._cache.is_behind(version):
                    asked_at = self._clock.monotonic()
                    version = await self.run(function, *args)
        except TimeoutError:
            raise StoreAway("the key store does not answer", retryable=True) from None
        return asked_at, version

    async def _reread(
        self, name: object, entry: Entry | None, read: Callable[[], Coroutine[Any, Any, Entry | None]]
    ) -> Entry | None:
        """Ask the store; when it does not answer, what it said lately holds until `state_max_age`."""
        try:
            return await self.once(name, read)
        except StoreAway:
            if entry is None or self._clock.monotonic() - entry.checked_at >= self._limits.state_max_age_s:
                raise
            return entry

    # --- DEKs ------------------------------------------------------------------------------------------------------

    def cached_dek(self, entry: Entry) -> Dek | None:
        """Give the DEK when it is in memory and good for another use, and count the use."""
        if entry.dek is None or entry.uses >= self._limits.dek_max_uses:
            return None
        if self._clock.monotonic() - entry.dek_at >= self._limits.dek_max_age_s:
            return None
        entry.uses += 1
        self._counts.cache_hits += 1
        return entry.dek

    async def dek(self, entry: Entry, subject: Subject) -> tuple[Dek, bool]:
        """Give the DEK of a version whose state permits the use.

        Returns:
            The DEK, and whether it lives on past its age because the vault does not answer.

        Raises:
            Refusal: it could not be had.
            AuditUnavailable: an event of the unwrap is not durable.
        """
        dek = self.cached_dek(entry)
        if dek is not None:
            return dek, False
        self._counts.cache_misses += 1
        try:
            dek = await self.once(("dek", *_name(entry)), lambda: self._unwrap(entry, subject))
        except Refusal as refusal:
            age = self._clock.monotonic() - entry.dek_at - self._limits.dek_max_age_s
            if entry.dek is not None and refusal.reason in OUTAGE and age < self._limits.vault_outage_grace_s:
                self._counts.outage_grace_uses += 1
                return entry.dek, True
            if refusal.reason not in OUTAGE:
                entry.dek = None
            raise
        return dek, False

    def wrapper(self, kek_alias: str) -> KeyWrapper:
        """Find the KEK of an alias.

        Raises:
            Refusal: this process is not configured for it.
        """
        wrapper = self._wrappers.get(kek_alias)
        if wrapper is None:
            raise vault_refusal(Reason.VAULT_NOT_FOUND, retryable=False)
        return wrapper

    async def _unwrap(self, entry: Entry, subject: Subject) -> Dek:
        version = entry.version
        wrapper = self.wrapper(version.record.kek_alias)
        if version.record.wrap_alg != algorithm_of(wrapper):
            raise not_believed(f"wrap_alg: {version.record.wrap_alg.name} is not what its KEK's wrapper does")
        secret = await self._calls.unwrap(
            wrapper,
            version.wrapped_dek,
            kek_version=version.record.kek_version,
            owner=version.owner,
            commitment=version.record.commitment,
            subject=subject.about(entry.key),
        )
        entry.dek, entry.dek_at, entry.uses = Dek(secret.reveal()), self._clock.monotonic(), 1
        return entry.dek

    # --- one at a time ---------------------------------------------------------------------------------------------

    async def once(self, name: object, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do work that several wait for once, in a task of its own, so that nobody's cancellation is everybody's."""
        failed = self._failed.get(name)
        if failed is not None:
            if self._clock.monotonic() < failed[0]:
                self._counts.failures_remembered += 1
                raise copy(failed[1])
            del self._failed[name]
        task: asyncio.Task[T] | None = self._flights.get(name)
        if task is None:
            task = self._flights[name] = asyncio.get_running_loop().create_task(work())
            task.add_done_callback(lambda done: self._landed(name, done))
        return await asyncio.shield(task)

    def _landed(self, name: object, task: "asyncio.Task[Any]") -> None:
        self._flights.pop(name, None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Refusal):
            if len(self._failed) >= self._limits.dek_max_entries:
                self._failed.clear()
            until = self._clock.monotonic() + self._limits.failure_s
            self._failed[name] = (until, copy(error))  # its traceback holds what the vault answered

    async def close(self) -> None:
        """Wait for what is under way, and forget every DEK."""
        flights: list[Awaitable[Any]] = list(self._flights.values())
        await asyncio.gather(*flights, return_exceptions=True)
        self._cache.clear()


def _name(entry: Entry) -> tuple[bytes, int]:
    return entry.version.key_id, entry.version.number
